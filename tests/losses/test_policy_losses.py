"""The axes of policy-gradient losses: ratios, surrogates, divergence, entropy, accumulation."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.autograd import gradcheck

from strop.losses.metrics import results
from strop.losses.policy import (
    branch_mean,
    branch_sum,
    clip,
    clipped_weight,
    geometric_ratio,
    outside_high,
    outside_low,
    reinforce,
    sequence_ratio,
    soft_gate,
    token_ratio,
    value_loss,
    weighted,
)
from strop.losses.presets import PRESETS, PolicyLoss, PolicyTokens, policy_loss
from strop.losses.reduce import DENOMINATORS, Denominator, StepCounts
from tests.support.policy_cases import (
    BRANCH,
    COUNTS,
    MOVES,
    OLD,
    REF,
    SIGNS,
    case,
    flat,
    gradient,
    reduced,
    vector,
)


class TestRatios:
    def test_token(self) -> None:
        found = token_ratio(flat(MOVES), vector(1, 1, -1, -1, -1), BRANCH)
        assert found.tolist() == pytest.approx([math.exp(m) for moves in MOVES for m in moves])

    def test_sequence_is_length_normalised(self) -> None:
        found = sequence_ratio(flat(MOVES), vector(1, 1, -1, -1, -1), BRANCH)
        short, long = math.exp(0.7 / 2), math.exp((-0.7 + 0.05 + 1.8) / 3)
        assert found.tolist() == pytest.approx([short, short, long, long, long])
        # the same move on every token is the same ratio, however long the answer
        even = sequence_ratio(torch.full((5,), 0.3), torch.ones(5), BRANCH)
        assert even.tolist() == pytest.approx([math.exp(0.3)] * 5)

    def test_geometric_clip_is_pessimistic_for_both_signs(self) -> None:
        """A good answer's token is cut above only, a bad one's below only."""
        ratio = partial(geometric_ratio, low=0.2, high=0.4)
        one = torch.tensor([0])
        for move, good, bad in [(0.7, 0.4, 0.7), (-0.7, -0.7, -0.2), (0.1, 0.1, 0.1)]:
            assert float(ratio(vector(move), vector(2.0), one).log()) == pytest.approx(good)
            assert float(ratio(vector(move), vector(-2.0), one).log()) == pytest.approx(bad)

    def test_geometric_clip_is_of_tokens_not_of_their_mean(self) -> None:
        """Moves 0.9 and -0.5 have a mean inside the bounds, yet the first is cut."""
        pair = torch.tensor([0, 0])
        moves = vector(0.9, -0.5).requires_grad_()
        found = geometric_ratio(moves, vector(1, 1), pair, low=0.4, high=0.4)
        assert found.tolist() == pytest.approx([math.exp((0.4 - 0.5) / 2)] * 2)
        each = math.exp(-0.05) / 2
        assert gradient(found[:1], moves) == pytest.approx([0.0, each])

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_gradients_in_float64(self, sign: float) -> None:
        moves, advantage = flat(MOVES).requires_grad_(), torch.full((5,), sign)
        levels = (token_ratio, sequence_ratio, partial(geometric_ratio, low=0.4, high=0.4))
        for level in levels:
            assert gradcheck(lambda x, level=level: level(x, advantage, BRANCH), [moves])

    def test_branch_sum_and_mean(self) -> None:
        """Branch 1 has no tokens; order does not matter."""
        values, branch = vector(1, 2, 5, 7), torch.tensor([2, 0, 2, 0])
        assert branch_sum(values, branch).tolist() == [9, 0, 6]
        assert branch_mean(values, branch).tolist() == [4.5, 0, 3]


class TestSurrogates:
    @pytest.mark.parametrize(
        ("ratio", "advantage", "loss", "slope"),
        [
            (1.0, 2.0, -2.0, -2.0),  # inside
            (1.25, 2.0, -2.5, -2.0),  # inside the upper bound, which is the wider one
            (1.5, 2.0, -2.6, 0.0),  # above, good: clipped at 1.3
            (1.5, -2.0, 3.0, 2.0),  # above, bad: not clipped
            (0.5, 2.0, -1.0, -2.0),  # below, good: not clipped
            (0.5, -2.0, 1.6, 0.0),  # below, bad: clipped at 0.8
            (0.75, -2.0, 1.6, 0.0),  # between the widths: the lower bound is 0.2
        ],
    )
    def test_clip(self, ratio: float, advantage: float, loss: float, slope: float) -> None:
        r = vector(ratio).requires_grad_()
        value = clip(r, vector(advantage), low=0.2, high=0.3)
        assert float(value.detach()) == pytest.approx(loss)
        assert gradient(value, r) == pytest.approx([slope])

    @pytest.mark.parametrize(
        ("ratio", "advantage", "loss", "slope"),
        [
            (10.0, -2.0, 6.0, 0.0),  # bad and far too likely: bounded, without gradient
            (2.9, -2.0, 5.8, 2.0),  # bad, not yet at the bound
            (0.5, -2.0, 1.6, 0.0),  # the lower bound stays
            (10.0, 2.0, -2.4, 0.0),  # good tokens are not concerned
            (0.9, 2.0, -1.8, -2.0),
        ],
    )
    def test_dual_clip(self, ratio: float, advantage: float, loss: float, slope: float) -> None:
        r = vector(ratio).requires_grad_()
        value = clip(r, vector(advantage), low=0.2, high=0.2, dual=3.0)
        assert float(value.detach()) == pytest.approx(loss)
        assert gradient(value, r) == pytest.approx([slope])

    def test_clipped_weight_caps_at_one_plus_epsilon(self) -> None:
        """Ratios 0.5, 4, 5 and 9 under epsilon 4: the cap is 5, and there is no floor."""
        logprobs = vector(-1, -1, -2, -2).requires_grad_()
        ratio = vector(0.5, 4, 5, 9).requires_grad_()
        value = clipped_weight(ratio, vector(2, -2, 2, -2), logprobs, high=4.0)
        assert value.tolist() == pytest.approx([1.0, -8.0, 20.0, -20.0])
        assert gradient(value, logprobs) == pytest.approx([-1.0, 8.0, -10.0, 10.0])

    def test_clipped_weight_has_no_gradient_through_the_weight(self) -> None:
        logprobs = vector(-1.0, -2.0).requires_grad_()
        ratio = (logprobs - vector(-1.2, -2.3)).exp()
        value = clipped_weight(ratio, vector(2, -3), logprobs, high=4.0)
        expected = [-math.exp(0.2) * 2, math.exp(0.3) * 3]
        assert gradient(value, logprobs) == pytest.approx(expected)

    @pytest.mark.parametrize(("positive", "negative"), [(1.0, 1.05), (0.1, 7.0), (20.0, 3.0)])
    def test_soft_gate_on_policy_is_reinforce_at_any_temperature(
        self, positive: float, negative: float
    ) -> None:
        logprobs = vector(-1.0, -2.0, -0.1).requires_grad_()
        ratio = (logprobs - logprobs.detach()).exp()
        advantage = vector(2.0, -3.0, 0.0)
        value = soft_gate(ratio, advantage, positive=positive, negative=negative)
        plain = gradient(reinforce(advantage, logprobs), logprobs)
        assert plain == [-2.0, 3.0, 0.0]
        assert gradient(value, logprobs) == pytest.approx(plain, rel=1e-12)

    def test_soft_gate_slope_by_hand(self) -> None:
        """d loss / d r = -4 s (1 - s) A with s = sigmoid(t (r - 1)): fades on both sides."""
        ratio = vector(0.3, 1.0, 2.5, 0.3, 1.0, 2.5).requires_grad_()
        advantage = vector(1, 1, 1, -1, -1, -1)
        value = soft_gate(ratio, advantage, positive=1.0, negative=2.0)
        expected = []
        for r, a in zip(ratio.tolist(), advantage.tolist(), strict=True):
            gate = 1 / (1 + math.exp(-(1.0 if a > 0 else 2.0) * (r - 1)))
            expected.append(-4 * gate * (1 - gate) * a)
        slopes = gradient(value, ratio)
        assert slopes == pytest.approx(expected, rel=1e-12)
        assert abs(slopes[5]) < abs(slopes[2]) < 1  # the higher temperature fades sooner

    def test_soft_gate_is_finite_far_out(self) -> None:
        ratio = vector(0.0, 1e30).requires_grad_()
        value = soft_gate(ratio, vector(1.0, -1.0), positive=1.0, negative=1.05)
        assert value.tolist() == pytest.approx([-4 / (1 + math.e), 4 / 1.05])
        assert gradient(value, ratio)[1] == 0.0

    def test_weighted_and_reinforce(self) -> None:
        ratio, advantage = vector(0.5, 30.0).requires_grad_(), vector(2, -3)
        assert weighted(ratio, advantage).tolist() == [-1.0, 90.0]
        assert gradient(weighted(ratio, advantage), ratio) == [-2.0, 3.0]
        logprobs = vector(-1.0, -4.0).requires_grad_()
        assert reinforce(advantage, logprobs).tolist() == [2.0, -12.0]

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_gradients_in_float64(self, sign: float) -> None:
        ratio = vector(0.3, 0.9, 1.1, 2.0, 5.0).requires_grad_()
        advantage = sign * vector(1, 2, 3, 4, 5)
        surrogates = (
            partial(clip, low=0.2, high=0.3),
            partial(clip, low=0.2, high=0.3, dual=3.0),
            partial(soft_gate, positive=1.0, negative=1.05),
            weighted,
        )
        for surrogate in surrogates:
            assert gradcheck(lambda r, s=surrogate: s(r, advantage), [ratio])

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_outside_is_where_the_clip_cuts_the_gradient(self, sign: float) -> None:
        ratio = vector(0.5, 0.79, 0.81, 1.0, 1.29, 1.31, 4.0).requires_grad_()
        advantage = torch.full((7,), sign, dtype=torch.float64)
        slopes = gradient(clip(ratio, advantage, low=0.2, high=0.3), ratio)
        low, high = outside_low(ratio, advantage, 0.2), outside_high(ratio, advantage, 0.3)
        assert (low + high).tolist() == [float(slope == 0) for slope in slopes]
        assert low.tolist() == ([0.0] * 7 if sign > 0 else [1.0] * 2 + [0.0] * 5)
        assert high.tolist() == ([0.0] * 5 + [1.0] * 2 if sign > 0 else [0.0] * 7)


class TestValueLoss:
    @pytest.mark.parametrize(
        ("value", "old", "ret", "loss", "slope"),
        [
            (1.1, 1.0, 2.0, 0.5 * 0.81, -0.9),  # moved less than the bound
            (1.5, 1.0, 2.0, 0.5 * 0.64, 0.0),  # towards the return beyond the bound: held at 1.2
            (0.5, 1.0, 2.0, 0.5 * 2.25, -1.5),  # away from it: the whole error, with its gradient
            (2.5, 1.0, 2.0, 0.5 * 0.64, 0.0),  # past the return, by less than 1.2 lacks
            (3.0, 1.0, 2.0, 0.5 * 1.00, 1.0),  # past the return by more
            (0.4, 1.0, 0.0, 0.5 * 0.64, 0.0),  # the same downwards: held at 0.8
            (1.6, 1.0, 0.0, 0.5 * 2.56, 1.6),
        ],
    )
    def test_by_hand(self, value: float, old: float, ret: float, loss: float, slope: float) -> None:
        v = vector(value).requires_grad_()
        found = value_loss(v, vector(old), vector(ret), clip=0.2)
        assert float(found.detach()) == pytest.approx(loss)
        assert gradient(found, v) == pytest.approx([slope])

    def test_gradient_in_float64_is_of_the_value_alone(self) -> None:
        value = vector(1.1, 1.5, 0.5, 3.0).requires_grad_()
        old, ret = vector(1, 1, 1, 1), vector(2, 2, 2, 2)
        assert gradcheck(lambda v: value_loss(v, old, ret, clip=0.2), [value])
        assert value_loss(value, old, ret, clip=0.2).shape == (4,)


def divergence(name: str, new: float, ref: float) -> float:
    log_r = ref - new
    return {"k1": -log_r, "k2": log_r**2 / 2, "k3": math.exp(log_r) - 1 - log_r}[name]


def kl_answers(name: str, by_ratio: bool) -> list[list[float]]:
    return [
        [
            divergence(name, old + move, ref) * (math.exp(move) if by_ratio else 1.0)
            for old, move, ref in zip(olds, moves, refs, strict=True)
        ]
        for olds, moves, refs in zip(OLD, MOVES, REF, strict=True)
    ]


class TestDivergenceTerm:
    @pytest.mark.parametrize("kl", ["k1", "k2", "k3"])
    @pytest.mark.parametrize("by_ratio", [False, True])
    @pytest.mark.parametrize("name", PRESETS)
    def test_in_the_loss_by_hand(self, name: str, kl: str, by_ratio: bool) -> None:
        """beta times the divergence under the method's denominator; token ratio for every method,
        not the surrogate's."""
        terms = {"kl": kl, "kl_in": "loss", "kl_weighted": by_ratio}
        given = case(SIGNS[0])
        without = policy_loss(PRESETS[name](beta=0.0), given, COUNTS)
        method = PRESETS[name](beta=0.7, **terms)
        loss = policy_loss(method, given, COUNTS)
        answers = kl_answers(kl, by_ratio)
        expected = 0.7 * reduced(answers, method.denominator)
        assert float((loss.value - without.value).detach()) == pytest.approx(expected)
        plain = kl_answers(kl, False)
        assert results(loss.metrics)["kl"] == pytest.approx(sum(map(sum, plain)) / 5)

    def test_gradient_by_hand(self) -> None:
        """k3 under a token mean: (1 - p_ref / p) / 9, the surrogate's aside."""
        given = case((0.0, 0.0))
        value = policy_loss(PRESETS["dapo"](beta=0.5), given, COUNTS).value
        new = (flat(OLD) + flat(MOVES)).tolist()
        expected = [
            0.5 * (1 - math.exp(r - n)) / 9 for n, r in zip(new, flat(REF).tolist(), strict=True)
        ]
        assert gradient(value, given.logprobs_N) == pytest.approx(expected)

    def test_weighted_gradient_is_that_of_the_kl_off_policy(self) -> None:
        """Tokens drawn from an older policy: only weighted k3 has the exact gradient on average."""
        logits = vector(0.3, -0.2, 0.5, 0.1).requires_grad_()
        old, ref = vector(0.4, 0.1, 0.2, 0.3).log(), vector(0.1, 0.2, 0.3, 0.4).log()
        p = logits.softmax(0)
        exact = torch.tensor(gradient((p * (p.log() - ref)).sum(), logits))

        def average(by_ratio: bool) -> torch.Tensor:
            """sum over the vocabulary of p_old times the token's own loss: one-token answers."""
            method = PRESETS["rloo"](beta=1.0, kl="k3", kl_in="loss", kl_weighted=by_ratio)
            total = vector(0.0)
            for token in range(4):
                one = slice(token, token + 1)
                given = PolicyTokens(
                    logits.log_softmax(0)[one], old[one], ref[one], vector(0), torch.tensor([0])
                )
                value = policy_loss(method, given, StepCounts(1, 1, 1)).value
                total = total + old[token].exp() * value
            return torch.tensor(gradient(total, logits))

        assert torch.allclose(average(True), exact, rtol=1e-6)
        assert not torch.allclose(average(False), exact, rtol=0.05)

    @pytest.mark.parametrize("name", ["rloo", "reinforce_pp", "ppo"])
    def test_in_the_reward_it_leaves_the_loss_alone(self, name: str) -> None:
        given = case(SIGNS[0])
        method = PRESETS[name]()
        assert method.beta > 0
        loss = policy_loss(method, given, COUNTS)
        without = policy_loss(replace(method, beta=0.0), given, COUNTS)
        assert float(loss.value.detach()) == float(without.value.detach())
        k1 = sum(map(sum, kl_answers("k1", False))) / 5
        assert results(loss.metrics)["kl"] == pytest.approx(k1)

    @pytest.mark.parametrize("name", PRESETS)
    def test_missing_reference(self, name: str) -> None:
        given = replace(case(SIGNS[0]), ref_N=None)
        with pytest.raises(ValueError, match="reference"):
            policy_loss(PRESETS[name](beta=0.1, kl_in="loss"), given, COUNTS)
        assert "kl" not in policy_loss(PRESETS[name](beta=0.0), given, COUNTS).metrics
        policy_loss(PRESETS[name](beta=0.1, kl_in="reward"), given, COUNTS)


