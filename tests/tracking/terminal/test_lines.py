"""A run's story in a hundred columns: what stands in it, where, and that its texts are inert."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len

from strop.files import LOCK
from strop.tracking.story.panels import Series
from strop.tracking.story.story import Story, read_story
from strop.tracking.terminal.lines import ASCII, UNICODE, story_lines, written
from strop.tracking.terminal.numbers import Numbers, numbers_of, story_plain
from tests.support.studio import write_run


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return read_story(write_run(tmp_path / "grpo"))


def line_of(text: str, begin: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(begin))


def test_it_begins_with_what_happened(story: Story) -> None:
    lines = written(story_lines(story)).splitlines()
    assert lines[0] == "grpo  grpo  finished, step 40 of 40, resumed after step 5"
    assert " ".join(line.strip() for line in lines[1:4]).strip() == story.sentence
    assert "entropy collapse at step 20" in story.sentence


def test_a_curve_stands_over_the_axis_of_all_with_its_numbers(story: Story) -> None:
    text = written(story_lines(story))
    axis, reward = line_of(text, f"{'step':>29}"), line_of(text, "Reward")
    assert axis.split() == ["step", "1", "40", "first", "last", "best", "at", "step"]
    curve = reward[30:64]
    assert len(curve.strip()) == 34  # measured at every step: no gap
    assert (curve[0], curve[-1]) == ("▂", "█")  # the lowest is that of step 4
    # 0.2 + 0.6 n / 40 + 0.05 sin n at 1 and at 40, which is the highest
    assert reward[64:].split() == ["0.257", "0.837", "0.837", "at", "40"]


def test_held_out_values_have_their_own_line_within_the_same_bounds(story: Story) -> None:
    lines = written(story_lines(story)).splitlines()
    number = next(n for n, line in enumerate(lines) if line.startswith("Reward"))
    held = lines[number + 1]
    assert held.startswith("  held out ")
    curve = held[30:64]
    # of 40 steps in 34 columns, 10, 20, 30, 40 fill one column each
    assert [n for n, one in enumerate(curve) if one != " "] == [7, 16, 24, 33]
    # 0.3, 0.4, 0.5, 0.6 between a lowest of 0.18 and a highest of 0.85: below the training curve
    assert max(curve) < "█"


def test_alarms_are_marked_below_the_curve_that_they_came_from(story: Story) -> None:
    lines = written(story_lines(story)).splitlines()
    number = next(n for n, line in enumerate(lines) if line.startswith("Entropy"))
    marked = lines[number + 1]
    assert marked.strip().startswith("alarm")
    assert marked.index("▲") == 30 + 19 * 34 // 40  # step 20 is the twentieth of 40
    assert "entropy_collapse" in marked
    assert [line for line in lines if "▲" in line] == [
        marked, "▲ warn: entropy_collapse at step 20: entropy fell to 0.1 of its start",
    ]  # fmt: skip


def test_flat_curves_are_named_and_not_drawn(story: Story) -> None:
    text = written(story_lines(story))
    assert "Flat or empty. " in text
    assert "always 0: hack/empty" in text
    assert not any(line.startswith("hack/empty") for line in text.splitlines())


def test_the_newest_samples_come_first(story: Story) -> None:
    lines = [one for one in written(story_lines(story)).splitlines() if one.startswith("sample of")]
    assert lines == [f"sample of step {n}, reward {n / 40:.3g}" for n in (40, 39, 38)]
    assert "  prompt      user: Solve 1x = 6" in written(story_lines(story))


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("signs", [UNICODE, ASCII])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int, signs: object) -> None:
    said = "漢字かな" * 60 + "\n" + "x" * 500
    story = read_story(write_run(tmp_path / ("long" * 30), said=said, steps=3000))
    lines = written(story_lines(story, width, signs)).splitlines()  # type: ignore[arg-type]
    assert max(cell_len(line) for line in lines) <= width
    assert any(cell_len(line) > width - 12 for line in lines)
    assert any("best at step" in line for line in lines) == (width >= 80)


def test_ascii_is_enough_for_a_plain_terminal(story: Story) -> None:
    assert written(story_lines(story, signs=ASCII)).isascii()


@pytest.mark.parametrize(
    "said",
    [
        "\x1b[2J\x1b]0;owned\x07",
        "\x9b31m",
        "\r overwritten",
        "\u202ereversed",
        "\ud83d",
        "a\tb\x00",
    ],
)
def test_what_a_model_said_moves_no_cursor(tmp_path: Path, said: str) -> None:
    story = read_story(write_run(tmp_path / "run", said=f"before {said} after"))
    text = written(story_lines(story))
    assert "before" in text
    assert "after" in text
    assert not {one for one in text if one != "\n" and not one.isprintable()}
    text.encode("utf-8")


def test_a_long_text_is_cut_and_says_so(tmp_path: Path) -> None:
    story = read_story(write_run(tmp_path / "run", said="\n".join("abcdefgh")))
    lines = written(story_lines(story)).splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("  completion  a"))
    assert [line.strip() for line in lines[begin + 1 : begin + 4]] == ["b", "c", "d…"]
    assert lines[begin + 4] == ""


def test_what_cannot_be_read_is_told_and_the_rest_is_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    log = run / "metrics.jsonl"
    rows = log.read_text().splitlines()
    log.write_text("\n".join([*rows[:9], '{"step": 10, "rew', *rows[10:]]) + "\n")
    (run / "lineage.json").unlink()
    text = written(story_lines(read_story(run)))
    assert "! metrics.jsonl, line 10: the line is no row of metrics" in text
    assert "! lineage.json is missing" in text
    assert line_of(text, "Reward")


def test_a_run_at_work_says_how_long_it_will_take(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False)
    recipe = (run / "recipe.resolved.yaml").read_text()
    (run / "recipe.resolved.yaml").write_text(recipe.replace("steps: 40", "steps: 100"))
    note = {"pid": os.getpid(), "host": socket.gethostname()}
    (run / LOCK).write_text(json.dumps(note))
    first = written(story_lines(read_story(run))).splitlines()[0]
    # 60 steps are left, and each took a second
    assert first.startswith("run  grpo  running, step 40 of 100, 1 min 0 s left, process ")
    (run / LOCK).unlink()
    stopped = written(story_lines(read_story(run))).splitlines()[0]
    assert stopped.startswith("run  grpo  stopped, step 40 of 100, resumed")


def test_a_run_without_a_step_is_no_error(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "metrics.jsonl").write_text("")
    (run / "samples.jsonl").unlink()
    text = written(story_lines(read_story(run)))
    assert "Nothing was logged yet." in text
    assert "best at step" not in text


class TestNumbers:
    def series(self, name: str, values: list[float]) -> Series:
        return Series(name, "training", np.arange(1, len(values) + 1), np.array(values))

    def test_the_best_of_a_reward_is_its_highest_and_of_a_loss_its_lowest(self) -> None:
        reward = numbers_of(self.series("reward", [0.3, 0.9, 0.9, 0.5]))
        assert reward == Numbers("reward", "training", 0.3, 0.5, 0.9, 2, 0.3, 0.9)
        assert numbers_of(self.series("eval_loss", [2.0, 1.0, 1.5])).best == 1.0
        assert numbers_of(self.series("dev/greedy/accuracy", [0.1, 0.4])).best_step == 2

    def test_of_entropy_nobody_knows_the_better_end(self) -> None:
        found = numbers_of(self.series("entropy", [2.0, 1.0]))
        assert (found.best, found.best_step, found.lowest, found.highest) == (None, None, 1.0, 2.0)

    def test_machines_get_all_of_it(self, story: Story) -> None:
        plain = json.loads(json.dumps(story_plain(story)))
        assert (plain["state"], plain["step"], plain["total"]) == ("finished", 40, 40)
        assert plain["sentence"] == story.sentence
        assert [alarm["name"] for alarm in plain["alarms"]] == ["entropy_collapse"]
        assert [one["step"] for one in plain["samples"]] == [40]
        named = {one["name"]: one for one in plain["metrics"]}
        assert named["eval_reward"]["best_step"] == 40
        bare = story_plain(replace(story, samples=()))
        assert bare["samples"] == []
