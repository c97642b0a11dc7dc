"""The sampler: greedy equals `generate`, and draws depend on nothing but their key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as hf

from strop.engines.endings import stopped
from strop.engines.engine import Sampling
from strop.engines.local.continuous import REPACK_BELOW
from strop.engines.local.distribution import BLOCK, draw, kept_logits
from strop.engines.local.engine import LocalEngine
from strop.model import reading
from strop.model.decode import TreeDecoder, honours_plain, places
from strop.model.logprobs import Head, TreeScorer
from strop.model.reading import common_beginning
from strop.model.tree import lay_out
from strop.types import Completion, Tree, TreeBatch
from tests.support.families import MODELS, VOCABULARY, model_of
from tests.support.rollouts import prompts
from tests.support.sampling import engine_of, sample

STOP = [2, 5, 7]


def engine_named(name: str, **options: Any) -> LocalEngine:
    model = model_of(name)
    model.generation_config.eos_token_id = STOP
    model.generation_config.pad_token_id = 0
    return engine_of(model, **options)


def ids(groups: list[tuple[Completion, ...]]) -> list[list[tuple[int, ...]]]:
    return [[completion.ids for completion in group] for group in groups]


def expect_greedy_equals_generate(engine: LocalEngine) -> None:
    greedy = Sampling(temperature=0, max_tokens=30)
    given = sample(engine, prompts(), group_size=2, sampling=greedy, seed=0, step=0)
    for prompt, group in zip(prompts(), given, strict=True):
        out = engine.policy().model.generate(
            torch.tensor([prompt]), max_new_tokens=30, do_sample=False
        )
        expected = tuple(out[0, len(prompt) :].tolist())
        assert [completion.ids for completion in group] == [expected, expected]


@pytest.mark.parametrize("name", MODELS)
def test_greedy_equals_generate(name: str) -> None:
    expect_greedy_equals_generate(engine_named(name))


def test_greedy_equals_generate_without_the_attention_interface() -> None:
    torch.manual_seed(0)
    config = hf.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2)
    model = hf.MambaForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    model.generation_config.eos_token_id = STOP
    expect_greedy_equals_generate(engine_of(model))


def test_logprobs_are_the_trainers() -> None:
    """At temperature T without truncation: what the trainer computes at the same T."""
    engine = engine_named("qwen3")
    sampling = Sampling(temperature=0.8, max_tokens=20)
    groups = sample(engine, prompts(), group_size=4, sampling=sampling, seed=0, step=0)
    trees = [
        Tree(p, tuple(c.branches()[0] for c in group))
        for p, group in zip(prompts(), groups, strict=True)
    ]
    scores = TreeScorer(engine.policy().model)(trees, Head(temperature=0.8))
    said = torch.tensor([x for group in groups for c in group for x in c.logprobs])
    assert (said - scores.logprobs_N).abs().max() < 1e-5


def expect_those_of_a_full_forward(
    engine: LocalEngine, asked: list[tuple[int, ...]], groups: list[tuple[Completion, ...]]
) -> None:
    """The log-probs of every answer, read alone by the library's own forward."""
    for prompt, group in zip(asked, groups, strict=True):
        for completion in group:
            tokens = torch.tensor([[*prompt, *completion.ids]])
            with torch.no_grad():
                logits = engine.policy().model(input_ids=tokens, use_cache=False).logits[0]
            expected = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            expected = expected.gather(1, tokens[0, len(prompt) :, None]).squeeze(1)
            assert (torch.tensor(completion.logprobs) - expected).abs().max() < 2e-5


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("longest", [12, 80])
def test_logprobs_are_those_of_a_full_forward(name: str, longest: int) -> None:
    """With prompts short enough for a copy in each row, and with shared long ones."""
    engine = engine_named(name)
    asked, sampling = prompts(longest=longest), Sampling(max_tokens=40)
    groups = sample(engine, asked, group_size=5, sampling=sampling, seed=1, step=0)
    expect_those_of_a_full_forward(engine, asked, groups)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("common", "longest"), [(9, 6), (70, 30)])
