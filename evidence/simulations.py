"""Does the gate keep its word where the truth is known? Writes the tables of docs/statistics.md.

    python -m evidence.simulations                        # 20,000 repetitions a cell
    python -m evidence.simulations --repetitions 2000     # a look, a tenth of the time

Seeded: the same command makes the same tables.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from evidence.planted import Flipping, Floats, Graded, shares, sizes
from strop.stats.clustered import MeanEstimate, freedom
from strop.stats.compare import band, weigh
from strop.stats.student import t_quantile
from strop.stats.tango import FlipCounts

PAGE = Path(__file__).parents[1] / "docs/statistics.md"
ITEMS = (50, 100, 200, 500, 1319)
DISCORDANCE = (0.05, 0.1, 0.2, 0.4)
MARGINS = (0.01, 0.03, 0.05)
CORRELATIONS = (0.0, 0.2, 0.5)
CLUSTERS = (10, 20, 50)
MARGIN = 0.03
NORMAL = NormalDist()

KINDS = (
    ("graded", 8, None),
    ("0 or 1, 0.05 differ", 8, 0.05),
    ("0 or 1, 0.1 differ", 8, 0.1),
    ("0 or 1, 0.4 differ", 8, 0.4),
    ("0 or 1, 0.1 differ", 40, 0.1),
)
"""(name, mean size of a cluster, discordance)"""
TAIL = 0.025
"""One end of a 95 % interval."""

Table = list[list[str]]
Sizes = NDArray[np.intp]
Planted = Graded | Flipping


class Bench:
    """Draws, judges and counts; every cell has its own seed."""

    def __init__(self, repetitions: int) -> None:
        self.repetitions = repetitions
        self.cells = 0

    def draw(self) -> np.random.Generator:
        self.cells += 1
        return np.random.default_rng([6, self.cells])

    def flips(self, n: int, truth: tuple[float, float, float]) -> Counter[FlipCounts]:
        """What samples of `n` items, scored 0 or 1, hold."""
        drawn = self.draw().multinomial(n, truth, size=self.repetitions)
        return Counter(FlipCounts(gained, lost, n) for gained, lost, _ in drawn.tolist())

    def p_values(self, planted: Planted, *bounds: float) -> Floats:
        """[repetitions, bounds]: the gate's one-sided p-values of clustered scores."""
        index = np.repeat(np.arange(len(planted.sizes)), planted.sizes)
        found = []
        for base, candidate in planted.draws(self.draw(), self.repetitions):
            _, evidence = weigh(base, candidate, index)
            found.append([evidence.p_value(bound) for bound in bounds])
        return np.array(found)


def share_of(found: Counter[FlipCounts], holds: Callable[[FlipCounts], bool]) -> float:
    return sum(times for one, times in found.items() if holds(one)) / found.total()


def above(bound: float) -> Callable[[FlipCounts], bool]:
    """Whether the lower end of the 95 % interval lies above the bound, told by the p-value."""
    return lambda one: one.p_value(bound) < TAIL


def below(bound: float) -> Callable[[FlipCounts], bool]:
    return lambda one: one.p_value(bound) > 1 - TAIL


def percent(*values: float) -> str:
    return " / ".join(f"{100 * value:.1f}" for value in values)


def at_margin(bench: Bench) -> Table:
    """Passes of a candidate that is worse by exactly the margin; the worst of the margins."""

    def worst(n: int, discordance: float) -> float:
        return max(
            share_of(bench.flips(n, shares(discordance, -margin)), above(-margin))
            for margin in MARGINS
        )

    return [[f"{n:,}", *(percent(worst(n, d)) for d in DISCORDANCE)] for n in ITEMS]


def unchanged(bench: Bench) -> Table:
    """An unchanged model: shown worse / shown better / truth inside the interval."""

    def cell(n: int, discordance: float) -> str:
        found = bench.flips(n, shares(discordance, 0.0))
        worse, better = share_of(found, below(0.0)), share_of(found, above(0.0))
        return percent(worse, better, 1 - worse - better)

    return [[f"{n:,}", *(cell(n, d) for d in DISCORDANCE)] for n in ITEMS]


