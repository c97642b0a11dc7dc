"""Trains a scalar head to score chosen answers above rejected ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from strop.distributed.world import Counts
from strop.errors import DataError
from strop.losses.metrics import Mean, Metric
from strop.losses.reduce import Loss, mean_of
from strop.losses.reward_model import bradley_terry
from strop.model.network import ScalarNetwork
from strop.recipe.train.offline import RewardModelRecipe
from strop.text.trees import Rendered
from strop.train.loop.micro_batches import MicroBatch, forward_tokens, micro_batches
from strop.train.loop.updater import MicroBatchLoss, Update
from strop.types import Preference, Tree

BINS = 10
"""Bins of predicted probability in the calibration error."""


class RewardModelMethod:
    """Bradley-Terry over preference trees; `margin_P` says how much better each chosen answer is
    (None: no margins)."""

    def __init__(
        self,
        recipe: RewardModelRecipe,
        network: ScalarNetwork,
        trees: Sequence[Tree],
        margin_P: torch.Tensor | None,
    ) -> None:
        self.recipe, self.network, self.trees, self.margin_P = recipe, network, trees, margin_P
        self.max_tokens = forward_tokens(recipe.run, network)

    def update(self, indices: Sequence[int]) -> Update:
        """The step's loss over these pairs, in forwards of at most `max_tokens` tokens."""
        chosen = list(indices)
        margin_P = None if self.margin_P is None else self.margin_P[chosen]
        cut = list(micro_batches([self.trees[i] for i in chosen], self.max_tokens))

        def losses(counts: Counts) -> list[MicroBatchLoss]:
            return [partial(self._loss, batch, margin_P, counts["pairs"]) for batch in cut]

        return Update({"pairs": len(chosen)}, losses, [batch.trees for batch in cut])

    def finish(self, row: dict[str, float], *, learnt: bool) -> dict[str, float]:
        """The step's metrics, calibration bins folded into one error."""
        kept = {name: value for name, value in row.items() if "/bin" not in name}
        return {**kept, "calibration/ece": expected_calibration_error(row)}

    def _loss(self, batch: MicroBatch, margin_P: torch.Tensor | None, pairs: float) -> Loss:
        with self.network.arithmetic():
            scores_B = self.network.score.finals(batch.trees)
        chosen, rejected = scores_B[0::2], scores_B[1::2]
        here = slice(batch.branches.start // 2, batch.branches.stop // 2)
        margin = None if margin_P is None else margin_P[here].to(scores_B.device)
        loss_P = bradley_terry(
            chosen, rejected, margin_B=margin, centering=self.recipe.objective.centering
        )
        return Loss(loss_P.sum() / pairs, _metrics(chosen.detach(), rejected.detach()))


def _metrics(chosen: torch.Tensor, rejected: torch.Tensor) -> dict[str, Metric]:
    gap = chosen - rejected
    metrics: dict[str, Metric] = {
        "rewards/chosen": mean_of(chosen),
        "rewards/rejected": mean_of(rejected),
        "rewards/margins": mean_of(gap),
        "rewards/accuracies": mean_of((gap > 0).float()),
        "rewards/mean": mean_of((chosen + rejected) / 2),
        "calibration/brier": mean_of((1 - gap.sigmoid()).square()),
    }
    confident, right = gap.abs().sigmoid(), (gap > 0).float()
    which = ((confident - 0.5) * 2 * BINS).long().clamp(max=BINS - 1)
    for bin_ in range(BINS):
        here = which == bin_
        metrics[f"calibration/bin{bin_}/confidence"] = mean_of(confident[here])
        metrics[f"calibration/bin{bin_}/accuracy"] = mean_of(right[here])
        metrics[f"calibration/bin{bin_}/share"] = Mean(here.sum().double(), len(gap))
    return metrics


def expected_calibration_error(row: dict[str, float]) -> float:
    """Mean over pairs of |confidence - accuracy| of their bin (Guo et al. 2017, arXiv 1706.04599).

    Confidence is the likelier answer's probability under Bradley-Terry, in ten bins from 1/2 to 1.
    """
    error = 0.0
    for bin_ in range(BINS):
        name = f"calibration/bin{bin_}"
        share = row.get(f"{name}/share", 0.0)
        if share > 0:
            error += share * abs(row[f"{name}/confidence"] - row[f"{name}/accuracy"])
    return error


def margins_of(rendered: Rendered, column: str) -> list[float]:
    """The margin of every pair; raises `DataError` naming a line without a number in `column`."""
    margins = []
    for record in rendered.records:
        assert isinstance(record, Preference)
        value = record.columns.get(column)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            problem = f"is {value!r}" if column in record.columns else "is missing"
            raise DataError(
                f"`{column}` {problem}, but objective.margin reads it as a number from 0 up",
                where=str(record.origin),
                fix="write how much better the chosen answer is, or drop objective.margin",
            )
        margins.append(float(value))
    return margins
