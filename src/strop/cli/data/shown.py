"""How the data verbs print what they did."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

WIDTH = 100


class Printed(Protocol):
    """A report of a data verb."""

    @property
    def sentence(self) -> str: ...

    def plain(self) -> dict[str, Any]: ...


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Words to the left, numbers to the right."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        made.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def show(
    report: Printed,
    as_json: bool,
    *,
    output: Path,
    dry_run: bool,
    body: Table | None = None,
    notes: Sequence[str] = (),
) -> None:
    """One JSON object, or a table with its notes and where the records are."""
    from rich.console import Console

    if as_json:
        written = None if dry_run else str(output)
        print(json.dumps({**report.plain(), "output": written}))
        return
    console = Console(highlight=False)
    if not console.is_terminal or console.width > WIDTH:
        console = Console(highlight=False, width=WIDTH)
    if body is None:
        console.print(report.sentence, markup=False)
    else:
        console.print(body, markup=False)
    for note in notes:
        console.print(f"  {note}", markup=False)
    done = "would write" if dry_run else "saved"
    console.print(f"{done} {output}", soft_wrap=True, markup=False)


@contextmanager
def counting(as_json: bool, name: str) -> Iterator[Callable[[int], None]]:
    """What is told of records done; a bar on a terminal."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    console = Console(highlight=False)
    shown = (TextColumn("  {task.description}"), TextColumn("{task.completed:,}"),
             TimeElapsedColumn())  # fmt: skip
    hidden = as_json or not console.is_terminal
    with Progress(*shown, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(name, total=None)
        yield lambda count: bar.update(task, advance=count)
