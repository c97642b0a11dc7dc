"""Lays trees end to end in one row, and plans the attention over that row.

    tokens  [trunk0 | branch00 | branch01 | trunk1 | branch10 | ...]

A trunk attends causally to itself; a branch attends to its trunk and, causally, to itself; no
branch attends to a sibling or to another tree. Linear layers see the row as it is: no padding, each
trunk once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from strop.errors import TextError
from strop.model.transfer import integers
from strop.types import Tree, TreeBatch

PADDING_TOLERATED = 1.25
"""Segments share an attention call while padding inflates its scores by less than this factor."""

SMALL_CALL = 4096
"""Scores that cost less than the overhead of one more attention call."""


def lay_out(trees: Sequence[Tree], device: torch.device | str = "cpu") -> TreeBatch:
    """Trees -> one row without padding (worked example in `TreeBatch`).

    Raises `TextError` for an empty trunk (nothing would predict a branch's first token) and for an
    empty branch.
    """
    tokens: list[int] = []
    positions: list[int] = []
    trunk_spans: list[tuple[int, int]] = []
    branch_spans: list[tuple[int, int]] = []
    branch_trunk: list[int] = []
    predictors: list[int] = []
    owners: list[int] = []
    for number, tree in enumerate(trees):
        if not tree.trunk:
            raise TextError(
                "a tree has an empty trunk: no token predicts the first token of its branches",
                fix="give every record a prompt of at least one token (for example the BOS token)",
            )
        start = len(tokens)
        trunk_spans.append((start, start + len(tree.trunk)))
        tokens.extend(tree.trunk)
        positions.extend(range(len(tree.trunk)))
        for branch in tree.branches:
            if not branch.ids:
                raise TextError("a tree has an empty branch", fix="drop records without an answer")
            first = len(tokens)
            wanted = [i for i, learn in enumerate(branch.supervised) if learn]
            predictors.extend(first + i - 1 if i else trunk_spans[-1][1] - 1 for i in wanted)
            owners.extend([len(branch_spans)] * len(wanted))
            branch_spans.append((first, first + len(branch.ids)))
            branch_trunk.append(number)
            tokens.extend(branch.ids)
            positions.extend(range(len(tree.trunk), len(tree.trunk) + len(branch.ids)))
    targets = list(
        chain.from_iterable(
            (token for token, learn in zip(branch.ids, branch.supervised, strict=True) if learn)
            for tree in trees
            for branch in tree.branches
        )
    )
    tokens_L, positions_L, predictor_N, target_N, branch_N = integers(
        device, tokens, positions, predictors, targets, owners
    )
    return TreeBatch(
        tokens_L=tokens_L,
        positions_L=positions_L,
        trunk_spans=tuple(trunk_spans),
        branch_spans=tuple(branch_spans),
        branch_trunk=tuple(branch_trunk),
        predictor_N=predictor_N,
        target_N=target_N,
        branch_N=branch_N,
    )


def owners(paths: Sequence[int]) -> torch.Tensor:
    """Which answer each branch belongs to, where answer i has the next `paths[i]` branches:
    `owners([1, 2]) == [0, 1, 1]`."""
    return torch.arange(len(paths)).repeat_interleave(torch.tensor(paths, dtype=torch.long))


@dataclass(frozen=True, slots=True)
class Segment:
    """Queries `[start, stop)` of the row that see a prefix of the row, then causally themselves."""

    prefix: tuple[int, int]
    own: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """(prefix length, own length)."""
        return self.prefix[1] - self.prefix[0], self.own[1] - self.own[0]


@dataclass(frozen=True, slots=True)
class AttentionBlock:
    """Segments of similar shape, padded to one rectangle for a single attention call.

    `query_SQ` and `key_SK` index the row (padding repeats index 0); `distance_SQK` is query
    position minus key position; `bias_SQK` is 0 where a query may look and -inf elsewhere;
    `real_SQ` says which queries are not padding; `causal` that there are no prefixes, so that the
    bias is plain causal order for every real query.
    """

    query_SQ: torch.Tensor
    key_SK: torch.Tensor
    distance_SQK: torch.Tensor
    bias_SQK: torch.Tensor
    real_SQ: torch.Tensor
    causal: bool


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """The attention calls of one tree forward, laid end to end.

    `queries` and `keys` index the row for all blocks, rectangle after rectangle. There is one
    gather for all blocks, because the backward of each gather writes a whole row of zeros.
    `order_L` is the index of each token's output among all rectangles' outputs.
    """

    blocks: tuple[AttentionBlock, ...]
    queries: torch.Tensor
    keys: torch.Tensor
    order_L: torch.Tensor


def plan_attention(batch: TreeBatch, known: Collection[int] = ()) -> AttentionPlan:
    """Trunks and branches grouped by shape, one block a group; the trunks with numbers `known` are
    looked at, and look at nothing themselves."""
    trunks = [
        Segment((start, start), (start, stop))
        for number, (start, stop) in enumerate(batch.trunk_spans)
        if number not in known
    ]
    branches = [
        Segment(batch.trunk_spans[trunk], span)
        for trunk, span in zip(batch.branch_trunk, batch.branch_spans, strict=True)
    ]
    device = batch.tokens_L.device
    blocks = tuple(_block(group, device) for group in chain(_by_shape(trunks), _by_shape(branches)))
    queries = torch.cat([block.query_SQ.flatten() for block in blocks])
    keys = torch.cat([block.key_SK.flatten() for block in blocks])
    real = torch.cat([block.real_SQ.flatten() for block in blocks]).nonzero().squeeze(1)
    return AttentionPlan(blocks, queries, keys, real[torch.argsort(queries[real])])


def _by_shape(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Groups of segments with little padding in their common rectangle; greedy over sorted
    shapes."""
    group: list[Segment] = []
    used = prefix = own = 0
    for segment in sorted(segments, key=lambda s: (s.shape[1], s.shape[0]), reverse=True):
        before, length = segment.shape
        cost = length * (before + length)
        wide, tall = max(prefix, before), max(own, length)
        padded = (len(group) + 1) * tall * (wide + tall)
        if group and padded > PADDING_TOLERATED * (used + cost) + SMALL_CALL:
            yield group
            group, used, wide, tall = [], 0, before, length
        group.append(segment)
        used, prefix, own = used + cost, wide, tall
    if group:
        yield group


def _block(group: Sequence[Segment], device: torch.device) -> AttentionBlock:
    spans = torch.tensor([(*s.prefix, *s.own) for s in group], device=device)
    prefix_start, prefix_stop, own_start, own_stop = spans.T[:, :, None]
    prefix, own = prefix_stop - prefix_start, own_stop - own_start
    wide, tall = int(prefix.max()), int(own.max())
    query_Q = torch.arange(tall, device=device)[None]
    key_K = torch.arange(wide + tall, device=device)[None]

    real_SQ = query_Q < own
    query_SQ = torch.where(real_SQ, own_start + query_Q, 0)
    own_key_SK = key_K - wide
    in_prefix = key_K < prefix
    in_own = (own_key_SK >= 0) & (own_key_SK < own)
    key_SK = torch.where(in_prefix, prefix_start + key_K, own_start + own_key_SK)
    key_SK = torch.where(in_prefix | in_own, key_SK, 0)

    query_position = prefix + query_Q
    key_position = torch.where(key_K < wide, key_K, prefix + own_key_SK)
    distance = query_position[:, :, None] - key_position[:, None, :]
    visible = (in_prefix | in_own)[:, None, :] & (distance >= 0)
    # a padded query looks everywhere so that its softmax is defined; its output is dropped
    visible = visible | ~real_SQ[:, :, None]
    bias = torch.zeros(visible.shape, device=device).masked_fill(~visible, float("-inf"))
    return AttentionBlock(
        query_SQ=query_SQ,
        key_SK=key_SK,
        distance_SQK=torch.where(real_SQ[:, :, None], distance, 0),
        bias_SQK=bias,
        real_SQ=real_SQ,
        causal=wide == 0,
    )
