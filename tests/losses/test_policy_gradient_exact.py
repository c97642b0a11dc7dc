"""Estimators against the exact policy gradient of a policy small enough to write out.

Three tokens (0 ends an answer), at most three tokens an answer: 15 answers, 7 prefixes, 21 logits.
The exact gradient is autograd through the sum over all answers. An estimator's expectation is
worked out twice: exactly, from all groups of two or three answers with their probabilities, and
from sampled groups with a standard error for each logit. Both go through the library's own
advantages and `policy_loss`.

On scale: `policy_loss` divides by the counts it is given. Here they are always those of one group
(as many "tokens" as answers, longest answer 1), which makes each group's share of the gradient the
mean over its answers of a sum over tokens, whatever the method's denominator.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from strop.advantages import GROUPED, STD_EPSILON, gae, group_mean, leave_one_out, normalized, to_go
from strop.losses.divergence import ESTIMATORS
from strop.losses.presets import PRESETS, PolicyLoss, PolicyTokens, policy_loss
from strop.losses.reduce import StepCounts

EOS, VOCABULARY, LONGEST = 0, 3, 3
PREFIXES = [p for n in range(LONGEST) for p in itertools.product((1, 2), repeat=n)]
ANSWERS = [
    answer
    for n in range(1, LONGEST + 1)
    for answer in itertools.product(range(VOCABULARY), repeat=n)
    if EOS not in answer[:-1] and (n == LONGEST or answer[-1] == EOS)
]
LENGTHS = torch.tensor([len(answer) for answer in ANSWERS])
CELLS = [
    torch.tensor([PREFIXES.index(answer[:t]) * VOCABULARY + answer[t] for t in range(len(answer))])
    for answer in ANSWERS
]
"""of every answer: which of the 21 logits each of its tokens reads (prefix x token)"""


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LOGITS = draw(len(PREFIXES), VOCABULARY, seed=0) * 0.7
REF = (draw(len(PREFIXES), VOCABULARY, seed=1) * 0.7).log_softmax(1).flatten()
REWARDS = draw(len(ANSWERS), seed=2) + 1.0
VALUES = draw(len(PREFIXES), seed=3) * 2
"""a critic that knows nothing"""
LOGP = LOGITS.log_softmax(1).flatten()
PROBABILITY = torch.stack([LOGP[cells].sum() for cells in CELLS]).exp()


def answer_probabilities(logits: torch.Tensor) -> torch.Tensor:
    logp = logits.log_softmax(1).flatten()
    return torch.stack([logp[cells].sum() for cells in CELLS]).exp()


def exact_gradient(rewards: torch.Tensor = REWARDS, beta: float = 0.0) -> torch.Tensor:
    """d/d logits of E[reward] - beta KL(policy || reference), [21]."""
    logits = LOGITS.clone().requires_grad_()
    p = answer_probabilities(logits)
    ref = torch.stack([REF[cells].sum() for cells in CELLS])
    objective = (p * (rewards - beta * (p.log() - ref))).sum()
    (gradient,) = torch.autograd.grad(objective, logits)
    return gradient.flatten()


@dataclass(frozen=True)
class Sample:
    """Groups of answers: `groups_KG` numbers into ANSWERS, flat tokens in the same order."""

    groups_KG: torch.Tensor
    lengths: list[int]
    cell_N: torch.Tensor
    branch_N: torch.Tensor
    group_N: torch.Tensor

    @classmethod
    def of(cls, groups_KG: torch.Tensor) -> Sample:
        answers = groups_KG.flatten()
        lengths = LENGTHS[answers]
        branch_N = torch.arange(len(answers)).repeat_interleave(lengths)
        cells = torch.cat([CELLS[answer] for answer in answers.tolist()])
        return cls(groups_KG, lengths.tolist(), cells, branch_N, branch_N // groups_KG.shape[1])

    def penalty(self, method: PolicyLoss) -> torch.Tensor:
        """beta times the KL of every token, [N]."""
        return method.beta * ESTIMATORS[method.kl](LOGP[self.cell_N], REF[self.cell_N])

    def over_tokens(self, per_answer_KG: torch.Tensor) -> torch.Tensor:
        return per_answer_KG.flatten()[self.branch_N]

    def token_rewards(self, method: PolicyLoss) -> torch.Tensor:
        """The answer's reward on its last token, the KL on all, [N]."""
        rewards_N = -self.penalty(method)
        ends = torch.tensor(self.lengths).cumsum(0) - 1
        rewards_N[ends] += REWARDS[self.groups_KG].flatten()
        return rewards_N

    def values(self, table: torch.Tensor) -> torch.Tensor:
        return table[self.cell_N // VOCABULARY]

    def estimates(self, method: PolicyLoss, advantage_N: torch.Tensor) -> torch.Tensor:
        """Each group's estimate of the gradient of the objective (minus the loss), [K, 21].

        On policy, so the loss depends on a token through its log-prob alone:
        d log p(token | prefix) / d logits[prefix] = onehot(token) - p(. | prefix).
        """
        logp_N = LOGP[self.cell_N].clone().requires_grad_()
        count, size = self.groups_KG.shape
        given = PolicyTokens(logp_N, LOGP[self.cell_N], None, advantage_N, self.branch_N)
        counts = StepCounts(sequences=size, tokens=size, max_length=1)
        value = policy_loss(replace(method, beta=0.0), given, counts).value
        (slope_N,) = torch.autograd.grad(-value, logp_N)
        hits = torch.zeros(count * len(LOGP), dtype=torch.float64)
        hits.index_add_(0, self.group_N * len(LOGP) + self.cell_N, slope_N)
        by_token = hits.view(count, len(PREFIXES), VOCABULARY)
        by_prefix = by_token.sum(2, keepdim=True) * LOGP.exp().view(len(PREFIXES), VOCABULARY)
        return (by_token - by_prefix).view(count, -1)


def all_groups(size: int) -> tuple[Sample, torch.Tensor]:
    """Every group of `size` answers and its probability."""
    groups = torch.cartesian_prod(*[torch.arange(len(ANSWERS))] * size).view(-1, size)
    return Sample.of(groups), PROBABILITY[groups].prod(1)


def sampled_groups(count: int, size: int, seed: int) -> Sample:
    drawn = torch.multinomial(
        PROBABILITY, count * size, replacement=True, generator=torch.Generator().manual_seed(seed)
    )
    return Sample.of(drawn.view(count, size))


PAIRS, PAIRS_P = all_groups(2)
TRIPLES, TRIPLES_P = all_groups(3)
ENUMERATED = [(PAIRS, PAIRS_P), (TRIPLES, TRIPLES_P)]
DRAWN = sampled_groups(12_000, 2, seed=4)

Advantage = Callable[[Sample, PolicyLoss], torch.Tensor]


def expectation(method: PolicyLoss, advantage: Advantage, size: int = 2) -> torch.Tensor:
    sample, probability = ENUMERATED[size - 2]
    return probability @ sample.estimates(method, advantage(sample, method))


def agrees(estimates: torch.Tensor, exact: torch.Tensor) -> bool:
    """Whether the mean of independent estimates is within 4 standard errors in every logit."""
    error = estimates.std(0) / len(estimates) ** 0.5
    assert (error > 0).all()
    return bool(((estimates.mean(0) - exact).abs() < 4 * error).all())


def grouped(function: Callable[[torch.Tensor], torch.Tensor]) -> Advantage:
    """The answer's reward less its KL, against its group."""

    def advantage(sample: Sample, method: PolicyLoss) -> torch.Tensor:
        rewards = REWARDS[sample.groups_KG].clone()
        if method.beta:
            penalty = torch.zeros(rewards.numel(), dtype=torch.float64)
            penalty.index_add_(0, sample.branch_N, sample.penalty(method))
            rewards -= penalty.view_as(rewards)
        return sample.over_tokens(function(rewards))

    return advantage


def still_to_come(sample: Sample, method: PolicyLoss) -> torch.Tensor:
    return to_go(sample.token_rewards(method), sample.lengths)


def with_critic(table: torch.Tensor, lam: float) -> Advantage:
    def advantage(sample: Sample, method: PolicyLoss) -> torch.Tensor:
        rewards_N = sample.token_rewards(method)
        return gae(rewards_N, sample.values(table), sample.lengths, gamma=1.0, lam=lam)

    return advantage


def exact_values(method: PolicyLoss) -> torch.Tensor:
    """What is still to come on average from every prefix, [7]: a sum over the answers below it."""
    table = torch.zeros(len(PREFIXES), dtype=torch.float64)
    reached = torch.zeros(len(PREFIXES), dtype=torch.float64)
    sample = Sample.of(torch.arange(len(ANSWERS))[:, None])
    probability_N = PROBABILITY[sample.branch_N]
    prefix_N = sample.cell_N // VOCABULARY
    table.index_add_(0, prefix_N, probability_N * still_to_come(sample, method))
    reached.index_add_(0, prefix_N, probability_N)
    return table / reached


RLOO = PRESETS["rloo"](beta=0.0)
RLOO_KL = PRESETS["rloo"](beta=0.3)
REINFORCE_PP = PRESETS["reinforce_pp"](beta=0.3)
PPO = PRESETS["ppo"](beta=0.3)
DR_GRPO = PRESETS["dr_grpo"]()

UNBIASED: dict[str, tuple[PolicyLoss, Advantage, float]] = {
    "rloo": (RLOO, grouped(leave_one_out), 1.0),
    "rloo, KL in the reward": (RLOO_KL, grouped(leave_one_out), 1.0),
    "reinforce_pp": (replace(REINFORCE_PP, beta=0.0), still_to_come, 1.0),
    "reinforce_pp, KL in the reward": (REINFORCE_PP, still_to_come, 1.0),
    "ppo, lam 1, any critic": (PPO, with_critic(VALUES, 1.0), 1.0),
    "ppo, lam 0.95, exact critic": (PPO, with_critic(exact_values(PPO), 0.95), 1.0),
    "ppo, lam 0, exact critic": (PPO, with_critic(exact_values(PPO), 0.0), 1.0),
    # the own reward is in the mean: (n - 1) / n of the gradient for n = 2
    "dr_grpo": (DR_GRPO, grouped(group_mean), 1 / 2),
}
"""method, advantage, and which multiple of the exact gradient it estimates in groups of two"""


def reward_less_the_best(rewards_KG: torch.Tensor) -> torch.Tensor:
    return rewards_KG - rewards_KG.max(1, keepdim=True).values


def past_instead_of_future(sample: Sample, method: PolicyLoss) -> torch.Tensor:
    """The penalty on the way counted from the start: what a cumulative sum the wrong way gives."""
    rewards = sample.token_rewards(method).split(sample.lengths)
    return torch.cat([answer.cumsum(0) for answer in rewards])


WRONG: dict[str, tuple[PolicyLoss, Advantage]] = {
    "the own reward in the baseline, unscaled": (DR_GRPO, grouped(group_mean)),
    "the best of the group as baseline": (RLOO, grouped(reward_less_the_best)),
    "the KL forgotten": (RLOO_KL, lambda s, m: grouped(leave_one_out)(s, RLOO)),
    "rewards of the past": (REINFORCE_PP, past_instead_of_future),
    "lam 0.95 with a critic that knows nothing": (PPO, with_critic(VALUES, 0.95)),
    "the critic's values of another KL weight": (
        PPO, with_critic(exact_values(replace(PPO, beta=3.0)), 0.0),
    ),
    "a mean over each answer's tokens": (
        replace(RLOO, denominator="sequence_mean"), grouped(leave_one_out),
    ),
}  # fmt: skip


def test_the_small_world() -> None:
    assert (len(PREFIXES), len(ANSWERS), len(LOGP)) == (7, 15, 21)
    assert float(PROBABILITY.sum()) == pytest.approx(1.0)
    assert float(PAIRS_P.sum()) == pytest.approx(1.0)
    assert float(TRIPLES_P.sum()) == pytest.approx(1.0)
    assert float(exact_gradient().abs().min()) > 1e-4
    # the mean of a group's answers as drawn: frequencies are those of the policy
    drawn = torch.bincount(DRAWN.groups_KG.flatten(), minlength=15) / 24_000
    assert torch.allclose(drawn.double(), PROBABILITY, atol=0.01)


def test_exact_gradient_by_differences() -> None:
    """The yardstick itself, by central differences of the objective over the enumeration."""

    def objective(logits: torch.Tensor) -> float:
        total = 0.0
        logp = logits.log_softmax(1).flatten()
        for cells, reward in zip(CELLS, REWARDS.tolist(), strict=True):
            own, ref = float(logp[cells].sum()), float(REF[cells].sum())
            total += math.exp(own) * (reward - 0.3 * (own - ref))
        return total

    gradient = exact_gradient(beta=0.3)
    for cell in range(21):
        step = torch.zeros(21, dtype=torch.float64)
        step[cell] = 1e-5
        slope = objective(LOGITS + step.view(7, 3)) - objective(LOGITS - step.view(7, 3))
        assert slope / 2e-5 == pytest.approx(float(gradient[cell]), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", UNBIASED)
def test_expectation_is_the_exact_gradient(name: str) -> None:
    method, advantage, scale = UNBIASED[name]
    exact = exact_gradient(beta=method.beta) * scale
    assert torch.allclose(expectation(method, advantage), exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", UNBIASED)
def test_sampled_mean_is_the_exact_gradient(name: str) -> None:
    method, advantage, scale = UNBIASED[name]
    estimates = DRAWN.estimates(method, advantage(DRAWN, method))
    assert agrees(estimates, exact_gradient(beta=method.beta) * scale)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_estimators_are_rejected(name: str) -> None:
    """Both checks have power: the sampled one sees these biases through its noise."""
    method, advantage = WRONG[name]
    exact = exact_gradient(beta=method.beta)
    assert not torch.allclose(expectation(method, advantage), exact, rtol=0.01, atol=1e-3)
    assert not agrees(DRAWN.estimates(method, advantage(DRAWN, method)), exact)


@pytest.mark.parametrize("size", [2, 3])
def test_the_own_reward_in_the_mean_shrinks_by_n_less_one_over_n(size: int) -> None:
    exact = exact_gradient()
    shrunk = expectation(DR_GRPO, grouped(group_mean), size)
    assert torch.allclose(shrunk, exact * (size - 1) / size, rtol=1e-9, atol=1e-12)
    whole = expectation(RLOO, grouped(leave_one_out), size)
    assert torch.allclose(whole, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PRESETS)
def test_all_presets_agree_on_policy_under_the_sum_over_tokens(name: str) -> None:
    """Every surrogate's gradient on policy is REINFORCE's. A sequence ratio gives each token the
    answer's loss, whose gradient is A / length for each token, and there are `length` of them."""
    method = replace(PRESETS[name](beta=0.0), denominator="sequence_sum")
    found = expectation(method, grouped(leave_one_out), 2)
    assert torch.allclose(found, exact_gradient(), rtol=1e-9, atol=1e-12)


def test_normalising_over_the_batch_rescales_and_shifts() -> None:
    """REINFORCE++ and PPO normalise advantages over the batch. For the batch at hand that is

        estimate(normalised) = (estimate(A) - mean(A) estimate(1)) / (std(A) + eps)

    exactly; estimate(1) is the sum of d log p, zero on average, and a batch's std is one positive
    number: the direction is that of the unbiased estimate, up to a bias of order 1 / batch (the
    batch's own answers are in its mean and std).
    """
    plain = still_to_come(DRAWN, REINFORCE_PP)
    found = DRAWN.estimates(REINFORCE_PP, normalized(plain))
    shift, scale = plain.mean(), plain.std() + 1e-4
    ones = DRAWN.estimates(REINFORCE_PP, torch.ones_like(plain))
    expected = (DRAWN.estimates(REINFORCE_PP, plain) - shift * ones) / scale
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
    one = expectation(REINFORCE_PP, lambda s, m: torch.ones(len(s.cell_N), dtype=torch.float64))
    assert one.abs().max() < 1e-12
    assert agrees(found * scale, exact_gradient(beta=0.3))


class TestDifficultyBias:
    """Two prompts, each with logits of its own: the objective is the sum, its gradient both parts.

    Dividing by the group's std makes a prompt's weight depend on how much its answers differ, so
    GRPO's expected step is not along the exact gradient of the two; without the division it is.
    """

    FAINT = 0.1
    """the second prompt's rewards are a tenth as far apart"""

    def parts(self, method: PolicyLoss, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        def of(scale: float) -> torch.Tensor:
            return expectation(method, grouped(lambda r: GROUPED[name](r * scale)), 3)

        return of(1.0), of(self.FAINT)

    def test_group_mean_std_is_not_proportional(self) -> None:
        method = replace(PRESETS["grpo"](beta=0.0), denominator="sequence_sum")
        strong, faint = self.parts(method, "group_mean_std")
        exact = exact_gradient()
        # the exact second part is a tenth of the first; GRPO's is as large as the first
        assert torch.allclose(faint, strong, rtol=0.05, atol=1e-3)
        found, wanted = torch.cat([strong, faint]), torch.cat([exact, self.FAINT * exact])
        assert float(torch.cosine_similarity(found, wanted, dim=0)) < 0.9

    def test_group_mean_is_proportional(self) -> None:
        strong, faint = self.parts(DR_GRPO, "group_mean")
        exact = exact_gradient()
        found, wanted = torch.cat([strong, faint]), torch.cat([exact, self.FAINT * exact])
        assert torch.allclose(found, wanted * 2 / 3, rtol=1e-9, atol=1e-12)

    def test_right_or_wrong_rewards_of_an_easy_and_a_middling_prompt(self) -> None:
        """Groups of four, rewards 0 or 1. Within a prompt GRPO's step is along the exact gradient,
        times a factor of the share p that is right. With k of n right, A of right and wrong ones
        is 1 / std_k apart, std_k = sqrt(k (n - k) / (n (n - 1))), so the factor is

            sum over k of Binomial(n, k) k (n - k) / n^2 / std_k / (p (1 - p))

        which for many answers is 1 / sqrt(p (1 - p)): an easy prompt weighs more than a middling
        one. Without the division it is (n - 1) / n for both.
        """
        likely = PROBABILITY.argsort(descending=True)
        method = replace(PRESETS["grpo"](beta=0.0), denominator="sequence_sum")
        sample, probability = all_groups(4)
        factors = []
        for share in (0.9, 0.5):
            solved = torch.zeros(len(ANSWERS), dtype=torch.float64)
            solved[likely[PROBABILITY[likely].cumsum(0) <= share]] = 1.0
            advantage = GROUPED["group_mean_std"](solved[sample.groups_KG])
            step = probability @ sample.estimates(method, sample.over_tokens(advantage))
            exact = exact_gradient(solved)
            p = float(PROBABILITY @ solved)
            factor = 0.0
            for k in range(1, 4):
                chance = math.comb(4, k) * p**k * (1 - p) ** (4 - k)
                std = math.sqrt(k * (4 - k) / 12) + STD_EPSILON
                factor += chance * k * (4 - k) / 16 / std / (p * (1 - p))
            assert torch.allclose(step, exact * factor, rtol=1e-9, atol=1e-12)
            factors.append(factor)
        assert factors[0] > 1.03 * factors[1]
