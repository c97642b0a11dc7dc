"""Distillation losses: how far a student's distribution over tokens is from a teacher's.

Divergences take log-probs of shape [N, V] of the same outcomes (whole vocabularies, or what
`lumped` makes of them), float, and return one value a token, nats, shape [N], without reduction.
The student has a gradient; the teacher should have none. p is the teacher, q the student.
Policy-gradient forms take log-probs of sampled tokens, shape [N].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from strop.advantages import to_go

Divergence = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(student_NV, teacher_NV) -> [N]."""


def forward_kl(student_NV: torch.Tensor, teacher_NV: torch.Tensor) -> torch.Tensor:
    """KL(p || q) = sum_v p(v) (log p(v) - log q(v)), shape [N].

    Hinton et al. 2015 (arXiv 1503.02531): the student covers all that the teacher may say.
    """
    _expect_alike(student_NV, teacher_NV)
    return _kl(teacher_NV, student_NV)


def reverse_kl(student_NV: torch.Tensor, teacher_NV: torch.Tensor) -> torch.Tensor:
    """KL(q || p) = sum_v q(v) (log q(v) - log p(v)), shape [N].

    Gu et al. 2023 (MiniLLM, arXiv 2306.08543, equation 1), token by token: the student keeps to
    what the teacher finds likely. The gradient goes through q(v) as well.
    """
    _expect_alike(student_NV, teacher_NV)
    return _kl(student_NV, teacher_NV)


def generalized_js(
    student_NV: torch.Tensor, teacher_NV: torch.Tensor, *, beta: float = 0.5
) -> torch.Tensor:
    """Generalised Jensen-Shannon divergence, shape [N].

        m = beta p + (1 - beta) q
        JSD(beta) = beta KL(p || m) + (1 - beta) KL(q || m)

    Agarwal et al. 2023 (GKD, arXiv 2306.13649, equation 1). At beta 0 and 1 this formula is 0; as
    in TRL's GKD those values mean the limits of JSD / beta and JSD / (1 - beta): the forward and
    the reverse KL.
    """
    _expect_alike(student_NV, teacher_NV)
    _expect_share(beta, "beta")
    if beta == 0:
        return _kl(teacher_NV, student_NV)
    if beta == 1:
        return _kl(student_NV, teacher_NV)
    mixed_NV = _mixed(teacher_NV, student_NV, beta)
    return beta * _kl(teacher_NV, mixed_NV) + (1 - beta) * _kl(student_NV, mixed_NV)


def skewed_forward_kl(
    student_NV: torch.Tensor, teacher_NV: torch.Tensor, *, alpha: float = 0.1
) -> torch.Tensor:
    """KL(p || alpha p + (1 - alpha) q), shape [N]; alpha 0 is the forward KL.

    Ko et al. 2024 (DistiLLM, arXiv 2402.03898, section 3.1), alpha 0.1 there: the share of the
    teacher bounds the loss, and the gradient, of tokens to which the student gives nothing.
    """
    _expect_alike(student_NV, teacher_NV)
    _expect_share(alpha, "alpha")
    return _kl(teacher_NV, _mixed(teacher_NV, student_NV, alpha))


def skewed_reverse_kl(
    student_NV: torch.Tensor, teacher_NV: torch.Tensor, *, alpha: float = 0.1
) -> torch.Tensor:
    """KL(q || (1 - alpha) p + alpha q), shape [N]; alpha 0 is the reverse KL.

    Ko et al. 2024 (DistiLLM, arXiv 2402.03898, section 3.1), alpha 0.1 there.
    """
    _expect_alike(student_NV, teacher_NV)
    _expect_share(alpha, "alpha")
    return _kl(student_NV, _mixed(student_NV, teacher_NV, alpha))


def lumped(logprobs_NV: torch.Tensor, ids_NK: torch.Tensor) -> torch.Tensor:
    """Log-probs of K tokens of each row, and of all others as one outcome, shape [N, K + 1].

    The last column is the log of what the others have together, summed over them and not taken as
    1 minus the rest, so that a small tail keeps its digits. A divergence of two lumped
    distributions is at most that of the whole ones (data processing).
    """
    if ids_NK.dim() != 2 or ids_NK.shape[0] != logprobs_NV.shape[0]:
        raise ValueError(f"ids must be [N, K], got {tuple(ids_NK.shape)}")
    if not 0 < ids_NK.shape[1] < logprobs_NV.shape[1]:
        raise ValueError(f"K {ids_NK.shape[1]} leaves no tail of {logprobs_NV.shape[1]} tokens")
    kept_NK = logprobs_NV.gather(1, ids_NK)
    rest_NV = logprobs_NV.scatter(1, ids_NK, float("-inf"))
    return torch.cat([kept_NK, torch.logsumexp(rest_NV, -1, keepdim=True)], 1)


