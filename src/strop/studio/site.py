"""What every page of the studio is made with."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse

from strop.studio.begun import Begun
from strop.studio.root import Root
from strop.tracking.story.page import templates

FILES = Path(__file__).parent / "files"
NAV = (
    ("/runs", "Runs"), ("/compare", "Compare"), ("/data", "Data"), ("/gates", "Gates"),
    ("/registry", "Registry"), ("/label", "Label"), ("/advise", "Advise"), ("/serve", "Serve"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Site:
    """A studio: what it shows, the token that writing takes, the runs that it began, and whether it
    is about to end."""

    root: Root
    token: str
    begun: Begun = field(default_factory=Begun)
    ending: threading.Event = field(default_factory=threading.Event)

    def page(
        self, template: str, title: str, here: str, status: int = 200, **shown: Any
    ) -> HTMLResponse:
        """A whole page; `here` is the entry of the navigation that it belongs to."""
        more: Mapping[str, Any] = {
            "title": title, "nav": NAV, "here": here, "root": str(self.root.folder), **shown,
        }  # fmt: skip
        text = templates(FILES).get_template(template).render(**more)
        return HTMLResponse(text.encode("utf-8", "backslashreplace"), status)

    def part(self, template: str, **shown: Any) -> HTMLResponse:
        """A part of a page."""
        text = templates(FILES).get_template(template).render(**shown)
        return HTMLResponse(text.encode("utf-8", "backslashreplace"))
