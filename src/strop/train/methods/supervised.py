"""Maximum likelihood and its relatives: continued pretraining, SFT, DFT, replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from strop.distributed.world import Counts
from strop.losses.metrics import Metric, Sum
from strop.losses.reduce import Loss, mean_of
from strop.losses.supervised import dft, nll
from strop.model.network import Policy
from strop.train.loop.micro_batches import MicroBatch, micro_batches
from strop.train.loop.updater import MicroBatchLoss, Update
from strop.types import Tree

TOKEN_LOSSES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "cpt": nll,
    "sft": nll,
    "dft": dft,
}


class SupervisedMethod:
    """Token losses over trees; the step's denominator is its number of supervised tokens."""

    def __init__(
        self,
        policy: Policy,
        trees: Sequence[Tree],
        max_tokens: int,
        *,
        loss: Callable[[torch.Tensor], torch.Tensor] = nll,
        prefix: str = "",
    ) -> None:
        self.policy, self.trees, self.max_tokens = policy, trees, max_tokens
        self.loss, self.prefix = loss, prefix

    def update(self, indices: Sequence[int]) -> Update:
        """The step's loss over these records, in forwards of at most `max_tokens` tokens."""
        trees = [self.trees[i] for i in indices]
        tokens = sum(sum(branch.supervised) for tree in trees for branch in tree.branches)
        cut = list(micro_batches(trees, self.max_tokens))

        def losses(counts: Counts) -> list[MicroBatchLoss]:
            return [partial(self._loss, batch, counts) for batch in cut]

        return Update({"tokens": tokens}, losses, [batch.trees for batch in cut])

    def finish(self, row: dict[str, float], *, learnt: bool) -> dict[str, float]:
        """The step's metrics as they are; nothing is carried from step to step."""
        return row

    def _loss(self, batch: MicroBatch, counts: Counts) -> Loss:
        with self.policy.arithmetic():
            scores = self.policy.score(batch.trees)
        loss_N = self.loss(scores.logprobs_N)
        metrics: dict[str, Metric] = {
            "num_tokens": Sum(len(loss_N)),
            "entropy": mean_of(scores.entropy_N),
        }
        named = {f"{self.prefix}{name}": metric for name, metric in metrics.items()}
        if self.prefix:
            named[f"{self.prefix}loss"] = mean_of(loss_N)
        return Loss(loss_N.sum() / counts["tokens"], named)
