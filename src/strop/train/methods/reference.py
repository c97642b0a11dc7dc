"""Reference log-probs of an offline run: computed once, before the first step, kept on disk.

Before the first step the policy *is* the reference, so no second model is ever loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from strop.model.logprobs import eval_mode
from strop.model.network import Policy
from strop.train.loop.micro_batches import micro_batches
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
    with torch.no_grad(), eval_mode(policy.model), policy.arithmetic():
        rows = [read(policy.score(b.trees)).cpu() for b in micro_batches(trees, max_tokens)]
    scores_B = torch.cat(rows)
    save_file({"scores_B": scores_B}, path, metadata={"key": key})
    return scores_B


def trees_hash(trees: Sequence[Tree]) -> str:
    """Hash of everything a forward reads of these trees, 16 hex digits."""
    digest = hashlib.sha256()
    for tree in trees:
        digest.update(repr((tree.trunk, [(b.ids, b.supervised) for b in tree.branches])).encode())
    return digest.hexdigest()[:16]


def _cached(path: Path, key: str) -> torch.Tensor | None:
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        if file.metadata().get("key") != key:
            return None
        scores_B: torch.Tensor = file.get_tensor("scores_B")
    return scores_B
