"""Draws the choices of a request, and says them as they come."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from strop.engines.engine import Request
from strop.engines.server import streams
from strop.engines.server.lanes import Progress
from strop.serve.exchange import Exchange
from strop.serve.models.version import Version
from strop.serve.protocol.speaking import Detokenizer, Speaker
from strop.text.speech import CLOSES, OPENS, Delta, Written
from strop.text.tools import MARKS
from strop.types import Completion


@dataclass(frozen=True, slots=True)
class Piece:
    """What came of one choice: `Piece(0, (Delta("content", "x"),), progress)`. The last one of a
    choice has its `ended`."""

    index: int
    deltas: tuple[Delta, ...]
    progress: Progress
    ended: Ended | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A choice that is done: its tokens, and the same as it is shown."""

    completion: Completion
    written: Written

    @property
    def finish(self) -> str:
        """OpenAI's reason: a call of a tool is one of its own."""
        return "tool_calls" if self.written.calls else self.completion.finish


@dataclass(slots=True)
class Timed:
    """Seconds from the request to the first token and to the end; `sampled` tokens were drawn in
    all, where more work than one answer was asked for."""

    first: float | None = None
    total: float = 0.0
    sampled: int | None = None

    def came(self, asked: Exchange) -> None:
        if self.first is None:
            self.first = time.perf_counter() - asked.began

    def ended(self, asked: Exchange) -> None:
        self.total = time.perf_counter() - asked.began


NOTHING = Progress((), (), ())


def drawn(version: Version, requests: Sequence[Request]) -> AsyncGenerator[streams.Drawn]:
    """What comes of requests, as it comes. Who stops reading calls the rest off."""
    return streams.drawn(
        [partial(version.held.sample, request, version.adapter) for request in requests]
    )


async def pieces(asked: Exchange, timed: Timed) -> AsyncGenerator[Piece]:
    """The choices of a request as they come."""
    speakers = [speaker_of(asked) for _ in range(asked.n)]
    async with aclosing(drawn(asked.version, asked.requests())) as stream:
        async for index, what in stream:
            timed.came(asked)
            if isinstance(what, Progress):
                deltas = speakers[index].feed(what.ids)
                yield Piece(index, tuple(deltas), what)
            else:
                yield last_piece(index, speakers[index], what.what)
    timed.ended(asked)


def last_piece(index: int, speaker: Speaker, made: Completion) -> Piece:
    rest = speaker.end()
    return Piece(index, tuple(rest), NOTHING, Ended(made, speaker.written))


def whole_piece(asked: Exchange, made: Completion) -> Iterator[Piece]:
    """A completion that is there already, as if it came in one piece."""
    speaker = speaker_of(asked)
    logprobs, likeliest = made.logprobs or (), made.likeliest or ()
    yield Piece(0, tuple(speaker.feed(made.ids)), Progress(made.ids, logprobs, likeliest))
    yield last_piece(0, speaker, made)


def speaker_of(asked: Exchange) -> Speaker:
    renderer = asked.version.renderer
    shown = {OPENS, CLOSES, *(MARKS if asked.tools else ())}
    hidden = frozenset(i for i, token in renderer.special.items() if token not in shown)
    detokenizer = Detokenizer(renderer.tokenizer, hidden, asked.version.ends)
    return Speaker(detokenizer, asked.sampling.stop, asked.tools, asked.prompted.opened)


@dataclass(slots=True)
class Collected:
    """All that came of one choice."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    likeliest: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    ended: Ended | None = None

    def add(self, piece: Piece) -> None:
        self.ids += piece.progress.ids
        self.logprobs += piece.progress.logprobs
        self.likeliest += piece.progress.likeliest
        self.ended = piece.ended or self.ended

    def done(self) -> Ended:
        assert self.ended is not None
        return self.ended


def usage(asked: Exchange, ended: Sequence[Ended], spent: int | None = None) -> dict[str, Any]:
    """Tokens that were read and written; `spent` are those of candidates that are not shown."""
    prompt = len(asked.prompted.prompt_ids)
    written = sum(len(one.completion.ids) for one in ended)
    used = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
    return used if spent is None else {**used, "strop": {"sampled_tokens": spent}}
