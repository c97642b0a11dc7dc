"""What a request is refused with: a status and OpenAI's error object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from strop.errors import HttpError, StropError, UsageError

TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
    404: "not_found_error", 405: "invalid_request_error", 408: "timeout_error",
    413: "invalid_request_error", 422: "invalid_request_error", 429: "rate_limit_error",
    500: "server_error", 503: "server_error", 504: "timeout_error",
}  # fmt: skip
"""OpenAI's `error.type` for each status."""


class RefusedError(Exception):
    """`RefusedError(404, "there is no model 'x'", param="model", code="model_not_found")`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        message = message.encode("utf-8", "backslashreplace").decode()  # half a pair has no bytes
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "server_error")
        said = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": said}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, headers=self.headers)


def refusal_of(error: Exception) -> RefusedError:
    """Any error as a refusal. Only strop's own messages are told: others may hold anything."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, UsageError):
        return RefusedError(400, str(error))
    if isinstance(error, HttpError):  # of the server behind: it refuses the request, or is not well
        return RefusedError(400 if error.status == 400 else 503, str(error))
    if isinstance(error, StropError):
        return RefusedError(500, str(error))
    return RefusedError(500, "the server failed at this request; its log says more")


def add_refusals(app: FastAPI) -> None:
    """Every error leaves as OpenAI's error object."""

    @app.exception_handler(RefusedError)
    @app.exception_handler(StropError)
    async def refused(_: Request, error: Exception) -> JSONResponse:
        return refusal_of(error).response()

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return refusal_of(error).response()

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> JSONResponse:
        return misdirected(request, error).response()

    @app.exception_handler(RequestValidationError)
    async def unread(request: Request, error: RequestValidationError) -> JSONResponse:
        return unreadable(error, request.headers.get("content-type")).response()


def misdirected(request: Request, error: HTTPException) -> RefusedError:
    """404 for an address where nothing is, 405 for another method than it has."""
    path, method = request.url.path, request.method
    if error.status_code == 404:
        told = (f"nothing is at {path}: there are /v1/chat/completions, /v1/completions, "
                "/v1/feedback and others; a client's base URL ends in /v1")  # fmt: skip
        return RefusedError(404, told)
    headers = error.headers or {}
    if error.status_code == 405:
        told = f"{path} takes {Headers(headers).get('allow')}, not {method}"
        return RefusedError(405, told, headers=headers)
    return RefusedError(error.status_code, str(error.detail), headers=headers)


def _is_json(content_type: str | None) -> bool:
    kind = (content_type or "").partition(";")[0].strip().lower()
    return kind.startswith("application/") and kind.endswith(("/json", "+json"))


def unreadable(error: RequestValidationError, content_type: str | None) -> RefusedError:
    """400 for what is no JSON, 422 for JSON that is no such request; the first mistake is told."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    if not place and first["type"] == "missing":
        return RefusedError(400, "the request has no body: send JSON")
    if not place and isinstance(first["input"], str | bytes) and not _is_json(content_type):
        sent = f"as {content_type}" if content_type else "without a content type"
        return RefusedError(400, f"the body came {sent}: send it as application/json")
    if not place and "valid dictionary" in first["msg"]:
        return RefusedError(422, "the body is no JSON object")
    if first["type"] == "json_invalid":
        return RefusedError(400, f"the body is no JSON: {first['ctx']['error']}")
    problem = str(first["msg"]).removeprefix("Value error, ")
    more = len(error.errors()) - 1
    also = f" (and {more} more mistakes)" if more else ""
    return RefusedError(422, f"{place or 'the body'}: {problem}{also}", param=place or None)
