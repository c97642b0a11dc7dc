"""`make gpu` on a processor: its order, its time limits, and that it goes on where it stopped."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as bench
from benchmarks import gpu
from benchmarks.duel import Absent
from benchmarks.goals import markdown, rows
from benchmarks.gpu import (
    COMPILED,
    LEAST,
    NO_TRL,
    OUT_OF_TIME,
    SMALL_MOMENTS,
    WARM_UP,
    Part,
    Record,
    measure,
    parts,
)
from benchmarks.limit import Work
from tests.support import ROOT

NAMES = ["gpu-dpo", "gpu-grpo", "gpu-sampler", "gpu-sft"]


def step(seconds: float, **more: Any) -> dict[str, Any]:
    usual = {"seconds": seconds, "sampling": 0.0, "peak": 2**30, "flops": 0.0, "tokens": 100,
             "loss": 0.7, "grad_norm": 2.0}  # fmt: skip
    return {**usual, **more}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    monkeypatch.setattr(gpu, "card", lambda: "a card")
    monkeypatch.setattr(gpu, "peak_rate", lambda: 1e12)
    return Record.of(tmp_path / "results/gpu.json")


def test_the_most_worthwhile_sides_come_first() -> None:
    wanted = parts(tiny=False)
    cases = [part.run.case.name for part in wanted]
    assert list(dict.fromkeys(cases)) == NAMES
    # strop, TRL's likely best and the 8B model come before TRL's further settings
    assert [(p.run.case.name, p.entrant.system) for p in wanted[:7]] == [
        ("gpu-dpo", "strop"), ("gpu-dpo", "trl"), ("gpu-grpo", "trl"), ("gpu-grpo", "strop"),
        ("gpu-sampler", "strop"), ("gpu-sampler", "trl"), ("gpu-sft", "strop"),
    ]  # fmt: skip
    assert all(part.run.bfloat16 for part in wanted)
    assert [(p.run.case.name, p.entrant) for p in parts(tiny=True)] == [
        (p.run.case.name, p.entrant) for p in wanted
    ]


def test_a_later_call_goes_on_where_the_first_was_cut(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: a side that falls, one that takes too long, and a clock that runs out."""
    ran: list[str] = []
    wanted = [
        Part(part.run, replace(part.entrant, name=name), 100.0)
        for part, name in zip(parts(tiny=True), "abcde", strict=False)
    ]
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def alone(part: Part, work: Path, side: dict[str, Any], record: Record) -> None:
        ran.append(part.entrant.name)
        now[0] += 90.0
        side["steps"] = [step(1.0)] * 4
        if part.entrant.name == "a":
            raise Absent("out of memory")
        if part.entrant.name == "c" and len(ran) < 4:
            raise Absent("no step within 85 s")
        side["done"] = True

    monkeypatch.setattr(gpu, "alone", alone)
    lines = list(measure(wanted, tmp_path, record, 265.0))
    assert ran == ["a", "b", "c"]  # c had 85 s left of its 100
    assert LEAST * 100 < 85
    assert [line.rsplit(", ", 1)[1] for line in lines[3:]] == [
        f"d: {OUT_OF_TIME}; the same command goes on here",
        f"e: {OUT_OF_TIME}; the same command goes on here",
    ]
    again = Record.of(record.path)  # as another process reads it
    list(measure(wanted, tmp_path, again, 1e6))
    assert ran == ["a", "b", "c", "c", "d", "e"]
    sides = json.loads(record.path.read_text())["runs"]
    told = {name: side for run in sides.values() for name, side in run["sides"].items()}
    assert told["a"]["absent"] == "out of memory"
    assert all(told[name]["done"] for name in "bcde")


