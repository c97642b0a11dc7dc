"""Metrics that can be merged over micro-batches.

`merge` combines the micro-batches of a step, so that a step's metric is the same whether it was
computed in one piece or in eight. Totals stay tensors on their device until `results` fetches them
all at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

Total = float | torch.Tensor
"""A number, or a scalar tensor (float64, so that sums are those of Python's numbers)."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean carried as total and count: `Mean.of(0.5, count=2).result() == 0.5`."""

    total: Total
    count: float

    @classmethod
    def of(cls, value: Total, count: float = 1.0) -> Mean:
        return cls(value * count, count)

    def merge(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.count + other.count)

    def result(self) -> float:
        return float(self.total) / self.count if self.count else float("nan")

    def on_host(self) -> Mean:
        """The same mean as plain numbers, for another process."""
        return Mean(float(self.total), self.count)


@dataclass(frozen=True, slots=True)
class Sum:
    """A total over the step, such as a token count."""

    total: float

    def merge(self, other: Sum) -> Sum:
        return Sum(self.total + other.total)

    def result(self) -> float:
        return self.total

    def on_host(self) -> Sum:
        return self


Metric = Mean | Sum


def merge(left: Mapping[str, Metric], right: Mapping[str, Metric]) -> dict[str, Metric]:
    """Merge two sets of metrics by name; a name in both must have the same reduction."""
    merged = dict(left)
    for name, metric in right.items():
        seen = merged.get(name)
        if seen is None:
            merged[name] = metric
        elif type(seen) is type(metric):
            merged[name] = seen.merge(metric)  # type: ignore[arg-type]
        else:
            raise TypeError(f"metric {name!r} is reduced in two ways: {seen} and {metric}")
    return merged


def results(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The reduced values by name; means of nothing are left out."""
    fetched = _fetched(metrics)
    return {
        name: metric.result()
        for name, metric in fetched.items()
        if not (isinstance(metric, Mean) and metric.count == 0)
    }


def _fetched(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """The same metrics with numbers for totals, in one transfer from each device."""
    totals = {n: m.total for n, m in metrics.items() if isinstance(m.total, torch.Tensor)}
    known: dict[str, float] = {}
    for device in {total.device for total in totals.values()}:
        here = {name: total for name, total in totals.items() if total.device == device}
        known |= zip(here, torch.stack(list(here.values())).tolist(), strict=True)
    return {n: replace(m, total=known[n]) if n in known else m for n, m in metrics.items()}
