"""A run tells of itself: what it tells, how often, and that nothing of it can hurt the run."""

from __future__ import annotations

import json
import threading
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from strop.errors import StoppedByAlarm, StoppedBySignal, TrainingError
from strop.recipe.notify import NotifyRecipe, RunNotify
from strop.tracking.notify import notifier as module
from strop.tracking.notify.message import Message
from strop.tracking.notify.notifier import LOG, Notifier
from strop.tracking.notify.receivers import Reply


class Ear:
    """A receiver that remembers; it waits for `may_answer`, and `fails` or `raises`."""

    def __init__(self, *, fails: bool = False, raises: bool = False) -> None:
        self.name, self.fails, self.raises = "webhook http://ear", fails, raises
        self.heard: list[Message] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def send(self, message: Message) -> Reply:
        self.may_answer.wait(30)
        self.heard.append(message)
        if self.raises:
            raise RuntimeError("of a library")
        return Reply(self.name, not self.fails, "status 500" if self.fails else "status 200", 0.0)

    @property
    def texts(self) -> list[str]:
        return [message.said for message in self.heard]


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch) -> Ear:
    heard = Ear()
    monkeypatch.setattr(module, "receiver_of", lambda recipe, where: heard)
    return heard


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def notifier(log: Path | None = None, clock: Clock | None = None, **keys: Any) -> Notifier:
    recipe = RunNotify(webhook="http://ear", **keys)
    made = {"clock": clock} if clock else {}
    return Notifier(
        [recipe], "dpo", where="run.notify", log=log, summary=lambda: "It rose.", **made
    )


def rows(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize(
    ("error", "outcome", "text"),
    [
        (None, "finished", "dpo finished. It rose."),
        (TrainingError("the disk is full"), "failed", "dpo failed: the disk is full. It rose."),
        (ValueError("x < 0"), "failed", "dpo failed: ValueError: x < 0. It rose."),
        (StoppedByAlarm("kl ran away", resumable=True), "stopped",
         "dpo stopped: the run was ended by an alarm: kl ran away. It rose."),
        (StoppedBySignal(15, 7), "stopped",
         "dpo stopped: stopped by SIGTERM after step 7; the state was saved. It rose."),
        (KeyboardInterrupt(), "stopped", "dpo stopped: KeyboardInterrupt. It rose."),
    ],
)  # fmt: skip
def test_every_end_is_told_and_is_the_end_it_was(
    ear: Ear, error: BaseException | None, outcome: str, text: str
) -> None:
    expected = nullcontext() if error is None else pytest.raises(type(error))
    with expected as found, notifier():
        if error is not None:
            raise error
    assert found is None or found.value is error
    assert [(one.event, one.outcome, one.text) for one in ear.heard] == [("end", outcome, text)]


def test_only_what_is_wanted_is_told(ear: Ear) -> None:
    with notifier(events=["alarm"]) as told:
        told.tell("alarm", "warn", "dpo: spike", step=3)
    assert [(one.event, one.facts) for one in ear.heard] == [("alarm", {"step": 3})]


def test_the_limit_holds_for_each_kind_and_the_end_says_what_it_swallowed(
    ear: Ear, tmp_path: Path
) -> None:
    clock = Clock()
    with notifier(tmp_path / LOG, clock, at_most={"count": 2, "seconds": 60}) as told:
        for second in (0, 10, 20, 30, 59, 60, 61):
            clock.now = 1000.0 + second
            told.tell("alarm", "warn", f"alarm at {second}")
    # those of 0 and 10 fill the window; that of 0 leaves it at 60
    assert ear.texts == [
        "alarm at 0",
        "alarm at 10",
        "alarm at 60 (3 earlier messages were held back)",
        "dpo finished. It rose. (1 earlier message was held back)",
    ]
    assert [row["sent"] for row in rows(tmp_path / LOG)].count("held back") == 4


def test_the_limit_outlives_the_process(ear: Ear, tmp_path: Path) -> None:
    """A run that fails as often as it is started again does not tell each time."""
    clock, log = Clock(), tmp_path / LOG
    for start in range(5):
        clock.now = 1000.0 + start
        with (
            pytest.raises(ValueError, match="again"),
            notifier(log, clock, at_most={"count": 2, "seconds": 60}),
        ):
            raise ValueError("again")
    assert len(ear.heard) == 2
    with log.open("a") as stream:
        stream.write('{"torn": \n[]\n')
    clock.now = 1061.5
    with notifier(log, clock, at_most={"count": 2, "seconds": 60}):
        pass
    assert ear.texts[2:] == ["dpo finished. It rose."]


def test_what_was_sent_is_written_down(ear: Ear, tmp_path: Path) -> None:
    with notifier(tmp_path / LOG, Clock()) as told:
        told.tell("alarm", "stop", "dpo: spike")
    assert rows(tmp_path / LOG)[0] == {
        "time": 1000.0, "event": "alarm", "outcome": "stop", "to": "webhook http://ear",
        "sent": "sent", "said": "status 200", "text": "dpo: spike",
    }  # fmt: skip


@pytest.mark.parametrize(("how", "said"), [("fails", "status 500"), ("raises", "RuntimeError")])
def test_a_failure_is_warned_of_once_counted_and_tried_again(
    ear: Ear, how: str, said: str, tmp_path: Path
) -> None:
    setattr(ear, how, True)
    with warnings.catch_warnings(record=True) as warned, notifier(tmp_path / LOG) as told:
        warnings.simplefilter("always")
        for step in (1, 2):
            told.tell("alarm", "warn", f"alarm {step}")
    assert [str(one.message) for one in warned] == [
        f"notify: webhook http://ear was not told ({said}); the run goes on",
        "notify: 3 messages did not arrive",
    ]
    assert len(ear.heard) == 3
    assert [row["sent"] for row in rows(tmp_path / LOG)] == ["failed"] * 3


def test_telling_waits_for_nobody_and_the_end_only_for_a_while(
    ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.1)
    ear.may_answer.clear()
    began = time.monotonic()
    with pytest.warns(UserWarning, match="2 messages did not arrive"), notifier() as told:
        told.tell("alarm", "warn", "dpo: spike")
    assert ear.heard == []
    assert time.monotonic() - began < 10  # the ear would have waited for 30
    ear.may_answer.set()


def test_a_full_disk_hurts_the_log_alone(ear: Ear, tmp_path: Path) -> None:
    (tmp_path / LOG).mkdir()  # nothing can be written there
    with pytest.warns(UserWarning, match=f"{LOG} cannot be written"), notifier(tmp_path / LOG):
        pass
    assert ear.texts == ["dpo finished. It rose."]


def test_nobody_to_tell_costs_nothing(tmp_path: Path) -> None:
    def summary() -> str:
        raise AssertionError("nobody asked")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Notifier([], "dpo", where="w", log=tmp_path / LOG, summary=summary) as told:
            told.tell("alarm", "warn", "dpo: spike")
    assert list(tmp_path.iterdir()) == []


def test_a_gate_tells_its_verdict_and_no_end(ear: Ear) -> None:
    recipe = NotifyRecipe(webhook="http://ear")
    with Notifier([recipe], "dpo", where="notify") as told:
        for _ in range(9):
            told.tell("verdict", "pass", "dpo: better")
    assert [one.event for one in ear.heard] == ["verdict"] * 9
