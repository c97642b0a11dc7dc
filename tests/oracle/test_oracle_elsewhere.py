"""What is written for TRL 1.16, with TRL itself: its parser reads it, and its steps are strop's."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from strop.advise.elsewhere.table import EXPORTERS, export
from strop.advise.elsewhere.write import write
from strop.demo.world import solution, user
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.methods import METHODS
from strop.train.run import train
from tests.oracle.steps import EQUATIONS
from tests.support.elsewhere import chat_rows, recipe_of
from tests.support.runs import WriteRows, write_jsonl, write_teacher

pytestmark = pytest.mark.oracle


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("method", sorted(EXPORTERS["trl"].methods))
def test_trls_parser_reads_it(method: str, tmp_path: Path) -> None:
    """All keys are known, and the values that TRL checks fit together."""
    trl = pytest.importorskip("trl")
    more: dict[str, Any] = {
        "model": {"path": "org/model", "device": "cpu", "quantize": "nf4",
                  "lora": {"rank": 4, "targets": ["q_proj"]}},
        "optim": {"learning_rate": 1e-6, "schedule": "cosine", "final_ratio": 0.1},
        "run": {"epochs": 2, "batch_size": 6, "save_every": 2},
    }  # fmt: skip
    if METHODS[method].records == "task":
        more["rollout"] = {"group_size": 4, "mismatch": {"level": "token"}}
    else:
        held_out = write_jsonl(tmp_path / "held_out.jsonl", chat_rows(METHODS[method].records))
        more["eval"] = {"data": str(held_out), "every": 5}
    made = export(recipe_of(method, tmp_path, **more), "trl")
    config = tmp_path / "config.yaml"
    config.write_text(made.files["config.yaml"])
    (found,) = re.findall(
        r"^from (\S+) import (\w+Config), \w+Trainer", made.files["train.py"], flags=re.M
    )
    classes = (getattr(importlib.import_module(found[0]), found[1]), trl.ModelConfig)
    args, model = trl.TrlParser(classes).parse_args_and_config(["--config", str(config)])
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps % 6 == 0
    assert args.learning_rate == 1e-6
    assert (model.lora_r, model.lora_target_modules) == (4, "q_proj")
    if METHODS[method].records == "task":
        assert args.generation_batch_size == 24
        assert args.reward_weights is None


def losses_of_strop(recipe: Path) -> list[float]:
    losses: list[float] = []
    train(load_recipe(recipe), force=True,
          on_step=lambda record: losses.append(record.metrics["loss"]))  # fmt: skip
    return losses


def losses_of_trl(folder: Path) -> list[float]:
    trainer = module_of(folder / "train.py").build(["--disable_tqdm", "true"])
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def said(lines: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": lines}]


def pair_rows() -> list[dict[str, Any]]:
    """Pairs in which now the chosen, now the rejected answer is the longer one."""
    rows = []
    for n, e in enumerate(EQUATIONS):
        right, wrong = solution(e).split("\n"), solution(e, slip=True).split("\n")
        short, long = right[-1], "\n".join(wrong[-2:])
        chosen, rejected = (short, long) if n % 2 else ("\n".join(right[-2:]), wrong[-1])
        rows.append({"prompt": user(e), "chosen": said(chosen), "rejected": said(rejected)})
    return rows


def sft_rows() -> list[dict[str, Any]]:
    """Answers of several lengths, so that a mean over records would be another number."""
    answers = [solution(e) if n % 2 else solution(e).split("\n")[-1]
               for n, e in enumerate(EQUATIONS)]  # fmt: skip
    return [
        {"prompt": user(e), "completion": said(text)}
        for e, text in zip(EQUATIONS, answers, strict=True)
    ]


def text_rows() -> list[dict[str, Any]]:
    return [{"text": solution(e)} for e in EQUATIONS]


ROWS = {"cpt": text_rows, "sft": sft_rows, "dft": sft_rows, "dpo": pair_rows, "ipo": pair_rows,
        "cdpo": pair_rows, "simpo": pair_rows, "reward_model": pair_rows,
        "distil": sft_rows}  # fmt: skip
ALONE = ("cpt", "sft", "dft", "distil")
"""Methods whose records are one sequence, not two."""


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("lora", [False, True])
def test_three_steps_have_the_same_losses(
    name: str, lora: bool, model_folder: Path, tmp_path: Path, write_rows: WriteRows
) -> None:
    """A step takes all records, so that neither side's order counts; two micro-batches each."""
    pytest.importorskip("trl")
    method = "dpo" if name == "cdpo" else name
    values: dict[str, Any] = {
        "method": method,
        "output": "run",
        "model": {"path": str(model_folder), "device": "cpu"},
        "data": write_rows("rows.jsonl", ROWS[name]()).name,
        "text": {"max_length": 128},
        "optim": {"learning_rate": 3e-3, "schedule": "constant", "warmup_ratio": 0},
        "run": {"steps": 3, "batch_size": 6,
                "micro_batch_tokens": 128 * 3 * (1 if name in ALONE else 2)},
    }  # fmt: skip
    if lora:
        values["model"]["lora"] = {"rank": 4, "alpha": 8}
    if name == "distil":
        values["teacher"] = str(write_teacher(tmp_path, model_folder))
        values["objective"] = {"divergence": "generalized_js", "beta": 0.3}
    if name == "cdpo":
        values["objective"] = {"label_smoothing": 0.2}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    made = export(load_recipe(path), "trl")
    write(made, tmp_path / "trl", system="TRL", method=method)
    assert "gradient_accumulation_steps: 2" in made.files["config.yaml"]
    ours, theirs = losses_of_strop(path), losses_of_trl(tmp_path / "trl")
    assert len(ours) == 3
    if lora:  # the adapter's random start is drawn by another generator: the first loss alone
        assert theirs[0] == pytest.approx(ours[0], abs=1e-3)
        assert abs(theirs[2] - ours[2]) < 0.1
        return
    assert theirs == pytest.approx(ours, abs=1e-3)
    assert abs(ours[2] - ours[0]) > 0.01


