"""The curve over the weight of a blend: measured once, judged by the gate, drawn."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from strop.errors import OutputError, UsageError
from strop.evals.blend import curve as curves
from strop.evals.blend.curve import Curve, Point, run_curve
from strop.evals.blend.picture import picture
from strop.evals.summary import read_summary
from strop.model.blend.make import Blend, checked_blend
from strop.model.blend.settings import progression, settle
from strop.model.load import weights_hash
from strop.recipe.gate import GateRules
from strop.recipe.suite import Suite
from strop.registry.store import Registry
from tests.support.suites import PAIRS, MakeSuite

HERE = Path("no-registry.db")


@pytest.fixture
def suite(make_suite: MakeSuite) -> Suite:
    return make_suite(PAIRS)


@contextmanager
def blended(*models: Path, **options: Any) -> Iterator[Blend]:
    settings = settle("linear", [], 2)
    with checked_blend([str(m) for m in models], settings, registry=HERE, **options) as blend:
        yield blend


def test_progressions() -> None:
    assert progression("0,0.25,...,1") == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert progression("0, 0.1, ..., 0.3, 1") == pytest.approx((0, 0.1, 0.2, 0.3, 1))
    assert progression("1,0,...,-2") == (1.0, 0.0, -1.0, -2.0)
    assert progression("0.5") == (0.5,)
    for wrong in ("0,0.3,...,1", "0,...,1", "0,0.1,...", "a,b", "", "0,nan", "0,0.1,...,-1"):
        with pytest.raises(UsageError):
            progression(wrong)


def test_points_are_measured_once_and_models_are_not_kept(
    model_folder: Path, base_folder: Path, suite: Suite, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made: list[float] = []
    write = curves.write_blend

    def counted(blend: Blend, output: Path, settings: Any) -> str:
        made.append(settings.weights[1])
        if len(made) == 3:
            raise KeyboardInterrupt
        return write(blend, output, settings)

    monkeypatch.setattr(curves, "write_blend", counted)
    with blended(model_folder, base_folder) as blend:
        with pytest.raises(KeyboardInterrupt):
            run_curve(blend, (0.0, 0.5, 1.0), suite, tmp_path / "curve")
        found = run_curve(blend, (0.0, 0.5, 1.0), suite, tmp_path / "curve")
    assert made == [0.0, 0.5, 1.0, 1.0]
    assert [point.weight for point in found.points] == [0.0, 0.5, 1.0]
    assert found.points[0].sha256 == weights_hash(model_folder)
    assert found.points[0].sha256 != found.points[1].sha256 != found.points[2].sha256
    kept = {path.name for path in (tmp_path / "curve").iterdir()}
    assert kept == {"points", "curve.json", "curve.svg", "inputs"}
    summary = read_summary(tmp_path / "curve/points/0.5")
    assert summary is not None
    assert summary["scores"] == found.points[1].scores
    with blended(base_folder, model_folder) as other, pytest.raises(OutputError, match="of other"):
        run_curve(other, (0.0,), suite, tmp_path / "curve")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    with blended(model_folder, base_folder) as blend, pytest.raises(OutputError, match="no curve"):
        run_curve(blend, (0.0,), suite, tmp_path / "full")


def test_the_gate_is_asked_at_every_weight_but_zero(
    model_folder: Path, base_folder: Path, suite: Suite, tmp_path: Path
) -> None:
    """Weight 0 is measured unasked, because the others are compared with it."""
    policy = GateRules.model_validate({"targets": [{"score": "edits", "min_gain": 0.1}]})
    registry = tmp_path / "registry.db"
    with blended(model_folder, base_folder) as blend:
        found = run_curve(blend, (0.5,), suite, tmp_path / "curve", policy=policy,
                          registry=registry)  # fmt: skip
        again = run_curve(blend, (0.5,), suite, tmp_path / "curve", policy=policy,
                          registry=registry)  # fmt: skip
    assert [point.weight for point in found.points] == [0.0, 0.5]
    assert found.points[0].verdict is None
    assert found.points[1].verdict in ("pass", "inconclusive", "regressed")
    assert again == found
    attempts = Registry(registry).attempts()
    assert [one.candidate for one in attempts] == [found.points[1].sha256]
    assert (found.targets, found.kept) == (("edits",), ())


def test_a_target_is_named_once(
    model_folder: Path, base_folder: Path, suite: Suite, tmp_path: Path
) -> None:
    policy = GateRules.model_validate({"targets": [{"score": "edits"}]})
    with blended(model_folder, base_folder) as blend:
        with pytest.raises(UsageError, match="drop --target"):
            run_curve(blend, (0.5,), suite, tmp_path / "c", policy=policy, target="edits")
        with pytest.raises(UsageError, match="no score 'edit'"):
            run_curve(blend, (0.5,), suite, tmp_path / "c", target="edit")
        assert not (tmp_path / "c/curve.json").exists()
    shutil.rmtree(tmp_path / "c")


def point(weight: float, gain: float, kept: float, verdict: str | None) -> Point:
    return Point(weight, "0" * 16, {"new": gain, "old": kept}, verdict, None)


CURVE = Curve(
    "linear", ("a", "b"), ("new",), ("old",),
    (point(0.0, 0.5, 0.8, None), point(0.3, 0.9, 0.78, "pass"), point(0.4, 0.91, 0.7, "pass"),
     point(1.0, 1.0, 0.1, "regressed")),
)  # fmt: skip


def test_what_is_gained_and_forgotten() -> None:
    assert [CURVE.forgotten(one) for one in CURVE.points] == pytest.approx([0.0, 0.02, 0.1, 0.7])
    assert CURVE.best is not None
    assert CURVE.best.weight == 0.3  # 0.9 - 0.02 is more than 0.91 - 0.1
    assert CURVE.sentences[0] == "passes at 0.3, 0.4; gains most for what it loses at 0.3"
    assert "strop blend a b --method linear --weights 0.3 --output DIR" in CURVE.sentences[1]
    assert "3 weights were judged on one suite" in CURVE.sentences[2]
    refused = Curve("linear", ("a", "b"), ("new",), ("old",), (CURVE.points[0], CURVE.points[3]))
    assert refused.sentences == ["no weight passes the gate, of 1"]


def test_the_picture_shows_every_point_at_its_place() -> None:
    tree = ElementTree.fromstring(picture(CURVE.plain()))
    name = "{http://www.w3.org/2000/svg}"
    dots = tree.findall(f"{name}circle")
    assert len(dots) == 4 * 2 + 4  # two scores over the weight, and one against the other
    new = [float(dot.get(axis, 0)) for dot in dots[:4] for axis in ("cx", "cy")]
    # the panel is 350 wide from 56 on and 250 high from 290 up; scores go from 0 to 1
    assert new == pytest.approx([56, 165, 161, 65, 196, 62.5, 406, 40])
    against = dots[8:]
    # the largest fall, 0.7, is at the right edge of the second panel, 496 + 350
    assert float(against[3].get("cx", 0)) == pytest.approx(846)
    assert [dot.get("fill") for dot in against] == ["#1f6feb", "#1a7f37", "#1a7f37", "#fff"]
    said = [text.text for text in tree.findall(f"{name}text")]
    assert "● passes the gate" in said
    assert "new against the largest fall of the others" in said
