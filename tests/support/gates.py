"""Eval records of two models, and a policy over them."""

from __future__ import annotations

from collections.abc import Sequence

from strop.recipe.gate import GateRules, Guardrail, Target
from strop.types import EvalRecord


def records(task: str, scores: Sequence[float | None]) -> list[EvalRecord]:
    return [EvalRecord(task, str(i), score, str(i)) for i, score in enumerate(scores)]


def scores(right: int, wrong: int) -> list[float | None]:
    return [1.0] * right + [0.0] * wrong


POLICY = GateRules(targets=[Target(score="a")], guardrails=[Guardrail(score="b", margin=0.05)])
