"""The card of a judge: what it is, how far it agrees with people, what biases it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from strop import __version__
from strop.data.sources import data_hash
from strop.errors import DataError, RecipeError
from strop.files import read_text
from strop.judge.asking.forms import FormName
from strop.judge.asking.judges import Judge
from strop.judge.asking.question import Question
from strop.judge.bias.own_family import SelfPreference, self_preference
from strop.judge.bias.position import PositionBias
from strop.judge.bias.sway import Sway, differences, sways
from strop.judge.pairwise import (
    Compared,
    Disagreement,
    bias_of,
    compare,
    confidence_of,
    log_odds_of,
)
from strop.judge.panel.escalation import Threshold, threshold
from strop.judge.trust.anchors import Anchor, by_person
from strop.judge.trust.calibration import (
    Agreement,
    Rates,
    Reliability,
    agreement,
    human_ceiling,
    majority,
    rates,
    reliability,
)
from strop.stats.share import Share, share

FEWEST = 20
"""Fewer labelled pairs say next to nothing about a judge."""
LEVEL = 0.9
"""The agreement that the card's threshold promises."""
MOST_CARD_BYTES = 1 << 20
PLACES = ("path", "outputs", "endpoint", "engine", "servers")
"""Keys of an engine's identity that say where it is, or who runs the same weights."""


TASTES = {
    "length": ("shorter answers", "longer answers"),
    "formatting": ("plain answers", "formatted answers"),
    "own family": ("answers of other families", "answers of its own family"),
}
"""What a judge with a negative and a positive sway likes."""


@dataclass(frozen=True, slots=True)
class JudgeCard:
    """What `strop judge calibrate` found of a judge that is asked in one `form`.

    `right` is the share of the `decided` pairs, those on which people decided and the judge has a
    verdict, on which it says the same, ties half;
    `agreement` counts ties as a label of their own, and stands beside the `ceiling`, which is
    people's agreement with one another (`None` where no two labelled a pair). `position` is `None`
    for forms in which an answer is shown by itself. `sways` say how far length, formatting and its
    own family sway the judge beyond what people preferred.
    """

    judge: Mapping[str, Any]
    form: FormName
    disagreement: Disagreement
    anchors: Mapping[str, Any]
    decided: int
    strop: str
    missing: float
    right: Share
    agreement: Agreement
    ceiling: Agreement | None
    rates: Rates
    position: PositionBias | None
    sways: Mapping[str, Sway]
    self_preference: SelfPreference | None
    reliability: Reliability | None
    threshold: Threshold | None

    @property
    def better_than_chance(self) -> bool:
        return self.right.low > 0.5

    @property
    def sentence(self) -> str:
        """The card in words."""
        said = [f"The judge is right on {_percent(self.right)} of {self.decided} pairs"]
        if self.ceiling is not None:
            ours, theirs = self.agreement, self.ceiling
            said.append(
                f"it agrees with people on {_percent(ours.observed)} (kappa {ours.kappa.mean:.2f}),"
                f" and they with one another on {_percent(theirs.observed)} (kappa "
                f"{theirs.kappa.mean:.2f})"
            )
        if self.position is not None:
            kept = _percent(self.position.consistency)
            said.append(f"{kept} of its verdicts survive the opposite order")
        tastes = [
            TASTES[name][sway.estimate > 0] for name, sway in self.sways.items() if sway.is_known
        ]
        if tastes:
            said.append(f"beyond what people prefer it likes {', '.join(tastes)}")
        if not self.better_than_chance:
            said.append("it is no better than chance, and is not to be used")
        return "; ".join(said) + "."

    def plain(self) -> dict[str, Any]:
        """The card as it is written."""
        return {**asdict(self), "better_than_chance": self.better_than_chance,
                "sentence": self.sentence}  # fmt: skip


