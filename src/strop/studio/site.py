"""What every page of the studio is made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse

from strop.studio.root import Root
from strop.tracking.story.page import templates

FILES = Path(__file__).parent / "files"
NAV = (
    ("/runs", "Runs"), ("/compare", "Compare"), ("/data", "Data"), ("/gates", "Gates"),
    ("/registry", "Registry"), ("/label", "Label"), ("/advise", "Advise"), ("/serve", "Serve"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Site:
    """A studio: what it shows, and the token that writing takes."""

    root: Root
    token: str

    def page(
        self, template: str, title: str, here: str, status: int = 200, **shown: Any
    ) -> HTMLResponse:
        """A whole page; `here` is the entry of the navigation that it belongs to."""
        more: Mapping[str, Any] = {
            "title": title, "nav": NAV, "here": here, "root": str(self.root.folder), **shown,
        }  # fmt: skip
        return HTMLResponse(templates(FILES).get_template(template).render(**more), status)

    def part(self, template: str, **shown: Any) -> HTMLResponse:
        """A part of a page."""
        return HTMLResponse(templates(FILES).get_template(template).render(**shown))
