"""Word sums of two and three digits, with units and a number that has nothing to do with them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

NAMES = (
    "Mia", "Omar", "Lena", "Tariq", "Nora", "Felix", "Ines", "Jonas", "Priya", "Mateo",
    "Hana", "Oskar", "Zoe", "Emil", "Aisha", "Hugo", "Vera", "Kofi", "Marta", "Luca",
)  # fmt: skip
UNITS = (
    "coins", "apples", "stamps", "books", "marbles", "tickets", "shells", "pencils", "cards",
    "litres of water", "metres of rope", "kilograms of rice", "grams of sugar", "eggs", "tiles",
)  # fmt: skip
DISTRACTORS = (
    "{other} is {n} years old.", "The shop opened {n} years ago.", "The bus has number {n}.",
    "It is {n} degrees outside.", "{other} lives at number {n}.", "The walk took {n} minutes.",
)  # fmt: skip
SHAPES = {
    "+": (
        "{name} has {a} {unit} and gets {b} more.",
        "{name} packed {a} {unit} before lunch and {b} after it.",
        "There are {a} {unit} in one box of {name} and {b} in the other.",
        "{name} bought {a} {unit} in May and {b} in June.",
    ),
    "-": (
        "{name} had {a} {unit} and gave away {b}.",
        "Of the {a} {unit} that {name} kept, {b} were lost.",
        "{name} started with {a} {unit} and used {b}.",
        "{name} ordered {a} {unit}, but {b} did not arrive.",
    ),
}
QUESTION = {"+": "How many {unit} is that in all?", "-": "How many {unit} are left?"}


@dataclass(frozen=True, slots=True)
class Sum:
    """`Sum("+", 62, 31, ...)`: what is asked, and what it takes to answer."""

    sign: str
    a: int
    b: int
    unit: str
    text: str

    @property
    def result(self) -> int:
        return self.a + self.b if self.sign == "+" else self.a - self.b

    @property
    def worked(self) -> str:
        """How a person would answer it."""
        return f"{self.a} {self.sign} {self.b} = {self.result} {self.unit}"


def sums(draw: random.Random) -> Iterator[Sum]:
    """Sums without end, no two of the same numbers and sign."""
    seen = set()
    while True:
        sign = draw.choice("+-")
        least, most = draw.choice(((10, 99), (100, 999)))
        a, b = sorted((draw.randint(least, most), draw.randint(least, most)), reverse=True)
        if a == b or (sign, a, b) in seen:
            continue
        seen.add((sign, a, b))
        name, other = draw.sample(NAMES, 2)
        unit = draw.choice(UNITS)
        aside = draw.choice(DISTRACTORS).format(other=other, n=draw.randint(2, 90))
        said = [draw.choice(SHAPES[sign]).format(name=name, a=a, b=b, unit=unit), aside]
        draw.shuffle(said)
        yield Sum(sign, a, b, unit, " ".join([*said, QUESTION[sign].format(unit=unit)]))


def demonstration(one: Sum) -> dict[str, Any]:
    return {"prompt": chat(one.text), "completion": [{"role": "assistant", "content": one.worked}]}


def task(one: Sum) -> dict[str, Any]:
    return {
        "prompt": chat(one.text),
        "answer": f"{one.result} {one.unit}",
        "digits": len(str(one.a)),
        "sign": one.sign,
    }


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]
