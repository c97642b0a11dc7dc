"""strop's side: the loop that `strop train` runs, and its embedded sampler."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.profiler import ProfilerActivity

from benchmarks.cases import Entrant, Run
from benchmarks.limit import Work, matmul_rate, sampling_flops, training_flops, work_of
from benchmarks.sides import (
    REWARDS,
    Answers,
    Batch,
    OnStep,
    Place,
    Step,
    learning_rate,
)
from benchmarks.worker import settle
from strop.cli.show import setup
from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Sampling, in_groups, requests_of
from strop.engines.local.engine import LocalEngine
from strop.model.load import load_for_inference
from strop.model.network import Policy
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.online import PolicyRecipe
from strop.rollout.collect import carries_no_gradient
from strop.tracking.phases import Phase, Stopwatch
from strop.train.build import build_loop, build_state
from strop.train.loop.micro_batches import forward_tokens
from strop.train.loop.optim import Optimizers
from strop.train.loop.state import TrainState
from strop.train.loop.updater import Updater
from strop.train.methods.policy_gradient import PolicyBatch, PolicyGradient
from strop.train.preflight.prepare import prepare
from strop.train.preflight.prepared import PreparedOffline
from strop.types import (
    Completion,
    Origin,
    Rollout,
    Score,
    ScoredGroup,
    StepRecord,
    Task,
    Tree,
)

PROFILE = "profile.txt"
"""Where a side's folder says which kernels took longest."""

SAMPLING: tuple[Phase, ...] = ("sampling", "reward")

KERNELS = 20


@contextmanager
def traces(path: Path) -> Iterator[None]:
    """Write the kernels (on a processor the operations) that took longest inside."""
    device = torch.cuda.is_available()
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device else [])]
    with torch.profiler.profile(activities=kinds) as traced:
        yield
    by = "self_device_time_total" if device else "self_cpu_time_total"
    path.write_text(traced.key_averages().table(sort_by=by, row_limit=KERNELS))


class StropTrainer:
    """A recipe's steps, one after the other."""

    def __init__(self, run: Run, entrant: Entrant, place: Place) -> None:
        self.spec, self.entrant, self.place = run, entrant, place
        self.watch = Stopwatch()

    def load(self) -> None:
        setup()
        path = self.place.scratch / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe_of(self.spec, self.place)))
        self.recipe = load_recipe(path, list(self.entrant.options))
        self.prepared = prepare(self.recipe, resume=False, overwrite=True, force=True)
        self.prepared.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        self.state = build_state(self.recipe, self.recipe.model)
        self.work = work_of(_policy(self.state).score.causal_lm)
        self.groups: tuple[ScoredGroup, ...] = ()
        self.steps, _ = build_loop(self.state, self.prepared)
        self.answers: Answers = {"rate": self.rate, "check": self._check}

    def _check(self, batch: Batch) -> Step:
        """TRL's samples learnt from the weights of step 1, which stay as they are."""
        assert isinstance(self.recipe, PolicyRecipe)
        policy = _policy(self.state)
        frozen = Optimizers([torch.optim.SGD(policy.trainable(), lr=0.0)])
        state = TrainState(policy, frozen)
        learner = PolicyGradient(self.recipe, state, policy, None)
        updater = Updater(state, self.recipe.optim.max_grad_norm)
        (update,) = learner.updates([_groups(batch, self.spec.case.group)])
        metrics = updater.step(update, learning_rate=0.0, where="the check")
        return Step(metrics["loss"].result(), metrics["grad_norm"].result())

    def rate(self, clock: Callable[[], float] = time.perf_counter) -> float:
        """What bare products do a second, by this clock."""
        rows = forward_tokens(self.recipe.run, _policy(self.state))
        return matmul_rate(_policy(self.state).score.causal_lm, rows, self.spec.bfloat16, clock)

    def run(self, on_step: OnStep) -> None:
        if isinstance(self.recipe, PolicyRecipe):
            self._watch()
        for number in range(self.spec.steps):
            traced = self.entrant.profiled and number == self.spec.steps - 1
            self.watch.spent.clear()
            with traces(self.place.scratch / PROFILE) if traced else nullcontext():
                with self.watch.running():
                    record = next(self.steps)
                settle()
            spent = [self.watch.spent[p].seconds for p in SAMPLING if p in self.watch.spent]
            on_step(partial(self._described, record, sum(spent)))

    def _described(self, record: StepRecord, sampling: float) -> Step:
        row = record.metrics
        online = isinstance(self.recipe, PolicyRecipe)
        return Step(
            # a step whose groups all agree has no loss at all
            loss=row.get("loss", 0.0),
            grad_norm=row.get("grad_norm", 0.0),
            tokens=int(row["num_tokens"]),
            flops=self._online_flops() if online else self._offline_flops(record.step - 1),
            sampling=sampling,
        )

    def _watch(self) -> None:
        """Keep each step's scored groups for the count of operations."""
        original = PolicyGradient.prepare

        def watched(learner: PolicyGradient, groups: Sequence[ScoredGroup]) -> PolicyBatch:
            self.groups = tuple(groups)
            return original(learner, groups)

        PolicyGradient.prepare = watched  # type: ignore[method-assign, assignment]

    def _offline_flops(self, number: int) -> float:
        assert isinstance(self.prepared, PreparedOffline)
        trees = self.prepared.rendered.trees
        drawn = self.prepared.mixture.draw(number).own
        return training_flops(self.work, [trees[i] for i in drawn], frozen=self.spec.lora)

    def _online_flops(self) -> float:
        return sampling_flops(self.work, map(_lengths, self.groups)) + self.update_flops()

    def update_flops(self) -> float:
        """What cannot be avoided of an online step when its answers are there."""
        learnt = [group for group in self.groups if not carries_no_gradient(group)]
        return training_flops(self.work, map(_tree, learnt), frozen=self.spec.lora)


