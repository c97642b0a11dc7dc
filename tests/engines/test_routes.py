"""Routes that engines give: those of the model itself, in vLLM's form over the wire, and the
trainer along those of a sampler of lower precision."""

from __future__ import annotations

import base64
import copy
import io
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request, Sampling, requests_of
from strop.engines.local.continuous import Continuous, Room
from strop.engines.local.engine import LocalEngine
from strop.engines.routes import routes_of_text, routes_text
from strop.engines.served.build import served_engine
from strop.engines.served.expect import expect_routes, expect_servers
from strop.engines.server.held import Held
from strop.errors import HttpError, TrainingError, UsageError
from strop.model.load import load_policy
from strop.model.logprobs import Head, TreeScorer
from strop.model.network import Policy
from strop.model.prefixes import Prefixes
from strop.model.routing import packed, recorded, unpacked
from strop.recipe.train.engine import VllmRecipe
from strop.recipe.train.model import ModelRecipe
from strop.rollout.routed import routed_tree
from strop.train.loop.parity import Parity, expect_parity
from strop.types import Completion, Origin, Routes, Task, Tree
from tests.support.arrivals import arrivals
from tests.support.engine_servers import engine_server
from tests.support.experts import drawn_routes, mixture, save_mixture
from tests.support.families import model_of
from tests.support.rollouts import prompts
from tests.support.sampling import engine_of, prompted, sample

SAMPLING = Sampling(temperature=0.8, max_tokens=12, routes=True)


def checked(
    policy: Policy, engine: LocalEngine, sampling: Sampling, *, limit: float, seed: int = 1
) -> dict[str, float]:
    """What is checked before step 1."""
    parity = Parity(policy, engine, prompted(prompts()), sampling, seed, publish=lambda: 1)
    return expect_parity(parity, limit=limit)


COMMON = tuple(range(20, 32))
LONG = tuple(range(8, 88))
PROMPTS = {
    "of different lengths": prompts(),
    "with a common beginning": [(*COMMON, *prompt) for prompt in prompts()],
    "so long that their keys are shared": [(*LONG, 9), (*LONG[::-1], 3, 4)],
    "one of them twice": [(8, 9, 10), (11, 12), (8, 9, 10)],
}


def mixture_engine(by_tree: bool = True) -> LocalEngine:
    model = mixture()
    model.generation_config.eos_token_id = [2, 5, 7]
    engine = engine_of(model)
    engine._sampler.by_tree = by_tree
    return engine


