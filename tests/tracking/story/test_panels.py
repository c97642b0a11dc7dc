"""Which curves stand where, and which alarm stands on which curve."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from strop.recipe.train.alarm import OnlineDpoAlarms, PairAlarms, PolicyAlarms, SampleAlarms
from strop.tracking.story.log import MetricsLog
from strop.tracking.story.panels import CURVES, Panel, panels_of
from strop.train.monitor.alarms import DETECTORS

Rows = Sequence[Mapping[str, object]]


def panels(tmp_path: Path, rows: Rows) -> dict[str, Panel]:
    path = tmp_path / "metrics.jsonl"
    numbered = enumerate(rows, start=1)
    path.write_text("".join(json.dumps({"step": n, **row}) + "\n" for n, row in numbered))
    log = MetricsLog(path)
    log.refresh()
    return {panel.name: panel for panel in panels_of(log)}


def online(**more: Sequence[object]) -> Rows:
    base = {
        "loss": [1e-8, -3e-9, 2e-8],
        "reward": [0.1, 0.4, 0.6],
        "entropy": [2.0, 1.0, 0.4],
        "completions/mean_length": [30.0, 35.0, 41.0],
        "kl": [0.0, 0.1, 0.2],
        "hack/empty": [0.0, 0.0, 0.0],
        "learning_rate": [2e-6, 1e-6, 5e-7],
        **more,
    }
    return [{name: values[k] for name, values in base.items()} for k in range(3)]


def test_the_four_that_are_read_together_come_first_and_flat_ones_last(tmp_path: Path) -> None:
    found = panels(tmp_path, online())
    assert list(found)[:4] == ["reward", "completions/mean_length", "entropy", "kl"]
    assert [found[name].place for name in list(found)[:4]] == ["together"] * 4
    assert found["learning_rate"].place == "own"
    assert found["hack/empty"].place == "folded"
    assert found["hack/empty"].why == "always 0"


def test_a_loss_that_is_rounding_is_folded(tmp_path: Path) -> None:
    found = panels(tmp_path, online())
    assert found["loss"].why == "0 but for rounding (at most 2e-08)"


def test_held_out_values_stand_beside_trained_ones(tmp_path: Path) -> None:
    found = panels(tmp_path, online(eval_reward=[0.1, None, 0.3]))
    assert "eval_reward" not in found
    trained, unseen = found["reward"].series
    assert (trained.role, unseen.role) == ("training", "held out")
    assert unseen.steps_N.tolist() == [1, 3]


def test_the_only_part_of_a_reward_is_folded_as_the_same_curve(tmp_path: Path) -> None:
    found = panels(tmp_path, online(**{"rewards/exact/mean": [0.1, 0.4, 0.6]}))
    assert found["rewards/exact/mean"].why == "the same as Reward"
    two = panels(tmp_path, online(**{"rewards/exact/mean": [0.1, 0.4, 0.7]}))
    assert two["rewards/exact/mean"].place == "own"


def test_an_alarm_stands_on_its_curve_which_is_then_not_folded(tmp_path: Path) -> None:
    said = "habits at step 2: completions show `flattery` in 40%, at the start 1%"
    rows = [dict(row) for row in online(**{"hack/flattery": [0.0, 0.0, 0.0]})]
    rows[1]["alarms"] = [["warn", said], ["warn", "entropy_collapse at step 2: entropy fell"]]
    found = panels(tmp_path, rows)
    assert [alarm.name for alarm in found["hack/flattery"].alarms] == ["habits"]
    assert found["hack/flattery"].place == "own"
    assert [alarm.name for alarm in found["entropy"].alarms] == ["entropy_collapse"]
    assert not found["hack/empty"].alarms


def test_a_capability_that_fell_has_the_alarm_and_not_the_target_that_rose(tmp_path: Path) -> None:
    said = ("capability_regression at step 2: the target rose (exact 0.2 to 0.5) while general "
            "scores fell (format 0.9 to 0.4): the run pays")  # fmt: skip
    rows = [{"dev/exact": 0.2 * n, "dev/format": 0.9 / n, "loss": 1.0 / n} for n in (1, 2, 3)]
    told = [dict(row) for row in rows]
    told[1]["alarms"] = [["warn", said]]  # type: ignore[assignment]
    found = panels(tmp_path, told)
    assert found["dev/format"].alarms
    assert not found["dev/exact"].alarms


def test_without_a_reward_the_loss_comes_first(tmp_path: Path) -> None:
    rows = [{"entropy": 1.0 / n, "rewards/margins": n, "loss": 2.0 / n} for n in (1, 2, 3)]
    assert list(panels(tmp_path, rows)) == ["loss", "rewards/margins", "entropy"]


def test_every_alarm_of_every_method_has_a_curve() -> None:
    assert set(CURVES) == set(DETECTORS)
    kinds = (PairAlarms, SampleAlarms, PolicyAlarms, OnlineDpoAlarms)
    assert {name for kind in kinds for name in kind.model_fields} <= set(CURVES)


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_one_value_is_shown(tmp_path: Path, value: float) -> None:
    found = panels(tmp_path, [{"loss": value}])
    assert found["loss"].place == ("folded" if value == 0 else "together")
