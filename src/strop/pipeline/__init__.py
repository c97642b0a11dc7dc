"""Runs stages, evals and gates as one graph: plans, runs, resumes and retries them."""

from strop.pipeline.planning import Planned, plan
from strop.pipeline.run import GateRefused, Observer, Outcome, run_pipeline

__all__ = ["GateRefused", "Observer", "Outcome", "Planned", "plan", "run_pipeline"]