def test_figures_of_another_card_are_not_continued(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    (part, *_) = parts(tiny=True)
    record.side(part)["done"] = True
    record.write()
    assert not Record.of(record.path).open(part)
    monkeypatch.setattr(gpu, "card", lambda: "another card")
    assert Record.of(record.path).open(part)


def test_a_side_is_ended_when_its_time_is_over(record: Record, tmp_path: Path) -> None:
    """In a process of its own, which takes seconds to import what it needs."""
    part = replace(parts(tiny=True)[0], seconds=0.5)
    (line,) = measure([part], tmp_path / "work", record, 60.0)
    assert "no figure: not loaded within" in line
    side = record.side(part)
    assert "done" not in side
    assert not record.open(part)  # its own limit was too short: another call would not help


def test_without_trl_its_trainers_are_left_for_another_call(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "version", lambda name: "1.15.0")
    part = parts(tiny=True)[1]
    assert part.entrant.system == "trl"
    (line,) = measure([part], tmp_path, record, 1e3)
    assert line.endswith(f"no figure: {NO_TRL}")
    assert record.open(part)


def found() -> dict[str, Any]:
    """A whole run, whose warm-up steps would spoil every figure."""
    slow = [step(99.0, sampling=50.0)] * WARM_UP

    def side(seconds: float, *, check: float | None = None, **more: Any) -> dict[str, Any]:
        told = {"done": True, "steps": [*slow, step(seconds, **more), step(seconds, **more)]}
        if check is not None:
            told["check"] = {"loss": check, "grad_norm": check}
        return told

    ours = {"peak": 3 * 2**30}
    theirs = {"peak": 6 * 2**30}
    return {
        "card": "a card", "torch": "2.11", "peak_rate": 1e12,
        "runs": {
            "gpu-dpo-qwen3": {"sides": {
                "strop": side(2.0, **ours), "8 forwards": side(4.0, **theirs),
                "4 forwards": side(3.0, **theirs), "plain": {"absent": "out of memory"}}},
            "gpu-grpo-qwen3": {"sides": {
                "8 forwards": side(9.0, sampling=5.0, **theirs),
                "strop": side(4.0, sampling=2.0, check=2.2, **ours)}},
            "gpu-sampler-qwen3": {"sides": {
                "strop": side(1.0, tokens=200), "plain": side(2.0, check=0.001)}},
            "gpu-sft-qwen3": {"sides": {"strop": side(2.0, flops=1e12)}},
        },
    }  # fmt: skip


def test_figures_by_hand() -> None:
    table = {row[0].split(",")[0]: row[2:] for row in rows(found())}
    assert table["DPO step"] == ["1.50", "2.00 s", "3.00 s", "4 forwards",
                                 "yes: 0 of the gradient norm apart"]  # fmt: skip
    # 4 - 2 against 9 - 5: sampling is not the update; 2.2 is not TRL's 2.0
    assert table["GRPO update"][:4] == ["2.00", "2.00 s", "4.00 s", "8 forwards"]
    assert table["GRPO update"][4] == "NO: 0.1 of the gradient norm apart"
    assert table["sampler"][:3] == ["4.00", "5000.00 us a token", "20000.00 us a token"]
    assert table["sampler"][4] == "yes: 0.001 nats apart"
    assert table["utilisation"][0] == "50.0 %"
    # whole processes, warm-up steps included
    assert table["peak memory of DPO"][:3] == ["0.50", "3.0 GiB", "6.0 GiB"]
    said = markdown(found())
    assert said.startswith("a card, torch 2.11.")
    assert "- gpu-dpo-qwen3, plain: out of memory" in said


def test_strops_own_options_stand_beside_strop_as_it_comes() -> None:
    """2 s against 1.6 s, 3 GiB against 1.5, and none of them is taken for TRL."""
    measured = found()
    sides = measured["runs"]["gpu-dpo-qwen3"]["sides"]
    whole = sides["strop"]["steps"]
    for entrant, seconds, peak in ((COMPILED, 1.6, 3.0), (SMALL_MOMENTS, 2.1, 1.5)):
        told = [{**row, "peak": int(peak * 2**30)} for row in whole]
        told[WARM_UP:] = [{**row, "seconds": seconds} for row in told[WARM_UP:]]
        sides[entrant.name] = {"done": True, "steps": told}
    table = {row[0].split(",")[0]: row[2:] for row in rows(measured)}
    yes = "yes: 0 of the gradient norm apart"
    assert table["compiled DPO step"] == ["1.25", "1.60 s", "", "2.00 s (strop)", yes]
    assert table["peak memory with 8-bit AdamW"] == ["0.50", "1.5 GiB", "", "3.0 GiB (strop)", yes]
    assert set(table["DPO step with Liger"]) == {""}
    assert table["DPO step"][:4] == ["1.50", "2.00 s", "3.00 s", "4 forwards"]


def test_what_was_not_measured_stays_empty() -> None:
    some = found()
    some["runs"]["gpu-dpo-qwen3"]["sides"]["strop"].pop("done")  # it was cut
    del some["runs"]["gpu-sft-qwen3"]
    table = {row[0].split(",")[0]: row[2:] for row in rows(some)}
    for name in ("DPO step", "peak memory of DPO", "utilisation"):
        assert set(table[name]) == {""}
    assert table["GRPO update"][0] == "2.00"
    nothing = rows({"card": "", "torch": "", "peak_rate": None, "runs": {}})
    assert all(set(row[2:]) == {""} for row in nothing)


def test_frozen_weights_need_no_gradient_of_their_own() -> None:
    work = Work(linear=10, head=4, attention=1)
    # forward 10 * 3 + 4 * 2 + 5; products of two activations always have two gradients
    assert work.learning(3, 2, 5, frozen=False) == 3 * (30 + 8 + 5)
    assert work.learning(3, 2, 5, frozen=True) == 2 * (30 + 8) + 3 * 5


@pytest.mark.slow
def test_the_whole_of_it_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every side that needs no TRL, in processes of their own."""
    monkeypatch.setattr(
        gpu,
        "parts",
        lambda *, tiny: [p for p in parts(tiny=tiny) if p.entrant.name != "continuous"],
    )
    command = ["bench", "--gpu", "--tiny", "--results", str(tmp_path), "--work",
               str(tmp_path / "work"), "--minutes", "20"]  # fmt: skip
    monkeypatch.setattr("sys.argv", command)
    before = (ROOT / "docs/speed.md").read_text()
    bench.main()
    assert (ROOT / "docs/speed.md").read_text() == before  # small figures are none of the page's
    runs = json.loads((tmp_path / "gpu.json").read_text())["runs"]
    assert [name.split("-1m")[0] for name in runs] == NAMES
    assert all(run["sides"]["strop"]["done"] for run in runs.values())
    assert "yes" in next(line for line in (tmp_path / "gpu.md").open() if "sampler" in line)
    traces = sorted(path.name for path in tmp_path.glob("*-profile.txt"))
    assert [name.split("-1m")[0] for name in traces] == ["gpu-dpo", "gpu-grpo"]
    assert "aten::" in (tmp_path / traces[0]).read_text()
    assert runs[next(iter(runs))]["sides"]["strop"]["steps"][-1]["loss"] > 0
