"""CHES of pairs under a model, those left out that it cannot read."""

from __future__ import annotations

from collections.abc import Sequence

from strop.curate.displacement import ches_scores
from strop.errors import TextError
from strop.model.network import Policy
from strop.text.render import preference_tree
from strop.types import Preference, Tree


def ches_of(policy: Policy, pairs: Sequence[Preference], max_length: int) -> list[float | None]:
    """The score of each pair; `None` where it cannot be rendered or is over `max_length` tokens."""
    read = [_tree(policy, pair, max_length) for pair in pairs]
    scores = iter(ches_scores(policy, [tree for tree in read if tree is not None]).tolist())
    return [None if tree is None else next(scores) for tree in read]


def _tree(policy: Policy, pair: Preference, max_length: int) -> Tree | None:
    try:
        tree = preference_tree(policy.tokenizer, pair)
    except TextError:
        return None
    longest = max(len(branch.ids) for branch in tree.branches)
    return tree if len(tree.trunk) + longest <= max_length else None
