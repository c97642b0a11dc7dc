"""`strop eval decode`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strop.cli.options import AsJson, DryRun, Overrides, Servers, asking

if TYPE_CHECKING:
    from rich.table import Table

    from strop.evals.decode.frontier import FrontierRow


def decode(
    study: Annotated[Path, typer.Argument(help="A decoding study (YAML).")],
    model: Annotated[str, typer.Option(help="The trained model: folder or hub name.")],
    base: Annotated[str, typer.Option(help="The model it was trained from.")],
    output: Annotated[Path, typer.Option(help="Folder for decode.json, decode.html and samples.")],
    engine: Servers = [],  # noqa: B006 - typer reads it, nobody writes it
    base_engine: Annotated[
        list[str],
        typer.Option(metavar="URL", help="A server that holds the base; may be repeated."),
    ] = [],  # noqa: B006
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Ask whether sampling more from the base does what training more did.

    Example: strop eval decode study.yaml --model runs/grpo/final --base runs/sft/final
    --output evals/decode
    """
    from rich.console import Console
    from rich.progress import Progress

    from strop.cli.show import setup
    from strop.evals.decode.study import check_study, run_study
    from strop.recipe.loading.load import load
    from strop.recipe.study import Study

    setup()
    said = [*overrides, *asking(engine), *asking(base_engine, "base_engine")]
    checked = check_study(load(Study, study, said), model=model, base=base)
    if dry_run:
        print(f"would sample {checked.answers:,} answers to {len(checked.tasks):,} items")
        return
    console = Console(highlight=False)
    with Progress(
        console=console, transient=True, disable=as_json or not console.is_terminal
    ) as bar:
        answers = bar.add_task("answers", total=checked.answers)
        result = run_study(
            checked, output, advance=lambda count: bar.update(answers, advance=count)
        )
    if as_json:
        print(json.dumps({**result.plain(), "output": str(output)}))
        return
    console.print(table(result.rows))
    for sentence in (*result.sentences, *result.notes):
        console.print(f"  {sentence}", markup=False)
    console.print(f"saved {output}", soft_wrap=True, markup=False)


def table(rows: tuple[FrontierRow, ...]) -> Table:
    """At most 100 columns wide; a rule before every temperature."""
    from rich import box
    from rich.table import Table

    from strop.evals.decode.page import HEADINGS, cells

    made = Table(*HEADINGS, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in made.columns[3:]:
        column.justify, column.no_wrap = "right", True
    before = rows[0].temperature
    for row in rows:
        if row.temperature != before:
            made.add_section()
        made.add_row(*cells(row))
        before = row.temperature
    return made
