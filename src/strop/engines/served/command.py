"""The commands that start servers so that a run can sample from them and give them weights."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILES = Path(__file__).parent / "files"


@dataclass(frozen=True, slots=True)
class Command:
    """Arguments, and the environment variables beside the own ones."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]

    def line(self) -> str:
        """As it is typed into a shell."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*variables, shlex.join(self.arguments)])


def vllm_command(
    python: str,
    model: str,
    port: int,
    *,
    context: int,
    rank: int | None = None,
    dtype: str = "float32",
    cpu: bool = False,
    shares: bool = False,
    sleeps: bool = False,
) -> Command:
    """vLLM 0.32 for a run: ids in and out, log-probs of what is sampled, the trainer's arithmetic,
    weights from here.

    `rank` is the rank of the adapters that it will get, if there are any. With `cpu` weights are
    kept in a form that can be loaded again. One that `shares` reads the trainer's weights by CUDA
    IPC, one that `sleeps` can give its memory back.
    """
    arguments = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", model,
        "--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(context),
        "--enable-scale-out", "--logprobs-mode", "processed_logprobs", "--dtype", dtype,
        "--no-enable-prefix-caching", "--generation-config", "vllm",
    ]  # fmt: skip
    environment = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    if rank is not None:
        most = next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank), rank)
        arguments += ["--enable-lora", "--max-lora-rank", str(most), "--max-loras", "4"]
    if cpu:
        arguments += ["--worker-extension-cls", "strop_vllm_cpu.Plain"]
        environment |= {"PYTHONPATH": str(FILES), "VLLM_CPU_KVCACHE_SPACE": "1"}
    if shares:
        arguments += ["--weight-transfer-config", '{"backend": "ipc"}']
        environment |= {"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"}
    if sleeps:
        arguments += ["--enable-sleep-mode"]
    return Command(tuple(arguments), environment)


def sglang_command(
    python: str, model: str, port: int, *, context: int, rank: int | None = None
) -> Command:
    """SGLang 0.5.23 for a run: seeds are read, and float32 where the trainer is."""
    arguments = [
        python, "-m", "sglang.launch_server", "--model-path", model,
        "--host", "127.0.0.1", "--port", str(port), "--context-length", str(context),
        "--enable-deterministic-inference", "--dtype", "float32",
    ]  # fmt: skip
    if rank is not None:
        arguments += ["--enable-lora", "--max-lora-rank", str(rank),
                      "--lora-target-modules", "all", "--max-loras-per-batch", "4"]  # fmt: skip
    return Command(tuple(arguments), {})
