"""Small recipes of every method, runs of them, and what is compared of two runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from strop.demo.world import all_equations, assistant, solution, user
from strop.recipe.loading.load import load_recipe
from strop.tracking.runlog import read_rows
from strop.train.run import train
from strop.train.rundir.checkpoint import verify

WriteRows = Callable[[str, Sequence[Mapping[str, Any]]], Path]

EQUATIONS = all_equations()[::53]

OFFLINE = ["cpt", "sft", "dft", "dpo", "robust_dpo", "ipo", "exo_pair", "aot", "aot_unpaired",
           "discopop", "dpop", "sppo_hard", "mpo", "simpo", "orpo", "cpo", "hinge", "nca_pair",
           "bco_pair", "apo_zero", "apo_down", "kto", "apo_zero_unpaired",
           "reward_model", "distil", "gkd"]  # fmt: skip
ONLINE = ["grpo", "dapo", "dr_grpo", "gspo", "gmpo", "cispo", "sapo", "rloo", "reinforce_pp",
          "ppo", "online_dpo", "raft", "on_policy_distil", "minillm"]  # fmt: skip
TAUGHT = ("distil", "gkd", "on_policy_distil", "minillm")

CLOCK = ("step_time", "sampling_time")


class Stop(BaseException):
    """Raised in the middle of a run: the end of its process, as far as it can tell."""


def stop_at(step: int) -> Callable[[Any], None]:
    """An `on_step` that breaks a run off after a step."""

    def on_step(record: Any) -> None:
        if record.step == step:
            raise Stop

    return on_step


def break_off(recipe: Any, step: int, **options: Any) -> Path:
    """Run a recipe (with these options of `train`) and break it off after a step; its run folder.

    As by a `kill -9`: the loop catches nothing that is no `Exception`, and saves nothing.
    """
    with pytest.raises(Stop):
        train(recipe, on_step=stop_at(step), **options)
    return Path(recipe.output)


class Finished:
    """Runs of the small recipes, each made once and looked at by many tests.

    `Finished(folder, model_folder)("dpo", "run.steps=4")` is the folder of that run. A test that
    changes a run makes one of its own.
    """

    def __init__(self, folder: Path, model_folder: Path) -> None:
        self.folder = folder
        self.recipes = write_recipes(folder, model_folder)
        self.made: dict[tuple[str, ...], tuple[Path, dict[str, tuple[int, int]]]] = {}

    def __call__(self, method: str, *options: str) -> Path:
        key = (method, *options)
        if key not in self.made:
            output = f"output=runs/{method}-{len(self.made)}"
            run = train(load_recipe(self.recipes[method], [*options, output]), force=True).parent
            self.made[key] = run, _files(run)
        return self.made[key][0]

    def changed(self) -> list[str]:
        """The runs that somebody has changed."""
        return [run.name for run, files in self.made.values() if _files(run) != files]


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file."""
    found = {p: p.lstat() for p in folder.rglob("*")}
    return {str(p): (s.st_size, s.st_mtime_ns) for p, s in found.items() if not p.is_dir()}


def latest_checkpoint(run: Path) -> Path | None:
    """The checkpoint that `latest` leads to, verified; `None` where none was finished."""
    pointer = run / "latest"
    if not pointer.is_symlink():
        return None
    verify(pointer.resolve())
    return run / pointer.readlink()


def metrics(folder: Path) -> list[dict[str, Any]]:
    """A run's log without what depends on the clock."""
    rows = read_rows(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in rows]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """What a checkpoint or a `final` folder holds: the adapter's weights where it is one."""
    adapter = folder / "adapter_model.safetensors"
    return load_file(adapter if adapter.exists() else folder / "model.safetensors")


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    """What a finished run ended with."""
    return weights(run / "final")


def same(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> bool:
    """Whether two sets of weights agree to the bit."""
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_teacher(folder: Path, model_folder: Path, *, scale: float = 0.1) -> Path:
    """The model of a folder with other weights, to learn from."""
    teacher = folder / "teacher"
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    draw = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=draw))
    model.save_pretrained(teacher)
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(teacher)
    return teacher


def write_recipes(folder: Path, model_folder: Path) -> dict[str, Path]:
    """A small recipe of every method over generated data."""

    def write_rows(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        write_jsonl(folder / name, rows)

    answers = [(user(e), solution(e), solution(e, filler=True)) for e in EQUATIONS]
    write_rows("text.jsonl", [{"text": solution(e)} for e in EQUATIONS])
    write_rows(
        "sft.jsonl", [{"prompt": p, "completion": assistant(good)} for p, good, _ in answers]
    )
    pairs = [
        {"prompt": p, "chosen": good, "rejected": bad, "margin": 0.1 * n}
        for n, (p, good, bad) in enumerate(answers)
    ]
    write_rows("pairs.jsonl", pairs)
    thumbs = [
        {"prompt": p, "completion": good if n % 3 else bad, "label": n % 3 != 0}
        for n, (p, good, bad) in enumerate(answers)
    ]
    write_rows("thumbs.jsonl", thumbs)
    write_rows("tasks.jsonl", [{"prompt": user(e), "answer": str(e.x)} for e in EQUATIONS])
    (folder / "rewards.py").write_text(
        "def shorter(prompts, completions, **columns):\n"
        "    return [-float(len(c[-1]['content'])) for c in completions]\n"
    )
    teacher = write_teacher(folder, model_folder)
    data = {"cpt": "text", "sft": "sft", "dft": "sft", "kto": "thumbs",
            "apo_zero_unpaired": "thumbs", "distil": "sft", "gkd": "sft"}  # fmt: skip
    paths = {}
    for method in [*OFFLINE, *ONLINE]:
        own = data.get(method, "tasks" if method in ONLINE else "pairs")
        recipe: dict[str, Any] = {
            "method": method,
            "output": f"runs/{method}",
            "seed": 3,
            "model": {"path": str(model_folder)},
            "data": f"{own}.jsonl",
            "optim": {"learning_rate": 1e-4},
            "run": {"steps": 6, "batch_size": 4, "save_every": 2, "micro_batch_tokens": 150},
        }
        if method in TAUGHT:
            recipe["teacher"] = str(teacher)
        if method in ONLINE:
            recipe["rollout"] = {"group_size": 4, "max_tokens": 12}
            if method not in TAUGHT:
                recipe["reward"] = [{"function": "shorter", "file": "rewards.py"}]
        if method == "gkd":
            recipe["rollout"] = {"max_tokens": 12}
        if method == "minillm":
            recipe["objective"] = {"mix": 0.0}
        if method == "grpo":
            recipe["objective"] = {"beta": 0.05}
        if method == "ppo":
            recipe["value"] = {"path": str(model_folder), "learning_rate": 1e-3}
        if method in ("sft", "dpo", "kto", "reward_model", "distil", "gkd"):
            recipe["eval"] = {"data": f"{own}.jsonl", "every": 3}
        paths[method] = folder / f"{method}.yaml"
        paths[method].write_text(yaml.safe_dump(recipe))
    return paths
