"""Policy-gradient methods as choices along the four axes of `policy`, about ten lines per paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypedDict, Unpack

import torch

from strop.losses import policy
from strop.losses.divergence import ESTIMATORS
from strop.losses.metrics import Metric
from strop.losses.reduce import DENOMINATORS, Denominator, Loss, StepCounts, mean_of
from strop.recipe.train.policy import KlName

AdvantageName = Literal["group_mean_std", "group_mean", "leave_one_out", "to_go", "gae"]
KlPlace = Literal["loss", "reward"]

RatioLevel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(log ratio, advantage, branch) of shape [N] -> ratio of shape [N]."""

Surrogate = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(ratio, advantage, log-prob) of shape [N] -> loss of shape [N]."""


class Terms(TypedDict, total=False):
    """Options that every preset takes besides its own.

    `beta` weighs the KL to the reference (0 needs none), `kl` is its estimator, `kl_in` says
    whether it is a term of the loss or part of the reward, `kl_weighted` multiplies the loss term
    by the importance ratio (unbiased off policy: DeepSeek-V3.2, arXiv 2512.02556, section 3.1),
    `entropy_weight` adds that many times the entropy to the objective.
    """

    beta: float
    kl: KlName
    kl_in: KlPlace
    kl_weighted: bool
    entropy_weight: float


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """One method: where the ratio is taken, how it is bounded, which KL, what divides the sum.

    `bounds` are the distances (low, high) from ratio 1 beyond which a token's gradient is cut, for
    the logged clip fractions (`None`: no such side); `advantage` is the baseline the paper pairs
    it with; the rest is explained in `Terms`.
    """

    ratio: RatioLevel
    surrogate: Surrogate
    bounds: tuple[float | None, float | None]
    advantage: AdvantageName
    denominator: Denominator
    beta: float = 0.0
    kl: KlName = "k3"
    kl_in: KlPlace = "loss"
    kl_weighted: bool = False
    entropy_weight: float = 0.0


def grpo(
    *, epsilon_low: float = 0.2, epsilon_high: float = 0.2, dual_clip: float | None = None,
    **terms: Unpack[Terms],
) -> PolicyLoss:  # fmt: skip
    """Group-relative policy optimisation: Shao et al. 2024 (arXiv 2402.03300), equation 3.

    Token ratio, clip 0.2, k3 with beta 0.04, mean over sequences of token means.
    """
    surrogate = _clip(epsilon_low, epsilon_high, dual_clip)
    given: Terms = {"beta": 0.04, **terms}
    return PolicyLoss(
        policy.token_ratio, surrogate, (epsilon_low, epsilon_high),
        "group_mean_std", "sequence_mean", **given,
    )  # fmt: skip


def dapo(
    *, epsilon_low: float = 0.2, epsilon_high: float = 0.28, dual_clip: float | None = None,
    **terms: Unpack[Terms],
) -> PolicyLoss:  # fmt: skip
    """DAPO's loss: Yu et al. 2025 (arXiv 2503.14476), equation 8.

    Clip-higher 0.2 / 0.28, no KL, token mean over the whole step. Its dynamic sampling, overlong
    shaping and masking are options of the rollout, not of the loss.
    """
    surrogate = _clip(epsilon_low, epsilon_high, dual_clip)
    return PolicyLoss(
        policy.token_ratio, surrogate, (epsilon_low, epsilon_high),
        "group_mean_std", "token_mean", **terms,
    )  # fmt: skip


def dr_grpo(
    *, epsilon_low: float = 0.2, epsilon_high: float = 0.2, dual_clip: float | None = None,
    **terms: Unpack[Terms],
) -> PolicyLoss:  # fmt: skip
    """GRPO done right: Liu et al. 2025 (arXiv 2503.20783), section 3.2.

    Constant denominator (no length bias) and no division by the group's std (no difficulty bias).
    """
    surrogate = _clip(epsilon_low, epsilon_high, dual_clip)
    return PolicyLoss(
        policy.token_ratio, surrogate, (epsilon_low, epsilon_high),
        "group_mean", "constant", **terms,
    )  # fmt: skip


def gspo(
    *, epsilon_low: float = 3e-4, epsilon_high: float = 4e-4, **terms: Unpack[Terms]
) -> PolicyLoss:
    """Group sequence policy optimisation: Zheng et al. 2025 (arXiv 2507.18071), equation 5.

    Length-normalised sequence ratio, clipped at 3e-4 / 4e-4 (section 5.1), mean over sequences.
    """
    surrogate = _clip(epsilon_low, epsilon_high, None)
    return PolicyLoss(
        policy.sequence_ratio, surrogate, (epsilon_low, epsilon_high),
        "group_mean_std", "sequence_mean", **terms,
    )  # fmt: skip


def gmpo(
    *, epsilon_low: float = 0.4, epsilon_high: float = 0.4, **terms: Unpack[Terms]
) -> PolicyLoss:
    """Geometric-mean policy optimisation: Zhao et al. 2025 (arXiv 2507.20673), equation 4.

    Each token's log-ratio clipped to [-0.4, 0.4], then their geometric mean as the sequence's
    ratio, mean over sequences.
    """
    level = partial(policy.geometric_ratio, low=epsilon_low, high=epsilon_high)
    return PolicyLoss(
        level, _weighted, (None, None), "group_mean_std", "sequence_mean", **terms
    )  # fmt: skip


def cispo(*, epsilon_high: float = 4.0, **terms: Unpack[Terms]) -> PolicyLoss:
    """Clipped importance-sampling weights: MiniMax 2025 (arXiv 2506.13585), equations 4 and 5.

    The weight on log p is capped at the ratio 1 + epsilon_high, without gradient; token mean. The
    paper tunes the cap without naming it; 5 is ScaleRL's (arXiv 2510.13786).
    """

    def surrogate(
        ratio_N: torch.Tensor, advantage_N: torch.Tensor, logprobs_N: torch.Tensor
    ) -> torch.Tensor:
        return policy.clipped_weight(ratio_N, advantage_N, logprobs_N, high=epsilon_high)

    return PolicyLoss(
        policy.token_ratio, surrogate, (None, epsilon_high), "group_mean_std", "token_mean", **terms
    )


def sapo(
    *, temperature_positive: float = 1.0, temperature_negative: float = 1.05,
    **terms: Unpack[Terms],
) -> PolicyLoss:  # fmt: skip
    """Soft adaptive policy optimisation: Gao et al. 2025 (arXiv 2511.20347), equations 5 and 6.

    A sigmoid gate on the token ratio instead of a cut, sharper for bad tokens, mean over sequences.
    """

    def surrogate(
        ratio_N: torch.Tensor, advantage_N: torch.Tensor, logprobs_N: torch.Tensor
    ) -> torch.Tensor:
        return policy.soft_gate(
            ratio_N, advantage_N, positive=temperature_positive, negative=temperature_negative
        )

    return PolicyLoss(
        policy.token_ratio, surrogate, (None, None), "group_mean_std", "sequence_mean", **terms
    )


def rloo(**terms: Unpack[Terms]) -> PolicyLoss:
    """REINFORCE leave-one-out: Ahmadian et al. 2024 (arXiv 2402.14740), section 3.2.

    The whole answer is one action. Its advantage is its reward minus beta times its KL, minus the
    mean of the other answers. The mean over sequences of token sums gives the exact policy
    gradient.
    """
    given: Terms = {"beta": 0.05, "kl": "k1", "kl_in": "reward", **terms}
    return PolicyLoss(
        policy.token_ratio, _reinforce, (None, None), "leave_one_out", "sequence_sum", **given
    )


def reinforce_pp(
    *, epsilon_low: float = 0.2, epsilon_high: float = 0.2, dual_clip: float | None = None,
    **terms: Unpack[Terms],
) -> PolicyLoss:  # fmt: skip
    """REINFORCE++: Hu 2025 (arXiv 2501.03262), equations 5 to 8.

    Token KL inside the reward; the advantage is the reward to go, normalised over the whole batch;
    no critic, no groups needed.
    """
    surrogate = _clip(epsilon_low, epsilon_high, dual_clip)
    given: Terms = {"beta": 0.01, "kl": "k1", "kl_in": "reward", **terms}
    return PolicyLoss(
        policy.token_ratio, surrogate, (epsilon_low, epsilon_high),
        "to_go", "token_mean", **given,
    )  # fmt: skip


def ppo(
    *, epsilon_low: float = 0.2, epsilon_high: float = 0.2, dual_clip: float | None = None,
    **terms: Unpack[Terms],
) -> PolicyLoss:  # fmt: skip
    """PPO with a critic: Schulman et al. 2017 (arXiv 1707.06347), Ouyang et al. 2022 (2203.02155).

    Generalised advantage estimates of a learnt value, token KL inside the reward (0.02 there),
    token mean.
    """
    surrogate = _clip(epsilon_low, epsilon_high, dual_clip)
    given: Terms = {"beta": 0.02, "kl": "k1", "kl_in": "reward", **terms}
    return PolicyLoss(
        policy.token_ratio, surrogate, (epsilon_low, epsilon_high), "gae", "token_mean", **given
    )


def on_policy_distil(
    *, epsilon_low: float = 0.2, epsilon_high: float = 0.2, dual_clip: float | None = None,
    **terms: Unpack[Terms],
) -> PolicyLoss:  # fmt: skip
    """On-policy distillation: Agarwal et al. 2023 (arXiv 2306.13649); Thinking Machines 2025.

    The advantage of a token is `distillation.on_policy_distil`, added to the group's where there is
    a reward; token mean. The ratio is 1 in the first update; the clip is for further ones.
    """
    surrogate = _clip(epsilon_low, epsilon_high, dual_clip)
    return PolicyLoss(
        policy.token_ratio, surrogate, (epsilon_low, epsilon_high),
        "group_mean_std", "token_mean", **terms,
    )  # fmt: skip


def minillm(
    *, epsilon_low: float = 0.2, epsilon_high: float = 0.2, **terms: Unpack[Terms]
) -> PolicyLoss:
    """MiniLLM: Gu et al. 2023 (arXiv 2306.08543), equation 7 and algorithm 1.

    The clipped surrogate is the long part, with the advantages of `distillation.minillm`; the
    single-step part is added as `PolicyTokens.exact_N`. Token mean. Left out: the scaling of
    rewards that the authors' code makes, which the paper does not have.
    """
    surrogate = _clip(epsilon_low, epsilon_high, None)
    return PolicyLoss(
        policy.token_ratio, surrogate, (epsilon_low, epsilon_high),
        "group_mean_std", "token_mean", **terms,
    )  # fmt: skip


PRESETS: dict[str, Callable[..., PolicyLoss]] = {
    "grpo": grpo, "dapo": dapo, "dr_grpo": dr_grpo, "gspo": gspo, "gmpo": gmpo, "cispo": cispo,
    "sapo": sapo, "rloo": rloo, "reinforce_pp": reinforce_pp, "ppo": ppo,
    "on_policy_distil": on_policy_distil, "minillm": minillm,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PolicyTokens:
    """What a policy loss reads, all of shape [N].

    `old_N` are the log-probs before the step's first update; `ref_N` is None without a reference
    and `entropy_N` may be detached unless it is weighed; `weight_N` corrects the sampler's mismatch
    (None: no correction); `exact_N` is a loss of each token that is added to its surrogate, with a
    gradient of its own.
    """

    logprobs_N: torch.Tensor
    old_N: torch.Tensor
    ref_N: torch.Tensor | None
    advantage_N: torch.Tensor
    branch_N: torch.Tensor
    entropy_N: torch.Tensor | None = None
    weight_N: torch.Tensor | None = None
    exact_N: torch.Tensor | None = None


def policy_loss(method: PolicyLoss, tokens: PolicyTokens, counts: StepCounts) -> Loss:
    """The method's scalar over these tokens, with its clip fractions and KL as metrics.

    The entropy bonus is a token mean whatever divides the surrogate. Raises `ValueError` when the
    KL or the entropy is weighed and its input is missing.
    """
    in_loss = method.beta != 0 and method.kl_in == "loss"
    if in_loss and tokens.ref_N is None:
        raise ValueError("beta is not zero, so the reference log-probs are needed")
    if method.entropy_weight and tokens.entropy_N is None:
        raise ValueError("entropy_weight is not zero, so the entropy is needed")
    log_ratio_N = tokens.logprobs_N - tokens.old_N
    ratio_N = method.ratio(log_ratio_N, tokens.advantage_N, tokens.branch_N)
    loss_N = method.surrogate(ratio_N, tokens.advantage_N, tokens.logprobs_N)
    if tokens.exact_N is not None:
        loss_N = loss_N + tokens.exact_N
    if tokens.weight_N is not None:
        loss_N = loss_N * tokens.weight_N
    metrics = _clip_fractions(method.bounds, ratio_N.detach(), tokens.advantage_N)
    if tokens.ref_N is not None:
        kl_N = ESTIMATORS[method.kl](tokens.logprobs_N, tokens.ref_N)
        metrics["kl"] = mean_of(kl_N)
        if in_loss:
            weighted_N = kl_N * log_ratio_N.exp() if method.kl_weighted else kl_N
            loss_N = loss_N + method.beta * weighted_N
    value = DENOMINATORS[method.denominator](loss_N, tokens.branch_N, counts)
    if method.entropy_weight and tokens.entropy_N is not None:
        value = value - method.entropy_weight * tokens.entropy_N.sum() / counts.tokens
    return Loss(value, metrics)


def _clip_fractions(
    bounds: tuple[float | None, float | None], ratio_N: torch.Tensor, advantage_N: torch.Tensor
) -> dict[str, Metric]:
    low, high = bounds
    fractions: dict[str, Metric] = {}
    if low is not None:
        cut = policy.outside_low(ratio_N, advantage_N, low)
        fractions["clip_ratio/low_mean"] = mean_of(cut)
    if high is not None:
        cut = policy.outside_high(ratio_N, advantage_N, high)
        fractions["clip_ratio/high_mean"] = mean_of(cut)
    return fractions


def _clip(low: float, high: float, dual: float | None) -> Surrogate:
    def surrogate(
        ratio_N: torch.Tensor, advantage_N: torch.Tensor, logprobs_N: torch.Tensor
    ) -> torch.Tensor:
        return policy.clip(ratio_N, advantage_N, low=low, high=high, dual=dual)

    return surrogate


def _weighted(
    ratio_N: torch.Tensor, advantage_N: torch.Tensor, logprobs_N: torch.Tensor
) -> torch.Tensor:
    return policy.weighted(ratio_N, advantage_N)


def _reinforce(
    ratio_N: torch.Tensor, advantage_N: torch.Tensor, logprobs_N: torch.Tensor
) -> torch.Tensor:
    return policy.reinforce(advantage_N, logprobs_N)
