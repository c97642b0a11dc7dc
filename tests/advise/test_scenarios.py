"""The scenario book: every rule at its edge, on both sides."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from strop.advise.advice import UNDECIDED
from strop.advise.run import Answered, answer
from strop.advise.table.rules import read_table
from tests.support.advised import question_of

BOOK = Path(__file__).with_name("scenarios")


@cache
def cases() -> list[dict[str, Any]]:
    return [
        case | {"file": path.stem}
        for path in sorted(BOOK.glob("*.toml"))
        for case in tomllib.loads(path.read_text(encoding="utf-8"))["case"]
    ]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answered]:
    return {
        case["name"]: answer(question_of(case, tmp_path_factory.mktemp("case"))) for case in cases()
    }


def test_the_book_is_large_and_its_names_differ() -> None:
    assert len(cases()) >= 60
    assert len({case["name"] for case in cases()}) == len(cases())
    assert all(case["because"] and case["source"] for case in cases())


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"])
def test_scenario(case: dict[str, Any], answers: dict[str, Answered]) -> None:
    said = answers[case["name"]].plain()
    assert said["verdict"] == case["expect"], said["why"]
    assert len(said["runners_up"]) <= 2
    if "runner_up" in case:
        assert said["runners_up"][0]["verdict"] == case["runner_up"]
    if "recipe" in case:
        assert said["recipe"]["method"] == case["recipe"]
    assert set(case.get("risks", ())) <= {risk["id"] for risk in said["risks"]}
    if "measure" in case:
        assert any(case["measure"] in line for line in said["measure_next"])
    if said["verdict"] != UNDECIDED:
        told = [said["why"], said["counter"], *said["work"]]
        told += [one["why_not"] for one in said["runners_up"]]
        assert not any("unknown" in line for line in told), "a sentence names what is not known"
    if said["verdict"] == UNDECIDED:
        assert 1 <= len(said["measure_next"]) <= 2, "the one or two cheapest"


def test_every_rule_decides_a_scenario(answers: dict[str, Answered]) -> None:
    deciding = {one.advice.rules[0] for one in answers.values() if one.advice.rules}
    assert {rule.id for rule in read_table().rules} - deciding == set()


def test_every_condition_is_missed_in_a_scenario(answers: dict[str, Answered]) -> None:
    missed = {
        (seen.rule.id, condition)
        for one in answers.values()
        for seen in one.advice.seen
        if seen.outcome == "missed"
        for condition in seen.by
    }
    for rule in read_table().rules:
        for condition in rule.when:
            assert (rule.id, condition) in missed, f"{rule.id}: {condition.wanted()}"
