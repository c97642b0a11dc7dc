"""The loops: right gradients, exact resume, honest metrics, refusals."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from conftest import WriteRows
from strop.demo.world import all_equations, assistant, solution, user
from strop.errors import OutputError, RecipeError, TrainingError
from strop.losses.presets import grpo
from strop.metrics.runlog import read_rows
from strop.model.load import load_policy
from strop.recipe.load import load_recipe
from strop.recipe.model import ModelRecipe
from strop.recipe.objective import DpoObjective
from strop.recipe.run import OptimRecipe, PolicyRecipe
from strop.train import online
from strop.train.checkpoint import latest_checkpoint
from strop.train.objectives import preference_loss, supervised_loss
from strop.train.optim import Optimizers, build_optimizer, learning_rate
from strop.train.run import train
from strop.train.step import TrainState, optimizer_step, pieces, split_tree
from strop.types import Branch, Completion, Origin, Rollout, Score, ScoredGroup, Task, Tree

def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The log without what depends on the clock."""
    clock = ("step_time", "sampling_time")
    rows = read_rows(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in clock} for row in rows]


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


METHODS = ["cpt", "sft", "dpo", "grpo", "dapo", "dr_grpo"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_moves_the_weights_and_leaves_a_loadable_model(
    method: str, recipes: dict[str, Path], model_folder: Path
) -> None:
    final = train(load_recipe(recipes[method]))
    model = AutoModelForCausalLM.from_pretrained(final)
    start = AutoModelForCausalLM.from_pretrained(model_folder)
    moved = [
        not torch.equal(p, q) for p, q in zip(model.parameters(), start.parameters(), strict=True)
    ]
    assert all(moved)
    run = final.parent
    for name in ("recipe.resolved.yaml", "env.json", "lineage.json", "samples.jsonl"):
        assert (run / name).stat().st_size > 0
    assert "plotly" in (run / "report.html").read_text()
    rows = metrics(run)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "grad_norm", "learning_rate", "entropy", "num_tokens"} <= rows[0].keys()


def test_sft_lowers_the_loss_on_what_it_sees(recipes: dict[str, Path]) -> None:
    rows = metrics(
        train(load_recipe(recipes["sft"], ["optim.learning_rate=3e-3", "run.steps=30"])).parent
    )
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert rows[-1]["eval_loss"] < rows[2]["eval_loss"]


def test_dpo_starts_at_log_two_and_widens_the_margin(recipes: dict[str, Path]) -> None:
    recipe = load_recipe(recipes["dpo"], ["optim.learning_rate=1e-4", "run.steps=12"])
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


def strop(*args: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "strop.cli", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


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

        class Stop(Exception):  # noqa: N818 - it is what it is
            pass

        def stop_at(step: int) -> Any:
            def on_step(record: Any) -> None:
                if record.step == step:
                    raise Stop

            return on_step

        for step, resume in ((3, False), (6, True)):  # checkpoints stand at 2 and 4
            with pytest.raises(Stop):
                train(recipe, resume=resume, on_step=stop_at(step))
        parts = train(recipe, resume=True)
        name = "adapter_model.safetensors" if method == "sft" else "model.safetensors"
        assert same(load_file(whole / name), load_file(parts / name))
        assert metrics(whole.parent) == metrics(parts.parent)

    def test_killed_at_any_moment(self, recipes: dict[str, Path]) -> None:
        overrides = ["--set", "run.steps=12", "--set", "output=runs/killed"]
        whole = train(load_recipe(recipes["grpo"], ["run.steps=12", "output=runs/whole"]))
        run = whole.parents[1] / "killed"
        for number in range(3):
            child = strop("train", recipes["grpo"], *overrides, *(["--resume"] if number else []))
            goal = run / f"checkpoint-{2 + 4 * number}"
            wait_for(lambda goal=goal, child=child: goal.exists() or child.poll() is not None)
            child.kill()
            child.wait()
        done = strop("train", recipes["grpo"], *overrides, "--resume")
        _, errors = done.communicate(timeout=120)
        assert done.returncode == 0, errors
        assert same(weights(whole), weights(run / "final"))
        assert metrics(whole.parent) == metrics(run)

    def test_sigterm_saves_and_exits_143(self, recipes: dict[str, Path]) -> None:
        overrides = ["--set", "run.steps=4000", "--set", "run.save_every=0"]
        child = strop("train", recipes["sft"], *overrides)
        run = recipes["sft"].parent / "runs/sft"
        log = run / "metrics.jsonl"
        wait_for(lambda: log.exists() and log.stat().st_size > 0)
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 143, errors
        assert "--resume" in errors
        checkpoint = latest_checkpoint(run)
        assert checkpoint is not None
        step = json.loads((checkpoint / "trainer.json").read_text())["step"]
        assert [row["step"] for row in metrics(run)] == list(range(1, step + 1))

    def test_a_damaged_checkpoint_is_named(self, recipes: dict[str, Path]) -> None:
        run = train(load_recipe(recipes["sft"])).parent
        checkpoint = latest_checkpoint(run)
        assert checkpoint is not None
        file = checkpoint / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        with pytest.raises(OutputError, match=r"model\.safetensors is damaged"):
            latest_checkpoint(run)

    def test_old_checkpoints_go(self, recipes: dict[str, Path]) -> None:
        run = train(load_recipe(recipes["sft"])).parent
        assert sorted(p.name for p in run.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]
        assert os.readlink(run / "latest") == "checkpoint-6"


class TestOutputs:
    def test_another_recipes_folder_is_refused(self, recipes: dict[str, Path]) -> None:
        train(load_recipe(recipes["sft"]))
        with pytest.raises(OutputError, match=r"another recipe; it differs in .*seed \(3 there, 4"):
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

    def test_overwrite_starts_again(self, recipes: dict[str, Path]) -> None:
        first = weights(train(load_recipe(recipes["sft"])))
        again = weights(train(load_recipe(recipes["sft"]), overwrite=True))
        assert same(first, again)

    def test_a_refused_recipe_leaves_nothing(self, recipes: dict[str, Path]) -> None:
        recipe = load_recipe(recipes["dpo"], ["optim.learning_rate=1e-3"])
        with pytest.raises(RecipeError, match="--force"):
            train(recipe)
        assert not Path(recipe.output).exists()
        lora = load_recipe(recipes["dpo"], ["optim.learning_rate=1e-3", "model.lora={rank: 2}"])
        assert train(lora).exists()

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("rollout.max_tokens=5000", "leaves no room for a prompt"),
            ("reward=[{function: exact_answer, weight: 0}]", "every reward has weight 0"),
            ("objective={beta: 0, epsilon_low: 0.3, epsilon_high: 0.2}", "epsilon_high >="),
        ],
    )
    def test_contradictions_are_refused(
        self, recipes: dict[str, Path], override: str, message: str
    ) -> None:
        with pytest.raises(RecipeError, match=message):
            train(load_recipe(recipes["grpo"], [override]), force=True)