class TestEntropyTerm:
    @pytest.mark.parametrize("denominator", DENOMINATORS)
    def test_gradient_by_hand_whatever_the_denominator(self, denominator: Denominator) -> None:
        """Minus the weight times the step's token mean: -0.9 / 9 for each token's entropy."""
        given = case(SIGNS[0])
        assert given.entropy_N is not None
        given.entropy_N.requires_grad_()
        method = replace(PRESETS["grpo"](entropy_weight=0.9), denominator=denominator)
        value = policy_loss(method, given, COUNTS).value
        without = policy_loss(replace(method, entropy_weight=0.0), given, COUNTS).value
        assert float((value - without).detach()) == pytest.approx(-0.9 * 2.7 / 9)
        assert gradient(value, given.entropy_N) == pytest.approx([-0.1] * 5)

    def test_raises_the_entropy_of_a_policy(self) -> None:
        """d (-H) / d logit_i = p_i (log p_i + H)."""
        logits = vector(1.0, 0.0, -2.0).requires_grad_()
        logp = logits.log_softmax(0)
        entropy = -(logp.exp() * logp).sum()
        given = PolicyTokens(
            logp[:1], logp[:1].detach(), None, vector(0), torch.tensor([0]), entropy[None]
        )
        value = policy_loss(PRESETS["dapo"](entropy_weight=2.0), given, StepCounts(1, 1, 5)).value
        p = [math.exp(x) / sum(math.exp(y) for y in (1.0, 0.0, -2.0)) for x in (1.0, 0.0, -2.0)]
        h = -sum(x * math.log(x) for x in p)
        assert gradient(value, logits) == pytest.approx([2 * x * (math.log(x) + h) for x in p])

    def test_missing_entropy(self) -> None:
        given = replace(case(SIGNS[0]), entropy_N=None)
        with pytest.raises(ValueError, match="entropy"):
            policy_loss(PRESETS["dapo"](entropy_weight=0.1), given, COUNTS)


