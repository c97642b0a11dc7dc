"""Sentences that hold a name, a date and an amount, and the JSON that says the same."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

NAMES = (
    "Anna Berg", "Tom Okafor", "Lucia Reyes", "Ben Novak", "Sara Lind", "Pedro Alves",
    "Emma Walsh", "Kenji Mori", "Nadia Haddad", "Paul Weber", "Ruth Cohen", "Ivan Petrov",
    "Grace Mbeki", "Leo Rossi", "Clara Dubois", "Sam Turner",
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "date": {"type": "string", "format": "date"},
        "amount": {"type": "number"},
    },
    "required": ["name", "date", "amount"],
    "additionalProperties": False,
}
ASK = (
    "Extract the name, the date (YYYY-MM-DD) and the amount as JSON with the keys name, date and "
    "amount.\n\n{note}"
)


def notes(patterns: Sequence[str], draw: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Notes without end with what is in them, no two alike; the year is always written out."""
    seen = set()
    while True:
        year, month, day = draw.randint(2019, 2026), draw.randint(1, 12), draw.randint(1, 28)
        cents = draw.choice((0, 0, 50, draw.randint(1, 99)))
        amount = draw.randint(2, 999) + cents / 100
        said = {
            "name": draw.choice(NAMES),
            "date": draw.choice((f"{day} {MONTHS[month - 1]} {year}",
                                 f"{MONTHS[month - 1]} {day}, {year}", f"{day}.{month}.{year}")),
            "amount": f"{amount:.2f} euros" if cents else f"{amount:.0f} euros",
        }  # fmt: skip
        text = draw.choice(patterns).format(**said)
        if text in seen:
            continue
        seen.add(text)
        date = f"{year}-{month:02}-{day:02}"
        yield text, {"name": said["name"], "date": date, "amount": amount if cents else int(amount)}


def task(note: str, held: dict[str, Any]) -> dict[str, Any]:
    """What the verifiers read: the schema, and the fields that are right."""
    prompt = [{"role": "user", "content": ASK.format(note=note)}]
    return {"prompt": prompt, "answer": json.dumps(held), "schema": SCHEMA}


def demonstration(note: str, held: dict[str, Any]) -> dict[str, Any]:
    prompt = [{"role": "user", "content": ASK.format(note=note)}]
    return {"prompt": prompt, "completion": [{"role": "assistant", "content": json.dumps(held)}]}
