"""The page on which people label, and what it asks the server."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from strop.errors import StropError
from strop.judge.label.ledger import Choice, Ledger, Shown
from strop.judge.trust.calibration import Agreement
from strop.text.templates import conversation

FILES = Path(__file__).parent / "files"
ONLY_OURS = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
"""Nothing in an answer can run or be fetched, even if the page showed it as HTML."""


class Label(BaseModel):
    """`{"person": "anna", "item": "7", "choice": "first"}`."""

    model_config = ConfigDict(extra="forbid")

    person: str
    item: str = Field(max_length=10_000)
    choice: Choice


def label_app(ledger: Ledger, token: str) -> FastAPI:
    """The page at `/`, and `/api/pair` and `/api/label` for those who know the token.

    Only requests for this machine's own names are answered, so that no other site that a browser
    has open can reach it by a name of its own.
    """
    app = FastAPI(title="strop judge label", openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])

    def expect_token(x_strop_token: Annotated[str, Header()] = "") -> None:
        if not secrets.compare_digest(x_strop_token.encode(), token.encode()):
            raise HTTPException(401, "open the address that strop printed, with its token")

    @app.exception_handler(StropError)
    async def refused(_: Request, error: StropError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 400)

    for route, name in (
        ("/", "label.html"),
        ("/label.js", "label.js"),
        ("/label.css", "label.css"),
    ):
        app.add_api_route(route, _file(name), methods=["GET"])

    @app.get("/api/pair", dependencies=[Depends(expect_token)])
    def pair(person: str, number: int | None = None) -> dict[str, Any]:
        name = ledger.named(person)
        return _told(ledger, name, ledger.shown(name, number))

    @app.post("/api/label", dependencies=[Depends(expect_token)])
    def label(said: Label) -> dict[str, Any]:
        name = ledger.named(said.person)
        ledger.say(name, said.item, said.choice)
        return _told(ledger, name, ledger.shown(name))

    return app


def _file(name: str) -> Any:
    def file() -> FileResponse:
        headers = {"Content-Security-Policy": ONLY_OURS, "Referrer-Policy": "no-referrer",
                   "Cache-Control": "no-store"}  # fmt: skip
        return FileResponse(FILES / name, headers=headers)

    return file


def _told(ledger: Ledger, person: str, shown: Shown | None) -> dict[str, Any]:
    """What the page shows; nothing says which answer comes from where."""
    told: dict[str, Any] = {
        "person": person, "of": len(ledger.pairs), "done": ledger.done(person),
        "people": len(ledger.people), "agreement": _figures(ledger.agreement()), "pair": None,
    }  # fmt: skip
    if shown is not None:
        question = shown.anchor.question
        told["pair"] = {
            "item": question.item, "number": shown.number, "criterion": question.criterion,
            "prompt": conversation(question.prompt), "answers": list(shown.answers),
            "given": ledger.given(person, shown),
        }  # fmt: skip
    return told


def _figures(found: Agreement | None) -> dict[str, float] | None:
    if found is None:
        return None
    return {"pairs": found.items, "observed": found.observed.mean, "low": found.observed.low,
            "high": found.observed.high, "kappa": found.kappa.mean}  # fmt: skip
