"""Policy-gradient losses against hand-computed values and gradients, method by method.

Every case is run with both signs of the advantages. The expected values are worked with `math` from
the papers' formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck

from strop.losses.presets import PRESETS, PolicyLoss, PolicyTokens, policy_loss
from tests.support.policy_cases import (
    BRANCH,
    COUNTS,
    MOVES,
    OLD,
    REF,
    SIGNS,
    Answers,
    case,
    flat,
    gradient,
    reduced,
    vector,
)

ON_POLICY: Answers = ((0.0, 0.0), (0.0, 0.0, 0.0))


# ------------------------------------------------------------------ the papers' formulas, in `math`


def clipped(log_ratio: float, advantage: float, low: float, high: float, dual: float) -> float:
    """The piecewise form: a good token is worth at most 1 + high, a bad one costs at least 1 - low
    and at most `dual`."""
    ratio = math.exp(log_ratio)
    if advantage > 0:
        return -advantage * min(ratio, 1 + high)
    return -advantage * min(max(ratio, 1 - low), dual)


def clipped_answer(
    moves: tuple[float, ...], advantage: float, low: float, high: float, dual: float = math.inf
) -> list[float]:
    return [clipped(move, advantage, low, high, dual) for move in moves]


def gspo_answer(moves: tuple[float, ...], advantage: float, low: float, high: float) -> list[float]:
    """(p_new(y) / p_old(y)) ^ (1 / |y|), equation 7; the answer's loss, for each of its tokens."""
    likelihood = math.prod(math.exp(move) for move in moves)
    log_ratio = math.log(likelihood ** (1 / len(moves)))
    return [clipped(log_ratio, advantage, low, high, math.inf)] * len(moves)


def gmpo_answer(moves: tuple[float, ...], advantage: float, low: float, high: float) -> list[float]:
    """(prod |min(r A, clip(r, e^-low, e^high) A)|) ^ (1 / |y|) sgn(A), equation 4."""
    factors = []
    for move in moves:
        ratio = math.exp(move)
        cut = min(max(ratio, math.exp(-low)), math.exp(high))
        factors.append(abs(min(ratio * advantage, cut * advantage)))
    size = math.prod(factors) ** (1 / len(moves))
    return [-math.copysign(size, advantage)] * len(moves)


def sapo_answer(
    moves: tuple[float, ...], advantage: float, positive: float, negative: float
) -> list[float]:
    t = positive if advantage > 0 else negative
    gates = [4 / t / (1 + math.exp(-t * (math.exp(move) - 1))) for move in moves]
    return [-gate * advantage for gate in gates]


def logprob_answer(
    moves: tuple[float, ...], advantage: float, old: tuple[float, ...], cap: float
) -> list[float]:
    """-min(r, cap) A log p; cap 0 stands for no weight at all."""
    weights = [min(math.exp(move), cap) if cap else 1.0 for move in moves]
    return [-w * advantage * (o + move) for w, o, move in zip(weights, old, moves, strict=True)]


Formula = Callable[..., list[float]]


BY_HAND: list[tuple[str, dict[str, Any], str, Formula]] = [
    ("grpo", {}, "sequence_mean", partial(clipped_answer, low=0.2, high=0.2)),
    ("grpo", {"dual_clip": 3.0}, "sequence_mean",
     partial(clipped_answer, low=0.2, high=0.2, dual=3.0)),
    ("grpo", {"epsilon_low": 0.6, "epsilon_high": 0.9}, "sequence_mean",
     partial(clipped_answer, low=0.6, high=0.9)),
    ("dapo", {}, "token_mean", partial(clipped_answer, low=0.2, high=0.28)),
    ("dapo", {"dual_clip": 3.0}, "token_mean",
     partial(clipped_answer, low=0.2, high=0.28, dual=3.0)),
    ("dr_grpo", {}, "constant", partial(clipped_answer, low=0.2, high=0.2)),
    ("dr_grpo", {"dual_clip": 3.0}, "constant",
     partial(clipped_answer, low=0.2, high=0.2, dual=3.0)),
    ("gspo", {}, "sequence_mean", partial(gspo_answer, low=3e-4, high=4e-4)),
    ("gspo", {"epsilon_low": 0.2, "epsilon_high": 0.45}, "sequence_mean",
     partial(gspo_answer, low=0.2, high=0.45)),
    ("gmpo", {}, "sequence_mean", partial(gmpo_answer, low=0.4, high=0.4)),
    ("gmpo", {"epsilon_low": 0.5, "epsilon_high": 1.0}, "sequence_mean",
     partial(gmpo_answer, low=0.5, high=1.0)),
    ("cispo", {}, "token_mean", partial(logprob_answer, cap=5.0)),
    ("cispo", {"epsilon_high": 0.5}, "token_mean", partial(logprob_answer, cap=1.5)),
    ("sapo", {}, "sequence_mean", partial(sapo_answer, positive=1.0, negative=1.05)),
    ("sapo", {"temperature_positive": 2.0, "temperature_negative": 0.5}, "sequence_mean",
     partial(sapo_answer, positive=2.0, negative=0.5)),
    ("rloo", {}, "sequence_sum", partial(logprob_answer, cap=0.0)),
    ("reinforce_pp", {}, "token_mean", partial(clipped_answer, low=0.2, high=0.2)),
    ("reinforce_pp", {"dual_clip": 3.0}, "token_mean",
     partial(clipped_answer, low=0.2, high=0.2, dual=3.0)),
    ("ppo", {}, "token_mean", partial(clipped_answer, low=0.2, high=0.2)),
    ("ppo", {"dual_clip": 3.0}, "token_mean",
     partial(clipped_answer, low=0.2, high=0.2, dual=3.0)),
    ("on_policy_distil", {}, "token_mean", partial(clipped_answer, low=0.2, high=0.2)),
    ("minillm", {}, "token_mean", partial(clipped_answer, low=0.2, high=0.2)),
]  # fmt: skip


