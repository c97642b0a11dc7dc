"""Sampling from servers that speak SGLang's protocol (tests/support/sglang_app.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import strop
from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request, Sampling, requests_of
from strop.engines.served.build import served_engine
from strop.engines.served.engine import ServedEngine
from strop.engines.served.expect import expect_routes, expect_servers
from strop.engines.served.sglang import body_of, said_of
from strop.errors import HttpError, TrainingError, UsageError
from strop.model.load import load_policy
from strop.model.logprobs import Head, eval_mode
from strop.model.network import Policy
from strop.recipe.train.engine import SglangRecipe
from strop.recipe.train.model import ModelRecipe
from strop.types import Completion, Origin, Task, Tree
from tests.support.engine_servers import Running, engine_server, start
from tests.support.runs import WriteRows
from tests.support.served import killing_after, nudge, publish
from tests.support.sglang_app import Sglang

IDS = [(2, 40, 41, 42, 43, 3), (2, 50, 51, 3)]
PROMPTS = [PromptedTask(Task(str(n), {}, Origin("t", n)), ids) for n, ids in enumerate(IDS)]
SAMPLING = Sampling(temperature=0.8, max_tokens=12)


def requests(sampling: Sampling = SAMPLING, group: int = 3) -> list[Request]:
    return requests_of(PROMPTS, sampling, DrawKey(1, "training"), group)


def engine_for(policy: Policy, root: Path, *servers: Running, **options: Any) -> ServedEngine:
    recipe = SglangRecipe(kind="sglang", url=[one.url for one in servers], **options)
    lora: Any = {"rank": 4} if policy.is_adapter else None
    model = ModelRecipe(path="base", lora=lora)
    about = expect_servers(recipe, model, policy.tokenizer, PROMPTS, answer_tokens=12)
    return served_engine(recipe, about, policy, PROMPTS, folder=root / "engine")


@torch.no_grad()
def expect_sampled_from(policy: Policy, answers: dict[int, Completion]) -> None:
    """The log-probs are the policy's own at the temperature that was sampled at."""
    for number, request in enumerate(requests()):
        with eval_mode(policy.model):
            tree = Tree(request.prompt.prompt_ids, (answers[number].branches()[0],))
            own = policy.score([tree], Head(temperature=SAMPLING.temperature)).logprobs_N
        assert answers[number].sampler_logprobs() == pytest.approx(own.tolist(), abs=1e-5)


@pytest.fixture(params=["full", "lora"])
def trains(request: pytest.FixtureRequest, model_folder: Path) -> Policy:
    more = {"lora": {"rank": 4}} if request.param == "lora" else {}
    return load_policy(ModelRecipe(path=str(model_folder), **more), seed=3)


@pytest.fixture
def server(model_folder: Path) -> Iterator[Running]:
    with engine_server(model_folder, app=Sglang().app) as running:
        yield running


def test_samples_and_scores_are_of_the_policy_after_every_publish(
    trains: Policy, server: Running, tmp_path: Path
) -> None:
    engine = engine_for(trains, tmp_path, server)
    said = []
    for version in (1, 2, 3):
        assert publish(engine, trains) == version
        answers = dict(engine.generate(requests()))
        assert {span.version for one in answers.values() for span in one.versions} == {version}
        expect_sampled_from(trains, answers)
        tree = Tree(PROMPTS[0].prompt_ids, (answers[0].branches()[0],))
        with torch.no_grad(), eval_mode(trains.model):
            wanted = trains.score([tree]).logprobs_N.tolist()
        assert engine.score([tree])[0] == pytest.approx(wanted, abs=1e-5)
        said.append([answers[n].ids for n in range(6)])
        nudge(trains)
    assert said[0] != said[1] != said[2]
    assert len(server.held.adapters) == (1 if trains.is_adapter else 0)


def test_another_run_finds_the_model_under_the_name_it_was_started_with(
    policy: Policy, server: Running, model_folder: Path, tmp_path: Path
) -> None:
    """SGLang takes the name of the folder whose weights it read last."""
    first = engine_for(policy, tmp_path / "a", server)
    publish(first, policy)
    with engine_server(model_folder, app=Sglang().app) as fresh:
        second = engine_for(policy, tmp_path / "b", server, fresh)
    assert first.about.model == second.about.model == str(model_folder)


def test_an_answer_depends_on_its_request_alone(
    policy: Policy, server: Running, tmp_path: Path
) -> None:
    engine = engine_for(policy, tmp_path, server)
    publish(engine, policy)
    together = {n: one.ids for n, one in engine.generate(requests())}
    assert len(set(together.values())) > 3, "every sample has a seed of its own"
    ((_, alone),) = engine.generate(requests()[4:5])
    assert alone.ids == together[4]


