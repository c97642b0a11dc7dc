"""Counts the bytes of tensors."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class Held(TorchDispatchMode):
    """Bytes of the tensors made inside that are alive, their peak, and the largest tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {t.untyped_storage()._cdata for t in tree_iter((args, kwargs)) if _is_tensor(t)}
        out = func(*args, **(kwargs or {}))
        for tensor in filter(_is_tensor, tree_iter(out)):
            storage = tensor.untyped_storage()
            if storage._cdata in before or storage._cdata in self.alive:
                continue
            self.alive[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, storage._cdata, None)
            self.largest = max(self.largest, storage.nbytes())
        self.peak = max(self.peak, self.now())
        return out

    def now(self) -> int:
        return sum(self.alive.values())


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)