class TestPresetsByHand:
    def test_every_preset_is_here(self) -> None:
        assert {name for name, *_ in BY_HAND} == set(PRESETS)

    @pytest.mark.parametrize("advantages", SIGNS)
    @pytest.mark.parametrize(("name", "options", "denominator", "formula"), BY_HAND)
    def test_value(
        self,
        name: str,
        options: dict[str, Any],
        denominator: str,
        formula: Formula,
        advantages: tuple[float, float],
    ) -> None:
        answers = []
        for moves, old, advantage in zip(MOVES, OLD, advantages, strict=True):
            extra = {"old": old} if "cap" in getattr(formula, "keywords", {}) else {}
            answers.append(formula(moves, advantage, **extra))
        method = PRESETS[name](**options, beta=0.0)
        loss = policy_loss(method, case(advantages), COUNTS)
        assert float(loss.value.detach()) == pytest.approx(reduced(answers, denominator), rel=1e-12)

    @pytest.mark.parametrize("advantages", SIGNS)
    @pytest.mark.parametrize(("name", "options"), [(n, o) for n, o, *_ in BY_HAND if n != "cispo"])
    def test_gradient_in_float64(
        self, name: str, options: dict[str, Any], advantages: tuple[float, float]
    ) -> None:
        """With the KL in the loss, weighted and not; CISPO's is not the derivative of its value."""
        given = case(advantages)
        for terms in ({}, {"kl_weighted": True}):
            method = PRESETS[name](**options, beta=0.3, kl_in="loss", **terms)

            def value(logprobs: torch.Tensor, method: PolicyLoss = method) -> torch.Tensor:
                return policy_loss(method, replace(given, logprobs_N=logprobs), COUNTS).value

            assert gradcheck(value, [given.logprobs_N])

    @pytest.mark.parametrize("advantages", SIGNS)
    def test_cispo_gradient_by_hand(self, advantages: tuple[float, float]) -> None:
        """-min(r, 1 + eps) A / tokens: the weight carries none, and no token is left out."""
        given = case(advantages)
        value = policy_loss(PRESETS["cispo"](epsilon_high=0.5), given, COUNTS).value
        expected = [
            -min(math.exp(move), 1.5) * advantage / 9
            for moves, advantage in zip(MOVES, advantages, strict=True)
            for move in moves
        ]
        assert gradient(value, given.logprobs_N) == pytest.approx(expected)

    def test_single_precision_stays(self) -> None:
        given = case(SIGNS[0])
        single = PolicyTokens(
            given.logprobs_N.detach().float(), given.old_N.float(), flat(REF).float(),
            given.advantage_N.float(), BRANCH,
        )  # fmt: skip
        for name, build in PRESETS.items():
            method = build(beta=0.1, kl_in="loss")
            value = policy_loss(method, single, COUNTS).value
            assert value.dtype == torch.float32, name
            exact = policy_loss(method, given, COUNTS).value.detach()
            assert float(value) == pytest.approx(float(exact), rel=1e-5), name


ON_POLICY_SCALE: dict[str, list[float]] = {
    # 1 / (3 sequences x the answer's length): each answer's token mean
    "grpo": [1 / 6, 1 / 6, 1 / 9, 1 / 9, 1 / 9],
    "sapo": [1 / 6, 1 / 6, 1 / 9, 1 / 9, 1 / 9],
    # d (mean of log ratios) / d log p = 1 / length for each token, and the answer counts once
    "gspo": [1 / 6, 1 / 6, 1 / 9, 1 / 9, 1 / 9],
    "gmpo": [1 / 6, 1 / 6, 1 / 9, 1 / 9, 1 / 9],
    "dapo": [1 / 9] * 5,
    "cispo": [1 / 9] * 5,
    "reinforce_pp": [1 / 9] * 5,
    "ppo": [1 / 9] * 5,
    "on_policy_distil": [1 / 9] * 5,
    "minillm": [1 / 9] * 5,
    "dr_grpo": [1 / 21] * 5,
    "rloo": [1 / 3] * 5,
}


class TestOnPolicy:
    @pytest.mark.parametrize("name", PRESETS)
    @pytest.mark.parametrize("advantages", SIGNS)
    def test_gradient_is_reinforce_under_the_denominator(
        self, name: str, advantages: tuple[float, float]
    ) -> None:
        given = case(advantages, ON_POLICY)
        value = policy_loss(PRESETS[name](beta=0.0), given, COUNTS).value
        expected = [
            -float(a) * scale
            for a, scale in zip(given.advantage_N, ON_POLICY_SCALE[name], strict=True)
        ]
        assert gradient(value, given.logprobs_N) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("name", sorted(set(PRESETS) - {"gspo", "gmpo"}))
    def test_tokens_of_an_answer_may_differ_in_advantage(self, name: str) -> None:
        """As they do with a critic: each token's gradient has its own advantage."""
        given = replace(case(SIGNS[0], ON_POLICY), advantage_N=vector(1, -2, 3, -4, 0))
        value = policy_loss(PRESETS[name](beta=0.0), given, COUNTS).value
        expected = [-a * s for a, s in zip((1, -2, 3, -4, 0), ON_POLICY_SCALE[name], strict=True)]
        assert gradient(value, given.logprobs_N) == pytest.approx(expected, rel=1e-12)
