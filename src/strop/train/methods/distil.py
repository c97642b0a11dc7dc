"""Distillation on records: a teacher's distribution at every supervised token of an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from strop.distributed.world import Counts
from strop.engines.draws import DrawKey, uniforms
from strop.engines.engine import PromptedTask, Request, Sampling
from strop.engines.local.engine import LocalEngine
from strop.losses import distillation
from strop.losses.metrics import Mean, Metric, Sum
from strop.losses.reduce import Loss, mean_of
from strop.model.logprobs import Head
from strop.model.network import Policy
from strop.model.sharding import whole_weights
from strop.model.teacher import Compare
from strop.recipe.train.distillation import DistilRecipe, GkdRecipe
from strop.text.trees import Rendered
from strop.tracking.phases import phase
from strop.train.loop.micro_batches import MicroBatch, forward_tokens, micro_batches
from strop.train.loop.state import TrainState
from strop.train.loop.updater import MicroBatchLoss, Update
from strop.train.teachers.build import Teaching
from strop.types import Completion, Demonstration, Task, Tree

DIVERGENCES: dict[str, Callable[..., torch.Tensor]] = {
    "forward_kl": distillation.forward_kl,
    "reverse_kl": distillation.reverse_kl,
    "generalized_js": distillation.generalized_js,
    "skewed_forward_kl": distillation.skewed_forward_kl,
    "skewed_reverse_kl": distillation.skewed_reverse_kl,
}


@dataclass(frozen=True, slots=True)
class Lesson:
    """How a student is compared: `Lesson(teaching, policy, forward_kl, temperature=1.0)`."""

    teaching: Teaching
    policy: Policy
    compare: Compare
    temperature: float

    def update(
        self,
        trees: Sequence[Tree],
        records: Sequence[Demonstration],
        max_tokens: int,
        metrics: dict[str, Metric],
    ) -> Update:
        """The step's loss over these answers: the mean divergence of their supervised tokens."""
        tokens = sum(sum(branch.supervised) for tree in trees for branch in tree.branches)
        cut = list(micro_batches(trees, max_tokens))
        owners = iter(records)
        asked = [[next(owners) for _ in batch.trees] for batch in cut]

        def losses(counts: Counts) -> list[MicroBatchLoss]:
            return [
                partial(self._loss, batch, of, counts) for batch, of in zip(cut, asked, strict=True)
            ]

        return Update({"tokens": tokens}, losses, [batch.trees for batch in cut], metrics)

    def _loss(self, batch: MicroBatch, asked: Sequence[Demonstration], counts: Counts) -> Loss:
        rows = self.teaching.whole().rows(self.teaching.trees(batch.trees, asked))
        head = Head(against=rows.against(self.compare, self.temperature))
        with self.policy.arithmetic():
            scores = self.policy.score(batch.trees, head)
        loss_N = scores.divergence_N
        assert loss_N is not None
        metrics: dict[str, Metric] = {
            "num_tokens": Sum(len(loss_N)),
            "entropy": mean_of(scores.entropy_N),
            "teacher/divergence": mean_of(loss_N),
        }
        return Loss(loss_N.sum() / counts["tokens"], metrics)


class DistilMethod:
    """Given answers alone; the step's denominator is its number of supervised tokens."""

    def __init__(
        self, recipe: DistilRecipe, policy: Policy, rendered: Rendered, teaching: Teaching
    ) -> None:
        objective = recipe.objective
        compare = partial(DIVERGENCES[objective.divergence], **objective.loss_options())
        self.lesson = Lesson(teaching, policy, compare, objective.temperature)
        self.rendered, self.trees = rendered, rendered.trees
        self.max_tokens = forward_tokens(recipe.run, policy)

    def update(self, indices: Sequence[int]) -> Update:
        """The step's loss over these records, in forwards of at most `max_tokens` tokens."""
        trees = [self.trees[i] for i in indices]
        return self.lesson.update(
            trees, demonstrations(self.rendered, indices), self.max_tokens, {}
        )

    def finish(self, row: dict[str, float], *, learnt: bool) -> dict[str, float]:
        """The step's metrics as they are; nothing is carried from step to step."""
        return row


