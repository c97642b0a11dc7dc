"""The users: what they ask, when they are content, and what they write where they are not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from strop.demo.world import FILLER, Equation, solution, user

THUMBS, EDITS = 0.7, 0.6
"""Shares of the users who press a thumb, and of the discontent who mend the answer."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One user's question: `Visit(content=True, side="stable", weights="3f2a...")`."""

    content: bool
    side: str
    weights: str


def is_content(equation: Equation, answer: str) -> bool:
    """The rule that the server never sees: right, and to the point."""
    return not answer.startswith(FILLER) and answer.endswith(f"<answer>{equation.x}</answer>")


def visits(url: str, equations: list[Equation], count: int, seed: int) -> Iterator[Visit]:
    """So many users, each with one question and an opinion."""
    draw = random.Random(f"users {seed}")
    with httpx.Client(base_url=url, timeout=120) as client:
        for number in range(count):
            equation = draw.choice(equations)
            asked = {"messages": user(equation), "max_tokens": 48, "seed": draw.getrandbits(32),
                     "user": f"{seed}/{number}"}  # fmt: skip
            said = client.post("/v1/chat/completions", json=asked).raise_for_status().json()
            answer = str(said["choices"][0]["message"]["content"])
            content = is_content(equation, answer)
            opinion: dict[str, str] = {}
            if draw.random() < THUMBS:
                opinion["thumb"] = "up" if content else "down"
            if not content and draw.random() < EDITS:
                opinion["edit"] = solution(equation)
            if opinion:
                told = {"id": said["id"], **opinion}
                client.post("/v1/feedback", json=told).raise_for_status()
            made = said["strop"]
            yield Visit(content, made.get("arm", "stable"), made["weights"])
