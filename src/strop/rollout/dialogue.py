"""A conversation as the tokens that the policy read and wrote.

What was sampled stays as it was sampled. Before every further turn the conversation is rendered as
it would be at serving; as long as that begins with what stands there already, only the rest is
tokenised and appended. A template that writes earlier turns otherwise (Qwen 3 drops thoughts once a
user has spoken again) begins a new path: a fork.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from strop.engines.engine import PromptedTask
from strop.episodes import Episode, Turn
from strop.rollout.tools.said import readable
from strop.text.chat.template import Tools
from strop.text.encode import Encoder
from strop.text.parse import decode
from strop.text.script import as_messages, opened_by
from strop.types import Completion, Finish, Message, Text, VersionSpan


@dataclass(slots=True)
class Path:
    """Tokens from the prompt's first on, which of them were sampled, and by what version."""

    ids: list[int]
    sampled: list[bool] = field(default_factory=list)
    versions: list[VersionSpan] = field(default_factory=list)

    def read(self, ids: Sequence[int]) -> None:
        self.ids += ids

    def wrote(self, completion: Completion) -> None:
        start = len(self.ids)
        self.sampled += [False] * (start - len(self.sampled))
        self.versions += [
            VersionSpan(start + s.start, start + s.stop, s.version) for s in completion.versions
        ]
        self.ids += completion.ids
        self.sampled += completion.sampled


class Writing(Protocol):
    """How a conversation is written as text."""

    def opening(self, messages: Sequence[Message]) -> str:
        """All of it, up to where the next turn of the policy begins."""

    def ids(self, text: str, *, first: bool) -> tuple[int, ...]:
        """Tokens of a text that stands at the beginning (`first`) or goes on."""

    def same(self, message: Message) -> Iterator[Message]:
        """Messages that say the same as an assistant's, and may be written otherwise."""


class ChatWriting:
    """By the tokenizer's chat template, which shows `tools`."""

    def __init__(self, encoder: Encoder, tools: Tools, where: str) -> None:
        self.encoder, self.tools, self.where = encoder, tools, where

    def opening(self, messages: Sequence[Message]) -> str:
        continued = messages[-1]["role"] == "assistant"
        return self.encoder.chat.write(
            messages, self.tools, generation=not continued, continued=continued, where=self.where
        )

    def ids(self, text: str, *, first: bool) -> tuple[int, ...]:
        return self.encoder.ids(text, special=False, where=self.where)

    def same(self, message: Message) -> Iterator[Message]:
        """With and without the white space around its words and its thought, which a template may
        cut or add."""
        parts = {
            name: dict.fromkeys((said, said.rstrip(), said.strip()))
            for name in ("content", "reasoning_content")
            if isinstance(said := message.get(name), str)
        }
        for said in itertools.product(*parts.values()):
            yield {**message, **dict(zip(parts, said, strict=True))}


class PlainWriting:
    """Without a template: what the environment says is appended as it is."""

    def __init__(self, encoder: Encoder, where: str) -> None:
        self.encoder, self.where = encoder, where

    def opening(self, messages: Sequence[Message]) -> str:
        return "".join(str(message.get("content") or "") for message in messages)

    def ids(self, text: str, *, first: bool) -> tuple[int, ...]:
        return self.encoder.ids(text, special=first, where=self.where)

    def same(self, message: Message) -> Iterator[Message]:
        yield message


