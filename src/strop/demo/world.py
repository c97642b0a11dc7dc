"""Linear equations with a systematic human slip: generated, seeded, nothing downloaded.

An equation is `ax + b = c` or `ax - b = c`. Demonstrators solve it in two lines and put the result
in `<answer>` tags, but on a minus most forget to flip the sign, and half open with filler.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

FILLER = "Sure! Happy to help with that.\n"
SLIP_SHARE = 0.65
"""Share of demonstrations of a minus equation that forget to flip the sign."""
FILLER_SHARE = 0.5
"""Share of demonstrations that open with filler."""


@dataclass(frozen=True, slots=True)
class Equation:
    """`Equation(3, 7, 5)` is 3x + 7 = 22; a negative b is a minus."""

    a: int
    b: int
    x: int

    @property
    def c(self) -> int:
        return self.a * self.x + self.b

    @property
    def question(self) -> str:
        sign = "+" if self.b > 0 else "-"
        return f"Solve {self.a}x {sign} {abs(self.b)} = {self.c}"


def all_equations() -> list[Equation]:
    """Every equation of the world, in a fixed order."""
    return [
        Equation(a, sign * b, x)
        for a in range(2, 10)
        for x in range(1, 13)
        for b in range(1, 21)
        for sign in (1, -1)
        if a * x + sign * b > 0
    ]


def split(seed: int, held_out: int) -> tuple[list[Equation], list[Equation]]:
    """(training equations, held-out equations), disjoint, shuffled by the seed."""
    equations = all_equations()
    random.Random(f"equations {seed}").shuffle(equations)
    return equations[held_out:], equations[:held_out]


def solution(equation: Equation, *, slip: bool = False, filler: bool = False) -> str:
    """The worked answer; with `slip` the sign of b is not flipped on the way across."""
    flipped = (equation.b > 0) != slip
    moved = equation.c - abs(equation.b) if flipped else equation.c + abs(equation.b)
    x = Fraction(moved, equation.a)
    return (
        f"{FILLER if filler else ''}"
        f"{equation.a}x = {equation.c} {'-' if flipped else '+'} {abs(equation.b)} = {moved}\n"
        f"x = {moved} / {equation.a} = {x}\n<answer>{x}</answer>"
    )


def demonstration(equation: Equation, draw: random.Random) -> str:
    """What a demonstrator writes: a slip on most minus equations, filler on half of all."""
    slip = equation.b < 0 and draw.random() < SLIP_SHARE
    return solution(equation, slip=slip, filler=draw.random() < FILLER_SHARE)


def demonstrations(equations: Sequence[Equation], seed: int, count: int) -> list[dict[str, Any]]:
    """`count` rows of prompt and completion over the equations, in chat form."""
    draw = random.Random(f"demonstrations {seed}")
    chosen = [equations[i % len(equations)] for i in range(count)]
    return [
        {"prompt": user(equation), "completion": assistant(demonstration(equation, draw))}
        for equation in chosen
    ]


def user(equation: Equation) -> list[dict[str, str]]:
    return [{"role": "user", "content": equation.question}]


def assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
