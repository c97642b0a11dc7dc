"""Exports of production systems on disk, and what `strop data build` makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.curate.manifest import sources_of
from strop.curate.signals.build import Built, build
from strop.curate.signals.rules import Rules

Rows = Sequence[Mapping[str, Any] | str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was built, and the rows of each file by its name without the ending."""

    built: Built
    files: dict[str, list[dict[str, Any]]]

    def __getitem__(self, name: str) -> list[dict[str, Any]]:
        return self.files.get(name, [])

    def adds_up(self) -> bool:
        """Whether no interaction is lost."""
        one = self.built
        counted = one.used + one.without_signal + sum(one.left_out.values())
        return counted == one.interactions

    def said(self, name: str, *columns: str) -> list[tuple[Any, ...]]:
        """Columns of the rows of a file, messages as the text of the last one."""
        return [tuple(_text(row[column]) for column in columns) for row in self[name]]


Make = Callable[..., Outcome]
"""`make(rows)` or `make({"a.jsonl": rows, "b.jsonl": rows}, max_bad=1, score="x")`."""


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def made_of(folder: Path, given: Rows | Mapping[str, Rows], **options: Any) -> Outcome:
    """Build from rows that are written to files of `folder`; a row that is a text stands there as
    it is. Options are those of `Rules`, `source`, `trusted` and `max_bad`."""
    files = given if isinstance(given, Mapping) else {"export.jsonl": given}
    paths = []
    for name, rows in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n")
        paths.append(path)
    source, inputs = options.pop("source", None), sources_of(paths, options.pop("max_bad", None))
    output = folder / "out"
    trusted = options.pop("trusted", None)
    built = build(inputs, output, source=source, rules=Rules(**options), trusted=trusted)
    read = {
        one.stem: [json.loads(line) for line in one.read_text().splitlines()]
        for one in output.glob("*.jsonl")
    }
    return Outcome(built, read)


def _text(value: Any) -> Any:
    return value[-1]["content"] if isinstance(value, list) and value else value