def calibrate(
    judge: Judge,
    anchors: Sequence[Anchor],
    source: str | Path,
    *,
    disagreement: Disagreement = "tie",
    form: FormName = "pairwise",
) -> tuple[JudgeCard, list[Compared]]:
    """Compare all anchors in this form and measure the judge against people.

    Raises `DataError` for fewer than `FEWEST` pairs on which people decided and the judge has a
    verdict, or where people decided for one side only.
    """
    people = list(by_person(anchors))
    gold = majority(people)
    _expect_decided(gold, source)
    questions = [anchor.question for anchor in anchors]
    _expect_different(questions, source)
    found = compare(judge, questions, disagreement=disagreement, form=form)
    clusters = [anchor.cluster for anchor in anchors]
    verdicts = [one.verdict for one in found]
    decided = [
        n for n, (said, truth) in enumerate(zip(verdicts, gold, strict=True))
        if said is not None and truth in (0.0, 1.0)
    ]  # fmt: skip
    _expect_read(found, source)
    _expect_decided([gold[n] for n in decided], source)
    votes = [float(verdicts[n] or 0.0) for n in decided]
    truth = [float(gold[n] or 0.0) for n in decided]  # type: ignore[arg-type]
    hits = [1 - abs(vote - right) for vote, right in zip(votes, truth, strict=True)]
    own = [clusters[n] for n in decided]
    kin = [anchors[n].own for n in decided]
    confident = [
        (found[n], truth[k], clusters[n]) for k, n in enumerate(decided)
        if confidence_of(found[n]) is not None and verdicts[n] != 0.5
    ]  # fmt: skip
    curve, limit = _confidences(confident)
    card = JudgeCard(
        judge=judge.identity(),
        form=form,
        disagreement=disagreement,
        decided=len(decided),
        anchors={"sha256": data_hash([str(source)]), "pairs": len(anchors), "people": len(people)},
        strop=__version__,
        missing=sum(verdict is None for verdict in verdicts) / len(verdicts),
        right=share(hits, own),
        agreement=agreement(verdicts, gold, clusters),
        ceiling=human_ceiling(people, clusters),
        rates=rates(votes, truth, own),
        position=bias_of(found) if form in ("pairwise", "ranking") else None,
        sways=_sways([found[n] for n in decided], kin, truth, own),
        self_preference=_self_preference(kin, votes, truth),
        reliability=curve,
        threshold=limit,
    )
    return card, found


def _expect_different(questions: Sequence[Question], source: str | Path) -> None:
    """Raise `DataError` where no pair has two answers to choose from."""
    if all(len(set(one.answers)) < 2 for one in questions):
        raise DataError("the answers of every pair are the same", where=str(source),
                        fix="label pairs whose answers differ")  # fmt: skip


def _expect_read(found: Sequence[Compared], source: str | Path) -> None:
    """Raise `DataError` where most verdicts are missing: the words of the judge are to blame, and
    not the labels."""
    unread = sum(not (one.straight.values and one.swapped.values) for one in found)
    if 2 * unread > len(found):
        raise DataError(
            f"the verdicts on {unread} of {len(found)} pairs could not be read",
            where=str(source),
            fix="let the judge end with one line `Verdict: A`, `Verdict: B` or `Verdict: tie` (see "
            "what it said in the verdicts of strop judge compare)",
        )


def _expect_decided(labels: Sequence[Any], source: str | Path) -> None:
    """Raise `DataError` where people decided on too few of these pairs, or for one side only."""
    decided = [label for label in labels if label in (0.0, 1.0)]
    if len(decided) < FEWEST:
        raise DataError(f"{len(decided)} pairs have a verdict and a decision of people",
                        where=str(source), fix=f"label {FEWEST} pairs at least")  # fmt: skip
    if len(set(decided)) < 2:
        raise DataError("people decided for one side only", where=str(source),
                        fix="put either answer first, at random")  # fmt: skip


