"""`strop data check` and `strop data stats`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strop.cli.data.options import Inputs, MaxBad, settings_of
from strop.cli.options import AsJson

if TYPE_CHECKING:
    from strop.curate.check.families.likeness import Ches
    from strop.curate.check.families.rendering import Rendering
    from strop.curate.check.run import Report
    from strop.recipe.train.data import DataSource
    from strop.types import Record

TokenizerFolder = Annotated[
    str | None, typer.Option("--tokenizer", help="A folder with the tokenizer to render with.")
]
Columns = Annotated[
    str, typer.Option("--columns", help="The file's names, as in prompt=question,completion=answer")
]
MaxLength = Annotated[int, typer.Option(min=2, help="Tokens a row may have (text.max_length).")]
LEVELS = ("warn", "error")
SCALES = ("nominal", "ordinal", "interval")


def check(
    inputs: Inputs,
    model: Annotated[
        str | None, typer.Option("--model", help="A model folder: its tokenizer, and CHES by it.")
    ] = None,
    tokenizer: TokenizerFolder = None,
    template: Annotated[
        str | None,
        typer.Option("--template", help="A chat template: a Jinja file, or chatml (no model yet)."),
    ] = None,
    eval_files: Annotated[
        list[Path], typer.Option("--eval", help="An eval file to look for here; may be repeated.")
    ] = [],  # noqa: B006
    annotators: Annotated[
        str, typer.Option("--annotators", help="Columns with their labels: first,second,third.")
    ] = "",
    scale: Annotated[
        str, typer.Option("--scale", help=f"Of these labels: {', '.join(SCALES)}.")
    ] = "nominal",
    columns: Columns = "",
    page: Annotated[
        Path | None,
        typer.Option("--html", help="Also write the report as a page, and as JSON beside it."),
    ] = None,
    as_json: AsJson = False,
    fail_on: Annotated[
        str, typer.Option("--fail-on", help="Exit with 10 from here on: warn or error.")
    ] = "error",
    max_bad: MaxBad = None,
    max_length: MaxLength = 2048,
    preview: Annotated[
        int, typer.Option("--preview", min=0, help="Rows whose learnt tokens are shown.")
    ] = 3,
) -> None:
    """Look for what makes training on data fail: one page of figures and findings.

    Exit code: 0 no finding as severe as --fail-on, 10 one at least.

    Example: strop data check pairs.jsonl --tokenizer model --eval test.jsonl --html check.html
    """
    from strop.curate.check.run import Asked
    from strop.curate.check.run import check as checked
    from strop.curate.check.show.page import report_page
    from strop.data.bad_rows import MAX_BAD
    from strop.files import write_json, write_whole

    _expect("--fail-on", fail_on, LEVELS)
    _expect("--scale", scale, SCALES)
    rendering, ches = _readers(model, tokenizer, template, max_length, preview)
    asked = Asked(
        sources=_sources(inputs, columns),
        eval_sources=_sources(eval_files, columns),
        annotators=[name.strip() for name in annotators.split(",") if name.strip()],
        scale=scale,  # type: ignore[arg-type]
        max_bad=MAX_BAD if max_bad is None else max_bad,
        rendering=rendering,
        ches=ches,
        watch=_progress(),
    )
    report = checked(asked)
    if page is not None:
        write_whole(page, report_page(report))
        write_json(page.with_suffix(".json"), report.plain())
    _show(report, as_json)
    if page is not None and not as_json:
        print(f"page: {page}")
    raise typer.Exit(10 if report.fails(fail_on) else 0)  # type: ignore[arg-type]


def stats(
    inputs: Inputs,
    tokenizer: TokenizerFolder = None,
    columns: Columns = "",
    as_json: AsJson = False,
    max_length: MaxLength = 2048,
) -> None:
    """Count rows, prompts and turns, and say how long texts are.

    Example: strop data stats pairs.jsonl --tokenizer model
    """
    from strop.curate.check.run import SIZES, Asked
    from strop.curate.check.run import check as checked

    rendering, _ = _readers(None, tokenizer, None, max_length, 0)
    sources = _sources(inputs, columns)
    report = checked(Asked(sources, rendering=rendering, watch=_progress()), SIZES)
    if as_json:
        print(json.dumps({name: value for name, value in report.plain().items()
                          if name != "findings"}))  # fmt: skip
    else:
        _print_figures(report)


def _show(report: Report, as_json: bool) -> None:
    from rich.console import Console

    from strop.curate.check.show.lines import WIDTH, figure_lines, finding_lines, preview_lines

    if as_json:
        print(json.dumps(report.plain()))
        return
    console = Console(highlight=False, width=WIDTH)
    colours = console.is_terminal and not console.no_color
    for line in figure_lines(report):
        console.print(line, soft_wrap=True)
    for one in report.previews:
        for row in ("", *preview_lines(one, colours=colours)):
            console.print(row)
    for told in ("", *finding_lines(report)):
        console.print(told, soft_wrap=True)


def _print_figures(report: Report) -> None:
    from rich.console import Console

    from strop.curate.check.show.lines import WIDTH, figure_lines

    console = Console(highlight=False, width=WIDTH)
    for line in figure_lines(report):
        console.print(line, soft_wrap=True)


def _expect(option: str, given: str, known: Sequence[str]) -> None:
    from strop.errors import UsageError

    if given not in known:
        raise UsageError(f"{option} is {given!r}", fix=f"give one of: {', '.join(known)}")


def _sources(paths: Sequence[Path], columns: str) -> list[DataSource]:
    """Files as sources, their columns renamed."""
    from strop.errors import UsageError
    from strop.recipe.train.data import DataSource

    named = {}
    for part in filter(None, columns.split(",")):
        ours, mark, theirs = part.partition("=")
        if not mark or not ours.strip() or not theirs.strip():
            raise UsageError(
                f"--columns has {part!r}", fix="write strop's name, =, the file's: prompt=question"
            )
        named[ours.strip()] = theirs.strip()
    return [DataSource(path=str(path), columns=named) for path in paths]


def _readers(
    model: str | None, tokenizer: str | None, template: str | None, max_length: int, preview: int
) -> tuple[Rendering | None, Ches | None]:
    """What renders the rows, and what gives CHES of pairs; neither without an option for it."""
    from strop.curate.check.stage import readers
    from strop.errors import UsageError
    from strop.recipe.curate import CheckSettings

    if model is not None and tokenizer is not None:
        raise UsageError(
            "--model and --tokenizer are both given", fix="drop --tokenizer: a model brings its own"
        )
    given = {"model": model, "tokenizer": tokenizer, "template": template,
             "max_length": max_length, "preview": preview}  # fmt: skip
    if (model, tokenizer, template) != (None, None, None):
        _quiet()
    return readers(settings_of(CheckSettings, given))


def _quiet() -> None:
    from strop.cli.show import setup

    setup()


def _progress() -> Callable[[Record], None]:
    """Says on the error stream, every few seconds, how many rows were read."""
    from strop.cli.show import EVERY_SECONDS

    last, rows = time.monotonic(), 0

    def watch(record: Any) -> None:
        nonlocal last, rows
        rows += 1
        now = time.monotonic()
        if now - last > EVERY_SECONDS:
            last = now
            print(f"  {rows:,} rows read", file=sys.stderr, flush=True)

    return watch
