"""From a passing verdict to an entry of the registry."""

from __future__ import annotations

from pathlib import Path

from strop.errors import UsageError
from strop.evals.gate.verdict import read_verdict
from strop.model.load import weights_hash
from strop.registry.lineage import ancestry
from strop.registry.records import Entry
from strop.registry.store import Registry


def promote(
    model: str | Path,
    entry: str,
    *,
    verdict: str | Path | None,
    registry: str | Path,
    override: str | None = None,
    dry_run: bool = False,
) -> Entry:
    """Make the model in this folder the current model of the registry name `entry`.

    `verdict` is the gate's file; `override` is the reason for a promotion without a pass, which is
    recorded. With `dry_run` everything is checked and nothing written. Raises `RegistryError` if
    there is no pass for exactly these weights, `UsageError` if there is no such folder.
    """
    if not Path(model).is_dir():
        raise UsageError("no such model folder", where=str(model))
    folder, store = Path(model).resolve(), Registry(registry)
    proof = None if verdict is None else read_verdict(verdict)
    weights, path, made = weights_hash(folder), str(folder), ancestry(folder)
    if dry_run:
        return store.prepare(
            weights=weights, path=path, lineage=made, verdict=proof, override=override
        )
    return store.promote(
        entry, weights=weights, path=path, lineage=made, verdict=proof, override=override
    )
