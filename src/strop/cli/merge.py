"""`strop merge`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from strop.cli.options import AsJson, DryRun
from strop.cli.registry.read import HERE, Store

if TYPE_CHECKING:
    from strop.model.merge import Merge


def merge(
    adapter: Annotated[str, typer.Argument(help="An adapter: a folder, or a registry entry.")],
    output: Annotated[Path, typer.Option(help="A new folder for the whole model.")],
    base: Annotated[
        str | None, typer.Option(help="Where the adapter's base is now, if it was moved.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"] | None,
        typer.Option(help="Precision to store in; the base's own by default."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="How far a logit may differ, as a share of the largest."),
    ] = None,
    registry: Store = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Merge an adapter into the weights of its base, if the logits stay the adapter's.

    Example: strop merge runs/dpo/final --output models/dpo
    """
    from strop.cli.show import setup
    from strop.model.load import weights_hash
    from strop.model.merge import check_merge
    from strop.model.merge import merge as merged
    from strop.model.stored import expect_new, stored

    setup()
    expect_new(output)
    with stored(adapter, registry) as found:
        plan = check_merge(found, base=base, dtype=dtype, tolerance=tolerance)
        told = _plain(plan, output)
        if not as_json:
            for note in plan.notes:
                print(f"  note: {note}")
        if dry_run:
            print(
                json.dumps(told) if as_json else _sentence(plan, f"would be merged into {output}")
            )
            return
        agreement = merged(plan, output)
    if as_json:
        print(json.dumps({**told, **asdict(agreement), "sha256": weights_hash(output)}))
        return
    print(_sentence(plan, f"merged into {output}"))
    print(f"  {agreement}")


def _plain(plan: Merge, output: Path) -> dict[str, object]:
    return {
        "adapter": plan.adapter.name,
        "base": str(plan.base),
        "dtype": str(plan.dtype).removeprefix("torch."),
        "base_in_4_bits": plan.quantised,
        "tolerance": plan.tolerance,
        "notes": list(plan.notes),
        "output": str(output),
    }


def _sentence(plan: Merge, done: str) -> str:
    kind = str(plan.dtype).removeprefix("torch.")
    return f"{plan.adapter.name} and its base {plan.base}: {done} ({kind})"
