"""The table itself: no two rules contradict each other, and it says nothing that it cannot."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import combinations

import pytest

from strop.advise.advice import advise
from strop.advise.facts import Facts
from strop.advise.page import TITLES
from strop.advise.recipes import TRAINS
from strop.advise.table.conditions import Condition, condition
from strop.advise.table.rules import STAGES, Rule, read_table
from strop.recipe.train.alarm import PairAlarms, PolicyAlarms
from strop.recipe.train.policy import ClipObjective
from strop.recipe.train.preference import DpoObjective

TABLE = read_table()
UNKNOWN = object()


def both_can_hold(one: Rule, other: Rule) -> bool:
    """Whether some facts meet all conditions of both: facts are looked at one by one, so it can
    err only towards yes."""
    held = [*one.when, *other.when]
    return all(
        any(all(meets(value, c) for c in held if c.fact == fact) for value in values(fact, held))
        for fact in {c.fact for c in held}
    )


def values(fact: str, held: list[Condition]) -> Iterator[object]:
    """Every value of a fact that conditions can tell apart: unknown, each bound and what lies just
    beside it, every word."""
    yield UNKNOWN
    yield from (True, False)
    for c in held:
        if c.fact == fact and isinstance(c.value, float):
            yield from (c.value, math.nextafter(c.value, -1e9), math.nextafter(c.value, 1e9))
        elif c.fact == fact and isinstance(c.value, str):
            yield from (c.value, "another")


def meets(value: object, c: Condition) -> bool:
    if c.relation == "known":
        return (value is not UNKNOWN) == c.value
    if value is UNKNOWN or isinstance(value, bool) != (c.relation == "is"):
        return False
    if isinstance(value, str) != isinstance(c.value, str):
        return False
    return Condition("score", c.relation, c.value).holds(Facts(score=value)) is True  # type: ignore[arg-type]


def test_the_enumeration_sees_a_planted_contradiction() -> None:
    clean = next(rule for rule in TABLE.rules if rule.id == "clean_pairs")
    wider = tuple(c for c in clean.when if c.relation != "is")
    biased = next(rule for rule in TABLE.rules if rule.id == "length_decides")
    assert not both_can_hold(clean, biased)
    assert both_can_hold(Rule("planted", clean.stage, "dpo", wider, "", "", "", {}, ()), biased)


@pytest.mark.parametrize("stage", STAGES)
def test_no_two_rules_of_a_stage_contradict(stage: str) -> None:
    rules = [rule for rule in TABLE.rules if rule.stage == stage]
    assert rules
    clash = [
        (one.id, other.id)
        for one, other in combinations(rules, 2)
        if one.verdict != other.verdict and both_can_hold(one, other)
    ]
    assert clash == []


def test_every_row_is_whole() -> None:
    assert len({rule.id for rule in TABLE.rules}) == len(TABLE.rules)
    for rule in TABLE.rules:
        assert rule.stage in STAGES
        assert {rule.verdict, *rule.rivals} <= set(TITLES)
        assert all((rule.when, rule.why, rule.source, rule.counter)), rule.id
        assert rule.verdict not in rule.rivals
    assert {rule.verdict for rule in TABLE.rules} == set(TITLES), "every verdict has a rule"
    assert set(TRAINS) <= set(TITLES)


def test_guards_name_alarms_and_options_that_there_are() -> None:
    alarms = {*PolicyAlarms.model_fields, *PairAlarms.model_fields}
    options = {*ClipObjective.model_fields, *DpoObjective.model_fields}
    named = [name for risk in TABLE.risks for said in re.findall(r"alarms? ([\w ]+)", risk.guard)
             for name in said.split(" and ")]  # fmt: skip
    assert len(named) >= 5
    assert set(named) <= alarms
    told = {name for risk in TABLE.risks for name in re.findall(r"objective\.(\w+)", risk.guard)}
    assert told <= options
    assert told


def test_one_missed_condition_decides_whatever_is_unknown() -> None:
    rules = {seen.rule.id: seen for seen in advise(Facts(data=True, pairs=10), TABLE).seen}
    assert rules["thumbs"].outcome == "missed", "its signal is pairs"
    assert rules["target_is_met"].outcome == "open"


@pytest.mark.parametrize("text", ["pairs", "not length_bias", "unknown gap", "gap_low <= 0",
                                  "signal == pairs"])  # fmt: skip
def test_conditions_are_read(text: str) -> None:
    assert condition(text).fact in text


@pytest.mark.parametrize("text", ["pears >= 3", "pairs =< 3", "not pairs >= 3", "pairs >="])
def test_other_words_are_no_conditions(text: str) -> None:
    with pytest.raises(ValueError, match=r"condition|takes no"):
        condition(text)


def test_pairs_and_their_noise_by_hand() -> None:
    assert Facts(pairs=2000, noise=0.2).clean_pairs == pytest.approx(2000 * 0.36)
    assert Facts(pairs=2000).clean_pairs is None
    assert Facts(length_bias=True, lengths_apart=0.2).length_decides
    assert not Facts(length_bias=True, lengths_apart=0.19).length_decides
    assert not Facts(length_bias=False, lengths_apart=0.9).length_decides
    assert Facts(near_identical=0.1).nearly_one_answer
    assert not Facts(near_identical=0.09).nearly_one_answer
    assert not Facts().nearly_one_answer
