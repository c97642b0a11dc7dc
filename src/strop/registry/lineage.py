"""From a model folder back to everything it was made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def ancestry(model: str | Path) -> dict[str, Any]:
    """What a model was made of, parents included.

    `{"model": path, "method": "dpo", "data": [...], "recipe": hash, ..., "parent": {...}}` for a
    folder that a run wrote (`<run>/final`), `{"model": path}` for anything else.
    """
    folder = Path(model)
    record = folder.parent / "lineage.json"
    if folder.name != "final" or not record.exists():
        return {"model": str(model)}
    lineage = json.loads(record.read_text())
    parent = lineage.pop("parent")
    above = ancestry(parent["path"])
    return {"model": str(model), **lineage, "parent": {**above, "sha256": parent["sha256"]}}


def generations(lineage: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The chain from the oldest known ancestor to the model itself."""
    chain = [lineage]
    while "parent" in chain[-1]:
        chain.append(chain[-1]["parent"])
    return chain[::-1]