def ten_points(bench: Bench) -> Table:
    """A true drop of ten points: this gate at 200 items, and a point rule at 20."""
    rows = []
    for discordance in DISCORDANCE[1:]:
        truth = shares(discordance, -0.1)
        found = bench.flips(200, truth)
        passed = share_of(found, above(-MARGIN))
        worse = share_of(found, lambda one: below(0.0)(one) and not above(-MARGIN)(one))
        allowed = share_of(bench.flips(20, truth), lambda one: one.lost - one.gained <= 1)
        rows.append([f"{discordance:g}", *map(percent, (passed, worse, allowed))])
    return rows


def clustered(bench: Bench) -> Table:
    """Clustered scores: passes at the margin / unchanged shown worse, worst correlation."""
    rows = []
    for unequal in (False, True):
        for name, mean, discordance in KINDS:
            cells = []
            for count in CLUSTERS:
                members = sizes(count, mean, unequal)
                errors = [_errors(bench, members, discordance, rho) for rho in CORRELATIONS]
                cells.append(percent(*map(max, zip(*errors, strict=True))))
            rows.append([name, f"{'un' * unequal}equal, {mean}", *cells])
    return rows


def _errors(
    bench: Bench, members: Sizes, discordance: float | None, rho: float
) -> tuple[float, float]:
    """(passes at the margin, unchanged shown worse)"""
    if discordance is None:
        found = bench.p_values(Graded(members, rho, -MARGIN), -MARGIN)
        return float((found < TAIL).mean()), float((found > 1 - TAIL).mean())
    at_bound = bench.p_values(Flipping(members, rho, shares(discordance, -MARGIN)), -MARGIN)
    same = bench.p_values(Flipping(members, rho, shares(discordance, 0.0)), 0.0)
    return float((at_bound < TAIL).mean()), float((same > 1 - TAIL).mean())


def samples(bench: Bench) -> Table:
    """Four samples an item, scored 0 or 1; each item is a cluster."""
    rows = []
    for items in (50, 100, 200):
        members = sizes(items, 4, unequal=False)
        cells = []
        for discordance in DISCORDANCE:
            errors = [_errors(bench, members, discordance, rho) for rho in (0.2, 0.5)]
            cells.append(percent(*map(max, zip(*errors, strict=True))))
        rows.append([str(items), *cells])
    return rows


def needed_flips(bench: Bench) -> Table:
    """n_needed of scores 0 or 1 against the n that a simulation finds."""
    rows = []
    for question in ("no worse", "better"):
        for discordance in DISCORDANCE:
            cells = []
            for gap in (0.01, 0.02, 0.03, 0.05):
                bound, truth = (-gap, 0.0) if question == "no worse" else (0.0, gap)
                cells.append(_needed_flips(bench, shares(discordance, truth), bound))
            rows.append([question, f"{discordance:g}", *cells])
    return rows


def _needed_flips(bench: Bench, truth: tuple[float, float, float], bound: float) -> str:
    said = FlipCounts(truth[0] * 1e6, truth[1] * 1e6, 1e6).needed(bound, 0.05)
    assert said is not None

    def power(n: int) -> float:
        return share_of(bench.flips(n, truth), above(bound))

    return _against(said, _found(power, [round(said * step) for step in STEPS]))


STEPS = (0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15)


def _found(power: Callable[[int], float], tried: Sequence[int]) -> float:
    """The n of 80 % power: a line through probit(power) over sqrt(n), which it nearly is."""
    chances = [NORMAL.inv_cdf(min(0.9999, power(n))) for n in tried]
    slope, level = np.polyfit(np.sqrt(tried), chances, 1)
    return float(((NORMAL.inv_cdf(0.8) - level) / slope) ** 2)


def _against(said: float, found: float) -> str:
    return f"{said:,.0f} ({100 * (said / found - 1):+.1f} %)"


def needed_clusters(bench: Bench) -> Table:
    """n_needed of graded, clustered scores; the truth lies `gap` above the bound."""
    rows = []
    for name, pattern in (("equal", (8,) * 5), ("unequal", (2, 4, 8, 12, 14))):
        for rho in CORRELATIONS:
            cells = [_needed_clusters(bench, np.array(pattern), rho, gap)
                     for gap in (0.03, 0.05, 0.1)]  # fmt: skip
            rows.append([name, f"{rho:g}", *cells])
    return rows


