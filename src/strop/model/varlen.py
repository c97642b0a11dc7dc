"""Tree attention as sequences of different lengths, for the kernel that computes no padding.

    row      [trunk0 | branch00 | branch01 | trunk1 | branch10]
    queries   trunk0 | branch00 | branch01 | trunk1 | branch10                  the row as it is
    keys      trunk0 | trunk0 branch00 | trunk0 branch01 | trunk1 | trunk1 branch10

Every trunk and every branch is one sequence. Its queries are its own tokens; its keys are gathered
from the row, a branch's behind those of its trunk. The kernel aligns causal order at the last query
and the last key, so each query sees all of its trunk and, causally, its own branch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn

from strop.model.transfer import integers
from strop.types import TreeBatch

NAME = "strop_varlen"

SHARED_HEADS: dict[str, Any] = (
    {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
)
"""From torch 2.12 on one has to say that query heads share keys; before, the kernel saw it."""

HALVES = (torch.bfloat16, torch.float16)
"""What the kernel computes in."""


@dataclass(frozen=True, slots=True)
class VarlenPlan:
    """One row as sequences: `keys_M` indexes the row, sequence after sequence; sequence s has the
    queries `starts_q[s]` to `starts_q[s + 1]` of the row and the keys `starts_k[s]` to
    `starts_k[s + 1]` of `keys_M`; `longest_q` and `longest_k` are the most of one sequence."""

    keys_M: torch.Tensor
    starts_q: torch.Tensor
    starts_k: torch.Tensor
    longest_q: int
    longest_k: int


def plan_varlen(batch: TreeBatch) -> VarlenPlan:
    """The sequences of a row. For `Tree((1, 4), (Branch((5, 2), ...), Branch((6,), ...)))` the keys
    are `[0, 1, 0, 1, 2, 3, 0, 1, 4]`, the queries start at `[0, 2, 4, 5]` and the keys at
    `[0, 2, 6, 9]`."""
    of_trunks = [((start, start), (start, stop)) for start, stop in batch.trunk_spans]
    of_branches = [
        (batch.trunk_spans[trunk], span)
        for trunk, span in zip(batch.branch_trunk, batch.branch_spans, strict=True)
    ]
    keys: list[int] = []
    starts_q, starts_k = [0], [0]
    longest_q = longest_k = 0
    for before, own in sorted(of_trunks + of_branches, key=lambda sequence: sequence[1]):
        keys.extend(range(*before))
        keys.extend(range(*own))
        longest_q = max(longest_q, own[1] - own[0])
        longest_k = max(longest_k, len(keys) - starts_k[-1])
        starts_q.append(own[1])
        starts_k.append(len(keys))
    keys_M, rows_q, rows_k = integers(batch.tokens_L.device, keys, starts_q, starts_k)
    return VarlenPlan(keys_M, rows_q.int(), rows_k.int(), longest_q, longest_k)


class Gathered(torch.autograd.Function):
    """Rows of a tensor by their index. A trunk's rows are read by every branch: their gradients are
    added up in float32, for in bfloat16 the sum of eight would lose half of its digits."""

    @staticmethod
    def forward(ctx: Any, x_LKD: torch.Tensor, index_M: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(index_M)
        ctx.rows = x_LKD.shape[0]
        return x_LKD.index_select(0, index_M)

    @staticmethod
    def backward(ctx: Any, grad_MKD: torch.Tensor) -> tuple[torch.Tensor, None]:
        (index_M,) = ctx.saved_tensors
        exact = torch.float32 if grad_MKD.dtype in HALVES else grad_MKD.dtype
        sums = grad_MKD.new_zeros((ctx.rows, *grad_MKD.shape[1:]), dtype=exact)
        return sums.index_add(0, index_M, grad_MKD.to(exact)).to(grad_MKD.dtype), None


def gathered(x_LKD: torch.Tensor, index_M: torch.Tensor) -> torch.Tensor:
    """`x_LKD[index_M]`, whose gradient is added up exactly."""
    rows: torch.Tensor = Gathered.apply(x_LKD, index_M)  # type: ignore[no-untyped-call]
    return rows


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    tree_plan: VarlenPlan,
    tree_observer: Callable[[torch.nn.Module], None] | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over one laid-out row, in bfloat16 or float16 on a CUDA device.

    Shapes: query [1, heads, L, D], key and value [1, kv_heads, L, D] -> [1, L, heads, D]. Raises
    `ValueError` for what the kernel cannot express: soft-caps, sinks and dropout.
    """
    if softcap is not None or s_aux is not None or dropout:
        raise ValueError("the variable-length kernel knows no soft-caps, sinks or dropout")
    if tree_observer is not None:
        tree_observer(module)
    # after a norm with float32 weights queries and keys are float32 again, under autocast too
    q_LHD, k_LKD, v_LKD = (x[0].transpose(0, 1).to(value.dtype) for x in (query, key, value))
    # without `return_aux` the kernel gives the output alone
    out_LHD: Any = varlen_attn(
        q_LHD.contiguous(),
        gathered(k_LKD, tree_plan.keys_M),
        gathered(v_LKD, tree_plan.keys_M),
        tree_plan.starts_q,
        tree_plan.starts_k,
        tree_plan.longest_q,
        tree_plan.longest_k,
        scale=scaling,
        # a window of w sees distances 0 to w - 1
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        **SHARED_HEADS,
    )
    return out_LHD[None], None
