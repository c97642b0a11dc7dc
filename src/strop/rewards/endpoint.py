"""A reward that answers over HTTP."""

from __future__ import annotations

from collections.abc import Sequence

from strop.http import HttpClient, RequestLimits
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
    """Scores from a POST of `{"prompts", "completions", ...columns}` to `url`, which returns a list
    of numbers (or null), bare or as `{"scores": [...]}`.

    Retries up to `retries` times if the connection or the server fails; then raises `HttpError`,
    and the completions are unscored.
    """
    body = {"prompts": list(prompts), "completions": list(completions), **columns}
    answer = HttpClient(RequestLimits(seconds=seconds, retries=retries)).post(url, body)
    scores = answer["scores"] if isinstance(answer, dict) else answer
    return [None if score is None else float(score) for score in scores]
