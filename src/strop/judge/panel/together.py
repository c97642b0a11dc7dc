"""Several judges as one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from strop.errors import UsageError
from strop.judge.asking.forms import FormName
from strop.judge.asking.judges import Judge
from strop.judge.asking.question import SWAPPED, Question, Ruling, added
from strop.judge.panel.votes import weighted_vote
from strop.types import Usage

NOBODY = "no judge of the panel has a verdict"
UNSURE = "no judge of the panel is sure enough"


@dataclass(frozen=True, slots=True)
class Voters:
    """Judges whose verdicts are counted.

    Of pairs and criteria the weighted majority is taken, and its confidence is the chance that it
    is right if judges err independently: sigmoid of the weighted sum of votes, where `weight_J` are
    log-odds; without weights it is the share of the votes, with half a vote added on both sides so
    that few voters are never certain. Scores and rankings are averaged, which takes no weights. A
    judge without a verdict does not vote.
    """

    judges: tuple[Judge, ...]
    weight_J: tuple[float, ...] | None = None

    def identity(self) -> Mapping[str, Any]:
        vote = {"vote": "majority"} if self.weight_J is None else {
            "vote": "weighted", "weights": list(self.weight_J)
        }  # fmt: skip
        return {"panel": [dict(judge.identity()) for judge in self.judges], **vote}

    def rule(self, form: FormName, questions: Sequence[Question]) -> list[Ruling]:
        averaged = form in ("score", "ranking")
        if averaged and self.weight_J is not None:
            raise UsageError(f"weights are of votes, and a {form} is none",
                             fix="use vote: majority, which averages")  # fmt: skip
        by_judge = [judge.rule(form, questions) for judge in self.judges]
        join: Callable[..., Ruling] = self._averaged if averaged else self._counted
        return [join(said) for said in zip(*by_judge, strict=True)]

    def _averaged(self, said: Sequence[Ruling]) -> Ruling:
        known = [ruling.values for ruling in said if ruling.values is not None]
        if not known:
            return _joined(Ruling(None, problem=NOBODY), said)
        means = tuple(fmean(values) for values in zip(*known, strict=True))
        return _joined(Ruling(means), said)

    def _counted(self, said: Sequence[Ruling]) -> Ruling:
        votes = [math.nan if ruling.values is None else ruling.values[0] for ruling in said]
        known = [vote for vote in votes if not math.isnan(vote)]
        if not known:
            return _joined(Ruling(None, problem=NOBODY), said)
        weight_J = np.ones(len(votes)) if self.weight_J is None else np.array(self.weight_J)
        won = float(weighted_vote(np.array(votes)[:, None], weight_J)[0])
        if self.weight_J is None:
            most = max(sum(known), len(known) - sum(known))
            confidence = (most + 0.5) / (len(known) + 1)
        else:
            total = float(weight_J @ np.nan_to_num(2 * np.array(votes) - 1))
            confidence = 1 / (1 + math.exp(-abs(total)))
        values = next(len(ruling.values) for ruling in said if ruling.values is not None)
        return _joined(Ruling((won, 1 - won)[:values], confidence), said)


def _joined(ruling: Ruling, said: Sequence[Ruling]) -> Ruling:
    """The ruling with the words of all members, and what they cost."""
    words = "\n---\n".join(one.said for one in said if one.said)
    return replace(ruling, said=words, usage=added(*(one.usage for one in said)))


@dataclass(frozen=True, slots=True)
class Chain:
    """Judges of pairs from the cheapest to the dearest: each keeps the verdicts that it is sure
    enough of, by the confidence that its card names, and hands on the rest. What nobody is sure of
    has no verdict.

    Both orders of a pair go together: a judge keeps them where it says the same in both, and its
    mean confidence is high enough. `sure_J` are the confidences; a judge of `None` is not asked.
    Each one's card speaks of all pairs, not of those that the ones before it hand on, which are
    harder: how far the whole can be believed is on the panel's own card.
    """

    judges: tuple[Judge, ...]
    sure_J: tuple[float | None, ...]

    def identity(self) -> Mapping[str, Any]:
        members = [dict(judge.identity()) for judge in self.judges]
        return {"panel": members, "vote": "escalate", "sure": list(self.sure_J)}

    def rule(self, form: FormName, questions: Sequence[Question]) -> list[Ruling]:
        if form != "pairwise":
            raise UsageError(f"cards know how sure a judge is of a pair, not of a {form}",
                             fix="use vote: majority")  # fmt: skip
        found = [Ruling(None, problem=UNSURE)] * len(questions)
        spent: list[Usage | None] = [None] * len(questions)
        pairs: dict[str, list[int]] = {}
        for number, question in enumerate(questions):
            pairs.setdefault(question.item.removesuffix(SWAPPED), []).append(number)
        for judge, sure in zip(self.judges, self.sure_J, strict=True):
            if sure is None or not pairs:
                continue
            asked = [number for numbers in pairs.values() for number in numbers]
            said = dict(zip(asked, judge.rule(form, [questions[n] for n in asked]), strict=True))
            for n in asked:
                spent[n] = added(spent[n], said[n].usage)
            for item, numbers in list(pairs.items()):
                if _is_sure([said[n] for n in numbers], [questions[n] for n in numbers], sure):
                    del pairs[item]
                    for n in numbers:
                        found[n] = said[n]
        return [replace(one, usage=used) for one, used in zip(found, spent, strict=True)]


def _is_sure(said: Sequence[Ruling], questions: Sequence[Question], sure: float) -> bool:
    """Whether rulings on one pair say the same, with this confidence on average."""
    straight = [
        ruling.turned() if question.item.endswith(SWAPPED) else ruling
        for ruling, question in zip(said, questions, strict=True)
    ]
    if any(ruling.values is None or ruling.confidence is None for ruling in straight):
        return False
    confident = fmean(ruling.confidence or 0.0 for ruling in straight) >= sure
    return confident and len({ruling.values for ruling in straight}) == 1