class TestAdapters:
    def test_lora_trains_the_adapter_alone_and_loads_with_peft(
        self, recipes: dict[str, Path], model_folder: Path
    ) -> None:
        recipe = load_recipe(recipes["sft"], ["model.lora={rank: 4}", "optim.learning_rate=1e-2"])
        final = train(recipe)
        model = AutoPeftModelForCausalLM.from_pretrained(final)
        start = AutoModelForCausalLM.from_pretrained(model_folder)
        base = {n: p for n, p in model.named_parameters() if "lora" not in n}
        moved = [p for n, p in model.named_parameters() if "lora_B" in n]
        assert all(p.abs().max() > 0 for p in moved)
        # all linear layers of three decoder layers: q, k, v, o, gate, up, down
        assert len(moved) == 3 * 7
        assert sum(p.numel() for p in base.values()) == sum(p.numel() for p in start.parameters())

    def test_an_adapter_on_an_adapter_starts_from_the_merged_model(
        self, recipes: dict[str, Path]
    ) -> None:
        """DPO on an SFT adapter: the reference is the SFT model, not the raw base."""
        overrides = ["model.lora={rank: 4}", "optim.learning_rate=1e-2"]
        first = train(load_recipe(recipes["sft"], overrides))
        second = train(load_recipe(recipes["dpo"], [*overrides, f"model.path={first}"]))
        assert metrics(second.parent)[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
        merged = AutoPeftModelForCausalLM.from_pretrained(first).merge_and_unload()
        base = AutoModelForCausalLM.from_pretrained(second.parent / "base")
        for p, q in zip(merged.parameters(), base.parameters(), strict=True):
            assert torch.allclose(p, q, atol=1e-6)
        assert AutoPeftModelForCausalLM.from_pretrained(second) is not None

    def test_the_reference_of_an_adapter_is_the_model_without_it(
        self, recipes: dict[str, Path]
    ) -> None:
        overrides = ["model.lora={rank: 4}", "optim.learning_rate=1e-2", "run.steps=4"]
        rows = metrics(train(load_recipe(recipes["grpo"], overrides)).parent)
        assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)
        assert rows[-1]["kl"] > 1e-4

    @pytest.mark.parametrize("lora", [False, True])
    def test_bfloat16(self, lora: bool, recipes: dict[str, Path]) -> None:
        adapter = ["model.lora={rank: 4}"] if lora else []
        final = train(load_recipe(recipes["dpo"], ["model.dtype=bfloat16", *adapter]))
        name = "adapter_model.safetensors" if lora else "model.safetensors"
        kinds = {tensor.dtype for tensor in load_file(final / name).values()}
        assert kinds == ({torch.float32} if lora else {torch.bfloat16})
        checkpoint = latest_checkpoint(final.parent)
        assert checkpoint is not None
        assert {t.dtype for t in load_file(checkpoint / name).values()} == {torch.float32}


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
