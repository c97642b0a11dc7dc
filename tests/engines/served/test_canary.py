"""The canary sees every planted staleness, and none where weights arrived."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from strop.engines.canary import Canary, canary_tree
from strop.engines.engine import PromptedTask
from strop.errors import TrainingError
from strop.model.network import Policy
from strop.types import Origin, Task, Tree

NOISES = (0.0, 1e-6, 1e-3, 1e-2)


def prompts(*ids: tuple[int, ...]) -> list[PromptedTask]:
    return [PromptedTask(Task("", {}, Origin("t", 0)), one) for one in ids]


@pytest.fixture
def canary(policy: Policy) -> Canary:
    return Canary(policy, canary_tree(prompts((1, 2), tuple(range(4, 40)))), limit=0.05)


def nudge(policy: Policy, size: float, draw: torch.Generator) -> None:
    with torch.no_grad():
        for weight in policy.trainable():
            weight += size * torch.randn(weight.shape, generator=draw)


def test_the_text_is_the_longest_prompt_and_leaves_out_its_first_token() -> None:
    tree = canary_tree(prompts((1, 2), (4, 5, 6)))
    assert (tree.trunk, tree.branches[0].ids) == ((4,), (5, 6))
    assert canary_tree(prompts((7,))) == Tree((7,), tree.branches[:0] + canary_tree(
        prompts((7, 7))).branches)  # fmt: skip


@pytest.mark.parametrize("noise", NOISES)
def test_no_alarm_where_weights_arrive_whatever_the_engine_rounds(
    canary: Canary, policy: Policy, noise: float
) -> None:
    """120 publishes with moves from far below to far above the engine's error, which is fresh every
    time."""
    draw = torch.Generator().manual_seed(3)
    for number in range(120):
        nudge(policy, 10.0 ** -(2.5 + number % 6), draw)
        now_N = canary.trained()
        said_N = now_N + noise * torch.randn(now_N.shape, generator=draw)
        canary.expect("a", said_N.tolist(), now_N)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("size", [3e-3, 1e-4])
def test_an_engine_that_keeps_its_weights_is_found(
    canary: Canary, policy: Policy, noise: float, size: float
) -> None:
    """At once where the move stands out of the engine's error; else as soon as moves add up to
    that."""
    draw = torch.Generator().manual_seed(5)
    first_N = canary.trained()
    canary.expect("a", (first_N + noise * torch.randn(first_N.shape, generator=draw)).tolist(),
                  first_N)  # fmt: skip
    moved, found = 0.0, ""
    while not found:
        assert moved < 8 * max(noise, 1e-6), "such a move is told from the engine's error"
        nudge(policy, size, draw)
        now_N = canary.trained()
        moved = float((now_N - first_N).square().mean().sqrt())
        stale_N = first_N + noise * torch.randn(first_N.shape, generator=draw)
        try:
            canary.expect("a", stale_N.tolist(), now_N)
        except TrainingError as error:
            found = error.problem
    assert "older weights" in found or "nats a token from the trainer's" in found


def test_another_model_is_refused_at_once(canary: Canary) -> None:
    now_N = canary.trained()
    with pytest.raises(TrainingError, match=r"0\.06 nats a token"):
        canary.expect("a", (now_N + 0.06).tolist(), now_N)
    broken: Any = [float("nan")] * len(now_N)
    with pytest.raises(TrainingError, match="nan nats"):
        canary.expect("a", broken, now_N)


def test_every_server_is_proven_by_itself(canary: Canary, policy: Policy) -> None:
    first_N = canary.trained()
    for name in ("a", "b"):
        canary.expect(name, first_N.tolist(), first_N)
    nudge(policy, 1e-3, torch.Generator().manual_seed(0))
    now_N = canary.trained()
    canary.expect("a", now_N.tolist(), now_N)
    with pytest.raises(TrainingError, match="b: the engine still samples from older weights"):
        canary.expect("b", first_N.tolist(), now_N)
