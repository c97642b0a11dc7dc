"""The run directory: who owns it, and the files that identify the run."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml

import strop
from strop.curate.manifest import listing_of
from strop.data.bad_rows import SourceReport
from strop.data.sources import rows_hash
from strop.errors import OutputError
from strop.evals.inputs import suite_hash
from strop.files import (
    LOCK,
    SHORT,
    move,
    remove,
    sha256_of,
    sweep,
    write_json,
    write_rows,
    write_whole,
)
from strop.judge.build import judge_hash
from strop.model.load import weights_hash
from strop.recipe.loading.load import digest, flat, load
from strop.recipe.suite import Suite
from strop.recipe.train.data import DataSource
from strop.recipe.train.environment import EpisodeLimits
from strop.recipe.train.methods import Recipe
from strop.recipe.train.online import OnlineRecipe
from strop.recipe.train.teacher import ModelTeacher, RecordedTeacher
from strop.rewards.find import function_name, source_hash
from strop.tracking.control import CONTROL
from strop.tracking.notify.notifier import LOG as NOTIFY_LOG
from strop.tracking.runlog import read_rows

RECIPE = "recipe.resolved.yaml"
LINEAGE = "lineage.json"
DROPPED = "dropped.jsonl"
OURS = (RECIPE, LINEAGE, DROPPED, "env.json", "metrics.jsonl", "samples.jsonl", "report.html",
        "reference.safetensors", "eval_reference.safetensors",
        "reference_mismatched.safetensors", "eval_reference_mismatched.safetensors",
        "teacher.safetensors", "eval_teacher.safetensors",
        "latest", "best", CONTROL, NOTIFY_LOG)  # fmt: skip
MAY_CHANGE = {
    "alarms.": False,
    "run.sinks.": True,
    "run.notify.": True,
    "run.micro_batch_tokens": True,
    "text.cache": True,
    "model.gradient_checkpointing": True,
    "run.compile": True,
    "run.distributed.": True,
    "model.offload_activations": True,
}
"""Keys of the recipe that may change when a run is resumed, and whether a finished run stays up to
date with other values. A user may switch off an alarm to resume, but the alarm might have ended a
run that is finished. Sinks and those who are told only watch, and records are the same wherever
their tokens are kept. Smaller forwards and gradient checkpointing are the way out of running out of
memory, and change the result by rounding alone; so do another number of processes and a
compiler."""
REPLACED = ".replaced"
"""Folder in which the run is kept that another one overwrites, until that takes its first step."""

FOLDERS = ("final", "base", "profile", "sinks")


def claim(recipe: Recipe, *, resume: bool, overwrite: bool, force_resume: bool = False) -> Path:
    """The output folder, free for this run; raises `OutputError` where it belongs to another.

    `force_resume` accepts a run of another recipe. Creates nothing, so that a recipe that fails its
    checks leaves nothing behind.
    """
    if resume and overwrite:
        raise OutputError(
            "--resume continues a run and --overwrite deletes it", fix="pass one of the two"
        )
    folder = Path(recipe.output)
    for part in (folder, *folder.parents):
        if part.exists() and not part.is_dir():
            raise OutputError("is a file", where=str(part), fix="choose another `output`")
    if not folder.exists() or all(map(_is_of_a_start, folder.iterdir())):
        return folder
    if not (folder / RECIPE).exists():
        raise OutputError(
            "the output folder is not empty and not a strop run",
            where=str(folder),
            fix="choose another `output`",
        )
    if overwrite or not has_begun(folder):
        return folder
    differences = [] if force_resume else changed_keys(folder, recipe)
    if differences:
        raise OutputError(
            "the output folder belongs to another recipe; it differs in" + _listed(differences),
            where=str(folder),
            fix="choose another `output`, pass --overwrite to delete that run, or --force-resume "
            "to go on with it as another one",
        )
    if not resume:
        state = "is finished" if is_finished(folder) else "was not finished"
        raise OutputError(
            f"this recipe already ran into this folder, and the run {state}",
            where=str(folder),
            fix="pass --resume to go on with it or --overwrite to start again",
        )
    return folder


def _is_of_a_start(file: Path) -> bool:
    """Whether a run that was killed before it wrote its recipe can have left this file."""
    return file.name in (LOCK, REPLACED) or file.match(f".{RECIPE}.*.tmp")


def refuse_changed(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Raise `OutputError` when data, parent or rewards are not those the run began with."""
    changed = changed_inputs(folder, inputs)
    if changed:
        names = " and other ".join(dict.fromkeys(change.split(maxsplit=1)[0] for change in changed))
        raise OutputError(
            f"the run began with other {names} than there are now, so it would go on as a "
            f"different run:{_listed(changed)}",
            where=str(folder),
            fix="put the old files back, pass --overwrite to start again, or --force-resume to go "
            "on all the same",
        )