class TestMismatchFactor:
    WEIGHT = vector(0.5, 2.0, 0.0, 1.5, 3.0)

    @pytest.mark.parametrize("name", PRESETS)
    def test_multiplies_the_surrogate_and_nothing_else(self, name: str) -> None:
        """By difference: the KL and the entropy of the weighted loss are those of the plain one."""
        method = PRESETS[name](beta=0.0)
        terms = PRESETS[name](beta=0.7, kl="k3", kl_in="loss", entropy_weight=0.2)
        plain, given = case(SIGNS[0]), replace(case(SIGNS[0]), weight_N=self.WEIGHT)

        def value(method: PolicyLoss, given: PolicyTokens) -> float:
            return float(policy_loss(method, given, COUNTS).value.detach())

        added = value(terms, plain) - value(method, plain)
        assert abs(added) > 0.01
        assert value(terms, given) - value(method, given) == pytest.approx(added)
        # and the surrogate's gradient is scaled token by token where tokens have their own ratio
        if name not in ("gspo", "gmpo"):
            unweighted = gradient(policy_loss(method, plain, COUNTS).value, plain.logprobs_N)
            found = gradient(policy_loss(method, given, COUNTS).value, given.logprobs_N)
            expected = (vector(*unweighted) * self.WEIGHT).tolist()
            assert found == pytest.approx(expected)

    @pytest.mark.parametrize("name", ["gspo", "gmpo"])
    def test_of_a_sequence_ratio_is_the_mean_weight(self, name: str) -> None:
        """Tokens share one surrogate, so the answer is scaled by the mean of its weights."""
        method = PRESETS[name](beta=0.0)
        given = replace(case(SIGNS[0]), weight_N=self.WEIGHT)
        one, two = case((2.0, 0.0)), case((0.0, -1.5))
        parts = [float(policy_loss(method, x, COUNTS).value.detach()) for x in (one, two)]
        expected = parts[0] * 2.5 / 2 + parts[1] * 4.5 / 3
        assert float(policy_loss(method, given, COUNTS).value.detach()) == pytest.approx(expected)