class GkdMethod:
    """Given answers, and in a share of the records the student's own answer to the same prompt.

    Agarwal et al. 2023 (GKD, arXiv 2306.13649, algorithm 1) draw once for a whole batch; here every
    record draws for itself, which has the same expectation and varies less. They take the mean of
    each answer's tokens first; here all tokens of a step count alike, as in TRL. No gradient goes
    through the sampling, as in the paper. A prompt without room for an answer keeps its given one.
    """

    def __init__(
        self,
        recipe: GkdRecipe,
        state: TrainState,
        policy: Policy,
        rendered: Rendered,
        teaching: Teaching,
        *,
        samples: bool,
    ) -> None:
        objective = recipe.objective
        compare = partial(distillation.generalized_js, beta=objective.beta)
        self.lesson = Lesson(teaching, policy, compare, objective.temperature)
        self.recipe, self.state, self.policy = recipe, state, policy
        self.rendered, self.trees = rendered, rendered.trees
        self.max_tokens = forward_tokens(recipe.run, policy)
        self.share = objective.own_samples if samples else 0.0
        self.engine = LocalEngine(recipe.model.path, policy)

    def update(self, indices: Sequence[int]) -> Update:
        """The step's loss over these records; samples own answers with the weights as they are."""
        trees = {i: self.trees[i] for i in indices}
        own = [i for i in dict.fromkeys(indices) if self._samples(i) and self._room(trees[i]) > 0]
        metrics: dict[str, Metric] = {}
        if self.share:
            with phase("sampling"), whole_weights(self.policy):
                answers = self._answers(own)
            metrics = _about(answers.values(), len(indices))
            trees |= {i: replace(trees[i], branches=said.branches()) for i, said in answers.items()}
        records = demonstrations(self.rendered, indices)
        return self.lesson.update([trees[i] for i in indices], records, self.max_tokens, metrics)

    def finish(self, row: dict[str, float], *, learnt: bool) -> dict[str, float]:
        """The step's metrics as they are; nothing is carried from step to step."""
        return row

    def _samples(self, record: int) -> bool:
        """Whether the student answers this record in this step: a pure function of both."""
        key = DrawKey(self.recipe.seed, "distil", self.state.step, index=record)
        return float(uniforms(key, 1)[0]) < self.share

    def _room(self, tree: Tree) -> int:
        left = self.recipe.text.max_length - len(tree.trunk)
        return min(self.recipe.rollout.max_tokens, left)

    def _answers(self, own: Sequence[int]) -> dict[int, Completion]:
        """The student's answers to the prompts of these records."""
        wanted, step = self.recipe.rollout, self.state.step
        requests = []
        for i in own:
            tree, record = self.trees[i], self.rendered.records[i]
            assert isinstance(record, Demonstration)
            task = Task(record.prompt, record.columns, record.origin)
            sampling = Sampling(
                wanted.temperature, max_tokens=self._room(tree), stop=tuple(wanted.stop)
            )
            name = ",".join(map(str, tree.trunk))
            key = DrawKey(self.recipe.seed, "training", step, prompt=name, index=i)
            requests.append(Request(PromptedTask(task, tree.trunk), sampling, key))
        return {own[number]: said for number, said in self.engine.generate(requests)}


def demonstrations(rendered: Rendered, indices: Sequence[int]) -> list[Demonstration]:
    """The records of a step, whose columns an informed teacher reads."""
    found = [rendered.records[i] for i in indices]
    kept = [record for record in found if isinstance(record, Demonstration)]
    assert len(kept) == len(found), "these methods train on demonstrations alone"
    return kept


def _about(answers: Any, records: int) -> dict[str, Metric]:
    """Lengths of the student's own answers, and their share of the records."""
    said = list(answers)
    tokens = sum(len(one.ids) for one in said)
    cut = sum(one.finish == "length" for one in said)
    return {
        "own_samples": Mean(float(len(said)), records),
        "completions/mean_length": Mean(float(tokens), len(said)),
        "completions/clipped_ratio": Mean(float(cut), len(said)),
    }
