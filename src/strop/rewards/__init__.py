"""Rewards: plain functions `f(prompts, completions, **columns) -> list[float | None]`."""
