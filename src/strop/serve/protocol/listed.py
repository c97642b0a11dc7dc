"""Log-probs of tokens in OpenAI's forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Likeliest = tuple[tuple[int, float], ...]


def token_text(tokenizer: Any, id_: int) -> str:
    return str(tokenizer.decode([id_], clean_up_tokenization_spaces=False))


def _one(tokenizer: Any, id_: int, logprob: float) -> dict[str, Any]:
    text = token_text(tokenizer, id_)
    whole = "\ufffd" not in text  # else a part of a character, whose bytes are not in the text
    return {"token": text, "logprob": logprob, "bytes": list(text.encode()) if whole else None}


def chat_logprobs(
    tokenizer: Any, ids: Sequence[int], logprobs: Sequence[float], likeliest: Sequence[Likeliest]
) -> dict[str, Any]:
    """`choices[].logprobs` of chat: a list of tokens, each with the likeliest at its place."""
    content = []
    for place, (id_, logprob) in enumerate(zip(ids, logprobs, strict=True)):
        top = likeliest[place] if likeliest else ()
        also = [_one(tokenizer, other, value) for other, value in top]
        content.append(_one(tokenizer, id_, logprob) | {"top_logprobs": also})
    return {"content": content, "refusal": None}


def text_logprobs(
    tokenizer: Any, ids: Sequence[int], logprobs: Sequence[float], likeliest: Sequence[Likeliest]
) -> dict[str, Any]:
    """`choices[].logprobs` of plain completions: parallel lists."""
    texts = [token_text(tokenizer, id_) for id_ in ids]
    tops = [{token_text(tokenizer, i): x for i, x in one} for one in likeliest] or None
    places, length = [], 0
    for text in texts:
        places.append(length)
        length += len(text)
    return {"tokens": texts, "token_logprobs": list(logprobs), "top_logprobs": tops,
            "text_offset": places}  # fmt: skip