class TestAccumulation:
    @pytest.mark.parametrize("denominator", DENOMINATORS)
    @pytest.mark.parametrize("name", PRESETS)
    def test_pieces_add_up_to_the_whole(self, name: str, denominator: Denominator) -> None:
        """Split by answer, same step counts: value, gradients and metrics, with every term on."""
        method = PRESETS[name](beta=0.3, kl_in="loss", entropy_weight=0.2)
        method = replace(method, denominator=denominator)
        whole = replace(case(SIGNS[0]), weight_N=vector(0.5, 2.0, 0.1, 1.5, 3.0))
        loss = policy_loss(method, whole, COUNTS)
        value, slopes, totals = 0.0, [], []
        for keep in (slice(0, 2), slice(2, 5)):
            assert whole.ref_N is not None
            assert whole.entropy_N is not None
            assert whole.weight_N is not None
            part = PolicyTokens(
                whole.logprobs_N.detach()[keep].requires_grad_(), whole.old_N[keep],
                whole.ref_N[keep], whole.advantage_N[keep], torch.zeros_like(BRANCH[keep]),
                whole.entropy_N[keep], whole.weight_N[keep],
            )  # fmt: skip
            piece = policy_loss(method, part, COUNTS)
            value += float(piece.value.detach())
            slopes += gradient(piece.value, part.logprobs_N)
            totals.append({name: (m.total, m.count) for name, m in piece.metrics.items()})
        assert value == pytest.approx(float(loss.value.detach()), rel=1e-12)
        assert slopes == pytest.approx(gradient(loss.value, whole.logprobs_N), rel=1e-12)
        for key, metric in loss.metrics.items():
            assert metric.total == pytest.approx(sum(t[key][0] for t in totals)), key
            assert metric.count == sum(t[key][1] for t in totals), key


