"""`strop reward check | audit | probe` as a user meets them, and the figures they show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import StropError
from strop.stats.agreement import cohen_kappa
from strop.stats.auc import auc
from tests.support.runs import WriteRows

ROWS = [
    {"prompt": f"{n} + {n}", "answer": str(2 * n), "completion": text, "label": label}
    for n in range(1, 21)
    for text, label in (
        (f"<answer>{2 * n}</answer>", True), (f"it is {2 * n}", True),
        (f"<answer>{2 * n + 1}</answer>", False), ("no idea", n % 10 == 0),
    )
]  # fmt: skip
SFT = (
    "method: sft\nmodel: {path: m}\noutput: o\ndata: d\n"
    "optim: {learning_rate: 1.0e-5}\nrun: {steps: 1}\n"
)
GOOD = "reward:\n- {function: exact_answer}\n- {function: format_tags, weight: 0.2}\n"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["reward", *map(str, arguments)])


@pytest.fixture
def said(write_rows: WriteRows) -> Path:
    return write_rows("said.jsonl", ROWS)


def recipe(folder: Path, text: str) -> Path:
    path = folder / "reward.yaml"
    path.write_text(text)
    return path


def test_check_by_hand(said: Path, tmp_path: Path) -> None:
    """Of 80 completions 40 earn the answer, 40 the tags; 2 of the 42 liked ones say 'no idea'."""
    result = run("check", said, "--recipe", recipe(tmp_path, GOOD), "--json")
    found = json.loads(result.stdout)
    assert (found["completions"], found["groups"], found["unscored"]) == (80, 20, 0)
    assert found["mean"] == pytest.approx(0.5 + 0.2 * 0.5)
    assert found["components"]["exact_answer"]["mean"] == 0.5
    assert sum(found["histogram"]) == 80
    # totals of a group: 1.2, 1, 0.2, 0
    assert found["within_group_std"] == pytest.approx(np.std([1.2, 1.0, 0.2, 0.0]))
    # 78 of 80 agree; by chance 0.5 * 42/80 + 0.5 * 38/80 = 0.5
    assert found["kappa"] == pytest.approx((78 / 80 - 0.5) / 0.5)
    # of 42 x 38 pairs the two 'no idea' lose to 20 tagged wrong ones and tie with 18
    assert found["auc"] == pytest.approx(1 - 2 * (20 + 18 / 2) / (42 * 38))
    text = run("check", said, "--recipe", recipe(tmp_path, GOOD)).stdout
    assert "labels: kappa 0.950" in text
    assert max(map(len, text.splitlines())) <= 100


def test_kappa_and_auc_of_chance() -> None:
    assert cohen_kappa([True, True, False, False], [True, False, True, False]) == 0.0
    assert auc([1.0], [1.0]) == 0.5


def test_audit_exit_codes_and_fix(said: Path, tmp_path: Path) -> None:
    assert run("audit", said, "--recipe", recipe(tmp_path, GOOD)).exit_code == 0
    loud = GOOD.replace("0.2", "2.0")
    result = run("audit", said, "--recipe", recipe(tmp_path, loud))
    assert result.exit_code == 10
    assert "FAILS format_tags: can outvote exact_answer" in result.stdout
    assert "fix: set exact_answer weight: 2.5 or more, or gate: true" in result.stdout
    mended = loud.replace("{function: exact_answer}", "{function: exact_answer, weight: 2.5}")
    assert run("audit", said, "--recipe", recipe(tmp_path, mended)).exit_code == 0


def test_probe_exit_codes(write_rows: WriteRows, tmp_path: Path) -> None:
    tasks = [{"prompt": f"{n} + {n}?", "answer": str(2 * n)} for n in range(100, 190)]
    file = write_rows("tasks.jsonl", tasks)
    assert run("probe", file, "--recipe", recipe(tmp_path, GOOD)).exit_code == 0
    few = write_rows("few.jsonl", tasks[:4])
    assert run("probe", few, "--recipe", recipe(tmp_path, GOOD)).exit_code == 11
    weak = GOOD.replace(
        "format_tags, weight: 0.2",
        "length, options: {least: 40, most: 900, fall: 40, unit: characters}",
    )
    result = run("probe", file, "--recipe", recipe(tmp_path, weak), "--json")
    assert result.exit_code == 10
    verdicts = {row["probe"]: row["verdict"] for row in json.loads(result.stdout)}
    assert verdicts["length_padding_x2"] == "fails"
    assert verdicts["answer_spam"] == "holds"


@pytest.mark.parametrize(
    ("rows", "text", "problem"),
    [
        (ROWS, "reward:\n- {function: format_tags, options: {tags: [b]}}\n", "is 0 for all 80"),
        (ROWS, GOOD + "- {function: language, optional: true}\n", "language scored none of 80"),
        (ROWS, "reward:\n- {function: math_anser}\n", "unknown reward 'math_anser'"),
        (ROWS, "reward:\n- {function: exact_answer, weight: 0}\n", "weight 0 never counts"),
        (ROWS, SFT, "learns from no reward"),
        ([{"prompt": "p", "completion": "c"}], GOOD, "said.jsonl:1: .*reads the column `answer`"),
        ([{"prompt": "p"}], GOOD, "said.jsonl:1: needs `prompt` and `completion`"),
        ([{"prompt": "p", "completions": ["a", "b"], "labels": [1]}], GOOD, "2 completions and 1"),
        ([{"prompt": "p", "completion": "a", "label": "yes"}], GOOD, "`label` is 'yes'"),
    ],
)  # fmt: skip
def test_mistakes_get_one_clear_message(
    rows: list[Any], text: str, problem: str, write_rows: WriteRows, tmp_path: Path
) -> None:
    file = write_rows("said.jsonl", rows)
    with pytest.raises(StropError, match=problem) as told:
        CliRunner().invoke(
            app, ["reward", "check", str(file), "--recipe", str(recipe(tmp_path, text))],
            catch_exceptions=False,
        )  # fmt: skip
    assert told.value.exit_code == 2


TWO_KINDS = """
def code(prompts, completions, *, kind, **columns):
    return [float(len(c)) if k == "code" else None for c, k in zip(completions, kind)]

