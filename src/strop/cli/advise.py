"""`strop advise`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from strop.cli.options import AsJson


def advise(
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="A file of records; may be repeated.", show_default=False),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the model that would be trained.")
    ] = None,
    evaluated: Annotated[
        Path | None, typer.Option("--eval", help="Folder of an eval of that model.")
    ] = None,
    target: Annotated[
        str, typer.Option(metavar="SCORE=VALUE", help="The score that counts, and its goal.")
    ] = "",
    prompted: Annotated[
        Path | None, typer.Option(help="The same eval with a better prompt.")
    ] = None,
    decode: Annotated[
        Path | None, typer.Option(help="Folder of a decoding study (strop eval decode).")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Folder of a stronger model that could teach it.")
    ] = None,
    teacher_eval: Annotated[
        Path | None, typer.Option("--teacher-eval", help="The same eval of that model.")
    ] = None,
    goal: Annotated[str, typer.Option(help="What is wanted, in words.")] = "",
    users: Annotated[int | None, typer.Option(min=0, help="Users a week.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Write the recipe to this file.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write a page to this file.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print every rule: fired, missed or unknown.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say which method fits, or why not to train.

    Example: strop advise --data pairs.jsonl --model runs/sft/final --eval evals/sft
    --target greedy/accuracy=0.9
    """
    from rich.console import Console

    from strop.advise.known.evals import read_target
    from strop.advise.page import advice_page, lines
    from strop.advise.run import Question, answer
    from strop.cli.data.shown import counting
    from strop.cli.show import setup
    from strop.files import write_whole

    setup()
    question = Question(
        data=tuple(data or ()), model=model, eval=evaluated, prompted=prompted, decode=decode,
        teacher=teacher, teacher_eval=teacher_eval, goal=goal, users=users,
        target=read_target(target) if target else None,
    )  # fmt: skip
    console = Console(highlight=False)
    with counting(as_json, "records") as count:
        answered = answer(question, lambda _: count(1))
    if recipe is not None:
        answered.save(recipe)
    if page is not None:
        write_whole(page, advice_page(answered))
    if as_json:
        seen = [
            {"rule": one.rule.id, "verdict": one.rule.verdict, "outcome": one.outcome,
             "conditions": [held.wanted() for held in one.by]}
            for one in answered.advice.seen
        ]  # fmt: skip
        print(json.dumps({**answered.plain(), **({"explained": seen} if explain else {})}))
        return
    for line in lines(answered, explain):
        console.print(line, markup=False, soft_wrap=not console.is_terminal)
    for written in (recipe, page):
        if written is not None:
            console.print(f"saved {written}", markup=False, soft_wrap=True)
