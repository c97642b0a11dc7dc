"""The text of an answer -> its parts: thoughts, words, calls of tools.

What was shown is never taken back, so that what may still turn into something else is held until it
is sure: the beginning of a stop string or of a mark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from strop.text.chat.template import Tools
from strop.text.tools import BARE, MARKS, Call, bare_calls, begins_bare, calls_in, first_mark

Part = Literal["reasoning_content", "content"]
OPENS, CLOSES = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Delta:
    """`Delta("content", "x = 3")`."""

    part: Part
    text: str


@dataclass(frozen=True, slots=True)
class Written:
    """A whole answer: `Written("I add.", "x = 3", ())`; `reasoning` is `None` where it has none.

    `calling` is the text from the first mark of a call on: of the calls, or, where there are none,
    of what only looked like one, which is then in `content` too.
    """

    reasoning: str | None
    content: str
    calls: tuple[Call, ...]
    calling: str = ""


@dataclass(slots=True)
class Speech:
    """The text of one answer as it comes. `feed` gives what can be shown, `end` the rest.

    With `tools` what may be a call is held back, and told by `written` at the end. `opened` is what
    the prompt had begun of the answer.
    """

    stop: Sequence[str] = ()
    tools: Tools = None
    opened: str = ""
    _held: str = ""
    _part: Part = "content"
    _stopped: bool = False
    _thought: bool = False
    _calling: str = ""
    _mistaken: str = ""
    _texts: dict[str, str] = field(default_factory=dict)
    _starts: bool = True

    def __post_init__(self) -> None:
        if OPENS in self.opened and CLOSES not in self.opened:
            self._part, self._starts = "reasoning_content", False

    def feed(self, text: str) -> list[Delta]:
        return self._deltas(text, last=False)

    def end(self, text: str = "") -> list[Delta]:
        """What was held back, and the last text; what turned out to be calls is not among it."""
        return self._deltas(text, last=True)

    @property
    def written(self) -> Written:
        """The whole answer, once it has ended."""
        calls = calls_in(self._calling, self.tools) if self._calling else None
        said = self._texts.get("content", "")
        reasoning = self._texts.get("reasoning_content")
        return Written(reasoning, said, tuple(calls or ()), self._calling or self._mistaken)

    def _deltas(self, text: str, *, last: bool) -> list[Delta]:
        if self._stopped:
            return []
        self._held += text
        found = list(self._told(last=last))
        if last and self._calling:
            ends = [self._calling.find(stop) for stop in self.stop if stop in self._calling]
            self._calling = self._calling[: min(ends)] if ends else self._calling
            words, calling = _parted(self._calling, self.tools)
            if calls_in(calling, self.tools) is None:  # it only looked like a call
                words, self._mistaken, calling = self._calling, self._calling, ""
            if words:
                found.append(Delta("content", words))
            self._calling = calling
        for delta in found:
            self._texts[delta.part] = self._texts.get(delta.part, "") + delta.text
        return found

    def _told(self, *, last: bool) -> Iterator[Delta]:
        self._cut_at_stop()
        if self._stopped:
            last = True
        while self._held:
            if self._calling:
                self._calling, self._held = self._calling + self._held, ""
                return
            before, mark = self._next_mark(last=last)
            if before:
                yield from self._shown(before)
            if mark is None:
                return
            if not self._calling:
                self._turn(mark)

    def _cut_at_stop(self) -> None:
        """End at the stop string that ends first, as the engine does."""
        ends = [(self._held.find(stop) + len(stop), stop)
                for stop in self.stop if stop in self._held]  # fmt: skip
        if ends:
            end, stop = min(ends)
            self._held, self._stopped = self._held[: end - len(stop)], True

    def _next_mark(self, *, last: bool) -> tuple[str, str | None]:
        """The text up to the next mark, and that mark; without one, what can be shown by now. Both
        are taken from what is held."""
        marks = self._marks()
        found = [(self._held.find(mark), mark) for mark in marks if mark in self._held]
        if found:
            place, mark = min(found)
            before, self._held = self._held[:place], self._held[place:]
            return before, mark
        bare = BARE if self.tools and self._starts else ()
        keep = 0 if last else _unsure(self._held, (*marks, *bare, *self.stop))
        if self.tools and self._starts and not self._held.strip():
            keep = len(self._held)  # white space before a call
        cut = len(self._held) - keep
        before, self._held = self._held[:cut], self._held[cut:]
        return before, None

    def _marks(self) -> Sequence[str]:
        if self._part == "reasoning_content":
            return (CLOSES,)
        opening = (OPENS,) if self._starts else ()
        return (*opening, *MARKS) if self.tools else opening

    def _turn(self, mark: str) -> None:
        """Go on behind a mark of a thought; from a mark of a call on all is a call."""
        if mark in (OPENS, CLOSES):
            self._held = self._held[len(mark) :]
            self._part = "reasoning_content" if mark == OPENS else "content"
            self._starts = self._thought = mark == CLOSES
        else:
            self._calling, self._held = self._held, ""

    def _shown(self, text: str) -> Iterator[Delta]:
        if self._starts and self._part == "content":
            text = text.lstrip("\n") if self._thought else text
            if self.tools and text.lstrip().startswith(BARE):
                self._calling = text
                return
            if not text:
                return
            self._starts = not text.strip()
        yield Delta(self._part, text)


def _parted(text: str, tools: Tools) -> tuple[str, str]:
    """Words, and the call that they precede, of a text that began like a call without a mark."""
    mark = first_mark(text)
    if mark is None or not begins_bare(text, mark) or bare_calls(text) is not None:
        return "", text
    place = text.find(mark)
    return text[:place], text[place:]


def _unsure(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end may be the beginning of a mark."""
    most = max((len(mark) for mark in marks), default=1) - 1
    for length in range(min(most, len(text)), 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            return length
    return 0
