"""How far annotators agree, and how many labels are wrong by that."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations
from typing import Any

from strop.curate.check.finding import Section, finding
from strop.curate.check.survey import Annotations, Pattern
from strop.errors import UsageError
from strop.stats.agreement import (
    Label,
    Scale,
    alpha_of_patterns,
    cohen_kappa,
    fleiss_kappa,
    label_noise,
    majority_noise,
    observed_agreement,
)

TENTATIVE = 0.667
"""Krippendorff's alpha from which labels serve for tentative conclusions (Krippendorff 2004,
Content Analysis, section 11.4.2)."""
NOISY = 0.1
"""Share of wrong labels from which a preference loss should know of them."""
FEWEST = 20
"""Items with two labels below which nothing is said of their agreement."""


def agreement(annotations: Annotations, scale: Scale) -> Section:
    """Pairwise agreement and kappa, Fleiss' kappa where no label is missing, alpha, noise."""
    if not annotations.names:
        return Section("annotators", {})
    patterns = annotations.patterns
    if not patterns:
        raise UsageError(
            f"no row has a label in {', '.join(annotations.names)}",
            fix="give the columns that hold the annotators' labels to --annotators",
        )
    _expect_numbers(patterns, scale)
    width = max(map(len, patterns))
    names = annotations.names if width == len(annotations.names) else range(1, width + 1)
    several = Counter({p: n for p, n in patterns.items() if sum(x is not None for x in p) > 1})
    items, different = several.total(), len({x for p in patterns for x in p if x is not None})
    alpha = alpha_of_patterns(patterns, scale)
    pairwise = {
        f"{one} / {other}": measured
        for (i, one), (j, other) in combinations(enumerate(map(str, names)), 2)
        if (measured := _pair(patterns, i, j)) is not None
    }
    agreeing = _mean_agreement(several)
    noise = None if agreeing is None else label_noise(agreeing, different)
    figures: dict[str, Any] = {
        "items": items,
        "annotators": width,
        "labels": different,
        "scale": scale,
        "pairs": pairwise,
        "fleiss_kappa": _fleiss(patterns),
        "krippendorff_alpha": alpha,
        "agreement": agreeing,
        "label_noise": noise,
        "majority_noise": majority_noise(noise, width) if noise and different == 2 else None,
    }
    if items < FEWEST or alpha is None or noise is None:
        return Section("annotators", figures)
    found = []
    if alpha < TENTATIVE:
        text = f"annotators agree little beyond chance: Krippendorff's alpha {alpha:.3f} ({scale})"
        found.append(finding("annotator_agreement", "warn", text, items))
    if noise >= NOISY:
        text = (
            f"two annotators agree on {agreeing:.1%} of the items, so about {noise:.1%} of single "
            "labels are wrong"
        )
        found.append(finding("label_noise", "warn", text, round(noise * items)))
    return Section("annotators", figures, tuple(found))


def _expect_numbers(patterns: Counter[Pattern], scale: Scale) -> None:
    if scale == "nominal":
        return
    for label in {label for pattern in patterns for label in pattern if label is not None}:
        if not _is_number(str(label)):
            raise UsageError(
                "the labels of the annotators are not all numbers, so they have no order",
                fix="drop --scale (labels are then compared as equal or different)",
            )


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False


def _pair(patterns: Counter[Pattern], i: int, j: int) -> dict[str, Any] | None:
    """Agreement and kappa of two annotators over the items that both labelled."""
    mine: list[Label] = []
    yours: list[Label] = []
    for pattern, count in patterns.items():
        if len(pattern) > j and pattern[i] is not None and pattern[j] is not None:
            mine += [pattern[i]] * count
            yours += [pattern[j]] * count
    if not mine:
        return None
    return {
        "items": len(mine),
        "agreement": observed_agreement(mine, yours),
        "kappa": cohen_kappa(mine, yours),
    }


def _mean_agreement(several: Counter[Pattern]) -> float | None:
    """The chance that two labels of one item are the same: items count alike."""
    if not several:
        return None
    shares = []
    for pattern, count in several.items():
        held = Counter(label for label in pattern if label is not None)
        m = held.total()
        shares.append(count * sum(k * (k - 1) for k in held.values()) / (m * (m - 1)))
    return sum(shares) / several.total()


def _fleiss(patterns: Counter[Pattern]) -> float | None:
    """`None` where labels are missing."""
    complete = all(None not in pattern for pattern in patterns)
    if not complete or len({len(pattern) for pattern in patterns}) > 1:
        return None
    if len(next(iter(patterns))) < 2:
        return None
    return fleiss_kappa([pattern for pattern, count in patterns.items() for _ in range(count)])