def test_what_all_prompts_begin_with_is_read_once(
    name: str, common: int, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same log-probs as those of a full forward over each answer alone."""
    engine, lengths = engine_named(name), []
    system = prompts(count=1, longest=200)[0] * 40
    asked = [(*system[:common], *own) for own in prompts(longest=longest)]
    asked[2] = asked[2][: common + 1]
    sampling = Sampling(max_tokens=30)
    sample(engine, asked, group_size=1, sampling=Sampling(max_tokens=1), seed=0, step=0)
    monkeypatch.setattr(
        reading, "lay_out", lambda trees, device: _noted(lay_out(trees, device), lengths)
    )
    groups = sample(engine, asked, group_size=3, sampling=sampling, seed=1, step=0)
    assert lengths == [common + sum(len(one) - common for one in asked)]
    expect_those_of_a_full_forward(engine, asked, groups)


def _noted(batch: TreeBatch, lengths: list[int]) -> TreeBatch:
    lengths.append(len(batch.tokens_L))
    return batch


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_entropies_are_those_of_a_full_forward(temperature: float) -> None:
    """Over the whole vocabulary at temperature 1, however the tokens are drawn; and asking for them
    changes no draw."""
    engine = engine_named("qwen3")
    sampling = Sampling(temperature=temperature, top_k=5, max_tokens=20, entropies=True)
    groups = sample(engine, prompts(), group_size=3, sampling=sampling, seed=1, step=0)
    for prompt, group in zip(prompts(), groups, strict=True):
        for completion in group:
            tokens = torch.tensor([[*prompt, *completion.ids]])
            with torch.no_grad():
                logits = engine.policy().model(input_ids=tokens, use_cache=False).logits[0]
            said = torch.distributions.Categorical(logits=logits[len(prompt) - 1 : -1]).entropy()
            assert completion.entropies is not None
            assert (torch.tensor(completion.entropies) - said).abs().max() < 1e-4
    silent = sample(engine, prompts(), group_size=3, sampling=replace(sampling, entropies=False),
                    seed=1, step=0)  # fmt: skip
    assert ids(silent) == ids(groups)
    assert all(c.entropies is None for group in silent for c in group)


def test_how_much_is_common() -> None:
    eight = tuple(range(8))
    assert common_beginning([(*eight, 1), (*eight, 2, 3)]) == 8
    assert common_beginning([(*eight, 1, 5), (*eight, 1, 6), (*eight, 1, 6, 7)]) == 9
    assert common_beginning([(*eight, 1), (*eight, 1, 2)]) == 8  # something is left of each
    assert common_beginning([eight, (*eight, 2)]) == 0  # seven are too few
    assert common_beginning([(*eight, 1), (9, *eight)]) == 0
    assert common_beginning([(*eight, 1, 2)]) == 0


@pytest.mark.parametrize("name", MODELS)
def test_the_written_out_step_is_taken_only_where_it_is_the_models_own(name: str) -> None:
    assert honours_plain(model_of(name)) == (name in ("llama", "qwen2", "qwen3", "mistral"))


def test_a_layer_that_was_changed_is_not_written_out() -> None:
    model = model_of("qwen3")
    model.model.layers[1].mlp.register_forward_hook(lambda module, given, out: 2 * out)
    assert not honours_plain(model)


def test_answers_that_begin_alike_are_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A likely token leads: the decoder reads each distinct beginning once, and no other."""
    engine, read = engine_named("qwen3"), []
    sample(engine, prompts(), group_size=1, sampling=Sampling(max_tokens=1), seed=0, step=0)
    step = TreeDecoder.step  # from here on, since the engine tries the decoder out at first

    def counted(self: TreeDecoder, tokens_R: torch.Tensor) -> torch.Tensor:
        read.append(len(tokens_R))
        return step(self, tokens_R)

    monkeypatch.setattr(TreeDecoder, "step", counted)
    sampling = Sampling(temperature=0.3, max_tokens=12)
    groups = sample(engine, prompts(), group_size=16, sampling=sampling, seed=0, step=0)
    for place, rows in enumerate(read, start=1):
        begun = [{c.ids[:place] for c in group if len(c.ids) > place} for group in groups]
        wanted = sum(map(len, begun))
        assert wanted <= rows <= wanted / REPACK_BELOW
    assert read[0] < 6 * 16 / 2
    alone = sample(engine, prompts()[:1], group_size=16, sampling=sampling, seed=0, step=0)
    assert ids(alone)[0] == ids(groups)[0]


def test_places_move_few_rows() -> None:
    def placed(*parents: int) -> list[int]:
        return places(torch.tensor(parents)).tolist()

    assert placed(0, 1, 2) == [0, 1, 2]
    assert placed(0, 0, 3) == [0, 1, 2]
    assert placed(1, 3, 4) == [1, 0, 2]
    assert placed(0, 1, 1, 1) == [0, 1, 2, 3]


@pytest.mark.parametrize("truncation", [{}, {"top_p": 0.8}, {"top_k": 5}, {"min_p": 0.1}])
def test_deterministic_whatever_the_batch(truncation: dict[str, float]) -> None:
    sampling = Sampling(temperature=1.0, max_tokens=25, **truncation)  # type: ignore[arg-type]
    wide, narrow = engine_named("mistral"), engine_named("mistral", max_rows=4)
    asked = {"group_size": 4, "sampling": sampling, "seed": 3, "step": 9}
    given = ids(sample(wide, prompts(), **asked))
    assert given == ids(sample(narrow, prompts()[::-1], **asked))[::-1]
    assert given[2] == ids(sample(wide, prompts()[2:3], **asked))[0]
    larger = ids(sample(wide, prompts(), **{**asked, "group_size": 6}))
    assert given == [group[:4] for group in larger]
    for other in ({"seed": 4}, {"step": 10}):
        assert given != ids(sample(wide, prompts(), **{**asked, **other}))


def test_a_repeated_prompt_gets_its_own_draws() -> None:
    engine = engine_named("llama")
    sampling = Sampling(temperature=1.5, max_tokens=12)
    twice = sample(engine, [prompts()[0]] * 2, group_size=2, sampling=sampling, seed=0, step=0)
    once = sample(engine, prompts()[:1], group_size=4, sampling=sampling, seed=0, step=0)
    assert [*ids(twice)[0], *ids(twice)[1]] == ids(once)[0]


def test_group_members_differ_and_finish_apart() -> None:
    engine = engine_named("qwen3")
    sampling = Sampling(temperature=2.0, max_tokens=40)
    (group,) = sample(engine, prompts()[:1], group_size=32, sampling=sampling, seed=0, step=0)
    assert len({c.ids for c in group}) == 32
    assert {c.finish for c in group} == {"stop", "length"}
    for completion in group:
        assert len(completion.ids) == len(completion.logprobs) <= 40
        assert not set(completion.ids[:-1]) & set(STOP)
        assert (completion.ids[-1] in STOP) == (completion.finish == "stop")


def test_stop_strings_end_the_answer_and_stay_in_its_text() -> None:
    """Rewards read the text: `stop: ["</answer>"]` must not take away the tag they look for."""
    engine = engine_named("qwen3")
    greedy = Sampling(temperature=0, max_tokens=30)
    (free,) = sample(engine, prompts()[:1], group_size=1, sampling=greedy, seed=0, step=0)
    stop = str(free[0].ids[3])
    asked = replace(greedy, stop=("no such text", stop))
    (kept,) = sample(engine, prompts()[:1], group_size=1, sampling=asked, seed=0, step=0)
    without = replace(asked, include_stop_str_in_output=False)
    (cut,) = sample(engine, prompts()[:1], group_size=1, sampling=without, seed=0, step=0)
    assert kept[0].text == cut[0].text + stop
    assert stop not in cut[0].text
    assert kept[0].ids == cut[0].ids == free[0].ids[: len(cut[0].ids)]
    assert kept[0].finish == cut[0].finish == "stop"


@pytest.mark.parametrize(
    ("stops", "text", "kept"),
    [
        (("</a>",), "<a>1</a> and", "<a>1</a>"),
        (("end", "d of"), "at the end of it", "at the end"),
        (("b", "ab"), "xab", "xab"),
        (("</a>",), "<a>1", "<a>1"),
    ],
)
def test_the_stop_string_that_is_complete_first(
    stops: tuple[str, ...], text: str, kept: str
) -> None:
    assert stopped(text, Sampling(stop=stops)) == kept


def test_dropout_is_off_and_the_mode_is_restored() -> None:
    torch.manual_seed(0)
    config = hf.Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, attention_dropout=0.5,
    )  # fmt: skip
    model = hf.Qwen3ForCausalLM(config).train()
    engine = engine_of(model)
    asked = {"group_size": 2, "sampling": Sampling(max_tokens=10), "seed": 0, "step": 0}
    first = ids(sample(engine, prompts(), **asked))
    assert first == ids(sample(engine, prompts(), **asked))
    assert model.training


