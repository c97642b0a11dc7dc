"""Real text, lengths and pairs go through every stage (not that a tiny model can do maths)."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType

import pytest

from strop.demo.model import raw_model, train_tokenizer
from strop.evals.run import run_suite
from strop.recipe.loading.load import load, load_recipe
from strop.recipe.suite import Suite
from strop.rewards.exact import exact_answer
from strop.tracking.runlog import read_rows
from strop.train.run import train
from tests.support import ROOT

EXAMPLE = ROOT / "examples/gsm8k"
DATA = Path(os.environ.get("STROP_DATA", ROOT.parent / "shared/data")) / "gsm8k"


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare", EXAMPLE / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_prepare_by_hand(prepare: ModuleType, tmp_path: Path) -> None:
    question = {"question": "How many legs have 2 dogs?"}
    solved = [
        {**question, "is_correct": True, "solution": "2*4=<<2*4=8>>8\nA: 8", "ground_truth": ""},
        {**question, "is_correct": False, "solution": "2+4=<<2+4=6>>6\nA: 6", "ground_truth": ""},
    ]
    for name, rows in (
        ("train", [{**question, "answer": "2*4=<<2*4=8>>8\n#### 8"}]),
        ("test", []),
        ("model_solutions", solved),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert not prepare.is_held_out(question["question"])
    counts = prepare.prepare(tmp_path, tmp_path / "out")
    assert counts == {"sft": 1, "pairs": 1, "tasks": 1, "test": 0}
    pair = json.loads((tmp_path / "out/pairs.jsonl").read_text())
    assert (pair["chosen"], pair["rejected"]) == ("\n2*4=8\n#### 8", "\n2+4=6\n#### 6")


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.exists(), reason=f"no public data at {DATA} (set STROP_DATA)")
class TestRealData:
    def test_the_verifier_agrees_with_the_published_labels(self, prepare: ModuleType) -> None:
        solved = list(prepare.rows(DATA, "model_solutions"))
        said = [prepare.plain(row["solution"]) for row in solved]
        gold = [prepare.plain(row["ground_truth"]) for row in solved]
        scores = exact_answer([""] * len(said), said, answer=gold)
        pairs = zip(scores, solved, strict=True)
        agreed = sum((score == 1.0) == row["is_correct"] for score, row in pairs)
        assert agreed / len(solved) >= 0.99

    def test_all_three_stages_and_the_eval(self, prepare: ModuleType, tmp_path: Path) -> None:
        for file in EXAMPLE.glob("*.yaml"):
            (tmp_path / file.name).write_text(file.read_text())
        counts = prepare.prepare(DATA, tmp_path / "data")
        assert counts["sft"] == counts["tasks"] == 7473
        assert counts["pairs"] > 1000
        assert 80 < counts["test"] < 200
        texts = (tmp_path / "data/sft.jsonl").read_text().splitlines()[:500]
        tokenizer = train_tokenizer(texts, vocabulary=800)
        tokenizer.model_max_length = 1024
        raw_model(tokenizer, seed=0, width=32, layers=1, positions=1024).save_pretrained(
            tmp_path / "base"
        )
        tokenizer.save_pretrained(tmp_path / "base")
        quick = ["run.batch_size=4", "model.dtype=float32"]
        sft = load_recipe(
            tmp_path / "sft.yaml", [*quick, "run={steps: 3, batch_size: 4}", "model.path=base"]
        )
        train(sft)
        train(load_recipe(tmp_path / "dpo.yaml", [*quick, "run={steps: 3, batch_size: 4}"]))
        # no maths from such a model: digits are reward enough for some groups to differ
        (tmp_path / "digits.py").write_text(
            "def digits(prompts, completions, **columns):\n"
            "    return [sum(ch.isdigit() for ch in c) / len(c or ' ') for c in completions]\n"
        )
        final = train(
            load_recipe(
                tmp_path / "grpo.yaml",
                [
                    *quick,
                    "run={steps: 2, batch_size: 2}",
                    "rollout={group_size: 4, max_tokens: 40}",
                    "reward=[{function: exact_answer}, {function: digits, file: digits.py}]",
                ],
            )
        )
        rows = list(read_rows(final.parent / "metrics.jsonl"))
        assert rows[-1]["grad_norm"] > 0
        assert rows[-1]["skipped/unscored"] == 0
        short = ["tasks.0.sampling={temperature: 0.0, max_tokens: 8}"]
        suite = load(Suite, tmp_path / "suite.yaml", short)
        result = run_suite(suite, str(final), tmp_path / "evals")
        judged = [record for record in result.records if record.task in result.scores]
        assert len(judged) == counts["test"]
