"""A model that is served: what fails fails alone, and leaves the model as it was."""

from __future__ import annotations

import concurrent.futures
import json
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request, Sampling
from strop.engines.local.continuous import Continuous
from strop.engines.local.engine import LocalEngine
from strop.engines.server.held import Held
from strop.errors import ModelError, UsageError
from strop.model.adapters import only_adapter
from strop.model.load import load_policy
from strop.model.packed import Packing
from strop.model.plain import PlainStep
from strop.model.save import save_network
from strop.recipe.train.model import ModelRecipe
from strop.types import Completion, Origin, Task
from tests.support.arrivals import expect_same

IDS = (2, 40, 41, 42, 3)


def request(*ids: int, seed: int = 0, **how: Any) -> Request:
    prompt = PromptedTask(Task("", {}, Origin("t", 0)), ids or IDS)
    return Request(prompt, Sampling(**{"max_tokens": 6, **how}), DrawKey(seed, "served"))


@pytest.fixture
def held(model_folder: Path) -> Iterator[Held]:
    made = Held(str(model_folder))
    yield made
    made.close()


@pytest.fixture(scope="module")
def adapter(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of this model that changes what it says."""
    lora: Any = {"rank": 4}
    policy = load_policy(ModelRecipe(path=str(model_folder), lora=lora), seed=3)
    draw = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in policy.trainable():
            weight += 0.1 * torch.randn(weight.shape, generator=draw)
    folder = tmp_path_factory.mktemp("adapter")
    save_network(policy, folder)
    return folder


def broken(adapter: Path, way: str, tmp_path: Path) -> Path:
    """The adapter with something wrong in its files."""
    folder = tmp_path / "broken"
    shutil.copytree(adapter, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    weights = load_file(folder / "adapter_model.safetensors")
    if way == "rank":
        config["r"] = 8
    elif way == "targets":
        config["target_modules"] = ["nobody"]
    elif way == "missing":
        weights.pop(max(weights))
    elif way == "unknown":
        weights["base_model.model.nobody.lora_A.weight"] = torch.zeros(4, 4)
    elif way == "torn":
        weights = {}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(weights, folder / "adapter_model.safetensors")
    if way == "torn":
        (folder / "adapter_model.safetensors").write_bytes(b"\x00" * 20)
    return folder


class TestAdapters:
    @pytest.mark.parametrize("before", ["nothing", "another"])
    @pytest.mark.parametrize("way", ["rank", "targets", "missing", "unknown", "torn"])
    def test_one_that_cannot_be_loaded_leaves_the_model_as_it_was(
        self, held: Held, adapter: Path, tmp_path: Path, way: str, before: str
    ) -> None:
        base = held.score(IDS, None).result().what
        if before == "another":
            held.load_adapter("first", str(adapter)).result()
            with_first = held.score(IDS, "first").result().what
        with pytest.raises(ModelError, match="the adapter does not fit the model"):
            held.load_adapter("bad", str(broken(adapter, way, tmp_path))).result()
        assert held.score(IDS, None).result().what == base
        assert "bad" not in held.adapters
        assert held.policy.is_adapter is (before == "another")
        if before == "another":
            assert held.score(IDS, "first").result().what == with_first
        held.load_adapter("bad", str(adapter)).result()
        assert held.score(IDS, "bad").result().what != base
        assert held.sample(request(), "bad").result().what.ids

    def test_without_the_last_one_the_server_holds_its_model_alone(
        self, held: Held, adapter: Path, model_folder: Path
    ) -> None:
        base, drawn = (
            held.score(IDS, None).result().what,
            held.sample(request(), None).result().what.ids,
        )
        for _ in range(2):
            for name in ("a", "b"):
                held.load_adapter(name, str(adapter)).result()
            changed = held.score(IDS, "b").result().what
            assert changed != base
            held.unload_adapter("a").result()
            assert held.score(IDS, "b").result().what == changed
            held.unload_adapter("b").result()
            assert held.score(IDS, None).result().what == base
            assert held.sample(request(), None).result().what.ids == drawn
            assert not held.policy.is_adapter
        held.reload(str(model_folder)).result()
        with pytest.raises(UsageError, match="no adapter 'b' is loaded"):
            held.unload_adapter("b").result()


class TestWeights:
    @pytest.mark.parametrize("way", ["shape", "name", "adapter"])
    def test_those_that_do_not_fit_change_nothing(
        self, held: Held, model_folder: Path, adapter: Path, tmp_path: Path, way: str
    ) -> None:
        base = held.score(IDS, None).result().what
        other = adapter
        if way != "adapter":
            other = tmp_path / "other"
            shutil.copytree(model_folder, other)
            weights = {k: v + 1 for k, v in load_file(other / "model.safetensors").items()}
            last = max(weights)
            weights["nobody" if way == "name" else last] = torch.zeros(3)
            save_file(weights, other / "model.safetensors")
        with pytest.raises(ModelError, match=r"unknown weights|no whole weights"):
            held.reload(str(other)).result()
        assert held.score(IDS, None).result().what == base


PROMPT = (2, *range(40, 80))
"""So long that keys of it are kept."""


class TestPrefixes:
    """What was read of a prompt before a change of weights is not taken after it."""

    @staticmethod
    def fresh(held: Held, adapter: str | None = None) -> Completion:
        """What an engine says that has read nothing before."""
        engine = LocalEngine(held.path, held.policy)
        with only_adapter(held.policy.model, held.adapters.get(adapter or "")):
            return next(iter(engine.generate([request(*PROMPT)])))[1]

    @pytest.fixture
    def moved(self, model_folder: Path, tmp_path: Path) -> Path:
        """The model with other weights."""
        shutil.copytree(model_folder, tmp_path / "moved")
        weights = load_file(model_folder / "model.safetensors")
        other = {name: 1.3 * weight for name, weight in weights.items()}
        save_file(other, tmp_path / "moved" / "model.safetensors")
        return tmp_path / "moved"

    @staticmethod
    def reload(held: Held, moved: Path) -> None:
        held.reload(str(moved)).result()

    @staticmethod
    def take(held: Held, moved: Path) -> None:
        weights = dict(LocalEngine(str(moved)).policy().model.named_parameters())
        held.take(weights, "1").result()

    @pytest.mark.parametrize("change", [reload, take])
    def test_weights(self, held: Held, moved: Path, change: Callable[[Held, Path], None]) -> None:
        before = held.sample(request(*PROMPT), None).result().what
        prefixes = held.engine._prefixes
        assert prefixes is not None
        assert prefixes.bytes > 0
        change(held, moved)
        assert prefixes.bytes == 0
        after = held.sample(request(*PROMPT), None).result().what
        expect_same(after, self.fresh(held))
        assert abs(after.sampler_logprobs()[0] - before.sampler_logprobs()[0]) > 1e-3

    def test_an_adapter_under_the_name_of_an_earlier_one(
        self, held: Held, adapter: Path, tmp_path: Path
    ) -> None:
        held.load_adapter("stays", str(adapter)).result()
        held.load_adapter("a", str(adapter)).result()
        held.sample(request(*PROMPT), "a").result()
        held.unload_adapter("a").result()
        folder = tmp_path / "other"
        shutil.copytree(adapter, folder)
        weights = load_file(folder / "adapter_model.safetensors")
        other = {name: -2 * weight for name, weight in weights.items()}
        save_file(other, folder / "adapter_model.safetensors")
        held.load_adapter("a", str(folder)).result()
        expect_same(held.sample(request(*PROMPT), "a").result().what, self.fresh(held, "a"))


class TestKeptLayers:
    """Copies of layers stay from one answer to the next, and never outlive what they are of."""

    def test_they_are_made_once(self, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[int] = []
        copied = PlainStep._products

        def noted(self: PlainStep, packing: Packing) -> Any:
            made.append(1)
            return copied(self, packing)

        monkeypatch.setattr(PlainStep, "_products", noted)
        monkeypatch.setattr("strop.model.plain.room_on", lambda device: 2**20)
        held.sample(request(), None).result()  # tries the layers out, and copies those that stay
        made.clear()
        for seed in range(3):
            held.sample(request(seed=seed), None).result()
        assert made == []

    def test_an_adapter_that_comes_and_goes_after_the_model_was_asked(
        self, held: Held, adapter: Path
    ) -> None:
        asked = request(*PROMPT, max_tokens=12)
        alone = held.sample(asked, None).result().what
        held.load_adapter("a", str(adapter)).result()
        changed = held.sample(asked, "a").result().what
        with only_adapter(held.policy.model, held.adapters["a"]):
            fresh = LocalEngine(held.path, held.policy)
            expect_same(changed, next(iter(fresh.generate([asked])))[1])
        assert abs(changed.sampler_logprobs()[0] - alone.sampler_logprobs()[0]) > 1e-3
        expect_same(held.sample(asked, None).result().what, alone)
        held.unload_adapter("a").result()
        expect_same(held.sample(asked, None).result().what, alone)


class TestRequests:
    def test_one_with_an_unknown_token_fails_alone(self, held: Held) -> None:
        wanted = held.sample(request(seed=1), None).result().what.ids
        told = [held.sample(request(2, 10**6), None), held.sample(request(seed=1), None),
                held.score((10**6, 2), None), held.score(IDS, None)]  # fmt: skip
        for bad in (told[0], told[2]):
            with pytest.raises(UsageError, match="there is no token 1000000: the model knows"):
                bad.result()
        assert told[1].result().what.ids == wanted
        assert len(told[3].result().what) == len(IDS) - 1
        assert held.score((7,), None).result().what == ()

    @pytest.mark.parametrize("when", ["it joins", "it decodes"])
    def test_one_that_breaks_takes_no_other_with_it(
        self, held: Held, when: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = [request(seed=seed, max_tokens=12) for seed in range(4)]
        wanted = [held.sample(one, None).result().what.ids for one in asked]
        rounds = Continuous._round
        failed = []

        def is_bad(pair: tuple[Any, Request]) -> bool:
            return pair[1].prompt.prompt_ids == (2, 9)

        def planted(self: Continuous[Any]) -> list[Any]:
            bad = any(map(is_bad, self._decoding.values()))
            if bad or (when == "it joins" and any(map(is_bad, self._waiting))):
                failed.append(len(self.decoding) + len(self.waiting))
                raise RuntimeError("planted")
            return rounds(self)

        monkeypatch.setattr(Continuous, "_round", planted)
        futures = [held.sample(one, None) for one in asked]
        bad = held.sample(request(2, 9, max_tokens=12), None)
        with pytest.raises(RuntimeError, match="planted"):
            bad.result(60)
        assert [future.result(60).what.ids for future in futures] == wanted
        assert max(failed) > 1, "others were with it"
        assert failed[-1] == 1, "then it was alone"
        assert not held._lanes.busy

    def test_one_called_off_while_it_decodes(
        self, held: Held, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between two turns, and within the turn that ends it: then nobody is told."""
        rounds, begun, go_on = Continuous._round, threading.Event(), threading.Event()

        def held_up(self: Continuous[Any]) -> list[Any]:
            begun.set()
            assert go_on.wait(20)
            return rounds(self)

        monkeypatch.setattr(Continuous, "_round", held_up)
        for tokens in (1, 40):  # the first one ends in the turn that it is called off in
            begun.clear()
            go_on.clear()
            gone = held.sample(request(max_tokens=tokens), None)
            assert begun.wait(20)
            assert gone.cancel()
            other = held.sample(request(seed=1), None)
            go_on.set()
            assert other.result(20).what.ids
            assert gone.cancelled()
            assert concurrent.futures.wait([gone], 20).not_done == set(), "who waits is told"

    def test_one_that_nobody_waits_for_any_more(self, held: Held) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def wait() -> None:
            begun.set()
            go_on.wait(20)

        first: Future[Any] = held._put(None, None, wait)
        begun.wait(20)
        called_off = [held.sample(request(), None), held.score(IDS, None)]
        assert all(future.cancel() for future in called_off)
        assert not first.cancel(), "what has begun ends"
        go_on.set()
        assert held.sample(request(), None).result(20).what.ids
        assert len(held.score(IDS, None).result(20).what) == len(IDS) - 1

    @pytest.mark.parametrize("temperature", [1e-7, 1e-39, 1e-60, 5e-324])
    def test_the_coldest_draws_are_the_likeliest_tokens_with_log_probs(
        self, held: Held, temperature: float
    ) -> None:
        wanted = held.sample(request(temperature=0.0, max_tokens=12), None).result().what
        found = held.sample(request(temperature=temperature, max_tokens=12), None).result().what
        assert found.ids == wanted.ids
        assert all(math.isclose(x, 0.0, abs_tol=1e-6) for x in found.sampler_logprobs())
