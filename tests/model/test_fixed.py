"""A step of fixed shapes says what the growing one says; on a CUDA device a graph repeats it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from strop.engines.draws import DrawKey
from strop.engines.engine import Request, Sampling, requests_of
from strop.engines.local.continuous import Continuous
from strop.engines.local.engine import LocalEngine
from strop.model import fixed
from strop.model.fixed import FixedStep, Repeats, lowered, repeatable
from strop.model.logprobs import TreeScorer
from strop.model.network import Policy
from strop.types import Completion
from tests.support.arrivals import STOP, arrivals, expect_same, mixed
from tests.support.families import model_of
from tests.support.rollouts import Words, prompts
from tests.support.sampling import prompted

PLAIN = ["llama", "qwen2", "qwen3", "mistral"]
GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def engine(name: str, *, repeats: bool, device: str = "cpu", bfloat16: bool = False) -> LocalEngine:
    model = model_of(name).to(device)
    model.generation_config.eos_token_id = STOP
    made = LocalEngine("", Policy(model, Words(), bfloat16, TreeScorer(model)))
    made._sampler.repeats = repeats
    return made


def shared(count: int = 3, group: int = 4) -> list[Request]:
    """Groups whose prompts are long enough to be kept once, and of different lengths."""
    first, second = prompts(count=2, longest=90)
    long = [(*(first * 9), *second)[: 90 - 7 * n] for n in range(count)]
    return requests_of(prompted(long), Sampling(max_tokens=40), DrawKey(1, "eval"), group)


def answered(made: LocalEngine, requests: list[Request], seed: int = 0) -> dict[int, Completion]:
    """They come in a random order while others decode."""
    decoding: Continuous[int] = made.open()
    return dict(arrivals(decoding, requests, random.Random(seed)))


def expect_alike(found: dict[int, Completion], wanted: dict[int, Completion]) -> None:
    assert found.keys() == wanted.keys()
    for number, completion in found.items():
        expect_same(completion, wanted[number])


@pytest.mark.parametrize("asked", [mixed, shared], ids=["own", "shared"])
@pytest.mark.parametrize("name", PLAIN)
def test_says_what_the_step_that_grows_says(name: str, asked: Callable[[], list[Request]]) -> None:
    """Rows join and end, slots run out, windows move (mistral's is 5 tokens)."""
    requests = asked()
    found, wanted = (answered(engine(name, repeats=r), requests) for r in (True, False))
    expect_alike(found, wanted)


def test_a_window_over_shared_prompts() -> None:
    requests = shared()
    both = []
    for repeats in (True, False):
        made = engine("mistral", repeats=repeats)
        for layer in made.policy().model.model.layers:
            layer.self_attn.sliding_window = 70
        both.append(answered(made, requests))
    expect_alike(*both)


def test_planted_slots_that_nobody_wrote_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self: FixedStep, window: int | None) -> torch.Tensor:
        return torch.zeros(self.shape.rows, 1, 1, self.shape.slots, dtype=torch.bool)

    requests = mixed()
    wanted = answered(engine("qwen3", repeats=False), requests)
    monkeypatch.setattr(FixedStep, "_make_hidden", careless)
    with pytest.raises(AssertionError):
        expect_alike(answered(engine("qwen3", repeats=True), requests), wanted)