class Dialogue:
    """One episode's conversation.

    `begin`, then for every turn `next_ids`, `said`, and `heard` unless it was the last; `episode`
    at the end.

    What an environment says is data: a special token's name in it (a page that says `<|im_end|>`)
    would become that token and end the turn, or begin one of the user's. Such a name gets a space
    behind its first sign, and is counted (`disarmed`). Half of a character becomes a question mark.
    """

    def __init__(self, prompt: PromptedTask, writing: Writing, encoder: Encoder) -> None:
        self.prompt, self.writing, self.encoder = prompt, writing, encoder
        asked = prompt.task.prompt
        self.messages: list[Message] = list(as_messages(asked, role="user"))
        self.given = len(self.messages)
        self.paths = [Path(list(prompt.prompt_ids))]
        self.logprobs: list[float] = []
        self.turns: list[Turn] = []
        self.opened = prompt.opened
        self.disarmed = 0
        self._text = ""
        self._asked: Text | None = None
        named = sorted(filter(None, encoder.tokenizer.all_special_tokens), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, named))) if named else None

    def begin(self, messages: Sequence[Message]) -> None:
        """The environment's first words. A user's words after the prompt's are one message with
        them, because templates want the roles to alternate."""
        self._text = self.writing.opening(self.messages)
        if not messages:
            return
        messages = [self._harmless(message) for message in messages]
        last, first = self.messages[-1], messages[0]
        both = (last.get("content"), first.get("content"))
        if last["role"] == first["role"] == "user" and all(isinstance(x, str) for x in both):
            self.messages[-1] = {**last, "content": f"{both[0]}{both[1]}"}
            messages = messages[1:]
        self.messages += messages
        self.given = len(self.messages)
        self._text = self.writing.opening(self.messages)
        self._asked = (
            self._text if isinstance(self.prompt.task.prompt, str) else list(self.messages)
        )
        self.paths = [Path(self._ids(self._text))]
        self.opened = opened_by(self.messages, self._text)

    @property
    def next_ids(self) -> tuple[int, ...]:
        """What the policy reads before its next turn."""
        return tuple(self.paths[-1].ids)

    @property
    def tokens(self) -> int:
        """Tokens of the present path after the task's prompt."""
        return len(self.paths[-1].ids) - len(self.prompt.prompt_ids)

    def said(self, completion: Completion, message: Message) -> None:
        """A turn of the policy: its tokens, and the message that they are."""
        path = self.paths[-1]
        last = path.ids[-1]
        path.wrote(completion)
        self.logprobs += completion.sampler_logprobs()
        self.turns.append(Turn(len(completion.ids)))
        self.messages.append(message)
        # some tokenizers cut the space before a text's first word: it is decoded in its place
        before = decode(self.encoder.tokenizer, [last], special=True)
        both = decode(self.encoder.tokenizer, [last, *completion.ids], special=True)
        self._text += both[len(before) :]

    def earned(self, reward: float | None) -> None:
        """The environment's reward for the last turn."""
        if reward is not None:
            self.turns[-1] = Turn(self.turns[-1].tokens, reward)

    def heard(self, messages: Sequence[Message]) -> None:
        """What the environment said to the last turn, which is not the episode's last."""
        messages = [self._harmless(message) for message in messages]
        said = self.messages[-1]
        for same in self.writing.same(said):
            text = self.writing.opening([*self.messages[:-1], same, *messages])
            if text.startswith(self._text):
                self.messages[-1] = same
                self.paths[-1].read(self.writing.ids(text[len(self._text) :], first=False))
                break
        else:
            text = self.writing.opening([*self.messages, *messages])
            self.paths.append(Path(self._ids(text)))
        self.messages += messages
        self._text = text
        self.opened = opened_by(self.messages, text)

    def _ids(self, text: str) -> list[int]:
        """A path's first tokens: those of the text. Where not even one of them is the prompt's (a
        short prompt without a token that begins it merges with what follows), the prompt stays as
        it is and the rest is tokenised after it: the paths of a group have a beginning in common.
        """
        ids, given = list(self.writing.ids(text, first=True)), self.prompt.prompt_ids
        if ids[:1] == list(given[:1]):
            return ids
        for kept in range(len(given), 0, -1):
            before = decode(self.encoder.tokenizer, list(given[:kept]), special=True)
            if text.startswith(before):
                return [*given[:kept], *self.writing.ids(text[len(before) :], first=False)]
        return ids

    def _harmless(self, message: Message) -> Message:
        content = message.get("content")
        if not isinstance(content, str):
            return message
        told, count = readable(content), 0
        if self._special is not None:
            told, count = self._special.subn(lambda name: f"{name[0][0]} {name[0][1:]}", told)
        self.disarmed += count
        return {**message, "content": told}

    def episode(self, finish: Finish, reward: float | None, facts: dict[str, float]) -> Episode:
        """All of it as one completion."""
        laid = lay(self.paths, self.prompt.prompt_ids)
        said = [m for m in self.messages[self.given :] if m["role"] == "assistant"]
        return Episode(
            text=str((said[-1].get("content") or "") if said else ""),
            finish=finish,
            ids=laid.ids,
            sampled=laid.sampled,
            logprobs=tuple(self.logprobs),
            versions=laid.versions,
            shared=laid.shared,
            starts=laid.starts or (0,),
            turns=tuple(self.turns),
            asked=self._asked,
            messages=tuple(self.messages[self.given :]),
            reward=reward,
            facts=facts | self._counted(len(laid.starts)),
        )

    def _counted(self, paths: int) -> dict[str, float]:
        counts = {"turns": len(self.turns), "forks": max(0, paths - 1)}
        return {n: float(c) for n, c in counts.items()} | (
            {"disarmed": float(self.disarmed)} if self.disarmed else {}
        )


@dataclass(frozen=True, slots=True)
class Laid:
    """Paths laid end to end without the first `shared` tokens of the prompt, with which all of them
    begin; `starts` are where they begin. What was read after a path's last turn teaches nothing,
    and so does a path without a turn: they are left out."""

    shared: int
    ids: tuple[int, ...]
    sampled: tuple[bool, ...]
    versions: tuple[VersionSpan, ...]
    starts: tuple[int, ...]


def lay(paths: Sequence[Path], prompt_ids: Sequence[int]) -> Laid:
    """The paths of an episode as an `Episode` holds them."""
    told = [path for path in paths if path.sampled]
    shared = min([_shared(prompt_ids, p.ids) for p in told], default=len(prompt_ids))
    ids: list[int] = []
    sampled: list[bool] = []
    starts: list[int] = []
    versions: list[VersionSpan] = []
    for path in told:
        starts.append(len(ids))
        moved = len(ids) - shared
        versions += [VersionSpan(s.start + moved, s.stop + moved, s.version) for s in path.versions]
        end = len(path.sampled)
        ids += path.ids[shared:end]
        sampled += path.sampled[shared:end]
    return Laid(shared, tuple(ids), tuple(sampled), tuple(versions), tuple(starts))


def _shared(prompt: Sequence[int], ids: Sequence[int]) -> int:
    """How many tokens of the prompt a path begins with."""
    pairs = zip(prompt, ids, strict=False)
    return next(
        (n for n, (one, other) in enumerate(pairs) if one != other), min(len(prompt), len(ids))
    )
