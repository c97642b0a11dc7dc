"""Small inputs that show whether two ways to compute a forward agree for a model."""

from __future__ import annotations

from typing import Any

import torch

from strop.types import Branch, Tree

PROBE = (
    Tree((3, 1, 4), (Branch((1, 5, 9), (True,) * 3), Branch((2, 6), (True,) * 2))),
    Tree((5, 3), (Branch((5, 8, 9, 7), (True,) * 4), Branch((9,), (True,)))),
)
"""For a vocabulary of ten."""


def probe_of(model: Any) -> list[Tree]:
    """The probe in tokens from all over the model's vocabulary.

    The first ids of a trained model are often its special tokens. Out of place they excite it so
    much that bfloat16 rounds log-probs by whole nats.
    """
    vocabulary = int(model.config.get_text_config().vocab_size)

    def spread(ids: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(id * vocabulary // 10 for id in ids)

    return [
        Tree(
            spread(tree.trunk),
            tuple(Branch(spread(branch.ids), branch.supervised) for branch in tree.branches),
        )
        for tree in PROBE
    ]


def agree(one: torch.Tensor, other: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether two ways give the same numbers, as far as the precision of the forward can tell.

    float32: each within 1e-3. Less: within 0.25 on average, because 30 layers in bfloat16 round
    single log-probs by 0.4 (0.1 on average); a branch that sees its sibling, or a prompt that is
    read in another order, changes them by 0.5 and more on average (SmolLM2-135M).
    """
    difference = (one.float() - other.float()).abs()
    if dtype == torch.float32:
        return bool(difference.max() <= 1e-3)
    return bool(difference.mean() <= 0.25)
