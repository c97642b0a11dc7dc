"""Pairs whose answers are nearly the same: what a preference loss lowers with the rejected one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from strop.curate.check.finding import Section, finding, graded
from strop.curate.check.ledger import said
from strop.curate.check.survey import SAMPLED, Survey, quantiles, share
from strop.text.distance import edit_distance
from strop.types import Preference

NEAR = 0.1
"""Normalised edit distance below which two answers are nearly one."""
NEAR_SHARE = 0.02
"""Share of such pairs from which a run is at risk."""
BINS = 20

Ches = Callable[[Sequence[Preference]], Sequence[float | None]]
"""The CHES score of each pair under some model (strop.curate.displacement), `None` where the model
cannot read the pair."""
CHES_PAIRS = 256
"""Pairs of the sample that the model reads."""
CHES_SHARE = 0.1
"""Share of pairs at or above the CHES of two equal answers (0) from which a run is at risk."""


def near_identical(survey: Survey) -> Section:
    """The edit distance of the sampled pairs' answers."""
    pairs = [one for one in survey.sample.records() if isinstance(one, Preference)]
    if not pairs:
        return Section("likeness", {})
    distances = [edit_distance(said(one.chosen), said(one.rejected)) for one in pairs]
    near = sorted((d, place) for place, d in enumerate(distances) if d < NEAR)
    figures = {
        "compared": len(pairs),
        "near_identical": len(near),
        "distance_quantiles": quantiles(distances, (0.05, 0.25, 0.5, 0.75, 0.95)),
        "histogram": np.histogram(distances, BINS, (0.0, 1.0))[0].tolist(),
    }
    if not near:
        return Section("likeness", figures)
    part = share(len(near), len(pairs))
    drawn = " drawn" if len(pairs) == SAMPLED else ""
    text = (
        f"the answers of {len(near):,} of {len(pairs):,}{drawn} pairs ({part:.1%}) are nearly the "
        f"same (edit distance below {NEAR:g})"
    )
    places = [pairs[place].origin for _, place in near[:5]]
    severity = graded(part, NEAR_SHARE)
    return Section(
        "likeness", figures, (finding("near_identical_pairs", severity, text, len(near), places),)
    )


def alike_to_the_model(survey: Survey, ches: Ches | None) -> Section:
    """How alike the answers are to the model's hidden states, for a few pairs of the sample.

    Razin et al. 2024 (arXiv 2410.08847): the higher CHES, the more a pair lowers its own chosen
    answer. It has no scale of its own, but two equal answers have 0.
    """
    pairs = [one for one in survey.sample.records() if isinstance(one, Preference)]
    if ches is None or not pairs:
        return Section("ches", {})
    every = max(1, len(pairs) // CHES_PAIRS)
    drawn = pairs[::every][:CHES_PAIRS]
    scored = [(pair, score) for pair, score in zip(drawn, ches(drawn), strict=True)]
    read = [pair for pair, score in scored if score is not None]
    scores = [score for _, score in scored if score is not None]
    order = sorted(range(len(read)), key=lambda place: -scores[place])
    high = sum(score >= 0 for score in scores)
    figures: dict[str, Any] = {
        "pairs": len(read),
        "quantiles": quantiles(scores, (0.05, 0.25, 0.5, 0.75, 0.95)),
        "at_or_above_0": high,
        "highest": [
            {"row": str(read[place].origin), "ches": scores[place]} for place in order[:10]
        ],
    }
    if share(high, len(read)) < CHES_SHARE:
        return Section("ches", figures)
    text = (
        f"{high} of {len(read)} pairs are to the model as alike as two equal answers, or more "
        "(CHES at or above 0)"
    )
    places = [read[place].origin for place in order[:5]]
    return Section("ches", figures, (finding("displacement_ches", "warn", text, high, places),))
