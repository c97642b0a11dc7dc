"""Writes records as text, in the parts that are tokenised separately.

A prompt is written exactly as at sampling time. The rest is written separately, so training and
sampling see the same boundary.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from strop.errors import TextError
from strop.text.chat.messages import LEARNT, is_learnt
from strop.text.chat.template import Tools
from strop.text.chat.unread import expect_read
from strop.text.encode import Encoder
from strop.types import Demonstration, Document, Message, Preference, Record, Task, Text

_THOUGHT_OPENED = re.compile(r"<think>\s*\Z")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Fields of a message that hold a thought, under the names of different servers."""

_THOUGHT_CLOSED = "\n</think>\n\n"


class PromptAndAnswers(NamedTuple):
    """A prompt and its answers: `PromptAndAnswers("Solve 2x = 6", ("x = 3",), "sft.jsonl:1")`.

    With `apart` an answer of several assistant turns may become a branch for each turn, if the
    template rewrites earlier turns; a comparison needs one branch per answer.
    """

    prompt: Text
    answers: tuple[Text, ...]
    where: str
    tools: Tools = None
    apart: bool = False

    def key(self) -> str:
        """A key that is equal for records with the same tree."""
        return repr((self.prompt, self.answers, self.tools, self.apart))

    def is_plain(self) -> bool:
        return all(isinstance(text, str) for text in (self.prompt, *self.answers))


class Turn(NamedTuple):
    """A part of a branch; a `learnt` part is supervised through the token that ends it."""

    text: str
    learnt: bool


class AnswerTurns(NamedTuple):
    """The text before a branch, and the branch's turns."""

    context: str
    turns: list[Turn]


@dataclass(frozen=True, slots=True)
class Script:
    """A record as text. `fault` is the error that the template raised after these turns."""

    plain: bool
    prompt: str
    answers: Sequence[AnswerTurns]
    where: str
    fault: Exception | None = None

    def stretches(self) -> Iterator[str]:
        """All texts but a plain prompt, which is tokenised with special tokens."""
        if not self.plain:
            yield self.prompt
            yield from (answer.context for answer in self.answers)
        for answer in self.answers:
            yield from (turn.text for turn in answer.turns)


def asked_of(record: Record) -> PromptAndAnswers:
    """The prompt and answers of a record; documents and tasks have a prompt without an answer."""
    where = str(record.origin)
    if isinstance(record, Document):
        return PromptAndAnswers(record.text, (), where)
    tools = tools_of(record.columns.get("tools"))
    if isinstance(record, Preference):
        return PromptAndAnswers(record.prompt, (record.chosen, record.rejected), where, tools)
    if isinstance(record, Task):
        return PromptAndAnswers(record.prompt, (), where, tools)
    apart = isinstance(record, Demonstration)
    return PromptAndAnswers(record.prompt, (record.completion,), where, tools, apart)


def tools_of(column: Any) -> Tools:
    """The tools in a record's column; a column that is no list of objects is only for rewards."""
    listed = isinstance(column, list) and all(isinstance(tool, dict) for tool in column)
    return column if listed and column else None


def as_messages(text: Text, *, role: str) -> list[Message]:
    """Plain text as one message of the given role; messages unchanged."""
    return [{"role": role, "content": text}] if isinstance(text, str) else text


def before_answer(prompt: Text) -> Text:
    """A prompt without an assistant message at its end, which is part of the answer."""
    prefilled = isinstance(prompt, list) and prompt[-1]["role"] == "assistant"
    return prompt[:-1] if prefilled else prompt


def script_of(encoder: Encoder, asked: PromptAndAnswers) -> Script:
    """A record as text; an error of the template is kept as the script's fault."""
    prompt = asked.prompt
    if isinstance(prompt, str) and asked.is_plain():
        texts = [answer for answer in asked.answers if isinstance(answer, str)]
        answers = [AnswerTurns(prompt, [Turn(text, True)]) for text in texts]
        return Script(True, prompt, answers, asked.where, _tools_unread(asked))
    done: list[AnswerTurns] = []
    opened = ""
    fault: Exception | None = None
    try:
        writer = _AnswerWriter(encoder, as_messages(prompt, role="user"), asked)
        opened = writer.opened
        for answer in asked.answers:
            writer.add(as_messages(answer, role="assistant"), done)
    except Exception as error:  # noqa: BLE001 - raised later, after faults of earlier turns
        fault = error
    return Script(False, opened, done, asked.where, fault)


