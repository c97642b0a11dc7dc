"""Answers that join and leave while others decode are those of one request at a time."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from strop.engines.draws import DrawKey
from strop.engines.engine import Request, Sampling, requests_of
from strop.engines.local.continuous import Continuous, Needed, Room
from strop.errors import UsageError
from strop.model.decode import TreeDecoder
from tests.support.arrivals import alone, arrivals, engine_named, expect_same, mixed
from tests.support.rollouts import prompts
from tests.support.sampling import prompted


@pytest.mark.parametrize("name", ["qwen3", "mistral", "gemma2", "gpt_oss"])
def test_in_whatever_order_requests_come(name: str) -> None:
    """With windows, soft-caps and sinks, too; some have room for three at a time only."""
    engine, requests = engine_named(name), mixed()
    wanted = alone(engine, requests)
    for seed, room in enumerate((Room(), Room(max_rows=3), Room(max_slots=300))):
        decoding: Continuous[int] = Continuous(engine.open().sampler, 0, room)
        found = dict(arrivals(decoding, requests, random.Random(seed)))
        assert sorted(found) == list(range(len(requests)))
        for number, completion in found.items():
            expect_same(completion, wanted[number])


@pytest.mark.parametrize("before", [0, 1, 7, 19])
def test_one_key_draws_the_same_alone_and_when_it_joins_late(before: int) -> None:
    """After so many tokens of 20 others with other samplings; and the others do not notice."""
    engine, others = engine_named("qwen3"), mixed()
    (prompt,) = prompted([(9, 8, 7, 6, 5)])
    late = Request(prompt, Sampling(max_tokens=25), DrawKey(77, "training", 3, 1, "9,8", 2))
    wanted = dict(enumerate(alone(engine, [late, *others])))
    decoding: Continuous[int] = engine.open()
    decoding.add(enumerate(others, start=1))
    found = [pair for _ in range(before) for pair in decoding.step()]
    decoding.add([(0, late)])
    while decoding.busy:
        found += decoding.step()
    assert sorted(number for number, _ in found) == sorted(wanted)
    for number, completion in found:
        expect_same(completion, wanted[number])


def test_a_group_with_a_long_prompt_is_joined_by_others() -> None:
    """The first ones keep one copy of the long prompt's keys; those who join do the same."""
    engine = engine_named("qwen3")
    first, second = prompts(count=2, longest=90)
    long = [tuple((*one, *first, *second)[:n]) for one, n in ((first, 80), (second, 70))]
    asked = requests_of(prompted(long), Sampling(max_tokens=20), DrawKey(1, "eval"), 5)
    wanted = alone(engine, asked)
    decoding: Continuous[int] = engine.open()
    decoding.add(list(enumerate(asked))[:5])
    found = dict(decoding.step(3))
    assert isinstance(decoding._decoder, TreeDecoder)
    assert decoding._decoder.shared
    decoding.add(list(enumerate(asked))[5:])
    while decoding.busy:
        found |= dict(decoding.step())
    for number, completion in found.items():
        expect_same(completion, wanted[number])


@pytest.fixture
def unwritten_is_no_number() -> Iterator[None]:
    """Memory that nobody wrote is full of NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.zeros(1).new_empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", ["qwen3", "mistral", "gpt_oss"])
def test_what_nobody_wrote_does_not_spread(name: str, unwritten_is_no_number: None) -> None:
    """Rows that join later, longer and shorter ones, and groups that share a prompt."""
    (first,) = prompts(count=1, longest=90)
    long = requests_of(
        prompted([tuple((*first, *first)[:80]), tuple((*first, 7, *first)[:70])]),
        Sampling(max_tokens=40), DrawKey(1, "eval"), 3,
    )  # fmt: skip
    engine = engine_named(name)
    for requests in (mixed(), long):
        wanted = alone(engine, requests)
        for seed, room in enumerate((Room(), Room(max_rows=3))):
            decoding: Continuous[int] = Continuous(engine.open().sampler, 0, room)
            found = dict(arrivals(decoding, requests, random.Random(seed)))
            for number, completion in found.items():
                assert not any(math.isnan(one) for one in completion.sampler_logprobs())
                expect_same(completion, wanted[number])


def test_the_same_requests_in_the_same_order_are_the_same_to_the_bit() -> None:
    """What a resumed run relies on."""
    engine, requests = engine_named("qwen3", max_rows=5), mixed()
    assert dict(engine.generate(requests)) == dict(engine.generate(requests))


def test_a_short_answer_does_not_wait_for_a_long_one_that_began_earlier() -> None:
    engine = engine_named("qwen3")
    engine.policy().model.generation_config.eos_token_id = None
    (prompt,) = prompted(prompts(count=1))
    one = Request(prompt, Sampling(max_tokens=40), DrawKey(0, "eval"))
    decoding: Continuous[str] = engine.open()
    decoding.add([("long", one)])
    assert decoding.step(10) == []
    decoding.add([("short", replace(one, sampling=Sampling(max_tokens=4)))])
    assert [name for name, _ in decoding.step(100)] == ["short"]
    assert [(name, len(made.ids)) for name, made in decoding.step(100)] == [("long", 40)]


def test_a_row_that_is_given_up_is_free_for_the_next() -> None:
    engine = engine_named("qwen3")
    engine.policy().model.generation_config.eos_token_id = None
    asked = requests_of(prompted(prompts(count=3)), Sampling(max_tokens=12), DrawKey(0, "eval"), 1)
    decoding: Continuous[int] = Continuous(engine.open().sampler, 0, Room(max_rows=2))
    decoding.add(enumerate(asked))
    decoding.step(3)
    assert decoding.decoding == [0, 1]
    decoding.abort(0)
    decoding.step()
    assert decoding.decoding == [1, 2]
    found = dict(decoding.step(100)) | dict(decoding.step(100))
    assert sorted(found) == [1, 2]
    assert decoding.busy == 0
    for number, completion in found.items():
        expect_same(completion, alone(engine, asked)[number])
    decoding.add([(9, asked[0])])
    decoding.abort(9)  # waited only
    assert decoding.busy == 0


def test_keys_never_take_more_slots_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted where keys are written: rows times the slots between the first and the last."""
    engine, requests = engine_named("qwen3"), mixed(count=16)
    most, taken = 400, []
    step = TreeDecoder.step

    def counted(self: TreeDecoder, tokens_R: torch.Tensor) -> torch.Tensor:
        own = len(tokens_R) * (self.slot + 1 - self.first)
        taken.append(own + self.lengths_P.numel() * int(self.lengths_P.max() if self.shared else 0))
        return step(self, tokens_R)

    sampler = engine.open().sampler
    monkeypatch.setattr(TreeDecoder, "step", counted)
    decoding: Continuous[int] = Continuous(sampler, 0, Room(max_slots=most))
    assert Needed(requests).slots(shared=False) > 4 * most
    assert len(dict(arrivals(decoding, requests, random.Random(5)))) == len(requests)
    assert most / 2 < max(taken) <= most


def test_weights_that_change_before_the_last_answer_is_taken_are_refused() -> None:
    engine = engine_named("qwen3", max_rows=1)
    asked = requests_of(prompted(prompts(count=2)), Sampling(max_tokens=3), DrawKey(0, "eval"), 1)
    answers = engine.generate(asked)
    next(answers)
    engine.publish({})
    with pytest.raises(UsageError, match="published while answers were decoded"):
        next(answers)
