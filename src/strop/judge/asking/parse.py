"""Reads verdicts out of a judge's words, strictly: what is not one clear verdict is missing.

A verdict is a line of its own, `Verdict: A`, `Score: 7` or `Ranking: B > A > C`, and the only one
of its kind. A judge that quotes one, hedges or says two has not decided, and a missing verdict is
`None`, never a tie.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

PAIR: Mapping[str, float] = {"a": 1.0, "b": 0.0, "tie": 0.5}
MET: Mapping[str, float] = {"yes": 1.0, "no": 0.0}


def pair_verdict(said: str) -> float | None:
    """1 for `Verdict: A`, 0 for `Verdict: B`, 0.5 for `Verdict: tie`."""
    return PAIR.get(_only("verdict", said).lower())


def criterion_verdict(said: str) -> float | None:
    """1 for `Met: yes`, 0 for `Met: no`."""
    return MET.get(_only("met", said).lower())


def score_verdict(said: str, low: float, high: float) -> float | None:
    """The number after `Score:` (`7`, `7.5` or `7/10` with the scale's end), from 0 to 1 of the
    scale; `None` for one outside it."""
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)(?:\s*/\s*(\d+(?:\.\d+)?))?", _only("score", said))
    if found is None or (found[2] is not None and float(found[2]) != high):
        return None
    value = float(found[1])
    return (value - low) / (high - low) if low <= value <= high else None


def ranking_verdict(said: str, answers: int) -> tuple[float, ...] | None:
    """Worth of each answer from 1 (first) to 0 (last), from `Ranking: B > A > C`; with `=` between
    answers that share a place.

    `ranking_verdict("Ranking: B > A = C", 3) == (0.25, 1.0, 0.25)`. `None` unless every answer is
    named exactly once.
    """
    names = [chr(ord("A") + n) for n in range(answers)]
    groups = [re.split(r"\s*=\s*", group) for group in re.split(r"\s*>\s*", _only("ranking", said))]
    named = [name.strip().upper() for group in groups for name in group]
    if sorted(named) != names:
        return None
    worth: dict[str, float] = {}
    place = 0
    for group in groups:
        middle = place + (len(group) - 1) / 2
        worth |= dict.fromkeys((name.strip().upper() for name in group), middle)
        place += len(group)
    last = max(1, answers - 1)
    return tuple(1 - worth[name] / last for name in names)


def _only(word: str, said: str) -> str:
    """What stands behind `word:` on the one line that begins so; "" where none or several do.

    Emphasis and brackets around it are let pass: `**Verdict:** [[A]]`.
    """
    pattern = rf"^[\s*_#>-]*{word}[\s*_]*:[\s*_]*(.*?)[\s*_.]*$"
    found = re.findall(pattern, said, flags=re.IGNORECASE | re.MULTILINE)
    return found[0].strip("[]() \t*_`") if len(found) == 1 else ""
