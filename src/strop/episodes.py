"""An episode: several turns of the policy with what an environment said between them, as tokens."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from strop.types import Answer, Branch, Completion, Message, Task, Text, VersionSpan


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the policy: `Turn(tokens=12, reward=0.5)`.

    `tokens` counts what it sampled; `reward` is what the environment gave for this turn, `None`
    where it gave none.
    """

    tokens: int
    reward: float | None = None


@dataclass(frozen=True, slots=True)
class Episode(Completion):
    """A completion of several turns.

    `ids` are the episode's paths laid end to end: each is a sequence of tokens as the policy read
    and wrote them, without the first `shared` tokens of the task's prompt, with which all of them
    begin. `starts` are the places in `ids` where a path begins. There is one path where the
    template only ever adds to what was said; where it would write earlier turns otherwise, the
    conversation goes on in a further path (a fork), in which the earlier turns are read, not
    learnt.

    `asked` is the prompt as the policy read it, where the environment said something before the
    first turn (the task's prompt does not tell that). `turns` are in order, as are their sampled
    tokens in `ids`. `messages` are what was said after the prompt, `reward` is the sum of what the
    environment gave (`None` where it gives no rewards), and `facts` are counts of what happened:
    `{"tool_errors": 1.0}`.

    With the prompt `1 4`, an answer `5 2`, a tool's result `8 9` and an answer `6 2`:
    `Episode("6", "stop", ids=(5, 2, 8, 9, 6, 2), sampled=(True, True, False, False, True, True),
    logprobs=(-0.1, -0.2, -0.3, -0.1), versions=(VersionSpan(0, 2, 7), VersionSpan(4, 6, 7)),
    shared=2, starts=(0,), turns=(Turn(2), Turn(2)), ...)`.
    """

    shared: int = 0
    starts: tuple[int, ...] = (0,)
    turns: tuple[Turn, ...] = ()
    asked: Text | None = None
    messages: tuple[Message, ...] = ()
    reward: float | None = None
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """The whole conversation after the prompt, as readers see it."""
        return "\n".join(f"[{m['role']}] {_words(m)}" for m in self.messages)

    def branches(self) -> tuple[Branch, ...]:
        """A branch for each path. A path without a sampled token is none."""
        cut = [*self.starts, len(self.ids)]
        return tuple(Branch(self.ids[a:b], self.sampled[a:b]) for a, b in itertools.pairwise(cut))

    def based(self, shared: int, prompt_ids: tuple[int, ...]) -> Episode:
        """The same episode with fewer tokens of its prompt shared: those from `shared` on are then
        read at the beginning of every path."""
        more = prompt_ids[shared : self.shared]
        if not more:
            return self
        cut = [*self.starts, len(self.ids)]
        ids: list[int] = []
        sampled: list[bool] = []
        for a, b in itertools.pairwise(cut):
            ids += (*more, *self.ids[a:b])
            sampled += (*(False,) * len(more), *self.sampled[a:b])

        def moved(place: int) -> int:
            return place + len(more) * sum(start <= place for start in self.starts)

        spans = tuple(
            VersionSpan(moved(s.start), moved(s.stop - 1) + 1, s.version) for s in self.versions
        )
        starts = tuple(start + len(more) * number for number, start in enumerate(self.starts))
        return replace(
            self, shared=shared, ids=tuple(ids), sampled=tuple(sampled), versions=spans,
            starts=starts,
        )  # fmt: skip


def asked_of(task: Task, answer: Answer) -> Text:
    """The prompt that was answered: the task's, with what the environment of an episode said before
    the first turn."""
    begun = answer.asked if isinstance(answer, Episode) else None
    return task.prompt if begun is None else begun


def said_by_policy(answer: Completion) -> int:
    """How many tokens the policy wrote; in an episode some of `ids` were only read."""
    return sum(answer.sampled)


def _words(message: Message) -> str:
    """The words of a message and its calls."""
    calls: list[dict[str, Any]] = message.get("tool_calls") or []
    called = [f"{c['function']['name']}({c['function']['arguments']})" for c in calls]
    return " ".join(part for part in (str(message.get("content") or ""), *called) if part)
