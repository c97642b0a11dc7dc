"""Options that the kinds of `strop data generate` share, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from strop.cli.options import asking

if TYPE_CHECKING:
    from strop.curate.synthetic.generation import Generated, Target
    from strop.engines.engine import Engine
    from strop.recipe.synthetic import GenerateRecipe
    from strop.recipe.train.data import DataSource

    RecipeT = TypeVar("RecipeT", bound=GenerateRecipe)

Model = Annotated[str | None, typer.Option(help="Model folder or hub name that answers.")]
Url = Annotated[
    str | None, typer.Option(help="An OpenAI-compatible server that answers: http://host:port/v1.")
]
ModelName = Annotated[str | None, typer.Option(help="What the model is called at --url.")]
Recorded = Annotated[Path | None, typer.Option(help="Answers given before (JSONL).")]
RewardRecipe = Annotated[Path, typer.Option("--reward", help="A recipe with `reward` (YAML).")]
Settings = Annotated[
    Path | None, typer.Option(help="All settings in a file (YAML); --set goes over it.")
]
Cache = Annotated[
    Path | None, typer.Option(help="Folder that keeps every answer for later runs, too.")
]
Samples = Annotated[int | None, typer.Option(min=1, help="Answers a prompt.")]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says of engine, settings and output, whatever the kind."""

    inputs: Sequence[Path]
    output: Path
    model: str | None
    servers: Sequence[str]
    url: str | None
    model_name: str | None
    recorded: Path | None
    settings: Path | None
    overrides: Sequence[str]
    cache: Path | None
    max_bad: float | None
    overwrite: bool
    dry_run: bool
    as_json: bool

    def recipe(self, kind: type[RecipeT], **options: object) -> RecipeT:
        """The settings of this kind: the file's, those that have an option of their own (`None`
        was not given), and those of `--set` last."""
        from strop.recipe.loading.load import load

        given = [f"{name}={json.dumps(value)}" for name, value in options.items()
                 if value is not None]  # fmt: skip
        return load(kind, {} if self.settings is None else self.settings,
                    [*given, *self.overrides])  # fmt: skip


Make = Callable[["Sequence[DataSource]", "Engine", "Target"], "Generated"]
"""Generates one kind of data."""


def generate(asked: Asked, recipe: GenerateRecipe, make: Make, *, thoughts: bool = False) -> None:
    """Generate, with a bar on a terminal, and say what came of it."""
    from strop.cli.show import setup
    from strop.curate.manifest import expect_free, sources_of
    from strop.curate.synthetic.engines import engine_for
    from strop.curate.synthetic.generation import Target, rows_in
    from strop.recipe.loading.load import load
    from strop.recipe.synthetic import EngineOptions

    setup()
    who = load(EngineOptions, {}, asking(asked.servers))
    target = Target(asked.output, asked.cache, asked.overwrite, asked.max_bad)
    inputs = sources_of(asked.inputs)
    engine = engine_for(
        recipe, target, model=asked.model, engine=who.engine, url=asked.url,
        model_name=asked.model_name, thoughts=thoughts,
        recorded=None if asked.recorded is None else str(asked.recorded),
    )  # fmt: skip
    if asked.dry_run:
        expect_free(target.output, overwrite=target.overwrite)
        rows = rows_in(inputs)
        if asked.as_json:
            print(json.dumps({"rows": rows, "output": None}))
        else:
            print(f"would ask about {rows:,} rows and write {target.output}")
        return
    with _bar(asked.as_json) as advance:
        made = make(inputs, engine, _told(target, advance))
    if asked.as_json:
        print(json.dumps(made.plain()))
    else:
        print("\n".join([*lines(made), f"saved {made.output}"]))


def _told(target: Target, advance: Callable[[int, int], None]) -> Target:
    from dataclasses import replace

    return replace(target, on_progress=advance)


@contextmanager
def _bar(as_json: bool) -> Iterator[Callable[[int, int], None]]:
    """What is told of every answer: a bar on a terminal, now and then a line elsewhere."""
    import time

    from rich.console import Console
    from rich.progress import Progress

    from strop.cli.show import EVERY_SECONDS

    console = Console(highlight=False)
    shown = console.is_terminal and not as_json
    last = time.monotonic()
    with Progress(console=console, transient=True, disable=not shown) as bar:
        answers = bar.add_task("answers", total=None)

        def advance(done: int, total: int) -> None:
            nonlocal last
            bar.update(answers, completed=done, total=total)
            if not shown and not as_json and time.monotonic() - last > EVERY_SECONDS:
                last = time.monotonic()
                print(f"  {done:,} of {total:,}", flush=True)

        yield advance


def lines(made: Generated) -> list[str]:
    """What came of it, for a person."""
    cost = made.cost
    told = [f"  {made.records:,} records from {made.prompts:,} prompts"]
    if made.dropped:
        dropped = ", ".join(f"{count:,} {kind}" for kind, count in made.dropped.items())
        told.append(f"  left out: {dropped}")
    if made.figures:
        figures = ", ".join(f"{name} {value:g}" for name, value in made.figures.items())
        told.append(f"  {figures}")
    tokens = f"{cost.prompt_tokens:,} + {cost.completion_tokens:,} tokens"
    money = "" if made.money is None else f", {made.money:,.4f} in money"
    told.append(f"  {cost.answers:,} answers ({cost.asked:,} asked for now): {tokens}{money}")
    if cost.uncounted:
        told.append(f"  the tokens of {cost.uncounted:,} answers were not counted by the engine")
    return told