def _tools_unread(asked: PromptAndAnswers) -> TextError | None:
    """Raise for tools beside plain text, except those of a task, which its rewards read."""
    if not asked.tools or not asked.answers:
        return None
    return TextError(
        "the column `tools` is not read beside a prompt and an answer of plain text",
        where=asked.where,
        fix="write both as messages, so that the chat template writes the tools, or drop `tools`",
    )


class _AnswerWriter:
    """Writes the answers to one prompt; `opened` is the prompt up to the point where answers
    continue."""

    def __init__(self, encoder: Encoder, prompt: list[Message], asked: PromptAndAnswers) -> None:
        self.encoder, self.chat, self.asked = encoder, encoder.chat, asked
        self.prefill = prompt[-1] if prompt[-1]["role"] == "assistant" else None
        self.before = prompt[:-1] if self.prefill else prompt
        self.opened = encoder.prompt(prompt, asked.tools, asked.where)
        thinks = _THOUGHT_OPENED.search(self.opened) is not None
        self._expect_read(_without_thoughts(prompt) if thinks else prompt)

    def add(self, turns: list[Message], done: list[AnswerTurns]) -> None:
        """The branches of one answer."""
        if self.prefill is not None:
            turns = [_joined(self.prefill, turns[0], self.asked.where), *turns[1:]]
        learnt = [t["role"] == "assistant" and is_learnt(t, self.asked.where) for t in turns]
        if not any(learnt):
            raise TextError(
                "no assistant turn of the answer is learnt",
                where=self.asked.where,
                fix="leave `weight` out or write 1, or drop the record",
            )
        spoken = sum(turn["role"] == "assistant" for turn in turns)
        several = spoken > 1 and (self.asked.apart or sum(learnt) == 1)
        if several and self._needs_end():
            done += self._apart(turns, learnt)
            return
        held = len(done)
        done.append(AnswerTurns(self.opened, []))
        try:
            self._together(turns, learnt, done[-1].turns)
        except _RewrittenError:
            if not several:
                raise
            del done[held:]
            done += self._apart(turns, learnt)

    def _together(self, turns: list[Message], learnt: Sequence[bool], done: list[Turn]) -> None:
        """Every turn after the prompt, as the text that it adds."""
        opened = self.opened
        for count, turn in enumerate(turns):
            if turn["role"] != "assistant":
                done.append(Turn(self._added(done, self._write(turns[: count + 1])), False))
                continue
            if count > 0:
                opened = self._history(turns[:count])
                done.append(Turn(self._added(done, opened), False))
            text = self._spoken(turns[:count], turn, opened)
            done.append(Turn(text, learnt[count]))

    def _added(self, done: list[Turn], text: str) -> str:
        """The text that `text` adds to the prompt and the turns before it.

        Some templates close a conversation after the token that ended its last turn (Phi 3.5); this
        closing is cut off if another turn follows.
        """
        before = self.opened + "".join(turn.text for turn in done)
        if text.startswith(before):
            return text[len(before) :]
        if done and (kept := self.encoder.through_end(done[-1].text)):
            done[-1] = done[-1]._replace(text=kept)
            before = self.opened + "".join(turn.text for turn in done)
            if text.startswith(before):
                return text[len(before) :]
        raise _RewrittenError(self.asked.where)

    def _apart(self, turns: list[Message], learnt: Sequence[bool]) -> Iterator[AnswerTurns]:
        """A branch for every learnt turn, with its history rendered as at sampling time."""
        for count, turn in enumerate(turns):
            if turn["role"] == "assistant" and not learnt[count]:
                self._expect_read([*self.before, *turns[: count + 1]])
            if learnt[count]:
                opened = self.opened if count == 0 else self._history(turns[:count])
                text = self._spoken(turns[:count], turn, opened)
                yield AnswerTurns(opened, [Turn(text, True)])

    def _spoken(self, before: list[Message], turn: Message, opened: str) -> str:
        """The assistant's text after `opened`, with the template's text after it."""
        whole = self._write([*before, turn])
        if not whole.startswith(opened) and _THOUGHT_OPENED.search(opened):
            return self._after_thought(before, turn, opened, whole)
        self._expect_read([*self.before, *before, turn])
        return _continuation(whole, opened, self.asked.where)

    def _after_thought(self, before: list[Message], turn: Message, opened: str, whole: str) -> str:
        """The assistant's text if the prompt has opened a thought, and the template renders the
        turn differently from how it was sampled."""
        pairs = enumerate(zip(opened, whole, strict=False))
        parted = next((place for place, (one, other) in pairs if one != other), len(whole))
        if not opened[parted:].strip():  # `<think>` and a line break against `<think></think>`
            self._expect_read([*self.before, *before, turn])
            return whole[parted:]
        if turn.get("tool_calls"):
            raise _RewrittenError(self.asked.where)
        self._expect_read(_without_thoughts([*self.before, *before, turn]))
        return _thought_through(turn) + self.chat.closing

    def _needs_end(self) -> bool:
        """Whether the template writes no end after a turn, so that strop has to add it."""
        closing = self.chat.closing
        return self.encoder.through_end(closing) == "" and self.encoder.appended is not None

    def _history(self, turns: list[Message]) -> str:
        return self._render([*self.before, *turns], generation=True)

    def _write(self, turns: list[Message]) -> str:
        return self._render([*self.before, *turns], generation=False)

    def _render(self, messages: list[Message], *, generation: bool) -> str:
        tools, where = self.asked.tools, self.asked.where
        return self.chat.write(messages, tools, generation=generation, where=where)

    def _expect_read(self, messages: list[Message]) -> None:
        if self.chat.tokenizer.chat_template is not None:
            expect_read(self.chat, messages, self.asked.tools, self.asked.where)


