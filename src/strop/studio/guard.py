"""Who may ask the studio for what: this machine reads, and whoever knows the token writes."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.responses import JSONResponse

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'"
)
"""No script but the studio's own files: nothing that a model or a user wrote can run. Plotly sets
style attributes, which is why inline styles are allowed."""
HEADERS = {
    "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
}  # fmt: skip
HERE = frozenset({"127.0.0.1", "localhost"})
"""The names by which this machine calls itself. A web page whose own name was made to lead here
(DNS rebinding) asks under that name, and is refused."""

Handler = Callable[[Request], Awaitable[Response]]


class Guard:
    """Middleware. Raises nothing: a request that may not pass is answered with the reason, and one
    that fails by a fault of the studio's own with `failed`."""

    def __init__(self, token: str, failed: Callable[[Request, str], Response]) -> None:
        self.token, self.failed = token, failed

    async def __call__(self, request: Request, handle: Handler) -> Response:
        why = self._refusal(request)
        if why is not None:
            status, said = why
            return JSONResponse({"detail": said}, status, headers=HEADERS)
        try:
            answer = await handle(request)
        except Exception as error:
            logging.getLogger("strop.studio").exception("%s failed", request.url.path)
            answer = self.failed(request, f"this page failed: {type(error).__name__}: {error}")
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        if not request.url.path.startswith("/static/"):
            answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    def _refusal(self, request: Request) -> tuple[int, str] | None:
        if _name(f"//{request.headers.get('host', '')}") not in HERE:
            return 400, "the studio answers 127.0.0.1 and localhost only"
        origin = request.headers.get("origin")
        if origin is not None and not _same(origin, request.headers["host"]):
            return 403, "another site may not ask the studio"
        site = request.headers.get("sec-fetch-site", "none")
        followed = request.method == "GET" and request.headers.get("sec-fetch-mode") == "navigate"
        if site not in ("none", "same-origin") and not followed:
            return 403, "another site may not ask the studio"
        if request.method == "GET":
            return None
        given = request.headers.get("x-strop-token", "")
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return 401, "open the address that `strop studio` printed, with its token"
        return None


def _name(address: str) -> str:
    """The name in an address; empty where it is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _same(origin: str, host: str) -> bool:
    return origin in (f"http://{host}", f"https://{host}")
