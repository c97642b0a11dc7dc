"""Who asks, and what that caller may do."""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strop.errors import UsageError
from strop.files import read_text
from strop.recipe.serve import Scope, TokenRecipe
from strop.serve.errors import RefusedError

SHORTEST = 16
"""Characters of a secret that cannot be guessed."""


@dataclass(frozen=True, slots=True)
class Caller:
    """`Caller("app", frozenset({"serve", "feedback"}))`; what callers of different names ask and
    say is closed to each other."""

    name: str
    scopes: frozenset[Scope]


ANYONE = Caller("", frozenset({"serve", "feedback"}))
"""Whoever asks a server without tokens, which answers its own machine alone."""


class Doors:
    """Tells callers by their tokens. Raises `UsageError` for a secret that is missing or short."""

    def __init__(self, tokens: Sequence[TokenRecipe]) -> None:
        self._known = [(_secret(one), Caller(one.name, frozenset(one.scopes))) for one in tokens]
        for place, (secret, caller) in enumerate(self._known):
            for other, same in self._known[:place]:
                if hmac.compare_digest(secret, other):
                    both = f"{same.name!r} and {caller.name!r}"
                    raise UsageError(f"the tokens {both} have one secret", where="tokens",
                                     fix="give each its own")  # fmt: skip

    def caller(self, authorization: str | None, scope: Scope) -> Caller:
        """Who sends this header; raises `RefusedError` 401 for nobody that is known, and 403 for a
        caller without the scope."""
        found = self.known(authorization)
        if scope not in found.scopes:
            how = f"give the token {found.name!r} the scope" if found.name else "give `tokens`"
            raise RefusedError(
                403, f"this needs the scope {scope!r}: {how} in the server's YAML",
                code="insufficient_scope",
            )  # fmt: skip
        return found

    def known(self, authorization: str | None) -> Caller:
        """Who sends this header; raises `RefusedError` 401. Every token is compared, so that time
        tells nothing."""
        found = ANYONE if not self._known else None
        scheme, _, given = (authorization or "").strip().partition(" ")
        for secret, caller in self._known:
            same = hmac.compare_digest(secret, given.strip().encode())
            if same and scheme.lower() == "bearer":  # schemes have no case
                found = caller
        if found is None:
            raise RefusedError(
                401,
                "no valid token: send `Authorization: Bearer TOKEN`",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return found


def _secret(token: TokenRecipe) -> bytes:
    if token.env is not None:
        where, secret = f"${token.env}", os.environ.get(token.env, "")
        if not secret:
            raise UsageError(f"no secret of the token {token.name!r} is set", where=where,
                             fix=f"export {token.env}=$(openssl rand -hex 24)")  # fmt: skip
    else:
        where = str(token.file)
        secret = read_text(Path(where), UsageError, limit=4096)
    secret = secret.strip()
    if len(secret) < SHORTEST:
        raise UsageError(
            f"the secret of the token {token.name!r} has {len(secret)} characters",
            where=where,
            fix=f"put one of at least {SHORTEST} there, such as `openssl rand -hex 24` prints",
        )
    return secret.encode()