class TestClipFractions:
    def test_by_hand(self) -> None:
        """Good: 1.11 and 1.82; bad: 0.50, 1.05 and 6.05: one cut on each side of five tokens."""
        shown = results(policy_loss(PRESETS["dapo"](), case(SIGNS[0]), COUNTS).metrics)
        assert shown["clip_ratio/low_mean"] == pytest.approx(1 / 5)
        assert shown["clip_ratio/high_mean"] == pytest.approx(1 / 5)
        shown = results(policy_loss(PRESETS["dapo"](), case((2.0, 1.5)), COUNTS).metrics)
        assert shown["clip_ratio/low_mean"] == 0.0
        assert shown["clip_ratio/high_mean"] == pytest.approx(2 / 5)

    def test_sequence_ratio_cuts_whole_answers(self) -> None:
        shown = results(policy_loss(PRESETS["gspo"](), case(SIGNS[0]), COUNTS).metrics)
        assert shown["clip_ratio/high_mean"] == pytest.approx(2 / 5)
        assert shown["clip_ratio/low_mean"] == 0.0

    def test_only_where_there_is_a_bound(self) -> None:
        sides = {
            name: set(policy_loss(b(beta=0), case(SIGNS[0]), COUNTS).metrics) - {"kl"}
            for name, b in PRESETS.items()
        }
        both = {"clip_ratio/low_mean", "clip_ratio/high_mean"}
        clipping = ("grpo", "dapo", "dr_grpo", "gspo", "reinforce_pp", "ppo",
                    "on_policy_distil", "minillm")  # fmt: skip
        assert sides == {
            **dict.fromkeys(clipping, both),
            **{name: set() for name in ("gmpo", "sapo", "rloo")},
            "cispo": {"clip_ratio/high_mean"},
        }


