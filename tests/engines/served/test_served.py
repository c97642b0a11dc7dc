"""Sampling from servers: the same policy, the same draws."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.engines.draws import DrawKey, seed_of
from strop.engines.publish import Publisher
from strop.engines.served.expect import expect_servers
from strop.errors import TrainingError, UsageError
from strop.model.load import load_policy
from strop.model.logprobs import eval_mode
from strop.model.network import Policy
from strop.recipe.train.engine import VllmRecipe
from strop.recipe.train.model import ModelRecipe
from strop.types import Tree
from tests.support.engine_servers import Running, engine_server, start
from tests.support.served import (
    MODEL,
    PROMPTS,
    engine_for,
    nudge,
    publish,
    requests,
    trained,
)


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
        trees = [Tree(PROMPTS[0].prompt_ids, (answers[0].branches()[0], answers[1].branches()[0])),
                 Tree(PROMPTS[1].prompt_ids, (answers[2].branches()[0],))]  # fmt: skip
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

    def test_an_adapter_on_weights_that_another_run_replaced(
        self, model_folder: Path, server: Running, tmp_path: Path
    ) -> None:
        """However little they differ: the canary alone would let them pass."""
        whole = load_policy(ModelRecipe(path=str(model_folder)))
        first = engine_for(whole, tmp_path / "whole", server)
        publish(first, whole)
        first.close()
        policy = load_policy(ModelRecipe(path=str(model_folder), lora={"rank": 4}), seed=3)  # type: ignore[arg-type]
        engine = engine_for(policy, tmp_path / "adapter", server)
        with pytest.raises(TrainingError, match=r"base weights are not those it was started with"):
            publish(engine, policy)

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
        assert not server.held.adapters
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

    def test_a_server_that_was_started_with_another_model(
        self, policy: Policy, model_folder: Path, server: Running, tmp_path: Path
    ) -> None:
        """It has the same tokenizer; what it was started with was changed behind its back."""
        nudge(policy, 0.05)
        own = dict(policy.model.named_parameters())
        with torch.no_grad():
            for name, weight in server.held.policy.model.named_parameters():
                weight.copy_(own[name])
        lora: Any = {"rank": 4}
        adapter = load_policy(ModelRecipe(path=str(model_folder), lora=lora), seed=3)
        before = [weight.requires_grad for weight in adapter.model.parameters()]
        with pytest.raises(TrainingError, match=r"the base weights of the server .*'0'. are not"):
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
