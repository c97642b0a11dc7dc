"""Weights over a real GPU. Run with `pytest -m gpu` where there is one.

Two members of an NCCL group need two GPUs; on one, the group has the sender alone, which still
calls the real library in every way that a transfer does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.demo.model import raw_model
from strop.engines.served.build import served_engine
from strop.engines.served.expect import expect_servers
from strop.engines.served.start import started_vllm
from strop.engines.transfer import handles, nccl
from strop.model.load import load_policy
from strop.recipe.train.engine import VllmRecipe
from strop.recipe.train.model import ModelRecipe
from tests.support.served import PROMPTS, nudge, publish, requests, trained

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

OPENS = """
import base64, pickle, sys
import torch
from torch.multiprocessing import reductions

by_gpu, named = sys.stdin.read().split()
gpu = str(torch.cuda.get_device_properties(0).uuid)
for listed in pickle.loads(base64.b64decode(by_gpu)):  # as vLLM opens them
    given = list(listed[gpu])
    given[6] = 0
    print(reductions.rebuild_cuda_tensor(*given).double().sum().item())
opens = reductions.rebuild_cuda_tensor

def by_name(*given):  # as SGLang's function in the place of torch's does
    assert given[6] == gpu
    return opens(*given[:6], 0, *given[7:])

reductions.rebuild_cuda_tensor = by_name
for name, tensor in pickle.loads(base64.b64decode(named)):
    print(name, tensor.double().sum().item())
"""


def test_another_process_reads_the_tensors_where_they_lie() -> None:
    weights = {"a": torch.arange(6.0, device="cuda").view(2, 3).T,
               "b": torch.ones(5, device="cuda", dtype=torch.bfloat16)}  # fmt: skip
    given = handles.shared(weights)
    said = subprocess.run(
        [sys.executable, "-c", OPENS], input=f"{handles.by_gpu(given)}\n{handles.named(given)}",
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert said.stdout.split() == ["15.0", "5.0", "a", "15.0", "b", "5.0"]


def test_a_group_of_the_sender_alone_calls_the_real_library() -> None:
    library, taken = nccl.library(), threading.Event()
    taken.set()
    weights = {"a": torch.arange(6.0), "b": torch.ones(5, dtype=torch.bfloat16)}
    nccl.send(
        library, nccl.unique_id(library), 1, weights,
        seconds=60, taken=taken, given_up=threading.Event(),
    )  # fmt: skip


RECEIVES = """
import ctypes, sys
import torch
from strop.engines.transfer import nccl

torch.cuda.set_device(1)
library = nccl.library()
library.ncclCommInitRank.argtypes = [
    ctypes.c_void_p, ctypes.c_int, nccl.UniqueId, ctypes.c_int,
]
comm = ctypes.c_void_p()
unique = nccl.UniqueId.from_buffer_copy(bytes.fromhex(sys.argv[1]))
assert library.ncclCommInitRank(ctypes.byref(comm), 2, unique, 1) == 0
stream = torch.cuda.current_stream().cuda_stream
one = torch.zeros(1, device="cuda")
library.ncclAllReduce(one.data_ptr(), one.data_ptr(), 1, 7, 0, comm, stream)
for size, dtype in ((6, torch.float32), (5, torch.bfloat16)):
    came = torch.empty(size, device="cuda", dtype=dtype)
    library.ncclBroadcast(
        None, came.data_ptr(), size, nccl.TYPES[dtype], 0, comm, stream
    )
    torch.cuda.synchronize()
    print(came.double().sum().item())
"""


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two members need two GPUs")
def test_another_process_receives_what_is_broadcast() -> None:
    library, taken = nccl.library(), threading.Event()
    unique = nccl.unique_id(library)
    other = subprocess.Popen([sys.executable, "-c", RECEIVES, unique.hex()], text=True,
                             stdout=subprocess.PIPE)  # fmt: skip
    weights = {"a": torch.arange(6.0), "b": torch.ones(5, dtype=torch.bfloat16)}
    sends = threading.Thread(
        target=nccl.send, args=(library, unique, 2, weights),
        kwargs={"seconds": 120, "taken": taken, "given_up": threading.Event()},
    )  # fmt: skip
    sends.start()
    said, _ = other.communicate(timeout=120)
    taken.set()
    sends.join(60)
    assert not sends.is_alive()
    assert said.split() == ["15.0", "5.0"]


@pytest.mark.skipif(not os.environ.get("STROP_VLLM"), reason="set STROP_VLLM to a Python with vLLM")
def test_a_vllm_on_this_gpu_samples_from_the_weights_that_it_shares(
    tokenizer: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "wide"
    raw_model(tokenizer, 0, width=128).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = ModelRecipe(path=str(folder), device="cuda")
    policy = load_policy(model, seed=3)
    recipe = VllmRecipe.model_validate({
        "kind": "vllm", "python": os.environ["STROP_VLLM"], "sync": "ipc", "sleep": True,
        "arguments": ["--gpu-memory-utilization", "0.3", "--enforce-eager"],
    })  # fmt: skip
    log = tmp_path / "vllm.log"
    with started_vllm(recipe, model, context=128, routes=False, log=log) as at:
        about = expect_servers(at, model, policy.tokenizer, PROMPTS, answer_tokens=16)
        engine = served_engine(at, about, policy, PROMPTS, folder=tmp_path / "engine")
        for _ in range(3):
            publish(engine, policy)
            for number, answer in list(engine.generate(requests())):
                own = trained(policy, requests()[number], answer)
                assert torch.tensor(answer.logprobs) == pytest.approx(own.cpu(), abs=1e-3)
            free = torch.cuda.mem_get_info()[0]
            engine.rest()
            assert torch.cuda.mem_get_info()[0] > free + 2**30, "it gave its memory back"
            nudge(policy)
        engine.close()
