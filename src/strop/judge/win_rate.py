"""How often the first answers win: as judged, and corrected by what people or a card say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strop.judge.pairwise import Compared
from strop.judge.trust.anchors import Anchor
from strop.judge.trust.calibration import majority
from strop.stats.prediction_powered import FEWEST_ANCHORS, WinRate, rogan_gladen
from strop.stats.prediction_powered import win_rate as prediction_powered
from strop.stats.share import Share, share


@dataclass(frozen=True, slots=True)
class WinRates:
    """`WinRates(judged=Share(0.62, 0.58, 0.66), by_people=WinRate(0.55, ...), by_card=0.57)`.

    `judged` are the verdicts as they are, ties half. `by_people` joins them with the labels that
    some of the pairs have (prediction-powered inference); `by_card` takes the error rates of the
    judge's card instead (Rogan and Gladen), without an interval. `None` where there are no labels,
    or no card.
    """

    judged: Share
    by_people: WinRate | None
    by_card: float | None

    @property
    def sentence(self) -> str:
        """For a person, the most trustworthy figure last."""
        said = [f"the first answers win {_told(self.judged)} as judged"]
        if self.by_card is not None:
            said.append(f"{100 * self.by_card:.1f} % by the error rates of the judge's card")
        if self.by_people is not None:
            one = self.by_people
            said.append(f"{_told(one)} corrected by {one.anchors} pairs that people labelled")
        return "; ".join(said)


def win_rates(
    pairs: Sequence[Anchor], compared: Sequence[Compared], card: Mapping[str, Any] | None
) -> WinRates | None:
    """Of pairs with their verdicts, in one order; `None` where no pair has a verdict.

    The labels of pairs are used where `FEWEST_ANCHORS` pairs have a majority of their people (ties
    count half) and a verdict. They should be a random part of the pairs: only then does the
    correction carry over to the others.
    """
    judged = [(one.verdict, pair) for one, pair in zip(compared, pairs, strict=True)]
    known = [(verdict, pair) for verdict, pair in judged if verdict is not None]
    if not known:
        return None
    verdicts = [verdict for verdict, _ in known]
    gold = [majority([[label] for label in pair.human])[0] for _, pair in known]
    both = [(v, g) for v, g in zip(verdicts, gold, strict=True) if isinstance(g, float)]
    by_people = None
    if len(both) >= FEWEST_ANCHORS:
        by_people = prediction_powered(verdicts, [v for v, _ in both], [g for _, g in both])
    whole = share(verdicts, [pair.cluster for _, pair in known])
    by_card = None
    if card is not None:
        rates = (float(card["rates"][name]["mean"]) for name in ("sensitivity", "specificity"))
        sensitivity, specificity = rates
        if sensitivity + specificity > 1:
            by_card = rogan_gladen(whole.mean, sensitivity, specificity)
    return WinRates(whole, by_people, by_card)


def _told(one: Share | WinRate) -> str:
    value = one.mean if isinstance(one, Share) else one.estimate
    return f"{100 * value:.1f} % ({100 * one.low:.1f} to {100 * one.high:.1f})"
