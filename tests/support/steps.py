"""A step of a method by hand: its updates made, its losses looked at."""

from __future__ import annotations

from collections.abc import Sequence

from strop.losses.metrics import Metric, merge, results
from strop.train.loop.offline import OfflineMethod
from strop.train.loop.online import Learner
from strop.train.loop.state import TrainState
from strop.train.loop.updater import MicroBatchLoss, Updater
from strop.types import ScoredGroup


def learn(
    learner: Learner,
    state: TrainState,
    groups: Sequence[ScoredGroup],
    rate: float = 0.0,
    *,
    mini_batches: int = 1,
) -> dict[str, float]:
    """All updates that a learner makes of these groups; what they log."""
    size = len(groups) // mini_batches
    parts = [groups[i * size : (i + 1) * size] for i in range(mini_batches)]
    updater, metrics = Updater(state, 1e9), dict[str, Metric]()
    for update in learner.updates(parts):
        metrics = merge(metrics, updater.step(update, learning_rate=rate, where="step 1"))
    return results(metrics)


def losses_of(method: OfflineMethod, indices: Sequence[int]) -> Sequence[MicroBatchLoss]:
    """The micro-batches' losses of a step in one process."""
    update = method.update(indices)
    return update.losses(update.counts)
