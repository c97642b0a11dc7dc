"""How often the first answers win: as judged, and corrected by what people or a card say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from strop.judge.pairwise import Compared, Disagreement
from strop.judge.trust.anchors import Anchor
from strop.judge.trust.calibration import majority
from strop.stats.prediction_powered import WinRate, rogan_gladen
from strop.stats.prediction_powered import win_rate as prediction_powered
from strop.stats.share import Share, share

FEWEST = 20
"""Fewer labelled pairs correct nothing."""


@dataclass(frozen=True, slots=True)
class WinRates:
    """`WinRates("first", judged=Share(0.62, 0.58, 0.66), by_people=WinRate(0.55, ...),
    by_card=0.57)`: how often the `side` wins, "first" or "chosen".

    `judged` are the verdicts as they are, ties half. `by_people` joins them with the labels that
    some of the pairs have (prediction-powered inference); `by_card` takes the error rates of the
    judge's card instead (Rogan and Gladen), without an interval. `None` where there are too few
    labels or all are the same, and where there is no card or one of verdicts of another kind.
    """

    side: str
    judged: Share
    by_people: WinRate | None
    by_card: float | None

    @property
    def sentence(self) -> str:
        """For a person, the most trustworthy figure last."""
        said = [f"the {self.side} answers win {_told(self.judged)} as judged"]
        if self.by_card is not None:
            said.append(f"{100 * self.by_card:.1f} % by the error rates of the judge's card")
        if self.by_people is not None:
            one = self.by_people
            said.append(f"{_told(one)} corrected by {one.anchors} that people labelled")
        return "; ".join(said)


def win_rates(
    pairs: Sequence[Anchor],
    compared: Sequence[Compared],
    card: Mapping[str, Any] | None,
    disagreement: Disagreement,
) -> WinRates | None:
    """Of pairs with their verdicts, in one order; `None` where no pair has a verdict.

    Of preference pairs it is the chosen answers that win or lose, and their labels are no more than
    that, so nothing is corrected by them. Labels should be of a random part of the pairs: only then
    does the correction carry over to the others. Pairs of one cluster count as one, by their means.
    """
    chosen = all(pair.chosen is not None for pair in pairs)
    known = [
        (1 - one.verdict if chosen and pair.chosen == 1 else one.verdict, pair)
        for one, pair in zip(compared, pairs, strict=True)
        if one.verdict is not None
    ]
    if not known:
        return None
    verdicts = [verdict for verdict, _ in known]
    whole = share(verdicts, [pair.cluster for _, pair in known])
    by_people = None if chosen else _by_people(known)
    by_card = None
    if card is not None and card["disagreement"] == disagreement and not chosen:
        rates = (float(card["rates"][name]["mean"]) for name in ("sensitivity", "specificity"))
        sensitivity, specificity = rates
        if sensitivity + specificity > 1:
            by_card = rogan_gladen(whole.mean, sensitivity, specificity)
    return WinRates("chosen" if chosen else "first", whole, by_people, by_card)


def _by_people(known: Sequence[tuple[float, Anchor]]) -> WinRate | None:
    judged: dict[str, list[float]] = {}
    both: dict[str, list[tuple[float, float]]] = {}
    for verdict, pair in known:
        judged.setdefault(pair.cluster, []).append(verdict)
        label = majority([[label] for label in pair.human])[0]
        if isinstance(label, float):
            both.setdefault(pair.cluster, []).append((verdict, label))
    if len(both) < FEWEST or len({label for pairs in both.values() for _, label in pairs}) < 2:
        return None
    found = prediction_powered(
        [fmean(one) for one in judged.values()],
        [fmean(verdict for verdict, _ in pairs) for pairs in both.values()],
        [fmean(label for _, label in pairs) for pairs in both.values()],
    )
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def _told(one: Share | WinRate) -> str:
    value = one.mean if isinstance(one, Share) else one.estimate
    return f"{100 * value:.1f} % ({100 * one.low:.1f} to {100 * one.high:.1f})"