def _needed_clusters(bench: Bench, pattern: np.ndarray, rho: float, gap: float) -> str:
    """Clusters come in rounds of five; the error that is planted is the true one."""
    members = np.tile(pattern, 4)
    n = int(members.sum())
    error = 0.3 * math.sqrt(rho * float((members**2).sum()) / n**2 + (1 - rho) / n)
    known = freedom(np.repeat(np.arange(len(members)), members))
    said = MeanEstimate(gap, error, known, n).needed(0.0, 0.05)
    assert said is not None
    centre = max(2, round(said / pattern.sum()))
    tried = sorted({max(1, centre + step * max(1, centre // 12)) for step in (-2, -1, 0, 1, 2)})

    def power(rounds: int) -> float:
        return _clusters_pass(bench, np.tile(pattern, rounds), rho, gap)

    found = _found(power, tried) * pattern.sum()
    return _against(said, float(found))


def _clusters_pass(bench: Bench, members: Sizes, rho: float, gap: float) -> float:
    """How many clustered samples pass a bound of 0: the test on the sums of clusters, which is all
    that it looks at."""
    n = int(members.sum())
    spread = 0.3 * np.sqrt(rho * members**2 + (1 - rho) * members)
    sums = bench.draw().normal(gap * members, spread, (bench.repetitions, len(members)))
    means = sums.sum(axis=1) / n
    squares = (sums - means[:, None] * members) ** 2 / (1 - members / n)
    limit = t_quantile(1 - TAIL, freedom(np.repeat(np.arange(len(members)), members)))
    return float((means > limit * np.sqrt(squares.sum(axis=1)) / n).mean())


def ratios(bench: Bench) -> Table:
    """Lengths of which each changes by about a quarter; the true ratio is the band's upper end."""
    rows = []
    for n, between in ((50, 0.0), (200, 0.0), (200, 0.15)):
        draw, labels, found = bench.draw(), np.arange(n) // (10 if between else 1), []
        for _ in range(bench.repetitions):
            base = draw.lognormal(4.0, 0.5, n)
            shift = draw.normal(0.0, between, n)[labels] + draw.normal(0.0, 0.2, n)
            candidate = 1.1 * base * np.exp(shift - (between**2 + 0.2**2) / 2)
            found.append(band(base, candidate, low=0.9, high=1.1, clusters=labels))
        passed = float(np.mean([one.verdict == "pass" for one in found]))
        covered = float(np.mean([one.low <= 1.1 <= one.high for one in found]))
        name = f"{n} in clusters of 10" if between else str(n)
        rows.append([name, percent(passed), percent(covered)])
    return rows


DIFFER = [f"{value:g} differ" for value in DISCORDANCE]
GAPS = ["0.01", "0.02", "0.03", "0.05"]
COUNTS = [f"{count} clusters" for count in CLUSTERS]
TABLES: dict[str, tuple[list[str], Callable[[Bench], Table]]] = {
    "at the margin": (["items", *DIFFER], at_margin),
    "unchanged": (["items", *DIFFER], unchanged),
    "ten points": (["differ", "pass", "regressed", "point rule passes"], ten_points),
    "clustered": (["scores", "cluster sizes, mean", *COUNTS], clustered),
    "samples": (["items", *DIFFER], samples),
    "needed flips": (["question", "differ", *GAPS], needed_flips),
    "needed clusters": (["sizes", "correlation", "0.03", "0.05", "0.1"], needed_clusters),
    "ratios": (["items", "pass at the end", "covered"], ratios),
}


def written(page: str, name: str, table: Table) -> str:
    """The page with one table replaced, between its two markers."""
    header, _ = TABLES[name]
    lines = [header, ["---"] * len(header), *table]
    body = "\n".join(f"| {' | '.join(row)} |" for row in lines)
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
    if not re.search(pattern, page, flags=re.S):
        raise SystemExit(f"{PAGE} has no place for the table {name!r}")
    return re.sub(pattern, lambda found: f"{found[1]}\n{body}\n\n{found[2]}", page, flags=re.S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20_000)
    parser.add_argument("--only", nargs="*", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    for name in options.only:
        begun = time.monotonic()
        table = TABLES[name][1](Bench(options.repetitions))
        options.page.write_text(written(options.page.read_text(), name, table))
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