class TestDistribution:
    LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0]])

    def probabilities(self, **options: Any) -> list[float]:
        return kept_logits(self.LOGITS, Sampling(**options)).softmax(-1)[0].tolist()

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

    @pytest.mark.parametrize("vocabulary", [4, BLOCK, 3 * BLOCK + 7])
    def test_draws_follow_the_distribution(self, vocabulary: int) -> None:
        """Many draws from each of two rows; the second cannot draw every other token."""
        generator = torch.Generator().manual_seed(0)
        logits = 2 * torch.randn(2, vocabulary, generator=generator)
        logits[1, ::2] = float("-inf")
        row = torch.arange(2).repeat(200_000)
        uniform = torch.rand(len(row), generator=generator, dtype=torch.float64)
        token, logprob = draw(logits.clone(), row, uniform)
        expected = logits.double().log_softmax(-1)
        assert (logprob - expected[row, token]).abs().max() < 1e-5
        for number, probability in enumerate(expected.exp()):
            often = torch.bincount(token[row == number], minlength=vocabulary) / 200_000
            error = (probability * (1 - probability) / 200_000).sqrt()
            assert ((often - probability).abs() <= 5 * error + 1e-5).all()
            assert not often[probability == 0].any()

    def test_draw_inverts_the_cumulative_distribution(self) -> None:
        vocabulary = 2 * BLOCK + 5
        logits = torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(3))
        cdf = logits[0].double().softmax(0).cumsum(0)
        middle = cdf - logits[0].double().softmax(0) / 2
        token, _ = draw(logits.clone(), torch.zeros(vocabulary, dtype=torch.long), middle)
        assert token.tolist() == list(range(vocabulary))

    @pytest.mark.parametrize("vocabulary", [4, 2 * BLOCK + 4])
    def test_draw_at_the_edges(self, vocabulary: int) -> None:
        """The first and the last token that have mass, wherever they stand."""
        logits = torch.full((1, vocabulary), float("-inf"))
        logits[0, 1], logits[0, vocabulary - 2] = -0.6931472, -0.6931472
        edges = torch.tensor([0.0, 0.5 - 1e-6, 0.5 + 1e-6, 1 - 2**-53, 1.0], dtype=torch.float64)
        token, logprob = draw(logits, torch.zeros(5, dtype=torch.long), edges)
        last = vocabulary - 2
        assert token.tolist() == [1, 1, last, last, last]
        assert logprob.tolist() == pytest.approx([-0.6931472] * 5)

    @pytest.mark.parametrize("vocabulary", [4, 2 * BLOCK + 4])
    def test_what_is_not_a_number_is_drawn_and_said(self, vocabulary: int) -> None:
        """A policy that diverged must reach the alarms, not end in an index out of range."""
        logits = torch.full((1, vocabulary), float("nan"))
        row, uniform = torch.zeros(1, dtype=torch.long), torch.tensor([0.5], dtype=torch.float64)
        token, logprob = draw(logits, row, uniform)
        assert 0 <= token.item() < vocabulary
        assert logprob.isnan().all()
