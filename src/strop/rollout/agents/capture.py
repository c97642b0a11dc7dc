"""What one agent asked and was answered, as an episode.

Requests are put together by token prefix: one whose prompt begins with an earlier one's prompt and
answer continues that path; any other begins a path of its own (a fork). A conversation that comes
back as messages is not tokenised again where the template writes it as it stands: then its prompt
is the earlier prompt and answer as they were, and the rest.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from strop.engines.engine import Request
from strop.episodes import Episode, Turn
from strop.errors import TextError
from strop.recipe.train.environment import EpisodeLimits
from strop.rollout.dialogue import ChatWriting, Path, lay
from strop.rollout.environment import Ask
from strop.text.chat.template import Tools
from strop.text.encode import Encoder
from strop.text.parse import decode
from strop.text.script import as_messages, opened_by
from strop.text.turns import SaidTurn, message_of
from strop.types import Completion, Finish, Message


class LimitError(Exception):
    """The episode may not have another turn, or the prompt leaves no room for one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was answered: its tokens, and of a conversation its messages as they were
    written, with the answer, and their text."""

    prompt_ids: tuple[int, ...]
    completion: Completion
    message: Message
    messages: tuple[Message, ...] = ()
    tools: Tools = None
    text: str = ""


@dataclass(slots=True)
class Clock:
    """Seconds since the episode began in which the agent did not wait for an answer."""

    began: float = field(default_factory=lambda: time.monotonic())
    waited: float = 0.0
    waiting: int = 0
    since: float = 0.0

    def asks(self) -> None:
        if not self.waiting:
            self.since = time.monotonic()
        self.waiting += 1

    def answered(self) -> None:
        self.waiting -= 1
        if not self.waiting:
            self.waited += time.monotonic() - self.since

    @property
    def own(self) -> float:
        now = time.monotonic()
        return now - self.began - self.waited - (now - self.since if self.waiting else 0.0)


class Capture:
    """One agent's requests, from its first to its last. `limited` says that one was refused because
    a limit was met; `overruled` counts those that asked for another sampling than the run's."""

    def __init__(
        self, request: Request, ask: Ask, encoder: Encoder, limits: EpisodeLimits, context: int
    ) -> None:
        self.request, self._ask, self._encoder = request, ask, encoder
        self._limits, self._context = limits, context
        self._slots: list[Asked | None] = []
        self._asking: set[asyncio.Future[Completion]] = set()
        self._over = False
        self.clock = Clock()
        self.limited = False
        self.overruled = 0

    @property
    def asked(self) -> list[Asked]:
        """What was answered, in the order in which it was asked."""
        return [one for one in self._slots if one is not None]

    async def generate(self, prompt_ids: tuple[int, ...], most: int | None) -> Completion:
        """The answer to these tokens, of at most so many. Raises `LimitError`."""
        slot = self._slot()
        completion = await self._sampled(prompt_ids, "", most)
        text = decode(self._encoder.tokenizer, self._words(completion), special=True)
        message: Message = {"role": "assistant", "content": text}
        self._slots[slot] = Asked(prompt_ids, completion, message)
        return completion

    async def chat(
        self, messages: Sequence[Message], tools: Tools, most: int | None
    ) -> tuple[Completion, SaidTurn, int]:
        """The answer to a conversation, as a message, too, and how many tokens were read. Raises
        `LimitError`, and `TextError` for messages that the template does not write."""
        slot = self._slot()
        writing = ChatWriting(self._encoder, tools, str(self.request.prompt.task.origin))
        written, text, ids = self._written(writing, messages, tools)
        opened = opened_by(list(written), text)
        completion = await self._sampled(ids, opened, most)
        said = message_of(
            opened + decode(self._encoder.tokenizer, self._words(completion), special=True),
            tools,
            first=sum(len(one.get("tool_calls") or ()) for one in written),
            thoughts=self._encoder.chat.reads_thoughts,
        )
        whole = text + self._continued(ids, completion)
        self._slots[slot] = Asked(
            ids, completion, said.message, (*written, said.message), tools, whole
        )
        return completion, said, len(ids)

    def episode(self, finish: Finish, reward: float | None) -> Episode:
        """All of it as one completion."""
        paths: list[Path] = []
        told: list[list[Asked]] = []
        for one in self.asked:
            place = _continues(paths, one.prompt_ids)
            if place is None:
                place = len(paths)
                paths.append(Path(list(one.prompt_ids)))
                told.append([])
            else:
                paths[place].read(one.prompt_ids[len(paths[place].ids) :])
            paths[place].wrote(one.completion)
            told[place].append(one)
        laid = lay(paths, self.request.prompt.prompt_ids)
        turns = [one for path in told for one in path]
        facts = {"turns": float(len(turns)), "forks": len(laid.starts) - 1.0,
                 "overruled": float(self.overruled)}  # fmt: skip
        return Episode(
            text=str(turns[-1].message.get("content") or "") if turns else "",
            finish=finish,
            ids=laid.ids,
            sampled=laid.sampled,
            logprobs=tuple(x for one in turns for x in one.completion.sampler_logprobs()),
            versions=laid.versions,
            shared=laid.shared,
            starts=laid.starts or (0,),
            turns=tuple(Turn(len(one.completion.ids)) for one in turns),
            messages=self._conversations(told),
            reward=reward,
            facts=facts if turns else {},
        )

    def _conversations(self, told: Sequence[Sequence[Asked]]) -> tuple[Message, ...]:
        """What was said on every path, without the task's own prompt."""
        prompt = as_messages(self.request.prompt.task.prompt, role="user")
        said: list[Message] = []
        for path in told:
            whole = list(path[-1].messages) or [one.message for one in path]
            own = _key(whole[: len(prompt)]) == _key(prompt)
            said += whole[len(prompt) :] if own else whole
        return tuple(said)

    def _slot(self) -> int:
        """The place of a further request. Raises `LimitError` where there is none."""
        if len(self._slots) >= self._limits.max_turns:
            self.limited = True
            raise LimitError(f"an episode has at most {self._limits.max_turns} turns (max_turns)")
        self._slots.append(None)
        return len(self._slots) - 1

    async def _sampled(self, ids: tuple[int, ...], opened: str, most: int | None) -> Completion:
        room = self._context - len(ids)
        if self._limits.max_episode_tokens is not None:
            begun = len(self.asked[0].prompt_ids) if self.asked else len(ids)
            room = min(room, self._limits.max_episode_tokens - (len(ids) - begun))
        if room < 1:
            self.limited = True
            raise LimitError(f"a prompt of {len(ids)} tokens leaves no room for an answer")
        bound = room if most is None else min(most, room)
        asking = asyncio.ensure_future(self._ask(ids, opened=opened, max_tokens=bound))
        self._asking.add(asking)
        self.clock.asks()
        try:
            return await asking
        except asyncio.CancelledError:
            if not self._over:
                raise
            raise LimitError("the episode is over") from None
        finally:
            self._asking.discard(asking)
            self.clock.answered()

    def end(self) -> None:
        """Nobody waits for the answers any more."""
        self._over = True
        for asking in self._asking:
            asking.cancel()

    def _written(
        self, writing: ChatWriting, messages: Sequence[Message], tools: Tools
    ) -> tuple[tuple[Message, ...], str, tuple[int, ...]]:
        """The messages as they are written, their text and their tokens."""
        before = self._before(messages, tools)
        if before is not None:
            answer, *more = messages[len(before.messages) - 1 :]
            for same in writing.same(answer):
                written = (*before.messages[:-1], same, *more)
                text = writing.opening(written)
                if text.startswith(before.text):
                    rest = writing.ids(text[len(before.text) :], first=False)
                    return written, text, (*before.prompt_ids, *before.completion.ids, *rest)
        text = writing.opening(messages)
        return tuple(messages), text, writing.ids(text, first=True)

    def _before(self, messages: Sequence[Message], tools: Tools) -> Asked | None:
        """The longest conversation that goes on in these messages."""
        key = _key(messages)
        found = [
            one
            for one in self.asked
            if one.messages
            and len(one.messages) < len(messages)
            and (one.tools or None) == (tools or None)
            and key[: len(one.messages)] == _key(one.messages)
        ]
        return max(found, key=lambda one: len(one.messages), default=None)

    def _words(self, completion: Completion) -> list[int]:
        """Its tokens without those that end it."""
        ids = list(completion.ids)
        while ids and ids[-1] in self._encoder.ends:
            del ids[-1]
        return ids

    def _continued(self, ids: tuple[int, ...], completion: Completion) -> str:
        """What the answer adds to the text; some tokenizers cut the space before a text's first
        word, so it is decoded in its place."""
        tokenizer = self._encoder.tokenizer
        before = decode(tokenizer, [ids[-1]], special=True)
        return decode(tokenizer, [ids[-1], *completion.ids], special=True)[len(before) :]


