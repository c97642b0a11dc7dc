"""Weights that get to a server from memory to memory."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi import FastAPI

import strop
from strop.engines.broadcast import Pair, forms_of, meeting_place
from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Sampling, requests_of
from strop.engines.served import sending
from strop.engines.served import server as served_server
from strop.engines.served.build import served_engine
from strop.engines.served.engine import ServedEngine
from strop.engines.served.expect import expect_servers
from strop.engines.served.vllm import VllmServer
from strop.engines.server import receive
from strop.errors import HttpError, TrainingError, UsageError
from strop.model.logprobs import Head, eval_mode
from strop.model.network import Policy
from strop.recipe.train.engine import VllmRecipe
from strop.recipe.train.model import ModelRecipe
from strop.types import Origin, Task, Tree
from tests.support.engine_processes import process
from tests.support.engine_servers import Running, engine_server, start
from tests.support.runs import WriteRows
from tests.support.served import nudge, publish

IDS = [(2, 40, 41, 42, 43, 3), (2, 50, 51, 3)]
PROMPTS = [PromptedTask(Task(str(n), {}, Origin("t", n)), ids) for n, ids in enumerate(IDS)]
SAMPLING = Sampling(temperature=0.8, max_tokens=12)
REQUESTS = requests_of(PROMPTS, SAMPLING, DrawKey(1, "training"), 3)


def engine_for(policy: Policy, root: Path, *servers: Running) -> ServedEngine:
    recipe = VllmRecipe(kind="vllm", url=[one.url for one in servers], sync="broadcast")
    model = ModelRecipe(path="base")
    about = expect_servers(recipe, model, policy.tokenizer, PROMPTS, answer_tokens=12)
    return served_engine(recipe, about, policy, PROMPTS, folder=root / "engine")


@torch.no_grad()
def expect_sampled_from(policy: Policy, engine: ServedEngine) -> None:
    for number, answer in engine.generate(REQUESTS):
        with eval_mode(policy.model):
            tree = Tree(REQUESTS[number].prompt.prompt_ids, (answer.branches()[0],))
            own = policy.score([tree], Head(temperature=SAMPLING.temperature)).logprobs_N
        assert answer.sampler_logprobs() == pytest.approx(own.tolist(), abs=1e-5)


@pytest.fixture
def server(model_folder: Path) -> Iterator[Running]:
    with engine_server(model_folder) as running:
        yield running


class TestPair:
    def test_every_type_arrives_bit_by_bit(self) -> None:
        draw = torch.Generator().manual_seed(0)
        sent = {"a": torch.randn(3, 4, generator=draw), "b": torch.tensor(2.5),
                "c": torch.randn(5, generator=draw).bfloat16(),
                "d": torch.randn(6, 4, generator=draw).half().T}  # fmt: skip
        place = meeting_place("http://127.0.0.1:80")
        port = place.getsockname()[1]
        came: dict[str, torch.Tensor] = {}

        def take() -> None:
            came.update(Pair.receiver("127.0.0.1", port, seconds=30).receive(forms_of(sent)))

        thread = threading.Thread(target=take)
        thread.start()
        Pair.sender(place, threading.Event(), seconds=30).send(sent)
        thread.join()
        assert list(came) == list(sent)
        assert all(torch.equal(came[name], one) for name, one in sent.items())
        assert [came[name].dtype for name in sent] == [one.dtype for one in sent.values()]

    def test_one_who_does_not_come_is_not_waited_for(self) -> None:
        place = meeting_place("http://127.0.0.1:80")
        with pytest.raises(RuntimeError, match=r"nobody came within 0\.5 s"):
            Pair.sender(place, threading.Event(), seconds=0.5)

    def test_one_who_is_given_up_is_not_waited_for(self) -> None:
        given_up = threading.Event()
        given_up.set()
        before = time.monotonic()
        with pytest.raises(RuntimeError, match="nobody came"):
            Pair.sender(meeting_place("http://127.0.0.1:80"), given_up, seconds=300)
        assert time.monotonic() - before < 30

    def test_it_listens_to_this_machine_alone_for_a_server_on_it(self) -> None:
        with meeting_place("http://localhost:8000") as place:
            assert place.getsockname()[0] == "127.0.0.1"


def test_samples_are_of_the_policy_after_every_publish(
    policy: Policy, server: Running, tmp_path: Path
) -> None:
    engine = engine_for(policy, tmp_path, server)
    for version in (1, 2, 3):
        assert publish(engine, policy) == version
        expect_sampled_from(policy, engine)
        nudge(policy)
    assert not (tmp_path / "engine").exists(), "nothing was written"
    engine.close()


def test_a_server_that_was_away_gets_the_version_that_was_published(
    policy: Policy, model_folder: Path, tmp_path: Path
) -> None:
    """Also where the trainer's weights have moved on meanwhile."""
    first = start(model_folder)
    nudge(policy)
    engine = engine_for(policy, tmp_path, first)
    publish(engine, policy)
    wanted = {n: answer.ids for n, answer in engine.generate(REQUESTS)}
    first.kill()
    back = start(model_folder, port=int(first.url.rpartition(":")[2]))
    try:
        nudge(policy)
        with pytest.warns(UserWarning, match="is left out until"):
            found = {n: answer.ids for n, answer in engine.generate(REQUESTS)}
        assert found == wanted
    finally:
        back.kill()


