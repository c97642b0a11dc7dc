"""Tree attention as one operation that a compiler does not look into.

What a plan holds (blocks, masks, lengths) differs from row to row, and a compiled layer that read
it would be compiled again for every row. So a layer hands on the row's spans, one tensor of
integers, and the plan is made from them where the operation is computed. Its backward computes
the attention once more, as nothing but its inputs is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from strop.model import attention, flex, varlen
from strop.model.ways import BLOCKS, FLEX, VARLEN, Way
from strop.types import TreeBatch

Spans = torch.Tensor
"""[S, 3] integers in host memory: first token, end, and the number of the trunk that is read
before it, or `TRUNK`; in the order of the row's trunks, then of its branches."""

TRUNK = -1

KERNELS: Mapping[str, tuple[Callable[..., Any], Way]] = {
    attention.NAME: (attention.tree_attention, BLOCKS),
    varlen.NAME: (varlen.varlen_attention, VARLEN),
    flex.NAME: (flex.flex_tree_attention, FLEX),
}

NOBODY = torch.nn.Identity()
"""In place of the layer that asks, which no kernel looks at."""

USUAL_KEYS = (
    torch._C._dispatch_tls_local_include_set(),
    torch._C._dispatch_tls_local_exclude_set(),
)
"""How torch dispatches outside of any operation."""

ROWS = 4
"""Rows whose plans are kept: all layers of a forward, and its backward, read the same one."""


def spans_of(batch: TreeBatch) -> Spans:
    """The spans of a row: `[[0, 2, -1], [2, 4, 0], [4, 6, 0]]` for a prompt with two answers."""
    trunks = [(*span, TRUNK) for span in batch.trunk_spans]
    owned = zip(batch.branch_spans, batch.branch_trunk, strict=True)
    return torch.tensor([*trunks, *((*span, trunk) for span, trunk in owned)])


def layout_of(spans: tuple[tuple[int, int, int], ...], device: torch.device) -> TreeBatch:
    """The row of these spans, without its tokens."""
    trunks = tuple((start, stop) for start, stop, trunk in spans if trunk == TRUNK)
    owned = [(start, stop, trunk) for start, stop, trunk in spans if trunk != TRUNK]
    length = max(stop for _, stop, _ in spans)
    positions = [0] * length
    for start, stop, trunk in spans:
        before = 0 if trunk == TRUNK else trunks[trunk][1] - trunks[trunk][0]
        positions[start:stop] = range(before, before + stop - start)
    none = torch.empty(0, dtype=torch.long, device=device)
    return TreeBatch(
        tokens_L=torch.zeros(length, dtype=torch.long, device=device),
        positions_L=torch.tensor(positions, device=device),
        trunk_spans=trunks,
        branch_spans=tuple((start, stop) for start, stop, _ in owned),
        branch_trunk=tuple(trunk for *_, trunk in owned),
        predictor_N=none,
        target_N=none,
        branch_N=none,
    )


@lru_cache(maxsize=ROWS)
def _plan(kernel: str, spans: tuple[tuple[int, int, int], ...], device: torch.device) -> Any:
    return KERNELS[kernel][1].plan(layout_of(spans, device))


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sinks: torch.Tensor | None,
    spans: Spans,
    *options: Any,
) -> torch.Tensor:
    """[1, heads, L, D], [1, kv_heads, L, D] twice -> [1, L, heads, D], in one precision; `options`
    are those of `GIVEN` behind the spans."""
    kernel, scaling, sliding_window, softcap = options
    plan = _plan(kernel, tuple(map(tuple, spans.tolist())), query.device)
    with torch.autocast(query.device.type, enabled=False):
        out: torch.Tensor = KERNELS[kernel][0](
            NOBODY, query, key, value, None, tree_plan=plan, scaling=scaling,
            sliding_window=sliding_window, softcap=softcap, s_aux=sinks,
        )[0]  # fmt: skip
    return out.contiguous()


def _attend_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sinks: torch.Tensor | None,
    *given: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the four tensors; an empty one where there are no sinks."""
    # torch computes an operation of one's own below autograd: here it is turned on again
    with torch.enable_grad(), torch._C._ForceDispatchKeyGuard(*USUAL_KEYS):
        fresh = [t.detach().requires_grad_() for t in (query, key, value)]
        sink = None if sinks is None else sinks.detach().requires_grad_()
        inputs = fresh if sink is None else [*fresh, sink]
        out = _attend(fresh[0], fresh[1], fresh[2], sink, *given)
        slopes = [slope.contiguous() for slope in torch.autograd.grad(out, inputs, grad)]
    return slopes[0], slopes[1], slopes[2], grad.new_empty(0) if sinks is None else slopes[3]


def _shape_of_output(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> Any:
    heads, length = query.shape[1:3]
    return value.new_empty((1, length, heads, value.shape[-1]))


def _shapes_of_gradients(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sinks: torch.Tensor | None,
    *_: Any,
) -> Any:
    shapes = [query.shape, key.shape, value.shape]
    last = grad.new_empty(0) if sinks is None else sinks.new_empty(sinks.shape)
    return (*(grad.new_empty(shape) for shape in shapes), last)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    query, key, value, sinks, spans, *ctx.options = inputs
    ctx.save_for_backward(query, key, value, sinks, spans)


def _differentiate(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    *tensors, spans = ctx.saved_tensors
    slopes = list(_BACKWARD(grad.contiguous(), *tensors, spans, *ctx.options))
    if tensors[3] is None:
        slopes[3] = None
    return (*slopes, None, None, None, None, None)


GIVEN = ("Tensor query, Tensor key, Tensor value, Tensor? sinks, Tensor spans, str kernel, "
         "float scaling, int? sliding_window, float? softcap")  # fmt: skip
_FORWARD = torch.library.custom_op(
    "strop::tree_attention", _attend, mutates_args=(), schema=f"({GIVEN}) -> Tensor"
)
_BACKWARD = torch.library.custom_op(
    "strop::tree_attention_backward",
    _attend_backward,
    mutates_args=(),
    schema=f"(Tensor grad, {GIVEN}) -> (Tensor, Tensor, Tensor, Tensor)",
)
_FORWARD.register_fake(_shape_of_output)
_BACKWARD.register_fake(_shapes_of_gradients)
_FORWARD.register_autograd(_differentiate, setup_context=_keep)


def opaque_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    kernel: str,
    tree_plan: Spans,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """`tree_attention` (or another kernel) for a layer that is compiled; without dropout."""
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    alike = (query.to(value.dtype), key.to(value.dtype), value)
    sinks = None if s_aux is None else s_aux.to(value.dtype)
    return _FORWARD(*alike, sinks, tree_plan, kernel, scale, sliding_window, softcap), None


def opaque(way: Way) -> Way:
    """The same way, to be used by compiled layers."""
    return Way(_name(way.name), spans_of, way.most_tokens)


def _name(kernel: str) -> str:
    return f"{kernel}_opaque"


def _no_mask(*_: Any, **__: Any) -> None:
    """The spans carry the mask; transformers need not build one."""


for _kernel in KERNELS:
    AttentionInterface.register(_name(_kernel), partial(opaque_attention, kernel=_kernel))
    AttentionMaskInterface.register(_name(_kernel), _no_mask)