def _continues(paths: Sequence[Path], ids: tuple[int, ...]) -> int | None:
    """The longest path with which a prompt begins."""
    found = [
        (len(path.ids), place)
        for place, path in enumerate(paths)
        if tuple(path.ids) == ids[: len(path.ids)]
    ]
    return max(found)[1] if found else None


def _key(messages: Sequence[Message]) -> list[str]:
    """What tells messages apart: clients send answers back with some fields more or fewer, and with
    white space cut."""
    return [
        json.dumps([
            message["role"],
            str(message.get("content") or "").strip(),
            [call["function"] for call in message.get("tool_calls") or ()],
            message.get("tool_call_id"),
        ], sort_keys=True)
        for message in messages
    ]  # fmt: skip


def as_written(messages: Sequence[dict[str, Any]]) -> list[Message]:
    """A client's messages as templates read them: content as text, arguments of calls as objects.
    Raises `TextError` for a part that is no text."""
    return [_message(dict(message)) for message in messages]


def _message(message: Message) -> Message:
    content = message.get("content")
    if isinstance(content, list):
        kinds = sorted({str(part.get("type")) for part in content})
        if kinds != ["text"]:
            raise TextError(f"a message has parts that are no text: {', '.join(kinds)}")
        message["content"] = "".join(str(part["text"]) for part in content)
    if message.get("tool_calls"):
        message["tool_calls"] = [_call(call) for call in message["tool_calls"]]
    return {
        name: value for name, value in message.items() if value is not None or name == "content"
    }


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    if isinstance(function.get("arguments"), str):
        try:
            function["arguments"] = json.loads(function["arguments"] or "{}")
        except ValueError:
            raise TextError(f"the arguments of {function.get('name')} are no JSON") from None
    return {**call, "function": function}
