"""How preference losses relate to each other, what weights them, and what they refuse."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
    kto,
    orpo,
    robust_dpo,
    simpo,
)
from strop.losses.reward_model import bradley_terry
from strop.losses.supervised import dft
from strop.losses.weights import length_desensitized_weights, wpo_weights
from tests.support.pairs import WITH_REFERENCE, WITHOUT_REFERENCE, Loss, pairs, random_pairs, vector


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
