"""The optimizer and its learning-rate schedule."""

from __future__ import annotations

import math

import torch

from strop.model.load import Policy
from strop.recipe.run import OptimRecipe


def build_optimizer(policy: Policy, recipe: OptimRecipe) -> torch.optim.AdamW:
    """AdamW over the trained parameters; biases and norms are not decayed."""
    decayed = [p for p in policy.trainable() if p.dim() > 1]
    plain = [p for p in policy.trainable() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=recipe.learning_rate,
        betas=recipe.betas,
        fused=True,
    )


def learning_rate(recipe: OptimRecipe, step: int, total: int) -> float:
    """The rate of optimizer step `step` (from 0) out of `total`.

    Rises linearly over the warm-up, then follows the schedule down to `final_ratio`. The first
    step already has a rate above 0, and so does the last unless `final_ratio` is 0 and it is the
    very end of the curve.
    """
    warmup = round(recipe.warmup_ratio * total)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    remaining = {
        "constant": 1.0,
        "linear": 1.0 - done,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
    }[recipe.schedule]
    return recipe.learning_rate * (recipe.final_ratio + (1.0 - recipe.final_ratio) * remaining)
