"""What tells the liked answer without reading it: its length, and how it is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.curate.check.families.features import FEATURES, measured
from strop.curate.check.finding import EXAMPLES, Finding, Section, finding
from strop.curate.check.ledger import Ledger, asks, column, hashed, said
from strop.curate.check.survey import Survey, quantiles
from strop.stats.multiple import holm
from strop.stats.ranking import Ranking, paired_ranking, ranking
from strop.types import Feedback, Origin, Preference

BALANCED = (0.4, 0.6)
"""Areas under the curve within which a number tells little of the label."""
LEVEL = 0.01
"""Of the p-values after Holm, over all features: the chance of one false alarm or more."""
RARELY, MOSTLY = 0.05, 0.85
"""Share of pairs that have to differ, and of those the share won, of a shortcut."""
AT_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

Floats = NDArray[np.float64]


def length(survey: Survey) -> Section:
    """Characters of liked against disliked answers, over all rows, and what they tell alone."""
    ledger = survey.ledger
    figures: dict[str, Any] = {}
    found: list[Finding] = []
    for kind, measure in (("preference", _of_pairs), ("feedback", _of_thumbs)):
        rows = ledger.of_kind(kind)
        compared = measure(ledger, rows) if len(rows) else None
        if compared is None:
            continue
        liked, disliked, ranked, unlike = compared
        figures[kind] = {
            "apart": _apart(liked, disliked) if kind == "preference" else None,
            "median_liked": float(np.median(liked)),
            "median_disliked": float(np.median(disliked)),
            "liked_quantiles": quantiles(liked.tolist(), AT_QUANTILES),
            "disliked_quantiles": quantiles(disliked.tolist(), AT_QUANTILES),
            "auc": plain_ranking(ranked),
        }
        if _is_bias(ranked):
            which = "longer" if ranked.auc > 0.5 else "shorter"
            text = (
                f"length alone tells the {'chosen' if kind == 'preference' else 'liked'} answer: "
                f"AUC {interval(ranked)}, the {which} one wins"
            )
            places = ledger.origins(unlike[:5].tolist())
            found.append(finding("length_bias", "warn", text, len(rows), places))
    return Section("length", figures, tuple(found))


def _apart(chosen: Floats, rejected: Floats) -> float:
    """By what share of the longer answer the two of a pair differ in length: the pairs' median."""
    return float(np.median(np.abs(chosen - rejected) / np.maximum(1, np.maximum(chosen, rejected))))


Measured = tuple[Floats, Floats, Ranking, NDArray[np.intp]]


def _of_pairs(ledger: Ledger, rows: NDArray[np.intp]) -> Measured:
    """Lengths of both sides, the ranking, the rows whose lengths differ most first."""
    chosen = column(ledger.first_lengths)[rows].astype(float)
    rejected = column(ledger.second_lengths)[rows].astype(float)
    ranked = paired_ranking(chosen, rejected, clusters_of(column(ledger.prompts)[rows]))
    sign = 1 if ranked.auc > 0.5 else -1
    return chosen, rejected, ranked, rows[np.argsort(-sign * (chosen - rejected), kind="stable")]


def _of_thumbs(ledger: Ledger, rows: NDArray[np.intp]) -> Measured | None:
    lengths = column(ledger.first_lengths)[rows].astype(float)
    liked = column(ledger.labels)[rows] == 1
    if liked.all() or not liked.any():
        return None
    ranked = ranking(lengths, liked, clusters_of(column(ledger.prompts)[rows]))
    sign = 1 if ranked.auc > 0.5 else -1
    order = np.argsort(np.where(liked, -sign, sign) * lengths, kind="stable")
    return lengths[liked], lengths[~liked], ranked, rows[order]


def clusters_of(values: NDArray[Any]) -> NDArray[np.intp]:
    """Numbers from 0 for equal values."""
    return np.unique(values, return_inverse=True)[1]


