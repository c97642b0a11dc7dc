"""The run directory: who owns it, and the files that say what the run was."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml

import strop
from strop.data.sources import data_hash
from strop.errors import OutputError
from strop.metrics.runlog import read_rows
from strop.model.load import weights_hash
from strop.recipe.load import digest
from strop.recipe.methods import Recipe
from strop.recipe.online import OnlineRecipe, PpoRecipe

RECIPE = "recipe.resolved.yaml"
LINEAGE = "lineage.json"
OURS = (RECIPE, LINEAGE, "env.json", "metrics.jsonl", "samples.jsonl", "report.html",
        "reference.safetensors", "eval_reference.safetensors",
        "reference_mismatched.safetensors", "eval_reference_mismatched.safetensors",
        "latest")  # fmt: skip
FOLDERS = ("final", "base", "profile")


def claim(recipe: Recipe, *, resume: bool, overwrite: bool) -> Path:
    """The output folder, free for this run; raises `OutputError` where it belongs to another.

    Creates nothing, so that a recipe that fails its checks leaves nothing behind.
    """
    if resume and overwrite:
        raise OutputError(
            "--resume goes on with a run and --overwrite deletes it", fix="pass one of the two"
        )
    folder = Path(recipe.output)
    for part in (folder, *folder.parents):
        if part.exists() and not part.is_dir():
            raise OutputError("is a file", where=str(part), fix="choose another `output`")
    if not folder.exists() or not any(folder.iterdir()):
        return folder
    if not (folder / RECIPE).exists():
        raise OutputError(
            "the output folder is not empty and not a strop run",
            where=str(folder),
            fix="choose another `output`",
        )
    if overwrite or not has_begun(folder):
        return folder
    differences = _differences(folder, recipe)
    if differences:
        raise OutputError(
            "the output folder belongs to another recipe; it differs in " + ", ".join(differences),
            where=str(folder),
            fix="choose another `output`, or pass --overwrite to delete that run",
        )
    if not resume:
        state = "is finished" if is_finished(folder) else "was not finished"
        raise OutputError(
            f"this recipe already ran into this folder, and the run {state}",
            where=str(folder),
            fix="pass --resume to go on with it or --overwrite to start again",
        )
    return folder


def refuse_changed(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Raise `OutputError` when data, parent or rewards are not those the run began with."""
    if not (folder / LINEAGE).exists():
        return
    before = json.loads((folder / LINEAGE).read_text())
    changed = [name for name in inputs if before[name] != inputs[name]]
    if changed:
        raise OutputError(
            f"the run began with other {' and other '.join(changed)} than there are now, so it "
            "would go on as a different run",
            where=str(folder),
            fix="put the old files back, or pass --overwrite to start again",
        )


def run_inputs(recipe: Recipe) -> dict[str, Any]:
    """Hashes of everything a run reads: parent weights, data, reward files and models."""
    return {
        "parent": {"path": recipe.model.path, "sha256": weights_hash(recipe.model.path)},
        "data": [
            {"path": source.path, "sha256": data_hash([source.path])} for source in recipe.data
        ],
        "rewards": reward_hashes(recipe),
    }


def refuse_stopped(folder: Path) -> None:
    """Raise `OutputError` for a run that an alarm stopped for good."""
    log = folder / "metrics.jsonl"
    rows = list(read_rows(log)) if log.exists() else []
    for action, said in rows[-1].get("alarms", []) if rows else []:
        if action == "stop":
            raise OutputError(
                f"the run was stopped by an alarm: {said}",
                where=str(folder),
                fix="change the recipe and another `output`, or pass --overwrite to start again",
            )


def has_begun(folder: Path) -> bool:
    """Whether a run made a step here; one that failed before leaves nothing worth keeping."""
    return (folder / "metrics.jsonl").exists() or is_finished(folder)


def is_finished(folder: Path) -> bool:
    return (folder / "final").is_dir()


def write_identity(
    folder: Path, recipe: Recipe, inputs: Mapping[str, Any], checks: Mapping[str, Any]
) -> None:
    """`recipe.resolved.yaml`, `env.json` and `lineage.json`; `inputs` are its `run_inputs`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECIPE).write_text(yaml.safe_dump(recipe.plain(), sort_keys=False))
    _write_json(folder / "env.json", environment())
    lineage = {
        "method": recipe.method,
        **inputs,
        "recipe": digest(recipe),
        "code": {"strop": strop.__version__, "commit": commit()},
        "self_check": dict(checks),
    }
    _write_json(folder / LINEAGE, lineage)


def reward_hashes(recipe: Recipe) -> list[str]:
    """Hashes of the reward files, reward models and the critic that a recipe names."""
    if not isinstance(recipe, OnlineRecipe):
        return []
    held_out = (recipe.eval.reward if recipe.eval else None) or []
    components = [*recipe.reward, *held_out]
    files = [Path(component.file) for component in components if component.file]
    models = [component.model for component in components if component.model]
    if isinstance(recipe, PpoRecipe) and recipe.value is not None:
        models.append(recipe.value.path)
    return [
        *(hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files),
        *(weights_hash(model) for model in models),
    ]


def environment() -> dict[str, Any]:
    """Versions and hardware, nothing that names the machine or its user."""
    return {
        "strop": strop.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def commit() -> str | None:
    """Git commit of the strop checkout that runs, if it is one."""
    here = Path(__file__).resolve().parents[3]
    if not (here / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True, text=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _differences(folder: Path, recipe: Recipe) -> list[str]:
    before = _flat(yaml.safe_load((folder / RECIPE).read_text()))
    now = _flat(recipe.plain())
    # an alarm that rang may be told to be silent before the run goes on
    names = [
        name
        for name in before | now
        if before.get(name) != now.get(name) and not name.startswith("alarms.")
    ]
    return [f"{name} ({before.get(name)!r} there, {now.get(name)!r} here)" for name in names[:4]]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)  # type: ignore[assignment]
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in items:
        flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def clear(folder: Path) -> None:
    """Delete what an earlier run left in a folder that `claim` gave away, nothing else."""
    for name in OURS:
        (folder / name).unlink(missing_ok=True)
    for part in [*folder.glob("checkpoint-*"), *(folder / name for name in FOLDERS)]:
        shutil.rmtree(part, ignore_errors=True)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
