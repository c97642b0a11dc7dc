"""Distillation losses against hand-computed values, float64 gradients, limits and a dense form."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.autograd import gradcheck

from strop.losses.distillation import (
    forward_kl,
    generalized_js,
    lumped,
    minillm,
    on_policy_distil,
    reverse_kl,
    skewed_forward_kl,
    skewed_reverse_kl,
)
from strop.losses.presets import PRESETS, PolicyTokens, policy_loss
from strop.losses.reduce import StepCounts

Divergence = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

ALL: dict[str, Divergence] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "js": generalized_js,
    "js 0.1": partial(generalized_js, beta=0.1),
    "skewed_forward_kl": skewed_forward_kl,
    "skewed_reverse_kl": skewed_reverse_kl,
}
EVERY = pytest.mark.parametrize("loss", ALL.values(), ids=list(ALL))

P, Q = (0.5, 0.5), (0.9, 0.1)
"""A teacher that is undecided and a student that is not."""


def logs(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


def random_rows(seed: int, rows: int = 5, vocabulary: int = 7) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, vocabulary, generator=draw, dtype=torch.float64)
    return torch.log_softmax(logits, -1)


def kl(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(one, other, strict=True))


def mixed(share: float) -> tuple[float, ...]:
    """share of the teacher, the rest of the student."""
    return tuple(share * p + (1 - share) * q for p, q in zip(P, Q, strict=True))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (forward_kl, 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)),
        (reverse_kl, 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)),
        (generalized_js, 0.5 * kl(P, (0.7, 0.3)) + 0.5 * kl(Q, (0.7, 0.3))),
        (partial(generalized_js, beta=0.1), 0.1 * kl(P, mixed(0.1)) + 0.9 * kl(Q, mixed(0.1))),
        (skewed_forward_kl, kl(P, (0.86, 0.14))),
        (skewed_reverse_kl, kl(Q, (0.54, 0.46))),
        (partial(skewed_forward_kl, alpha=0.5), kl(P, (0.7, 0.3))),
    ],
)
def test_by_hand(loss: Divergence, expected: float) -> None:
    assert float(loss(logs(Q), logs(P))) == pytest.approx(expected, abs=1e-12)
    assert loss(logs(Q, P), logs(P, P)).tolist() == pytest.approx([expected, 0.0], abs=1e-12)


@EVERY
def test_equal_distributions_are_no_distance_apart_and_pull_nowhere(loss: Divergence) -> None:
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    student = torch.log_softmax(logits, -1)
    found = loss(student, student.detach())
    assert float(found.detach().abs().max()) <= 1e-14
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert float(gradient.abs().max()) <= 1e-14


@EVERY
def test_is_positive_and_a_function_of_its_own_row(loss: Divergence) -> None:
    student, teacher = random_rows(0), random_rows(1)
    found = loss(student, teacher)
    assert float(found.min()) > 0
    for row in range(len(found)):
        alone = loss(student[row : row + 1], teacher[row : row + 1])
        assert float(alone) == pytest.approx(float(found[row]), abs=1e-14)


@EVERY
def test_gradients_in_float64(loss: Divergence) -> None:
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    teacher = random_rows(2, 3, 5)
    assert gradcheck(lambda x: loss(torch.log_softmax(x, -1), teacher), logits)


def test_the_gradient_of_the_forward_kl_is_the_difference_of_probabilities() -> None:
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    teacher = random_rows(3, 3, 5)
    loss = forward_kl(torch.log_softmax(logits, -1), teacher).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = torch.softmax(logits, -1) - teacher.exp()
    torch.testing.assert_close(gradient, expected.detach())


class TestLimits:
    STUDENT, TEACHER = random_rows(4), random_rows(5)

    def test_js_at_0_and_1_is_the_forward_and_the_reverse_kl(self) -> None:
        forward, reverse = (f(self.STUDENT, self.TEACHER) for f in (forward_kl, reverse_kl))
        torch.testing.assert_close(
            generalized_js(self.STUDENT, self.TEACHER, beta=0.0), forward, rtol=0, atol=0
        )
        torch.testing.assert_close(
            generalized_js(self.STUDENT, self.TEACHER, beta=1.0), reverse, rtol=0, atol=0
        )
        near = 1e-6
        scaled = generalized_js(self.STUDENT, self.TEACHER, beta=near) / near
        torch.testing.assert_close(scaled, forward, rtol=1e-4, atol=0)
        scaled = generalized_js(self.STUDENT, self.TEACHER, beta=1 - near) / near
        torch.testing.assert_close(scaled, reverse, rtol=1e-4, atol=0)

    def test_skewed_by_nothing_is_the_plain_kl_and_by_everything_nothing(self) -> None:
        for skewed, plain in ((skewed_forward_kl, forward_kl), (skewed_reverse_kl, reverse_kl)):
            expected = plain(self.STUDENT, self.TEACHER)
            torch.testing.assert_close(
                skewed(self.STUDENT, self.TEACHER, alpha=0.0), expected, rtol=0, atol=0
            )
            assert float(skewed(self.STUDENT, self.TEACHER, alpha=1.0).abs().max()) <= 1e-14

    def test_js_is_bounded_where_the_kl_is_not(self) -> None:
        student = torch.log_softmax(torch.tensor([[60.0, 0.0]]), -1)
        teacher = torch.log_softmax(torch.tensor([[0.0, 60.0]]), -1)
        assert float(forward_kl(student, teacher)) == pytest.approx(60)
        assert float(generalized_js(student, teacher)) == pytest.approx(math.log(2))
        assert float(skewed_forward_kl(student, teacher)) == pytest.approx(-math.log(0.1))

    @EVERY
    def test_extreme_rows_are_finite_with_their_gradients(self, loss: Divergence) -> None:
        logits = torch.tensor([[300.0, -300.0, 0.0]], requires_grad=True)
        found = loss(torch.log_softmax(logits, -1), torch.log_softmax(-logits.detach(), -1))
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        assert torch.isfinite(found).all()
        assert torch.isfinite(gradient).all()


class TestLumped:
    IDS = torch.tensor([[1, 0], [2, 3]])

    def test_by_hand(self) -> None:
        found = lumped(logs((0.5, 0.2, 0.2, 0.1), (0.1, 0.2, 0.3, 0.4)), self.IDS)
        expected = [[0.2, 0.5, 0.3], [0.3, 0.4, 0.3]]
        torch.testing.assert_close(found.exp(), torch.tensor(expected, dtype=torch.float64))

    @EVERY
    def test_is_never_further_apart_than_the_whole(self, loss: Divergence) -> None:
        student, teacher = random_rows(6, 40, 9), random_rows(7, 40, 9)
        whole = loss(student, teacher)
        before = torch.zeros(40, dtype=torch.float64)
        for k in (1, 3, 8):
            ids = teacher.topk(k, -1).indices
            found = loss(lumped(student, ids), lumped(teacher, ids))
            assert (found <= whole + 1e-12).all()
            assert (found >= before - 1e-12).all(), "more tokens tell the two further apart"
            before = found
        torch.testing.assert_close(found, whole)  # of 9 tokens, 8 and the one that is left

    def test_a_tail_smaller_than_a_float_keeps_its_digits_and_its_gradient(self) -> None:
        logits = torch.tensor([[40.0, 0.0, 1.0]], requires_grad=True)
        tail = lumped(torch.log_softmax(logits, -1), torch.tensor([[0]]))[0, 1]
        assert float(tail.detach()) == pytest.approx(math.log(1 + math.e) - 40, abs=1e-5)
        (gradient,) = torch.autograd.grad(tail, logits)
        shares = [1 / (1 + math.e), math.e / (1 + math.e)]
        assert gradient[0, 1:].tolist() == pytest.approx(shares, abs=1e-5)

    def test_needs_a_tail(self) -> None:
        with pytest.raises(ValueError, match="leaves no tail"):
            lumped(random_rows(0, 2, 2), torch.tensor([[0, 1], [0, 1]]))


class TestOnPolicy:
    STUDENT = torch.tensor([-1.0, -2.0, -0.5, -3.0], requires_grad=True)
    TEACHER = torch.tensor([-0.5, -3.0, -0.5, -1.0])

    def test_by_hand_and_without_a_gradient(self) -> None:
        found = on_policy_distil(self.STUDENT, self.TEACHER, [3, 1])
        assert found.tolist() == [0.5, -1.0, 0.0, 2.0]
        assert not found.requires_grad

    def test_later_tokens_count_within_their_answer(self) -> None:
        found = on_policy_distil(self.STUDENT, self.TEACHER, [3, 1], discount=0.5)
        assert found.tolist() == [0.0, -1.0, 0.0, 2.0]
        found = on_policy_distil(self.STUDENT, self.TEACHER, [3, 1], discount=1.0)
        assert found.tolist() == [-0.5, -1.0, 0.0, 2.0]

    def test_its_expectation_is_the_gradient_of_the_reverse_kl(self) -> None:
        """Over all tokens of a vocabulary, each as often as the student says it."""
        logits = torch.randn(6, dtype=torch.float64, requires_grad=True)
        teacher = random_rows(8, 1, 6)[0]
        logprobs = torch.log_softmax(logits, -1)
        advantage = on_policy_distil(logprobs, teacher, [6])
        surrogate = -(logprobs.detach().exp() * advantage * logprobs).sum()
        (found,) = torch.autograd.grad(surrogate, logits, retain_graph=True)
        exact = reverse_kl(logprobs[None], teacher[None]).sum()
        (expected,) = torch.autograd.grad(exact, logits)
        torch.testing.assert_close(found, expected)


class TestMinillm:
    STUDENT = torch.tensor([-1.0, -2.0, -0.5, -3.0])
    TEACHER = torch.tensor([-0.5, -3.0, -0.5, -1.0])

    def test_by_hand(self) -> None:
        """Log-ratios 0.5, -1, 0 | 2: what follows a token, and its mean."""
        plain = minillm(self.STUDENT, self.TEACHER, [3, 1], length_normalized=False)
        assert plain.tolist() == [-1.0, 0.0, 0.0, 0.0]
        assert minillm(self.STUDENT, self.TEACHER, [3, 1]).tolist() == [-0.5, 0.0, 0.0, 0.0]

    def test_both_parts_together_are_the_gradient_of_the_reverse_kl_of_answers(self) -> None:
        """A language of two tokens and answers of two: every answer is enumerated.

        grad KL(q || p) = sum_y q(y) sum_t [grad KL_t - R_{t+1} grad log q(y_t)].
        """
        draw = torch.Generator().manual_seed(9)
        first, after = (
            torch.randn(size, generator=draw, dtype=torch.float64, requires_grad=True)
            for size in ((2,), (2, 2))
        )
        teacher_first, teacher_after = random_rows(10, 1, 2)[0], random_rows(11, 2, 2)
        q1, q2 = torch.log_softmax(first, -1), torch.log_softmax(after, -1)
        whole, parts = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for a in (0, 1):
            for b in (0, 1):
                student = torch.stack([q1[a], q2[a, b]])
                teacher = torch.stack([teacher_first[a], teacher_after[a, b]])
                probability = student.sum().exp()
                whole = whole + probability * (student - teacher).sum()
                advantage = minillm(student, teacher, [2], length_normalized=False)
                single = reverse_kl(q1[None], teacher_first[None]).sum()
                single = single + reverse_kl(q2[a][None], teacher_after[a][None]).sum()
                long = -(advantage * student).sum()
                parts = parts + probability.detach() * (single + long)
        expected = torch.autograd.grad(whole, (first, after), retain_graph=True)
        found = torch.autograd.grad(parts, (first, after))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


class TestInThePolicyLoss:
    def test_minillms_parts_are_added_and_weighed_by_hand(self) -> None:
        """Two answers, of 1 and 2 tokens; ratios 1, so the long part is -A log-ratio's gradient."""
        logprobs = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
        exact = torch.tensor([0.5, 0.25, 0.125], requires_grad=True)
        tokens = PolicyTokens(
            logprobs_N=logprobs, old_N=logprobs.detach(), ref_N=None,
            advantage_N=torch.tensor([2.0, -1.0, 0.0]), branch_N=torch.tensor([0, 1, 1]),
            weight_N=torch.tensor([1.25, 0.5, 1.0]), exact_N=exact,
        )  # fmt: skip
        counts = StepCounts(sequences=2, tokens=3, max_length=2)
        value = policy_loss(PRESETS["minillm"](), tokens, counts).value
        by_hand = (1.25 * (-2.0 + 0.5) + 0.5 * (1.0 + 0.25) + 1.0 * 0.125) / 3
        assert float(value.detach()) == pytest.approx(by_hand)
        of_tokens, of_exact = torch.autograd.grad(value, (logprobs, exact))
        assert of_tokens.tolist() == pytest.approx([-2.5 / 3, 0.5 / 3, 0.0])
        assert of_exact.tolist() == pytest.approx([1.25 / 3, 0.5 / 3, 1.0 / 3])


class TestShapes:
    def test_other_vocabularies_are_refused(self) -> None:
        for loss in ALL.values():
            with pytest.raises(ValueError, match="same outcomes"):
                loss(random_rows(0, 2, 3), random_rows(1, 2, 4))

    def test_integers_are_refused(self) -> None:
        with pytest.raises(ValueError, match="must be float"):
            forward_kl(torch.zeros(2, 3, dtype=torch.long), random_rows(0, 2, 3))

    @pytest.mark.parametrize("value", [-0.1, 1.1])
    def test_shares_are_shares(self, value: float) -> None:
        rows = random_rows(0), random_rows(1)
        with pytest.raises(ValueError, match="beta is a share"):
            generalized_js(*rows, beta=value)
        with pytest.raises(ValueError, match="alpha is a share"):
            skewed_forward_kl(*rows, alpha=value)

    def test_answers_have_the_tokens_that_they_say(self) -> None:
        with pytest.raises(ValueError, match="answers of 3 tokens"):
            on_policy_distil(torch.zeros(4), torch.zeros(4), [3])
        with pytest.raises(ValueError, match="must be"):
            minillm(torch.zeros(4), torch.zeros(3), [4])
