"""Walks the table: the verdict, what stands next to it, what may go wrong, what to measure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from strop.advise.facts import DERIVED, Facts, value_of
from strop.advise.table.conditions import Condition, spoken
from strop.advise.table.rules import STAGES, Measure, Risk, Rule, Table

UNDECIDED = "not_enough_to_decide"
RUNNERS_UP = 2
MEASURES = 2
WANTED = {"tasks": 200, "prompts": 300, "thumbs": 500, "demonstrations": 300}
"""How many there should be, where there are too few."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of a rule: it `fired`, was `missed` by a condition, or is `open` because a fact
    is unknown. `Seen(rule, "missed", (Condition("pairs", ">=", 100.0),))`."""

    rule: Rule
    outcome: str
    by: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """`RunnerUp("simpo", "Its advantage is length bias, which is not there.")`."""

    verdict: str
    why_not: str


@dataclass(frozen=True, slots=True)
class Advice:
    """What the table says: `Advice("dpo", "1200 pairs of 1100 prompts ...", ...)`.

    `rules` are the ids of all rules that fired, the deciding one first; `work` is to be done before
    training, `measure_next` are the cheapest facts that could change the verdict.
    """

    verdict: str
    why: str
    source: str
    counter: str
    runners_up: tuple[RunnerUp, ...]
    risks: tuple[Mapping[str, str], ...]
    rules: tuple[str, ...]
    work: tuple[str, ...]
    measure_next: tuple[str, ...]
    seen: tuple[Seen, ...]
    facts: Facts

    def plain(self) -> dict[str, Any]:
        """As JSON, without what `--explain` adds."""
        known = {name: value for name, value in asdict(self.facts).items() if value is not None}
        derived = {name: value_of(self.facts, name) for name in DERIVED}
        return {
            "verdict": self.verdict,
            "why": self.why,
            "source": self.source,
            "counter": self.counter,
            "runners_up": [asdict(one) for one in self.runners_up],
            "risks": [dict(one) for one in self.risks],
            "rules": list(self.rules),
            "work": list(self.work),
            "measure_next": list(self.measure_next),
            "facts": known | {name: value for name, value in derived.items() if value is not None},
        }


def advise(facts: Facts, table: Table) -> Advice:
    """The first rule that fires, stage by stage; `not_enough_to_decide` where none does."""
    seen = [look(rule, facts) for stage in STAGES for rule in table.rules if rule.stage == stage]
    fired = [one.rule for one in seen if one.outcome == "fired"]
    open_ = [one for one in seen if one.outcome == "open"]
    said = _filled(facts)
    if not fired:
        return Advice(
            UNDECIDED,
            "What is known does not decide it: " + _unknown(open_) + ".",
            "", "", tuple(_candidates(open_)), _risks(UNDECIDED, facts, table, said), (), (),
            _measures(open_, table), tuple(seen), facts,
        )  # fmt: skip
    rule, before = fired[0], _before(open_, fired[0])
    return Advice(
        rule.verdict,
        rule.why.format_map(said),
        rule.source,
        rule.counter.format_map(said),
        tuple(_runners_up(rule, fired[1:], open_, said)),
        _risks(rule.verdict, facts, table, said),
        tuple(one.id for one in fired),
        tuple(line.format_map(said) for line in rule.work),
        (*rule.measure, *_measures(before or open_, table))[:MEASURES],
        tuple(seen),
        facts,
    )


def look(rule: Rule, facts: Facts) -> Seen:
    """Whether a rule fires. One missed condition decides, whatever else is unknown."""
    answers = [(one, one.holds(facts)) for one in rule.when]
    missed = tuple(one for one, holds in answers if holds is False)
    unknown = tuple(one for one, holds in answers if holds is None)
    if missed:
        return Seen(rule, "missed", missed)
    return Seen(rule, "open", unknown) if unknown else Seen(rule, "fired")


def _before(open_: Sequence[Seen], rule: Rule) -> list[Seen]:
    """Open rules of stages before a rule's, or of its own: they could have decided otherwise."""
    place = STAGES.index(rule.stage)
    return [
        one for one in open_
        if STAGES.index(one.rule.stage) <= place and one.rule.verdict != rule.verdict
    ]  # fmt: skip


