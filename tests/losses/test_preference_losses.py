"""Preference losses against hand-computed values, float64 gradients, and their limits."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch.autograd import gradcheck

from strop.losses.preference import (
    aot,
    aot_unpaired,
    apo_down,
    apo_zero,
    apo_zero_unpaired,
    bco_pair,
    cpo,
    discopop,
    dpop,
    exo_pair,
    f_dpo,
    hinge,
    ipo,
    kto,
    nca_pair,
    orpo,
    robust_dpo,
    simpo,
    sppo_hard,
)
from strop.losses.reward_model import bradley_terry
from strop.losses.supervised import dft
from tests.support.pairs import WITH_REFERENCE, WITHOUT_REFERENCE, Loss, pairs, random_pairs, vector


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


class TestByHand:
    """One pair with u_chosen = 1 and u_rejected = -1.5, so h = 2.5; at beta = 0.4, beta h = 1."""

    PAIR = pairs([1.0], [-1.5])
    MIX = sigmoid(2.0)

    @pytest.mark.parametrize(
        ("loss", "expected"),
        [
            # softplus(1) = softplus(-1) + 1, so the correction is a constant e / (1 - 2 e)
            (partial(robust_dpo, label_smoothing=0.2), softplus(-1) - 0.2 / 0.6),
            (ipo, 1.25**2),
            (hinge, 0.0),
            (
                partial(exo_pair, label_smoothing=0.1),
                sigmoid(1) * math.log(sigmoid(1) / 0.9) + sigmoid(-1) * math.log(sigmoid(-1) / 0.1),
            ),
            (nca_pair, softplus(-0.4) + (softplus(0.4) + softplus(-0.6)) / 2),
            (bco_pair, softplus(-0.4) + softplus(-0.6)),
            (partial(bco_pair, delta=0.1), softplus(-0.3) + softplus(-0.7)),
            (sppo_hard, 0.25**2 + 0.25**2),
            (aot, softplus(-1)),  # a batch of one has nothing to sort
            (partial(aot_unpaired, label_smoothing=0.25), softplus(-1) + 0.25),
            (apo_zero, 1 / (1 + math.exp(0.4)) + 1 / (1 + math.exp(0.6))),
            (apo_down, 1 / (1 + math.exp(-0.4)) + 1 / (1 + math.exp(1.0))),
            (partial(discopop, temperature=0.5), (1 - MIX) * softplus(-1) + MIX * math.exp(-1)),
            (dpop, softplus(-1)),  # the chosen answer is above the reference: no penalty
            (partial(f_dpo, divergence="reverse_kl"), softplus(-1)),
            (
                partial(f_dpo, divergence="forward_kl"),
                softplus(-0.4 * (math.exp(1.5) - math.exp(-1))),
            ),
            (
                partial(f_dpo, divergence="js"),  # f'(t) = log(2 t / (1 + t))
                softplus(
                    -0.4
                    * (
                        math.log(2 * math.e / (1 + math.e))
                        - math.log(2 * math.exp(-1.5) / (1 + math.exp(-1.5)))
                    )
                ),
            ),
            (
                partial(f_dpo, divergence="alpha", alpha=0.5),  # f'(t) = 2 (1 - 1 / sqrt(t))
                softplus(-0.4 * 2 * (math.sqrt(math.exp(1.5)) - 1 / math.sqrt(math.e))),
            ),
        ],
    )
    def test_with_reference(self, loss: Loss, expected: float) -> None:
        value = loss(*self.PAIR, beta=0.4)
        assert value.shape == (1,)
        assert float(value) == pytest.approx(expected, abs=1e-12)

    def test_hinge_inside_its_margin(self) -> None:
        assert float(hinge(*self.PAIR, beta=0.2)) == pytest.approx(0.5)

    def test_dpop_penalises_a_chosen_answer_below_the_reference(self) -> None:
        # u_chosen = -0.5, h = 1, and the penalty 2 * 0.5 takes the whole margin
        assert float(dpop(*pairs([-0.5], [-1.5]), beta=0.4, penalty=2.0)) == pytest.approx(
            math.log(2)
        )
        free = dpop(*pairs([-0.5], [-1.5]), beta=0.4, penalty=0.0)
        assert float(free) == pytest.approx(softplus(-0.4))

    def test_aot_sorts_margins(self) -> None:
        # policy margins (5, 1), reference margins (0, 3): sorted 1 - 0 and 5 - 3
        given = (vector(0, -4), vector(-5, -5), vector(-2, -2), vector(-2, -5))
        assert aot(*given, beta=0.5).tolist() == pytest.approx([softplus(-0.5), softplus(-1.0)])

    def test_aot_unpaired_sorts_log_ratios(self) -> None:
        # sorted chosen (1, 3), sorted rejected (-2, 2)
        loss = aot_unpaired(*pairs([3.0, 1.0], [-2.0, 2.0]), beta=0.5)
        assert loss.tolist() == pytest.approx([softplus(-1.5), softplus(-0.5)])

    def test_simpo(self) -> None:
        loss = simpo(vector(-0.5), vector(-1.25), beta=2.0, gamma=0.5)
        assert float(loss) == pytest.approx(softplus(-1.0))

    def test_orpo(self) -> None:
        # odds 0.6 / 0.4 and 0.2 / 0.8: the ratio is 6, sigmoid(log 6) = 6 / 7
        loss = orpo(vector(math.log(0.6)), vector(math.log(0.2)), beta=0.25)
        assert float(loss) == pytest.approx(-math.log(0.6) + 0.25 * math.log(7 / 6))

    def test_cpo(self) -> None:
        # m = 0.5 (-1 + 4) = 1.5, softplus(1.5) = softplus(-1.5) + 1.5
        loss = cpo(vector(-1), vector(-4), beta=0.5, label_smoothing=0.25)
        assert float(loss) == pytest.approx(softplus(-1.5) + 0.25 * 1.5)

    def test_kto(self) -> None:
        loss = kto(
            vector(-1, -4), vector(-2, -2), torch.tensor([True, False]), torch.tensor(0.5),
            beta=0.4, desirable_weight=2.0, undesirable_weight=3.0,
        )  # fmt: skip
        # u = (1, -2): 1 - sigmoid(0.4 * 0.5) and 1 - sigmoid(0.4 * 2.5)
        assert loss.tolist() == pytest.approx([2 / (1 + math.exp(0.2)), 3 / (1 + math.e)])

    def test_apo_zero_unpaired(self) -> None:
        policy, ref, label = vector(-1, -4), vector(-2, -2), torch.tensor([True, False])
        loss = apo_zero_unpaired(
            policy, ref, label, beta=0.4, desirable_weight=2.0, undesirable_weight=3.0
        )
        assert loss.tolist() == pytest.approx(
            [2 / (1 + math.exp(0.4)), 3 / (1 + math.exp(0.8))]  # sigmoid(-0.8) = 1 / (1 + e^0.8)
        )

    def test_bradley_terry(self) -> None:
        chosen, rejected = vector(2.0, 0.0), vector(0.5, 1.0)
        assert bradley_terry(chosen, rejected).tolist() == pytest.approx(
            [softplus(-1.5), softplus(1.0)]
        )
        full = bradley_terry(chosen, rejected, margin_B=vector(1.0, 0.0), centering=0.01)
        assert full.tolist() == pytest.approx([softplus(-0.5) + 0.0625, softplus(1.0) + 0.01])

    def test_dft(self) -> None:
        logprobs = vector(math.log(0.5), math.log(0.1)).requires_grad_()
        loss = dft(logprobs)
        assert loss.tolist() == pytest.approx([0.5 * math.log(2), 0.1 * math.log(10)])
        (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
        assert gradient.tolist() == pytest.approx([-0.5, -0.1])  # the weight has no gradient


class TestGradients:
    @pytest.mark.parametrize("name", WITH_REFERENCE)
    def test_with_reference(self, name: str) -> None:
        chosen, rejected, *ref = random_pairs(5, seed=3)
        inputs = [chosen.requires_grad_(), rejected.requires_grad_()]
        loss = WITH_REFERENCE[name]
        assert gradcheck(lambda c, r: loss(c, r, *ref, beta=0.7), inputs)

    @pytest.mark.parametrize("name", WITHOUT_REFERENCE)
    def test_without_reference(self, name: str) -> None:
        inputs = [
            vector(-0.01, -1.0, -9.0).requires_grad_(),
            vector(-2.0, -0.9, -0.02).requires_grad_(),
        ]
        assert gradcheck(lambda c, r: WITHOUT_REFERENCE[name](c, r, beta=0.7), inputs)

    def test_unpaired(self) -> None:
        policy, _, ref, _ = random_pairs(4, seed=5)
        label, kl = torch.tensor([True, False, True, False]), torch.tensor(0.3)
        weights = {"desirable_weight": 1.5, "undesirable_weight": 0.5}
        inputs = [policy.requires_grad_()]
        assert gradcheck(lambda p: kto(p, ref, label, kl, beta=0.7, **weights), inputs)
        assert gradcheck(lambda p: apo_zero_unpaired(p, ref, label, beta=0.7, **weights), inputs)

    def test_reward_model(self) -> None:
        inputs = [vector(0.5, -1.0).requires_grad_(), vector(-0.2, 2.0).requires_grad_()]
        margin = vector(0.3, 0.0)
        assert gradcheck(lambda c, r: bradley_terry(c, r, margin_B=margin, centering=0.01), inputs)

    def test_hinge_stops_beyond_its_margin(self) -> None:
        chosen, rejected, *ref = pairs([1.0, 9.0], [-1.0, -9.0])
        chosen.requires_grad_()
        (gradient,) = torch.autograd.grad(hinge(chosen, rejected, *ref, beta=0.25).sum(), chosen)
        assert gradient.tolist() == [-0.25, 0.0]


class TestLimits:
    @pytest.mark.parametrize(
        ("name", "limit"),
        [
            ("dpo", math.log(2)),
            ("robust_dpo", math.log(2)),
            ("hinge", 1.0),
            ("exo_pair", math.log(0.5) - math.log(0.999 * 0.001) / 2),
            ("nca_pair", 2 * math.log(2)),
            ("bco_pair", softplus(0.3) + softplus(-0.3)),
            ("aot", math.log(2)),
            ("aot_unpaired", math.log(2)),
            ("apo_zero", 1.0),
            ("apo_down", 1.0),
            ("discopop", (math.log(2) + 1) / 2),
            ("f_dpo reverse_kl", math.log(2)),
            ("f_dpo forward_kl", math.log(2)),
            ("f_dpo js", math.log(2)),
            ("f_dpo alpha", math.log(2)),
        ],
    )
    def test_beta_to_zero_is_the_policy_at_the_reference(self, name: str, limit: float) -> None:
        small = WITH_REFERENCE[name](*random_pairs(6, seed=11), beta=1e-10)
        assert small.tolist() == pytest.approx([limit] * 6, abs=1e-6)
        still = WITH_REFERENCE[name](*pairs([0.0, 0.0], [0.0, 0.0]), beta=0.3)
        assert still.tolist() == pytest.approx([limit] * 2)

    def test_policy_at_the_reference_where_beta_sets_a_target(self) -> None:
        still = pairs([0.0], [0.0])
        assert float(ipo(*still, beta=0.1)) == pytest.approx(25.0)
        assert float(sppo_hard(*still, beta=0.001)) == pytest.approx(2 * 500.0**2)

    def test_targets_are_reached(self) -> None:
        assert float(ipo(*pairs([3.0], [-2.0]), beta=0.1)) == pytest.approx(0.0)
        assert float(sppo_hard(*pairs([5.0], [-5.0]), beta=0.1)) == pytest.approx(0.0)
        h = math.log(0.999 / 0.001) / 0.1
        assert float(exo_pair(*pairs([h], [0.0]), beta=0.1)) == pytest.approx(0.0, abs=1e-12)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("name", WITH_REFERENCE)
    def test_extreme_margins_are_finite(self, name: str, dtype: torch.dtype) -> None:
        extremes = [(1e4, -1e4), (-1e4, 1e4), (1e4, 1e4), (-1e4, -1e4), (0.0, -1e4), (-1e4, 0.0)]
        for u_chosen, u_rejected in extremes:
            sums = [t.to(dtype) for t in pairs([u_chosen], [u_rejected])]
            sums = [t.requires_grad_() for t in sums]
            loss = WITH_REFERENCE[name](*sums, beta=1.0)
            assert loss.dtype == dtype
            assert loss.isfinite().all(), (u_chosen, u_rejected)
            for gradient in torch.autograd.grad(loss.sum(), sums):
                assert gradient.isfinite().all(), (u_chosen, u_rejected)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("name", WITHOUT_REFERENCE)
    def test_extreme_means_are_finite(self, name: str, dtype: torch.dtype) -> None:
        means = [0.0, -1e-30, -1e-12, -1e-7, -1.0, -1e4]
        chosen = torch.tensor(means, dtype=dtype).repeat(len(means)).requires_grad_()
        rejected = torch.tensor(means, dtype=dtype).repeat_interleave(len(means)).requires_grad_()
        loss = WITHOUT_REFERENCE[name](chosen, rejected, beta=1.0)
        assert loss.isfinite().all()
        for gradient in torch.autograd.grad(loss.sum(), [chosen, rejected]):
            assert gradient.isfinite().all()

    def test_values_at_extreme_margins(self) -> None:
        won, lost = pairs([1e4], [-1e4]), pairs([-1e4], [1e4])
        assert float(exo_pair(*won, beta=1.0)) == pytest.approx(-math.log(0.999))
        assert float(exo_pair(*lost, beta=1.0)) == pytest.approx(math.log(1000))
        assert [float(apo_zero(*p, beta=1.0)) for p in (won, lost)] == [0.0, 2.0]
        assert [float(discopop(*p, beta=1.0)) for p in (won, lost)] == [0.0, 2e4]
        assert [float(hinge(*p, beta=1.0)) for p in (won, lost)] == [0.0, 20001.0]

    def test_orpo_odds_near_certainty_are_precise(self) -> None:
        """1 - exp(-d) is d for small d, which a plain subtraction loses."""
        for gap in (1e-3, 1e-6, 1e-9):
            loss = orpo(vector(-2 * gap), vector(-gap), beta=1.0)  # odds ratio 1/2
            assert float(loss) == pytest.approx(math.log(3), abs=3 * gap)

    def test_f_dpo_without_overflow_is_exact_and_beyond_is_flat(self) -> None:
        loss = f_dpo(*pairs([-600.0], [-600.0]), beta=0.1, divergence="forward_kl")
        assert float(loss) == pytest.approx(math.log(2))
        chosen, rejected, *ref = pairs([-9000.0], [0.0])
        chosen.requires_grad_()
        capped = f_dpo(chosen, rejected, *ref, beta=0.1, divergence="forward_kl")
        (gradient,) = torch.autograd.grad(capped.sum(), chosen)
        assert float(gradient) == 0.0
