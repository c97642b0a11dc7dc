"""Every chat template of the trl package: SFT, DPO and GRPO render and train on it, and what is
saved stops; the table in docs/templates.md is what strop does today; calls are read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from strop.demo.model import raw_model
from strop.recipe.loading.load import load_recipe
from strop.text.ends import ends_of
from strop.text.render import demonstration_tree
from strop.text.tools import Call, calls_in
from strop.train.run import train
from strop.types import Demonstration
from tests.oracle.released import (
    CASES,
    END_OF_TURN,
    HERE,
    SAID,
    TOOL,
    USER,
    names,
    speaker,
    table,
    told,
)
from tests.support import ROOT

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not names(), reason="the trl package is not installed"),
]

POSITIONS = 4096
SYNTAX_OF_ITS_OWN = ("deepseek", "diffusion_gemma", "gemma4", "muse")
"""Families whose calls `strop.text.tools` does not read."""


def run(folder: Path, method: str, model: Path, name: str, **changes: Any) -> Path:
    ends = next((list(t) for start, t in END_OF_TURN.items() if name.startswith(start)), [])
    recipe = {
        "method": method,
        "output": method,
        "model": str(model),
        "data": f"{method}.jsonl",
        "text": {"max_length": POSITIONS, "end_of_turn": ends},
        "optim": {"learning_rate": 1e-5, "schedule": "constant"},
        "run": {"steps": 1, "batch_size": 1},
        **changes,
    }
    path = folder / f"{method}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return train(load_recipe(path))


def generated(final: Path) -> str:
    """What `generate` says, asked as transformers' users ask; it has to stop by itself."""
    model, tokenizer = (
        kind.from_pretrained(final) for kind in (AutoModelForCausalLM, AutoTokenizer)
    )
    from strop.text.render import prompt_ids

    ids = prompt_ids(tokenizer, [USER])
    import torch

    asked = torch.tensor([ids])
    said = model.generate(asked, attention_mask=torch.ones_like(asked), max_new_tokens=120)
    new = said[0, len(ids) :].tolist()
    assert len(new) < 120, tokenizer.decode(new)
    assert new[-1] in ends_of(tokenizer)
    return str(tokenizer.decode(new))


@pytest.mark.parametrize("name", names())
def test_trains_saves_and_stops(name: str, tmp_path: Path) -> None:
    tokenizer = speaker(name)
    model = tmp_path / "model"
    raw_model(tokenizer, seed=0, width=32, positions=POSITIONS).save_pretrained(model)
    tokenizer.save_pretrained(model)
    rows = {
        "sft": {"prompt": [USER], "completion": [SAID]},
        "dpo": {"prompt": [USER], "chosen": [SAID], "rejected": [{**SAID, "content": "x = 4"}]},
        "grpo": {"prompt": [USER], "answer": "3"},
    }
    for method, line in rows.items():
        (tmp_path / f"{method}.jsonl").write_text(json.dumps(line) + "\n")
    final = run(
        tmp_path, "sft", model, name,
        optim={"learning_rate": 1e-2, "schedule": "constant"}, run={"steps": 60, "batch_size": 1},
    )  # fmt: skip
    assert "x = 3" in generated(final)
    final = run(tmp_path, "dpo", final, name)
    assert "x = 3" in generated(final)
    final = run(
        tmp_path, "grpo", final, name,
        reward=[{"function": "exact_answer"}], rollout={"group_size": 2, "max_tokens": 40},
    )  # fmt: skip
    assert "x = 3" in generated(final)


def test_the_docs_say_what_is_done() -> None:
    page = ROOT / "docs/templates.md"
    assert table() in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", names())
def test_calls_are_read_back(name: str) -> None:
    """What a template writes for a call is what `calls_in` reads, for every family it knows."""
    tokenizer = speaker(name)
    if told(tokenizer, "tools") not in ("yes", "yes, apart"):
        pytest.skip("the template writes no calls")
    if name.startswith(SYNTAX_OF_ITS_OWN):
        pytest.skip("a syntax that is not read")
    prompt, answer, columns = CASES["tools"]
    tree = demonstration_tree(tokenizer, Demonstration(prompt, answer[:1], columns, HERE))
    (branch,) = tree.branches
    learnt = [i for i, on in zip(branch.ids, branch.supervised, strict=True) if on]
    said = tokenizer.decode(learnt).rpartition("</think>")[2]
    for end in tokenizer.convert_ids_to_tokens(list(ends_of(tokenizer))):
        said = said.removesuffix("\n").removesuffix(end)
    assert calls_in(said.strip(), [TOOL]) == [Call("get_weather", {"city": "Bern"})]
