"""Answers told as they are drawn; adapters that come and go meanwhile; prompts read apart."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request, Sampling
from strop.engines.local.continuous import Continuous
from strop.engines.server.held import Held
from strop.engines.server.lanes import LONG_TURN, TURN, Progress
from strop.errors import UsageError
from strop.model.decode import TreeDecoder
from strop.model.load import load_policy
from strop.model.reading import Reading
from strop.model.save import save_network
from strop.recipe.train.model import ModelRecipe
from strop.types import Completion, Origin, Task

IDS = (2, 40, 41, 42, 3)


def request(*ids: int, seed: int = 0, salt: str = "", **how: Any) -> Request:
    prompt = PromptedTask(Task("", {}, Origin("t", 0)), ids or IDS, salt=salt)
    return Request(prompt, Sampling(**{"max_tokens": 30, **how}), DrawKey(seed, "served"))


def endless(path: str) -> Held:
    """A server whose answers have the length that they may have."""
    made = Held(path)
    made.engine._sampler.stop_ids = frozenset()
    return made


@pytest.fixture
def held(model_folder: Path) -> Iterator[Held]:
    made = endless(str(model_folder))
    yield made
    made.close()


def adapter_of(model_folder: Path, folder: Path, seed: int, **lora: Any) -> str:
    """An adapter of this model that changes what it says."""
    how: Any = {"rank": 4, **lora}
    policy = load_policy(ModelRecipe(path=str(model_folder), lora=how), seed=3)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.trainable():
            weight += 0.1 * torch.randn(weight.shape, generator=draw)
    save_network(policy, folder)
    return str(folder)


@pytest.fixture(scope="module")
def adapters(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two of one shape, and one of another rank over other layers."""
    root = tmp_path_factory.mktemp("adapters")
    shapes: tuple[dict[str, Any], ...] = ({}, {}, {"rank": 7, "targets": ["q_proj", "up_proj"]})
    return [
        adapter_of(model_folder, root / str(seed), seed, **shape)
        for seed, shape in enumerate(shapes, start=1)
    ]


class Gate:
    """Holds the thread that draws at its next token, so that a test decides what comes between."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.rounds = 0
        plain = Continuous._round

        def held_up(decoding: Continuous[Any]) -> list[Any]:
            self.rounds += 1
            self.reached.set()
            assert self.go_on.wait(30)
            return plain(decoding)

        monkeypatch.setattr(Continuous, "_round", held_up)


class Ends:
    """In which order futures came to an end, as the thread says that brings it about."""

    def __init__(self, **futures: Future[Any]) -> None:
        self.order: list[str] = []
        for name, future in futures.items():
            self.note(name, future)

    def note(self, name: str, future: Future[Any]) -> None:
        future.add_done_callback(lambda _: self.order.append(name))


class Heard:
    """What was told of one answer."""

    def __init__(self) -> None:
        self.parts: list[Progress] = []

    def __call__(self, progress: Progress) -> None:
        self.parts.append(progress)

    def expect(self, made: Completion) -> None:
        """All of it, exactly, and each token once."""
        assert tuple(i for part in self.parts for i in part.ids) == made.ids
        assert tuple(x for part in self.parts for x in part.logprobs) == made.logprobs
        listed = tuple(one for part in self.parts for one in part.likeliest)
        assert listed == (made.likeliest or ())


class TestStreams:
    def test_what_is_told_is_the_completion(self, held: Held) -> None:
        hows: list[dict[str, Any]] = [
            {}, {"top_logprobs": 3}, {"max_tokens": 1}, {"stop": ("1",)}, {"temperature": 0.0},
            {"presence_penalty": 1.0, "top_logprobs": 2},
        ]  # fmt: skip
        asked = [request(seed=n, **how) for n, how in enumerate(hows)]
        plain = [held.sample(one, None).result(30).what for one in asked]
        heard = [Heard() for _ in asked]
        futures = [held.sample(one, None, h) for one, h in zip(asked, heard, strict=True)]
        for future, told, wanted in zip(futures, heard, plain, strict=True):
            made = future.result(30).what
            assert made.ids == wanted.ids, "to be told changes no draw"
            told.expect(made)

    def test_the_first_token_is_told_at_once_and_others_a_turn_at_a_time(self, held: Held) -> None:
        told = Heard()
        made = held.sample(request(max_tokens=14), None, told).result(30).what
        assert len(made.ids) == 14
        assert [len(part.ids) for part in told.parts] == [1, TURN, TURN, TURN, 1]

    def test_where_nobody_is_told_a_turn_is_long(
        self, held: Held, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        turns: list[int] = []
        plain = Continuous.step

        def counted(self: Continuous[Any], tokens: int, *more: Any) -> list[Any]:
            turns.append(tokens)
            return plain(self, tokens, *more)

        monkeypatch.setattr(Continuous, "step", counted)
        held.sample(request(max_tokens=100), None).result(30)
        assert turns == [LONG_TURN, LONG_TURN]

    def test_who_comes_in_a_long_turn_waits_for_one_token(
        self, held: Held, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = Gate(monkeypatch)
        long = held.sample(request(max_tokens=60), None)
        assert gate.reached.wait(30)
        short = held.sample(request(seed=1, max_tokens=1), None)
        rounds: list[int] = []
        for future in (short, long):
            future.add_done_callback(lambda _: rounds.append(gate.rounds))
        gate.go_on.set()
        assert len(long.result(30).what.ids) == 60
        assert rounds == [2, 60]

    def test_one_that_cannot_be_told_fails_alone(self, held: Held) -> None:
        def torn(progress: Progress) -> None:
            raise OSError("planted")

        other = held.sample(request(seed=1), None)
        wanted = other.result(30).what.ids
        for tokens in (1, 30):
            bad = held.sample(request(max_tokens=tokens), None, torn)
            good = held.sample(request(seed=1), None)
            with pytest.raises(OSError, match="planted"):
                bad.result(30)
            assert good.result(30).what.ids == wanted

    def test_one_that_is_called_off_is_told_nothing_more(
        self, held: Held, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told, gate = Heard(), Gate(monkeypatch)
        future = held.sample(request(max_tokens=100), None, told)
        assert gate.reached.wait(30)
        assert future.cancel()
        gate.go_on.set()
        assert held.sample(request(seed=1), None).result(30).what.ids
        assert told.parts == []
        assert not held._lanes.busy
        assert gate.rounds <= 31, "its row was given up after the token at which it was noticed"

    def test_one_whose_lane_fails_is_told_each_token_once(
        self, held: Held, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is asked again alone, and goes on where it was."""
        told, failed = Heard(), threading.Event()
        plain = Continuous._round

        def planted(self: Continuous[Any]) -> list[Any]:
            if len(told.parts) == 3 and not failed.is_set():
                failed.set()
                raise RuntimeError("planted")
            return plain(self)

        monkeypatch.setattr(Continuous, "_round", planted)
        wanted = held.sample(request(), None).result(30).what
        made = held.sample(request(), None, told).result(30).what
        assert failed.is_set()
        assert made.ids == wanted.ids
        told.expect(made)