def maths(prompts, completions, *, kind, **columns):
    return [float(len(c)) if k == "maths" else None for c, k in zip(completions, kind)]
"""


def test_two_rewards_for_two_kinds_of_task(write_rows: WriteRows, tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO_KINDS)
    rows = [
        {"prompt": f"p{i}", "completion": "x" * (1 + i), "kind": kind}
        for i, kind in enumerate(("code", "code", "maths"))
    ]
    file = write_rows("said.jsonl", rows)
    text = "reward:\n- {file: two.py, function: code}\n- {file: two.py, function: maths}\n"
    said = "by every reward: code scored 2 of 3, maths scored 1 of 3"
    with pytest.raises(StropError, match=said) as told:
        CliRunner().invoke(
            app, ["reward", "check", str(file), "--recipe", str(recipe(tmp_path, text))],
            catch_exceptions=False,
        )  # fmt: skip
    assert "`optional: true`" in str(told.value)
    marked = text.replace("}", ", optional: true}")
    found = json.loads(run("check", file, "--recipe", recipe(tmp_path, marked), "--json").stdout)
    assert (found["unscored"], found["mean"]) == (0, 2.0)
    assert found["components"]["code"]["unscored"] == 1


def test_one_completion_a_prompt_says_nothing_of_groups(
    write_rows: WriteRows, tmp_path: Path
) -> None:
    file = write_rows("said.jsonl", [
        {"prompt": "2 + 2", "completion": "4", "answer": "4"},
        {"prompt": "2 + 3", "completion": "4", "answer": "5"},
    ])  # fmt: skip
    text = run("check", file, "--recipe", recipe(tmp_path, GOOD)).stdout
    assert "nan" not in text
    assert "in groups  one scored completion a prompt" in text
    found = json.loads(run("check", file, "--recipe", recipe(tmp_path, GOOD), "--json").stdout)
    assert (found["equal_groups"], found["within_group_std"]) == (None, None)


def test_several_completions_a_row_are_one_group(write_rows: WriteRows, tmp_path: Path) -> None:
    rows = [{"prompt": "2 + 2", "answer": "4", "completions": ["4", "5"], "labels": [True, False]}]
    file = write_rows("said.jsonl", rows)
    result = run("check", file, "--recipe", recipe(tmp_path, GOOD), "--json")
    found = json.loads(result.stdout)
    assert (found["groups"], found["kappa"], found["auc"]) == (1, 1.0, 1.0)
