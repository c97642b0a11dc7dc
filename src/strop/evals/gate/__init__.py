"""The gate decides whether a candidate may replace its base."""

from strop.evals.gate.judge import EXIT_CODES, gate

__all__ = ["EXIT_CODES", "gate"]
