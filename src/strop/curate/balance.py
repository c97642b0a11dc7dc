"""Biases that are removed by leaving records out: of length, of labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.curate.contents import content_hash, draw
from strop.curate.manifest import Output, records_of, writing_records
from strop.data.bad_rows import BadRow
from strop.errors import DataError
from strop.recipe.curate import BalanceSettings
from strop.recipe.train.data import DataSource
from strop.stats.auc import auc, longer_share
from strop.text.parse import plain
from strop.types import Feedback, Preference, Record, Text

TOLERANCE = 0.04
"""How far from 0.5 the AUC of length alone may stay."""
FEWEST_BINS = 8
"""Bins of length that thumbs are first matched in; they are halved until the AUC is met."""

Lengths = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bias:
    """How biased records are.

    `Bias(rows=900, auc=0.71, pooled_auc=0.62, liked=None)`: `auc` is how well length alone tells
    good from bad. Of pairs it is the share in which the chosen answer is the longer one (ties count
    half), and `pooled_auc` compares every chosen answer with every rejected one; of thumbs it
    compares all liked answers with all disliked ones. `liked` is the share of liked ones.
    """

    rows: int
    auc: float | None
    pooled_auc: float | None
    liked: float | None


@dataclass(frozen=True, slots=True)
class BalanceReport:
    """The bias before and after: `BalanceReport("length", before=Bias(...), after=Bias(...))`."""

    removed: str
    before: Bias
    after: Bias

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def sentence(self) -> str:
        kept = f"{self.after.rows} of {self.before.rows} rows kept"
        if self.removed == "label":
            return f"{kept}, share liked {_shown(self.before.liked)} -> {_shown(self.after.liked)}"
        return f"{kept}, AUC of length alone {_shown(self.before.auc)} -> {_shown(self.after.auc)}"


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def balance(
    inputs: Sequence[DataSource],
    output: Path | None,
    settings: BalanceSettings,
    *,
    overwrite: bool = False,
) -> BalanceReport:
    """Leave out as few pairs or thumbs as remove the bias; which ones does not depend on their
    order.

    Raises `DataError` where there is nothing to balance with: no thumb of one label, no pair in
    which the shorter answer was chosen. The inputs are read twice; only lengths are held.
    """
    records = records_of(inputs, Output(None))
    table = _Table.of(records, settings)
    kept = _CHOICES[table.kind, settings.remove](table, settings)
    given = settings.plain()
    reason = f"one too many for a balanced {settings.remove}"
    kind = f"{settings.remove}_bias"
    with writing_records(output, "balance", inputs, given, overwrite=overwrite) as written:
        again = records_of(inputs, written)
        for record, keep in zip(again, kept.tolist(), strict=True):
            if keep:
                written.keep(record)
            else:
                written.drop(BadRow(kind, reason, record.origin, excess=True), record)
    everything = np.ones_like(kept)
    return BalanceReport(settings.remove, table.bias(everything), table.bias(kept))


@dataclass(frozen=True, slots=True)
class _Table:
    """Lengths by record. Of pairs `one` and `two` are those of the chosen and the rejected answer;
    of thumbs `one` is the answer's and `two` the label, 1 or 0. `draws` order records by chance."""

    kind: type[Record]
    one: Lengths
    two: Lengths
    draws: Lengths

    @classmethod
    def of(cls, records: Any, settings: BalanceSettings) -> _Table:
        kind: type[Record] | None = None
        rows = []
        for record in records:
            kind = kind or type(record)
            if type(record) is not kind or (kind, settings.remove) not in _CHOICES:
                raise _unfit(record, kind, settings)
            one, two = _READ[kind](record, settings)
            rows.append((one, two, draw(settings.seed, content_hash(record))))
        if kind is None:
            raise DataError("the data holds no records", fix="add records")
        one_N, two_N, draws_N = np.array(rows, dtype=float).T
        return cls(kind, one_N, two_N, draws_N)

    def bias(self, kept: NDArray[np.bool_]) -> Bias:
        one, two, rows = self.one[kept], self.two[kept], int(kept.sum())
        if self.kind is Preference:
            return Bias(rows, longer_share(one, two), auc(one, two), None)
        liked, disliked = one[two == 1], one[two == 0]
        known = len(liked) and len(disliked)
        return Bias(rows, auc(liked, disliked) if known else None, None, float(two.mean()))


def _unfit(record: Record, first: type[Record], settings: BalanceSettings) -> DataError:
    name = type(record).__name__.lower()
    if type(record) is not first:
        problem = f"a {name} among records that begin with a {first.__name__.lower()}"
    elif settings.remove == "label":
        problem = f"a {name} has no label to balance"
    else:
        problem = f"a {name} has no good and bad answer whose lengths could be told apart"
    return DataError(problem, where=str(record.origin),
                     fix="give pairs {prompt, chosen, rejected}, or thumbs {prompt, completion, "
                     "label}")  # fmt: skip


def _pair(record: Any, settings: BalanceSettings) -> tuple[float, float]:
    return _length(record.chosen, settings), _length(record.rejected, settings)


def _thumb(record: Any, settings: BalanceSettings) -> tuple[float, float]:
    return _length(record.completion, settings), float(record.label)


_READ = {Preference: _pair, Feedback: _thumb}


def _length(text: Text, settings: BalanceSettings) -> int:
    said = plain(text)
    return len(said.split()) if settings.unit == "words" else len(said)