class TestAdapters:
    """Those who decode go on while others come and go."""

    @staticmethod
    def expect_answer(future: Future[Any], wanted: Completion) -> None:
        made = future.result(30).what
        assert made.ids == wanted.ids
        assert made.logprobs == pytest.approx(wanted.logprobs, abs=2e-5)

    def test_of_different_shapes(self, held: Held, model_folder: Path, adapters: list[str]) -> None:
        """Each is what a server that holds it alone says."""
        wanted = [held.sample(request(), None).result(30).what]
        for folder in adapters:
            alone = endless(held.path)
            alone.load_adapter("x", folder).result(30)
            wanted.append(alone.sample(request(), "x").result(30).what)
            alone.close()
        assert len({made.ids for made in wanted}) == 4
        for number, folder in enumerate(adapters):
            held.load_adapter(f"v/{number}.0", folder).result(30)
        names = [None, *(f"v/{number}.0" for number in range(3))]
        futures = [held.sample(request(), name) for name in names * 2]
        for future, made in zip(futures, wanted * 2, strict=True):
            self.expect_answer(future, made)

    @pytest.mark.parametrize("before", [False, True])
    def test_one_that_is_loaded_disturbs_nobody(
        self, held: Held, adapters: list[str], before: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first, and one after others: no answer has to end before."""
        if before:
            held.load_adapter("old", adapters[0]).result(30)
        names = [None, "old"] if before else [None]
        asked = request(max_tokens=60)
        wanted = {name: held.sample(asked, name).result(30).what for name in names}
        gate = Gate(monkeypatch)
        futures = {name: held.sample(asked, name) for name in names}
        assert gate.reached.wait(30)
        loaded = held.load_adapter("new", adapters[1])
        score = held.score(IDS, None)
        first = held.sample(request(max_tokens=1), "new")
        ends = Ends(loaded=loaded, score=score, first=first)
        for future in futures.values():
            ends.note("others", future)
        gate.go_on.set()
        for name, future in futures.items():
            self.expect_answer(future, wanted[name])
        assert len(score.result(30).what) == len(IDS) - 1
        assert ends.order == ["loaded", "score", "first", *["others"] * len(names)]

    def test_one_that_is_unloaded_finishes_its_answers_and_its_name_is_free(
        self, held: Held, adapters: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A new version under the same name: in flight they finish on the old one."""
        held.load_adapter("v", adapters[0]).result(30)
        old = held.sample(request(max_tokens=40), "v").result(30).what
        base = held.sample(request(max_tokens=90), None).result(30).what
        gate = Gate(monkeypatch)
        in_flight = held.sample(request(max_tokens=40), "v")
        other = held.sample(request(max_tokens=90), None)
        assert gate.reached.wait(30)
        gone = held.unload_adapter("v")
        refused = held.sample(request(), "v")
        loaded = held.load_adapter("v", adapters[1])
        new = held.sample(request(max_tokens=1), "v")
        ends = Ends(refused=refused, loaded=loaded, new=new, old=in_flight, gone=gone, other=other)
        gate.go_on.set()
        with pytest.raises(UsageError, match="no model 'v' is loaded"):
            refused.result(30)
        self.expect_answer(in_flight, old)
        self.expect_answer(other, base)
        assert ends.order == ["refused", "loaded", "new", "old", "gone", "other"]
        monkeypatch.undo()
        alone = endless(held.path)
        alone.load_adapter("v", adapters[1]).result(30)
        wanted = alone.sample(request(), "v").result(30).what
        alone.close()
        self.expect_answer(held.sample(request(), "v"), wanted)
        assert len(held.policy.model.peft_config) == 1, "the old one's memory is given back"

    def test_the_last_one_may_go_while_the_model_answers(
        self, held: Held, adapters: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        held.load_adapter("v", adapters[0]).result(30)
        wanted = held.sample(request(max_tokens=60), None).result(30).what
        gate = Gate(monkeypatch)
        future = held.sample(request(max_tokens=60), None)
        assert gate.reached.wait(30)
        gone = held.unload_adapter("v")
        ends = Ends(gone=gone, answer=future)
        gate.go_on.set()
        self.expect_answer(future, wanted)
        assert ends.order == ["gone", "answer"]
        assert not held.policy.is_adapter

    def test_one_that_fails_to_load_disturbs_nobody(
        self, held: Held, adapters: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "torn"
        shutil.copytree(adapters[0], folder)
        (folder / "adapter_model.safetensors").write_bytes(b"\x00" * 20)
        wanted = held.sample(request(max_tokens=60), None).result(30).what
        gate = Gate(monkeypatch)
        future = held.sample(request(max_tokens=60), None)
        assert gate.reached.wait(30)
        bad = held.load_adapter("v", str(folder))
        gate.go_on.set()
        with pytest.raises(UsageError, match="no model 'v' is loaded"):
            held.sample(request(), "v").result(30)
        assert bad.exception(30) is not None
        self.expect_answer(future, wanted)


PROMPT = (2, *range(40, 80))
"""So long that keys of it are kept."""


class TestSalt:
    """Of what one tenant asked, another's answer reads nothing."""

    @staticmethod
    def read(held: Held, asked: list[Request], monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """How many tokens of each request's prompt were read, of requests that come one by one."""
        counts: list[int] = []
        plain = TreeDecoder._read

        def counted(self: TreeDecoder, reading: Reading) -> torch.Tensor:
            counts.append(len(reading.tokens_L))
            return plain(self, reading)

        monkeypatch.setattr(TreeDecoder, "_read", counted)
        for one in asked:
            held.sample(one, None).result(30)
        return counts

    def test_what_was_kept_for_one_is_not_taken_for_another(
        self, held: Held, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        salts = ("a", "a", "b", "b", "", "")
        asked = [request(*PROMPT, salt=salt, max_tokens=1) for salt in salts]
        whole, rest = len(PROMPT), len(PROMPT) % 16
        assert self.read(held, asked, monkeypatch) == [whole, rest] * 3

    def test_nor_read_together(self, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two who come in the same moment; and the answers do not depend on the salt."""
        asked = [request(*PROMPT, salt=salt, max_tokens=8) for salt in ("a", "b", "a")]
        counts: list[int] = []
        plain = Continuous._join

        def counted(self: Continuous[Any], joining: Any, logits: Any) -> torch.Tensor:
            counts.append(len(joining))
            return plain(self, joining, logits)

        monkeypatch.setattr(Continuous, "_join", counted)
        decoding = held.engine.open()
        decoding.add(enumerate(asked))
        finished = dict(decoding.step(LONG_TURN))
        while decoding.busy:
            finished |= dict(decoding.step(LONG_TURN))
        assert counts == [2, 1]
        ids = [finished[number].ids for number in range(3)]
        assert ids[0] == ids[1] == ids[2]

    def test_a_salt_is_no_part_of_the_draw(self, held: Held) -> None:
        plain = held.sample(request(*PROMPT), None).result(30).what
        salted = held.sample(request(*PROMPT, salt="t"), None).result(30).what
        assert replace(salted, logprobs=None) == replace(plain, logprobs=None)


@pytest.mark.parametrize("ids", [(), (2, -1)])
def test_prompts_that_are_none_fail_alone(held: Held, ids: tuple[int, ...]) -> None:
    bad = replace(request(), prompt=replace(request().prompt, prompt_ids=ids))
    told, good = held.sample(bad, None), held.sample(request(), None)
    with pytest.raises(UsageError, match=r"at least one token|there is no token -1"):
        told.result(30)
    assert good.result(30).what.ids