def test_few_shapes_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a graph that has to be recorded: 16 answers of up to 60 tokens halve four times,
    prompts twice, and slots run out once."""
    shapes: list[fixed.Shape] = []
    run_of = Repeats._run_of

    def noted(self: Repeats, step: FixedStep) -> Any:
        shapes.append(step.shape)
        return run_of(self, step)

    monkeypatch.setattr(Repeats, "_run_of", noted)
    asked = [replace(r, sampling=Sampling(max_tokens=60)) for r in shared(4, 4)]
    found = dict(engine("qwen3", repeats=True).generate(asked))
    assert max(len(one.ids) for one in found.values()) > 32  # slots ran out
    assert len(shapes) <= 4 + 2 + 1 + 1
    assert shapes[0].groups == 4


class TestLowered:
    """Under autocast a graph reads weights that were cast once."""

    def test_which(self) -> None:
        model = model_of("qwen3")
        assert lowered(model) == {}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = lowered(model)
        linear = {f"causal_lm.{name}.weight" for name, module in model.named_modules()
                  if isinstance(module, torch.nn.Linear)}  # fmt: skip
        assert found.keys() == linear
        assert len(linear) == 3 * 7 + 1
        assert "causal_lm.lm_head.weight" in linear
        assert {weight.dtype for weight in found.values()} == {torch.bfloat16}

    @pytest.mark.parametrize("name", ["qwen3", "llama"])
    def test_say_the_same_to_the_bit(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        requests = shared()
        model = engine(name, repeats=True, bfloat16=True)
        before = {n: p.clone() for n, p in model.policy().model.named_parameters()}
        once = dict(model.generate(requests))
        monkeypatch.setattr(fixed, "lowered", lambda _: {})
        each_time = dict(engine(name, repeats=True, bfloat16=True).generate(requests))
        assert once == each_time
        for n, parameter in model.policy().model.named_parameters():
            assert parameter.dtype == torch.float32
            assert torch.equal(parameter, before[n])

    def test_a_tied_embedding_keeps_its_precision(self) -> None:
        """The head is cast, the embedding that has the same weights is not."""
        model = model_of("qwen3")
        model.config.tie_word_embeddings = True
        model.tie_weights()
        assert model.lm_head.weight is model.model.embed_tokens.weight
        seen = []

        def step() -> torch.Tensor:
            seen.append((model.model.embed_tokens.weight.dtype, model.lm_head.weight.dtype))
            return torch.zeros(1)

        with torch.autocast("cpu", dtype=torch.bfloat16):
            weights = lowered(model)
        whole = fixed.Whole(model, step)
        torch.func.functional_call(whole, weights, (), tie_weights=False)
        assert seen == [(torch.float32, torch.bfloat16)]


class TestWhere:
    def test_never_on_a_cpu(self) -> None:
        assert not LocalEngine("", engine("qwen3", repeats=False)._loaded)._sampler.repeats

    @pytest.mark.parametrize(
        ("device", "rope", "module", "fits"),
        [
            ("cuda", "default", torch.nn.Linear(1, 1), True),
            ("cuda", "llama3", torch.nn.Linear(1, 1), True),
            ("cuda", "dynamic", torch.nn.Linear(1, 1), False),
            ("cpu", "default", torch.nn.Linear(1, 1), False),
            ("cuda", "default", type("Four", (), {"__module__": "bitsandbytes.nn"})(), False),
        ],
    )
    def test_which_models(self, device: str, rope: str, module: Any, fits: bool) -> None:
        decoder = SimpleNamespace(rotary_emb=SimpleNamespace(rope_type=rope))
        model = SimpleNamespace(
            device=torch.device(device), get_decoder=lambda: decoder, modules=lambda: [module]
        )
        assert repeatable(model) == fits


class TestGraph:
    """On a CUDA device."""

    pytestmark = GPU

    @pytest.mark.parametrize("asked", [mixed, shared], ids=["own", "shared"])
    @pytest.mark.parametrize("name", PLAIN)
    def test_equals_eager(self, name: str, asked: Callable[[], list[Request]]) -> None:
        """Log-probs to 2e-5 and the same tokens, while rows join and end."""
        graph = LocalEngine("", engine(name, repeats=False, device="cuda")._loaded)
        assert graph._sampler.repeats
        wanted = answered(engine(name, repeats=False, device="cuda"), asked())
        expect_alike(answered(graph, asked()), wanted)

    @pytest.mark.parametrize("name", ["qwen3", "llama"])
    def test_equals_the_same_step_without_a_graph_in_bfloat16(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The operations are the same, so the bits are."""
        graph = dict(engine(name, repeats=True, device="cuda", bfloat16=True).generate(shared()))
        monkeypatch.setattr(Repeats, "_graph_of", Repeats._run_of)
        without = dict(engine(name, repeats=True, device="cuda", bfloat16=True).generate(shared()))
        assert graph == without

    def test_after_new_weights_the_next_answers_are_theirs(self) -> None:
        made = engine("qwen3", repeats=True, device="cuda")
        dict(made.generate(shared()))
        with torch.no_grad():
            for parameter in made.policy().model.parameters():
                parameter.mul_(1.1)
        made.publish({})
        eager = engine("qwen3", repeats=False, device="cuda")
        with torch.no_grad():
            for parameter in eager.policy().model.parameters():
                parameter.mul_(1.1)
        eager.publish({})
        expect_alike(dict(made.generate(shared())), dict(eager.generate(shared())))
