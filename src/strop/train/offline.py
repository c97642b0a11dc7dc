"""Learning from records: continued pretraining, supervised fine-tuning, DPO."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from strop.data.order import batch_indices
from strop.losses.reduce import Loss
from strop.metrics.value import Metric, merge, results
from strop.recipe.objective import DpoObjective
from strop.recipe.run import DpoRecipe, Offline
from strop.train.objectives import preference_loss, supervised_loss
from strop.train.optim import learning_rate
from strop.train.step import TrainState, optimizer_step, pieces
from strop.types import StepRecord, TokenScores, Tree


@dataclass(frozen=True, slots=True)
class OfflineData:
    """What an offline run reads: trees, and reference sums per branch where the method uses them.

    `ref_B` follows the branches of `trees` in order, so pair i owns entries 2i and 2i + 1.
    """

    trees: Sequence[Tree]
    ref_B: torch.Tensor | None
    eval_trees: Sequence[Tree] = ()
    eval_ref_B: torch.Tensor | None = None


def total_steps(recipe: Offline, records: int) -> int:
    """Optimizer steps of the whole run."""
    if recipe.run.steps is not None:
        return recipe.run.steps
    assert recipe.run.epochs is not None
    return max(1, round(recipe.run.epochs * records / recipe.run.batch_size))


def train_offline(state: TrainState, recipe: Offline, data: OfflineData) -> Iterator[StepRecord]:
    """Run from `state.step` to the end, one record a step; the caller logs and checkpoints."""
    total = total_steps(recipe, len(data.trees))
    while state.step < total:
        started = time.perf_counter()
        chosen = batch_indices(len(data.trees), recipe.run.batch_size, recipe.seed, state.step)
        trees = [data.trees[i] for i in chosen]
        metrics = optimizer_step(
            state,
            list(pieces(trees, recipe.run.micro_batch_tokens)),
            step_loss(recipe, trees, _rows(data.ref_B, chosen)),
            learning_rate=learning_rate(recipe.optim, state.step, total),
            max_grad_norm=recipe.optim.max_grad_norm,
        )
        row = results(metrics)
        row["epoch"] = state.step * recipe.run.batch_size / len(data.trees)
        row["step_time"] = time.perf_counter() - started
        if recipe.eval and (state.step % recipe.eval.every == 0 or state.step == total):
            row |= evaluate(state, recipe, data)
        yield StepRecord(state.step, total, row)


def step_loss(
    recipe: Offline, trees: Sequence[Tree], ref_B: torch.Tensor | None
) -> Callable[[TokenScores, slice], Loss]:
    """The loss of a piece of this step, denominators counted over the whole step."""
    if isinstance(recipe, DpoRecipe):
        assert ref_B is not None
        return partial(_preference_piece, ref_B, recipe.objective, len(trees))
    tokens = sum(sum(branch.supervised) for tree in trees for branch in tree.branches)
    return partial(_supervised_piece, tokens)


@torch.no_grad()
def evaluate(state: TrainState, recipe: Offline, data: OfflineData) -> dict[str, float]:
    """Loss and metrics on the held-out records, names prefixed `eval_`."""
    loss_of = step_loss(recipe, data.eval_trees, data.eval_ref_B)
    state.policy.model.eval()
    metrics: dict[str, Metric] = {}
    value = 0.0
    for piece in pieces(data.eval_trees, recipe.run.micro_batch_tokens):
        with state.policy.arithmetic():
            loss = loss_of(state.policy.score(piece.trees), piece.branches)
        value += float(loss.value)
        metrics = merge(metrics, loss.metrics)
    state.policy.model.train()
    return {f"eval_{name}": v for name, v in {**results(metrics), "loss": value}.items()}


def _supervised_piece(tokens: int, scores: TokenScores, branches: slice) -> Loss:
    return supervised_loss(scores, tokens=tokens)


def _preference_piece(
    ref_B: torch.Tensor, objective: DpoObjective, pairs: int, scores: TokenScores, branches: slice
) -> Loss:
    ref = ref_B[branches].to(scores.logprobs_N.device)
    return preference_loss(scores, ref, objective, pairs=pairs)


def _rows(ref_B: torch.Tensor | None, chosen: Sequence[int]) -> torch.Tensor | None:
    """Reference sums of the chosen pairs, two a pair, in step order."""
    return None if ref_B is None else ref_B.view(-1, 2)[list(chosen)].flatten()
