"""Tree attention through FlexAttention: scores of the blocks that somebody looks at, with
soft-caps, windows and sinks (Dong et al. 2024, arXiv 2412.05496)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from strop.model.transfer import integers
from strop.types import TreeBatch

NAME = "strop_flex"

BLOCK = 128
"""Queries and keys of one block, the size for which FlexAttention's kernels are made."""


@dataclass(frozen=True, slots=True)
class FlexPlan:
    """Who looks where in one row. Token i sees the keys from `own_L[i]` and those from
    `trunk_L[i]` to before `trunk_end_L[i]`, as far as they are not behind it; `position_L` measures
    windows. Of the blocks of query block b, the first `count_B[b]` of `blocks_BB[b]` have to be
    computed."""

    position_L: torch.Tensor
    own_L: torch.Tensor
    trunk_L: torch.Tensor
    trunk_end_L: torch.Tensor
    count_B: torch.Tensor
    blocks_BB: torch.Tensor

    def block_mask(self, sliding_window: int | None) -> BlockMask:
        """The mask of a layer; a window of w sees distances 0 to w - 1."""
        own_L, trunk_L, trunk_end_L = self.own_L, self.trunk_L, self.trunk_end_L
        position_L = self.position_L

        def sees(b: Any, h: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            in_trunk = (key >= trunk_L[query]) & (key < trunk_end_L[query])
            return (key <= query) & (in_trunk | (key >= own_L[query]))

        window = constant(sliding_window or 0, position_L.dtype, position_L.device)

        def sees_near(b: Any, h: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            return sees(b, h, query, key) & (position_L[query] - position_L[key] < window)

        tokens = len(position_L)
        return BlockMask.from_kv_blocks(
            self.count_B[None, None],
            self.blocks_BB[None, None],
            BLOCK_SIZE=BLOCK,
            mask_mod=sees if sliding_window is None else sees_near,
            seq_lengths=(tokens, tokens),
        )


def plan_flex(batch: TreeBatch) -> FlexPlan:
    """The blocks and borders of a row."""
    tokens = len(batch.tokens_L)
    own, trunk, trunk_end = ([0] * tokens for _ in range(3))
    blocks = -(-tokens // BLOCK)
    looked_at: list[set[int]] = [set() for _ in range(blocks)]
    of_trunks = [(span, span) for span in batch.trunk_spans]
    of_branches = [
        (batch.trunk_spans[number], span)
        for number, span in zip(batch.branch_trunk, batch.branch_spans, strict=True)
    ]
    for before, (start, stop) in of_trunks + of_branches:
        own[start:stop] = [start] * (stop - start)
        trunk[start:stop] = [before[0]] * (stop - start)
        trunk_end[start:stop] = [before[1]] * (stop - start)
        for block in _blocks(start, stop):
            last = min(stop, (block + 1) * BLOCK)
            looked_at[block].update(_blocks(*before), _blocks(start, last))
    kept = [sorted(key for key in found if key <= block) for block, found in enumerate(looked_at)]
    padded = [[*found, *(k for k in range(blocks) if k not in found)] for found in kept]
    own_L, trunk_L, trunk_end_L, count_B, flat = integers(
        batch.tokens_L.device,
        own, trunk, trunk_end, [len(found) for found in kept], [k for row in padded for k in row],
    )  # fmt: skip
    blocks_BB = flat.view(blocks, blocks).int()
    return FlexPlan(batch.positions_L, own_L, trunk_L, trunk_end_L, count_B.int(), blocks_BB)


def _blocks(start: int, stop: int) -> Sequence[int]:
    return range(start // BLOCK, -(-stop // BLOCK))


@cache
def constant(number: float, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A number as the kernels read it. A plain one that differs between layers (or models) would be
    compiled as a symbol, which FlexAttention does not take."""
    return torch.tensor(number, dtype=dtype, device=device)


@cache
def _compiled() -> Any:
    """FlexAttention is a kernel only when it is compiled; once for all lengths."""
    return torch.compile(flex_attention, dynamic=True)


def flex_tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    tree_plan: FlexPlan,
    tree_observer: Callable[[torch.nn.Module], None] | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over one laid-out row.

    Shapes: query [1, heads, L, D], key and value [1, kv_heads, L, D] -> [1, L, heads, D]. Raises
    `ValueError` for dropout. On a CPU it is neither compiled nor differentiable.
    """
    if dropout:
        raise ValueError("FlexAttention knows no dropout")
    if tree_observer is not None:
        tree_observer(module)

    exact = torch.promote_types(value.dtype, torch.float32)  # the kernel's scores are float32
    cap = constant(softcap or 0.0, exact, value.device)

    def capped(score: torch.Tensor, *_: Any) -> torch.Tensor:
        return cap * torch.tanh(score / cap)

    attend = _compiled() if query.is_cuda else flex_attention
    out_1HLD, aux = attend(
        query.to(value.dtype),
        key.to(value.dtype),
        value,
        score_mod=None if softcap is None else capped,
        block_mask=tree_plan.block_mask(sliding_window),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
        return_aux=AuxRequest(lse=True),
    )
    if s_aux is not None:
        # a sink is one more score whose value is 0: it takes its share of the softmax
        share_1HL = torch.sigmoid(aux.lse - s_aux.to(aux.lse.dtype)[None, :, None])
        out_1HLD = out_1HLD * share_1HL[..., None].to(out_1HLD.dtype)
    return out_1HLD.transpose(1, 2), None
