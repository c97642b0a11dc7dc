"""Reference log-probs of an offline run: computed once, before the first step, kept on disk.

Before the first step the policy *is* the reference, so no second model is ever loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from strop.model.load import Policy
from strop.train.step import pieces
from strop.types import Tree


def reference_sums(
    policy: Policy, trees: Sequence[Tree], *, path: Path, key: str, max_tokens: int
) -> torch.Tensor:
    """Sum of log-probs of every branch of `trees`, in order, shape [B] float32.

    Read from `path` when that file was written under the same `key` (model and data hash).
    """
    cached = _read(path, key)
    if cached is not None:
        return cached
    training = policy.model.training
    policy.model.eval()
    with torch.no_grad(), policy.arithmetic():
        sums = [policy.score(piece.trees).sums_B().cpu() for piece in pieces(trees, max_tokens)]
    policy.model.train(training)
    sums_B = torch.cat(sums)
    save_file({"sums_B": sums_B}, path, metadata={"key": key})
    return sums_B


def _read(path: Path, key: str) -> torch.Tensor | None:
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        if file.metadata().get("key") != key:
            return None
        sums_B: torch.Tensor = file.get_tensor("sums_B")
    return sums_B
