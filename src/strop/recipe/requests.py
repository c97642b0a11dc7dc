"""How an endpoint is asked, and what it costs."""

from __future__ import annotations

from pydantic import Field

from strop.recipe.base import Strict


class RequestsRecipe(Strict):
    """How an endpoint is asked: `at_once` requests are on their way together, and `per_second` are
    begun; each gets `seconds` an attempt and `retries` further ones. Once `most_requests` were sent
    or `most_tokens` used the run stops, and the same command goes on with a larger budget."""

    at_once: int = Field(8, ge=1)
    per_second: float | None = Field(None, gt=0)
    seconds: float = Field(120.0, gt=0)
    retries: int = Field(4, ge=0)
    most_requests: int | None = Field(None, ge=1)
    most_tokens: int | None = Field(None, ge=1)


class PricesRecipe(Strict):
    """Money for a million tokens, in the currency of your bill:
    `{prompt: 0.5, completion: 1.5}`."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)