def style(survey: Survey) -> Section:
    """Every feature as a classifier of its own, of the sampled pairs or thumbs."""
    records = survey.sample.records()
    pairs = [record for record in records if isinstance(record, Preference)]
    thumbs = [record for record in records if isinstance(record, Feedback)]
    both_labels = len({record.label for record in thumbs}) == 2
    if not pairs and not both_labels:
        return Section("style", {})
    if len(pairs) >= len(thumbs) or not both_labels:
        rankings, origins, of = *_style_of_pairs(pairs), "pairs"
    else:
        rankings, origins, of = *_style_of_thumbs(thumbs), "answers"
    tested = {name: one for name, one in rankings.items() if one.p_value is not None}
    adjusted = dict(zip(tested, holm([one.p_value or 0.0 for one in tested.values()]), strict=True))
    figures = {
        "compared": len(pairs) if of == "pairs" else len(thumbs),
        "of": of,
        "features": {
            name: plain_ranking(one) | {"p_adjusted": adjusted.get(name)}
            for name, one in rankings.items()
        },
    }
    found = [
        made
        for name, one in rankings.items()
        if adjusted.get(name, 1.0) < LEVEL
        and (made := _style_finding(name, one, origins[name])) is not None
    ]
    return Section("style", figures, tuple(found))


def _style_finding(name: str, one: Ranking, places: Sequence[Origin]) -> Finding | None:
    # of the pairs that differ, the share in which the liked side has more of it
    won = 0.5 + (one.auc - 0.5) / one.differ if one.differ else 0.5
    count = round(one.differ * one.n)
    which = "more" if one.auc > 0.5 else "less"
    if not BALANCED[0] <= one.auc <= BALANCED[1]:
        text = f"'{name}' alone tells the liked answer: AUC {interval(one)}, {which} of it wins"
        return finding("style_bias", "warn", text, count, places)
    if one.differ >= RARELY and max(won, 1 - won) >= MOSTLY:
        text = (
            f"'{name}' differs in {one.differ:.0%} of the comparisons, and where it does, the side "
            f"with {which} of it wins in {max(won, 1 - won):.0%}"
        )
        return finding("style_shortcut", "info", text, count, places)
    return None


Measures = tuple[dict[str, Ranking], dict[str, list[Origin]]]


def _style_of_pairs(pairs: Sequence[Preference]) -> Measures:
    liked = np.array([measured(said(pair.chosen)) for pair in pairs])
    other = np.array([measured(said(pair.rejected)) for pair in pairs])
    clusters = _prompts(pairs)
    rankings, places = {}, {}
    for n, name in enumerate(FEATURES):
        one = rankings[name] = paired_ranking(liked[:, n], other[:, n], clusters)
        gap = (liked - other)[:, n] if one.auc > 0.5 else (other - liked)[:, n]
        places[name] = [pairs[i].origin for i in np.argsort(-gap, kind="stable")[:EXAMPLES]]
    return rankings, places


def _style_of_thumbs(thumbs: Sequence[Feedback]) -> Measures:
    values = np.array([measured(said(thumb.completion)) for thumb in thumbs])
    labels = np.array([thumb.label for thumb in thumbs])
    clusters = _prompts(thumbs)
    rankings, places = {}, {}
    for n, name in enumerate(FEATURES):
        one = rankings[name] = ranking(values[:, n], labels, clusters)
        gap = np.where(labels == (one.auc > 0.5), values[:, n], -values[:, n])
        places[name] = [thumbs[i].origin for i in np.argsort(-gap, kind="stable")[:EXAMPLES]]
    return rankings, places


def _prompts(records: Sequence[Preference] | Sequence[Feedback]) -> NDArray[np.intp]:
    asked = [hashed(asks(record.prompt)) for record in records]
    return clusters_of(np.array(asked, dtype=np.uint64))


def _is_bias(one: Ranking) -> bool:
    """Outside the bounds, and surely not by chance."""
    sure = one.p_value is not None and one.p_value < LEVEL
    return sure and not BALANCED[0] <= one.auc <= BALANCED[1]


def interval(one: Ranking) -> str:
    """`0.713 (0.692 to 0.734)`."""
    if one.low is None or one.high is None:
        return f"{one.auc:.3f} (too few prompts for an interval)"
    return f"{one.auc:.3f} ({one.low:.3f} to {one.high:.3f})"


def plain_ranking(one: Ranking) -> dict[str, Any]:
    """As JSON."""
    return {"auc": one.auc, "low": one.low, "high": one.high, "p_value": one.p_value,
            "n": one.n, "differ": one.differ}  # fmt: skip
