"""`strop judge calibrate | compare | label`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strop.cli.options import AsJson, DryRun, Overrides, Servers, asking

if TYPE_CHECKING:
    from strop.judge.pairwise import Compared
    from strop.judge.trust.anchors import Anchor
    from strop.types import Usage

app = typer.Typer(help="Ask judges, and find out how far to believe them.", no_args_is_help=True)
JudgeFile = Annotated[Path, typer.Argument(help="Who judges (YAML).")]
Abstain = Annotated[
    bool, typer.Option("--abstain", help="Orders that disagree are no verdict, not a tie.")
]


class Form(StrEnum):
    pairwise = "pairwise"
    score = "score"
    criterion = "criterion"
    ranking = "ranking"


@app.command("calibrate")
def calibrate(
    judge: JudgeFile,
    anchors: Annotated[Path, typer.Option(help="Pairs that people have judged.")],
    output: Annotated[Path, typer.Option(help="The card (JSON); a page goes beside it.")],
    form: Annotated[Form, typer.Option(help="How the judge is asked.")] = Form.pairwise,
    abstain: Abstain = False,
    engine: Servers = [],  # noqa: B006
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Compare a judge with people: its card, which recipes and policies name.

    With --form score, criterion or ranking it is asked as judge_score, rubric and judge_rank ask.
    Exit code: 0 fit for use, 10 no better than chance.

    Example: strop judge calibrate judge.yaml --anchors labelled.jsonl --output card.json
    """
    from strop.cli.show import setup
    from strop.errors import UsageError
    from strop.files import write_rows
    from strop.judge.build import build_judge, calibrated_on
    from strop.judge.pairwise import cost_of
    from strop.judge.trust.anchors import expect_joined, read_anchors
    from strop.judge.trust.card import calibrate as calibrated
    from strop.judge.trust.page import write_card
    from strop.recipe.judge import JudgeRecipe
    from strop.recipe.loading.load import load

    setup()
    if output.suffix != ".json":
        raise UsageError(f"{output.name} is no name of a card", where="--output",
                         fix="end it in .json: a page goes beside it")  # fmt: skip
    recipe = load(JudgeRecipe, judge, [*overrides, *asking(engine)])
    asked, pairs = build_judge(recipe), read_anchors(anchors)
    expect_joined(recipe.recorded, pairs, anchors)
    for member in calibrated_on(recipe, anchors):
        print(f"warning: {member} was calibrated on these very pairs, of which the panel makes its "
              "weights: the panel's card will be too good; use other pairs")  # fmt: skip
    if dry_run:
        print(f"{len(pairs)} pairs with the labels of {len(pairs[0].human)} people; nothing asked")
        return
    card, compared = calibrated(asked, pairs, anchors, disagreement=_how(abstain), form=form.value)
    output.parent.mkdir(parents=True, exist_ok=True)
    page = write_card(card, output)
    verdicts = output.with_suffix(".verdicts.jsonl")
    write_rows(verdicts, _rows(pairs, compared))
    if as_json:
        print(json.dumps(card.plain()))
    else:
        for line in _cost(cost_of(compared)):
            print(line)
        print(f"{card.sentence}\nsaved {output}, {page.name} and {verdicts.name}")
    raise typer.Exit(0 if card.better_than_chance else 10)


