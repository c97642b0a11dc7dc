"""Biases and penalties, by hand; and what the likeliest tokens are."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.engines.draws import DrawKey
from strop.engines.endings import text_of
from strop.engines.engine import Request, Sampling
from strop.engines.local.distribution import kept_logits
from strop.engines.local.engine import LocalEngine
from strop.engines.local.processing import Processing
from strop.engines.openai import OpenAIEngine
from strop.engines.served import sglang, vllm
from strop.errors import UsageError
from strop.types import Completion
from tests.support.arrivals import alone, engine_named, expect_same, mixed
from tests.support.families import VOCABULARY
from tests.support.sampling import prompted


def processed(sampling: Sampling, prompt: tuple[int, ...], said: tuple[int, ...]) -> list[float]:
    """Six logits after a prompt and an answer so far, beside another answer that is longer."""
    logits_NV = torch.tensor([[2.0, -2.0, 1.0, -1.0, 0.5, 4.0]] * 2)
    ids_NT = torch.tensor([[*said, 5, 5, 5][:3], [4, 4, 4]])
    processing = Processing(sampling, [prompt, (5, 5)], [], torch.device("cpu"))
    made = processing(logits_NV, ids_NT, torch.tensor([len(said), 3]))
    return [round(float(x), 5) for x in made[0]]


class TestByHand:
    """The logits are 2, -2, 1, -1, 0.5, 4; the prompt says 0, 1, 1 and the answer 1, 2."""

    @pytest.mark.parametrize(
        ("how", "wanted"),
        [
            ({"repetition_penalty": 2.0}, [1.0, -4.0, 0.5, -1.0, 0.5, 4.0]),
            ({"repetition_penalty": 0.5}, [4.0, -1.0, 2.0, -1.0, 0.5, 4.0]),
            ({"frequency_penalty": 0.3}, [2.0, -2.3, 0.7, -1.0, 0.5, 4.0]),
            ({"presence_penalty": -0.3}, [2.0, -1.7, 1.3, -1.0, 0.5, 4.0]),
            ({"logit_bias": ((3, 5.0), (5, -100.0))}, [2.0, -2.0, 1.0, 4.0, 0.5, -96.0]),
            # 0: 2 / 2; 1: -2 * 2 - 0.1 - 1; 2: (1 + 1) / 2 - 0.1 - 1
            (
                {"repetition_penalty": 2.0, "frequency_penalty": 0.1, "presence_penalty": 1.0,
                 "logit_bias": ((2, 1.0),)},
                [1.0, -5.1, -0.1, -1.0, 0.5, 4.0],
            ),
        ],
    )  # fmt: skip
    def test_after_two_tokens(self, how: dict[str, Any], wanted: list[float]) -> None:
        assert processed(Sampling(**how), (0, 1, 1), (1, 2)) == wanted

    def test_frequency_counts_each_time_and_presence_once(self) -> None:
        how = Sampling(frequency_penalty=0.5, presence_penalty=0.25)
        assert processed(how, (0,), (2, 2, 2)) == [2.0, -2.0, -0.75, -1.0, 0.5, 4.0]

    def test_before_the_first_token_only_the_prompt_is_repeated(self) -> None:
        how = Sampling(frequency_penalty=0.5, presence_penalty=0.25)
        assert processed(how, (0,), ()) == [2.0, -2.0, 1.0, -1.0, 0.5, 4.0]
        how = Sampling(repetition_penalty=2.0)
        assert processed(how, (0,), ()) == [1.0, -2.0, 1.0, -1.0, 0.5, 4.0]


PROMPT = (9, 8, 7, 8)
HOWS = (
    Sampling(max_tokens=20, repetition_penalty=1.7, temperature=0.8),
    Sampling(max_tokens=14, frequency_penalty=0.9, presence_penalty=0.4, top_p=0.9),
    Sampling(max_tokens=20, logit_bias=((11, 6.0), (12, 5.5)), top_logprobs=3),
    Sampling(max_tokens=17, temperature=0.0, repetition_penalty=3.0),
)


def another_way(model: Any, ids: tuple[int, ...], how: Sampling) -> torch.Tensor:
    """The log-probs of the next token of a prompt and an answer, one token after the other."""
    logits_V = model(torch.tensor([[*PROMPT, *ids]])).logits[0, -1].double()
    for token, more in how.logit_bias:
        logits_V[token] += more
    for token in {*PROMPT, *ids}:
        x = logits_V[token]
        logits_V[token] = x / how.repetition_penalty if x > 0 else x * how.repetition_penalty
    for token in set(ids):
        logits_V[token] -= how.frequency_penalty * ids.count(token) + how.presence_penalty
    return kept_logits(logits_V[None], how).double().log_softmax(-1)[0]


@pytest.mark.parametrize("how", HOWS)
@torch.no_grad()
def test_log_probs_are_those_of_the_distribution_that_is_drawn_from(how: Sampling) -> None:
    engine = engine_named("qwen3")
    (prompt,) = prompted([PROMPT])
    asked = [Request(prompt, how, DrawKey(n, "eval")) for n in range(3)]
    for made in alone(engine, asked):
        for place, (token, logprob) in enumerate(zip(made.ids, made.logprobs or (), strict=True)):
            wanted = another_way(engine.policy().model, made.ids[:place], how)
            assert math.isclose(logprob, float(wanted[token]), abs_tol=2e-5)


def test_they_change_nobody_else_and_others_do_not_change_them() -> None:
    """Answers with and without, decoded together and alone."""
    engine, plain = engine_named("qwen3"), mixed()
    some = [replace(one, sampling=HOWS[n % len(HOWS)]) for n, one in enumerate(mixed())]
    asked = [one for pair in zip(plain, some, strict=True) for one in pair]
    together = dict(engine.generate(asked))
    for number, wanted in enumerate(alone(engine, asked)):
        found = together[number]
        assert (found.likeliest is None) == (wanted.likeliest is None)
        expect_same(replace(found, likeliest=None), replace(wanted, likeliest=None))


class TestLikeliest:
    @staticmethod
    def answer(**how: Any) -> Completion:
        (prompt,) = prompted([PROMPT])
        request = Request(prompt, Sampling(max_tokens=12, **how), DrawKey(1, "eval"))
        return alone(engine_named("qwen3"), [request])[0]

    @torch.no_grad()
    def test_they_are_the_first_of_the_distribution(self) -> None:
        made = self.answer(top_logprobs=4, temperature=0.7)
        model = engine_named("qwen3").policy().model
        assert made.likeliest is not None
        assert len(made.likeliest) == len(made.ids)
        for place, listed in enumerate(made.likeliest):
            wanted = another_way(model, made.ids[:place], Sampling(temperature=0.7)).topk(4)
            assert [token for token, _ in listed] == wanted.indices.tolist()
            for (_, logprob), other in zip(listed, wanted.values.tolist(), strict=True):
                assert math.isclose(logprob, other, abs_tol=2e-5)

    def test_one_that_was_drawn_has_its_log_prob(self) -> None:
        made = self.answer(top_logprobs=VOCABULARY)
        assert made.likeliest is not None
        for token, logprob, listed in zip(
            made.ids, made.logprobs or (), made.likeliest, strict=True
        ):
            assert dict(listed)[token] == logprob

    def test_tokens_without_mass_are_left_out(self) -> None:
        cut = self.answer(top_logprobs=5, top_k=2).likeliest
        greedy = self.answer(top_logprobs=5, temperature=0.0).likeliest
        assert cut is not None
        assert greedy is not None
        assert {len(listed) for listed in cut} == {2}
        assert all(len(listed) == 1 and listed[0][1] == 0.0 for listed in greedy)

    def test_they_do_not_change_the_draws(self) -> None:
        assert replace(self.answer(top_logprobs=3), likeliest=None) == self.answer()


@pytest.mark.parametrize("stop", ["é=", "= ", "aÿ", "7", "##", "x" * 12, "1 2"])
@pytest.mark.parametrize("skips", [True, False])
def test_a_stop_string_is_found_where_the_whole_text_first_has_it(
    model_folder: Path, tokenizer: Any, stop: str, skips: bool
) -> None:
    """Only the end of an answer is read; its tokens are whole words, bytes, and special ones."""
    sampler = LocalEngine(str(model_folder))._sampler
    how = Sampling(stop=(stop,), skip_special_tokens=skips)
    chance, found = random.Random(stop), 0
    pieces = tokenizer("é= aÿ## 71 2" + "x" * 30).input_ids
    for _ in range(60):
        ids: list[int] = []
        while len(ids) < 80:
            one = chance.randrange(len(tokenizer))
            ids += pieces if chance.random() < 0.03 else [chance.choice([one, *pieces])]
        texts = [text_of(tokenizer, ids[:n], how) for n in range(1, len(ids) + 1)]
        first = next((n for n, text in enumerate(texts, start=1) if stop in text), None)
        said = (n for n in range(1, len(ids) + 1) if sampler.said(how, ids[:n]))
        assert next(said, None) == first
        found += first is not None
    assert found > 10


@pytest.mark.parametrize("token", [-1, VOCABULARY])
def test_a_bias_of_no_token_is_refused(token: int) -> None:
    (prompt,) = prompted([PROMPT])
    request = Request(prompt, Sampling(logit_bias=((token, 1.0),)), DrawKey(0, "eval"))
    with pytest.raises(UsageError, match=f"token {token}: the model has {VOCABULARY}"):
        engine_named("qwen3").open().add([("a", request)])


@pytest.mark.parametrize("how", [*HOWS, Sampling(top_logprobs=1)])
def test_servers_are_not_asked_for_them(how: Sampling) -> None:
    """They would be left out without a word."""
    (prompt,) = prompted([PROMPT])
    request, url = Request(prompt, how, DrawKey(0, "eval")), "http://127.0.0.1:9"
    for server in (vllm.VllmServer(url, seconds=1), sglang.SglangServer(url, seconds=1)):
        with pytest.raises(UsageError, match="not sent to a server"):
            server.sample(request, None, ())
    with pytest.raises(UsageError, match="not sent to a server"):
        list(OpenAIEngine(f"{url}/v1", "m").generate([request]))
