"""How fast this machine could be: its own matrix products at the model's shapes, and what of a
step's arithmetic cannot be avoided."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from strop.types import Tree


@dataclass(frozen=True, slots=True)
class Work:
    """What a model does to one token, in multiply-adds times two (forward only)."""

    linear: int
    head: int
    attention: int

    def forward(self, tokens: int, targets: int, looks: int) -> float:
        """Floating-point operations of a forward; `looks` are (query, key) pairs."""
        return float(self.linear * tokens + self.head * targets + self.attention * looks)

    def learning(self, tokens: int, targets: int, looks: int, *, frozen: bool) -> float:
        """Of a forward and a backward: a product has two gradients, one of which frozen weights do
        not need. What an adapter adds is not counted."""
        both = self.forward(tokens, targets, looks)
        return both * 3 if not frozen else both * 2 + float(self.attention * looks)


def work_of(model: Any) -> Work:
    """Linear layers, head (per scored token) and attention (per query-key pair) of a model."""
    config = model.config.get_text_config()
    decoder = model.get_decoder()
    linear = sum(m.weight.numel() for m in decoder.modules() if isinstance(m, torch.nn.Linear))
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    return Work(2 * linear, 2 * config.hidden_size * config.vocab_size, attention)


def training_flops(work: Work, trees: Iterable[Tree], *, frozen: bool = False) -> float:
    """Forward and backward over distinct tokens: three times the forward, less where the weights
    are `frozen` below an adapter."""
    tokens = targets = looks = 0
    for tree in trees:
        trunk = len(tree.trunk)
        tokens += len(tree)
        looks += trunk * (trunk + 1) // 2
        for branch in tree.branches:
            own = len(branch.ids)
            looks += own * trunk + own * (own + 1) // 2
            targets += sum(branch.supervised)
    return work.learning(tokens, targets, looks, frozen=frozen)


def sampling_flops(work: Work, groups: Iterable[tuple[int, list[int]]]) -> float:
    """Each distinct prompt once, each sampled token once; groups are (prompt, answer lengths)."""
    total = 0.0
    for prompt, answers in groups:
        total += work.forward(prompt, 1, prompt * (prompt + 1) // 2)
        for answer in answers:
            total += work.forward(answer, answer, answer * prompt + answer * (answer + 1) // 2)
    return total


@torch.no_grad()
def matmul_rate(
    model: Any, rows: int, bfloat16: bool, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Floating-point operations a second of the model's own linear layers at `rows` rows, each as
    a bare matrix product into memory that is already there: the best of three passes."""
    shapes: dict[tuple[int, int], int] = {}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            shape = (module.out_features, module.in_features)
            shapes[shape] = shapes.get(shape, 0) + 1
    device = next(model.parameters()).device
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    operations = seconds = 0.0
    for (out, inner), count in shapes.items():
        held = min(rows, max(64, 2**26 // out))
        x = torch.randn(held, inner, device=device, dtype=dtype)
        weight = torch.randn(out, inner, device=device, dtype=dtype)
        into = torch.empty(held, out, device=device, dtype=dtype)
        best = min(_timed(x, weight, into, clock) for _ in range(4))
        operations += count * 2.0 * held * out * inner
        seconds += count * best
    return operations / seconds


def _timed(
    x: torch.Tensor, weight: torch.Tensor, into: torch.Tensor, clock: Callable[[], float]
) -> float:
    _settle(x)
    started = clock()
    torch.mm(x, weight.T, out=into)
    _settle(x)
    return clock() - started


def _settle(x: torch.Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()