@app.command("compare")
def compare(
    judge: JudgeFile,
    data: Annotated[Path, typer.Option(help="Pairs: prompt and answers, or chosen and rejected.")],
    output: Annotated[Path, typer.Option(help="The verdicts (JSONL).")],
    abstain: Abstain = False,
    engine: Servers = [],  # noqa: B006
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let a judge compare pairs of answers, each in both orders.

    Example: strop judge compare judge.yaml --data pairs.jsonl --output verdicts.jsonl
    """
    from strop.cli.show import setup
    from strop.files import write_rows
    from strop.judge.build import build_judge
    from strop.judge.pairwise import compare as compared
    from strop.judge.trust.anchors import expect_joined, read_pairs
    from strop.judge.trust.card import expect_card
    from strop.recipe.judge import JudgeRecipe
    from strop.recipe.loading.load import load

    setup()
    recipe = load(JudgeRecipe, judge, [*overrides, *asking(engine)])
    asked, pairs = build_judge(recipe), read_pairs(data)
    expect_joined(recipe.recorded, pairs, data)
    card = None if recipe.card is None else expect_card(recipe.card, asked, "pairwise")
    if dry_run:
        print(f"{len(pairs)} pairs; nothing asked")
        return
    found = compared(asked, [pair.question for pair in pairs], disagreement=_how(abstain))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_rows(output, _rows(pairs, found))
    told, said = _told(pairs, found, card, _how(abstain))
    print(json.dumps(told) if as_json else "\n".join([*said, f"saved {output}"]))


@app.command("label")
def label(
    data: Annotated[
        Path, typer.Argument(help="Pairs: prompt and answers, or chosen and rejected.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for the labels.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8765,
    dry_run: DryRun = False,
) -> None:
    """Let people compare pairs of answers in a browser, blind and by keyboard.

    Writes labels.jsonl, preferences.jsonl and anchors.jsonl (for `strop judge calibrate`); started
    again it goes on. Only this machine can open the page.

    Example: strop judge label pairs.jsonl --output labels
    """
    from strop.errors import DataError
    from strop.files import locked
    from strop.judge.label.ledger import Ledger
    from strop.judge.label.serve import serve
    from strop.judge.trust.anchors import read_pairs

    given = read_pairs(data)
    pairs = [pair for pair in given if len(set(pair.question.answers)) == 2]
    if len(pairs) < len(given):
        print(f"{len(given) - len(pairs)} pairs of equal answers are left out")
    if not pairs:
        raise DataError("no pair has two different answers", where=str(data),
                        fix="give pairs whose answers differ")  # fmt: skip
    if any(label is not None for pair in pairs for label in pair.human):
        print("the labels that the file holds are not taken over: everybody labels anew")
    if dry_run:
        print(f"{len(pairs)} pairs; nothing served")
        return
    with locked(output):
        ledger = Ledger(pairs, output)
        for person in ledger.people:
            print(f"{person} labelled {ledger.done(person)} of {len(pairs)} pairs before")
        serve(ledger, port, lambda address: print(f"label at {address}\nCtrl-C ends", flush=True))
    told = ", ".join(f"{person} {ledger.done(person)}" for person in ledger.people) or "nobody"
    print(f"labelled: {told}\nsaved {output}")


def _how(abstain: bool) -> Any:
    return "abstain" if abstain else "tie"


def _rows(pairs: Sequence[Anchor], compared: Sequence[Compared]) -> Iterator[dict[str, Any]]:
    """Verdicts with the answers as they were shown, so that everybody knows which one is meant."""
    for pair, one in zip(pairs, compared, strict=True):
        chosen = {} if pair.chosen is None else {"chosen": "AB"[pair.chosen]}
        yield {"item": one.question.item, "verdict": one.verdict, **chosen,
               "answers": list(one.question.answers),
               "straight": asdict(one.straight), "swapped": asdict(one.swapped)}  # fmt: skip


def _told(
    pairs: Sequence[Anchor],
    compared: Sequence[Compared],
    card: Mapping[str, Any] | None,
    disagreement: Any,
) -> tuple[dict[str, Any], list[str]]:
    """What came of it, for machines and for people."""
    from strop.judge.pairwise import cost_of
    from strop.judge.suspicion import suspicion
    from strop.judge.win_rate import win_rates
    from strop.text.templates import conversation

    verdicts = [one.verdict for one in compared]
    known = [verdict for verdict in verdicts if verdict is not None]
    both = [one for one in compared if one.straight.values and one.swapped.values
            and len(set(one.question.answers)) == 2]  # fmt: skip
    same = sum(one.straight.values == one.swapped.values for one in both)
    differ = any(len(set(one.question.answers)) == 2 for one in compared)
    rates = win_rates(pairs, compared, card, disagreement) if differ else None
    cost = cost_of(compared)
    prompts = [conversation(pair.question.prompt) for pair in pairs]
    suspicious = {
        side: suspicion(prompts, [pair.question.answers[n] for pair in pairs]).sentences
        for n, side in enumerate(("first", "second"))
    }
    told = {
        "pairs": len(verdicts), "missing": len(verdicts) - len(known),
        "first": known.count(1.0), "second": known.count(0.0), "tie": known.count(0.5),
        "same_in_both_orders": same,
        "win_rate": None if rates is None else asdict(rates),
        "suspicious": suspicious, "tokens": None if cost is None else asdict(cost),
    }  # fmt: skip
    said = [
        f"of {len(verdicts)} pairs the first answer won {told['first']}, the second "
        f"{told['second']}, {told['tie']} were ties, {told['missing']} have no verdict; "
        f"{same} verdicts were the same in both orders"
    ]
    if rates is not None:
        said.append(rates.sentence)
    said += [f"{side} answers: {one}" for side, all_ in suspicious.items() for one in all_]
    return told, [*said, *_cost(cost)]


def _cost(cost: Usage | None) -> list[str]:
    """What the judge took, where its engine counts it."""
    if cost is None:
        return []
    return [f"cost: {cost.prompt} prompt tokens, {cost.completion} of answers"]
