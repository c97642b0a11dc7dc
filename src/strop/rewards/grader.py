"""OpenAI's grader JSON (string_check, text_similarity, python, multi) as a reward function."""

from __future__ import annotations

import ast
import json
import math
import operator
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from rapidfuzz import fuzz

from strop.errors import RewardError
from strop.sandbox.confine.jail import MOST_WAITING, Limits
from strop.sandbox.tiers import strongest
from strop.sandbox.workers import Workers
from strop.text.parse import written
from strop.types import Text

_PLACE = re.compile(r"\{\{\s*(sample|item)\.([\w.]+)\s*\}\}")

Sample = Mapping[str, Any]
"""`{"sample": {"output_text": ...}, "item": {...columns}}`."""

Grade = Callable[[Sample], float | None]

CHECKS: dict[str, Callable[[str, str], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "like": lambda said, wanted: wanted in said,
    "ilike": lambda said, wanted: wanted.casefold() in said.casefold(),
}

FUNCTIONS: dict[str, Callable[..., float]] = {
    "min": min, "max": max, "abs": abs, "floor": math.floor, "ceil": math.ceil, "exp": math.exp,
    "sqrt": math.sqrt, "log": math.log,
}  # fmt: skip

OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.Pow: math.pow,
}  # fmt: skip

PYTHON_SECONDS, WALL_SECONDS = 10.0, 30.0
"""Limits of CPU time and of wall clock for one call of a python grader."""


def read_grader(path: Path) -> Callable[..., list[float | None]]:
    """The reward function of a grader file. Raises `RewardError` for a grader that strop cannot
    run."""
    try:
        grade = _grader(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"not a grader: {type(error).__name__}: {error}"
        raise RewardError(problem, where=str(path), fix="export it again as JSON") from None

    def scores(
        prompts: Sequence[Text], completions: Sequence[Text], **columns: Any
    ) -> list[float | None]:
        found = []
        for number, completion in enumerate(completions):
            item = {name: values[number] for name, values in columns.items()}
            found.append(grade({"sample": {"output_text": written(completion)}, "item": item}))
        return found

    return scores


def _grader(spec: Mapping[str, Any], where: str) -> Grade:
    match spec["type"]:
        case "string_check":
            check = CHECKS[spec["operation"]]
            return lambda sample: float(
                check(_filled(spec["input"], sample), _filled(spec["reference"], sample))
            )
        case "text_similarity" if spec["evaluation_metric"] == "fuzzy_match":
            return lambda sample: (
                fuzz.WRatio(_filled(spec["input"], sample), _filled(spec["reference"], sample))
                / 100
            )
        case "python":
            return lambda sample: _graded(spec["source"], sample)
        case "multi":
            inner = {name: _grader(one, where) for name, one in spec["graders"].items()}
            formula = ast.parse(spec["calculate_output"], mode="eval").body
            _expect_formula(formula, inner.keys(), where)
            return lambda sample: _multi(inner, formula, sample)
    kind = spec.get("evaluation_metric", spec["type"])
    raise RewardError(
        f"the grader {kind!r} cannot be run here",
        where=where,
        fix="use string_check, text_similarity with fuzzy_match, python or multi",
    )


def _filled(template: str, sample: Sample) -> str:
    """A template with `{{sample.output_text}}` and `{{item.column}}` filled in."""

    def found(match: re.Match[str]) -> str:
        value: Any = sample[match[1]]
        for name in match[2].split("."):
            value = value[name]
        return value if isinstance(value, str) else json.dumps(value)

    return _PLACE.sub(found, template)


def _multi(inner: Mapping[str, Grade], formula: ast.expr, sample: Sample) -> float | None:
    grades = {name: grade(sample) for name, grade in inner.items()}
    known = {name: grade for name, grade in grades.items() if grade is not None}
    return _value(formula, known) if len(known) == len(grades) else None


def _expect_formula(formula: ast.expr, names: Any, where: str) -> None:
    try:
        _value(formula, dict.fromkeys(names, 1.0))
    except (KeyError, TypeError) as error:
        raise RewardError(
            f"calculate_output cannot be computed: {error}",
            where=where,
            fix=f"use numbers, {', '.join(names)}, + - * / **, and {', '.join(FUNCTIONS)}",
        ) from None
    except (ArithmeticError, ValueError):
        return  # at these numbers only


def _value(node: ast.expr, names: Mapping[str, float]) -> float:
    """Evaluate arithmetic on its syntax tree, so that a formula can reach nothing of Python."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return names[name]
        case ast.BinOp(left=left, op=op, right=right):
            return float(OPERATORS[type(op)](_value(left, names), _value(right, names)))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            return float(FUNCTIONS[name](*(_value(arg, names) for arg in args)))
    raise TypeError(f"{ast.unparse(node)!r} is not arithmetic")


def _graded(source: str, sample: Sample) -> float | None:
    """`grade(sample, item)` of a python grader, run in the sandbox like any other code."""
    request = {
        "code": source,
        "function": "grade",
        "args": [sample["sample"], sample["item"]],
        "limits": asdict(Limits(seconds=PYTHON_SECONDS, wall=WALL_SECONDS)),
    }
    reply = _callers(strongest()).ask([request], MOST_WAITING * WALL_SECONDS + PYTHON_SECONDS)[0]
    value = None if reply.failed is not None else reply.answer["value"]
    return float(value) if isinstance(value, int | float) else None


@cache
def _callers(tier: str) -> Workers:
    return Workers([sys.executable, "-m", "strop.sandbox.caller", tier], count=1)
