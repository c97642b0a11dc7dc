"""Accuracy against tokens for all ways of answering with both models, and where the base catches
up."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from strop.evals.decode.draws import Side
from strop.evals.decode.estimators import affordable, best_at, majority_at, pass_at
from strop.evals.decode.grading import Graded, GradedAnswer
from strop.recipe.study import Study
from strop.stats import superiority
from strop.stats.share import share

DecodingMethod = Literal["greedy", "sample", "pass", "maj", "best", "refine"]
Curve = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Way:
    """One way of answering, measured.

    `Way("base", 0.7, "maj", 8, tokens=412.0, values=(0.9, 0.1))`: `tokens` is the mean an item
    costs (sampled tokens; the prompt's are not counted), `values` the chance of a right answer on
    each item; `k` counts answers, for `refine` rounds.
    """

    side: Side
    temperature: float
    method: DecodingMethod
    k: int
    tokens: float
    values: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        return fmean(self.values)

    def __str__(self) -> str:
        at = f"at temperature {self.temperature:g}" if self.temperature else "greedily"
        if self.method == "greedy":
            return "one greedy answer"
        if self.method == "sample":
            return f"one sample {at}"
        if self.method == "refine":
            return f"{self.k} round{'s' if self.k > 1 else ''} of refinement {at}"
        return f"{self.method}@{self.k} {at}"


@dataclass(frozen=True, slots=True)
class FrontierRow:
    """A line of the table: `FrontierRow("base", 0.7, "maj", 8, 412.0, 0.61, 0.53, 0.69, None)`.

    `low` and `high` bound the accuracy with 95 % confidence. `base_at_tokens`, on the trained
    model's rows, is the best accuracy of the base for at most as many tokens, by any way that can
    be used (on `pass` rows: by pass@k); `None` where it cannot answer with so few.
    """

    model: Side
    temperature: float
    method: DecodingMethod
    k: int
    tokens: float
    accuracy: float
    low: float
    high: float
    base_at_tokens: float | None


def ways_of(study: Study, graded: Sequence[Graded], items: Sequence[int]) -> list[Way]:
    """Everything the table compares, in its order: by temperature, then method, k, base first."""
    ways = [way for part in graded for way in _ways(study, part, items)]
    methods: tuple[DecodingMethod, ...] = ("greedy", "sample", "maj", "best", "pass", "refine")
    return sorted(ways, key=lambda w: (w.temperature, methods.index(w.method), w.k, w.side))


def rows_of(study: Study, ways: Sequence[Way], clusters: Sequence[Hashable]) -> list[FrontierRow]:
    """The table."""
    made = []
    for way in ways:
        found = share(way.values, clusters)
        oracle = is_oracle(study, way)
        reached = base_at(study, ways, way.tokens, oracle) if way.side == "model" else None
        made.append(
            FrontierRow(
                way.side, way.temperature, way.method, way.k, way.tokens, found.mean, found.low,
                found.high, reached,
            )
        )  # fmt: skip
    return made


def is_oracle(study: Study, way: Way) -> bool:
    """Whether answering in this way takes knowledge of the right answer."""
    return way.method == "pass" or (
        way.method == "best" and study.best_of is not None and study.best_of.oracle
    )


def curves_of(ways: Sequence[Way], side: Side) -> dict[tuple[float, DecodingMethod], list[Way]]:
    """Curves of ways by rising cost, each from one answer to more answers of the same kind."""
    mine = [way for way in ways if way.side == side]
    found = {}
    for first in (way for way in mine if way.method in ("greedy", "sample")):
        same = [way for way in mine if way.temperature == first.temperature]
        found[first.temperature, first.method] = [first]
        for method in dict.fromkeys(way.method for way in same if way is not first):
            found[first.temperature, method] = [first, *(w for w in same if w.method == method)]
    return found


def base_at(study: Study, ways: Sequence[Way], tokens: float, oracle: bool) -> float | None:
    """The base's best accuracy for at most `tokens` tokens an item; with `oracle`, by pass@k
    alone."""
    curves = [
        [(way.tokens, way.accuracy) for way in curve]
        for curve in curves_of(ways, "base").values()
        if (curve[-1].method == "pass" if oracle else not is_oracle(study, curve[-1]))
    ]
    return max((a for c in curves if (a := affordable(c, tokens)) is not None), default=None)


def sentences(study: Study, ways: Sequence[Way], clusters: Sequence[Hashable]) -> list[str]:
    """The table in sentences, for someone who decides whether to train or to sample more."""
    ours, theirs = (_greedy(ways, side) for side in ("model", "base"))
    usable = [w for w in ways if w.side == "base" and not is_oracle(study, w)]
    oracle = [w for w in ways if w.side == "base" and w.method in ("sample", "pass")]
    said = [
        f"One greedy answer of the trained model is right on {ours.accuracy:.3f} of the items and "
        f"takes {ours.tokens:,.1f} tokens; one of the base on {theirs.accuracy:.3f}, with "
        f"{theirs.tokens:,.1f} tokens.",
        _match(study, ours, usable, clusters),
    ]
    picked = _cheapest(oracle, ours.accuracy)
    if study.counts and picked is not None:
        said.append(f"A picker that knows the right answer would do it with {_cost(picked)}.")
    elif study.counts:
        said.append("Not even a picker that knows the right answer (pass@k) gets it there.")
    reached = base_at(study, ways, ours.tokens, oracle=False)
    budget = f"At the {ours.tokens:,.1f} tokens of the trained model's greedy answer the base"
    if reached is None:
        said.append(f"{budget} cannot answer at all: its cheapest way takes more.")
    else:
        gap = ours.accuracy - reached
        wins = (
            "training more wins" if gap > 0 else "sampling more wins" if gap else "they are level"
        )
        said.append(f"{budget} reaches {reached:.3f}: {wins} there.")
    return said


def _ways(study: Study, part: Graded, items: Sequence[int]) -> Iterator[Way]:
    first = [part.rounds[0][i] for i in items]
    one = fmean(fmean(len(a.completion.ids) for a in answers) for answers in first)
    right = [[bool(a.right) for a in answers] for answers in first]

    def way(method: DecodingMethod, k: int, tokens: float, values: Sequence[float]) -> Way:
        return Way(part.side, part.temperature, method, k, tokens, tuple(values))

    yield way("sample" if part.temperature else "greedy", 1, one, [pass_at(r, 1) for r in right])
    if part.temperature:
        counts = study.counts
        for k in counts:
            yield way("pass", k, k * one, [pass_at(r, k) for r in right])
        if study.voting and counts:
            votes = [[a.vote for a in answers] for answers in first]
            won = [majority_at(v, r, counts) for v, r in zip(votes, right, strict=True)]
            for place, k in enumerate(counts):
                yield way("maj", k, k * one, [chances[place] for chances in won])
        if study.best_of:
            rewards = [[a.reward for a in answers] for answers in first]
            for k in counts:
                both = zip(rewards, right, strict=True)
                yield way("best", k, k * one, [best_at(rw, r, k) for rw, r in both])
    for number in range(1, len(part.rounds)):
        spent = [_spent(part, i, number) for i in items]
        last = [part.rounds[number][i] for i in items]
        values = [fmean(bool(a.right) for a in answers) for answers in last]
        yield way("refine", number, fmean(spent), values)


def _spent(part: Graded, item: int, rounds: int) -> float:
    """Mean tokens of an item's refined answers, from the first answer on."""
    chains: list[tuple[GradedAnswer, ...]] = list(
        zip(*(part.rounds[r][item] for r in range(rounds + 1)), strict=False)
    )  # only the first answers are refined
    return fmean(sum(len(a.completion.ids) for a in chain) for chain in chains)


def _greedy(ways: Sequence[Way], side: Side) -> Way:
    return next(way for way in ways if way.side == side and way.method == "greedy")


def _cheapest(ways: Sequence[Way], accuracy: float) -> Way | None:
    enough = [way for way in ways if way.accuracy >= accuracy - 1e-12]
    return min(enough, key=lambda way: way.tokens, default=None)


def _cost(way: Way) -> str:
    return f"{way}, i.e. k = {way.k} and {way.tokens:,.1f} tokens a question"


def _match(study: Study, ours: Way, base: Sequence[Way], clusters: Sequence[Hashable]) -> str:
    found = _cheapest(base, ours.accuracy)
    if found is None:
        best = max(base, key=lambda way: way.accuracy)
        return (
            f"No k <= {max([1, *study.counts])} of the base reaches the trained model's greedy "
            f"accuracy; its best is {best.accuracy:.3f}, by {best} for {best.tokens:,.1f} tokens "
            "a question: here training more beats sampling more."
        )
    gap = superiority(ours.values, found.values, clusters=clusters)
    return (
        f"To match the trained model's greedy accuracy the base needs {_cost(found)}, "
        f"{found.tokens / ours.tokens:.2g} times as many (its accuracy is {found.accuracy:.3f}, "
        f"{gap.estimate:+.3f} with 95 % interval {gap.low:+.3f} to {gap.high:+.3f})."
    )