def _of_pairs(table: _Table, settings: BalanceSettings) -> NDArray[np.bool_]:
    """All ties and pairs of the rarer direction, and as many of the commoner one, alike in length.

    Pairs are alike where the longer and the shorter answer are of the same length to half a power
    of two; what a cell lacks is filled with those whose answers differ least.
    """
    most = 0.5 + (TOLERANCE if settings.tolerance is None else settings.tolerance)
    sign = np.sign(table.one - table.two)
    rarer_sign = -1 if (sign > 0).sum() >= (sign < 0).sum() else 1
    rarer, commoner = np.flatnonzero(sign == rarer_sign), np.flatnonzero(sign == -rarer_sign)
    ties = int((sign == 0).sum())
    # (commoner + ties / 2) / (commoner + rarer + ties) <= most
    wanted = math.floor((most * (len(rarer) + ties) - ties / 2) / (1 - most) + 1e-9)
    if len(commoner) <= wanted:
        return np.ones(len(sign), dtype=bool)
    if not wanted:
        raise DataError(
            "in every pair the same side is longer, so no choice of pairs removes the bias",
            fix="collect pairs in which the shorter answer is better",
        )
    picked = _matched(table, rarer, commoner, wanted)
    kept: NDArray[np.bool_] = sign != -rarer_sign
    kept[picked] = True
    return kept


def _matched(
    table: _Table, rarer: NDArray[np.intp], commoner: NDArray[np.intp], wanted: int
) -> list[int]:
    """`wanted` of the commoner pairs: first those that mirror a rarer one."""
    room: dict[tuple[int, int], int] = {}
    for place in rarer.tolist():
        cell = _cell(table, place)
        room[cell] = room.get(cell, 0) + 1
    gap = np.abs(np.log1p(table.one) - np.log1p(table.two))
    matched, left = [], []
    for place in sorted(commoner.tolist(), key=lambda n: float(table.draws[n])):
        cell = _cell(table, place)
        if room.get(cell, 0):
            room[cell] -= 1
            matched.append(place)
        else:
            left.append(place)
    left.sort(key=lambda n: (float(gap[n]), float(table.draws[n])))
    return (matched + left)[:wanted]


def _cell(table: _Table, place: int) -> tuple[int, int]:
    one, two = float(table.one[place]), float(table.two[place])
    return round(2 * math.log2(1 + max(one, two))), round(2 * math.log2(1 + min(one, two)))


def _of_thumbs(table: _Table, settings: BalanceSettings) -> NDArray[np.bool_]:
    """In every bin of length the same ratio of labels as in all; bins as wide as the AUC allows."""
    tolerance = TOLERANCE if settings.tolerance is None else settings.tolerance
    _expect_both(table)
    if abs(auc(table.one[table.two == 1], table.one[table.two == 0]) - 0.5) <= tolerance:
        return np.ones(len(table.one), dtype=bool)
    different = len(np.unique(table.one))
    bins = FEWEST_BINS
    while True:
        kept = _in_bins(table, bins)
        bias = table.bias(kept) if kept.any() else None
        if bias and bias.auc is not None and abs(bias.auc - 0.5) <= tolerance:
            return kept
        if bins >= different:
            break
        bins *= 2
    raise DataError(
        "liked and disliked answers have no lengths in common, so no choice of them removes the "
        "bias",
        fix="collect short and long answers under both labels, or raise the tolerance",
    )


def _in_bins(table: _Table, bins: int) -> NDArray[np.bool_]:
    edges = np.unique(np.quantile(table.one, np.linspace(0, 1, bins + 1)[1:-1]))
    bin_of = np.searchsorted(edges, table.one, "left")
    liked_share = table.two.mean()
    kept = np.zeros(len(table.one), dtype=bool)
    for number in range(len(edges) + 1):
        inside = bin_of == number
        sides = {1: np.flatnonzero(inside & (table.two == 1)),
                 0: np.flatnonzero(inside & (table.two == 0))}  # fmt: skip
        share = {1: liked_share, 0: 1 - liked_share}
        whole = min(len(sides[label]) / share[label] for label in sides)
        for label, places in sides.items():
            kept[_drawn(table, places, round(whole * share[label]))] = True
    return kept


def _of_labels(table: _Table, settings: BalanceSettings) -> NDArray[np.bool_]:
    """All of the rarer label, at most `ratio` times as many of the other."""
    _expect_both(table)
    liked, disliked = np.flatnonzero(table.two == 1), np.flatnonzero(table.two == 0)
    rarer, commoner = sorted((liked, disliked), key=len)
    kept = np.zeros(len(table.one), dtype=bool)
    kept[rarer] = True
    kept[_drawn(table, commoner, int(len(rarer) * (settings.ratio or 1.0)))] = True
    return kept


def _drawn(table: _Table, places: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """The first `count` of these records in the order of their draws."""
    return places[np.argsort(table.draws[places], kind="stable")][:count]


def _expect_both(table: _Table) -> None:
    if not 0 < table.two.mean() < 1:
        label = "liked" if table.two.any() else "disliked"
        raise DataError(f"all answers are {label}: there is nothing to balance them with",
                        fix="add answers with the other label")  # fmt: skip


_CHOICES = {
    (Preference, "length"): _of_pairs,
    (Feedback, "length"): _of_thumbs,
    (Feedback, "label"): _of_labels,
}
"""Which records are kept, by their kind and by the bias that is removed."""
