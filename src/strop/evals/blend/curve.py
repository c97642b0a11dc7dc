"""A blend at several weights, each measured on one suite, and the gate asked which may be promoted.

In the output folder: `points/<weight>/` is an eval, `verdicts/<weight>.json` what the gate said,
`curve.json` and `curve.svg` the whole. The models themselves are not kept: the same
blend at the same weight gives the same bytes again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from strop.errors import OutputError, UsageError
from strop.evals.blend.picture import picture
from strop.evals.gate.verdict import read_verdict, run_gate
from strop.evals.inputs import suite_hash
from strop.evals.run import OnPart, run_suite
from strop.evals.summary import read_summary
from strop.files import SHORT, remove, sha256_hex, write_json, write_whole
from strop.model.blend.make import Blend, write_blend
from strop.model.blend.settings import settle
from strop.recipe.gate import GateRules
from strop.recipe.suite import Suite

STAMP = "inputs"
CURVE = "curve.json"


@dataclass(frozen=True, slots=True)
class Point:
    """One weight: `Point(0.4, "9b1c...", {"greedy/accuracy": 0.59}, "pass", "Pass: ...")`.

    `sha256` is the hash of the weights; `verdict` is `None` without a gate, and at weight 0, which
    the others are compared with.
    """

    weight: float
    sha256: str
    scores: dict[str, float]
    verdict: str | None
    sentence: str | None


@dataclass(frozen=True, slots=True)
class Curve:
    """All points, by rising weight. `targets` are the scores that should rise, `kept` those that
    must not fall."""

    method: str
    models: tuple[str, ...]
    targets: tuple[str, ...]
    kept: tuple[str, ...]
    points: tuple[Point, ...]

    @property
    def passing(self) -> list[Point]:
        return [point for point in self.points if point.verdict == "pass"]

    @property
    def best(self) -> Point | None:
        """Of the points that pass, the one with the highest sum of targets less what is forgotten;
        of equal ones the lowest weight."""
        return max(self.passing, key=self._gain, default=None)

    def _gain(self, point: Point) -> float:
        return sum(point.scores[name] for name in self.targets) - self.forgotten(point)

    def forgotten(self, point: Point) -> float:
        """How far the kept score that fell most has fallen since weight 0 (or the lowest weight);
        never below 0."""
        start = min(self.points, key=lambda one: abs(one.weight)).scores
        return max([0.0, *(start[name] - point.scores[name] for name in self.kept)])

    @property
    def sentences(self) -> list[str]:
        """What was found, in words."""
        judged = [point for point in self.points if point.verdict is not None]
        if not judged:
            return []
        best = self.best
        if best is None:
            return [f"no weight passes the gate, of {len(judged)}"]
        passing = ", ".join(f"{point.weight:g}" for point in self.passing)
        return [
            f"passes at {passing}; gains most for what it loses at {best.weight:g}",
            f"make it: strop blend {' '.join(self.models)} --method {self.method} "
            f"--weights {best.weight:g} --output DIR",
            f"{len(judged)} weights were judged on one suite, and the best of many looks better "
            "than it is: measure the one you take on items that did not choose it",
        ]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        best = self.best
        rows = [{**asdict(p), "forgotten": self.forgotten(p)} for p in self.points]
        return {**asdict(self), "points": rows, "passing": [p.weight for p in self.passing],
                "best": None if best is None else best.weight}  # fmt: skip


def run_curve(
    blend: Blend,
    weights: Sequence[float],
    suite: Suite,
    output: Path,
    *,
    policy: GateRules | None = None,
    target: str | None = None,
    registry: Path | None = None,
    on_point: Callable[[float], None] = lambda weight: None,
    on_part: OnPart = lambda name, done, total: None,
) -> Curve:
    """Blend, measure and judge at every weight; points that were measured by an earlier start are
    read. With a `policy` weight 0 is measured in any case: the others are compared with it.

    `target` names the score that should rise where no policy does. Raises `OutputError` for a
    folder that holds something else, `UsageError` for a target that the suite does not have.
    """
    if policy is not None and target is not None:
        raise UsageError("the policy of --gate names the targets", fix="drop --target")
    wanted = sorted({*weights, *([0.0] if policy is not None else [])})
    _claim(output, _inputs(blend, suite))
    for weight in wanted:
        on_point(weight)
        _measure(blend, weight, suite, output, on_part)
    points = [_judged(weight, output, policy, registry) for weight in wanted]
    targets, kept = _axes(points, policy, target)
    models = tuple(side.stored.name for side in blend.sides)
    curve = Curve(blend.settings.method, models, targets, kept, tuple(points))
    write_json(output / CURVE, curve.plain())
    write_whole(output / "curve.svg", picture(curve.plain()))
    return curve


def _inputs(blend: Blend, suite: Suite) -> str:
    """Hash of all that a point depends on but its weight."""
    told = {name: v for name, v in blend.settings.plain().items() if name != "weights"}
    sides = [side.stored.sha256 for side in blend.sides]
    base = None if blend.base is None else blend.base.sha256
    return sha256_hex(json.dumps([told, sides, base, suite_hash(suite)]), SHORT)


def _claim(output: Path, inputs: str) -> None:
    stamp = output / STAMP
    if stamp.is_file() and stamp.read_text() != inputs:
        raise OutputError("holds the curve of other models, settings or another suite",
                          where=str(output), fix="choose another --output")  # fmt: skip
    if output.exists() and not stamp.is_file() and (output.is_file() or any(output.iterdir())):
        raise OutputError("the output exists and holds no curve", where=str(output),
                          fix="choose another --output")  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    write_whole(stamp, inputs)


def _place(output: Path, weight: float) -> Path:
    return output / "points" / f"{weight:.6g}"


def _measure(blend: Blend, weight: float, suite: Suite, output: Path, on_part: OnPart) -> None:
    place = _place(output, weight)
    if read_summary(place) is not None:
        return
    used = blend.settings
    at = settle(used.method, [weight], len(blend.sides), density=used.density, seed=used.seed)
    model = output / "model"
    remove(model)
    write_blend(blend, model, at)
    place.parent.mkdir(exist_ok=True)
    run_suite(suite, str(model), place, on_part=on_part)
    remove(model)


def _judged(weight: float, output: Path, policy: GateRules | None, registry: Path | None) -> Point:
    place = _place(output, weight)
    summary = read_summary(place) or {}
    said: dict[str, Any] = {}
    if policy is not None and weight != 0:
        path = output / "verdicts" / f"{weight:.6g}.json"
        if not path.exists() or read_verdict(path)["policy"] != policy.plain():
            run_gate(policy, _place(output, 0.0), place, path, registry=registry)
        said = read_verdict(path)
    return Point(weight, summary["model"]["sha256"], summary["scores"], said.get("name"),
                 said.get("sentence"))  # fmt: skip


def _axes(
    points: Sequence[Point], policy: GateRules | None, target: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The scores that should rise, and those that must not fall."""
    names = list(points[0].scores)
    if policy is not None:
        demanded = [demand.score for demand in policy.targets]
        rest = [demand.score for demand in policy.guardrails]
        return (tuple(n for n in demanded if n in names), tuple(n for n in rest if n in names))
    if target is not None and target not in names:
        raise UsageError(f"the suite has no score {target!r}", fix=f"it has {', '.join(names)}")
    first = target or names[0]
    return (first,), tuple(name for name in names if name != first)