def test_planted_a_server_that_reports_success_and_keeps_its_weights(
    policy: Policy, model_folder: Path, tmp_path: Path
) -> None:
    def lie(held: Any) -> None:
        held.take = lambda weights, version: held.call_weights(version)

    nudge(policy)
    with engine_server(model_folder, lie) as server:
        engine = engine_for(policy, tmp_path, server)
        with pytest.raises(TrainingError, match="nats a token from the trainer's"):
            publish(engine, policy)


def test_a_server_that_never_takes_them_is_an_error_in_time(
    policy: Policy, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (served_server, sending):
        monkeypatch.setattr(module, "CONTROL_SECONDS", 1.0)
    free = threading.Event()
    monkeypatch.setattr(receive.Transfer, "receive", lambda *_: free.wait(60))
    with engine_server(model_folder) as server:
        engine = engine_for(policy, tmp_path, server)
        before = time.monotonic()
        with (
            pytest.warns(UserWarning, match="no whole answer within 1 s"),
            pytest.raises(TrainingError, match=f"no server answers: {server.url}"),
        ):
            publish(engine, policy)
        assert time.monotonic() - before < 30
        free.set()


def test_a_trainer_that_falls_silent_leaves_the_server_as_it_was(
    policy: Policy, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive, "RECEIVED_WITHIN", 1.0)
    monkeypatch.setattr(Pair, "send", lambda pair, weights: None)
    before = {name: one.clone() for name, one in server.held.policy.model.named_parameters()}
    weights = {name: one + 1 for name, one in policy.model.named_parameters()}
    with pytest.raises(HttpError, match="the weights stopped coming"):
        VllmServer(server.url, seconds=5).receive(weights, "a-1", "gloo")
    after = dict(server.held.policy.model.named_parameters())
    assert all(torch.equal(after[name], one) for name, one in before.items())
    assert server.held.version == "0"


@pytest.mark.parametrize("change", ["missing", "another", "shape"])
def test_weights_of_another_model_are_refused_before_they_are_sent(
    policy: Policy, server: Running, change: str
) -> None:
    weights = {name: one.detach() for name, one in policy.model.named_parameters()}
    name, one = next(iter(weights.items()))
    if change == "another":
        weights["head.bias"] = one
    elif change == "shape":
        weights[name] = one.T
    else:
        del weights[name]
    wrong = "head.bias" if change == "another" else name
    before = time.monotonic()
    with pytest.raises(HttpError, match=f"not the weights of this model: {wrong}"):
        VllmServer(server.url, seconds=5).receive(weights, "a-1", "gloo")
    assert time.monotonic() - before < 60, "the sender is let go at once"


def test_a_server_without_these_routes_is_named_at_once(policy: Policy, model_folder: Path) -> None:
    weights = {name: one.detach() for name, one in policy.model.named_parameters()}
    with engine_server(model_folder, app=lambda held: FastAPI()) as server:
        before = time.monotonic()
        with pytest.raises(HttpError, match="status 404") as caught:
            VllmServer(server.url, seconds=5).receive(weights, "a-1", "gloo")
        assert time.monotonic() - before < 60, "the sender is let go at once"
    assert caught.value.where == f"{server.url}/init_weight_transfer_engine"


@pytest.mark.parametrize(
    ("engine", "lora", "said"),
    [
        ({"kind": "vllm", "url": "http://a:1", "folder": "x"}, None, "folder is for weights"),
        ({"kind": "vllm", "python": "/bin/sh"}, None, "own GPU, where NCCL wants two"),
        ({"kind": "vllm", "url": "http://a:1"}, {"rank": 4}, "sync is broadcast, and the model"),
    ],
)
def test_refused(
    model_folder: Path, write_rows: WriteRows, tmp_path: Path, engine: Any, lora: Any, said: str
) -> None:
    recipe = run_recipe(model_folder, write_rows, tmp_path, {**engine, "sync": "broadcast"})
    recipe["model"]["lora"] = lora
    with pytest.raises(UsageError, match=said):
        strop.train(recipe, rewards=[short])


def run_recipe(
    model_folder: Path, write_rows: WriteRows, tmp_path: Path, engine: dict[str, Any]
) -> dict[str, Any]:
    tasks = [{"prompt": f"Solve {n}x = {2 * n}", "answer": "2"} for n in range(1, 5)]
    return {
        "method": "grpo", "output": str(tmp_path / "run"), "model": {"path": str(model_folder)},
        "data": str(write_rows("tasks.jsonl", tasks)), "text": {"max_length": 96},
        "rollout": {"group_size": 4, "max_tokens": 12, "engine": engine},
        "optim": {"learning_rate": 1e-3}, "run": {"steps": 3, "batch_size": 2},
    }  # fmt: skip


def short(prompts: Any, completions: Any, **_: Any) -> list[float]:
    return [-float(len(c if isinstance(c, str) else c[-1]["content"])) for c in completions]


def test_a_run_sends_its_weights_to_another_process(
    model_folder: Path, write_rows: WriteRows, tmp_path: Path
) -> None:
    with process(model_folder) as url:
        engine = {"kind": "vllm", "url": url, "sync": "broadcast"}
        run = strop.train(run_recipe(model_folder, write_rows, tmp_path, engine), rewards=[short])
    assert run.metrics["reward_std"].values[0] > 0
    checks = json.loads((tmp_path / "run/lineage.json").read_text())["self_check"]
    assert checks["sampler_mismatch"] < 1e-5
    assert checks["engine"]["sync"] == "BroadcastSync"
