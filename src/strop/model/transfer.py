"""Numbers on their way to a device, without making the processor wait for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def moved(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """The tensor on a device. A copy from ordinary memory to a GPU would wait until the GPU has
    done all work that was queued before it; one from pinned memory is queued like any other."""
    target = torch.device(device)
    if target.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(target)
    pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
    return pinned.to(target, non_blocking=True)


def integers(device: torch.device | str, *lists: Sequence[int]) -> list[torch.Tensor]:
    """Lists of whole numbers as int64 tensors, in one transfer."""
    lengths = [len(one) for one in lists]
    together = torch.tensor([number for one in lists for number in one], dtype=torch.long)
    return list(moved(together, device).split(lengths))
