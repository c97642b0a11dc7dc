"""What models and users said is text on every page, however it is written."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from strop.studio.app import studio_app
from strop.studio.root import Root
from strop.studio.site import Site
from strop.tracking.story.page import report_html
from strop.tracking.story.story import read_story
from tests.support.studio import TOKEN, write_root

KINDS = (
    "<script>alert(1)</script>", "<SCRIPT SRC=//x.example/a.js></SCRIPT>", "<scr<script>ipt>a()",
    "<img src=x onerror=alert(1)>", "<img src=`x` onerror=alert(1)>", "<img/src/onerror=alert(1)>",
    "<svg onload=alert(1)>", "<svg><script>alert(1)</script></svg>", "<svg/onload=alert(1)//",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>", "<body onload=alert(1)>",
    "<iframe src=javascript:alert(1)></iframe>", "<iframe srcdoc='<script>alert(1)</script>'>",
    "<object data=javascript:alert(1)>", "<embed src=javascript:alert(1)>",
    "<a href=javascript:alert(1)>x</a>", "<a href='jav&#x09;ascript:alert(1)'>x</a>",
    "<form action=javascript:alert(1)><button>x</button></form>", 
    "<button formaction=javascript:a()>",
    "<input autofocus onfocus=alert(1)>", "<select autofocus onfocus=alert(1)>",
    "<textarea autofocus onfocus=alert(1)>", "<details open ontoggle=alert(1)>x</details>",
    "<video src=x onerror=alert(1)>", "<audio src=x onerror=alert(1)>", "<math><mtext><script>a()",
    "<marquee onstart=alert(1)>x</marquee>",
    "<meta http-equiv=refresh content='0;url=//x.example'>",
    "<base href=//x.example/>", "<link rel=stylesheet href=//x.example/a.css>",
    "<style>@import '//x.example/a.css'</style>", "</title><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>", "</pre></details><script>alert(1)</script>",
    "\"><script>alert(1)</script>", "' onmouseover='alert(1)",
    "\" onfocus=\"alert(1)\" autofocus x=\"",
    "--><script>alert(1)</script>", "]]><script>alert(1)</script>", "{{ 7 * 7 }}{% raw %}<b>",
    "\u003cscript\u003ealert(1)\u003c/script\u003e", "&lt;script&gt;alert(1)&lt;/script&gt;",
)  # fmt: skip
"""Kinds of injections as public lists have them: tags, events, schemes, ways out of contexts."""

OURS = {"html", "head", "meta", "title", "link", "script", "style", "body", "a", "header", "nav",
        "p", "main", "h1", "h2", "h3", "form", "label", "input", "button", "div", "table", "thead",
        "tbody", "tr", "th", "td", "span", "section", "ul", "ol", "li", "figure", "figcaption",
        "svg", "g", "line", "path", "polyline", "polygon", "circle", "text", "details", "summary",
        "pre", "footer", "select", "option", "dialog", "progress", "b", "i", "mark", "article",
        "code"}  # fmt: skip


class Seen(HTMLParser):
    """The elements of a page, and the attributes that could do something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.active: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            said = value or ""
            scheme = said.strip().lower().startswith(("javascript:", "//", "http"))
            if name.startswith("on") or (
                name in ("href", "src", "action", "formaction") and scheme
            ):
                self.active.append((tag, f"{name}={said}"))
            if tag in ("script", "link") and name in ("src", "href"):
                assert said.startswith(("/static/", "data:,"))


def inert(page: str) -> None:
    seen = Seen()
    seen.feed(page)
    assert seen.active == []
    assert seen.tags <= OURS
    assert "http-equiv" not in page or "&lt;meta" in page


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_text_on_every_page(tmp_path: Path, kind: str) -> None:
    root = write_root(tmp_path / "root", said=kind)
    headers = {"Accept": "text/html"}
    with TestClient(
        studio_app(Site(Root(root), TOKEN)), "http://127.0.0.1", headers=headers
    ) as client:
        for page in ("/run/runs/seed-0", "/samples/runs/seed-0", "/serve",
                     "/compare?run=runs/seed-0&run=runs/candidate", "/records/data/pairs.jsonl",
                     "/check/checks/pairs.json", "/gate/gates/candidate.json"):  # fmt: skip
            answer = client.get(page)
            assert answer.status_code == 200
            inert(answer.text)
        inert(client.get("/samples/runs/seed-0", params={"text": kind, "habit": kind}).text)
        inert(client.get(f"/run/{kind}").text)
    inert(report_html(read_story(root / "runs" / "seed-0")))