def of_one_row(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """The experts of these tokens, read alone in one row by transformers' own attention."""
    with torch.no_grad(), recorded(model) as record:
        model(input_ids=torch.tensor([ids]))
    return record.last()


@pytest.mark.parametrize("by_tree", [True, False], ids=["tree", "reread"])
@pytest.mark.parametrize("asked", PROMPTS)
def test_an_answer_says_the_experts_that_the_model_takes(asked: str, by_tree: bool) -> None:
    engine = mixture_engine(by_tree)
    groups = sample(engine, PROMPTS[asked], group_size=3, sampling=SAMPLING, seed=0, step=0)
    lengths = set()
    for prompt, group in zip(PROMPTS[asked], groups, strict=True):
        for made in group:
            assert made.prompt_routes is not None
            assert made.routes is not None
            taken = of_one_row(engine.policy().model, [*prompt, *made.ids[:-1]])
            assert torch.equal(unpacked(made.prompt_routes), taken[: len(prompt)].int())
            assert torch.equal(unpacked(made.routes), taken[len(prompt) :].int())
            assert made.prompt_routes is group[0].prompt_routes  # kept once
            lengths.add(len(made.ids))
    assert len(lengths) > 1


def test_recording_changes_no_answer_and_costs_nobody_else() -> None:
    engine = mixture_engine()
    plain = sample(engine, prompts(), group_size=2, sampling=replace(SAMPLING, routes=False),
                   seed=0, step=0)  # fmt: skip
    routed = sample(engine, prompts(), group_size=2, sampling=SAMPLING, seed=0, step=0)
    bare = [[replace(c, routes=None, prompt_routes=None) for c in group] for group in routed]
    assert bare == [list(group) for group in plain]
    assert all(one.routes is None for group in plain for one in group)


@pytest.mark.parametrize("by_tree", [True, False], ids=["tree", "reread"])
@pytest.mark.parametrize("prefix_bytes", [0, 2**24], ids=["nothing kept", "prompts kept"])
def test_those_who_join_and_leave_say_their_own(by_tree: bool, prefix_bytes: int) -> None:
    """Some ask for routes and some do not, rows are given to others, and what is known of a prompt
    is read again where its routes are asked for."""
    engine = mixture_engine(by_tree)
    engine._prefixes = Prefixes(prefix_bytes) if prefix_bytes else None
    asked = [prompt for name in PROMPTS for prompt in PROMPTS[name]]
    known = requests_of(prompted(asked), Sampling(max_tokens=2), DrawKey(7, "eval"), 1)
    dict(engine.generate(known))
    how = (SAMPLING, replace(SAMPLING, routes=False), replace(SAMPLING, max_tokens=20))
    requests = [
        request
        for number, prompt in enumerate(prompted(asked))
        for request in requests_of([prompt], how[number % 3], DrawKey(number, "eval"), 2)
    ]
    decoding: Continuous[int] = engine.open()
    decoding.room = Room(max_rows=5)
    found = dict(arrivals(decoding, requests, random.Random(3)))
    assert sorted(found) == list(range(len(requests)))
    lengths = set()
    for number, request in enumerate(requests):
        made, prompt = found[number], request.prompt.prompt_ids
        if not request.sampling.routes:
            assert made.routes is made.prompt_routes is None
            continue
        assert made.prompt_routes is not None
        assert made.routes is not None
        taken = of_one_row(engine.policy().model, [*prompt, *made.ids[:-1]]).int()
        assert torch.equal(unpacked(made.prompt_routes), taken[: len(prompt)])
        assert torch.equal(unpacked(made.routes), taken[len(prompt) :])
        lengths.add(len(made.ids))
    assert len(lengths) > 3


def test_an_answer_of_one_token_has_no_routes_of_its_own() -> None:
    made = sample(mixture_engine(), [(8, 9)], group_size=1,
                  sampling=replace(SAMPLING, max_tokens=1), seed=0, step=0)[0][0]  # fmt: skip
    assert made.routes is not None
    assert made.prompt_routes is not None
    assert (made.prompt_routes.tokens, made.routes.tokens) == (2, 0)


def test_a_dense_model_is_refused() -> None:
    with pytest.raises(UsageError, match="Qwen3ForCausalLM has no router"):
        sample(engine_of(model_of("qwen3")), [(8, 9)], group_size=1, sampling=SAMPLING,
               seed=0, step=0)  # fmt: skip


class TestLowerPrecision:
    """The engine holds the trainer's weights in bfloat16."""

    @pytest.fixture(scope="class")
    def trained(self) -> Any:
        return mixture()

    @pytest.fixture(scope="class")
    def rounded(self, trained: Any) -> LocalEngine:
        return engine_of(copy.deepcopy(trained).to(torch.bfloat16))

    def test_following_its_routes_brings_the_log_probs_nearer(
        self, trained: Any, rounded: LocalEngine
    ) -> None:
        asked = prompts(24)
        groups = sample(rounded, asked, group_size=4, sampling=replace(SAMPLING, max_tokens=24),
                        seed=0, step=0)  # fmt: skip
        said = torch.tensor([x for group in groups for made in group for x in made.logprobs or ()])
        pairs = list(zip(asked, groups, strict=True))
        head, scorer = Head(temperature=0.8), TreeScorer(trained)
        own = scorer(
            [Tree(prompt, tuple(m.branches()[0] for m in group)) for prompt, group in pairs], head
        )
        followed = scorer([routed_tree(prompt, group) for prompt, group in pairs], head)
        assert followed.rerouted_T is not None
        assert 0.001 < followed.rerouted_T.mean() < 0.1
        apart, nearer = ((said - s.logprobs_N).abs().detach() for s in (own, followed))
        assert nearer.mean() < 0.8 * apart.mean()
        assert nearer.max() < 0.5 * apart.max()

    def test_the_self_check_measures_both(self, trained: Any, rounded: LocalEngine) -> None:
        policy = engine_of(trained).policy()
        how = replace(SAMPLING, max_tokens=60)
        found = checked(policy, rounded, how, limit=0.1)
        assert 0 < found["sampler_mismatch"] < found["sampler_mismatch_unreplayed"]
        assert 0 < found["sampler_rerouted"] < 0.2
        plain = replace(how, routes=False)
        alone = checked(policy, rounded, plain, limit=0.5)
        assert alone == {"sampler_mismatch": found["sampler_mismatch_unreplayed"]}

    def test_planted_an_engine_that_says_other_routes_than_it_took(self, trained: Any) -> None:
        class Lying(LocalEngine):
            def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
                for number, made in super().generate(requests):
                    yield number, replace(made, routes=drawn_routes(number, len(made.ids) - 1))

        policy = engine_of(trained).policy()
        with pytest.raises(TrainingError, match="sampler and trainer disagree"):
            checked(policy, Lying("", policy), SAMPLING, limit=0.1, seed=0)

    def test_an_engine_that_says_none_or_too_few(self, trained: Any) -> None:
        made = Completion.one_turn((4, 5, 6), "", (-1.0,) * 3, "stop")
        with pytest.raises(UsageError, match="does not say which experts"):
            routed_tree((1, 2), [made])
        few = replace(made, prompt_routes=drawn_routes(0, 2), routes=drawn_routes(0, 3))
        with pytest.raises(UsageError, match="routes of 3 tokens for 2"):
            routed_tree((1, 2), [few])


class TestWire:
    made = replace(
        Completion.one_turn((4, 5, 6), "", (-1.0,) * 3, "stop"),
        prompt_routes=packed(torch.tensor([[[3, 1], [0, 2]]]), 300),
        routes=packed(torch.tensor([[[299, 0], [4, 5]], [[1, 2], [3, 4]]]), 300),
    )

    def test_the_form_is_vllms(self) -> None:
        text = routes_text(self.made)
        assert text is not None
        array = np.load(io.BytesIO(base64.b64decode(text)))
        assert array.tolist() == [[[3, 1], [0, 2]], [[299, 0], [4, 5]], [[1, 2], [3, 4]]]
        assert routes_of_text(text, 1, 3, "url") == (self.made.prompt_routes, self.made.routes)

    def test_any_whole_numbers_are_read(self) -> None:
        text = self.text(np.array([[[3, 1]], [[0, 2]]], "<i4"))
        assert routes_of_text(text, 1, 2, "url") == (
            Routes(bytes([3, 1]), 1, 2), Routes(bytes([0, 2]), 1, 2)
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda text: "no base64!", "no array"),
            (lambda text: base64.b64encode(b"no array").decode(), "no array"),
            (lambda text: text(np.zeros((3, 2))), "no array"),
            (lambda text: text(np.zeros((3, 2, 2))), "no array"),
            (lambda text: text(np.full((3, 2, 2), -1)), "no array"),
            (lambda text: text(np.full((3, 2, 2), 2**16)), "no array"),
            (
                lambda text: text(np.zeros((4, 2, 2), "u1")),
                "of 4 tokens, where 1 of a prompt and 2",
            ),
        ],
    )
    def test_another_form_is_refused(self, make: Callable[[Any], str], said: str) -> None:
        with pytest.raises(HttpError, match=said):
            routes_of_text(make(self.text), 1, 3, "url")

    @staticmethod
    def text(array: Any) -> str:
        with io.BytesIO() as file:
            np.save(file, array)
            return base64.b64encode(file.getvalue()).decode()


