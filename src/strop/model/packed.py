"""Linear layers laid out anew for products with few rows.

The kernels that multiply thousands of rows bring a weight into their own order as they go. With a
few dozen rows, as in decoding, that takes longer than the product. Here it is done once, and layers
that read the same rows become one product. Measured on a CPU with AVX-512, 8 million parameters: a
step of 16 rows takes 0.6 times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

PACKED_FROM = 2**16
"""Smaller weights are only transposed: the packed product takes 10 us before it begins."""

MOST_BYTES = 2**29
"""What all copies may take; layers beyond it are called as they are."""

PACKING_ROWS = 4
"""Fewer rows gain nothing, and a copy takes as long as several steps."""

ROWS = 32
"""The number of rows that weights are packed for; with others they serve as well."""

CAPABILITIES = frozenset({"AVX2", "AVX512"})
"""Processors for which this was measured, and their lesser kin."""

Product = Callable[[torch.Tensor], torch.Tensor]
Products = Callable[[torch.Tensor], Sequence[torch.Tensor]]
"""Rows [R, in] to one output [R, out] for each group of layers."""


def room_on(device: torch.device) -> int:
    """Bytes that copies may take here. Under autocast layers compute in another precision, and are
    not copied."""
    able = torch.backends.mkldnn.is_available()
    able = able and torch.backends.cpu.get_cpu_capability() in CAPABILITIES
    lowered = torch.is_autocast_enabled(device.type)
    return MOST_BYTES if able and device.type == "cpu" and not lowered else 0


class Packing:
    """Makes products of a model's layers, by copies of them as long as there is room (bytes).

    `packing.of([q, k], [v])` gives a function from rows to two outputs: that of `q` beside that of
    `k`, and that of `v`.
    """

    def __init__(self, room: int) -> None:
        self.room = room

    def of(self, *groups: Sequence[torch.nn.Module]) -> Products:
        layers = [layer for group in groups for layer in group]
        copied = sum(p.numel() * p.element_size() for layer in layers for p in layer.parameters())
        if copied > self.room or not all(map(_is_plain, layers)):
            return _Apart(groups)
        self.room -= copied
        return _Together(groups)


def _is_plain(layer: torch.nn.Module) -> bool:
    """A linear layer of torch in float32 without hooks: no adapter, no quantized weight, no part of
    one."""
    if type(layer) is not torch.nn.Linear or layer._forward_hooks or layer._forward_pre_hooks:
        return False
    return type(layer.weight.data) is torch.Tensor and layer.weight.dtype == torch.float32


class _Apart:
    """The layers as they are."""

    def __init__(self, groups: Sequence[Sequence[torch.nn.Module]]) -> None:
        self.groups = groups

    def __call__(self, x_RI: torch.Tensor) -> Sequence[torch.Tensor]:
        return [
            torch.cat([layer(x_RI) for layer in group], -1) if len(group) > 1 else group[0](x_RI)
            for group in self.groups
        ]


class _Together:
    """One product for all layers, by a copy of their weights."""

    def __init__(self, groups: Sequence[Sequence[Any]]) -> None:
        self.sizes = [sum(layer.out_features for layer in group) for group in groups]
        layers = [layer for group in groups for layer in group]
        weight_OI = torch.cat([layer.weight.detach() for layer in layers])
        bias_O = None
        if any(layer.bias is not None for layer in layers):
            biases = [layer.weight.new_zeros(layer.out_features) if layer.bias is None
                      else layer.bias.detach() for layer in layers]  # fmt: skip
            bias_O = torch.cat(biases)
        self.product = _packed(weight_OI, bias_O)

    def __call__(self, x_RI: torch.Tensor) -> Sequence[torch.Tensor]:
        out_RO = self.product(x_RI)
        return out_RO.split(self.sizes, -1) if len(self.sizes) > 1 else (out_RO,)


def _packed(weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> Product:
    """x -> x weight^T + bias, [R, O]."""
    if weight_OI.numel() < PACKED_FROM:
        transposed_IO = weight_OI.T.contiguous()
        if bias_O is None:
            return lambda x_RI: torch.mm(x_RI, transposed_IO)
        return lambda x_RI: torch.addmm(bias_O, x_RI, transposed_IO)
    operations = torch.ops.mkldnn
    packed = operations._reorder_linear_weight(weight_OI, ROWS)

    def product(x_RI: torch.Tensor) -> torch.Tensor:
        out_RO: torch.Tensor = operations._linear_pointwise(x_RI, packed, bias_O, "none", [], "")
        return out_RO

    return product