def _runners_up(
    rule: Rule, later: Sequence[Rule], open_: Sequence[Seen], said: Mapping[str, Any]
) -> list[RunnerUp]:
    """What the walk would say without this rule, then the rivals that the table names; without an
    eval, whatever else the data may fit."""
    found = {
        one.verdict: f"It would be next, were it not for {rule.verdict}. {one.why.format_map(said)}"
        for one in later[:1]
    }
    for verdict, why_not in rule.rivals.items():
        found.setdefault(verdict, why_not.format_map(said))
    if rule.verdict == "no_eval":
        fitting = [one for one in open_ if one.rule.stage == "method"]
        for one in _candidates(fitting):
            found.setdefault(one.verdict, one.why_not)
    found.pop(rule.verdict, None)
    return [RunnerUp(verdict, why) for verdict, why in list(found.items())[:RUNNERS_UP]]


def _candidates(open_: Sequence[Seen]) -> list[RunnerUp]:
    """The verdicts that are closest where nothing is decided: those with the fewest unknowns."""
    found: dict[str, str] = {}
    for one in sorted(open_, key=lambda one: (len(one.by), -STAGES.index(one.rule.stage))):
        wanted = " and ".join(condition.wanted() for condition in one.by)
        found.setdefault(one.rule.verdict, f"It is not known whether {wanted}.")
    return [RunnerUp(verdict, why) for verdict, why in list(found.items())[:RUNNERS_UP]]


def _unknown(open_: Sequence[Seen]) -> str:
    names = dict.fromkeys(spoken(one.fact) for seen in open_ for one in seen.by)
    return f"unknown are {', '.join(names)}" if names else "no rule fits these facts"


def _measures(open_: Sequence[Seen], table: Table) -> tuple[str, ...]:
    """The one or two cheapest measurements among the unknown facts."""
    facts = dict.fromkeys(name for one in open_ for held in one.by for name in _behind(held.fact))
    known: list[Measure] = [table.measures[fact] for fact in facts if fact in table.measures]
    ordered = dict.fromkeys(one.how for one in sorted(known, key=lambda one: one.cost))
    return tuple(ordered)[:MEASURES]


def _behind(fact: str) -> tuple[str, ...]:
    """The facts to measure for a derived one."""
    return {
        "only_form_is_missing": ("unformatted", "pass_1"),
        "samples_right_answers": ("pass_1",),
    }.get(fact, (fact,))


def _risks(
    verdict: str, facts: Facts, table: Table, said: Mapping[str, Any]
) -> tuple[dict[str, str], ...]:
    held: list[Risk] = [
        risk for risk in table.risks
        if verdict in risk.verdicts and all(one.holds(facts) for one in risk.when)
    ]  # fmt: skip
    return tuple(
        {"id": risk.id, "said": risk.said.format_map(said), "guard": risk.guard} for risk in held
    )


def _filled(facts: Facts) -> Mapping[str, Any]:
    """The facts as a rule's sentences name them, with what follows from them."""
    noise = facts.noise or 0.0
    return {
        **{name: _Said(value) for name, value in asdict(facts).items()},
        "noise_factor": _Said(1 / max(1e-9, (1 - 2 * noise) ** 2)),
        "noise_said": _noise_said(facts),
        "clean_pairs": _Said(facts.clean_pairs),
        **_length_said(facts.longer_wins),
        "unverifiable": _Said(None if facts.verifiable is None else 1 - facts.verifiable),
        **{f"{kind}_wanted": _Said(_wanted(kind, facts)) for kind in WANTED},
    }


def _noise_said(facts: Facts) -> str:
    if not facts.noise_items:
        return "nothing was labelled twice, so how many labels are wrong is not known"
    return f"{facts.noise or 0.0:.0%} of the labels are wrong by {facts.noise_items:,} comparisons"


def _length_said(longer_wins: float | None) -> Mapping[str, Any]:
    """Which length is chosen, and with what chance."""
    if longer_wins is None:
        return {"length_wins": "longer", "length_chance": _Said(None)}
    shorter = longer_wins < 0.5
    chance = 1 - longer_wins if shorter else longer_wins
    return {"length_wins": "shorter" if shorter else "longer", "length_chance": _Said(chance)}


def _wanted(kind: str, facts: Facts) -> int:
    held = facts.prompts if kind in ("tasks", "prompts") else value_of(facts, kind)
    return max(1, WANTED[kind] - (held if isinstance(held, int) else 0))


@dataclass(frozen=True, slots=True)
class _Said:
    """A value in a sentence: its own format, or "unknown"."""

    value: Any

    def __format__(self, form: str) -> str:
        if self.value is None:
            return "unknown"
        if isinstance(self.value, float) and not math.isfinite(self.value):
            return "unbounded"
        if isinstance(self.value, int) and not isinstance(self.value, bool) and not form:
            return f"{self.value:,}"
        return format(self.value, form)