def expect_card(path: str | Path, judge: Judge, form: FormName) -> Mapping[str, Any]:
    """The card in a file, of this very judge asked in this form, and fit for use.

    Raises `RecipeError` as `read_card` does, for a card of another form, and for a judge that is no
    better than chance.
    """
    card = read_card(path, judge)
    if card["form"] != form:
        raise RecipeError(
            f"the card is of the form {card['form']}, and the judge is asked in the form {form}",
            where=str(path), fix=f"strop judge calibrate --form {form}",
        )  # fmt: skip
    if not card["better_than_chance"]:
        raise RecipeError(f"this judge is not to be used: {card['sentence']}", where=str(path),
                          fix="use another judge, or other words")  # fmt: skip
    return card


def read_card(path: str | Path, judge: Judge) -> Mapping[str, Any]:
    """The card in a file, of this very judge.

    Raises `RecipeError` for a file that is no card, and a card of another model or other templates.
    """
    try:
        card = json.loads(read_text(Path(path), RecipeError, limit=MOST_CARD_BYTES))
        missing = {one.name for one in fields(JudgeCard)} - card.keys()
        if missing or "better_than_chance" not in card:
            raise KeyError(*missing)
        known = card["judge"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RecipeError("the file is no judge card", where=str(path),
                          fix="make one: strop judge calibrate") from None  # fmt: skip
    theirs, ours = without_places(known), without_places(judge.identity())
    other = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    if other:
        raise RecipeError(f"the card is of another judge: {', '.join(sorted(other))} differ",
                          where=str(path), fix="calibrate this judge")  # fmt: skip
    found: Mapping[str, Any] = card
    return found


def without_places(value: Any) -> Any:
    """An identity without where things are: a judge that moved is the same."""
    if isinstance(value, Mapping):
        return {name: without_places(one) for name, one in value.items() if name not in PLACES}
    return [without_places(one) for one in value] if isinstance(value, list) else value


def _confidences(
    confident: Sequence[tuple[Compared, float, str]],
) -> tuple[Reliability | None, Threshold | None]:
    """The threshold is from one pair a cluster: its promise is of independent ones."""
    if not confident:
        return None, None
    values = [float(confidence_of(one) or 0.0) for one, _, _ in confident]
    right = [one.verdict == truth for one, truth, _ in confident]
    clusters = [label for *_, label in confident]
    first: dict[str, int] = {}
    for n, label in enumerate(clusters):
        first.setdefault(label, n)
    alone = list(first.values())
    limit = threshold([values[n] for n in alone], [right[n] for n in alone], level=LEVEL)
    return reliability(values, right, clusters), limit


def _sways(
    found: Sequence[Compared], own: Sequence[int], truth: Sequence[float], clusters: Sequence[str]
) -> dict[str, Sway]:
    """Of the pairs whose answers differ; by log-odds where the judge says how sure it is of all."""
    kept = [n for n, one in enumerate(found) if len(set(one.question.answers)) == 2]
    odds = [log_odds_of(found[n]) for n in kept]
    known = [value for value in odds if value is not None]
    apart = [differences(found[n].question.answers) for n in kept]
    columns = {name: [one[name] for one in apart] for name in apart[0]} if apart else {}
    return sways(
        known if len(known) == len(odds) else None,
        [found[n].verdict or 0.0 for n in kept], [truth[n] for n in kept],
        {**columns, "own family": [float(own[n]) for n in kept]}, [clusters[n] for n in kept],
    )  # fmt: skip


def _self_preference(
    own: Sequence[int], votes: Sequence[float], truth: Sequence[float]
) -> SelfPreference | None:
    """Over pairs of an own answer and another's; `None` where people saw wins of one side only."""
    sides = [(n, side) for n, side in enumerate(own) if side]
    judged = [votes[n] if side > 0 else 1 - votes[n] for n, side in sides]
    human = [truth[n] if side > 0 else 1 - truth[n] for n, side in sides]
    return self_preference(judged, human) if len(set(human)) == 2 else None


def _percent(value: Share) -> str:
    return f"{100 * value.mean:.0f} % ({100 * value.low:.0f} to {100 * value.high:.0f})"
