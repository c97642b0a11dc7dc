"""A dev suite measured by several processes gives the scores of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from strop.demo.world import all_equations, solution, user
from strop.distributed.world import ALONE, World
from strop.errors import UnscoredError
from strop.evals.jobs import Job
from strop.evals.measure import judged_together, pieces_of
from strop.recipe.loading.load import load_recipe
from strop.train.run import train
from strop.types import EvalRecord
from tests.support.gloo import Raised, in_processes
from tests.support.runs import EQUATIONS, WriteRows, metrics

OTHERS = [e for e in all_equations()[7::53] if e not in EQUATIONS]
SAMPLED = {"temperature": 1.0, "max_tokens": 8}

REWARDS = """
import os
import pathlib


def brevity(prompts, completions, **columns):
    pathlib.Path(__file__).with_name(f"judged-{os.environ.get('RANK')}").touch()
    return [1.0 / (1 + len(c[-1]["content"])) for c in completions]


def picky(prompts, completions, only, **columns):
    return [float(len(c[-1]["content"])) if one else None for c, one in zip(completions, only)]
"""

OWN = """
def evaluate(generate, seed):
    for number, said in enumerate(generate(["2x = 6", "3x = 9"], max_tokens=4)):
        yield {"item": str(number), "score": len(said) / 10}
"""


@pytest.fixture
def suite(write_rows: WriteRows, tmp_path: Path) -> Path:
    """Tasks of several kinds; a prompt stands in the first one three times, with other answers each
    time, and all but one of its items are left unscored by one of its rewards."""
    prompts = [user(e) for e in (OTHERS[0], *OTHERS[:5], OTHERS[0])]
    write_rows("few.jsonl", [{"prompt": p, "only": n == 2} for n, p in enumerate(prompts)])
    pairs = [
        {"prompt": user(e), "chosen": solution(e), "rejected": solution(e, filler=True)}
        for e in OTHERS[6:15]
    ]
    write_rows("held.jsonl", pairs)
    write_rows("texts.jsonl", [{"text": solution(e)} for e in OTHERS[:5]])
    (tmp_path / "dev_rewards.py").write_text(REWARDS)
    (tmp_path / "own.py").write_text(OWN)
    scores = [{"function": name, "file": "dev_rewards.py"} for name in ("brevity", "picky")]
    tasks: list[dict[str, Any]] = [
        {"kind": "generate", "name": "said", "data": "few.jsonl", "sampling": SAMPLED,
         "scores": scores, "samples": 2},
        {"kind": "preference", "name": "pairs", "data": "held.jsonl"},
        {"kind": "perplexity", "name": "texts", "data": "texts.jsonl"},
        {"kind": "python", "name": "own", "file": "own.py"},
    ]  # fmt: skip
    path = tmp_path / "dev.yaml"
    path.write_text(yaml.safe_dump({"name": "dev", "seed": 5, "tasks": tasks}))
    return path


def part(world: World, path: Path, options: list[str]) -> None:
    train(load_recipe(path, options), world=world)


@pytest.mark.parametrize("method", ["sft", "reward_model"])
def test_the_scores_are_those_of_one_process(
    method: str, suite: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    if method == "reward_model":
        tasks = yaml.safe_load(suite.read_text())["tasks"][1:2]
        suite.write_text(yaml.safe_dump({"name": "dev", "tasks": tasks}))
    dev = {"suite": str(suite), "every": 2, "metric": "pairs"}
    options = [f"dev={json.dumps(dev)}", "run.steps=2"]
    part(ALONE, recipes[method], [*options, f"output={tmp_path / 'one'}"])
    for judged in tmp_path.glob("judged-*"):
        judged.unlink()
    whole = [*options, f"output={tmp_path / 'three'}"]
    assert in_processes(3, part, recipes[method], whole) == [None] * 3
    for row, same in zip(metrics(tmp_path / "three"), metrics(tmp_path / "one"), strict=True):
        names = [name for name in same if name.startswith("dev/")]
        assert names == [name for name in row if name.startswith("dev/")]
        for name in names:
            assert row[name] == pytest.approx(same[name], abs=1e-6), name
    first = metrics(tmp_path / "three")[0]
    if method == "sft":
        assert sorted(p.name for p in tmp_path.glob("judged-*")) == [
            "judged-0",
            "judged-1",
            "judged-2",
        ]
        assert {"dev/said/brevity", "dev/said/picky", "dev/pairs", "dev/own"} < first.keys()
    else:
        assert first.keys() == {"step", "dev/pairs"}


def scored(rows: Any) -> list[EvalRecord]:
    """Nothing but the row 7 can be scored."""
    if 7 not in rows:
        raise UnscoredError(f"none of {list(rows)} could be scored")
    return [EvalRecord("t", str(row), 1.0 if row == 7 else None, str(row)) for row in rows]


def judged(world: World, rows: list[int]) -> list[str]:
    return [one.item for one in judged_together([Job("t", rows, 4, scored)], world)]


def test_a_share_without_a_score_is_no_error_and_a_part_without_one_is() -> None:
    assert in_processes(2, judged, [5, 6, 7, 8]) == [["5", "6", "7", "8"]] * 2
    first, other = in_processes(2, judged, [5, 6, 7, 8, 9, 10])
    assert isinstance(first, Raised)
    assert (first.kind, first.said) == ("UnscoredError", "none of [9, 10] could be scored")
    assert other.kind == "OtherProcessError"


def test_equal_prompts_of_a_part_are_not_parted() -> None:
    job = Job("t", ["a", "b", "a", "c", "a"], 4, scored, together=lambda row: str(row))
    assert [(one.part, one.rows) for one in pieces_of([job])] == [
        (0, (0, 2)), (0, (1,)), (0, (3,)), (1, (0,)),
    ]  # fmt: skip
