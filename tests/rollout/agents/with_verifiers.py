"""Episodes of a verifiers environment, played by the model in training."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import verifiers.v1 as vf
from verifiers.v1.utils.loaders import load_environment, resolve_env_config

os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # an installed taskset needs no such line
environment = load_environment(
    resolve_env_config({"taskset": {"id": "adding"}, "agent": {"runtime": {"type": "subprocess"}}})
)
tasks = list(environment.taskset)


async def run(base_url: str, api_key: str, task: dict[str, Any]) -> float:
    """The reward of one episode of the task `task["idx"]`."""
    return await played(vf.EvalClientConfig(base_url=base_url, api_key_var="OPENAI_API_KEY"), task)


async def by_tokens(base_url: str, api_key: str, task: dict[str, Any]) -> float:
    """The same by the training client, which renders and tokenises by itself."""
    client = vf.TrainClientConfig(
        base_url=base_url,
        api_key_var="OPENAI_API_KEY",
        renderer={"name": "default", "tool_parser": "qwen3"},
        renderer_model_name=task["tokenizer"],
    )
    return await played(client, task)


async def played(client: vf.ClientConfig, task: dict[str, Any]) -> float:
    async with environment.serving():
        episode = await environment.run_episode(
            tasks[task["idx"]], vf.ModelContext(model="policy", client=client)
        )
    (trace,) = episode.traces
    if not episode.ok:
        raise RuntimeError([error.message for error in [*episode.errors, *trace.errors]])
    if "folder" in task:
        branches = [[b.token_ids, b.sampled_mask, b.logprobs] for b in trace.branches]
        note = {"reward": trace.reward, "branches": branches}
        (Path(task["folder"]) / f"{trace.id}.trace").write_text(json.dumps(note))
    return float(trace.reward)
