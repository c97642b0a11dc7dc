"""The loops: exact resume, honest metrics, whole outputs."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from strop.errors import OutputError, RecipeError
from strop.model.load import load_policy
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.model import ModelRecipe
from strop.recipe.train.run import OptimRecipe
from strop.train.loop.optim import build_optimizer, learning_rate
from strop.train.run import train
from tests.support.processes import Child, sets
from tests.support.runs import Finished, break_off, latest_checkpoint, metrics, same, weights


def test_sft_lowers_the_loss_on_what_it_sees(recipes: dict[str, Path]) -> None:
    rows = metrics(
        train(load_recipe(recipes["sft"], ["optim.learning_rate=3e-3", "run.steps=30"])).parent
    )
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert rows[-1]["eval_loss"] < rows[2]["eval_loss"]


def test_dpo_starts_at_log_two_and_widens_the_margin(recipes: dict[str, Path]) -> None:
    options = ["optim.learning_rate=1e-4", "run.steps=12", "eval.every=12"]
    recipe = load_recipe(recipes["dpo"], options)
    rows = metrics(train(recipe).parent)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert rows[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["rewards/margins"] > rows[2]["rewards/margins"] > 0
    assert rows[-1]["eval_rewards/accuracies"] == 1.0


def test_grpo_raises_the_reward(recipes: dict[str, Path]) -> None:
    overrides = ["optim.learning_rate=5e-3", "run.steps=25", "objective.beta=0",
                 "rollout.group_size=8"]  # fmt: skip
    rows = metrics(train(load_recipe(recipes["grpo"], overrides)).parent)
    assert sum(r["reward"] for r in rows[-5:]) / 5 > sum(r["reward"] for r in rows[:5]) / 5 + 2


class TestResume:
    @pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
    def test_stopped_and_resumed_is_bit_identical(
        self, method: str, recipes: dict[str, Path], tmp_path: Path
    ) -> None:
        """Also with dropout, whose random stream has to continue."""
        drop = "model.lora={rank: 4, dropout: 0.1}"
        options = {
            "sft": [drop, "run.steps=7"],
            "dpo": ["run.steps=7", "optim.optimizer=muon"],
            "grpo": ["run.steps=7"],
        }[method]
        whole = train(load_recipe(recipes[method], [*options, "output=runs/whole"]))
        recipe = load_recipe(recipes[method], [*options, "output=runs/parts"])

        break_off(recipe, 3)  # checkpoints stand at 2 and 4
        break_off(recipe, 6, resume=True)
        parts = train(recipe, resume=True)
        assert same(weights(whole), weights(parts))
        assert metrics(whole.parent) == metrics(parts.parent)

    def test_killed_at_any_moment(self, recipes: dict[str, Path], tmp_path: Path) -> None:
        asked = ["train", recipes["grpo"], *sets("run.steps=12", "output=runs/killed")]
        whole = train(load_recipe(recipes["grpo"], ["run.steps=12", "output=runs/whole"]))
        run = whole.parents[1] / "killed"
        for number in range(3):
            child = Child([*asked, *(["--resume"] if number else [])], tmp_path / "said")
            child.until((run / f"checkpoint-{2 + 4 * number}").exists)
            child.kill()
        child = Child([*asked, "--resume"], tmp_path / "said")
        assert child.end() == 0, child.said
        assert same(weights(whole), weights(run / "final"))
        assert metrics(whole.parent) == metrics(run)

    def test_sigterm_saves_and_exits_143(self, recipes: dict[str, Path], tmp_path: Path) -> None:
        given = sets("run.steps=4000", "run.save_every=0")
        child = Child(["train", recipes["sft"], *given], tmp_path / "said")
        run = recipes["sft"].parent / "runs/sft"
        log = run / "metrics.jsonl"
        child.until(lambda: log.exists() and log.stat().st_size > 0)
        child.signal(signal.SIGTERM)
        assert child.end() == 143, child.said
        assert "--resume" in child.said
        checkpoint = latest_checkpoint(run)
        assert checkpoint is not None
        step = json.loads((checkpoint / "trainer.json").read_text())["step"]
        assert [row["step"] for row in metrics(run)] == list(range(1, step + 1))

    def test_a_damaged_checkpoint_is_named(self, finished: Finished, tmp_path: Path) -> None:
        run = shutil.copytree(finished("sft"), tmp_path / "run", symlinks=True)
        checkpoint = latest_checkpoint(run)
        assert checkpoint is not None
        file = checkpoint / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        with pytest.raises(OutputError, match=r"model\.safetensors is damaged"):
            latest_checkpoint(run)

    def test_old_checkpoints_go(self, finished: Finished) -> None:
        run = finished("sft")
        assert sorted(p.name for p in run.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]
        assert os.readlink(run / "latest") == "checkpoint-6"


class TestOutputs:
    def test_another_recipes_folder_is_refused(self, recipes: dict[str, Path]) -> None:
        train(load_recipe(recipes["sft"]))
        with pytest.raises(OutputError, match=r"another recipe; it differs in\n    seed: 3 -> 4"):
            train(load_recipe(recipes["sft"], ["seed=4"]))
        with pytest.raises(OutputError, match="--overwrite to start again"):
            train(load_recipe(recipes["sft"]))

    def test_a_strangers_folder_is_refused(self, recipes: dict[str, Path]) -> None:
        folder = recipes["sft"].parent / "runs/sft"
        folder.mkdir(parents=True)
        (folder / "thesis.tex").write_text("years of work")
        with pytest.raises(OutputError, match="not a strop run"):
            train(load_recipe(recipes["sft"]), overwrite=True)
        assert (folder / "thesis.tex").exists()

    def test_a_start_that_was_killed_leaves_no_strangers_folder(
        self, recipes: dict[str, Path]
    ) -> None:
        """Killed while it wrote the recipe, its first file."""
        folder = recipes["sft"].parent / "runs/sft"
        folder.mkdir(parents=True)
        half = folder / ".recipe.resolved.yaml.4242-140.tmp"
        half.write_text("method: s")
        (folder / ".lock").write_text("")
        train(load_recipe(recipes["sft"], ["run.steps=1"]))
        assert not half.exists()
        assert (folder / "final").is_dir()

    def test_overwrite_starts_again(self, recipes: dict[str, Path]) -> None:
        first = weights(train(load_recipe(recipes["sft"])))
        again = weights(train(load_recipe(recipes["sft"]), overwrite=True))
        assert same(first, again)

    def test_a_refused_recipe_leaves_nothing(self, recipes: dict[str, Path]) -> None:
        recipe = load_recipe(recipes["dpo"], ["optim.learning_rate=1e-3"])
        with pytest.raises(RecipeError, match="--force"):
            train(recipe)
        assert not Path(recipe.output).exists()
        lora = load_recipe(
            recipes["dpo"], ["optim.learning_rate=1e-3", "run.steps=1", "model.lora={rank: 2}"]
        )
        assert train(lora).exists()


def test_muon_takes_the_hidden_matrices(model_folder: Path) -> None:
    policy = load_policy(ModelRecipe(path=str(model_folder)))
    optimizer = build_optimizer(policy, OptimRecipe(learning_rate=1e-3, optimizer="muon"))
    adamw, muon = ([p for g in m.param_groups for p in g["params"]] for m in optimizer.members)
    assert len(muon) == 3 * 7
    assert len(adamw) + len(muon) == len(policy.trainable())
    assert {p.dim() for p in muon} == {2}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 0.775, 0.55, 0.325]),
        ("cosine", [0.5, 1.0, 0.1 + 0.45 * (1 + math.cos(math.pi / 4)), 0.55,
                    0.1 + 0.45 * (1 + math.cos(3 * math.pi / 4))]),
    ],
)  # fmt: skip
def test_schedules_by_hand(schedule: Any, expected: list[float]) -> None:
    recipe = OptimRecipe(learning_rate=1.0, schedule=schedule, warmup_ratio=0.2, final_ratio=0.1)
    assert [learning_rate(recipe, step, 5) for step in range(5)] == pytest.approx(expected)
