"""Generated rows for the checks of data: clean by construction, of every kind."""

from __future__ import annotations

import random
from typing import Any

Row = dict[str, Any]

VOWELS, CONSONANTS = "aeiou", "bdfgklmnprstvz"


def vocabulary(size: int = 400) -> list[str]:
    """Words that no list of words has."""
    rng = random.Random(99)
    made = {
        "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(rng.randint(2, 4)))
        for _ in range(2 * size)
    }
    return sorted(made)[:size]


WORDS = vocabulary()


def sentence(rng: random.Random, least: int = 12, most: int = 40) -> str:
    """Random words: no two sentences are alike, none is a word's or a style's."""
    return " ".join(rng.choices(WORDS, k=rng.randint(least, most))) + "."


def pairs(count: int, seed: int = 0) -> list[Row]:
    """Pairs whose sides differ by nothing but chance."""
    rng = random.Random(seed)
    return [
        {"prompt": sentence(rng), "chosen": sentence(rng), "rejected": sentence(rng)}
        for _ in range(count)
    ]


def thumbs(count: int, seed: int = 0) -> list[Row]:
    """Answers of which half are liked, whatever they say."""
    rng = random.Random(seed)
    return [
        {"prompt": sentence(rng), "completion": sentence(rng), "label": rng.random() < 0.5}
        for _ in range(count)
    ]


def demonstrations(count: int, seed: int = 0) -> list[Row]:
    rng = random.Random(seed)
    return [{"prompt": sentence(rng), "completion": sentence(rng)} for _ in range(count)]


def chats(count: int, seed: int = 0) -> list[Row]:
    """Conversations of two rounds."""
    rng = random.Random(seed)
    roles = ("user", "assistant", "user", "assistant")
    return [
        {"messages": [{"role": role, "content": sentence(rng)} for role in roles]}
        for _ in range(count)
    ]


def tasks(count: int, seed: int = 0) -> list[Row]:
    rng = random.Random(seed)
    return [{"prompt": sentence(rng), "answer": str(n)} for n in range(count)]


CLEAN = {"pairs": pairs, "thumbs": thumbs, "demonstrations": demonstrations, "chats": chats,
         "tasks": tasks}  # fmt: skip
"""Rows of every kind without a fault."""
