"""Answers in OpenAI's form: whole, and as the chunks of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from strop.serve.answering import Collected, Ended, Piece
from strop.serve.exchange import Exchange, new_id
from strop.serve.protocol.listed import chat_logprobs, text_logprobs
from strop.serve.protocol.speaking import called


def frame(asked: Exchange, kind: str, choices: Sequence[Any]) -> dict[str, Any]:
    """What every answer and chunk begins with. `strop` says which weights made it."""
    version = asked.version
    made = {"weights": version.place.weights, "entry": version.place.entry, "seed": asked.seed}
    if asked.arm is not None:
        made["arm"] = asked.arm.side
    return {"id": asked.id, "object": kind, "created": asked.created, "model": asked.model,
            "system_fingerprint": version.place.weights, "choices": list(choices),
            "strop": made}  # fmt: skip


class Form(Protocol):
    """How one route writes: chat or plain completions."""

    kind: str
    chunk_kind: str

    def choice(self, asked: Exchange, index: int, came: Collected) -> dict[str, Any]:
        """A whole choice."""

    def opening(self, asked: Exchange, index: int) -> list[dict[str, Any]]:
        """Choices of the chunk that begins a stream."""

    def chunks(self, asked: Exchange, piece: Piece) -> list[dict[str, Any]]:
        """Choices of the chunks for what came."""


class ChatForm:
    kind, chunk_kind = "chat.completion", "chat.completion.chunk"

    def __init__(self, *, logprobs: bool, token_ids: bool) -> None:
        self.logprobs, self.token_ids = logprobs, token_ids

    def choice(self, asked: Exchange, index: int, came: Collected) -> dict[str, Any]:
        ended = came.done()
        said = ended.written
        message: dict[str, Any] = {"role": "assistant", "content": said.content, "refusal": None}
        if said.reasoning is not None:
            message["reasoning_content"] = said.reasoning
        if said.calls:
            message["content"] = said.content or None
            listed = [called(one, n, new_id("call")) for n, one in enumerate(said.calls)]
            message["tool_calls"] = [{k: v for k, v in c.items() if k != "index"} for c in listed]
        choice = {"index": index, "message": message, "finish_reason": ended.finish,
                  "logprobs": self._listed(asked, came) if self.logprobs else None}  # fmt: skip
        return choice | ({"token_ids": list(ended.completion.ids)} if self.token_ids else {})

    def opening(self, asked: Exchange, index: int) -> list[dict[str, Any]]:
        first = _delta(index, {"role": "assistant", "content": ""})
        return [first | self._prompt_ids(asked)]

    def chunks(self, asked: Exchange, piece: Piece) -> list[dict[str, Any]]:
        made = [_delta(piece.index, {delta.part: delta.text}) for delta in piece.deltas]
        if piece.progress.ids and (self.logprobs or self.token_ids):
            made = made or [_delta(piece.index, {})]
            came = Collected()
            came.add(piece)
            if self.logprobs:
                made[0]["logprobs"] = self._listed(asked, came)
            if self.token_ids:
                made[0]["token_ids"] = list(piece.progress.ids)
        if piece.ended is not None:
            calls = [called(one, n, new_id("call"))
                     for n, one in enumerate(piece.ended.written.calls)]  # fmt: skip
            if calls:
                made.append(_delta(piece.index, {"tool_calls": calls}))
            made.append(_delta(piece.index, {}, piece.ended.finish))
        return made

    def _listed(self, asked: Exchange, came: Collected) -> dict[str, Any]:
        return chat_logprobs(asked.version.tokenizer, came.ids, came.logprobs, came.likeliest)

    def _prompt_ids(self, asked: Exchange) -> dict[str, Any]:
        return {"prompt_token_ids": list(asked.prompted.prompt_ids)} if self.token_ids else {}


class TextForm:
    kind = chunk_kind = "text_completion"

    def __init__(self, *, logprobs: bool, token_ids: bool, first: int = 0) -> None:
        self.logprobs, self.token_ids, self.first = logprobs, token_ids, first

    def choice(self, asked: Exchange, index: int, came: Collected) -> dict[str, Any]:
        ended = came.done()
        ids = {"token_ids": list(came.ids),
               "prompt_token_ids": list(asked.prompted.prompt_ids)}  # fmt: skip
        return self._choice(asked, index, spoken(ended), came, ended.completion.finish) | (
            ids if self.token_ids else {}
        )

    def opening(self, asked: Exchange, index: int) -> list[dict[str, Any]]:
        return []

    def chunks(self, asked: Exchange, piece: Piece) -> list[dict[str, Any]]:
        text = "".join(delta.text for delta in piece.deltas)
        finish = None if piece.ended is None else piece.ended.completion.finish
        if not text and not piece.progress.ids and finish is None:
            return []
        came = Collected()
        came.add(piece)
        made = self._choice(asked, piece.index, text, came, finish)
        return [made | ({"token_ids": list(came.ids)} if self.token_ids else {})]

    def _choice(
        self, asked: Exchange, index: int, text: str, came: Collected, finish: str | None
    ) -> dict[str, Any]:
        listed = None
        if self.logprobs:
            tokenizer = asked.version.tokenizer
            listed = text_logprobs(tokenizer, came.ids, came.logprobs, came.likeliest)
        return {"index": self.first + index, "text": text, "finish_reason": finish,
                "logprobs": listed}  # fmt: skip


def spoken(ended: Ended) -> str:
    """All that a choice says, thoughts included, as plain completions tell it."""
    return (ended.written.reasoning or "") + ended.written.content


def _delta(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}
