"""Conditions of rules, as the table writes them: `"pairs >= 100"`, `"signal == thumbs"`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from strop.advise.facts import NAMES, Facts, value_of

_FORM = re.compile(r"(known|unknown|not)? ?(\w+)(?: (<=|>=|==|!=|<|>) (\S+))?")
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_SAID = {
    "<=": "at most",
    ">=": "at least",
    "<": "below",
    ">": "above",
    "==": "",
    "!=": "other than",
}


_SPOKEN = {
    "pass_1": "pass@1", "pass_k": "pass@k", "gap": "the gap to the target",
    "gap_low": "the low end of the gap", "prompted_gap": "the gap under another prompt",
    "sampling_k": "the number of answers from which a vote meets the target",
    "users": "users a week", "goal": "the goal in words", "verifiable": "the checkable share",
    "noise": "the share of wrong labels", "noise_items": "labels that were given twice",
    "cyclic": "the share of prompts whose preferences run in a circle",
    "liked": "the share of thumbs up", "plateau": "SFT has flattened",
    "tuned": "the model was taught to answer", "samples_right_answers": "it samples right answers",
    "only_form_is_missing": "only the form is missing",
    "length_bias": "length tells the better answer",
    "length_decides": "length tells the better answer, and differs by much",
    "nearly_one_answer": "many pairs hold nearly one answer twice",
    "clean_pairs": "clean labels that would teach as much",
    "near_identical": "the share of nearly identical pairs", "score": "the score",
    "domain_ratio": "how foreign the documents are", "data": "data was given",
    "evaluated": "an eval was given", "prompts": "different prompts", "signal": "the signal",
}  # fmt: skip
"""Facts in words, where their names do not say it."""


def spoken(fact: str) -> str:
    """A fact in words."""
    return _SPOKEN.get(fact, fact.replace("_", " "))


@dataclass(frozen=True, slots=True)
class Condition:
    """`Condition("pairs", ">=", 100.0)`; for truths `"is"` with True or False, and `"known"` with
    True or False."""

    fact: str
    relation: str
    value: float | bool | str

    def holds(self, facts: Facts) -> bool | None:
        """Yes, no, or `None` where the fact is unknown."""
        found = value_of(facts, self.fact)
        if self.relation == "known":
            return (found is not None) == self.value
        if found is None:
            return None
        if self.relation == "is":
            return bool(found) == self.value
        return _COMPARE[self.relation](found, self.value)

    def wanted(self) -> str:
        """`"pairs at least 100"`."""
        name = spoken(self.fact)
        if self.relation == "known":
            return f"{name}: {'known' if self.value else 'unknown'}"
        if self.relation == "is":
            return name if self.value else f"not: {name}"
        value = f"{self.value:g}" if isinstance(self.value, float) else str(self.value)
        return f"{name} {_SAID[self.relation]} {value}".replace("  ", " ")


def condition(text: str) -> Condition:
    """Read a condition. Raises `ValueError` for other words and for a fact that there is not."""
    found = _FORM.fullmatch(text)
    if found is None or found[2] not in NAMES:
        raise ValueError(f"no condition on a known fact: {text!r}")
    prefix, fact, relation, value = found.groups()
    if prefix in ("known", "unknown") and relation is None:
        return Condition(fact, "known", prefix == "known")
    if relation is None:
        return Condition(fact, "is", prefix != "not")
    if prefix is not None:
        raise ValueError(f"a comparison takes no {prefix!r}: {text!r}")
    return Condition(fact, relation, value if value[0].isalpha() else float(value))
