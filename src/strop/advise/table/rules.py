"""Reads the table of rules."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from strop.advise.table.conditions import Condition, condition

STAGES = ("evidence", "need", "prompt", "sampling", "base", "domain", "readiness", "teacher",
          "method")  # fmt: skip
"""In the order of the walk: is there something to measure with; is there a gap; would another
prompt close it, or more samples; can this model learn it; does it know the language of the domain;
was it taught to answer; is there a stronger model to learn from; from what to learn."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: all of `when` together give the `verdict`.

    `why` is the reason with the facts filled in, `counter` the case in which the rule is wrong,
    `rivals` the verdicts next to it with the reason against each, `work` what to do before it,
    `measure` what to measure first of all.
    """

    id: str
    stage: str
    verdict: str
    when: tuple[Condition, ...]
    why: str
    source: str
    counter: str
    rivals: Mapping[str, str]
    work: tuple[str, ...]
    measure: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Risk:
    """What may go wrong with some verdicts, and what watches it."""

    id: str
    verdicts: tuple[str, ...]
    when: tuple[Condition, ...]
    said: str
    guard: str


@dataclass(frozen=True, slots=True)
class Measure:
    """How an unknown fact becomes known: `cost` orders them, the cheapest first."""

    fact: str
    cost: float
    how: str


@dataclass(frozen=True, slots=True)
class Table:
    """All rules, risks and measures; `goals` maps words to goals."""

    rules: tuple[Rule, ...]
    risks: tuple[Risk, ...]
    measures: Mapping[str, Measure]
    goals: Mapping[str, Sequence[str]]


def read_table() -> Table:
    """The table of the package, `advise/files/rules.toml`."""
    text = files("strop.advise").joinpath("files/rules.toml").read_text(encoding="utf-8")
    return table_of(tomllib.loads(text))


def table_of(read: Mapping[str, Any]) -> Table:
    """The parts of a table as TOML gives them."""
    rules = tuple(
        Rule(
            row["id"], row["stage"], row["verdict"], tuple(map(condition, row["when"])),
            row["why"], row["source"], row["counter"], row.get("rivals", {}),
            tuple(row.get("work", ())), tuple(row.get("measure", ())),
        )
        for row in read["rule"]
    )  # fmt: skip
    risks = tuple(
        Risk(row["id"], tuple(row["verdicts"]), tuple(map(condition, row["when"])), row["said"],
             row["guard"])
        for row in read["risk"]
    )  # fmt: skip
    measures = {row["fact"]: Measure(row["fact"], row["cost"], row["how"])
                for row in read["measure"]}  # fmt: skip
    return Table(rules, risks, measures, read["goals"])
