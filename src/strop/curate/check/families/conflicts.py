"""Rows that contradict each other: A over B and B over A, circles, liked and disliked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.curate.check.finding import Section, finding, graded
from strop.curate.check.ledger import Ledger, column
from strop.curate.check.survey import Survey, share

WORTH_A_WARNING = 0.005
"""Share of rows that contradict others from which noise is taught."""

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What one prompt's rows say of one pair of answers: `Verdicts(low=17, high=99, up=3, down=1)`:
    three rows prefer the answer with the lower hash, one the other; `rows` are all four."""

    low: int
    high: int
    up: int
    down: int
    rows: tuple[int, ...]


def conflicts(survey: Survey) -> Section:
    """Contradictory and cyclic preferences, and answers that are liked and disliked."""
    ledger = survey.ledger
    pairs, thumbs = ledger.of_kind("preference"), ledger.of_kind("feedback")
    figures: dict[str, Any] = {}
    found = []
    if len(pairs):
        asked = [one for _, ones in _by_prompt(ledger, pairs) for one in ones]
        both = [one for one in asked if one.up and one.down]
        rows = sorted(row for one in both for row in one.rows)
        least = sum(min(one.up, one.down) for one in both)
        figures |= {
            "contradictory_pairs": len(both),
            "contradictory_rows": len(rows),
            "least_wrong_rows": least,
            **_again((one.up, one.down) for one in asked),
        }
        if both:
            text = (
                f"{len(rows):,} of {len(pairs):,} rows prefer A to B and B to A for one prompt "
                f"({len(both):,} pairs of answers; at least {least:,} labels are wrong)"
            )
            severity = graded(share(len(rows), len(pairs)), WORTH_A_WARNING)
            first = sorted(row for one in both[:5] for row in one.rows[:2])
            found.append(
                finding("contradictory_pairs", severity, text, len(rows), ledger.origins(first))
            )
        circles = list(_circles(ledger, pairs))
        figures["cyclic_prompts"] = len(circles)
        if circles:
            text = f"the preferences of {len(circles):,} prompts run in a circle (A > B > C > A)"
            places = ledger.origins(row for rows in circles[:2] for row in rows)
            count = len(circles)
            found.append(finding("cyclic_preferences", "warn", text, count, places))
    if len(thumbs):
        rows = _liked_and_disliked(ledger, thumbs)
        figures |= {"liked_and_disliked_rows": len(rows), **_again(_thumbs(ledger, thumbs))}
        if rows:
            text = f"{len(rows):,} rows like and dislike the same answer to the same prompt"
            severity = graded(share(len(rows), len(thumbs)), WORTH_A_WARNING)
            places = ledger.origins(rows[:5])
            found.append(finding("contradictory_feedback", severity, text, len(rows), places))
    return Section("conflicts", figures, tuple(found))


def _again(counts: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """How many comparisons (or answers) have more than one label, and the chance that two of their
    labels are the same: each counts alike."""
    several = [(up, down) for up, down in counts if up + down > 1]
    same = [
        (up * (up - 1) + down * (down - 1)) / ((up + down) * (up + down - 1))
        for up, down in several
    ]
    agreement = sum(same) / len(same) if same else None
    return {"labelled_again": len(several), "agreement_again": agreement}


def _by_prompt(ledger: Ledger, pairs: Rows) -> Iterator[tuple[int, list[Verdicts]]]:
    """The verdicts on each pair of answers, for every prompt with more than one row."""
    prompt = column(ledger.prompts)[pairs]
    chosen, rejected = column(ledger.first)[pairs], column(ledger.second)[pairs]
    order = np.argsort(prompt, kind="stable")
    edges = np.flatnonzero(np.diff(prompt[order])) + 1
    for group in np.split(order, edges) if len(order) else []:
        if len(group) > 1:
            yield int(prompt[group[0]]), _verdicts(group, pairs, chosen, rejected)


def _verdicts(
    group: Rows, pairs: Rows, chosen: NDArray[Any], rejected: NDArray[Any]
) -> list[Verdicts]:
    rows: Mapping[tuple[int, int], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for place in group.tolist():
        a, b = int(chosen[place]), int(rejected[place])
        rows[min(a, b), max(a, b)][a > b].append(int(pairs[place]))
    return [
        Verdicts(low, high, len(up), len(down), tuple(sorted((*up, *down))))
        for (low, high), (up, down) in rows.items()
    ]


def _circles(ledger: Ledger, pairs: Rows) -> Iterator[list[int]]:
    """The rows around a circle, for every prompt whose preferences (the majority's, ties aside)
    have one."""
    for _, verdicts in _by_prompt(ledger, pairs):
        if len(verdicts) < 3:
            continue
        better: dict[int, list[int]] = defaultdict(list)
        rows = {}
        for one in verdicts:
            if one.up != one.down:
                winner, loser = (one.low, one.high) if one.up > one.down else (one.high, one.low)
                better[loser].append(winner)
                rows[loser, winner] = one.rows
        try:
            TopologicalSorter(better).prepare()
        except CycleError as error:
            around = error.args[1]
            yield sorted(
                held[0]
                for step in pairwise(around)
                if (held := rows.get(step) or rows.get(step[::-1]))
            )


def _liked_and_disliked(ledger: Ledger, thumbs: Rows) -> list[int]:
    """Rows whose answer has the other label in another row of the same prompt, in order."""
    group, liked, disliked = _counted(ledger, thumbs)
    both = (liked > 0) & (disliked > 0)
    return [int(row) for row in thumbs[both[group]]]


def _thumbs(ledger: Ledger, thumbs: Rows) -> Iterator[tuple[int, int]]:
    """Thumbs up and down of every answer to a prompt."""
    _, liked, disliked = _counted(ledger, thumbs)
    return zip(liked.tolist(), disliked.tolist(), strict=True)


def _counted(ledger: Ledger, thumbs: Rows) -> tuple[Rows, Rows, Rows]:
    """Which answer each row is about, and how often each answer was liked and disliked."""
    prompt, answer = column(ledger.prompts)[thumbs], column(ledger.first)[thumbs]
    _, group = np.unique(np.stack([prompt, answer]), axis=1, return_inverse=True)
    group = group.ravel()
    labels = column(ledger.labels)[thumbs] == 1
    liked = np.bincount(group[labels], minlength=group.max() + 1)
    return group, liked, np.bincount(group) - liked
