"""Gradient checkpointing whose kept layer inputs wait in the host's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from strop.model.transfer import moved

Waiting = tuple[torch.device, torch.Tensor]


def checkpointed_on_host(context_fn: Callable[[], Any]) -> Callable[..., Any]:
    """What a layer calls to be computed twice. Of each layer only its inputs are kept, in host
    memory, until the backward comes to it; what is computed again stays on the device."""

    def run(function: Callable[..., Any], *given: Any, **options: Any) -> Any:
        with torch.autograd.graph.saved_tensors_hooks(_away, _back):
            return checkpoint(
                function, *given, use_reentrant=False, context_fn=context_fn, **options
            )

    return run


def _away(tensor: torch.Tensor) -> Waiting:
    """The copy is queued behind what computes the tensor, so nothing waits for it."""
    if not tensor.is_floating_point():
        return tensor.device, tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return tensor.device, host.copy_(tensor, non_blocking=True)


def _back(waiting: Waiting) -> torch.Tensor:
    device, tensor = waiting
    return moved(tensor, device) if tensor.device != device else tensor