class StropSampler:
    """The embedded sampler alone."""

    def __init__(self, run: Run, entrant: Entrant, place: Place) -> None:
        self.spec, self.place = run, place

    def load(self) -> None:
        setup()
        self.policy = load_for_inference(self.place.model)
        if self.spec.bfloat16:
            self.policy.model.to(torch.bfloat16)
        self.engine = LocalEngine(self.place.model, self.policy)
        self.prompts = read_prompts(self.spec, self.place, self.policy.tokenizer)
        self.answers: Answers = {"rate": self.rate}

    def rate(self, clock: Callable[[], float] = time.perf_counter) -> float:
        """What bare products do a second, by this clock."""
        rows = self.spec.case.batch * self.spec.case.group
        return matmul_rate(self.policy.score.causal_lm, rows, self.spec.bfloat16, clock)

    def run(self, on_step: OnStep) -> None:
        case, work = self.spec.case, work_of(self.policy.score.causal_lm)
        sampling = Sampling(max_tokens=case.answer[1])
        for step in range(self.spec.steps):
            prompts = self.prompts[step * case.batch : (step + 1) * case.batch]
            asked = [
                PromptedTask(Task("", {}, Origin("", n)), ids) for n, ids in enumerate(prompts)
            ]
            requests = requests_of(asked, sampling, DrawKey(0, "training", step), case.group)
            made = in_groups(self.engine.generate(requests), case.group)
            on_step(partial(self._described, work, prompts, made, step))

    def _described(
        self,
        work: Work,
        prompts: Sequence[tuple[int, ...]],
        made: Sequence[tuple[Completion, ...]],
        step: int,
    ) -> Step:
        flat = [c for group in made for c in group]
        groups = [(len(p), [len(c.ids) for c in g]) for p, g in zip(prompts, made, strict=True)]
        shown = Batch(
            [list(p) for p in prompts for _ in range(self.spec.case.group)],
            [list(c.ids) for c in flat], [], [list(c.sampler_logprobs()) for c in flat],
        )  # fmt: skip
        return Step(
            tokens=sum(len(c.ids) for c in flat),
            flops=sampling_flops(work, groups),
            batch=shown if step == 0 else None,
        )


def recipe_of(run: Run, place: Place) -> dict[str, Any]:
    """The run as a user would write it."""
    case, online = run.case, run.case.kind == "grpo"
    lora = {"lora": {"rank": 16, "alpha": 32.0}} if run.lora else {}
    recipe: dict[str, Any] = {
        "method": case.kind,
        "output": str(place.scratch / "run"),
        "model": {"path": place.model, "dtype": "bfloat16" if run.bfloat16 else "float32", **lora},
        "data": str(place.data),
        "text": {"max_length": 8192 if case.data == "real" else 16384},
        "optim": {
            "learning_rate": learning_rate(case),
            "schedule": "constant",
            "warmup_ratio": 0.0,
        },
        "run": {"steps": run.steps, "batch_size": case.batch},
    }
    if run.forward_tokens is not None:
        recipe["run"]["micro_batch_tokens"] = run.forward_tokens
    if case.kind in ("dpo", "kto"):
        recipe["objective"] = {"beta": 0.1}
    if online:
        recipe["rollout"] = {"group_size": case.group, "max_tokens": case.answer[1]}
        if run.bfloat16:
            # random weights have no likely words, so rounding moves their log-probs most
            recipe["rollout"]["mismatch_limit"] = 1.0
        here = Path(__file__).parent
        recipe["reward"] = [
            {**r, "file": str(here / r["file"])} if "file" in r else r for r in REWARDS[case.data]
        ]
    return recipe


def read_prompts(run: Run, place: Place, tokenizer: Any) -> list[tuple[int, ...]]:
    """Every prompt of the run's records as ids."""
    rows = [json.loads(line) for line in place.data.open()]
    texts = tokenizer.apply_chat_template(
        [row["prompt"] for row in rows], tokenize=False, add_generation_prompt=True
    )
    return [tuple(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def _policy(state: TrainState) -> Policy:
    assert isinstance(state.network, Policy)
    return state.network


def _groups(batch: Batch, size: int) -> list[ScoredGroup]:
    groups = []
    for first in range(0, len(batch.completions), size):
        members = range(first, first + size)
        completions = tuple(
            Completion.one_turn(
                tuple(batch.completions[i]), "", (0.0,) * len(batch.completions[i]), "stop"
            )
            for i in members
        )
        task = Task("", {}, Origin("trl", first))
        rollout = Rollout(task, tuple(batch.prompts[first]), completions)
        groups.append(ScoredGroup(rollout, tuple(Score(batch.rewards[i], {}) for i in members)))
    return groups


def _lengths(group: ScoredGroup) -> tuple[int, list[int]]:
    return len(group.rollout.prompt_ids), [len(c.ids) for c in group.rollout.completions]


def _tree(group: ScoredGroup) -> Tree:
    return Tree(group.rollout.prompt_ids, tuple(c.branches()[0] for c in group.rollout.completions))
