"""Traces a model folder back to everything it was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from strop.errors import RegistryError
from strop.registry.objects import manifest_of, weights_of

MADE = "lineage.json"
"""Beside the weights of a model that was made of others (`strop merge`, `strop blend`): its method,
and its parents with their histories. A run has one of this name above its `final/`."""

CONFIGS = ("config.json", "adapter_config.json")
"""A folder of a model has one of these, a run's has none."""


def ancestry(model: str | Path) -> dict[str, Any]:
    """The lineage of a model, parents included.

    `{"model": path, "method": "dpo", "data": [{"path", "sha256", "rows", "manifest"}], "recipe":
    hash, "resolved": {...}, "code": {...}, "environment": {...}, ..., "parent": {...}}` for a
    folder that a run wrote (`<run>/final`, `<run>/checkpoint-<step>`), `{"model": path}` for
    anything else, with its base for an adapter. `manifest` is the manifest of the data verb that
    made the file, if one did. A parent has the `sha256` it had when the run began; if its weights
    were replaced since, `"changed": True` stands in place of its history. A hub model has the
    commit it was read at as its `revision`. A merged model has a `parent`, a blended one `parents`,
    with the histories they had when it was made.
    """
    folder = Path(model)
    if (folder / MADE).exists() and any((folder / name).exists() for name in CONFIGS):
        return {**_read(folder / MADE), "model": str(model)}
    run = folder.parent
    if not (run / "lineage.json").exists() or not _is_of_run(folder):
        return _outside(folder, str(model))
    lineage = _read(run / "lineage.json")
    if not {"parent", "data"} <= lineage.keys():
        raise RegistryError("is no lineage that a run wrote", where=str(run / "lineage.json"),
                            fix="put the run's own file back")  # fmt: skip
    unknown = [None] * len(lineage["data"])
    rows, manifests = lineage.pop("rows", unknown), lineage.pop("manifests", unknown)
    data = [
        source
        | ({} if count is None else {"rows": count})
        | ({} if manifest is None else {"manifest": manifest})
        for source, count, manifest in zip(lineage.pop("data"), rows, manifests, strict=True)
    ]
    parent = lineage.pop("parent")
    return {
        "model": str(model),
        **lineage,
        "data": data,
        **_beside(run),
        "parent": {
            **_parent(parent),
            **({"revision": parent["revision"]} if "revision" in parent else {}),
            "sha256": parent["sha256"],
        },
    }


def _outside(folder: Path, model: str) -> dict[str, Any]:
    """A model that strop did not train; an adapter's config names its base."""
    config = folder / "adapter_config.json"
    base = _read(config).get("base_model_name_or_path") if config.exists() else None
    return {"model": model, "parent": {"model": base}} if base else {"model": model}


def _is_of_run(folder: Path) -> bool:
    return folder.name == "final" or folder.name.startswith("checkpoint-")


def _parent(parent: Mapping[str, Any]) -> dict[str, Any]:
    folder = Path(parent["path"])
    if folder.is_dir() and weights_of(manifest_of(folder)) != parent["sha256"]:
        return {"model": parent["path"], "changed": True}
    return ancestry(parent["path"])


def _beside(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if (run / "recipe.resolved.yaml").exists():
        found["resolved"] = _read(run / "recipe.resolved.yaml")
    if (run / "env.json").exists():
        found["environment"] = _read(run / "env.json")
    return found


def _read(path: Path) -> dict[str, Any]:
    """An object in YAML or JSON; `RegistryError` for anything else."""
    try:
        text = path.read_text(encoding="utf-8")
        found = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RegistryError(f"cannot be read: {error}", where=str(path)) from None
    if not isinstance(found, dict):
        raise RegistryError("holds no object", where=str(path), fix="put the run's own file back")
    return found


WITHOUT_TRAINING = ("merge", "blend")
"""Methods that make a model of others without training one."""


def parents_of(lineage: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a model was made from: one model, several that were blended, or none that is known."""
    return [lineage["parent"]] if "parent" in lineage else list(lineage.get("parents", ()))


def generations(lineage: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The model and all its ancestors, each after its parents and once; the model is the last."""
    found: list[Mapping[str, Any]] = []
    for parent in parents_of(lineage):
        found += [made for made in generations(parent) if made not in found]
    return [*found, lineage]
