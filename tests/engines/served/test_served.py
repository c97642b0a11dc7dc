"""Sampling from servers: the same policy, the same draws, no sample lost."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import Future
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
from strop.errors import HttpError, TrainingError, UsageError
from strop.model.load import load_policy
from strop.model.logprobs import Head, eval_mode
from strop.model.network import Policy
from strop.recipe.train.engine import VllmRecipe
from strop.recipe.train.model import ModelRecipe
from strop.types import Branch, Completion, Origin, Task, Tree
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
        assert all(one != other for one, other in itertools.combinations(said, 2))

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

    def test_a_server_that_was_restarted_unseen_gets_the_newest_weights_within_the_call(
        self, trains: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        first = start(model_folder)
        nudge(trains)
        engine = engine_for(trains, tmp_path, first)
        publish(engine, trains)
        wanted = {n: answer.ids for n, answer in engine.generate(requests())}
        trees = [Tree(PROMPTS[0].prompt_ids, (Branch(wanted[0], (True,) * len(wanted[0])),))]
        scores = engine.score(trees)

        def restarted() -> Running:
            first.kill()
            return start(model_folder, port=int(first.url.rpartition(":")[2]))

        first = restarted()
        with pytest.warns(UserWarning, match=r"is left out.*it was restarted, or serves"):
            answers = dict(engine.generate(requests()))
        assert {n: answer.ids for n, answer in answers.items()} == wanted
        first = restarted()
        with pytest.warns(UserWarning, match=r"is left out.*it was restarted, or serves"):
            again = engine.score(trees)
        assert again == [pytest.approx(scores[0], abs=1e-6)]
        first.kill()

    def test_weights_lost_between_two_answers_give_no_sample_of_others(
        self, trains: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        """The fifth sample of the call finds the server as it was when it was started."""
        seen: list[int] = []

        def forgetful(held: Any) -> None:
            plain = held.sample

            def sample(request: Request, adapter: str | None) -> Any:
                seen.append(1)
                if len(seen) == 5:
                    for name in set(held.adapters):
                        held.unload_adapter(name).result()
                    held.reload(str(model_folder)).result()
                    held.version = "0"
                return plain(request, adapter)

            held.sample = sample

        nudge(trains)
        with engine_server(model_folder) as whole, engine_server(model_folder, forgetful) as other:
            one = engine_for(trains, tmp_path / "a", whole)
            publish(one, trains)
            wanted = {n: answer.ids for n, answer in one.generate(requests())}
            engine = engine_for(trains, tmp_path / "b", other, at_once=1)
            publish(engine, trains)
            with pytest.warns(UserWarning, match="is left out"):
                answers = dict(engine.generate(requests()))
        assert {n: answer.ids for n, answer in answers.items()} == wanted
        for number, asked in enumerate(requests()):
            own = trained(trains, asked, answers[number])
            assert torch.tensor(answers[number].logprobs) == pytest.approx(own, abs=1e-5)

    def test_a_server_that_loses_its_weights_again_and_again_is_left_out(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        def shared(held: Any) -> None:
            plain = held.sample

            def sample(request: Request, adapter: str | None) -> Any:
                held.version = "another run's"
                return plain(request, adapter)

            held.sample = sample

        with engine_server(model_folder, shared) as server:
            engine = engine_for(policy, tmp_path, server)
            publish(engine, policy)
            with (
                pytest.raises(TrainingError, match=r"no server answers.*or serves another run"),
                pytest.warns(UserWarning, match="is left out"),
            ):
                list(engine.generate(requests()))

    def test_a_restart_while_weights_are_read_gives_the_old_ones_no_new_name(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        """The weights moved by less than the canary can tell, so the name alone can."""

        def restarted(held: Any) -> None:
            plain = held.reload

            def reload(folder: str) -> Any:
                done = plain(folder)
                if folder.endswith("-2"):
                    done.result()
                    held.version = "0"
                    return plain(str(model_folder))
                return done

            held.reload = reload

        with (
            engine_server(model_folder, restarted) as first,
            engine_server(model_folder) as second,
        ):
            engine = engine_for(policy, tmp_path, first, second)
            publish(engine, policy)
            nudge(policy, 1e-9)
            with pytest.warns(UserWarning, match=f"{first.url} is left out"):
                publish(engine, policy)
            assert [member.alive for member in engine.fleet.members] == [False, True]

    def test_a_request_that_nobody_could_meet_ends_the_call(
        self, trains: Policy, server: Running, tmp_path: Path
    ) -> None:
        engine = engine_for(trains, tmp_path, server)
        publish(engine, trains)
        (long,) = requests_of(PROMPTS[:1], Sampling(max_tokens=10**4), DrawKey(1, "training"), 1)
        with pytest.raises(HttpError, match=r"status 400.*the model reads"):
            list(engine.generate([long]))
        assert len(dict(engine.generate(requests()))) == 12, "and the server was not left out"

    @pytest.mark.parametrize("way", ["dies", "breaks"])
    def test_a_server_that_dies_while_it_takes_weights_is_left_out(
        self, trains: Policy, model_folder: Path, tmp_path: Path, way: str
    ) -> None:
        def take(*_: str) -> Future[None]:
            never: Future[None] = Future()
            if way == "dies":
                threading.Thread(target=first.kill).start()
            else:
                never.set_exception(RuntimeError("out of memory"))
            return never

        first = start(model_folder)
        with engine_server(model_folder) as second:
            engine = engine_for(trains, tmp_path, first, second)
            publish(engine, trains)
            first.held.load_adapter = first.held.reload = take  # type: ignore[method-assign, assignment]
            nudge(trains)
            with pytest.warns(UserWarning, match=f"{first.url} is left out"):
                publish(engine, trains)
            answers = dict(engine.generate(requests()))
            own = trained(trains, requests()[0], answers[0])
            assert torch.tensor(answers[0].logprobs) == pytest.approx(own, abs=1e-5)
            second.held.load_adapter = second.held.reload = take  # type: ignore[method-assign, assignment]
            if way == "breaks":
                with (
                    pytest.raises(TrainingError, match="no server answers"),
                    pytest.warns(UserWarning, match="is left out"),
                ):
                    publish(engine, trains)
        first.kill()

    def test_a_server_that_refuses_weights_ends_the_run(
        self, policy: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        def refuse(folder: str) -> Future[None]:
            refused: Future[None] = Future()
            refused.set_exception(UsageError("not here"))
            return refused

        with engine_server(model_folder, lambda held: setattr(held, "reload", refuse)) as server:
            engine = engine_for(policy, tmp_path, server)
            with pytest.raises(TrainingError, match="the server took no new weights: status 400"):
                publish(engine, policy)

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


class TestEnd:
    @pytest.mark.parametrize("made", [True, False])
    def test_servers_drop_the_adapter_and_its_folders_go(
        self, trains: Policy, server: Running, tmp_path: Path, made: bool
    ) -> None:
        if not made:
            (tmp_path / "engine").mkdir()
            (tmp_path / "engine" / "0badf00d-1").mkdir()
        folder = None if made else tmp_path / "engine"
        engine = engine_for(trains, tmp_path, server, folder=folder)
        for _ in range(3):
            nudge(trains, 1e-3)
            publish(engine, trains)
        engine.close()
        assert server.held.adapters == set()
        left = [path.name for path in tmp_path.glob("engine/*")]
        assert left == ([] if made else ["0badf00d-1"]), "another run's stays"
        assert (tmp_path / "engine").exists() is not made

    def test_a_server_that_is_gone_holds_up_nothing(
        self, trains: Policy, model_folder: Path, tmp_path: Path
    ) -> None:
        first = start(model_folder)
        engine = engine_for(trains, tmp_path, first)
        publish(engine, trains)
        first.kill()
        if trains.is_adapter:
            with pytest.warns(UserWarning, match="was not told that the run is over"):
                engine.close()
        else:
            engine.close()
        assert not (tmp_path / "engine").exists()


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

    def test_a_way_that_does_not_fit_the_model(
        self, trains: Policy, server: Running, tmp_path: Path
    ) -> None:
        other, has = ("disk", "an") if trains.is_adapter else ("adapter", "no")
        with pytest.raises(UsageError, match=f"sync is {other}, and the model has {has} adapter"):
            engine_for(trains, tmp_path, server, sync=other)
        own = "adapter" if trains.is_adapter else "disk"
        assert publish(engine_for(trains, tmp_path, server, sync=own), trains) == 1

    def test_a_server_whose_base_weights_another_run_changed(
        self, policy: Policy, model_folder: Path, server: Running, tmp_path: Path
    ) -> None:
        nudge(policy, 0.05)
        publish(engine_for(policy, tmp_path / "whole", server), policy)
        lora: Any = {"rank": 4}
        adapter = load_policy(ModelRecipe(path=str(model_folder), lora=lora), seed=3)
        before = [weight.requires_grad for weight in adapter.model.parameters()]
        with pytest.raises(
            TrainingError, match=r"the base weights of the server .it calls them '\w+-1'. are not"
        ):
            publish(engine_for(adapter, tmp_path / "adapter", server), adapter)
        assert [weight.requires_grad for weight in adapter.model.parameters()] == before

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