class _RewrittenError(TextError):
    """A template changes the text before a turn when the turn is added."""

    def __init__(self, where: str) -> None:
        super().__init__(
            "the chat template is not prefix-stable: adding a turn changes what was rendered before"
            " it, so training would see other text than sampling",
            where=where,
            fix="train on single-turn records, or use a template that leaves earlier turns alone",
        )


def _continuation(text: str, prefix: str, where: str) -> str:
    if not text.startswith(prefix):
        raise _RewrittenError(where)
    return text[len(prefix) :]


def _joined(prefill: Message, turn: Message, where: str) -> Message:
    """An assistant turn that continues the prompt's last message."""
    if turn["role"] != "assistant" or not isinstance(prefill.get("content"), str):
        raise TextError(
            "the prompt ends with an assistant message, which the answer has to go on with",
            where=where,
            fix="begin the answer with an assistant turn, or end the prompt with a user turn",
        )
    begun = {name: value for name, value in prefill.items() if name not in LEARNT}
    return {**begun, **turn, "content": prefill["content"] + (turn.get("content") or "")}


def _thought_through(turn: Message) -> str:
    """A turn as the model writes it after a prompt that has opened a thought: the thought, its end,
    the answer. For templates that drop thoughts from a turn (DeepSeek R1)."""
    content = turn.get("content") or ""
    thought = next((turn[name] for name in THOUGHTS if turn.get(name)), "")
    begins = re.match(r"\s*<think>\n?", content)
    if not thought and begins and "</think>" in content:
        return content[begins.end() :]
    if not thought and "</think>" in content and "<think>" not in content:
        return content
    return f"{thought}{_THOUGHT_CLOSED}{content}"


def _without_thoughts(messages: Sequence[Message]) -> list[Message]:
    """Messages without thoughts, for a template that drops them on purpose."""
    return [{k: v for k, v in message.items() if k not in THOUGHTS} for message in messages]


def opened_by(prompt: Text, rendered: str) -> str:
    """The part of the answer that the prompt already contains: an assistant message at its end, or
    `<think>`.

    `rendered` is the end of the prompt's text as the model reads it.
    """
    if isinstance(prompt, list) and prompt[-1]["role"] == "assistant":
        return str(prompt[-1].get("content") or "")
    found = _THOUGHT_OPENED.search(rendered)
    return found[0] if found else ""