def changed_inputs(folder: Path, inputs: Mapping[str, Any]) -> list[str]:
    """`["data pairs.jsonl: sha256 0f.. -> 9a..", "rewards 0: 77.. -> 12.."]`: what is not as it
    was when the run began."""
    if not (folder / LINEAGE).exists():
        return []
    before = json.loads((folder / LINEAGE).read_text())
    changed = []
    for name, now in inputs.items():
        then, now = _hashes(before.get(name)), _hashes(now)
        changed += [
            f"{name} {place}: sha256 {then.get(place, 'none')} -> {now.get(place, 'none')}"
            for place in then | now
            if then.get(place) != now.get(place)
        ]
    return changed


def _hashes(entry: Any) -> dict[str, str]:
    """Hashes of one entry of `run_inputs` by path, by name, or by position in a list."""
    listed = entry if isinstance(entry, list) else [] if entry is None else [entry]
    return {
        item.get("path") or item["name"] if isinstance(item, dict) else str(number): (
            item["sha256"] if isinstance(item, dict) else item
        )
        for number, item in enumerate(listed)
    }


def _listed(changes: Sequence[str]) -> str:
    return "".join(f"\n    {change}" for change in changes)


def run_inputs(recipe: Recipe) -> dict[str, Any]:
    """Hashes of what a run reads: parent weights, data, reward files and models, the dev suite."""
    further: dict[str, Any] = {}
    if recipe.dev is not None:
        further["dev"] = suite_hash(load(Suite, recipe.dev.suite))
    if functions := functions_given(recipe):
        further["functions"] = functions
    if isinstance(recipe, OnlineRecipe) and recipe.rollout.environment is not None:
        further["environment"] = environment_files(recipe.rollout.environment)
    if (teacher := teacher_input(recipe)) is not None:
        further["teacher"] = teacher
    written = Path(recipe.chat_template) if recipe.chat_template else None
    if written is not None and written.is_file():
        further["chat_template"] = sha256_of(written)[:SHORT]
    return {
        "parent": {**recipe.model.origin(), "sha256": weights_hash(recipe.model.path)},
        "data": [_data_input(source) for source in recipe.data],
        "rewards": reward_hashes(recipe),
        **further,
    }


def teacher_input(recipe: Recipe) -> dict[str, str] | None:
    """`{"path": "/models/large", "sha256": "9a.."}`: the model that teaches, or the file of what
    one said; nothing of a model that teaches itself."""
    named = recipe.taught_by
    if isinstance(named, ModelTeacher):
        return {**named.origin(), "sha256": weights_hash(named.path)}
    if isinstance(named, RecordedTeacher):
        return {"path": named.recorded, "sha256": sha256_of(Path(named.recorded))[:SHORT]}
    return None


def environment_files(recipe: EpisodeLimits) -> list[dict[str, str]]:
    """`[{"path": "env.py", "sha256": "9a.."}]`: the files and models that an environment is made
    of. What a tool recorded may grow, and is none of them."""
    named = flat(recipe.plain())
    files = {str(v) for key, v in named.items() if key.split(".")[-1] == "file" and v}
    models = {str(v) for key, v in named.items() if key.split(".")[-1] == "model" and v}
    return [
        *({"path": file, "sha256": sha256_of(Path(file))[:SHORT]} for file in sorted(files)),
        *({"path": model, "sha256": weights_hash(model)} for model in sorted(models)),
    ]


