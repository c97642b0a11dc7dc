"""Handles of the trainer's tensors, as vLLM and SGLang read them."""

from __future__ import annotations

import base64
import pickle
from typing import Any

import pytest
import torch
from torch.multiprocessing import reductions

from strop.engines.transfer import handles
from strop.engines.transfer.handles import Shared

HANDLES = (
    (torch.Tensor, torch.Size([2]), (1,), 0, torch.UntypedStorage, torch.float32, 0, b"a"),
    (torch.Tensor, torch.Size([3]), (1,), 0, torch.UntypedStorage, torch.bfloat16, 0, b"b"),
)
GIVEN = Shared("GPU-1f", ("one", "two"), (torch.zeros(2), torch.zeros(3)), HANDLES)


def test_vllm_finds_each_tensors_handle_by_the_gpu() -> None:
    """`IPCWeightTransferUpdateInfo` unpickles a list with a dictionary for each tensor."""
    assert pickle.loads(base64.b64decode(handles.by_gpu(GIVEN))) == [
        {"GPU-1f": HANDLES[0]}, {"GPU-1f": HANDLES[1]},
    ]  # fmt: skip


def test_sglang_opens_each_tensor_on_the_gpu_that_it_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """SGLang puts a function of its own in the place of torch's, which knows GPUs by their
    names; the number of a device here may be another one's there."""
    opened: list[Any] = []

    def rebuild(*given: Any) -> str:
        opened.append(given)
        return f"tensor {len(opened)}"

    monkeypatch.setattr(reductions, "rebuild_cuda_tensor", rebuild)
    # pickled by its name, so that it is found under that name where it is opened
    monkeypatch.setattr(handles, "rebuild_cuda_tensor", rebuild)
    rebuild.__module__, rebuild.__qualname__ = reductions.__name__, "rebuild_cuda_tensor"
    sent = base64.b64decode(handles.named(GIVEN))
    assert b"torch.multiprocessing.reductions" in sent
    assert pickle.loads(sent) == [("one", "tensor 1"), ("two", "tensor 2")]
    assert opened == [
        (*HANDLES[0][:6], "GPU-1f", b"a"),
        (*HANDLES[1][:6], "GPU-1f", b"b"),
    ]
