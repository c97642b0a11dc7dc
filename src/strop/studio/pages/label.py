"""People label pairs: the page of `strop judge label`, for any file of pairs under the root."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict

from strop.errors import DataError, UsageError
from strop.files import SHORT, locked, sha256_hex, sha256_of
from strop.judge.label.app import label_app
from strop.judge.label.ledger import Ledger
from strop.judge.trust.anchors import Anchor, read_pairs
from strop.studio.site import Site
from strop.tracking.story.facts import is_run


class Begin(BaseModel):
    """`{"data": "pairs.jsonl", "output": "labels"}`; both below the root."""

    model_config = ConfigDict(extra="forbid")

    data: str
    output: str


@dataclass(slots=True)
class Desks:
    """The ledgers that are open, each with its page below `/label/`. Their folders are held until
    the studio ends, so that nobody else writes labels there."""

    site: Site
    open: dict[str, tuple[Begin, Ledger]] = field(default_factory=dict)
    _held: ExitStack = field(default_factory=ExitStack)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, app: FastAPI, wanted: Begin) -> str:
        """The address of the page for these pairs. Raises `DataError` for a file without pairs, and
        `OutputError` where another process labels into the folder."""
        root = self.site.root
        data, output = root.inside(wanted.data), root.inside(wanted.output)
        if output == root.folder or is_run(output) or output.is_file():
            raise UsageError("labels need a folder of their own", where=wanted.output,
                             fix="name a new folder")  # fmt: skip
        pairs = [pair for pair in read_pairs(data) if len(set(pair.question.answers)) == 2]
        if not pairs:
            raise DataError("no pair has two different answers", where=str(data),
                            fix="give pairs whose answers differ")  # fmt: skip
        key = sha256_hex(f"{output}\n{sha256_of(data)}", SHORT)
        with self._lock:
            if key not in self.open:
                if any(ledger.output == output for _, ledger in self.open.values()):
                    raise UsageError("labels of other pairs go to this folder",
                                     where=wanted.output, fix="name another one")  # fmt: skip
                ledger = self._ledger(pairs, output)
                self.open[key] = wanted, ledger
                app.mount(f"/label/{key}", label_app(ledger, self.site.token))
        return f"/label/{key}/"

    def close(self) -> None:
        """Let go of the folders."""
        self._held.close()

    def _ledger(self, pairs: Sequence[Anchor], output: Path) -> Ledger:
        with ExitStack() as held:
            held.enter_context(locked(output))
            ledger = Ledger(pairs, output)
            self._held.enter_context(held.pop_all())
        return ledger


def label_routes(site: Site) -> APIRouter:
    desks = Desks(site)

    @asynccontextmanager
    async def open_until_the_end(app: FastAPI) -> AsyncIterator[None]:
        yield
        desks.close()

    router = APIRouter(lifespan=open_until_the_end)

    @router.get("/label")
    def label() -> HTMLResponse:
        desks_open = [
            {"address": f"/label/{key}/", "data": begun.data, "output": begun.output,
             "pairs": len(ledger.pairs), "people": {one: ledger.done(one) for one in ledger.people},
             "agreement": ledger.agreement()}
            for key, (begun, ledger) in desks.open.items()
        ]  # fmt: skip
        return site.page("label_page.html", "Label", "/label", desks=desks_open,
                         files=site.root.found().records)  # fmt: skip

    @router.post("/act/label")
    def begin(request: Request, body: Begin) -> dict[str, str]:
        return {"said": "ready", "open": desks.begin(request.app, body)}

    return router
