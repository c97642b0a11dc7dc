"""What a judge is asked, and what it rules."""

from __future__ import annotations

from dataclasses import dataclass, replace

from strop.types import Text, Usage

SWAPPED = " swapped"


@dataclass(frozen=True, slots=True)
class Question:
    """Answers to one prompt, to be judged by what counts: `Question("7", "Name a river.",
    ("The Rhine.", "Rain."), criterion="Is it a river?")`. `item` is what verdicts are joined by;
    that of the opposite order ends in ` swapped`."""

    item: str
    prompt: Text
    answers: tuple[str, ...]
    criterion: str = ""

    def turned(self) -> Question:
        """The same answers in the opposite order."""
        straight = self.item.removesuffix(SWAPPED)
        item = straight if straight != self.item else f"{self.item}{SWAPPED}"
        return Question(item, self.prompt, self.answers[::-1], self.criterion)


def added(*usages: Usage | None) -> Usage | None:
    """What several answers cost together, as far as it is known."""
    used = [usage for usage in usages if usage is not None]
    if not used:
        return None
    return Usage(sum(one.prompt for one in used), sum(one.completion for one in used))


@dataclass(frozen=True, slots=True)
class Ruling:
    """What came of a question: `Ruling(values=(1.0, 0.0), said="A names one.\\nVerdict: A")`.

    `values` are worth from 0 to 1, one for each answer in the order of the question, or `None`
    where there is no verdict; `problem` then says why. `confidence` is from 0 to 1, or `None` where
    the judge gives none. `usage` is what it cost, where the engine says it.
    """

    values: tuple[float, ...] | None
    confidence: float | None = None
    said: str = ""
    problem: str = ""
    usage: Usage | None = None

    def turned(self) -> Ruling:
        """The ruling on the same answers in the opposite order."""
        return replace(self, values=None if self.values is None else self.values[::-1])
