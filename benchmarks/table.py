"""What came out, as a table of 100 columns, as JSON and as a block of docs/speed.md."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import strop
from benchmarks.duel import Result

Row = dict[str, Any]

HEAD = ("run", "strop", "TRL", "ratio (min-max)", "goal", "default", "memory", "MFU", "TRL's best")
"""Seconds a step, TRL's over strop's, the figure to reach, the same against TRL's defaults, strop's
peak memory over TRL's, and what both reach of the machine's own matrix products."""


def row_of(result: Result) -> Row:
    """A result as JSON: every counted round, and the figures quoted from them."""
    ratios = result.ratios(result.best)
    return {
        **{k: v for k, v in asdict(result).items() if k != "run"},
        "run": {**asdict(result.run), "name": result.run.name},
        "ratio": result.ratio(result.best),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "ratio_to_defaults": result.ratio("defaults") if "defaults" in result.seconds else None,
        "memory": result.memory,
    }


LIBRARIES = ("torch", "transformers", "trl")


def machine(libraries: Sequence[str] = LIBRARIES) -> Row:
    """Where the figures were made, and with what."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
        "strop": strop.__version__,
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def cells(row: Row) -> list[str]:
    """A run's line: median seconds a step, ratio to TRL's best, and what else is known."""
    best = row["best"]
    target = row["run"]["case"]["target"]
    defaults = row["ratio_to_defaults"]
    return [
        row["run"]["name"],
        _seconds(row["seconds"]["strop"]),
        _seconds(row["seconds"][best]),
        f"{row['ratio']:.2f} ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})",
        "" if target is None else f"{target:.1f}",
        "" if defaults is None else f"{defaults:.2f}",
        f"{row['memory']:.2f}",
        f"{row['utilisation']['strop']:.2f}/{row['utilisation'][best]:.2f}",
        best,
    ]


def _seconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f}"


def text_table(rows: Iterable[Row]) -> str:
    """Columns as wide as they need to be."""
    lines = [list(HEAD), *(cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown_table(rows: Iterable[Row]) -> str:
    lines = [list(HEAD), ["---"] * len(HEAD), *(cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def remember(path: Path, rows: Sequence[Row], libraries: Sequence[str] = LIBRARIES) -> list[Row]:
    """Write rows into the JSON file, in place of earlier ones of the same runs; all rows of it."""
    known: Row = json.loads(path.read_text()) if path.exists() else {"rows": []}
    kept = {row["run"]["name"]: row for row in known["rows"]}
    kept |= {row["run"]["name"]: row for row in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"machine": machine(libraries), "rows": list(kept.values())}, indent=1)
    )
    return list(kept.values())


def fill(page: Path, name: str, block: str) -> None:
    """Put a block between `<!-- name -->` and `<!-- end -->` of a page."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
    text, found = re.subn(pattern, lambda m: f"{m[1]}{block}\n{m[2]}", page.read_text(), flags=re.S)
    if found != 1:
        raise ValueError(f"{page} has no block <!-- {name} --> ... <!-- end -->")
    page.write_text(text)