def on_policy_distil(
    student_N: torch.Tensor,
    teacher_N: torch.Tensor,
    lengths: Sequence[int],
    *,
    discount: float = 0.0,
) -> torch.Tensor:
    """Advantages of sampled tokens from the teacher's log-probs of them, detached, shape [N].

        r_t = log p(y_t) - log q(y_t)        A_t = r_t + discount A_{t+1}

    With discount 0, E_q[A_t grad log q] is minus the gradient of the reverse KL at that position,
    the prefix being the student's own (Agarwal et al. 2023, arXiv 2306.13649, section 3; Thinking
    Machines 2025, "On-Policy Distillation"). With discount 1 it also counts where a token leads:
    the gradient of the reverse KL of whole answers (MiniLLM, arXiv 2306.08543, equation 2).
    `lengths` are the tokens of each answer, end to end.
    """
    _expect_tokens(student_N, teacher_N, lengths)
    _expect_share(discount, "discount")
    rewards_N = (teacher_N - student_N).detach()
    if discount == 0:
        return rewards_N
    if discount == 1:
        return to_go(rewards_N, lengths)
    return torch.cat([_discounted(row, discount) for row in rewards_N.split(list(lengths))])


def minillm(
    student_N: torch.Tensor,
    teacher_N: torch.Tensor,
    lengths: Sequence[int],
    *,
    length_normalized: bool = True,
) -> torch.Tensor:
    """What MiniLLM's long-range part gives each sampled token, detached, shape [N].

        R_{t+1} = sum_{s > t} log p(y_s) - log q(y_s)
        normalised: R_{t+1} / (T - t), the mean over the tokens that follow; 0 for the last one

    Gu et al. 2023 (arXiv 2306.08543, equations 3 and 6). The whole gradient is that of
    `reverse_kl` at every position (the single-step part, exact over the vocabulary) plus the
    policy gradient with these advantages (the long part), each token weighed by q / p~ where
    tokens were drawn from the mixture p~ = alpha p + (1 - alpha) q (equations 4 and 5). The paper
    divides by T - t - 1; T - t tokens follow token t counted from 1, so their mean is meant.
    """
    _expect_tokens(student_N, teacher_N, lengths)
    rewards_N = (teacher_N - student_N).detach()
    after_N = to_go(rewards_N, lengths) - rewards_N
    if not length_normalized:
        return after_N
    left = [torch.arange(length - 1, -1, -1) for length in lengths]
    left_N = torch.cat([torch.zeros(0, dtype=torch.long), *left]).to(after_N.device)
    return after_N / left_N.clamp(min=1)


def _kl(one_NV: torch.Tensor, other_NV: torch.Tensor) -> torch.Tensor:
    return (one_NV.exp() * (one_NV - other_NV)).sum(-1)


def _mixed(one_NV: torch.Tensor, other_NV: torch.Tensor, share: float) -> torch.Tensor:
    """log(share exp(one) + (1 - share) exp(other))."""
    if share == 0:
        return other_NV
    if share == 1:
        return one_NV
    of = torch.tensor([share, 1 - share], dtype=torch.float64).log().tolist()
    return torch.logaddexp(one_NV + of[0], other_NV + of[1])


def _discounted(rewards_T: torch.Tensor, discount: float) -> torch.Tensor:
    """Sum of the rewards from each place on, those further away counting less."""
    running = rewards_T.new_zeros(())
    values = []
    for reward in rewards_T.flip(0).unbind():
        running = reward + discount * running
        values.append(running)
    return torch.stack(values[::-1]) if values else rewards_T


def _expect_alike(student_NV: torch.Tensor, teacher_NV: torch.Tensor) -> None:
    if student_NV.dim() != 2 or student_NV.shape != teacher_NV.shape:
        raise ValueError(
            f"log-probs must be [N, V] of the same outcomes, got {tuple(student_NV.shape)} and "
            f"{tuple(teacher_NV.shape)}"
        )
    if not (student_NV.is_floating_point() and teacher_NV.is_floating_point()):
        raise ValueError(f"log-probs must be float, not {student_NV.dtype}, {teacher_NV.dtype}")


def _expect_tokens(
    student_N: torch.Tensor, teacher_N: torch.Tensor, lengths: Sequence[int]
) -> None:
    if student_N.dim() != 1 or student_N.shape != teacher_N.shape:
        raise ValueError(
            f"log-probs must be [N], got {tuple(student_N.shape)} and {tuple(teacher_N.shape)}"
        )
    if sum(lengths) != len(student_N):
        raise ValueError(f"answers of {sum(lengths)} tokens, log-probs of {len(student_N)}")


def _expect_share(value: float, name: str) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a share from 0 to 1, not {value:g}")
