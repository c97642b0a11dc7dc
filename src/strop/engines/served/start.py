"""The vLLM that strop starts for a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from strop.engines.served.command import Command, vllm_command
from strop.engines.served.process import free_port, started
from strop.engines.served.vllm import VllmServer
from strop.errors import UsageError
from strop.model.load import pick_device
from strop.recipe.train.engine import VllmRecipe
from strop.recipe.train.model import ModelRecipe


def expect_python(recipe: VllmRecipe) -> Path:
    """The Python that starts vLLM. Raises `UsageError` for none."""
    python = recipe.python
    if python is None or not os.access(python, os.X_OK) or python.is_dir():
        raise UsageError(
            "rollout.engine.python is no program", where=str(python),
            fix="give the Python of an environment with vLLM (docs/engines.md), such as "
            "ENV/bin/python",
        )  # fmt: skip
    return python


@contextmanager
def started_vllm(
    recipe: VllmRecipe, model: ModelRecipe, *, context: int, routes: bool, log: Path
) -> Iterator[VllmRecipe]:
    """A vLLM with the model of a run, which reads `context` tokens, as long as the block lasts; the
    recipe with its address. With `routes` it says which experts its tokens went to."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    server = VllmServer(url, seconds=recipe.seconds)
    command = _command(recipe, model, port, context)
    if routes:
        said = (*command.arguments, "--enable-return-routed-experts")
        command = replace(command, arguments=said)
    with started(command, server.about, log, seconds=recipe.start_seconds):
        yield recipe.at(url)


def _command(recipe: VllmRecipe, model: ModelRecipe, port: int, context: int) -> Command:
    command = vllm_command(
        str(expect_python(recipe).absolute()),
        model.path,
        port,
        context=context,
        rank=None if model.lora is None else model.lora.rank,
        dtype=model.dtype,
        cpu=pick_device(model.device) == "cpu",
        shares=recipe.sync == "ipc",
        sleeps=recipe.sleep,
    )
    tokenizer = () if model.tokenizer is None else ("--tokenizer", model.tokenizer)
    code = ("--trust-remote-code",) if model.trust_remote_code else ()
    return replace(command, arguments=(*command.arguments, *tokenizer, *code, *recipe.arguments))
