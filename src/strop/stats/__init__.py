"""The statistics of the gate: pure functions of per-item scores."""

from strop.stats.compare import Comparison, band, noninferiority, superiority

__all__ = ["Comparison", "band", "noninferiority", "superiority"]
