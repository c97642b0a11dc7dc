"""Data: reports of `strop data check`, and a browser of records."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from strop.curate.check.families.rendering import Preview, Rendering
from strop.data.records import any_record
from strop.data.sources import at, read
from strop.errors import StropError, UsageError
from strop.model.load import load_tokenizer
from strop.studio.difference import MOST_LETTERS, Stretch, compared, words
from strop.studio.site import Site
from strop.tracking.reading import FAULTS, opened, read_json
from strop.tracking.story.samples import written

MOST_COLUMN = 500
"""Characters of a column beside the answers."""
MOST_LINE = 1 << 22
"""Characters of a line of records."""
UNBOUNDED = 1 << 30


Answers = tuple[tuple[str, tuple[Stretch, ...]], ...]
"""Each by the name of its column."""


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it stands in its file: its prompt, its answers with what differs between them,
    and the columns beside."""

    number: int
    prompt: str
    answers: Answers
    columns: Mapping[str, Any]
    problem: str = ""


def data_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/data")
    def data() -> HTMLResponse:
        found = site.root.found()
        return site.page("data.html", "Data", "/data", checks=found.checks, files=found.records)

    @router.get("/check/{path:path}")
    def check(path: str) -> HTMLResponse:
        file = site.root.inside(path)
        try:
            said = read_json(file)
            findings = [
                {name: str(one.get(name, "")) for name in ("severity", "code", "said", "fix")}
                for one in said["findings"]
            ]
            files = [str(one) for one in said["files"]]
        except FAULTS:
            raise UsageError("this is no report of a data check", where=path,
                             fix="run `strop data check` again") from None  # fmt: skip
        figures = {name: json.dumps(part, indent=1) for name, part in said.items()
                   if name not in ("files", "findings")}  # fmt: skip
        return site.page("check.html", f"Check {path}", "/data", files=files,
                         findings=findings, figures=figures)  # fmt: skip

    @router.get("/records/{path:path}")
    def records(path: str, first: int = Query(0, ge=0), model: str = "") -> HTMLResponse:
        file = site.root.inside(path)
        tokenizer = load_tokenizer(str(site.root.inside(model))) if model else None
        cut = None if tokenizer is None else lambda text: _tokens(tokenizer, text)
        rows = list(rows_of(file, first, 10, cut or words))
        masks, problem = [], ""
        if tokenizer is not None:
            try:
                masks = masks_of(file, tokenizer, first, 10)
            except StropError as error:
                problem = str(error)
        models = site.root.finals()
        return site.page(
            "records.html", f"Records of {path}", "/data", path=path, rows=rows,
            first=first, model=model, models=models, masks=masks, problem=problem,
        )  # fmt: skip

    return router


def rows_of(file: Path, first: int, count: int, cut: Any) -> Iterator[Row]:
    """Rows of a JSONL file from `first` (from 0) on. A line that is no row is shown as one."""
    if not file.is_file():
        raise UsageError("there is no such file", where=str(file), fix="choose one of the list")
    with opened(file) as stream:
        for number, line in enumerate(islice(stream, first, first + count), start=first):
            try:
                if len(line) > MOST_LINE:
                    raise ValueError
                yield _row(number, dict(json.loads(line)), cut)
            except FAULTS:
                shown = line[:MOST_COLUMN].decode("utf-8", "replace")
                yield Row(number, shown, (), {}, "the line is no JSON object, or too long")


def masks_of(file: Path, tokenizer: Any, first: int, count: int) -> list[Preview]:
    """Records as training reads them with this tokenizer: what is learnt, and what is only read."""
    rendering = Rendering(tokenizer, UNBOUNDED, previewed=count)
    for record in islice(read([at(file)], any_record), first, first + count):
        rendering.watch(record)
    rendering.finish()
    return rendering.previews


def _row(number: int, row: Mapping[str, Any], cut: Any) -> Row:
    if "chosen" in row and "rejected" in row:
        texts = [written(row["chosen"]), written(row["rejected"])]
        left, right = compared(*(cut(text[:MOST_LETTERS]) for text in texts))
        answers: Answers = (("chosen", tuple(left)), ("rejected", tuple(right)))
        shown: tuple[str, ...] = ("prompt", "chosen", "rejected")
    else:
        name = next((name for name in ("completion", "messages", "text") if name in row), "")
        answers = ((name, (Stretch(written(row[name]), False),)),) if name else ()
        shown = ("prompt", name)
    columns = {name: reprlib.repr(value) if not isinstance(value, str) else value[:MOST_COLUMN]
               for name, value in row.items() if name not in shown}  # fmt: skip
    return Row(number, written(row.get("prompt", "")), answers, columns)


def _tokens(tokenizer: Any, text: str) -> list[str]:
    """The text of each token, so that together they are the whole; bytes of one character that
    several tokens share stand with the first of them."""
    ids = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    pieces, read_to = [], 0
    for start, stop in ids["offset_mapping"]:
        if stop > read_to:
            pieces.append(text[min(start, read_to) if start > read_to else read_to : stop])
            read_to = stop
    return [*pieces, text[read_to:]] if read_to < len(text) else pieces
