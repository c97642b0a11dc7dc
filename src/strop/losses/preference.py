"""Losses over preferences: one number per pair, or per labelled answer, from log-probs [B].

Throughout, u is the log-ratio log p_policy - log p_ref of an answer, h = u_chosen - u_rejected,
and beta u an answer's implicit reward. Except where a function says otherwise its arguments are
sums of log-probs over the answer's supervised tokens, float, shape [B].
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch.nn.functional import logsigmoid

Divergence = Literal["reverse_kl", "forward_kl", "js", "alpha"]


def dpo(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor,
    *, beta: float, label_smoothing: float = 0.0,
) -> torch.Tensor:  # fmt: skip
    """Direct preference optimisation, shape [B].

        h    = (policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)
        loss = -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)

    Rafailov et al. 2023 (arXiv 2305.18290), equation 7; `label_smoothing` e > 0 is the
    conservative variant (Mitchell 2023, "A note on DPO with noisy preferences", equation 3), for
    labels that are flipped with probability e. The paper's default is beta = 0.1.
    """
    margin_B = beta * _margin(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    return _logistic(margin_B, label_smoothing)


def robust_dpo(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor, *, beta: float, label_smoothing: float,
) -> torch.Tensor:  # fmt: skip
    """DPO made unbiased under flipped labels, shape [B].

        loss = (-(1 - e) log sigmoid(beta h) + e log sigmoid(-beta h)) / (1 - 2 e)

    Chowdhury et al. 2024 (rDPO, arXiv 2403.00409). When labels are flipped with probability e its
    expectation is the DPO loss on clean labels; unlike that loss it has no lower bound. The paper
    uses e = 0.1.
    """
    expect_between("label_smoothing", label_smoothing, 0.0, 0.5)
    if label_smoothing == 0.5:
        raise ValueError("label_smoothing of 0.5 makes every label a coin toss")
    margin_B = beta * _margin(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    kept_B = -(1 - label_smoothing) * logsigmoid(margin_B)
    return (kept_B + label_smoothing * logsigmoid(-margin_B)) / (1 - 2 * label_smoothing)


def ipo(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor, *, beta: float,
) -> torch.Tensor:  # fmt: skip
    """Identity preference optimisation, shape [B].

        loss = (h - 1 / (2 beta))^2

    Azar et al. 2023 (arXiv 2310.12036), equation 17; beta is the paper's tau.

    All four arguments are MEANS of log-probs over the answer's supervised tokens, not sums: the
    target 1 / (2 beta) is one constant for all pairs, which the sums, growing with length, would
    overshoot on long answers and miss on short ones. The paper writes the loss for whole
    sequences and does not discuss this.
    """
    h_B = _margin(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    return (h_B - 1 / (2 * beta)).square()


def hinge(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor, *, beta: float,
) -> torch.Tensor:  # fmt: skip
    """Hinge loss on the margin, shape [B].

        loss = max(0, 1 - beta h)

    Liu et al. 2023 (RSO, arXiv 2309.06657), the hinge-norm loss; the rank calibration term of
    Zhao et al. 2023 (SLiC-HF, arXiv 2305.10425) with the margin normalised by the reference.
    """
    h_B = _margin(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    return (1 - beta * h_B).relu()


def exo_pair(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor,
    *, beta: float, label_smoothing: float = 1e-3,
) -> torch.Tensor:  # fmt: skip
    """Efficient exact optimisation on pairs: a reverse KL between two coins, shape [B].

        p    = sigmoid(beta h)
        loss = p log(p / (1 - e)) + (1 - p) log((1 - p) / e)

    Ji et al. 2024 (arXiv 2402.00856), equation 16 with K = 2. The label (1 - e, e) must be
    smoothed, or the KL is infinite; the paper's default is e = 1e-3. The loss is least at
    p = 1 - e, and rises again beyond.
    """
    expect_positive("label_smoothing", label_smoothing)
    expect_between("label_smoothing", label_smoothing, 0.0, 0.5)
    margin_B = beta * _margin(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    chosen_B = logsigmoid(margin_B) - math.log1p(-label_smoothing)
    rejected_B = logsigmoid(-margin_B) - math.log(label_smoothing)
    return margin_B.sigmoid() * chosen_B + (-margin_B).sigmoid() * rejected_B


def nca_pair(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor, *, beta: float,
) -> torch.Tensor:  # fmt: skip
    """Noise-contrastive alignment on pairs, shape [B].

        loss = -log sigmoid(beta u_chosen)
               - (log sigmoid(-beta u_chosen) + log sigmoid(-beta u_rejected)) / 2

    Chen et al. 2024 (arXiv 2402.05369), the NCA loss with K = 2. It holds each answer's own
    likelihood near the reference, where DPO looks at the difference alone.
    """
    chosen_B, rejected_B = _ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    noise_B = logsigmoid(-beta * chosen_B) + logsigmoid(-beta * rejected_B)
    return -logsigmoid(beta * chosen_B) - noise_B / 2


def bco_pair(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor, *, beta: float, delta: float = 0.0,
) -> torch.Tensor:  # fmt: skip
    """Binary classifier optimisation on pairs, shape [B].

        loss = -log sigmoid(beta u_chosen - delta) - log sigmoid(-(beta u_rejected - delta))

    Jung et al. 2024 (arXiv 2404.04656). `delta` is the reward shift: the running mean of the
    rewards beta u of chosen and rejected answers alike, kept by the caller; 0 is no shift
    (TRL 1.16's bco_pair).
    """
    chosen_B, rejected_B = _ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    return -logsigmoid(beta * chosen_B - delta) - logsigmoid(delta - beta * rejected_B)


def sppo_hard(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor, *, beta: float,
) -> torch.Tensor:  # fmt: skip
    """Self-play preference optimisation with hard labels, shape [B].

        loss = (u_chosen - 1 / (2 beta))^2 + (u_rejected + 1 / (2 beta))^2

    Wu et al. 2024 (arXiv 2405.00675), equation 4.7 with win rates of 1 and 0; beta is the paper's
    1 / eta, and its default is eta = 1000, so beta = 0.001.
    """
    chosen_B, rejected_B = _ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    return (chosen_B - 0.5 / beta).square() + (rejected_B + 0.5 / beta).square()


def aot(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor,
    *, beta: float, label_smoothing: float = 0.0,
) -> torch.Tensor:  # fmt: skip
    """Alignment by optimal transport on pairs, shape [B], from the lowest quantile up.

        d_i  = sort(policy_chosen - policy_rejected)_i - sort(ref_chosen - ref_rejected)_i
        loss = -(1 - e) log sigmoid(beta d) - e log sigmoid(-beta d)

    Melnyk et al. 2024 (arXiv 2406.05882), the paired form: the policy's margins as a distribution
    should dominate the reference's.

    The sort couples the whole batch: the caller must give all pairs of the optimizer step at once,
    for parts of it have other quantiles. Entry i belongs to no one pair, so it takes no pair
    weight.
    """
    expect_pairs(policy_chosen, policy_rejected, ref_chosen, ref_rejected)
    expect_positive("beta", beta)
    policy_B = (policy_chosen - policy_rejected).sort().values
    ref_B = (ref_chosen - ref_rejected).sort().values
    return _logistic(beta * (policy_B - ref_B), label_smoothing)


def aot_unpaired(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor,
    *, beta: float, label_smoothing: float = 0.0,
) -> torch.Tensor:  # fmt: skip
    """Alignment by optimal transport without pairs, shape [B], from the lowest quantile up.

        d_i  = sort(u_chosen)_i - sort(u_rejected)_i
        loss = -(1 - e) log sigmoid(beta d) - e log sigmoid(-beta d)

    Melnyk et al. 2024 (arXiv 2406.05882), the unpaired form: log-ratios of good answers should
    dominate those of bad ones. Both need the same number of answers, but entry i of the two need
    not answer the same prompt.

    The sort couples the whole batch, as in `aot`: give the whole optimizer step.
    """
    chosen_B, rejected_B = _ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    gap_B = chosen_B.sort().values - rejected_B.sort().values
    return _logistic(beta * gap_B, label_smoothing)


def apo_zero(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor, *, beta: float,
) -> torch.Tensor:  # fmt: skip
    """Anchored preference optimisation, chosen up and rejected down, shape [B], in (0, 2).

        loss = 1 - sigmoid(beta u_chosen) + sigmoid(beta u_rejected)

    D'Oosterlinck et al. 2024 (arXiv 2408.06266), equation 7, plus a constant that keeps it
    positive; for chosen answers better than the model's own. The paper's default is beta = 0.1.
    """
    chosen_B, rejected_B = _ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    return (-beta * chosen_B).sigmoid() + (beta * rejected_B).sigmoid()


def apo_down(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor, *, beta: float,
) -> torch.Tensor:  # fmt: skip
    """Anchored preference optimisation, chosen down and rejected further, shape [B], in (0, 2).

        loss = sigmoid(beta u_chosen) + 1 - sigmoid(beta h)

    D'Oosterlinck et al. 2024 (arXiv 2408.06266), equation 8, plus a constant that keeps it
    positive; for chosen answers worse than the model's own. The paper's default is beta = 0.1.
    """
    chosen_B, rejected_B = _ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    return (beta * chosen_B).sigmoid() + (-beta * (chosen_B - rejected_B)).sigmoid()


def discopop(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor, *, beta: float, temperature: float = 0.05,
) -> torch.Tensor:  # fmt: skip
    """Log-ratio modulated loss, a mixture of logistic and exponential, shape [B].

        m    = beta h,  w = sigmoid(m / temperature)
        loss = -(1 - w) log sigmoid(m) + w exp(-m)

    Lu et al. 2024 (DiscoPOP, arXiv 2406.08414), equation 5; the default temperature is the
    paper's. Not monotone: it dips below its value at m = 0 for slightly negative m.

    w exp(-m) is computed as exp(log w - m), which for a temperature below 1 cannot overflow.
    """
    expect_positive("temperature", temperature)
    margin_B = beta * _margin(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    scaled_B = margin_B / temperature
    exponential_B = (logsigmoid(scaled_B) - margin_B).exp()
    return exponential_B - (-scaled_B).sigmoid() * logsigmoid(margin_B)


def dpop(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor, *, beta: float, penalty: float = 50.0,
) -> torch.Tensor:  # fmt: skip
    """DPO-Positive: a chosen answer below the reference costs extra, shape [B].

        loss = -log sigmoid(beta (h - penalty max(0, ref_chosen - policy_chosen)))

    Pal et al. 2024 (Smaug, arXiv 2402.13228), equation 3; `penalty` is the paper's lambda. The
    paper's defaults are penalty = 50 and beta = 0.3.
    """
    expect_between("penalty", penalty, 0.0, math.inf)
    h_B = _margin(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    return -logsigmoid(beta * (h_B - penalty * (ref_chosen - policy_chosen).relu()))


def f_dpo(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor,
    *, beta: float, divergence: Divergence, alpha: float = 0.5,
) -> torch.Tensor:  # fmt: skip
    """DPO under another divergence from the reference, shape [B].

        loss = -log sigmoid(beta (f'(e^u_chosen) - f'(e^u_rejected)))

        reverse_kl   f'(e^u) = u + 1                        (this is `dpo`)
        forward_kl   f'(e^u) = -e^-u
        js           f'(e^u) = log 2 + log sigmoid(u)
        alpha        f'(e^u) = (1 - e^(-alpha u)) / alpha,  0 < alpha < 1

    Wang et al. 2023 (f-DPO, arXiv 2309.16240), table 1; constants cancel in the difference. In
    this parametrisation alpha to 0 is the reverse KL and alpha to 1 the forward KL; TRL 1.16
    counts the other way (its f_alpha_divergence_coef is 1 - alpha).

    Where the policy is so far below the reference that e^-u would overflow, the exponent is capped
    at 0.9 log(largest float), about 80 in float32: the loss stays finite, without a gradient from
    that answer.
    """
    chosen_B, rejected_B = _ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    margin_B = _f_prime(chosen_B, divergence, alpha) - _f_prime(rejected_B, divergence, alpha)
    return -logsigmoid(beta * margin_B)


def simpo(
    policy_chosen_mean: torch.Tensor, policy_rejected_mean: torch.Tensor,
    *, beta: float, gamma: float,
) -> torch.Tensor:  # fmt: skip
    """Simple preference optimisation: no reference, length-normalised, shape [B].

        loss = -log sigmoid(beta (policy_chosen_mean - policy_rejected_mean) - gamma)

    Meng et al. 2024 (arXiv 2405.14734), equation 6; `gamma` is the paper's target reward margin
    (not the ratio gamma / beta; TRL's simpo_gamma is the same number). The paper's ranges are
    beta 2.0 to 2.5 and gamma 0.3 to 1.6.

    Both arguments are means of log-probs over the answer's supervised tokens, float, shape [B].
    """
    expect_pairs(policy_chosen_mean, policy_rejected_mean)
    expect_positive("beta", beta)
    expect_between("gamma", gamma, 0.0, math.inf)
    return -logsigmoid(beta * (policy_chosen_mean - policy_rejected_mean) - gamma)


def orpo(
    policy_chosen_mean: torch.Tensor, policy_rejected_mean: torch.Tensor, *, beta: float
) -> torch.Tensor:
    """Odds-ratio preference optimisation: NLL of the chosen plus a log odds ratio, shape [B].

        log odds = mean - log(1 - exp(mean))
        loss     = -policy_chosen_mean - beta log sigmoid(log odds_chosen - log odds_rejected)

    Hong et al. 2024 (arXiv 2403.07691), equations 6 and 7; beta is the paper's lambda, 0.1 to 0.25
    in its experiments. No reference is used.

    Both arguments are means of log-probs over the answer's supervised tokens, float, shape [B]. A
    mean nearer to 0 than the float's epsilon, finer than a log-softmax resolves, counts as
    -epsilon in the odds.
    """
    expect_pairs(policy_chosen_mean, policy_rejected_mean)
    expect_positive("beta", beta)
    log_odds_B = _log_odds(policy_chosen_mean) - _log_odds(policy_rejected_mean)
    return -policy_chosen_mean - beta * logsigmoid(log_odds_B)


def cpo(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    *, beta: float, label_smoothing: float = 0.0,
) -> torch.Tensor:  # fmt: skip
    """Contrastive preference optimisation, its preference term alone, shape [B].

        m    = beta (policy_chosen - policy_rejected)
        loss = -(1 - e) log sigmoid(m) - e log sigmoid(-m)

    Xu et al. 2024 (arXiv 2401.08417), equation 3; the paper's default is beta = 0.1. Its NLL term
    on the chosen answer, with weight 1, is for the caller to add.
    """
    expect_pairs(policy_chosen, policy_rejected)
    expect_positive("beta", beta)
    return _logistic(beta * (policy_chosen - policy_rejected), label_smoothing)


def kto(
    policy: torch.Tensor,
    ref: torch.Tensor,
    label: torch.Tensor,
    kl: torch.Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> torch.Tensor:
    """Kahneman-Tversky optimisation on single answers, shape [B], in (0, weight).

        desirable    loss = desirable_weight   (1 - sigmoid(beta (u - kl)))
        undesirable  loss = undesirable_weight (1 - sigmoid(beta (kl - u)))

    Ethayarajh et al. 2024 (arXiv 2402.01306), equations 7 and 8; the paper's defaults are
    beta = 0.1 and weights of 1, or such that weight times count is alike on both sides.

    `label` is bool, shape [B], true for desirable. `kl` is a scalar tensor without gradient: the
    reference point, an estimate of KL(policy || ref) over the whole step, which the caller has
    clamped at 0 from below.
    """
    if kl.dim() != 0 or not kl.is_floating_point() or kl.requires_grad:
        raise ValueError(f"kl must be a detached float scalar, got {kl.dtype} {tuple(kl.shape)}")
    gain_B = beta * (_log_ratio(policy, ref, label, beta) - kl)
    return _weigh(gain_B, label, desirable_weight, undesirable_weight)


def apo_zero_unpaired(
    policy: torch.Tensor,
    ref: torch.Tensor,
    label: torch.Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> torch.Tensor:
    """`apo_zero` on single answers, shape [B]: `kto` with its reference point at 0.

        desirable    loss = desirable_weight   (1 - sigmoid(beta u))
        undesirable  loss = undesirable_weight sigmoid(beta u)

    D'Oosterlinck et al. 2024 (arXiv 2408.06266), the two terms of equation 7. `label` is bool,
    shape [B], true for desirable.
    """
    gain_B = beta * _log_ratio(policy, ref, label, beta)
    return _weigh(gain_B, label, desirable_weight, undesirable_weight)


def expect_pairs(*sums: torch.Tensor) -> None:
    """Raise unless all are float vectors of one shape [B]."""
    shape = sums[0].shape
    for tensor in sums:
        if tensor.dim() != 1 or tensor.shape != shape or not tensor.is_floating_point():
            described = [f"{t.dtype} {tuple(t.shape)}" for t in sums]
            raise ValueError(f"expected float vectors of one shape [B], got {described}")


def expect_between(name: str, value: float, low: float, high: float) -> None:
    """Raise unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, got {value}")


def expect_positive(name: str, value: float) -> None:
    """Raise unless 0 < value < inf."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")


def _ratios(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor, beta: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """(u_chosen, u_rejected), each [B], once shapes and beta are seen to be in order."""
    expect_pairs(policy_chosen, policy_rejected, ref_chosen, ref_rejected)
    expect_positive("beta", beta)
    return policy_chosen - ref_chosen, policy_rejected - ref_rejected


def _margin(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor, ref_rejected: torch.Tensor, beta: float,
) -> torch.Tensor:  # fmt: skip
    """h, not yet multiplied by beta, shape [B]."""
    chosen_B, rejected_B = _ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    return chosen_B - rejected_B


def _logistic(margin_B: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Cross-entropy of sigmoid(margin) with a label of 1 - label_smoothing, shape [B]."""
    expect_between("label_smoothing", label_smoothing, 0.0, 0.5)
    return -(1 - label_smoothing) * logsigmoid(margin_B) - label_smoothing * logsigmoid(-margin_B)


def _f_prime(u_B: torch.Tensor, divergence: Divergence, alpha: float) -> torch.Tensor:
    """f'(e^u) less the divergence's constant, shape [B]."""
    if divergence == "reverse_kl":
        return u_B
    if divergence == "js":
        return logsigmoid(u_B)
    if divergence == "forward_kl":
        alpha = 1.0
    elif divergence != "alpha":
        raise ValueError(f"unknown divergence {divergence!r}")
    elif not 0 < alpha < 1:
        raise ValueError(f"alpha must be above 0 and below 1, got {alpha}")
    cap = 0.9 * math.log(torch.finfo(u_B.dtype).max)  # leaves room for the factors beta and 1/alpha
    return -(-alpha * u_B).clamp(max=cap).expm1() / alpha


def _log_odds(mean_B: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) for p = exp(mean), shape [B]."""
    below_B = mean_B.clamp(max=-torch.finfo(mean_B.dtype).eps)
    return below_B - (-below_B.expm1()).log()


def _log_ratio(
    policy: torch.Tensor, ref: torch.Tensor, label: torch.Tensor, beta: float
) -> torch.Tensor:
    """u of labelled answers, shape [B], once shapes and beta are seen to be in order."""
    expect_pairs(policy, ref)
    expect_positive("beta", beta)
    if label.dtype != torch.bool or label.shape != policy.shape:
        raise ValueError(f"label must be bool [B], got {label.dtype} {tuple(label.shape)}")
    return policy - ref


def _weigh(
    gain_B: torch.Tensor, label: torch.Tensor, desirable_weight: float, undesirable_weight: float
) -> torch.Tensor:
    """weight (1 - sigmoid(gain)) where desirable, weight sigmoid(gain) where not, shape [B]."""
    expect_between("desirable_weight", desirable_weight, 0.0, math.inf)
    expect_between("undesirable_weight", undesirable_weight, 0.0, math.inf)
    desirable_B = desirable_weight * (-gain_B).sigmoid()
    return torch.where(label, desirable_B, undesirable_weight * gain_B.sigmoid())
