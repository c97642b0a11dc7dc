"""Prompts that were read before: found by their tokens, never those of other weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

from strop.engines.draws import DrawKey
from strop.engines.engine import Sampling, requests_of
from strop.engines.local.engine import LocalEngine
from strop.model import reading
from strop.model.prefixes import BLOCK, LayerPair, Prefixes
from strop.types import Completion
from tests.support.arrivals import engine_named, expect_same
from tests.support.rollouts import prompts
from tests.support.sampling import prompted

ROOM = 2**24


def answers(engine: LocalEngine, asked: list[tuple[int, ...]], seed: int = 0) -> list[Completion]:
    how = Sampling(max_tokens=16)
    found = dict(engine.generate(requests_of(prompted(asked), how, DrawKey(seed, "eval"), 2)))
    return [found[number] for number in range(len(found))]


def beginning(length: int) -> tuple[int, ...]:
    return (prompts(count=1, longest=200)[0] * 40)[:length]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens every reading of prompts has, known ones left out."""
    lengths: list[int] = []
    read_of = reading.read_of

    def noted(*given: Any, **options: Any) -> reading.Reading:
        found = read_of(*given, **options)
        lengths.append(len(found.tokens_L))
        return found

    monkeypatch.setattr("strop.model.decode.read_of", noted)
    return lengths


