"""A policy that is trained, and servers it is sampled from."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
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
            weight += size * torch.randn(weight.shape, generator=draw).to(weight.device)


def killing_after(
    count: int, server: Running, answers: Iterator[tuple[int, Completion]]
) -> Iterator[tuple[int, Completion]]:
    """The answers; once so many have come, the server dies."""
    for number, answer in enumerate(answers, 1):
        if number == count:
            threading.Thread(target=server.kill).start()
        yield answer


@torch.no_grad()
def trained(policy: Policy, request: Request, answer: Completion) -> torch.Tensor:
    with eval_mode(policy.model):
        tree = Tree(request.prompt.prompt_ids, (answer.branches()[0],))
        return policy.score([tree], Head(temperature=SAMPLING.temperature)).logprobs_N


def expect_stamped(engine: ServedEngine, policy: Policy, rounds: int) -> set[int]:
    """Sample while versions are published; answers of one version have its log-probs. Returns the
    versions that were seen."""
    kept: dict[int, list[torch.Tensor]] = {}
    answers: list[dict[int, Completion]] = []

    def give() -> None:
        nudge(policy)
        kept[publish(engine, policy)] = [one.detach().clone() for one in policy.trainable()]

    def sample() -> None:
        for _ in range(rounds):
            answers.append(dict(engine.generate(requests(8))))

    give()
    sampling = threading.Thread(target=sample)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no server is left out meanwhile
        sampling.start()
        while sampling.is_alive():
            give()
        sampling.join()
    assert [sorted(one) for one in answers] == [list(range(24))] * rounds
    seen = set()
    for one in answers:
        for number, request in enumerate(requests(8)):
            versions = [span.version for span in one[number].versions]
            seen |= set(versions)
            if len(versions) == 1:
                with torch.no_grad():
                    for weight, of_then in zip(policy.trainable(), kept[versions[0]], strict=True):
                        weight.copy_(of_then)
                own = trained(policy, request, one[number])  # a version apart: 0.01 and more
                assert torch.tensor(one[number].logprobs) == pytest.approx(own, abs=1e-4)
    return seen