def _data_input(source: DataSource) -> dict[str, Any]:
    """`{"path": "sft.jsonl", "sha256": ...}`; `read` is the reading options of a source that has
    any."""
    kept = {"path": source.name, "sha256": rows_hash(source)}
    place = source.place()
    return kept if place.keys() == {"path"} else {**kept, "read": place}


def refuse_stopped(folder: Path) -> None:
    """Raise `OutputError` for a run that an alarm stopped for good."""
    log = folder / "metrics.jsonl"
    rows = list(read_rows(log)) if log.exists() else []
    for action, said in rows[-1].get("alarms", []) if rows else []:
        if action == "stop":
            raise OutputError(
                f"the run was stopped by an alarm: {said}",
                where=str(folder),
                fix="change the recipe and choose another `output`, or pass --overwrite to start "
                "again",
            )


def has_begun(folder: Path) -> bool:
    """Whether the log has a row (the measurement before step 1 is one) or the run is finished. A
    run that failed earlier left nothing worth keeping."""
    return (folder / "metrics.jsonl").exists() or is_finished(folder)


def is_finished(folder: Path) -> bool:
    return (folder / "final").is_dir()


def write_identity(
    folder: Path, recipe: Recipe, inputs: Mapping[str, Any], checks: Mapping[str, Any]
) -> None:
    """`recipe.resolved.yaml`, `env.json` and `lineage.json`; `inputs` are its `run_inputs`."""
    write_whole(folder / RECIPE, yaml.safe_dump(recipe.plain(), sort_keys=False))
    write_json(folder / "env.json", environment())
    kept = {name: noted for name in NOTED if (noted := _noted(folder, name))}
    lineage = {
        "method": recipe.method,
        **inputs,
        "rows": [line_count(source.path or "") for source in recipe.data],
        "manifests": [_listing(source) for source in recipe.data],
        "recipe": digest(recipe),
        "code": {"strop": strop.__version__, "commit": commit()},
        "self_check": dict(checks),
        **kept,
    }
    write_json(folder / LINEAGE, lineage)


def _listing(source: DataSource) -> dict[str, Any] | None:
    """The manifest of the data verb that made a source, and whether its files are unchanged."""
    listing = listing_of(source)
    return None if listing is None else asdict(listing)


def write_dropped(folder: Path, sources: Iterable[SourceReport]) -> None:
    """`dropped.jsonl`: every row that was left out, with its file, line, kind and reason."""
    rows = [row.plain() for source in sources for row in source.dropped]
    if rows:
        write_rows(folder / DROPPED, rows)
    else:
        remove(folder / DROPPED)


def self_check(folder: Path) -> dict[str, Any]:
    """What the run in this folder checked before its first step."""
    if not (folder / LINEAGE).exists():
        return {}
    found: dict[str, Any] = json.loads((folder / LINEAGE).read_text())["self_check"]
    return found


NOTED = ("resumed", "forced")
"""What `lineage.json` keeps of the run's earlier starts, each with its step."""


def write_resumed(folder: Path, step: int, changes: Sequence[str]) -> None:
    """Note in `lineage.json` that the run went on from `step`; with `changes` as a different
    one."""
    lineage = json.loads((folder / LINEAGE).read_text())
    lineage["resumed"] = [*_noted(folder, "resumed"), {"step": step}]
    if changes:
        forced = {"step": step, "changes": list(changes)}
        lineage["forced"] = [*_noted(folder, "forced"), forced]
    write_json(folder / LINEAGE, lineage)


def _noted(folder: Path, name: str) -> list[dict[str, Any]]:
    if not (folder / LINEAGE).exists():
        return []
    noted: list[dict[str, Any]] = json.loads((folder / LINEAGE).read_text()).get(name, [])
    return noted


def line_count(path: str) -> int | None:
    """Records of a JSONL file; `None` for what would have to be parsed to know."""
    if not path.endswith(".jsonl") or not Path(path).is_file():
        return None
    with open(path, "rb") as stream:
        return sum(1 for line in stream if line.strip())


