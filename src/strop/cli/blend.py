"""`strop blend`: models into one, and the curve over the weight."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from strop.cli.options import AsJson, DryRun, Overrides
from strop.cli.registry.read import HERE, Store
from strop.errors import UsageError

if TYPE_CHECKING:
    from strop.evals.blend.curve import Curve
    from strop.model.blend.make import Blend


def blend(
    models: Annotated[
        list[str], typer.Argument(metavar="A B [C ...]", help="Folders or registry entries.")
    ],
    output: Annotated[Path, typer.Option(help="A new folder for the model, or for the curve.")],
    method: Annotated[
        str,
        typer.Option(help="linear, slerp, ties, dare, dare_ties, task_arithmetic or soup."),
    ] = "linear",
    weights: Annotated[
        str | None,
        typer.Option(
            help="Numbers with commas. One: the share of B (linear, slerp), or the scale of all."
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The model they came from; found by their lineage without.")
    ] = None,
    density: Annotated[
        float | None,
        typer.Option(help="Share of each task vector that is kept: ties 0.2, dare 0.1."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of what dare drops.")] = None,
    form: Annotated[
        Literal["model", "adapter"],
        typer.Option("--as", help="Blend adapters into a whole model, or an adapter."),
    ] = "model",
    curve: Annotated[
        str | None,
        typer.Option(metavar="0,0.1,...,1", help="Measure the blend at each of these weights."),
    ] = None,
    suite: Annotated[Path | None, typer.Option(help="What the curve measures (YAML).")] = None,
    gate: Annotated[
        Path | None, typer.Option(help="A policy: which weights of the curve may be promoted.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="No policy: the score of the curve that should rise.")
    ] = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nobody writes it
    registry: Store = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Blend models of one architecture into one, tensor by tensor; with --curve at many weights,
    each measured.

    Example: strop blend runs/sft/final runs/dpo/final --weights 0.3 --output blended

    Example: strop blend runs/sft/final runs/dpo/final --curve 0,0.1,...,1 --suite suite.yaml
    --gate policy.yaml --output curve
    """
    from strop.cli.show import setup
    from strop.model.blend.make import checked_blend
    from strop.model.blend.settings import progression, settle
    from strop.model.stored import expect_new

    setup()
    only_curve = {"--suite": suite, "--gate": gate, "--target": target, "--set": overrides or None}
    _expect_fit(curve, only_curve, weights=weights, form=form)
    given = () if weights is None else progression(weights)
    settings = settle(method, given, len(models), density=density, seed=seed)
    points = () if curve is None else progression(curve)
    for point in points:
        settle(method, [point], len(models), density=density, seed=seed)
    if curve is None:
        expect_new(output)
    with checked_blend(models, settings, base=base, form=form, registry=registry) as checked:
        for note in checked.notes if not as_json else ():
            print(f"  note: {note}")
        if curve is not None and suite is not None:
            measured = (points, suite, gate, target, overrides, registry)
            _curve(checked, measured, output, dry_run=dry_run, as_json=as_json)
            return
        _model(checked, output, dry_run=dry_run, as_json=as_json)


def _model(checked: Blend, output: Path, *, dry_run: bool, as_json: bool) -> None:
    from strop.model.blend.make import write_blend

    models = [side.stored.name for side in checked.sides]
    told = {**checked.settings.plain(), "models": models, "notes": list(checked.notes),
            "base": checked.base and checked.base.name, "output": str(output)}  # fmt: skip
    if not dry_run:
        told["sha256"] = write_blend(checked, output)
    if as_json:
        print(json.dumps(told))
        return
    done = "would be blended" if dry_run else f"blended, weights {told['sha256']}"
    print(f"{' and '.join(models)} ({_said(told)}) into {output}: {done}")


def _curve(
    checked: Blend, measured: tuple[Any, ...], output: Path, *, dry_run: bool, as_json: bool
) -> None:
    from strop.cli.show import Counting
    from strop.engines.build import folder_engine
    from strop.evals.blend.curve import run_curve
    from strop.evals.run import check_suite
    from strop.recipe.gate import GateRules
    from strop.recipe.loading.load import load
    from strop.recipe.suite import Suite

    points, suite, gate, target, overrides, registry = measured
    loaded = load(Suite, suite, overrides)
    policy = None if gate is None else load(GateRules, gate)
    if dry_run:
        first = folder_engine(str(checked.sides[0].stored.folder), loaded.engine)
        for name, items in check_suite(loaded, first).items():
            print(f"would measure {name} at {len(points)} weights: {items} items")
        return

    def on_point(weight: float) -> None:
        if not as_json:
            print(f"weight {weight:g}", flush=True)

    with Counting(as_json) as counting:
        found = run_curve(
            checked, points, loaded, output, policy=policy, target=target, registry=registry,
            on_point=on_point, on_part=counting.advance,
        )  # fmt: skip
    if as_json:
        print(json.dumps({**found.plain(), "output": str(output)}))
        return
    print(table(found))
    for sentence in found.sentences:
        print(sentence)
    print(f"saved {output / 'curve.json'} and {output / 'curve.svg'}")


def table(curve: Curve) -> str:
    """A row for each weight: targets, kept scores, the largest fall, and the gate's word."""
    from strop.results import Table

    names = [*curve.targets, *curve.kept]
    judged = any(point.verdict for point in curve.points)
    rows = tuple(
        (
            f"{point.weight:g}",
            *(f"{point.scores[name]:.3f}" for name in names),
            f"{curve.forgotten(point):.3f}",
            *((point.verdict or "is compared with",) if judged else ()),
        )
        for point in curve.points
    )
    gate = ("gate",) if judged else ()
    return str(Table(("weight", *names, "largest fall", *gate), rows))


def _said(told: Mapping[str, Any]) -> str:
    """`ties, weights 0.5, 0.5, density 0.2, base runs/sft/final`."""
    numbers = ", ".join(f"{weight:g}" for weight in told["weights"])
    rest = [
        f"{key} {told[key]}" for key in ("density", "seed", "base") if told.get(key) is not None
    ]
    return ", ".join([told["method"], f"weights {numbers}", *rest])


def _expect_fit(
    curve: str | None, only_curve: Mapping[str, object], *, weights: str | None, form: str
) -> None:
    """Raise `UsageError` for options that would change nothing."""
    if curve is None:
        unread = [name for name, value in only_curve.items() if value is not None]
        if unread:
            raise UsageError(f"{unread[0]} is for the curve", fix="give --curve 0,0.1,...,1")
        return
    if only_curve["--suite"] is None:
        raise UsageError("--curve measures every weight", fix="say on what: --suite suite.yaml")
    if weights is not None:
        raise UsageError("--curve has the weights", fix="drop --weights")
    if form == "adapter":
        raise UsageError(
            "a curve keeps no model", fix="drop --as, and blend at the weight you take"
        )