class TestServer:
    ASKED = tuple(
        PromptedTask(Task(str(n), {}, Origin("t", n)), ids)
        for n, ids in enumerate([(2, 40, 41, 42, 43, 3), (2, 50, 51, 3)])
    )

    @pytest.fixture(scope="class")
    def folder(self, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return save_mixture(tmp_path_factory.mktemp("mixture"), tokenizer)

    def test_gives_the_routes_of_the_embedded_engine(self, folder: Path, tmp_path: Path) -> None:
        policy = load_policy(ModelRecipe(path=str(folder)))

        def tell(held: Held) -> None:
            held.routes = True

        with engine_server(folder, alter=tell) as server:
            recipe = VllmRecipe(kind="vllm", url=[server.url])
            about = expect_servers(recipe, ModelRecipe(path=str(folder)), policy.tokenizer,
                                   self.ASKED, answer_tokens=12)  # fmt: skip
            expect_routes(recipe, self.ASKED[0])
            engine = served_engine(recipe, about, policy, self.ASKED, folder=tmp_path / "engine")
            engine.publish(dict(policy.model.named_parameters()))
            requests = [
                Request(p, SAMPLING, DrawKey(n, "training")) for n, p in enumerate(self.ASKED)
            ]
            answers = dict(engine.generate(requests))
        for number, prompt in enumerate(self.ASKED):
            made = answers[number]
            assert made.routes is not None
            assert made.prompt_routes is not None
            taken = of_one_row(policy.model, [*prompt.prompt_ids, *made.ids[:-1]]).int()
            assert torch.equal(
                torch.cat([unpacked(made.prompt_routes), unpacked(made.routes)]), taken
            )

    def test_that_does_not_say_them_is_refused(self, folder: Path) -> None:
        with engine_server(folder) as server:
            recipe = VllmRecipe(kind="vllm", url=[server.url])
            with pytest.raises(UsageError, match="does not say which") as found:
                expect_routes(recipe, self.ASKED[0])
            assert "--enable-return-routed-experts" in str(found.value)
            assert server.url in str(found.value)

    def test_of_a_dense_model_does_not_start(self, model_folder: Path) -> None:
        with pytest.raises(UsageError, match="Qwen3ForCausalLM has no router"):
            Held(str(model_folder), routes=True)
