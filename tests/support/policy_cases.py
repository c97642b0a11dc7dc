"""Two answers, of two and three tokens, under a policy that moved since they were sampled: some
ratios lie inside the bounds, some outside on either side.
"""

from __future__ import annotations

import torch

from strop.losses.presets import PolicyTokens
from strop.losses.reduce import StepCounts


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def gradient(value: torch.Tensor, of: torch.Tensor) -> list[float]:
    (grad,) = torch.autograd.grad(value.sum(), of)
    return grad.tolist()


LENGTHS = (2, 3)


BRANCH = torch.tensor([0, 0, 1, 1, 1])


MOVES = ((0.1, 0.6), (-0.7, 0.05, 1.8))
"""log ratios: 1.11 and 1.82; 0.50, 1.05 and 6.05 as ratios"""


OLD = ((-1.0, -2.0), (-0.5, -1.5, -3.0))


REF = ((-1.1, -0.9), (-1.6, -1.4, -2.0))


SIGNS = [(2.0, -1.5), (-2.0, 1.5)]


COUNTS = StepCounts(sequences=3, tokens=9, max_length=7)
"""of the whole step: one more answer, of four tokens, is not in the batch"""


Answers = tuple[tuple[float, ...], ...]


def flat(answers: Answers) -> torch.Tensor:
    return vector(*(x for answer in answers for x in answer))


def case(advantages: tuple[float, float], moves: Answers = MOVES) -> PolicyTokens:
    """The two answers; `logprobs_N` is a leaf."""
    return PolicyTokens(
        logprobs_N=(flat(OLD) + flat(moves)).requires_grad_(),
        old_N=flat(OLD),
        ref_N=flat(REF),
        advantage_N=vector(*advantages).repeat_interleave(torch.tensor(LENGTHS)),
        branch_N=BRANCH,
        entropy_N=vector(0.3, 0.8, 0.1, 0.6, 0.9),
    )


def reduced(answers: list[list[float]], denominator: str) -> float:
    total = sum(sum(answer) for answer in answers)
    return {
        "sequence_mean": sum(sum(answer) / len(answer) for answer in answers) / 3,
        "sequence_sum": total / 3,
        "token_mean": total / 9,
        "constant": total / (3 * 7),
    }[denominator]
