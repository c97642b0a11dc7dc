"""The sentence says what moved, and does not speak of noise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from strop.tracking.story.log import MetricsLog
from strop.tracking.story.sentence import change, sentence


def told(tmp_path: Path, columns: Mapping[str, Sequence[object]]) -> str:
    path = tmp_path / "metrics.jsonl"
    count = len(next(iter(columns.values())))
    rows = [{"step": k + 1} | {name: values[k] for name, values in columns.items()}
            for k in range(count)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    log = MetricsLog(path)
    log.refresh()
    return sentence(log)


def test_what_rose_fell_and_held(tmp_path: Path) -> None:
    said = told(tmp_path, {
        "reward": [0.25] * 5 + [0.75] * 5,
        "entropy": [2.0] * 5 + [0.5] * 5,
        "completions/mean_length": [30.0] * 10,
    })  # fmt: skip
    assert said == (
        "Over 10 steps the reward rose from 0.25 to 0.75; entropy fell from 2 to 0.5, while the "
        "length of answers did not change. No alarm rang."
    )


def test_what_held_out_values_did(tmp_path: Path) -> None:
    said = told(tmp_path, {"reward": [0.25] * 5 + [0.75] * 5, "eval_reward": [0.5] * 10})
    assert "the reward rose from 0.25 to 0.75 (held out: unchanged at 0.5)" in said


def test_alarms_are_named_with_their_first_step(tmp_path: Path) -> None:
    rang = [["warn", "spike at step 3: the gradient norm is large"]]
    said = told(tmp_path, {"loss": [2.0, 1.0, 1.0, 1.0], "alarms": [[], [], rang, rang]})
    assert said.endswith("Alarms: spike at step 3 and 1 more time.")


def test_the_loss_of_a_policy_gradient_is_no_news(tmp_path: Path) -> None:
    assert "loss" not in told(tmp_path, {"reward": [0.0, 1.0], "loss": [1.0, 5.0]})
    assert "the loss rose from 1 to 5" in told(tmp_path, {"loss": [1.0, 5.0]})


def test_rounding_at_the_start_is_0(tmp_path: Path) -> None:
    said = told(tmp_path, {"rewards/margins": [-1.8e-6, 26.0]})
    assert "the margin rose from 0 to 26" in said


def test_nothing_yet(tmp_path: Path) -> None:
    assert sentence(MetricsLog(tmp_path / "none")) == "Nothing was logged yet."
    assert told(tmp_path, {"loss": [1.0]}).startswith("Over 1 step nothing was measured twice.")


def test_noise_is_seldom_called_a_change_and_a_real_one_is_found() -> None:
    rng = np.random.default_rng(7)
    flat = [change(rng.normal(0.5, 0.1, 100)) for _ in range(400)]
    risen = [change(rng.normal(0.5, 0.1, 100) + np.linspace(0, 0.3, 100)) for _ in range(400)]
    assert sum(one is not None and one.verb != "held" for one in flat) <= 8
    assert sum(one is not None and one.verb == "rose" for one in risen) >= 380
