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
    """One agent's requests, from its first to its last. `limit` says by what limit one was
    refused, the first that was; `overruled` counts those that asked for another sampling than the
    run's."""

    def __init__(
        self,
        request: Request,
        ask: Ask,
        encoder: Encoder,
        limits: EpisodeLimits,
        *,
        context: int,
        vocabulary: int,
    ) -> None:
        self.request, self._ask, self._encoder = request, ask, encoder
        self._limits, self._context, self._vocabulary = limits, context, vocabulary
        self._slots: list[Asked | None] = []
        self._asking: set[asyncio.Future[Completion]] = set()
        self._over = False
        self.clock = Clock()
        self.limit = ""
        self.overruled = 0

    @property
    def asked(self) -> list[Asked]:
        """What was answered, in the order in which it was asked."""
        return [one for one in self._slots if one is not None]

    async def generate(self, prompt_ids: tuple[int, ...], most: int | None) -> Completion:
        """The answer to these tokens, of at most so many. Raises `LimitError`, and `TextError` for
        ids that are no tokens."""
        self._expect_tokens(prompt_ids)
        slot, bound = self._slot(prompt_ids, most)
        completion = await self._sampled(prompt_ids, "", bound)
        text = decode(self._encoder.tokenizer, self._words(completion), special=True)
        message: Message = {"role": "assistant", "content": text}
        self._slots[slot] = Asked(prompt_ids, completion, message)
        return completion

    async def chat(
        self, messages: Sequence[Message], tools: Tools, most: int | None
    ) -> tuple[Completion, SaidTurn, int]:
        """The answer to a conversation, as a message, too, and how many tokens were read. Raises
        `LimitError`, and `TextError` for messages that the template does not write."""
        writing = ChatWriting(self._encoder, tools, "the request")
        written, text, ids = self._written(writing, messages, tools)
        if not ids:
            raise TextError("the chat template writes nothing of these messages")
        opened = opened_by(list(written), text)
        slot, bound = self._slot(ids, most)
        completion = await self._sampled(ids, opened, bound)
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

    def episode(self, finish: Finish, reward: float | None, *, cut_short: bool = False) -> Episode:
        """All of it as one completion; `cut_short` says that the agent failed over a limit."""
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
                 "overruled": float(self.overruled), "cut_short": float(cut_short)}  # fmt: skip
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

    def _expect_tokens(self, ids: tuple[int, ...]) -> None:
        """Engines end the run over any other id. The model may say some that its tokenizer lacks,
        and they may come back."""
        last = self._vocabulary - 1
        strange = {place: token for place, token in enumerate(ids) if not 0 <= token <= last}
        if strange:
            said = {token for one in self.asked for token in one.completion.ids}
            for place, token in strange.items():
                if token not in said:
                    raise TextError(
                        f"token_ids.{place} is {token}: the model's tokens are 0 to {last}"
                    )

    def _slot(self, ids: tuple[int, ...], most: int | None) -> tuple[int, int]:
        """The place of a further request, which is fit to be answered, and how many tokens its
        answer may have. Raises `LimitError` where there is none."""
        if len(self._slots) >= self._limits.max_turns:
            raise self._met(f"an episode has at most {self._limits.max_turns} turns (max_turns)")
        room = self._context - len(ids)
        if self._limits.max_episode_tokens is not None:
            begun = len(self.asked[0].prompt_ids) if self.asked else len(ids)
            room = min(room, self._limits.max_episode_tokens - (len(ids) - begun))
        if room < 1:
            raise self._met(f"a prompt of {len(ids)} tokens leaves no room for an answer")
        self._slots.append(None)
        return len(self._slots) - 1, room if most is None else min(most, room)

    def _met(self, limit: str) -> LimitError:
        self.limit = self.limit or limit
        return LimitError(limit)

    async def _sampled(self, ids: tuple[int, ...], opened: str, bound: int) -> Completion:
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
