"""Routes on the wire: a `.npy` file in base64, as vLLM's `choices[].routed_experts` has them.

Its array is [tokens - 1, layers, experts a token] over prompt and answer, whole numbers; the last
token was drawn and not read, so it went nowhere (vLLM 0.32, `GenerateResponseChoice` in
`entrypoints/scale_out/token_in_token_out/protocol.py`). Layers that do not route are counted, too.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import Literal

import numpy as np

from strop.errors import HttpError
from strop.types import Completion, Routes

MOST = 2**16
"""The number of an expert is below this."""


def routes_text(made: Completion) -> str | None:
    """The routes of a prompt and its answer; `None` where they are unknown."""
    if made.prompt_routes is None or made.routes is None:
        return None
    first = made.prompt_routes
    ids = np.frombuffer(first.ids + made.routes.ids, f"<u{first.width}")
    with io.BytesIO() as file:
        np.save(file, ids.reshape(-1, first.layers, first.chosen), allow_pickle=False)
        return base64.b64encode(file.getvalue()).decode("ascii")


def routes_of_text(text: object, prompt: int, answer: int, url: str) -> tuple[Routes, Routes]:
    """The routes of so many tokens of a prompt, and of all but the last of its answer.

    Raises `HttpError` for a text of another form or of another number of tokens.
    """
    try:
        ids = np.load(io.BytesIO(base64.b64decode(str(text), validate=True)), allow_pickle=False)
        tokens, layers, chosen = ids.shape
        fits = ids.dtype.kind in "iu" and ids.min() >= 0 and ids.max() < MOST
    except (binascii.Error, ValueError, EOFError, AttributeError):
        fits = False
    if not fits:
        raise HttpError("`routed_experts` is no array of small whole numbers, [tokens, layers, "
                        "experts]", where=url)  # fmt: skip
    if tokens != prompt + answer - 1:
        raise HttpError(
            f"`routed_experts` are of {tokens} tokens, where {prompt} of a prompt and {answer - 1} "
            "of its answer were read",
            where=url,
        )
    width: Literal[1, 2] = 1 if ids.max() < 2**8 else 2
    read, said = (part.astype(f"<u{width}").tobytes() for part in (ids[:prompt], ids[prompt:]))
    return Routes(read, layers, chosen, width), Routes(said, layers, chosen, width)
