"""The sampler: greedy equals `generate`, and draws depend on nothing but their key."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import transformers as hf

from strop.model.logprobs import Head, TreeScorer
from strop.rollout.local import LocalSampler
from strop.rollout.sampler import Sampling, draw, sampling_logprobs
from strop.types import Branch, Completion, Tree
from test_tree import MODELS, VOCABULARY, model_of

STOP = [2, 5, 7]


class Words:
    """A tokenizer whose tokens are the words 0, 1, 2, ..."""

    eos_token_id = 2

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def sampler_of(name: str, **options: Any) -> LocalSampler:
    model = model_of(name)
    model.generation_config.eos_token_id = STOP
    model.generation_config.pad_token_id = 0
    return LocalSampler(model, Words(), **options)


def prompts(count: int = 6) -> list[tuple[int, ...]]:
    pick = random.Random(5)
    return [
        tuple(pick.randrange(8, VOCABULARY) for _ in range(pick.randint(1, 12)))
        for _ in range(count)
    ]


def ids(groups: list[tuple[Completion, ...]]) -> list[list[tuple[int, ...]]]:
    return [[completion.ids for completion in group] for group in groups]


def expect_greedy_equals_generate(sampler: LocalSampler) -> None:
    greedy = Sampling(temperature=0, max_tokens=30)
    given = sampler.sample(prompts(), group_size=2, sampling=greedy, seed=0, step=0)
    for prompt, group in zip(prompts(), given, strict=True):
        out = sampler.causal_lm.generate(torch.tensor([prompt]), max_new_tokens=30, do_sample=False)
        expected = tuple(out[0, len(prompt) :].tolist())
        assert [completion.ids for completion in group] == [expected, expected]


@pytest.mark.parametrize("name", MODELS)
def test_greedy_equals_generate(name: str) -> None:
    expect_greedy_equals_generate(sampler_of(name))


def test_greedy_equals_generate_without_the_attention_interface() -> None:
    torch.manual_seed(0)
    config = hf.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2)
    model = hf.MambaForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    model.generation_config.eos_token_id = STOP
    expect_greedy_equals_generate(LocalSampler(model, Words()))


def test_logprobs_are_the_trainers() -> None:
    """At temperature T without truncation: what the trainer computes at the same T."""
    sampler = sampler_of("qwen3")
    sampling = Sampling(temperature=0.8, max_tokens=20)
    groups = sampler.sample(prompts(), group_size=4, sampling=sampling, seed=0, step=0)
    trees = [
        Tree(p, tuple(Branch(c.ids, (True,) * len(c.ids)) for c in group))
        for p, group in zip(prompts(), groups, strict=True)
    ]
    scores = TreeScorer(sampler.causal_lm)(trees, Head(temperature=0.8))
    said = torch.tensor([x for group in groups for c in group for x in c.logprobs])
    assert (said - scores.logprobs_N).abs().max() < 1e-5


@pytest.mark.parametrize("truncation", [{}, {"top_p": 0.8}, {"top_k": 5}, {"min_p": 0.1}])
def test_deterministic_whatever_the_batch(truncation: dict[str, float]) -> None:
    sampling = Sampling(temperature=1.0, max_tokens=25, **truncation)  # type: ignore[arg-type]
    wide, narrow = sampler_of("mistral"), sampler_of("mistral", max_rows=4)
    asked = {"group_size": 4, "sampling": sampling, "seed": 3, "step": 9}
    given = ids(wide.sample(prompts(), **asked))
    assert given == ids(narrow.sample(prompts()[::-1], **asked))[::-1]
    assert given[2] == ids(wide.sample(prompts()[2:3], **asked))[0]
    larger = ids(wide.sample(prompts(), **{**asked, "group_size": 6}))
    assert given == [group[:4] for group in larger]
    for other in ({"seed": 4}, {"step": 10}):
        assert given != ids(wide.sample(prompts(), **{**asked, **other}))


def test_a_repeated_prompt_gets_its_own_draws() -> None:
    sampler = sampler_of("llama")
    sampling = Sampling(temperature=1.5, max_tokens=12)
    twice = sampler.sample([prompts()[0]] * 2, group_size=2, sampling=sampling, seed=0, step=0)
    once = sampler.sample(prompts()[:1], group_size=4, sampling=sampling, seed=0, step=0)
    assert [*ids(twice)[0], *ids(twice)[1]] == ids(once)[0]


def test_group_members_differ_and_finish_apart() -> None:
    sampler = sampler_of("qwen3")
    sampling = Sampling(temperature=2.0, max_tokens=40)
    (group,) = sampler.sample(prompts()[:1], group_size=32, sampling=sampling, seed=0, step=0)
    assert len({c.ids for c in group}) == 32
    assert {c.finish_reason for c in group} == {"stop", "length"}
    for completion in group:
        assert len(completion.ids) == len(completion.logprobs) <= 40
        assert not set(completion.ids[:-1]) & set(STOP)
        assert (completion.ids[-1] in STOP) == (completion.finish_reason == "stop")


def test_stop_strings_end_the_answer_and_are_cut_from_its_text() -> None:
    sampler = sampler_of("qwen3")
    greedy = Sampling(temperature=0, max_tokens=30)
    (free,) = sampler.sample(prompts()[:1], group_size=1, sampling=greedy, seed=0, step=0)
    stop = str(free[0].ids[3])
    stopped = Sampling(temperature=0, max_tokens=30, stop=(stop,))
    (cut,) = sampler.sample(prompts()[:1], group_size=1, sampling=stopped, seed=0, step=0)
    assert stop not in cut[0].text
    assert cut[0].finish_reason == "stop"
    assert cut[0].ids == free[0].ids[: len(cut[0].ids)]


def test_dropout_is_off_and_the_mode_is_restored() -> None:
    torch.manual_seed(0)
    config = hf.Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, attention_dropout=0.5,
    )  # fmt: skip
    model = hf.Qwen3ForCausalLM(config).train()
    sampler = LocalSampler(model, Words())
    asked = {"group_size": 2, "sampling": Sampling(max_tokens=10), "seed": 0, "step": 0}
    first = ids(sampler.sample(prompts(), **asked))
    assert first == ids(sampler.sample(prompts(), **asked))
    assert model.training


class TestDistribution:
    LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0]])

    def probabilities(self, **options: Any) -> list[float]:
        return sampling_logprobs(self.LOGITS, Sampling(**options)).exp()[0].tolist()

    def test_by_hand(self) -> None:
        p = self.LOGITS[0].softmax(0)
        assert self.probabilities() == pytest.approx(p.tolist())
        hot = (self.LOGITS[0] / 2).softmax(0)
        assert self.probabilities(temperature=2.0) == pytest.approx(hot.tolist())
        two = (p[:2] / p[:2].sum()).tolist()
        assert self.probabilities(top_k=2) == pytest.approx([*two, 0, 0])
        # p = 0.644, 0.237, 0.087, 0.032: the nucleus of 0.7 is the first two
        assert self.probabilities(top_p=0.7) == pytest.approx([*two, 0, 0])
        assert self.probabilities(top_p=0.6) == pytest.approx([1, 0, 0, 0])
        # min_p 0.1 keeps what is at least a tenth of the likeliest: exp(-2) yes, exp(-3) no
        three = (p[:3] / p[:3].sum()).tolist()
        assert self.probabilities(min_p=0.1) == pytest.approx([*three, 0])
        assert self.probabilities(temperature=0) == [1, 0, 0, 0]

    def test_draw_follows_the_distribution(self) -> None:
        logprobs = sampling_logprobs(self.LOGITS, Sampling(top_k=3)).expand(40_000, -1)
        uniform = torch.rand(40_000, generator=torch.Generator().manual_seed(0))
        counts = torch.bincount(draw(logprobs, uniform), minlength=4)
        expected = logprobs[0].exp()
        error = (expected * (1 - expected) / 40_000).sqrt()
        assert ((counts / 40_000 - expected).abs() <= 4 * error + 1e-12).all()
        assert counts[3] == 0

    def test_draw_at_the_edges(self) -> None:
        logprobs = torch.tensor([[float("-inf"), -0.6931472, -0.6931472, float("-inf")]])
        assert draw(logprobs, torch.tensor([0.0])).item() == 1
        assert draw(logprobs, torch.tensor([1.0])).item() == 2