def write_final(folder: Path, final: Mapping[str, Any], spent: Mapping[str, int]) -> None:
    """Note in `lineage.json` which step `final/` holds and what chose it, and what was spent."""
    lineage = json.loads((folder / LINEAGE).read_text())
    write_json(folder / LINEAGE, {**lineage, "final": dict(final), "spent": dict(spent)})


def reward_hashes(recipe: Recipe) -> list[str]:
    """Hashes of the reward files, judges, reward models and the critic that a recipe names."""
    named = [(c.file, c.rubric) for c in recipe.all_rewards]
    judges = [component.judge for component in recipe.all_rewards if component.judge]
    files = [Path(file) for of in named for file in of if file is not None]
    models = [component.model for component in recipe.all_rewards if component.model]
    if recipe.critic is not None:
        models.append(recipe.critic.path)
    return [
        *(sha256_of(file)[:SHORT] for file in files),
        *map(judge_hash, judges),
        *(weights_hash(model) for model in models),
    ]


def functions_given(recipe: Recipe) -> list[dict[str, str]]:
    """`[{"name": "shorter", "sha256": "3f1c..."}]`: rewards or a loss given from Python."""
    given = {c.function: c.given for c in recipe.all_rewards if c.given is not None}
    if recipe.given_loss is not None:
        given[function_name(recipe.given_loss)] = recipe.given_loss
    return [{"name": name, "sha256": source_hash(found)} for name, found in given.items()]


def environment() -> dict[str, Any]:
    """Versions and hardware, nothing that names the machine or its user."""
    return {
        "strop": strop.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "processes": torch.distributed.get_world_size() if _is_one_of_several() else 1,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _is_one_of_several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def commit() -> str | None:
    """Git commit of the strop checkout that runs, if it is one."""
    here = Path(strop.__file__).resolve().parents[2]
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


def changed_keys(folder: Path, recipe: Recipe) -> list[str]:
    """`["optim.learning_rate: 0.001 -> 0.002"]`: what is not as in the recipe of the run here."""
    before = yaml.safe_load((folder / RECIPE).read_text())
    return [
        f"{name}: {then!r} -> {now!r}" for name, (then, now) in differing(before, recipe).items()
    ]


def differing(
    before: Mapping[str, Any], recipe: Recipe, *, finished: bool = False
) -> dict[str, tuple[Any, Any]]:
    """The values that make `recipe` another run than the plain recipe `before`, old and new by
    dotted name: `{"optim.learning_rate": (0.001, 0.002)}`."""
    then, now = (decisive(plain, finished=finished) for plain in (before, recipe.plain()))
    return {
        name: (then.get(name), now.get(name))
        for name in dict.fromkeys([*now, *then])
        if then.get(name) != now.get(name)
    }


def decisive(plain: Mapping[str, Any], *, finished: bool = False) -> dict[str, Any]:
    """A plain recipe by dotted names, without those that may change in the same run."""
    free = tuple(name for name, kept in MAY_CHANGE.items() if kept or not finished)
    return {name: value for name, value in flat(dict(plain)).items() if not name.startswith(free)}


def reopen(folder: Path) -> None:
    """Reopen a finished run: its final model will be replaced."""
    sweep(folder)
    if is_finished(folder):
        move(folder / "final", folder / ".final.tmp")
        sweep(folder)


def clear(folder: Path) -> None:
    """Delete what an earlier run left in a folder that `claim` freed, nothing else."""
    reopen(folder)
    for part in left_by_a_run(folder):
        remove(part)


def left_by_a_run(folder: Path) -> list[Path]:
    """Everything there that a run writes. Files that mark it as resumable come first, the recipe
    last: so a half-cleared folder does not look finished, and is still recognised as strop's."""
    named = [*FOLDERS, "latest"]
    parts = [*folder.glob("checkpoint-*"), *folder.glob("nonfinite-step-*")]
    all_of_them = [folder / name for name in named] + parts
    all_of_them += [folder / name for name in reversed(OURS) if name not in named]
    return [part for part in all_of_them if part.is_symlink() or part.exists()]
