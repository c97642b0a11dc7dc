"""Losses against hand-computed values, float64 gradients, and their limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from strop.losses.divergence import k1, k2, k3
from strop.losses.policy import clip, clipped_high, clipped_low, sequence_ratio, token_ratio
from strop.losses.preference import dpo
from strop.losses.presets import PRESETS, PolicyTokens, dapo, dr_grpo, grpo, policy_loss
from strop.losses.reduce import StepCounts, constant, sequence_mean, token_mean
from strop.losses.supervised import nll
from strop.metrics.value import results


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_nll_is_minus_the_logprob() -> None:
    assert nll(vector(-0.5, -2.0)).tolist() == [0.5, 2.0]
    with pytest.raises(ValueError, match=r"float vector \[N\]"):
        nll(torch.zeros(2, 2))


class TestDpo:
    def test_by_hand(self) -> None:
        # h = (-1 - -2) - (-4 - -3) = 2; beta h = 0.2
        loss = dpo(vector(-1), vector(-4), vector(-2), vector(-3), beta=0.1)
        assert float(loss) == pytest.approx(math.log(1 + math.exp(-0.2)))

    def test_label_smoothing_by_hand(self) -> None:
        loss = dpo(vector(-1), vector(-4), vector(-2), vector(-3), beta=0.1, label_smoothing=0.25)
        kept, flipped = math.log(1 + math.exp(-0.2)), math.log(1 + math.exp(0.2))
        assert float(loss) == pytest.approx(0.75 * kept + 0.25 * flipped)

    def test_label_smoothing_is_the_expected_loss_under_flips(self) -> None:
        pair = (vector(-1, -3), vector(-4, -2), vector(-2, -2), vector(-3, -5))
        swapped = (pair[1], pair[0], pair[3], pair[2])
        mixed = 0.9 * dpo(*pair, beta=0.3) + 0.1 * dpo(*swapped, beta=0.3)
        assert torch.allclose(dpo(*pair, beta=0.3, label_smoothing=0.1), mixed)

    def test_gradient_in_float64(self) -> None:
        pair = [vector(-1.0, -3.0).requires_grad_(), vector(-4.0, -2.0).requires_grad_()]
        ref = (vector(-2.0, -2.5), vector(-3.0, -1.0))
        assert gradcheck(lambda c, r: dpo(c, r, *ref, beta=0.5, label_smoothing=0.1), pair)

    def test_limits(self) -> None:
        pair = (vector(-1), vector(-1), vector(-1), vector(-1))
        assert float(dpo(*pair, beta=0.1)) == pytest.approx(math.log(2))  # equal pairs
        apart = (vector(-1), vector(-9), vector(-5), vector(-2))
        assert float(dpo(*apart, beta=1e-9)) == pytest.approx(math.log(2))  # beta to 0
        extreme = dpo(vector(0), vector(-1e6), vector(0), vector(0), beta=1.0)
        assert float(extreme) == 0.0
        hopeless = dpo(vector(-1e6), vector(0), vector(0), vector(0), beta=1.0)
        assert float(hopeless) == pytest.approx(1e6)

    def test_refuses_other_shapes_and_smoothing(self) -> None:
        with pytest.raises(ValueError, match="one shape"):
            dpo(vector(-1), vector(-1, -2), vector(-1), vector(-1), beta=0.1)
        with pytest.raises(ValueError, match="label_smoothing"):
            dpo(*[vector(-1)] * 4, beta=0.1, label_smoothing=0.6)


class TestDivergence:
    def test_by_hand(self) -> None:
        policy, ref = vector(-1.0), vector(-1.5)  # log r = -0.5
        assert float(k1(policy, ref)) == pytest.approx(0.5)
        assert float(k2(policy, ref)) == pytest.approx(0.125)
        assert float(k3(policy, ref)) == pytest.approx(math.exp(-0.5) - 1 + 0.5)

    def test_k1_and_k3_are_unbiased(self) -> None:
        """Their exact expectation under the policy is the KL; k2's is not."""
        p, q = vector(0.5, 0.3, 0.2), vector(0.2, 0.3, 0.5)
        kl = float((p * (p / q).log()).sum())
        means = [float((p * estimate(p.log(), q.log())).sum()) for estimate in (k1, k2, k3)]
        assert means[0] == pytest.approx(kl)
        assert means[2] == pytest.approx(kl)
        assert abs(means[1] - kl) > 1e-3

    def test_k2_has_the_gradient_of_the_kl(self) -> None:
        logits = vector(0.3, -0.2, 0.5).requires_grad_()
        q = vector(0.2, 0.3, 0.5)
        p = logits.softmax(0)
        (exact,) = torch.autograd.grad((p * (p / q).log()).sum(), logits)
        logprobs = logits.log_softmax(0)
        (k2_grad,) = torch.autograd.grad((p.detach() * k2(logprobs, q.log())).sum(), logits)
        assert torch.allclose(exact, k2_grad)


