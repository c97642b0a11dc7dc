"""A reward that answers over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from strop.types import Text


def endpoint(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    *,
    url: str,
    seconds: float = 30.0,
    retries: int = 2,
    **columns: Sequence[object],
) -> list[float | None]:
    """What `url` answers to a POST of `{"prompts", "completions", ...columns}`: a list of numbers
    (or null), bare or as `{"scores": [...]}`.

    Tried `retries` times more where the connection or the server fails; then raises
    `httpx.HTTPError`, and the completions are unscored.
    """
    body = {"prompts": list(prompts), "completions": list(completions), **columns}
    with httpx.Client(transport=httpx.HTTPTransport(retries=retries), timeout=seconds) as client:
        answer = _asked(client, url, body, retries)
    scores = answer["scores"] if isinstance(answer, dict) else answer
    return [None if score is None else float(score) for score in scores]


def _asked(client: httpx.Client, url: str, body: object, retries: int) -> Any:
    for left in range(retries, -1, -1):
        response = client.post(url, json=body)
        if response.status_code < 500 or not left:
            break
    return response.raise_for_status().json()