@pytest.mark.parametrize("name", ["qwen3", "mistral", "gemma2", "gpt_oss"])
@pytest.mark.parametrize("length", [40, 90])
def test_what_is_known_is_not_read_again_and_says_the_same(
    name: str, length: int, read: list[int]
) -> None:
    cold, warm = engine_named(name), engine_named(name, prefix_bytes=ROOM)
    system = beginning(length)
    first = [(*system, 11, 12, 13), (*system, 14)]
    later = [(*system, 15, 16), first[0], (*system[:20], 17, 18), (19, 20)]
    answers(warm, first)
    answers(cold, first)
    read.clear()
    for one, other in zip(answers(warm, later, 1), answers(cold, later, 1), strict=True):
        expect_same(one, other)
    known = length // BLOCK * BLOCK
    common = 20 // BLOCK * BLOCK
    left = (length + 2 - known) + (length + 3 - (length + 2) // BLOCK * BLOCK) + (22 - common) + 2
    assert read == [left, sum(map(len, later))]


class TestPublish:
    """Two guards keep keys of older weights from being used: they are forgotten, and the version is
    in their names. Each has to suffice where the other one is missing."""

    asked: ClassVar = [beginning(50)]

    @pytest.fixture
    def wanted(self) -> Completion:
        """What an engine says that never had other weights."""
        engine = engine_named("qwen3")
        self.move(engine)
        return answers(engine, self.asked)[0]

    @staticmethod
    def move(engine: LocalEngine) -> None:
        with torch.no_grad():
            for parameter in engine.policy().model.parameters():
                parameter.mul_(1.1)

    def after_publish(self, *, forgets: bool, named: bool) -> Completion:
        engine = engine_named("qwen3", prefix_bytes=ROOM)
        assert engine._prefixes is not None
        if not forgets:
            engine._prefixes.forget = lambda: None  # type: ignore[method-assign]
        answers(engine, self.asked)
        self.move(engine)
        assert engine.publish({}) == 1
        if not named:
            engine.version = 0
        return replace(answers(engine, self.asked)[0], versions=())

    @pytest.mark.parametrize(
        ("forgets", "named"), [(True, True), (True, False), (False, True)],
        ids=["both", "only forgotten", "only named"],
    )  # fmt: skip
    def test_one_guard_suffices(self, wanted: Completion, forgets: bool, named: bool) -> None:
        found = self.after_publish(forgets=forgets, named=named)
        expect_same(found, replace(wanted, versions=()))

    def test_planted_neither(self, wanted: Completion) -> None:
        stale = self.after_publish(forgets=False, named=False)
        assert abs(stale.sampler_logprobs()[0] - wanted.sampler_logprobs()[0]) > 1e-3


def test_without_room_for_them_nothing_is_kept() -> None:
    assert engine_named("qwen3")._prefixes is None


class TestPrefixes:
    """Two layers whose keys are the tokens themselves."""

    @staticmethod
    def layers(ids: tuple[int, ...]) -> list[LayerPair]:
        k = torch.tensor(ids, dtype=torch.float32)[None, :, None]
        return [(k, -k), (k + 1000, k + 2000)]

    def kept(self, *given: tuple[int, ...], most: int = ROOM) -> Prefixes:
        prefixes = Prefixes(most)
        for ids in given:
            prefixes.add("0", ids, self.layers(ids))
        return prefixes

    def expect(self, prefixes: Prefixes, ids: tuple[int, ...], length: int) -> None:
        found = prefixes.find("0", ids)
        assert (found.length if found else 0) == length
        for layer, (k, v) in enumerate(self.layers(ids)):
            if found is not None:
                known_k, known_v = found.layer(layer)
                assert torch.equal(known_k, k[:, :length])
                assert torch.equal(known_v, v[:, :length])

    def test_whole_blocks_that_leave_a_token(self) -> None:
        ids = tuple(range(40))
        prefixes = self.kept(ids)
        self.expect(prefixes, ids, 32)
        self.expect(prefixes, ids[:33], 32)
        self.expect(prefixes, ids[:32], 16)
        self.expect(prefixes, (*ids[:20], 99, *ids[21:]), 16)
        self.expect(prefixes, (99, *ids[1:]), 0)
        assert prefixes.find("1", ids) is None

    def test_what_two_prompts_have_in_common_is_kept_once(self) -> None:
        ids = tuple(range(100))
        one, other = (*ids[:48], *[1] * 32), (*ids[:48], *[2] * 48)
        below = (*other[:80], *[3] * 32)
        found = self.kept(one, other, below).find("0", one)
        prefixes = self.kept(one, other, below)
        token = 2 * 2 * 4  # two layers, keys and values, float32
        assert prefixes.bytes == token * (48 + 32 + 48 + 32)
        for prompt in (one, other, below):
            self.expect(prefixes, (*prompt, 9), len(prompt))
        assert found is not None

    def test_a_hit_outlives_the_splitting_of_its_stretch(self) -> None:
        ids = tuple(range(64))
        prefixes = self.kept(ids)
        found = prefixes.find("0", (*ids, 1))
        short = prefixes.find("0", ids[:20])
        other = (*ids[:32], *[1] * 16)
        prefixes.add("0", other, self.layers(other))
        assert found is not None
        assert short is not None
        assert torch.equal(found.layer(0)[0][0, :, 0], torch.arange(64.0))
        assert torch.equal(short.layer(0)[0][0, :, 0], torch.arange(16.0))

    def test_what_was_not_used_for_longest_goes_first_and_children_before_parents(self) -> None:
        token = 2 * 2 * 4
        a, b = tuple(range(32)), tuple(range(100, 132))
        longer = (*a, *range(200, 232))
        prefixes = self.kept(a, b, longer, most=100 * token)
        assert prefixes.bytes == 96 * token
        self.expect(prefixes, (*b, 1), 32)  # used just now
        c = tuple(range(300, 332))
        prefixes.add("0", c, self.layers(c))
        assert prefixes.bytes == 96 * token
        self.expect(prefixes, (*longer, 1), 32)  # its own part went, what it shares stays
        self.expect(prefixes, (*b, 1), 32)
        self.expect(prefixes, (*c, 1), 32)
        prefixes.add("0", d := tuple(range(1000, 2000)), self.layers(d))
        assert prefixes.bytes <= 100 * token

    def test_forgotten(self) -> None:
        prefixes = self.kept(tuple(range(40)))
        prefixes.forget()
        assert prefixes.bytes == 0
        self.expect(prefixes, tuple(range(40)), 0)