class TestAxes:
    def test_ratios_by_hand(self) -> None:
        log_ratio, branch = vector(0.2, 0.4, -0.3), torch.tensor([0, 0, 1])
        assert token_ratio(log_ratio, branch).tolist() == pytest.approx(
            [math.exp(0.2), math.exp(0.4), math.exp(-0.3)]
        )
        assert sequence_ratio(log_ratio, branch).tolist() == pytest.approx(
            [math.exp(0.3), math.exp(0.3), math.exp(-0.3)]
        )

    @pytest.mark.parametrize(
        ("ratio", "advantage", "loss", "gradient"),
        [
            (1.0, 2.0, -2.0, -2.0),  # inside
            (1.5, 2.0, -2.4, 0.0),  # above, good: clipped at 1.2
            (1.5, -2.0, 3.0, 2.0),  # above, bad: not clipped
            (0.5, 2.0, -1.0, -2.0),  # below, good: not clipped
            (0.5, -2.0, 1.6, 0.0),  # below, bad: clipped at 0.8
        ],
    )
    def test_clip_by_hand(
        self, ratio: float, advantage: float, loss: float, gradient: float
    ) -> None:
        r = vector(ratio).requires_grad_()
        value = clip(r, vector(advantage), low=0.2, high=0.2)
        assert float(value.detach()) == pytest.approx(loss)
        (grad,) = torch.autograd.grad(value.sum(), r)
        assert float(grad) == pytest.approx(gradient)

    def test_dual_clip_bounds_a_bad_token_that_became_likely(self) -> None:
        assert float(clip(vector(10.0), vector(-2.0), low=0.2, high=0.2)) == 20.0
        assert float(clip(vector(10.0), vector(-2.0), low=0.2, high=0.2, dual=3.0)) == 6.0
        assert float(clip(vector(10.0), vector(2.0), low=0.2, high=0.2, dual=3.0)) == -2.4

    def test_clip_fractions_count_cut_gradients_only(self) -> None:
        ratio, advantage = vector(0.5, 0.5, 1.5, 1.5), vector(-1, 1, -1, 1)
        assert clipped_low(ratio, advantage, 0.2).tolist() == [1, 0, 0, 0]
        assert clipped_high(ratio, advantage, 0.2).tolist() == [0, 0, 0, 1]

    def test_denominators_by_hand(self) -> None:
        loss, branch = vector(1, 3, 10), torch.tensor([0, 0, 1])
        counts = StepCounts(sequences=4, tokens=20, max_length=5)
        assert float(sequence_mean(loss, branch, counts)) == pytest.approx((2 + 10) / 4)
        assert float(token_mean(loss, branch, counts)) == pytest.approx(14 / 20)
        assert float(constant(loss, branch, counts)) == pytest.approx(14 / 20)


def tokens(ref: bool = False) -> PolicyTokens:
    """Two answers of two and one tokens, on policy."""
    logprobs = vector(-1.0, -0.5, -2.0).requires_grad_()
    return PolicyTokens(
        logprobs,
        logprobs.detach().clone(),
        vector(-1.2, -0.5, -1.0) if ref else None,
        vector(1.0, 1.0, -1.0),
        torch.tensor([0, 0, 1]),
    )


class TestPresets:
    COUNTS = StepCounts(sequences=2, tokens=3, max_length=4)

    def test_on_policy_gradients_are_the_papers(self) -> None:
        """d/d logprob = -A / denominator: the methods differ in the denominator alone."""
        expected = {
            "grpo": [-1 / 2 / 2, -1 / 2 / 2, 1 / 1 / 2],
            "dapo": [-1 / 3, -1 / 3, 1 / 3],
            "dr_grpo": [-1 / 8, -1 / 8, 1 / 8],
        }
        for name, gradient in expected.items():
            given = tokens()
            loss = policy_loss(PRESETS[name](beta=0.0), given, self.COUNTS)
            (grad,) = torch.autograd.grad(loss.value, given.logprobs_N)
            assert grad.tolist() == pytest.approx(gradient), name

    def test_kl_by_hand(self) -> None:
        given = tokens(ref=True)
        loss = policy_loss(grpo(beta=0.5), given, self.COUNTS)
        terms = [math.exp(d) - 1 - d for d in (-0.2, 0.0, 1.0)]
        kl = ((terms[0] + terms[1]) / 2 + terms[2]) / 2
        assert float(loss.value.detach()) == pytest.approx(0.0 + 0.5 * kl)
        assert results(loss.metrics)["kl"] == pytest.approx(sum(terms) / 3)

    def test_beta_without_reference_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="reference"):
            policy_loss(grpo(), tokens(), self.COUNTS)

    def test_papers_defaults(self) -> None:
        assert (grpo().epsilon_low, grpo().epsilon_high, grpo().beta) == (0.2, 0.2, 0.04)
        assert (dapo().epsilon_low, dapo().epsilon_high, dapo().beta) == (0.2, 0.28, 0.0)
        assert dr_grpo().advantage == "group_mean"

    @pytest.mark.parametrize("name", PRESETS)
    def test_float64_gradient_off_policy(self, name: str) -> None:
        method = PRESETS[name](beta=0.1)
        given = tokens(ref=True)

        def value(logprobs: torch.Tensor) -> torch.Tensor:
            moved = PolicyTokens(
                logprobs,
                given.old_N - vector(0.05, -0.1, 0.1),
                given.ref_N,
                given.advantage_N,
                given.branch_N,
            )
            return policy_loss(method, moved, self.COUNTS).value

        assert gradcheck(value, [given.logprobs_N])

    @pytest.mark.parametrize("name", PRESETS)
    def test_pieces_add_up_to_the_whole(self, name: str) -> None:
        """Splitting by answer with the step's counts changes nothing."""
        method = PRESETS[name](beta=0.1)
        whole = tokens(ref=True)
        value = policy_loss(method, whole, self.COUNTS).value
        parts = 0.0
        for keep in (slice(0, 2), slice(2, 3)):
            assert whole.ref_N is not None
            part = PolicyTokens(
                whole.logprobs_N[keep], whole.old_N[keep], whole.ref_N[keep],
                whole.advantage_N[keep], torch.zeros_like(whole.branch_N[keep]),
            )  # fmt: skip
            parts += float(policy_loss(method, part, self.COUNTS).value.detach())
        assert parts == pytest.approx(float(value.detach()))
