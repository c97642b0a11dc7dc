"""One function a paper: float32 tensors of one weight of several models in, the blended one out.

Shapes: every tensor of a call has the same shape, any shape. A *task vector* is what fine-tuning
added to the base, `tuned - base`. Nothing here reads a file or draws from a global generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

NEARLY_PARALLEL = 1e-4
"""Sine of the angle below which SLERP divides by too small a number; the line is the same there."""


def soup(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """A uniform soup: `(1 / n) sum_i w_i`.

    Wortsman et al. 2022, "Model soups" (arXiv 2203.05482), section 2, uniform soup.
    """
    return linear(tensors, [1.0 / len(tensors)] * len(tensors))


def linear(tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """The weighted sum `sum_i a_i w_i`, where the `a_i` sum to one (an `a_i` may be negative).

    For two models this is the line between them: Wortsman et al. 2021, "Robust fine-tuning of
    zero-shot models" (WiSE-FT, arXiv 2109.01903), equation 1.
    """
    total = torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        if weight != 0:  # a model that does not count may hold anything, and costs nothing
            total = total + weight * tensor
    return total


def slerp(one: torch.Tensor, other: torch.Tensor, share: float) -> torch.Tensor:
    """Along the great circle between two directions, `share` of the way from `one` to `other`:

    `sin((1 - t) o) / sin(o) w_1 + sin(t o) / sin(o) w_2`, with `o` the angle between the two
    tensors as vectors. Where they are nearly parallel, opposite or zero, the straight line.
    Shoemake 1985, "Animating rotation with quaternion curves", section 3.3.
    """
    first, second = one.double(), other.double()  # float32 cannot tell small angles apart
    lengths = float(first.norm() * second.norm())
    cosine = float((first * second).sum()) / lengths if lengths > 0 else 1.0
    angle = math.acos(min(1.0, max(-1.0, cosine)))
    if math.sin(angle) < NEARLY_PARALLEL:
        return linear([one, other], [1 - share, share])
    shares = [math.sin((1 - share) * angle), math.sin(share * angle)]
    return linear([one, other], [part / math.sin(angle) for part in shares])


def task_arithmetic(
    base: torch.Tensor, vectors: Sequence[torch.Tensor], scales: Sequence[float]
) -> torch.Tensor:
    """The base and its scaled task vectors: `w_0 + sum_i s_i t_i`. A negative scale takes a task
    away.

    Ilharco et al. 2022, "Editing models with task arithmetic" (arXiv 2212.04089), section 2.
    """
    return base + linear(vectors, scales)


def trimmed(vector: torch.Tensor, threshold: float) -> torch.Tensor:
    """The values of a task vector that are at least `threshold` in size, zero for the others.

    The first step of TIES (arXiv 2306.01708, algorithm 1): `threshold` is the size of the smallest
    value that is kept of the *whole* model's task vector (`strop.model.blend.trim`).
    """
    return torch.where(vector.abs() >= threshold, vector, 0.0)


def elected(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean, value by value, of those vectors that have the sign of the sum of all.

    `g = sign(sum_i t_i)`, then the mean of the `t_i` with `sign(t_i) = g`; zero where all are zero
    or cancel. The second and third step of TIES (arXiv 2306.01708, algorithm 1: elect, disjoint
    merge).
    """
    sign = torch.sign(sum(vectors[1:], vectors[0]))
    total, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for vector in vectors:
        agrees = (torch.sign(vector) == sign) & (sign != 0)
        total = total + torch.where(agrees, vector, 0.0)
        count = count + agrees
    return total / count.clamp(min=1)


def ties(
    base: torch.Tensor,
    vectors: Sequence[torch.Tensor],
    scales: Sequence[float],
    thresholds: Sequence[float],
) -> torch.Tensor:
    """Trim, elect signs, and average what agrees: `w_0 + elected(s_i trimmed(t_i))`.

    With one scale `s` for all this is the paper's `w_0 + s elected(trimmed(t_i))`; other scales
    give the tasks more or less of a say in the signs and in the mean. Yadav et al. 2023,
    "TIES-Merging" (arXiv 2306.01708), algorithm 1; the paper keeps 20 % of the values.
    """
    kept = [trimmed(vector, low) for vector, low in zip(vectors, thresholds, strict=True)]
    return base + elected([scale * vector for scale, vector in zip(scales, kept, strict=True)])


def dropped(vector: torch.Tensor, drop: float, generator: torch.Generator) -> torch.Tensor:
    """Drop each value of a task vector with probability `drop`, divide the others by `1 - drop`:
    the expected value stays.

    Yu et al. 2023, "Language models are super Mario" (DARE, arXiv 2311.03099), section 3.2.
    """
    kept = torch.rand(vector.shape, generator=generator) >= drop
    return torch.where(kept, vector / (1 - drop), 0.0)


def dare(
    base: torch.Tensor,
    vectors: Sequence[torch.Tensor],
    scales: Sequence[float],
    drop: float,
    generators: Sequence[torch.Generator],
) -> torch.Tensor:
    """Task arithmetic on task vectors of which most values were dropped: `w_0 + sum_i s_i d_i`.

    Yu et al. 2023 (arXiv 2311.03099), section 3.3, with task arithmetic; `dropped` has the rest.
    """
    return task_arithmetic(base, _dropped(vectors, drop, generators), scales)


def dare_ties(
    base: torch.Tensor,
    vectors: Sequence[torch.Tensor],
    scales: Sequence[float],
    drop: float,
    generators: Sequence[torch.Generator],
) -> torch.Tensor:
    """DARE's dropping in the place of TIES's trimming, then its election: `w_0 + elected(s_i d_i)`.

    Yu et al. 2023 (arXiv 2311.03099), section 3.3, with TIES-Merging (arXiv 2306.01708). Values are
    dropped at random or trimmed by size, not both.
    """
    kept = _dropped(vectors, drop, generators)
    return base + elected([scale * vector for scale, vector in zip(scales, kept, strict=True)])


def _dropped(
    vectors: Sequence[torch.Tensor], drop: float, generators: Sequence[torch.Generator]
) -> list[torch.Tensor]:
    pairs = zip(vectors, generators, strict=True)
    return [dropped(vector, drop, generator) for vector, generator in pairs]
