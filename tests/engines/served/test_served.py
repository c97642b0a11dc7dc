"""Sampling from servers: the same policy, the same draws, no sample lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.engines.draws import DrawKey, seed_of
from strop.engines.engine import PromptedTask, Request, Sampling, requests_of
from strop.engines.publish import Publisher
from strop.engines.served.build import served_engine
from strop.engines.served.engine import ServedEngine
from strop.engines.served.expect import expect_servers
from strop.errors import TrainingError, UsageError
from strop.model.load import load_policy
from strop.model.logprobs import Head, eval_mode
from strop.model.network import Policy
from strop.recipe.train.engine import VllmRecipe
from strop.recipe.train.model import ModelRecipe
from strop.types import Completion, Origin, Task, Tree
from tests.support.engine_servers import Running, engine_server, start

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


@pytest.fixture(params=["full", "lora"])
def trains(request: pytest.FixtureRequest, model_folder: Path) -> Policy:
    more = {"lora": {"rank": 4}} if request.param == "lora" else {}
    return load_policy(ModelRecipe(path=str(model_folder), **more), seed=3)


@pytest.fixture
def server(model_folder: Path) -> Iterator[Running]:
    with engine_server(model_folder) as running:
        yield running


class TestWeights:
    def test_samples_are_of_the_policy_after_every_publish(
        self, trains: Policy, server: Running, tmp_path: Path
    ) -> None:
        engine = engine_for(trains, tmp_path, server)
        said = []
        for version in (1, 2, 3):
            assert publish(engine, trains) == version
            answers = dict(engine.generate(requests()))
            assert sorted(answers) == list(range(12))
            for number, asked in enumerate(requests()):
                answer = answers[number]
                assert [span.version for span in answer.versions] == [version]
                own = trained(trains, asked, answer)
                assert torch.tensor(answer.logprobs) == pytest.approx(own, abs=1e-5)
            said.append([answers[n].ids for n in range(12)])
            nudge(trains)
        assert said[0] != said[1] != said[2]

    def test_scores_of_given_tokens_are_the_trainers(
        self, trains: Policy, server: Running, tmp_path: Path
    ) -> None:
        nudge(trains)
        engine = engine_for(trains, tmp_path, server)
        publish(engine, trains)
        answers = dict(engine.generate(requests(2)))
        trees = [Tree(PROMPTS[0].prompt_ids, (answers[0].branch(), answers[1].branch())),
                 Tree(PROMPTS[1].prompt_ids, (answers[2].branch(),))]  # fmt: skip
        with torch.no_grad(), eval_mode(trains.model):
            wanted = trains.score(trees).logprobs_N
        found = [x for branch in engine.score(trees) for x in branch]
        assert found == pytest.approx(wanted.tolist(), abs=1e-5)

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

        with engine_server(model_folder, lie) as server:
            engine = engine_for(trains, tmp_path, server)
            publish(engine, trains)
            nudge(trains, 1e-3)
            with pytest.raises(TrainingError, match="still samples from older weights"):
                publish(engine, trains)

    def test_an_unchanged_policy_is_published_once(
        self, trains: Policy, server: Running, tmp_path: Path
    ) -> None:
        engine = engine_for(trains, tmp_path, server)
        updates = [0]
        publisher = Publisher(trains, engine, lambda: updates[0])
        for _ in range(3):
            publisher.publish()
        updates[0] = 1
        publisher.publish()
        assert engine.version == 2

    def test_two_versions_stay_on_disk_and_one_adapter_on_the_server(
        self, trains: Policy, server: Running, tmp_path: Path
    ) -> None:
        engine = engine_for(trains, tmp_path, server)
        for _ in range(4):
            nudge(trains, 1e-3)
            publish(engine, trains)
        folders = sorted(path.name.rpartition("-")[2] for path in (tmp_path / "engine").iterdir())
        assert folders == ["3", "4"]
        assert len(server.held.adapters) == (1 if trains.is_adapter else 0)

    def test_a_resumed_run_leaves_no_weights_of_its_earlier_start(
        self, policy: Policy, server: Running, tmp_path: Path
    ) -> None:
        for folder in (None, tmp_path / "shared"):
            for _ in range(2):
                publish(engine_for(policy, tmp_path, server, folder=folder), policy)
        assert len(list((tmp_path / "engine").iterdir())) == 1
        assert len(list((tmp_path / "shared").iterdir())) == 2, "others may read there"


class TestDraws:
    def test_an_answer_depends_on_its_request_alone(
        self, policy: Policy, server: Running, tmp_path: Path
    ) -> None:
        engine = engine_for(policy, tmp_path, server)
        publish(engine, policy)
        asked = requests()
        together = dict(engine.generate(asked))
        backwards = dict(engine.generate(asked[::-1]))
        assert [together[n].ids for n in range(12)] == [backwards[11 - n].ids for n in range(12)]
        (alone,) = engine.generate([asked[5]])
        assert alone[1].ids == together[5].ids

    def test_every_key_has_a_seed_of_its_own(self) -> None:
        keys = [DrawKey(seed, "training", step, round_, prompt, index) for seed in (0, 1)
                for step in (0, 1) for round_ in (0, 1) for prompt in ("1,2", "1,3")
                for index in range(64)]  # fmt: skip
        seeds = {seed_of(key) for key in keys}
        assert len(seeds) == len(keys)
        assert all(0 <= seed < 2**63 for seed in seeds)
        near = [abs(a - b) for a in list(seeds)[:40] for b in list(seeds)[:40] if a != b]
        assert min(near) > 2**32, "no two seeds follow each other"


def killing_after(
    count: int, server: Running, answers: Iterator[tuple[int, Completion]]
) -> Iterator[tuple[int, Completion]]:
    """The answers; once so many have come, the server dies."""
    for number, answer in enumerate(answers, 1):
        if number == count:
            threading.Thread(target=server.kill).start()
        yield answer


class TestFleet:
    def test_a_server_killed_within_a_step_loses_no_sample_and_doubles_none(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        with ExitStack() as stack:
            alone = stack.enter_context(engine_server(model_folder))
            one = engine_for(policy, tmp_path / "a", alone)
            publish(one, policy)
            wanted = {n: answer.ids for n, answer in one.generate(requests(16))}
            first, second = (start(model_folder) for _ in range(2))
            stack.callback(second.kill)
            engine = engine_for(policy, tmp_path / "b", first, second, at_once=6)
            publish(engine, policy)
            with pytest.warns(UserWarning, match="is left out until it answers again"):
                answered = list(killing_after(3, first, engine.generate(requests(16))))
            assert len(answered) == 48
            assert {n: answer.ids for n, answer in answered} == wanted

    def test_a_restarted_server_samples_from_the_newest_weights_only(
        self, trains: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        first, second = start(model_folder), start(model_folder)
        engine = engine_for(trains, tmp_path, first, second)
        publish(engine, trains)
        first.kill()
        nudge(trains)
        with pytest.warns(UserWarning, match="is left out"):
            publish(engine, trains)
        back = start(model_folder, port=int(first.url.rpartition(":")[2]))
        try:
            second.kill()
            with pytest.warns(UserWarning, match="is left out"):
                answers = dict(engine.generate(requests()))
            for number, asked in enumerate(requests()):
                own = trained(trains, asked, answers[number])
                assert torch.tensor(answers[number].logprobs) == pytest.approx(own, abs=1e-5)
        finally:
            back.kill()

    def test_planted_a_restart_that_nobody_saw_gives_no_samples_of_other_weights(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        first = start(model_folder)
        nudge(policy)
        engine = engine_for(policy, tmp_path, first)
        publish(engine, policy)
        first.kill()
        back = start(model_folder, port=int(first.url.rpartition(":")[2]))
        try:
            with (
                pytest.raises(TrainingError, match="samples from other weights"),
                pytest.warns(UserWarning, match="is left out"),
            ):
                list(engine.generate(requests()))
            answers = dict(engine.generate(requests()))
            own = trained(policy, requests()[0], answers[0])
            assert torch.tensor(answers[0].logprobs) == pytest.approx(own, abs=1e-5)
        finally:
            back.kill()

    def test_without_any_server_the_run_stops_and_says_which(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        only = start(model_folder)
        engine = engine_for(policy, tmp_path, only)
        publish(engine, policy)
        only.kill()
        with (
            pytest.raises(TrainingError, match=f"no server answers: {only.url}"),
            pytest.warns(UserWarning, match="left out"),
        ):
            list(engine.generate(requests()))

    def test_work_goes_to_who_owes_the_fewest_tokens(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        seen: dict[str, int] = {}

        def counted(held: Any) -> None:
            plain = held.sample

            def sample(request: Request, adapter: str | None) -> Any:
                seen[str(id(held))] = seen.get(str(id(held)), 0) + 1
                return plain(request, adapter)

            held.sample = sample

        with (
            engine_server(model_folder, counted) as first,
            engine_server(model_folder, counted) as second,
        ):
            engine = engine_for(policy, tmp_path, first, second, at_once=8)
            publish(engine, policy)
            list(engine.generate(requests(16)))
        assert sum(seen.values()) == 48
        assert min(seen.values()) >= 12


class TestRefusals:
    def test_an_address_where_nobody_is(self, policy: Policy) -> None:
        recipe = VllmRecipe(kind="vllm", url=["http://127.0.0.1:9"])
        with pytest.raises(UsageError, match="no server answers here within 5 s") as caught:
            expect_servers(recipe, MODEL, policy.tokenizer, PROMPTS, answer_tokens=4)
        said = str(caught.value)
        assert "strop engine serve base --port 9" in said
        assert "--max-model-len 10 " in said, "6 tokens of the longest prompt and 4 of the answer"
        assert "--max-lora-rank 16 " in said

    def test_a_context_that_is_too_short(self, policy: Policy, server: Running) -> None:
        recipe = VllmRecipe(kind="vllm", url=[server.url])
        with pytest.raises(UsageError, match="need 5006 tokens, the server reads"):
            expect_servers(recipe, MODEL, policy.tokenizer, PROMPTS, answer_tokens=5000)

    def test_another_tokenizer(self, policy: Policy, model_folder: Path, tmp_path: Path) -> None:
        def other(held: Any) -> None:
            held.policy.tokenizer.add_tokens(["price was"])

        with (
            engine_server(model_folder, other) as server,
            pytest.raises(UsageError, match="another tokenizer"),
        ):
            engine_for(policy, tmp_path, server)

    def test_another_template(self, policy: Policy, model_folder: Path, tmp_path: Path) -> None:
        def other(held: Any) -> None:
            held.policy.tokenizer.chat_template += "!"

        with (
            engine_server(model_folder, other) as server,
            pytest.raises(UsageError, match="another chat template"),
        ):
            engine_for(policy, tmp_path, server)

    @pytest.mark.parametrize("sync", ["adapter", "disk"])
    def test_a_way_that_does_not_fit_the_model(
        self, trains: Policy, server: Running, tmp_path: Path, sync: Any
    ) -> None:
        if (sync == "adapter") == trains.is_adapter:
            return
        with pytest.raises(UsageError, match=f"sync is {sync}, and the model has"):
            engine_for(trains, tmp_path, server, sync=sync)

    def test_weights_of_somebody_else(
        self, policy: Policy, server: Running, tmp_path: Path
    ) -> None:
        engine = engine_for(policy, tmp_path, server)
        with pytest.raises(UsageError, match="the run's own policy"):
            engine.publish({"w": torch.zeros(1)})

    def test_other_weights_on_the_server(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        """An engine that does not take weights from disk samples from another model at once."""
        nudge(policy, 0.05)

        def deaf(held: Any) -> None:
            held.reload = lambda folder: held._put(None, None, lambda: None)

        with engine_server(model_folder, deaf) as server:
            engine = engine_for(policy, tmp_path, server)
            with pytest.raises(TrainingError, match="nats a token from the trainer's"):
                publish(engine, policy)
