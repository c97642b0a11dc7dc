"""Replayed routes: exact where they are the model's own, equal to a loop over experts where they
are others, the same for trees and rows, and gone when the forward is over."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from strop.errors import UsageError
from strop.model.attention import recomputed_alike
from strop.model.logprobs import TreeScorer, honours_tree
from strop.model.routing import packed, recorded, routers, unpacked
from strop.types import Branch, Routes, TokenScores, Tree
from tests.support.experts import EXPERTS, MIXTURES, along, by_hand, drawn_along, mixture
from tests.support.families import model_of, tree_of


def trees(count: int = 2) -> list[Tree]:
    draw = random.Random(3)
    return [tree_of(draw, 3, 7) for _ in range(count)]


def along_own(model: Any, given: list[Tree]) -> list[Tree]:
    """The trees along the routes that this model takes by itself."""
    with recorded(model) as record:
        TreeScorer(model)(given)  # its own probe is read before
    seen = iter(record.last())
    lengths = [n for t in given for n in (len(t.trunk), *(len(b.ids) for b in t.branches))]
    took = [torch.stack([next(seen) for _ in range(length)]) for length in lengths]
    return along(given, [packed(part, EXPERTS) for part in took])


def gradient(model: Any, logprobs_N: torch.Tensor) -> torch.Tensor:
    """Of a weighted sum in which every token counts differently; 0 where there is none."""
    model.zero_grad()
    (logprobs_N * torch.linspace(-1, 2, len(logprobs_N))).sum().backward()
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()]
    )


def scored(model: Any, given: list[Tree], *, by_tree: bool = True) -> TokenScores:
    scorer = TreeScorer(model)
    assert scorer.by_tree
    scorer.by_tree = by_tree
    return scorer(given)


@pytest.mark.parametrize("name", MIXTURES)
def test_its_own_routes_change_not_one_bit(name: str) -> None:
    model = mixture(name)
    assert honours_tree(model)
    given = trees()
    plain, replayed = scored(model, given), scored(model, along_own(model, given))
    assert torch.equal(plain.logprobs_N, replayed.logprobs_N)
    assert torch.equal(gradient(model, plain.logprobs_N), gradient(model, replayed.logprobs_N))
    assert plain.rerouted_T is None
    assert replayed.rerouted_T is not None
    assert replayed.rerouted_T.tolist() == [0.0] * sum(map(len, given))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MIXTURES)
def test_other_routes_equal_a_loop_over_experts(name: str, dtype: torch.dtype) -> None:
    model = mixture(name).to(dtype)
    model.set_experts_implementation("eager")  # torch's grouped product takes no float64
    given = drawn_along(trees())
    hand = [by_hand(model, tree, n) for tree in given for n in range(len(tree.branches))]
    hand_N, ours_N = torch.cat(hand), scored(model, given).logprobs_N
    assert (ours_N - hand_N).abs().max() < 1e-5
    theirs, ours = gradient(model, hand_N), gradient(model, ours_N)
    assert (ours - theirs).norm() < (1e-4 if dtype == torch.float32 else 1e-6) * theirs.norm()
    router = next(iter(routers(model).values()))
    gradient(model, scored(model, given).logprobs_N)
    assert router.weight.grad.abs().max() > 1e-3  # the router learns from routes it did not choose


@pytest.mark.parametrize("name", MIXTURES)
def test_the_tree_equals_padded_rows_along_the_same_routes(name: str) -> None:
    model = mixture(name)
    given = drawn_along(trees(3))
    by_tree, by_rows = scored(model, given), scored(model, given, by_tree=False)
    assert (by_tree.logprobs_N - by_rows.logprobs_N).abs().max() < 1e-5
    ours, theirs = gradient(model, by_tree.logprobs_N), gradient(model, by_rows.logprobs_N)
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


def test_one_wrong_expert_is_seen_in_what_follows_it() -> None:
    """Planted: one token of one branch goes elsewhere in one layer."""
    model = mixture()
    tree = Tree((3, 1), tuple(Branch((5, 6, 7, 8), (True,) * 4) for _ in range(2)))
    own = along_own(model, [tree])
    first, second = own[0].branches
    assert second.routes is not None
    experts = unpacked(second.routes)
    experts[1, 0] = torch.tensor([e for e in range(EXPERTS) if e not in experts[1, 0].tolist()][:2])
    wrong = replace(own[0], branches=(first, replace(second, routes=packed(experts, EXPERTS))))
    clean, planted = scored(model, own), scored(model, [wrong])
    moved = (clean.logprobs_N - planted.logprobs_N).abs().detach()
    assert moved[:6].max() < 1e-6  # the sibling, and the tokens before
    assert moved[6:].min() > 1e-3
    assert planted.rerouted_T is not None
    # of the row's ten tokens it is the eighth, and two of three layers route
    assert planted.rerouted_T[:7].tolist() == [0.0] * 7
    assert planted.rerouted_T[7] >= 0.5


def test_tokens_without_a_route_take_their_own() -> None:
    model = mixture()
    own = along_own(model, trees())
    half = [
        replace(t, branches=(replace(t.branches[0], routes=None), *t.branches[1:])) for t in own
    ]
    assert torch.equal(scored(model, half).logprobs_N, scored(model, own).logprobs_N)
    left_out = sum(len(tree.branches[0].ids) for tree in own)
    rerouted = scored(model, half).rerouted_T
    assert rerouted is not None
    assert len(rerouted) == sum(map(len, own)) - left_out


def test_nothing_stays_behind() -> None:
    """Also after a forward that failed."""
    model = mixture()
    given = trees()
    before = scored(model, given).logprobs_N
    scored(model, drawn_along(given))
    scorer = TreeScorer(model)
    model.get_decoder().norm.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scorer(drawn_along(given))
    model.get_decoder().norm._forward_pre_hooks.clear()
    assert all(not router._forward_hooks for router in routers(model).values())
    assert torch.equal(scored(model, given).logprobs_N, before)


def test_recomputed_layers_take_the_same_routes() -> None:
    """With gradient checkpointing the layers run again in the backward, when the forward's own
    replay is over."""
    model, given = mixture(), drawn_along(trees())
    plain = gradient(model, scored(model, given).logprobs_N)
    model.gradient_checkpointing_enable(
        {"use_reentrant": False, "context_fn": recomputed_alike(model)}
    )
    scorer = TreeScorer(model)
    model.train()
    again = gradient(model, scorer(given).logprobs_N)
    assert (plain - again).norm() < 1e-6 * plain.norm()
    own = gradient(model, scorer(trees()).logprobs_N)
    assert (plain - own).norm() > 0.1 * plain.norm()
    assert all(not router._forward_hooks for router in routers(model).values())


class TestRoutesOfAnotherModel:
    @pytest.mark.parametrize(
        ("layers", "chosen", "said"),
        [(2, 2, "of 2 layers with 2 experts"), (3, 1, "of 3 layers with 1 experts")],
    )
    def test_of_another_shape(self, layers: int, chosen: int, said: str) -> None:
        routes = packed(torch.zeros(1, layers, chosen), EXPERTS)
        tree = Tree((1,), (Branch((5,), (True,)),), routes)
        with pytest.raises(UsageError, match=said):
            scored(mixture(), [tree])

    def test_to_an_expert_that_is_not_there(self) -> None:
        routes = packed(torch.full((1, 3, 2), EXPERTS), EXPERTS)
        tree = Tree((1,), (Branch((5,), (True,)),), routes)
        with pytest.raises(UsageError, match="leads to expert 6"):
            scored(mixture(), [tree])

    def test_of_a_dense_model(self) -> None:
        tree = drawn_along([Tree((1,), (Branch((5,), (True,)),))])
        with pytest.raises(UsageError, match="3 layers, 0 of which route"):
            scored(model_of("qwen3"), tree)

    def test_of_two_models(self) -> None:
        one, other = packed(torch.zeros(1, 3, 2), EXPERTS), packed(torch.zeros(1, 4, 2), EXPERTS)
        pair = [Tree((1,), (Branch((5,), (True,)),), routes) for routes in (one, other)]
        with pytest.raises(UsageError, match="different models"):
            scored(mixture(), pair)


@pytest.mark.parametrize(("experts", "width"), [(256, 1), (257, 2)])
def test_bytes_hold_every_expert(experts: int, width: int) -> None:
    given = torch.tensor([[[experts - 1, 0]], [[3, experts - 2]]])
    routes = packed(given, experts)
    assert routes == Routes(routes.ids, layers=1, chosen=2, width=width)  # type: ignore[arg-type]
    assert routes.tokens == 2
    assert len(routes.ids) == 4 * width
    assert torch.equal(unpacked(routes), given.int())
