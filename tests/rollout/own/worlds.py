"""Environments as a user of TRL writes them, and worse ones."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from neighbour import GREETING  # type: ignore[import-not-found]  # it lies beside this file


class Way(Enum):
    UP = "up"
    DOWN = "down"


@dataclass
class Moved:
    by: float


class Greeted:
    """Has no tools: it opens with a text and judges at the end."""

    def reset(self, **columns: object) -> str:
        return " Say hello."

    def get_reward(self) -> float:
        return 0.75


class Calculator:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def reset(self, answer: int | None = None, **columns: object) -> str | None:
        self.answer, self.said = answer, None
        return f" {GREETING}: {sorted(columns)}"

    def add(self, a: float, b: float) -> float:
        """Add two numbers.

        Args:
            a: The first number.
            b: The second number.

        Returns:
            Their sum.
        """
        print("adding")  # a print is no answer
        self.calls.append("add")
        self.said = a + b
        return a + b

    async def later(self, word: str, way: Way = Way.UP) -> str:
        """Say a word a little later.

        Args:
            word: The word.
            way: Where it goes.
        """
        await asyncio.sleep(0.01)
        self.calls.append("later")
        return f"{word} {way}"

    def told(self) -> list[str]:
        """Tell what was called."""
        return self.calls

    def picture(self, with_text: bool) -> list[dict[str, str]]:
        """Show a picture.

        Args:
            with_text: Whether it is described.
        """
        return [{"type": "text", "text": "a hill"}] + (
            [] if with_text else [{"type": "image", "image": "..."}]
        )

    def over(self) -> str:
        """End the game."""
        raise ValueError("Game over.")

    def hang(self) -> str:
        """Never end."""
        time.sleep(1000)
        return "?"

    def leave(self) -> str:
        """End the process."""
        os._exit(3)

    @staticmethod
    def helper() -> str:
        return "no method, so no tool"

    def _private(self) -> str:
        return "no tool"

    async def get_reward(self) -> float:
        return 1.0 if self.said == self.answer else 0.0


class Dice:
    """What it draws is drawn again in a process that takes over."""

    def reset(self) -> str:
        self.secret = random.randrange(10**9)
        return str(self.secret)

    def roll(self) -> int:
        """Roll a die with many sides; sometimes it falls off the table, with the table."""
        drawn = random.randrange(10**9)
        if drawn % 3 == 0:
            os._exit(1)
        return drawn

    def look(self) -> int:
        """Look at the secret."""
        return self.secret


class Faulty:
    """A fifth of its calls hang, end the process or answer with what is no text."""

    def reset(self, **columns: object) -> None:
        self.steps = 0

    def step(self) -> str:
        """Go one step."""
        if random.SystemRandom().random() < 0.2:
            kind = random.SystemRandom().randrange(3)
            if kind == 0:
                time.sleep(1000)
            if kind == 1:
                os.abort()
            return Unspeakable()  # type: ignore[return-value]
        self.steps += 1
        return str(self.steps)

    def get_reward(self) -> float:
        return float(self.steps == 3)


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Fickle:
    """A call that fails in another way each time, and one that does not."""

    def reset(self, tries: str) -> None:
        self.tries = tries

    def fail(self) -> str:
        """Fail."""
        with open(self.tries, "a") as tries:
            tries.write("x")
        if os.path.getsize(self.tries) % 2:
            os._exit(1)
        return Unspeakable()  # type: ignore[return-value]

    def wait(self) -> str:
        """Wait."""
        time.sleep(1000)
        return ""

    def look(self) -> str:
        """Look."""
        return "a wall"


class Cursed:
    """Cannot begin."""

    def reset(self, **columns: object) -> None:
        if columns["prompt"] == "begin":
            raise OSError("the world is closed")

    def nothing(self) -> str:
        """Do nothing."""
        return ""

    def get_reward(self) -> float:
        return float("nan")


class Undescribed:
    def reset(self, **columns: object) -> None: ...

    def bare(self, a: int) -> str:
        return str(a)

    def unhinted(self, a) -> str:  # type: ignore[no-untyped-def]
        """Has no hint.

        Args:
            a: What.
        """
        return str(a)

    def starred(self, *a: int) -> str:
        """Takes any number."""
        return str(a)


class Greedy:
    def __init__(self, size: int, colour: str = "red") -> None: ...

    def reset(self, **columns: object) -> None: ...


def made() -> Greedy:
    return Greedy(3)


class Restless:
    def look(self) -> str:
        """Look."""
        return ""


class Constant:
    get_reward = 1.0

    def reset(self, **columns: object) -> None: ...


class Broken:
    def __init__(self) -> None:
        raise KeyError("TOKEN")


class Shouting:
    """Its children outlive nothing."""

    def reset(self, **columns: object) -> str:
        pid = os.fork()
        if pid == 0:
            time.sleep(1000)
        return f"{os.getpid()} {pid}"

    def wait(self) -> str:
        """Wait for long, deaf to everything but the kill signal."""
        import signal

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(1000)
        return ""


class Grown:
    def reset(self, **columns: object) -> None:
        self.kept = "x" * 10**6

    def step(self, n: int) -> int:
        """Count.

        Args:
            n: A number.
        """
        return n + 1


sys.stderr.flush()


class Asking:
    """Cannot begin without a city."""

    def reset(self, city: str, country: str = "CH", **columns: object) -> None:
        self.city = city

    def where(self) -> str:
        """Says the city."""
        return self.city


class Yielding:
    def reset(self) -> None: ...

    def step(self, size: int):
        """Make a step.

        Args:
            size: How far.
        """
        yield size


class Dripping:
    def reset(self):
        yield "begin"


class Shy:
    """Properties that cannot be looked at yet, and methods under other names than their own."""

    looked = False

    def __init__(self) -> None:
        self.go = Fickle().look

    def reset(self, **columns: object) -> None:
        self.looks = 0

    @property
    def score(self) -> int:
        type(self).looked = True
        raise RuntimeError("not yet")

    @functools.cached_property
    def board(self) -> int:
        type(self).looked = True
        raise RuntimeError("not yet")

    def look(self) -> str:
        """Look around."""
        return "a door"

    again = look


class Unready(Shy):
    @property
    def reset(self) -> Any:  # type: ignore[override]
        raise RuntimeError("not yet")


class Tipping(Shy):
    def get_reward(self) -> Iterator[float]:
        yield 1.0