@pytest.mark.parametrize("method", ["grpo", "gmpo", "rloo"])
def test_the_script_of_a_method_that_samples_runs(
    method: str, model_folder: Path, tmp_path: Path, write_rows: WriteRows
) -> None:
    """Its rewards are the recipe's: 2 for every answer, as the user's own function says."""
    pytest.importorskip("trl")
    own = tmp_path / "own.py"
    own.write_text("def two(prompts, completions, x, **more):\n    return [float(v) for v in x]\n")
    rows = [{"prompt": user(e), "x": 1.0} for e in EQUATIONS[:4]]
    values: dict[str, Any] = {
        "method": method,
        "output": "run",
        "model": {"path": str(model_folder), "device": "cpu"},
        "data": write_rows("tasks.jsonl", rows).name,
        "optim": {"learning_rate": 1e-4},
        "run": {"steps": 1, "batch_size": 4},
        "rollout": {"group_size": 2, "max_tokens": 8},
        "reward": [{"function": "two", "file": "own.py", "weight": 2.0}],
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    write(export(load_recipe(path), "trl"), tmp_path / "trl", system="TRL", method=method)
    own.unlink()  # the folder stands alone
    sys.modules.pop("reward", None)  # of another script in this process
    trainer = module_of(tmp_path / "trl" / "train.py").build(["--disable_tqdm", "true"])
    trainer.train()
    (row,) = [row for row in trainer.state.log_history if "reward" in row]
    assert row["reward"] == 2.0
    assert trainer.state.global_step == 1


def test_the_script_of_gkd_runs(model_folder: Path, tmp_path: Path, write_rows: WriteRows) -> None:
    """All answers are the student's own."""
    pytest.importorskip("trl")
    values: dict[str, Any] = {
        "method": "gkd",
        "output": "run",
        "model": {"path": str(model_folder), "device": "cpu"},
        "teacher": str(write_teacher(tmp_path, model_folder)),
        "data": write_rows("rows.jsonl", sft_rows()[:4]).name,
        "text": {"max_length": 128},
        "optim": {"learning_rate": 1e-4},
        "run": {"steps": 1, "batch_size": 4},
        "objective": {"own_samples": 1.0},
        "rollout": {"max_tokens": 8},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    write(export(load_recipe(path), "trl"), tmp_path / "trl", system="TRL", method="gkd")
    (loss,) = losses_of_trl(tmp_path / "trl")
    assert loss > 0.01
