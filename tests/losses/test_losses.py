"""Losses against hand-computed values, float64 gradients, and their limits."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.autograd import gradcheck

from strop.losses.divergence import k1, k2, k3
from strop.losses.preference import dpo
from strop.losses.reduce import DENOMINATORS, Denominator, StepCounts
from strop.losses.supervised import nll


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

    def test_equal_probabilities_have_no_divergence(self) -> None:
        same = vector(-0.1, -3.0)
        for estimate in (k1, k2, k3):
            assert estimate(same, same).tolist() == [0.0, 0.0]

    def test_k3_is_never_negative_and_exact_for_close_policies(self) -> None:
        policy = torch.linspace(-5, 0, 101, dtype=torch.float32)
        assert (k3(policy, policy.flip(0)) >= 0).all()
        # d^2 / 2 at d = 1e-3: exp(d) - 1 - d in float32 would keep one digit of it
        close = k3(torch.tensor([0.0]), torch.tensor([1e-3]))
        assert float(close) == pytest.approx(0.5e-6, rel=1e-3)

    @pytest.mark.parametrize("estimate", [k1, k2, k3])
    def test_gradient_in_float64(self, estimate: Callable[..., torch.Tensor]) -> None:
        pair = [vector(-1.0, -3.0).requires_grad_(), vector(-4.0, -2.0).requires_grad_()]
        assert gradcheck(estimate, pair)

    def test_k2_has_the_gradient_of_the_kl(self) -> None:
        logits = vector(0.3, -0.2, 0.5).requires_grad_()
        q = vector(0.2, 0.3, 0.5)
        p = logits.softmax(0)
        (exact,) = torch.autograd.grad((p * (p / q).log()).sum(), logits)
        logprobs = logits.log_softmax(0)
        (k2_grad,) = torch.autograd.grad((p.detach() * k2(logprobs, q.log())).sum(), logits)
        assert torch.allclose(exact, k2_grad)


class TestReduce:
    """Answers of two and one tokens; of the step's four sequences two were skipped."""

    LOSS = vector(1, 3, 10)
    BRANCH = torch.tensor([0, 0, 1])
    COUNTS = StepCounts(sequences=4, tokens=20, max_length=7)

    @pytest.mark.parametrize(
        ("name", "value", "gradient"),
        [
            ("sequence_mean", (2 + 10) / 4, [1 / 8, 1 / 8, 1 / 4]),
            ("sequence_sum", 14 / 4, [1 / 4, 1 / 4, 1 / 4]),
            ("token_mean", 14 / 20, [1 / 20, 1 / 20, 1 / 20]),
            ("constant", 14 / 28, [1 / 28, 1 / 28, 1 / 28]),
        ],
    )
    def test_by_hand(self, name: Denominator, value: float, gradient: list[float]) -> None:
        loss = self.LOSS.clone().requires_grad_()
        reduced = DENOMINATORS[name](loss, self.BRANCH, self.COUNTS)
        assert float(reduced.detach()) == pytest.approx(value)
        (grad,) = torch.autograd.grad(reduced, loss)
        assert grad.tolist() == pytest.approx(gradient)

    @pytest.mark.parametrize("name", DENOMINATORS)
    def test_pieces_add_up_to_the_whole(self, name: Denominator) -> None:
        whole = DENOMINATORS[name](self.LOSS, self.BRANCH, self.COUNTS)
        first = DENOMINATORS[name](self.LOSS[:2], torch.tensor([0, 0]), self.COUNTS)
        second = DENOMINATORS[name](self.LOSS[2:], torch.tensor([0]), self.COUNTS)
        assert float(first + second) == pytest.approx(float(whole))

    def test_every_denominator_is_tested_by_hand(self) -> None:
        assert set(DENOMINATORS) == {"sequence_mean", "sequence_sum", "token_mean", "constant"}
