"""Weights that another process on the same GPU reads where they lie: CUDA IPC handles."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import rebuild_cuda_tensor, reduce_tensor

DEVICE = 6
"""Which argument of `rebuild_cuda_tensor` is the number of the device."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Tensors that others may open as long as this is kept.

    `handles` are the arguments by which torch opens each of them, `tensors` what they point to (a
    copy where it was not contiguous), and `gpu` the GPU that all of them are on.
    """

    gpu: str
    names: tuple[str, ...]
    tensors: tuple[torch.Tensor, ...]
    handles: tuple[tuple[Any, ...], ...]


def shared(weights: Mapping[str, torch.Tensor]) -> Shared:
    """Handles of all weights, which are on this process's CUDA device and written completely."""
    tensors = tuple(one.detach().contiguous() for one in weights.values())
    torch.cuda.current_stream().synchronize()
    handles = tuple(tuple(reduce_tensor(one)[1]) for one in tensors)
    gpu = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    return Shared(gpu, tuple(weights), tensors, handles)


def by_gpu(given: Shared) -> str:
    """The handles as vLLM 0.32 reads them (`ipc_handles_pickled`): of each tensor, by GPU."""
    listed = [{given.gpu: handle} for handle in given.handles]
    return base64.b64encode(pickle.dumps(listed)).decode()


class _Opened:
    """Is pickled as what opens a tensor."""

    def __init__(self, handle: Sequence[Any]) -> None:
        self.handle = tuple(handle)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return rebuild_cuda_tensor, self.handle


def named(given: Shared) -> str:
    """The tensors as SGLang 0.5.23 reads them (`serialized_named_tensors`): pairs of name and
    tensor, the device named by its GPU, because its number may be another one there."""
    pairs = [
        (name, _Opened((*handle[:DEVICE], given.gpu, *handle[DEVICE + 1 :])))
        for name, handle in zip(given.names, given.handles, strict=True)
    ]
    return base64.b64encode(pickle.dumps(pairs)).decode()
