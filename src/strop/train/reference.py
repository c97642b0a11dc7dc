"""Reference log-probs of an offline run: computed once, before the first step, kept on disk.

Before the first step the policy *is* the reference, so no second model is ever loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from strop.model.network import Policy
from strop.train.step import pieces
from strop.types import TokenScores, Tree


def reference_scores(
    policy: Policy,
    trees: Sequence[Tree],
    read: Callable[[TokenScores], torch.Tensor],
    *,
    path: Path,
    key: str,
    max_tokens: int,
) -> torch.Tensor:
    """`read(scores)` of every branch of `trees`, in order, shape [B, ...] float32.

    Taken from `path` when that file was written under the same `key` (model, data and what is
    read).
    """
    cached = _cached(path, key)
    if cached is not None:
        return cached
    training = policy.model.training
    policy.model.eval()
    with torch.no_grad(), policy.arithmetic():
        rows = [read(policy.score(piece.trees)).cpu() for piece in pieces(trees, max_tokens)]
    policy.model.train(training)
    scores_B = torch.cat(rows)
    save_file({"scores_B": scores_B}, path, metadata={"key": key})
    return scores_B


def _cached(path: Path, key: str) -> torch.Tensor | None:
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        if file.metadata().get("key") != key:
            return None
        scores_B: torch.Tensor = file.get_tensor("scores_B")
    return scores_B
