"""Faults 8, 9 and 16: numbers that are not finite, spikes, and memory that runs out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from strop.data.order import DataMixture, DrawnRecords, Part
from strop.distributed.world import Counts
from strop.errors import NotFiniteError, TrainingError
from strop.losses.reduce import Loss
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.alarm import PolicyAlarms
from strop.train.loop.memory import explained
from strop.train.loop.state import Trained
from strop.train.loop.updater import MicroBatchLoss, Update
from strop.train.methods.policy_gradient import PolicyGradient
from strop.train.methods.supervised import SupervisedMethod
from strop.train.monitor.alarms import AlarmWatch
from strop.train.run import train
from strop.types import ScoredGroup
from tests.support.processes import sets, strop
from tests.support.runs import break_off, metrics, same, weights

LONG = ["run.steps=10", "run.skip_nonfinite=1", "eval=null"]

Poison = Callable[[Path, Sequence[int]], None]


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Poison:
    """Make the records of these steps (from 1) of a recipe give a loss of NaN."""
    plain = SupervisedMethod.update

    def plant(path: Path, steps: Sequence[int]) -> None:
        recipe = load_recipe(path, LONG)
        count = len(Path(recipe.data[0].path).read_text().splitlines())
        assert count >= 10 * recipe.run.batch_size, "no record comes twice"
        bad = {i for step in steps for i in order(recipe.seed, count).draw(step - 1).own}

        def update(self: SupervisedMethod, indices: Sequence[int]) -> Update:
            made = plain(self, indices)
            return spoilt(made) if bad & set(indices) else made

        monkeypatch.setattr(SupervisedMethod, "update", update)

    return plant


def order(seed: int, count: int) -> DataMixture:
    return DataMixture([Part(False, 0, count, 1.0)], 4, seed)


def spoilt(update: Update) -> Update:
    """The same update, the loss of its first micro-batch NaN."""

    def losses(counts: Counts) -> list[MicroBatchLoss]:
        first, *others = update.losses(counts)

        def nan() -> Loss:
            loss = first()
            return Loss(loss.value * float("nan"), loss.metrics)

        return [nan, *others]

    return replace(update, losses=losses)


def plant_nan(
    monkeypatch: pytest.MonkeyPatch,
    learner: type[PolicyGradient],
    update: int,
    of: Trained = "policy",
) -> None:
    """Make the first loss of this update (from 1, over the run) of policy or critic NaN."""
    plain = learner.updates
    count: list[int] = []

    def updates(self: PolicyGradient, groups: Sequence[ScoredGroup]) -> Iterator[Update]:
        for made in plain(self, groups):
            if made.of == of:
                count.append(1)
            yield spoilt(made) if made.of == of and len(count) == update else made

    monkeypatch.setattr(learner, "updates", updates)


class TestNotFinite:
    def test_one_bad_batch_is_left_out(self, recipes: dict[str, Path], poison: Poison) -> None:
        """The weights after a skipped step are those of before it, the optimizer's state too: all
        that is left of the step is its place in the schedule."""
        poison(recipes["sft"], [3, 6])
        recipe = load_recipe(recipes["sft"], [*LONG, "run.save_every=1", "run.keep_checkpoints=9"])
        with pytest.warns(UserWarning, match="step 3 made no update, for it is not finite: loss"):
            run = train(recipe).parent
        for name in ("model.safetensors", "optimizer.safetensors"):
            before, after = (load_file(run / f"checkpoint-{n}" / name) for n in (2, 3))
            assert all(torch.equal(before[key], after[key]) for key in before)
        rows = metrics(run)
        assert [row["step"] for row in rows] == list(range(1, 11))
        assert [row["step"] for row in rows if "skipped/nonfinite" in row] == [3, 6]
        assert "loss" not in rows[2], "a NaN in the log would silence the alarms' medians"
        assert not list(run.glob("nonfinite-*"))

    def test_too_many_go_back_and_on_with_other_records(
        self, recipes: dict[str, Path], poison: Poison, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Steps 5 and 6 are bad: back to checkpoint 4, on with the records of steps 7, 8, 9, 10,
        1, 2. A run that is given its records in this order from the start is the same."""
        recipe = load_recipe(recipes["sft"], [*LONG, "output=runs/planned"])
        draw = DataMixture.draw
        planned = [0, 1, 2, 3, 6, 7, 8, 9, 0, 1]

        def as_planned(self: DataMixture, step: int, round_: int = 0) -> DrawnRecords:
            return draw(self, planned[step], round_)

        with monkeypatch.context() as patched:
            patched.setattr(DataMixture, "draw", as_planned)
            expected = train(recipe)
        poison(recipes["sft"], [5, 6])
        with pytest.warns(UserWarning, match="back to checkpoint-4, and on with the records after"):
            final = train(load_recipe(recipes["sft"], [*LONG, "output=runs/met"]))
        assert same(weights(final), weights(expected))
        assert metrics(final.parent) == metrics(expected.parent), "each step stands there once"

    @pytest.mark.parametrize("bad", [[3], [5, 6]])
    def test_killed_and_resumed_is_bit_identical(
        self, bad: list[int], recipes: dict[str, Path], poison: Poison
    ) -> None:
        poison(recipes["sft"], bad)
        whole = train(load_recipe(recipes["sft"], [*LONG, "output=runs/whole"]))
        recipe = load_recipe(recipes["sft"], [*LONG, "output=runs/parts"])
        for step in (3, 5, 7):  # a skip, the step before going back, and after it
            break_off(recipe, step, resume=step > 3)
        parts = train(recipe, resume=True)
        assert same(weights(whole), weights(parts))
        assert metrics(whole.parent) == metrics(parts.parent)

    def test_a_second_time_stops_with_the_batch(
        self, recipes: dict[str, Path], poison: Poison
    ) -> None:
        poison(recipes["sft"], [5, 6, 7, 8])
        recipe = load_recipe(recipes["sft"], LONG)
        with pytest.raises(NotFiniteError, match="going back to a checkpoint did not help") as met:
            train(recipe)
        (saved,) = Path(recipe.output).glob("nonfinite-step-*/batch.jsonl")
        assert str(saved) in str(met.value)
        said, *records = [json.loads(line) for line in saved.read_text().splitlines()]
        assert said == {"step": 6, "not_finite": ["loss of forward 1 of 1: nan"]}
        rows = Path(recipe.data[0].path).read_text().splitlines()
        drawn = order(recipe.seed, len(rows)).draw(7).own  # two on from step 6
        assert [r["origin"].rsplit(":")[-1] for r in records] == [str(i + 1) for i in drawn]
        for record, i in zip(records, drawn, strict=True):
            assert json.loads(rows[i])["completion"][0]["content"] in record["branches"][0]

    def test_without_a_checkpoint_it_stops_at_once(
        self, recipes: dict[str, Path], poison: Poison
    ) -> None:
        poison(recipes["sft"], [1, 2])
        with pytest.raises(NotFiniteError, match="there is no checkpoint to go back to"):
            train(load_recipe(recipes["sft"], LONG))

    def test_online_samples_are_saved(self, recipes: dict[str, Path]) -> None:
        """A learning rate that blows the weights up: the weights are named first."""
        options = ["run.skip_nonfinite=0", "optim.schedule=constant", "optim.warmup_ratio=0"]
        recipe = load_recipe(recipes["grpo"], [*options, "objective.beta=1e38"])
        with pytest.raises(NotFiniteError, match="no checkpoint to go back to"):
            train(recipe)
        (saved,) = Path(recipe.output).glob("nonfinite-step-*/batch.jsonl")
        _, *records = [json.loads(line) for line in saved.read_text().splitlines()]
        assert len(records) == 16, "4 prompts, 4 completions each"
        assert all("tasks.jsonl:" in r["origin"] and r["reward"] is not None for r in records)

    def test_a_later_mini_batch_says_what_was_learnt_before_it(
        self, recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Planted: the second of two mini-batches of step 2 is NaN, so half of it is learnt."""
        options = ["objective={mini_batches: 2}", "run.steps=3", "run.save_every=1",
                   "run.keep_checkpoints=9", "optim.warmup_ratio=0"]  # fmt: skip
        plant_nan(monkeypatch, PolicyGradient, update=4)
        told = (
            "step 2 made 1 update of the policy and left out the rest, which is not finite: "
            "loss of forward 1 of"
        )
        with pytest.warns(UserWarning, match=told):
            run = train(load_recipe(recipes["grpo"], options)).parent
        before, after = (weights(run / f"checkpoint-{n}") for n in (1, 2))
        assert any(not torch.equal(before[name], after[name]) for name in before)
        rows = metrics(run)
        assert [row.get("nonfinite/updates_before") for row in rows] == [None, 1.0, None]
        assert [row.get("skipped/nonfinite") for row in rows] == [None, 1.0, None]

    def test_a_critic_that_is_not_finite_after_the_policy_stepped(
        self, recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant_nan(monkeypatch, PolicyGradient, update=1, of="critic")
        told = (
            "step 1 made 1 update of the policy and 0 of the critic and left out the rest, which "
            "is not finite: the critic's loss of forward 1 of"
        )
        with pytest.warns(UserWarning, match=told):
            train(load_recipe(recipes["ppo"], ["run.steps=2"]))

    def test_a_first_mini_batch_made_no_update(
        self, recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant_nan(monkeypatch, PolicyGradient, update=1)
        options = ["objective={mini_batches: 2}", "run.steps=2"]
        with pytest.warns(UserWarning, match="step 1 made no update, for it is not finite: loss"):
            run = train(load_recipe(recipes["grpo"], options)).parent
        assert "nonfinite/updates_before" not in metrics(run)[0]

    def test_from_the_command_line(self, recipes: dict[str, Path]) -> None:
        """Weights that a wild learning rate made infinite: exit code 1, no traceback."""
        given = ["optim.learning_rate=1e38", "optim.warmup_ratio=0", "run.save_every=1"]
        done = strop("train", recipes["sft"], *sets(*given))
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        for part in ("not finite", "batch.jsonl", "optim.learning_rate", "run.skip_nonfinite"):
            assert part in done.stderr.replace("\n", ""), done.stderr


class TestSpikes:
    """Fault 9."""

    @pytest.mark.parametrize(
        ("name", "usual", "spiked"), [("grad_norm", 1.0, 50.0), ("kl", 0.01, 2.0)]
    )
    def test_a_planted_spike_rings_after_three_steps(
        self, name: str, usual: float, spiked: float
    ) -> None:
        alarm = {"grad_norm": "spike", "kl": "kl_runaway"}[name]
        watch = AlarmWatch(PolicyAlarms())
        rung = [
            (step, found.name)
            for step in range(1, 41)
            for found in watch.see({"step": step, name: spiked if step > 30 else usual})
        ]
        assert rung == [(33, alarm)], "patience 3, and nothing before"

    def test_a_run_whose_policy_runs_away_rings(self, recipes: dict[str, Path]) -> None:
        options = ["optim.learning_rate=0.05", "optim.warmup_ratio=0", "run.steps=8",
                   "objective.beta=0.001", "alarms.kl_runaway=stop"]  # fmt: skip
        with pytest.raises(TrainingError, match="kl_runaway at step"):
            train(load_recipe(recipes["grpo"], options))


class TestMemory:
    """Fault 16."""

    @pytest.mark.parametrize(
        "error",
        [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
         RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")],
    )  # fmt: skip
    def test_says_the_shape_and_goes_on_with_smaller_forwards(
        self, error: Exception, recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = train(load_recipe(recipes["sft"], ["output=runs/whole", "eval=null"]))
        plain = SupervisedMethod.update
        taken: list[int] = []

        def full(self: SupervisedMethod, indices: Sequence[int]) -> Update:
            taken.append(1)
            if len(taken) == 4:
                raise error
            return plain(self, indices)

        recipe = load_recipe(recipes["sft"], ["eval=null"])
        with monkeypatch.context() as patched:
            patched.setattr(SupervisedMethod, "update", full)
            with pytest.raises(TrainingError) as met:
                train(recipe)
        said = str(met.value)
        assert re.search(r"out of memory with 4 trees, \d+ tokens, the longest \d+ \(", said)
        assert "lower run.micro_batch_tokens (150) or set model.gradient_checkpointing" in said
        smaller = load_recipe(recipes["sft"], ["run.micro_batch_tokens=60", "eval=null"])
        resumed = weights(train(smaller, resume=True))
        assert [row["step"] for row in metrics(Path(recipe.output))] == [1, 2, 3, 4, 5, 6]
        for name, tensor in weights(whole).items():
            assert torch.allclose(tensor, resumed[name], atol=1e-6), name

    def test_another_runtime_error_is_not_memory(
        self, recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def raises(*_: Any) -> Update:
            raise RuntimeError("shapes do not match")

        monkeypatch.setattr(SupervisedMethod, "update", raises)
        with pytest.raises(RuntimeError, match="shapes do not match"):
            train(load_recipe(recipes["sft"]))

    def test_what_torch_says_on_this_machine(self) -> None:
        told = pytest.raises(TrainingError, match="step 1: out of memory with two trees")
        with told, explained("step 1", lambda: "two trees", "it"):
            torch.empty(2**55, dtype=torch.float32)
