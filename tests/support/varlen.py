"""What the variable-length kernel has to give: a loop over its sequences, in any precision."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch


def looped_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts_q: torch.Tensor,
    starts_k: torch.Tensor,
    longest_q: int,
    longest_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    **shared_heads: Any,
) -> torch.Tensor:
    """Sequence by sequence, causal order and window aligned at the last query and the last key."""
    left, right = window_size
    assert right == 0
    borders_q, borders_k = starts_q.tolist(), starts_k.tolist()
    assert longest_q == max(b - a for a, b in pairwise(borders_q))
    assert longest_k == max(b - a for a, b in pairwise(borders_k))
    pieces = []
    spans_q = pairwise(borders_q)
    spans_k = pairwise(borders_k)
    for (q0, q1), (k0, k1) in zip(spans_q, spans_k, strict=True):
        place_Q = torch.arange(q1 - q0)[:, None] + (k1 - k0) - (q1 - q0)
        distance_QK = place_Q - torch.arange(k1 - k0)[None]
        sees_QK = distance_QK >= 0
        if left >= 0:
            sees_QK &= distance_QK <= left
        q, k, v = (x.transpose(0, 1)[None] for x in (query[q0:q1], key[k0:k1], value[k0:k1]))
        out = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=sees_QK, scale=scale, enable_gqa=True
        )
        pieces.append(out[0].transpose(0, 1))
    return torch.cat(pieces)
