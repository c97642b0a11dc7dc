"""Preference losses against hand-computed values, float64 gradients, and their limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.distributions import Bernoulli, kl_divergence

from strop.losses import preference
from strop.losses.preference import (
    aot,
    aot_unpaired,
    apo_down,
    apo_zero,
    apo_zero_unpaired,
    bco_pair,
    cpo,
    discopop,
    dpo,
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
from strop.losses.weights import length_desensitized_weights, wpo_weights

Loss = Callable[..., torch.Tensor]

WITH_REFERENCE: dict[str, Loss] = {
    "dpo": partial(dpo, label_smoothing=0.1),
    "robust_dpo": partial(robust_dpo, label_smoothing=0.1),
    "ipo": ipo,
    "hinge": hinge,
    "exo_pair": exo_pair,
    "nca_pair": nca_pair,
    "bco_pair": partial(bco_pair, delta=0.3),
    "sppo_hard": sppo_hard,
    "aot": partial(aot, label_smoothing=0.1),
    "aot_unpaired": partial(aot_unpaired, label_smoothing=0.1),
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    "discopop": discopop,
    "dpop": dpop,
    "f_dpo reverse_kl": partial(f_dpo, divergence="reverse_kl"),
    "f_dpo forward_kl": partial(f_dpo, divergence="forward_kl"),
    "f_dpo js": partial(f_dpo, divergence="js"),
    "f_dpo alpha": partial(f_dpo, divergence="alpha", alpha=0.3),
}
WITHOUT_REFERENCE: dict[str, Loss] = {
    "simpo": partial(simpo, gamma=0.5),
    "orpo": orpo,
    "cpo": partial(cpo, label_smoothing=0.1),
}


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


def pairs(u_chosen: list[float], u_rejected: list[float]) -> tuple[torch.Tensor, ...]:
    """Four sums with these log-ratios: the reference is -2 for chosen and -3 for rejected."""
    chosen, rejected = vector(*u_chosen), vector(*u_rejected)
    ref_chosen, ref_rejected = torch.full_like(chosen, -2), torch.full_like(rejected, -3)
    return chosen + ref_chosen, rejected + ref_rejected, ref_chosen, ref_rejected


def random_pairs(count: int, seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(4, count, generator=generator, dtype=torch.float64)
    return tuple(draws - 3)


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


class TestRelations:
    def test_robust_dpo_is_unbiased_under_flips(self) -> None:
        sums = random_pairs(8, seed=1)
        flipped = (sums[1], sums[0], sums[3], sums[2])
        for e in (0.0, 0.1, 0.4):
            loss = partial(robust_dpo, beta=0.3, label_smoothing=e)
            expectation = (1 - e) * loss(*sums) + e * loss(*flipped)
            assert torch.allclose(expectation, dpo(*sums, beta=0.3), rtol=1e-12)

    def test_robust_dpo_has_no_lower_bound(self) -> None:
        loss = robust_dpo(*pairs([1e4], [-1e4]), beta=1.0, label_smoothing=0.1)
        assert float(loss) == pytest.approx(-0.1 * 2e4 / 0.8)

    def test_exo_pair_is_a_kl_between_coins(self) -> None:
        sums = random_pairs(8, seed=2)
        h = (sums[0] - sums[2]) - (sums[1] - sums[3])
        for e in (1e-3, 0.1, 0.5):
            label = Bernoulli(probs=torch.full_like(h, 1 - e))
            direct = kl_divergence(Bernoulli(logits=0.3 * h), label)
            assert torch.allclose(exo_pair(*sums, beta=0.3, label_smoothing=e), direct)

    def test_f_dpo_with_the_reverse_kl_is_dpo(self) -> None:
        sums = random_pairs(64, seed=4)
        assert torch.equal(f_dpo(*sums, beta=0.1, divergence="reverse_kl"), dpo(*sums, beta=0.1))

    def test_alpha_divergence_runs_from_reverse_to_forward_kl(self) -> None:
        sums = random_pairs(8, seed=6)

        def loss(divergence: str, alpha: float = 0.5) -> torch.Tensor:
            return f_dpo(*sums, beta=0.2, divergence=divergence, alpha=alpha)

        assert torch.allclose(loss("alpha", 1e-9), loss("reverse_kl"), rtol=1e-6)
        assert torch.allclose(loss("alpha", 1 - 1e-9), loss("forward_kl"), rtol=1e-6)
        assert not torch.allclose(loss("alpha"), loss("reverse_kl"), rtol=1e-2)
        assert not torch.allclose(loss("alpha"), loss("forward_kl"), rtol=1e-2)

    @pytest.mark.parametrize(
        ("divergence", "alpha", "f"),
        [
            ("reverse_kl", 0.5, lambda t: t * t.log()),
            ("forward_kl", 0.5, lambda t: -t.log()),
            ("js", 0.5, lambda t: t * t.log() - (t + 1) * ((t + 1) / 2).log()),
            ("alpha", 0.3, lambda t: (t**0.7 - 0.7 * t - 0.3) / (0.3 * (0.3 - 1))),
        ],
    )
    def test_f_dpo_takes_the_derivative_of_f(
        self, divergence: preference.Divergence, alpha: float, f: Loss
    ) -> None:
        """Each divergence from its f, differentiated by autograd at the probability ratio."""
        sums = random_pairs(8, seed=7)
        derivatives = []
        for policy, ref in ((sums[0], sums[2]), (sums[1], sums[3])):
            ratio = (policy - ref).exp().requires_grad_()
            derivatives += torch.autograd.grad(f(ratio).sum(), ratio)
        margin = 0.2 * (derivatives[0] - derivatives[1])
        loss = f_dpo(*sums, beta=0.2, divergence=divergence, alpha=alpha)
        assert torch.allclose(loss, torch.log1p((-margin).exp()))

    def test_discopop_is_not_monotone(self) -> None:
        margins = discopop(*pairs([-1.0, -0.1, 0.0, 1.0], [0.0] * 4), beta=1.0).tolist()
        assert margins[1] < margins[2] < margins[0]
        assert margins[3] < margins[1]

    def test_cpo_is_dpo_with_a_flat_reference(self) -> None:
        chosen, rejected, _, _ = random_pairs(8, seed=8)
        flat = torch.full_like(chosen, -7.0)
        assert torch.allclose(
            cpo(chosen, rejected, beta=0.3, label_smoothing=0.1),
            dpo(chosen, rejected, flat, flat, beta=0.3, label_smoothing=0.1),
        )

    def test_kto_limits(self) -> None:
        policy, ref = vector(3.0, 3.0), vector(1.0, 1.0)
        label = torch.tensor([True, False])
        options = {"beta": 0.5, "desirable_weight": 2.0, "undesirable_weight": 3.0}
        at_zero = kto(policy, ref, label, torch.tensor(0.0), **options)
        assert torch.equal(at_zero, apo_zero_unpaired(policy, ref, label, **options))
        huge = kto(policy, ref, label, torch.tensor(1e9), **options)
        assert huge.tolist() == [2.0, 0.0]  # every answer is far below the reference point
        matched = kto(policy, ref, label, torch.tensor(2.0), **options)
        assert matched.tolist() == pytest.approx([1.0, 1.5])  # u = kl: half of each weight

    def test_apo_zero_is_its_two_unpaired_terms(self) -> None:
        chosen, rejected, ref_chosen, ref_rejected = random_pairs(8, seed=9)
        good, bad = torch.ones(8, dtype=torch.bool), torch.zeros(8, dtype=torch.bool)
        terms = apo_zero_unpaired(chosen, ref_chosen, good, beta=0.3) + apo_zero_unpaired(
            rejected, ref_rejected, bad, beta=0.3
        )
        whole = apo_zero(chosen, rejected, ref_chosen, ref_rejected, beta=0.3)
        assert torch.allclose(whole, terms)

    def test_aot_needs_the_whole_batch(self) -> None:
        sums = random_pairs(8, seed=10)
        for loss in (aot, aot_unpaired):
            whole = loss(*sums, beta=1.0).sum()
            parts = [
                loss(*[t[half] for t in sums], beta=1.0).sum() for half in (slice(4), slice(4, 8))
            ]
            assert abs(float(whole - sum(parts))) > 1e-3

    def test_bradley_terry_ignores_a_shift_unless_centred(self) -> None:
        chosen, rejected = vector(1.0, -2.0), vector(0.0, 1.0)
        assert torch.allclose(
            bradley_terry(chosen + 5, rejected + 5), bradley_terry(chosen, rejected)
        )
        assert (
            bradley_terry(chosen + 5, rejected + 5, centering=0.01)
            > bradley_terry(chosen, rejected, centering=0.01)
        ).all()


RATIO = st.floats(-20, 20)


class TestProperties:
    MONOTONE = (
        dpo, partial(robust_dpo, label_smoothing=0.2), hinge, bco_pair, aot, aot_unpaired,
        apo_zero, dpop, *[partial(f_dpo, divergence=d) for d in ("forward_kl", "js", "alpha")],
    )  # fmt: skip

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.tuples(RATIO, RATIO), st.tuples(RATIO, RATIO), st.floats(0, 10))
    def test_better_chosen_or_worse_rejected_costs_no_more(
        self, chosen: tuple[float, float], rejected: tuple[float, float], gain: float
    ) -> None:
        before = pairs([*chosen], [*rejected])
        better = (before[0] + vector(gain, 0), *before[1:])
        worse = (before[0], before[1] - vector(gain, 0), *before[2:])
        for loss in self.MONOTONE:
            start = float(loss(*before, beta=0.3).sum())
            slack = 1e-12 * abs(start) + 1e-12
            assert float(loss(*better, beta=0.3).sum()) <= start + slack
            assert float(loss(*worse, beta=0.3).sum()) <= start + slack

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.floats(-20, -1e-6), st.floats(-20, -1e-6), st.floats(0, 1))
    def test_monotone_without_reference(self, chosen: float, rejected: float, part: float) -> None:
        for loss in (partial(simpo, gamma=0.5), orpo, cpo):
            start = float(loss(vector(chosen), vector(rejected), beta=0.3))
            better = float(loss(vector(chosen * part), vector(rejected), beta=0.3))
            worse = float(loss(vector(chosen), vector(rejected * (1 + part)), beta=0.3))
            assert max(better, worse) <= start + 1e-9

    def test_apo_down_lowers_both_but_rejected_further(self) -> None:
        chosen, rejected, *ref = pairs([0.0], [0.0])
        inputs = [chosen.requires_grad_(), rejected.requires_grad_()]
        value = apo_down(*inputs, *ref, beta=0.3).sum()
        pull_chosen, pull_rejected = torch.autograd.grad(value, inputs)
        assert float(pull_chosen) == pytest.approx(0.0)  # the anchor balances the margin
        assert float(pull_rejected) > 0
        lower = apo_down(*pairs([-9.0], [-99.0]), beta=0.3)
        assert float(lower) < float(value.detach())

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(st.integers(0, 2**16), st.permutations(range(6)), st.permutations(range(6)))
    def test_aot_does_not_see_the_order(
        self, seed: int, order: list[int], other: list[int]
    ) -> None:
        sums = random_pairs(6, seed)
        policy, ref = (sums[0], sums[1]), (sums[2], sums[3])
        moved = (*[t[order] for t in policy], *[t[other] for t in ref])
        assert torch.allclose(aot(*sums, beta=0.5), aot(*moved, beta=0.5))
        chosen, rejected = (sums[0], sums[2]), (sums[1], sums[3])
        (pc, rc), (pr, rr) = [t[order] for t in chosen], [t[other] for t in rejected]
        assert torch.allclose(aot_unpaired(*sums, beta=0.5), aot_unpaired(pc, pr, rc, rr, beta=0.5))

    @pytest.mark.parametrize("name", sorted(WITH_REFERENCE.keys() - {"aot", "aot_unpaired"}))
    def test_pairs_do_not_see_each_other(self, name: str) -> None:
        sums = random_pairs(6, seed=12)
        whole = WITH_REFERENCE[name](*sums, beta=0.5)
        alone = [WITH_REFERENCE[name](*[t[i : i + 1] for t in sums], beta=0.5) for i in range(6)]
        assert torch.allclose(whole, torch.cat(alone))


class TestLengthDesensitized:
    """Two pairs: lengths 3 and 1, then 2 and 2."""

    LENGTHS = torch.tensor([3, 1, 2, 2])
    POSITION = torch.tensor([0, 1, 2, 0, 0, 1, 0, 1])
    BRANCH = torch.tensor([0, 0, 0, 1, 2, 2, 3, 3])
    LOGPROBS = torch.tensor([-1.0, -2.0, -4.0, -8.0, -16.0, -32.0, -64.0, -128.0])

    def sums(self, alpha: float) -> list[float]:
        weights = length_desensitized_weights(self.LENGTHS, self.POSITION, self.BRANCH, alpha=alpha)
        return torch.zeros(4).index_add(0, self.BRANCH, weights * self.LOGPROBS).tolist()

    def test_one_is_plain_sums(self) -> None:
        assert self.sums(1.0) == [-7.0, -8.0, -48.0, -192.0]

    def test_zero_truncates_to_the_shorter(self) -> None:
        assert self.sums(0.0) == [-1.0, -8.0, -48.0, -192.0]

    def test_between_by_hand(self) -> None:
        assert self.sums(0.25) == [-1.0 - 6.0 / 4, -8.0, -48.0, -192.0]

    def test_float_lengths_and_swapped_pair(self) -> None:
        weights = length_desensitized_weights(
            torch.tensor([1.0, 3.0]),
            torch.tensor([0, 0, 1, 2]),
            torch.tensor([0, 1, 1, 1]),
            alpha=0.5,
        )
        assert weights.dtype.is_floating_point
        assert weights.tolist() == [1.0, 1.0, 0.5, 0.5]

    def test_refusals(self) -> None:
        position, branch = self.POSITION, self.BRANCH
        with pytest.raises(ValueError, match="alpha"):
            length_desensitized_weights(self.LENGTHS, position, branch, alpha=1.5)
        with pytest.raises(ValueError, match="pairs"):
            length_desensitized_weights(self.LENGTHS[:3], position, branch, alpha=0.5)
        with pytest.raises(ValueError, match="one shape"):
            length_desensitized_weights(self.LENGTHS, position[:3], branch, alpha=0.5)
        with pytest.raises(ValueError, match="integer"):
            length_desensitized_weights(self.LENGTHS, position, branch.double(), alpha=0.5)


class TestWpo:
    def test_by_hand(self) -> None:
        # chosen: tokens of probability 0.5 and 0.1; rejected: one of 0.2; collisions 0.4, 0.5, 0.3
        logprobs = vector(0.5, 0.1, 0.2).log()
        collision = vector(0.4, 0.5, 0.3).log()
        weights = wpo_weights(logprobs, collision, torch.tensor([0, 0, 1]), 2)
        assert weights.tolist() == pytest.approx([math.sqrt(0.5 * 0.1 / (0.4 * 0.5)) * 0.2 / 0.3])

    def test_uniform_policy_weighs_every_pair_one(self) -> None:
        """All tokens of a uniform policy are as likely as its own samples: 1/V over V/V^2."""
        logprobs = torch.full((5,), 1 / 7, dtype=torch.float64).log()
        weights = wpo_weights(logprobs, logprobs, torch.tensor([0, 0, 1, 2, 3]), 4)
        assert weights.tolist() == [1.0, 1.0]

    def test_confident_answers_are_capped_at_one(self) -> None:
        logprobs, collision = vector(0.9, 0.9).log(), vector(0.82, 0.82).log()
        assert wpo_weights(logprobs, collision, torch.tensor([0, 1]), 2).tolist() == [1.0]

    def test_collision_is_what_the_policy_expects_of_its_own_tokens(self) -> None:
        p = vector(0.6, 0.3, 0.1)
        assert float((p * p).sum()) == pytest.approx(0.46)
        weights = wpo_weights(p[[1, 2]].log(), vector(0.46, 0.46).log(), torch.tensor([0, 1]), 2)
        assert weights.tolist() == pytest.approx([0.3 * 0.1 / 0.46**2])

    def test_detached_and_empty_branches(self) -> None:
        logprobs = vector(-1.0, -2.0).requires_grad_()
        weights = wpo_weights(logprobs, vector(-0.5, -0.5), torch.tensor([0, 2]), 6)
        assert not weights.requires_grad
        assert weights.tolist() == pytest.approx([math.exp(-0.5), math.exp(-1.5), 1.0])

    def test_refusals(self) -> None:
        logprobs, branch = vector(-1.0, -2.0), torch.tensor([0, 1])
        with pytest.raises(ValueError, match="one shape"):
            wpo_weights(logprobs, vector(-1.0), branch, 2)
        with pytest.raises(ValueError, match="even"):
            wpo_weights(logprobs, logprobs, branch, 3)
        with pytest.raises(ValueError, match="like logprobs"):
            wpo_weights(logprobs, logprobs, branch[:1], 2)
        with pytest.raises(ValueError, match="integer"):
            wpo_weights(logprobs, logprobs, branch.double(), 2)


class TestRefusals:
    @pytest.mark.parametrize("name", WITH_REFERENCE)
    def test_shapes_and_beta(self, name: str) -> None:
        loss = WITH_REFERENCE[name]
        sums = pairs([1.0, 2.0], [0.0, 0.0])
        for wrong in (vector(1.0), torch.ones(2, dtype=torch.long), torch.ones(2, 1)):
            for place in range(4):
                given = [*sums[:place], wrong, *sums[place + 1 :]]
                with pytest.raises(ValueError, match="one shape"):
                    loss(*given, beta=0.1)
        for beta in (0.0, -0.1, math.inf, math.nan):
            with pytest.raises(ValueError, match="beta"):
                loss(*sums, beta=beta)

    @pytest.mark.parametrize("name", WITHOUT_REFERENCE)
    def test_shapes_and_beta_without_reference(self, name: str) -> None:
        loss = WITHOUT_REFERENCE[name]
        with pytest.raises(ValueError, match="one shape"):
            loss(vector(-1), vector(-1, -2), beta=0.1)
        with pytest.raises(ValueError, match="beta"):
            loss(vector(-1), vector(-1), beta=0.0)

    @pytest.mark.parametrize(
        ("loss", "option", "value"),
        [
            (dpo, "label_smoothing", 0.6),
            (robust_dpo, "label_smoothing", 0.5),
            (robust_dpo, "label_smoothing", -0.1),
            (exo_pair, "label_smoothing", 0.0),
            (exo_pair, "label_smoothing", 0.6),
            (aot, "label_smoothing", 0.6),
            (aot_unpaired, "label_smoothing", -0.1),
            (discopop, "temperature", 0.0),
            (dpop, "penalty", -1.0),
            (f_dpo, "divergence", "total_variation"),
            (partial(f_dpo, divergence="alpha"), "alpha", 0.0),
            (partial(f_dpo, divergence="alpha"), "alpha", 1.0),
        ],
    )
    def test_options(self, loss: Loss, option: str, value: float | str) -> None:
        with pytest.raises(ValueError, match=option):
            loss(*pairs([1.0], [0.0]), beta=0.1, **{option: value})

    def test_options_without_reference(self) -> None:
        with pytest.raises(ValueError, match="gamma"):
            simpo(vector(-1), vector(-2), beta=2.0, gamma=-0.1)
        with pytest.raises(ValueError, match="label_smoothing"):
            cpo(vector(-1), vector(-2), beta=2.0, label_smoothing=0.6)

    def test_unpaired(self) -> None:
        policy, ref, label = vector(-1, -2), vector(-1, -2), torch.tensor([True, False])
        kl = torch.tensor(0.0)
        with pytest.raises(ValueError, match="one shape"):
            kto(policy, vector(-1), label, kl, beta=0.1)
        for wrong in (torch.tensor([1, 0]), torch.tensor([True])):
            with pytest.raises(ValueError, match="label must be bool"):
                kto(policy, ref, wrong, kl, beta=0.1)
            with pytest.raises(ValueError, match="label must be bool"):
                apo_zero_unpaired(policy, ref, wrong, beta=0.1)
        for moving in (vector(0.0), torch.tensor(0), torch.tensor(0.0, requires_grad=True)):
            with pytest.raises(ValueError, match="kl must be"):
                kto(policy, ref, label, moving, beta=0.1)
        for weight in ("desirable_weight", "undesirable_weight"):
            with pytest.raises(ValueError, match=weight):
                kto(policy, ref, label, kl, beta=0.1, **{weight: -1.0})
        with pytest.raises(ValueError, match="beta"):
            apo_zero_unpaired(policy, ref, label, beta=0.0)

    def test_reward_model_and_dft(self) -> None:
        with pytest.raises(ValueError, match="one shape"):
            bradley_terry(vector(1), vector(1, 2))
        with pytest.raises(ValueError, match="one shape"):
            bradley_terry(vector(1), vector(1), margin_B=vector(1, 2))
        with pytest.raises(ValueError, match="centering"):
            bradley_terry(vector(1), vector(1), centering=-0.01)
        with pytest.raises(ValueError, match=r"float vector \[N\]"):
            dft(torch.zeros(2, 2))
