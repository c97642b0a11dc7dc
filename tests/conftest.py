"""Tiny models and data, made once per test session."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from strop.demo.model import raw_model, train_tokenizer
from strop.demo.world import all_equations, solution

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

WriteRows = Callable[[str, Sequence[Mapping[str, Any]]], Path]


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The demo's tokenizer: digits apart, two roles, EOS `<|end|>`."""
    texts = [text for e in all_equations()[::7] for text in (e.question, solution(e))]
    return train_tokenizer(texts, vocabulary=325)


@pytest.fixture(scope="session")
def model_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Qwen3 of three narrow layers with that tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    model = raw_model(tokenizer, seed=0, width=32)
    for parameter in model.parameters():  # larger weights than at birth: sharper, less forgiving
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Write rows as JSONL under the test's own folder."""

    def write(name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write