def test_stop_strings_end_an_answer_and_its_text(
    policy: Policy, server: Running, tmp_path: Path
) -> None:
    engine = engine_for(policy, tmp_path, server)
    publish(engine, policy)
    ((_, free),) = engine.generate(requests()[:1])
    stop = free.text[len(free.text) // 2 :][:1]
    sampling = replace(SAMPLING, stop=(stop,), include_stop_str_in_output=False)
    ((_, ended),) = engine.generate(requests(sampling)[:1])
    assert ended.finish == "stop"
    assert ended.text == free.text[: free.text.index(stop)]
    assert ended.ids == free.ids[: len(ended.ids)] != free.ids


class TestLogprobs:
    """SGLang says them before truncation, and of a greedy token at temperature 1."""

    @pytest.mark.parametrize("cut", [{"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.2}])
    def test_of_truncated_draws_are_unknown(
        self, policy: Policy, server: Running, tmp_path: Path, cut: dict[str, Any]
    ) -> None:
        engine = engine_for(policy, tmp_path, server)
        publish(engine, policy)
        answers = dict(engine.generate(requests(replace(SAMPLING, **cut))))
        assert all(one.logprobs is None and one.ids for one in answers.values())
        with pytest.raises(UsageError, match="log-prob"):
            answers[0].sampler_logprobs()

    def test_of_a_greedy_token_is_that_of_the_only_choice(
        self, policy: Policy, server: Running, tmp_path: Path
    ) -> None:
        engine = engine_for(policy, tmp_path, server)
        publish(engine, policy)
        answers = dict(engine.generate(requests(replace(SAMPLING, temperature=0.0))))
        assert len({answers[n].ids for n in range(3)}) == 1
        assert answers[0].logprobs == (0.0,) * len(answers[0].ids)


class TestWire:
    def test_what_is_asked(self) -> None:
        request = Request(PROMPTS[1], Sampling(temperature=0.5, max_tokens=7), DrawKey(3, "eval"))
        body = body_of(request, "a1-2", [3])
        assert (body["input_ids"], body["lora_path"]) == ([2, 50, 51, 3], "a1-2")
        how = body["sampling_params"]
        assert (how["temperature"], how["max_new_tokens"], how["stop_token_ids"]) == (0.5, 7, [3])
        assert how["top_k"] == -1, "0 is refused there"
        other = body_of(replace(request, key=DrawKey(3, "eval", index=1)), None, [3])
        assert other["sampling_params"]["sampling_seed"] != how["sampling_seed"]
        assert "lora_path" not in other

    def test_how_answers_end(self) -> None:
        about = {"weight_version": "a-1", "output_token_logprobs": [[-0.5, 7, None]]}
        for said, finish in (("stop", "stop"), ("length", "length"), ("abort", "aborted")):
            answer = {"meta_info": {**about, "finish_reason": {"type": said}}}
            assert said_of(answer, SAMPLING, "u").finish == finish
        early = {"meta_info": {"weight_version": "a-1", "finish_reason": {"type": "abort"}}}
        assert said_of(early, SAMPLING, "u").ids == ()

    def test_every_version_that_sampled_is_named(self) -> None:
        spans = [{"version": "a-2", "start": 1, "end": 2}, {"version": "a-1", "start": 0, "end": 1}]
        about = {"weight_version": "a-2", "weight_versions": spans, "output_token_logprobs": [],
                 "finish_reason": {"type": "length"}}  # fmt: skip
        said = said_of({"meta_info": about}, SAMPLING, "u")
        assert {span.label for span in said.spans} == {"a-1", "a-2"}

    @pytest.mark.parametrize("said", [None, [], {}, {"meta_info": {"finish_reason": None}}, {
        "meta_info": {"finish_reason": {"type": "stop"}, "weight_version": "a"}}])  # fmt: skip
    def test_an_answer_of_another_form_is_an_error(self, said: Any) -> None:
        with pytest.raises(HttpError, match="no tokens with log-probs"):
            said_of(said, SAMPLING, "http://a:1")

    def test_an_aborted_answer_is_marked(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        how = Sglang(abort=lambda request: request.prompt.prompt_ids == IDS[1])
        with engine_server(model_folder, app=how.app) as server:
            engine = engine_for(policy, tmp_path, server)
            publish(engine, policy)
            answers = dict(engine.generate(requests()))
        assert [answers[n].finish == "aborted" for n in range(6)] == [False] * 3 + [True] * 3


class TestWeights:
    def test_planted_a_server_that_reports_success_and_keeps_its_weights(
        self, trains: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        def lie(held: Any) -> None:
            first: list[str] = []

            def load(name: str, folder: str) -> Any:
                first.append(folder)
                return type(held).load_adapter(held, name, first[0])

            held.load_adapter = load
            held.reload = lambda folder: held._put(None, None, lambda: None)

        with engine_server(model_folder, lie, Sglang().app) as server:
            engine = engine_for(trains, tmp_path, server)
            publish(engine, trains)
            nudge(trains, 1e-3)
            with pytest.raises(TrainingError, match="still samples from older weights"):
                publish(engine, trains)

    def test_weights_that_it_cannot_read_stop_the_run(
        self, policy: Policy, server: Running, tmp_path: Path
    ) -> None:
        engine = engine_for(policy, tmp_path, server)
        sync: Any = engine.sync
        sync.write = lambda *_: None
        with pytest.raises(TrainingError, match="the server took no new weights: status 400"):
            publish(engine, policy)

    def test_a_server_killed_within_a_step_loses_no_sample(
        self, policy: Policy, model_folder: Path, server: Running, tmp_path: Path
    ) -> None:
        alone = engine_for(policy, tmp_path / "a", server)
        publish(alone, policy)
        wanted = {n: one.ids for n, one in alone.generate(requests(group=12))}
        first = start(model_folder, app=Sglang().app)
        engine = engine_for(policy, tmp_path / "b", first, server, at_once=4)
        publish(engine, policy)
        answers = killing_after(3, first, engine.generate(requests(group=12)))
        with pytest.warns(UserWarning, match="is left out until it answers again"):
            found = {n: one.ids for n, one in answers}
        assert found == wanted

    def test_a_restart_that_nobody_saw_gives_no_samples_of_other_weights(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        first = start(model_folder, app=Sglang().app)
        nudge(policy)
        engine = engine_for(policy, tmp_path, first)
        publish(engine, policy)
        first.kill()
        port = int(first.url.rpartition(":")[2])
        back = start(model_folder, port, app=Sglang().app)
        try:
            with pytest.warns(UserWarning, match=r"samples from other weights \(default\)"):
                answers = dict(engine.generate(requests()))
            expect_sampled_from(policy, answers)
        finally:
            back.kill()


class TestRefusals:
    @pytest.mark.parametrize(
        ("how", "said", "fix"),
        [
            (Sglang(deterministic=False), "reads no seeds", "--enable-deterministic-inference"),
            (Sglang(original_logprobs=True), "before the division by the temperature",
             "without SGLANG_RETURN_ORIGINAL_LOGPROB"),
            (Sglang(preferred={"repetition_penalty": 1.1}), "samples in a way of its own",
             "without --preferred-sampling-params"),
        ],
    )  # fmt: skip
    def test_servers_that_run_in_another_way(
        self, policy: Policy, model_folder: Path, tmp_path: Path, how: Sglang, said: str, fix: str
    ) -> None:
        with (
            engine_server(model_folder, app=how.app) as server,
            pytest.raises(UsageError, match=said) as caught,
        ):
            engine_for(policy, tmp_path, server)
        assert fix in str(caught.value)

    def test_another_tokenizer(self, policy: Policy, model_folder: Path, tmp_path: Path) -> None:
        def other(held: Any) -> None:
            held.policy.tokenizer.add_tokens(["price was"])

        with (
            engine_server(model_folder, other, Sglang().app) as server,
            pytest.raises(UsageError, match="another tokenizer"),
        ):
            engine_for(policy, tmp_path, server)

    def test_routing_replay(self, policy: Policy, server: Running) -> None:
        recipe = SglangRecipe(kind="sglang", url=[server.url])
        with pytest.raises(UsageError, match="the experts of SGLang's answers are not read"):
            expect_routes(recipe, PROMPTS[0])

    def test_a_server_of_the_other_protocol(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        with (
            engine_server(model_folder) as server,
            pytest.raises(UsageError, match="another protocol than SGLang's"),
        ):
            engine_for(policy, tmp_path, server)

    def test_an_address_where_nobody_is(self, policy: Policy) -> None:
        recipe = SglangRecipe(kind="sglang", url=["http://127.0.0.1:9"])
        model = ModelRecipe(path="base", lora={"rank": 12})  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="no server answers here within 5 s") as caught:
            expect_servers(recipe, model, policy.tokenizer, PROMPTS, answer_tokens=4)
        said = str(caught.value)
        assert "sglang.launch_server --model-path base --host 127.0.0.1 --port 9" in said
        assert "--context-length 10 --enable-deterministic-inference" in said
        assert "--max-lora-rank 12 " in said


def test_a_run_samples_from_it_and_its_ratios_are_one(
    model_folder: Path, write_rows: WriteRows, server: Running, tmp_path: Path
) -> None:
    def short(prompts: Any, completions: Any, **_: Any) -> list[float]:
        return [-float(len(c if isinstance(c, str) else c[-1]["content"])) for c in completions]

    tasks = [{"prompt": f"Solve {n}x = {2 * n}", "answer": "2"} for n in range(1, 5)]
    recipe = {
        "method": "grpo", "output": str(tmp_path / "run"),
        "model": {"path": str(model_folder)},
        "data": str(write_rows("tasks.jsonl", tasks)), "text": {"max_length": 96},
        "rollout": {"group_size": 4, "max_tokens": 12, "temperature": 0.9,
                    "engine": {"kind": "sglang", "url": server.url}},
        "optim": {"learning_rate": 1e-3}, "run": {"steps": 2, "batch_size": 2},
    }  # fmt: skip
    run = strop.train(recipe, rewards=[short])
    assert run.metrics["reward_std"].values[0] > 0
    checks = json.loads((tmp_path / "run/lineage.json").read_text())["self_check"]
    assert checks["sampler_mismatch"] < 1e-5
    assert checks["engine"]["servers"] == [server.url]
