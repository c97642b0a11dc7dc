"""A policy that is trained, and servers it is sampled from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request, Sampling, requests_of
from strop.engines.served.build import served_engine
from strop.engines.served.engine import ServedEngine
from strop.engines.served.expect import expect_servers
from strop.model.logprobs import Head, eval_mode
from strop.model.network import Policy
from strop.recipe.train.engine import VllmRecipe
from strop.recipe.train.model import ModelRecipe
from strop.types import Completion, Origin, Task, Tree
from tests.support.engine_servers import Running

IDS = [(2, 40, 41, 42, 43, 3), (2, 50, 51, 3), (2, 60, 61, 62, 3)]
PROMPTS = [PromptedTask(Task(str(n), {}, Origin("t", n)), ids) for n, ids in enumerate(IDS)]
MODEL = ModelRecipe(path="base", lora={"rank": 12})  # type: ignore[arg-type]
SAMPLING = Sampling(temperature=0.8, max_tokens=16)


def requests(group: int = 4) -> list[Request]:
    return requests_of(PROMPTS, SAMPLING, DrawKey(1, "training"), group)


def engine_for(policy: Policy, root: Path, *servers: Running, **options: Any) -> ServedEngine:
    recipe = VllmRecipe(kind="vllm", url=[one.url for one in servers], **options)
    model = MODEL if policy.is_adapter else ModelRecipe(path="base")
    about = expect_servers(recipe, model, policy.tokenizer, PROMPTS, answer_tokens=16)
    return served_engine(recipe, about, policy, PROMPTS, folder=root / "engine")


def publish(engine: ServedEngine, policy: Policy) -> int:
    return engine.publish(dict(policy.model.named_parameters()))


def nudge(policy: Policy, size: float = 0.02) -> None:
    draw = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in policy.trainable():
            weight += size * torch.randn(weight.shape, generator=draw)


@torch.no_grad()
def trained(policy: Policy, request: Request, answer: Completion) -> torch.Tensor:
    with eval_mode(policy.model):
        tree = Tree(request.prompt.prompt_ids, (answer.branch(),))
        return policy.score([tree], Head(temperature=SAMPLING.temperature)).logprobs_N