class TestPapersDefaults:
    @pytest.mark.parametrize(
        ("name", "bounds", "advantage", "denominator", "beta", "kl", "kl_in"),
        [
            ("grpo", (0.2, 0.2), "group_mean_std", "sequence_mean", 0.04, "k3", "loss"),
            ("dapo", (0.2, 0.28), "group_mean_std", "token_mean", 0.0, "k3", "loss"),
            ("dr_grpo", (0.2, 0.2), "group_mean", "constant", 0.0, "k3", "loss"),
            ("gspo", (3e-4, 4e-4), "group_mean_std", "sequence_mean", 0.0, "k3", "loss"),
            ("gmpo", (None, None), "group_mean_std", "sequence_mean", 0.0, "k3", "loss"),
            ("cispo", (None, 4.0), "group_mean_std", "token_mean", 0.0, "k3", "loss"),
            ("sapo", (None, None), "group_mean_std", "sequence_mean", 0.0, "k3", "loss"),
            ("rloo", (None, None), "leave_one_out", "sequence_sum", 0.05, "k1", "reward"),
            ("reinforce_pp", (0.2, 0.2), "to_go", "token_mean", 0.01, "k1", "reward"),
            ("ppo", (0.2, 0.2), "gae", "token_mean", 0.02, "k1", "reward"),
        ],
    )
    def test_of(
        self,
        name: str,
        bounds: tuple[float | None, float | None],
        advantage: str,
        denominator: str,
        beta: float,
        kl: str,
        kl_in: str,
    ) -> None:
        method = PRESETS[name]()
        assert method.bounds == bounds
        assert (method.advantage, method.denominator) == (advantage, denominator)
        assert (method.beta, method.kl, method.kl_in) == (beta, kl, kl_in)
        assert (method.kl_weighted, method.entropy_weight) == (False, 0.0)

    @pytest.mark.parametrize("name", PRESETS)
    def test_own_terms_win(self, name: str) -> None:
        method = PRESETS[name](
            beta=0.5, kl="k2", kl_in="loss", kl_weighted=True, entropy_weight=0.1
        )
        assert (method.beta, method.kl, method.kl_in) == (0.5, "k2", "loss")
        assert (method.kl_weighted, method.entropy_weight) == (True, 0.1)
