"""What evals on servers are compared by."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from strop.evals.records import read_records
from strop.text.encode import Tokenizer
from strop.types import EvalRecord

QUIZ = {"kind": "choice", "name": "quiz", "data": "quiz.jsonl"}


def by_place(folder: Path, but: str) -> dict[tuple[str, str, int], EvalRecord]:
    """Records by task, item and sample, without entropies and without the task `but`."""
    found = {(r.task, r.item, r.sample): r for r in read_records(folder)}
    return {
        key: r for key, r in found.items()
        if not key[0].endswith("/entropy") and f"/{but}/" not in f"/{key[0]}/"
    }  # fmt: skip


def expect_equal(one: Path, other: Path, but: str = "-") -> None:
    """Equal answers and scores, log-probs to 1e-5; `but` is a task that is left out."""
    left, right = by_place(one, but), by_place(other, but)
    assert left
    assert left.keys() == right.keys()
    for key, record in left.items():
        mate = right[key]
        assert record.output == mate.output, key
        assert record.score == pytest.approx(mate.score, abs=1e-5), key
        assert record.details == pytest.approx(mate.details, abs=1e-4, rel=1e-5), key


def save_adapter(base: Path, tokenizer: Tokenizer, folder: Path) -> Path:
    """An adapter of rank 4 that changes what its base says."""
    torch.manual_seed(4)
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight += 0.1 * torch.randn(weight.shape)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
