"""Trackers: what they are told, that nothing is told twice, and that they cannot hurt a run."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from strop.errors import RecipeError, UsageError
from strop.recipe.loading.load import load_recipe
from strop.tracking import sinks as sinks_module
from strop.tracking.sinks import FAILURES, SINKS, Sinks, TrackedRun, expect_sinks
from strop.train.run import train
from tests.support.runs import metrics


class Told:
    """A tracker that remembers; `raises` names the calls that fail."""

    def __init__(self, raises: frozenset[str] = frozenset()) -> None:
        self.raises = raises
        self.calls: list[tuple[Any, ...]] = []

    def _note(self, name: str, *said: Any) -> None:
        self.calls.append((name, *said))
        if name in self.raises:
            raise ConnectionError("no route")

    def start(self, run: TrackedRun, known: str | None) -> str:
        self.run = run
        self._note("start", known)
        return known or "run-1"

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._note("step", step, dict(metrics))

    def finish(self, done: bool) -> None:
        self._note("finish", done)

    def steps(self) -> list[int]:
        return [call[1] for call in self.calls if call[0] == "step"]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """A tracker in the place of trackio."""
    tracker = Told()
    monkeypatch.setitem(SINKS, "trackio", lambda: tracker)
    monkeypatch.setattr("strop.train.preflight.prepare.expect_sinks", lambda names: None)
    return tracker


def run_in(folder: Path, name: str = "dpo-7") -> TrackedRun:
    config = {"method": "dpo", "optim.learning_rate": 1e-6, "reward.0.name": "a,b"}
    return TrackedRun(name, folder / "sinks", config, {"final": f"{folder}/final"})


class TestInTheLoop:
    def test_gets_every_row_of_the_log(self, told: Told, recipes: dict[str, Path]) -> None:
        run = train(load_recipe(recipes["sft"], ["run.sinks=[trackio]"])).parent
        rows = metrics(run)
        steps = [(c[1], c[2]["loss"]) for c in told.calls if c[0] == "step"]
        assert steps == [(row["step"], row["loss"]) for row in rows]
        assert told.calls[0] == ("start", None)
        assert told.calls[-1] == ("finish", True)
        assert told.run.name == "sft"
        assert told.run.config["optim.learning_rate"] == 1e-4
        assert told.run.artifacts["final"] == str(run / "final")

    def test_a_resumed_run_goes_on_and_tells_no_step_twice(
        self, told: Told, recipes: dict[str, Path]
    ) -> None:
        recipe = load_recipe(recipes["sft"], ["run.sinks=[trackio]"])

        def stop(record: Any) -> None:
            if record.step == 5:  # a checkpoint stands at 4
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(recipe, on_step=stop)
        assert told.steps() == [1, 2, 3, 4, 5]
        assert told.calls[-1] == ("finish", False)
        told.calls.clear()
        train(recipe, resume=True)
        assert told.calls[0] == ("start", "run-1")
        assert told.steps() == [6]

    def test_one_that_fails_does_not_end_the_run(
        self, told: Told, recipes: dict[str, Path]
    ) -> None:
        told.raises = frozenset({"step"})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run = train(load_recipe(recipes["sft"], ["run.sinks=[trackio]"])).parent
        said = [str(w.message) for w in caught if "sink" in str(w.message)]
        assert said == ["sink trackio failed (ConnectionError: no route); the run goes on and its "
                        "own log is whole"]  # fmt: skip
        assert len(metrics(run)) == 6
        assert len(told.steps()) == FAILURES  # then it is left alone

    def test_one_that_cannot_start_is_told_nothing(self, told: Told, tmp_path: Path) -> None:
        told.raises = frozenset({"start"})
        with pytest.warns(UserWarning, match="sink trackio failed"):
            sinks = Sinks(["trackio"], run_in(tmp_path)).__enter__()
        sinks.step(1, {"loss": 1.0})
        assert [call[0] for call in told.calls] == ["start"]

    def test_a_failure_in_between_is_forgiven(self, told: Told, tmp_path: Path) -> None:
        sinks = Sinks(["trackio"], run_in(tmp_path)).__enter__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for step in range(1, 3 * FAILURES):
                told.raises = frozenset({"step"} if step % FAILURES else ())
                sinks.step(step, {"loss": 1.0})
        assert told.steps() == list(range(1, 3 * FAILURES))

    def test_sinks_may_change_before_a_run_goes_on(
        self, told: Told, recipes: dict[str, Path]
    ) -> None:
        """They only watch: the run is the same without."""

        def stop(record: Any) -> None:
            if record.step == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(load_recipe(recipes["sft"]), on_step=stop)
        train(load_recipe(recipes["sft"], ["run.sinks=[trackio]"]), resume=True)
        assert told.steps() == [3, 4, 5, 6]


class TestRefused:
    def test_what_is_not_installed(
        self, recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Also where a folder of that name lies about, which Python would import as a package."""
        monkeypatch.setattr(sinks_module.importlib.util, "find_spec", lambda name: None)
        recipe = load_recipe(recipes["sft"], ["run.sinks=[wandb]"])
        with pytest.raises(UsageError, match=r"pip install 'strop\[wandb\]'"):
            train(recipe)
        assert not Path(recipe.output).exists()
        monkeypatch.undo()
        (tmp_path / "mlfolder").mkdir()
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(UsageError, match="mlfolder, which is not installed"):
            expect_sinks(["mlfolder"])
        expect_sinks(["json"])

    def test_unknown_and_double_names(self, recipes: dict[str, Path]) -> None:
        with pytest.raises(RecipeError, match=r"run\.sinks\.0.*is none of .*mlflow, wandb"):
            load_recipe(recipes["sft"], ["run.sinks=[tensorboard]"])
        with pytest.raises(RecipeError, match="names one twice"):
            load_recipe(recipes["sft"], ["run.sinks=[wandb, wandb]"])


UNSAID = ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_PROJECT", "TRACKIO_SPACE_ID",
          "TRACKIO_SERVER_URL")  # fmt: skip


class Unplugged(socket.socket):
    """Connects to nothing but its own machine."""

    def connect(self, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            asked.append(address)
            raise OSError("this test has no network")
        super().connect(address)


asked: list[Any] = []
"""Other machines that a tracker of this process wanted to talk to."""


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An environment that names no server, and no network."""
    for name in UNSAID:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "socket", Unplugged)
    asked.clear()
    yield
    assert asked == []


def twice(name: str, folder: Path) -> None:
    """A run of three rows that is interrupted after the second and resumed from the first."""
    first = Sinks([name], run_in(folder)).__enter__()
    first.step(0, {"dev/greedy/exact": 0.25})
    first.step(1, {"loss": 2.0})
    first.__exit__(KeyboardInterrupt)
    with Sinks([name], run_in(folder)) as sinks:
        sinks.step(1, {"loss": 2.0})
        sinks.step(2, {"loss": 1.0, "rewards/a,b/mean": 0.5})


class TestReal:
    """The libraries themselves, where they are installed."""

    def test_mlflow(self, offline: None, tmp_path: Path) -> None:
        mlflow = pytest.importorskip("mlflow")
        twice("mlflow", tmp_path / "dpo-7")
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/dpo-7/sinks/mlflow.db")
        home = client.get_experiment_by_name("strop").experiment_id
        (run,) = client.search_runs([home])
        assert run.info.run_name == "dpo-7"
        assert run.info.status == "FINISHED"
        assert run.data.params["optim.learning_rate"] == "1e-06"
        assert run.data.tags["strop.final"] == f"{tmp_path}/dpo-7/final"
        history = client.get_metric_history(run.info.run_id, "loss")
        assert [(m.step, m.value) for m in history] == [(1, 2.0), (2, 1.0)]
        assert run.data.metrics["rewards/a_b/mean"] == 0.5
        assert run.data.metrics["dev/greedy/exact"] == 0.25

    def test_trackio(self, tmp_path: Path) -> None:
        """In a process of its own: it reads `TRACKIO_DIR` when it is imported."""
        pytest.importorskip("trackio")
        script = (
            "import socket, sys, test_sinks as t; from pathlib import Path\n"
            "socket.socket = t.Unplugged\n"
            "t.twice('trackio', Path(sys.argv[1]) / 'dpo-7')\n"
            "assert t.asked == [], t.asked\n"
        )
        said = {k: v for k, v in os.environ.items() if k not in UNSAID}
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            cwd=Path(__file__).parent, env={**said, "TRACKIO_DIR": str(tmp_path / "trackio")},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        assert "failed" not in done.stderr
        (file,) = (tmp_path / "trackio").glob("strop*.db")
        with sqlite3.connect(file) as database:
            rows = database.execute(
                "select run_name, step, metrics from metrics order by step"
            ).fetchall()
            runs = database.execute("select count(distinct run_id) from metrics").fetchone()
        assert runs == (1,)
        assert [(name, step) for name, step, _ in rows] == [("dpo-7", step) for step in range(3)]
        assert json.loads(rows[2][2]) == {"loss": 1.0, "rewards/a,b/mean": 0.5}

    def test_wandb(self, offline: None, tmp_path: Path) -> None:
        pytest.importorskip("wandb")
        twice("wandb", tmp_path / "dpo-7")
        kept = json.loads((tmp_path / "dpo-7/sinks/wandb.json").read_text())
        assert kept["step"] == 2
        parts = sorted((tmp_path / "dpo-7/sinks/wandb").glob("offline-run-*"))
        assert [p.name.endswith(kept["run"]) for p in parts] == [True, True]  # two parts, one run
        assert logged(parts) == [(0, "dev/greedy/exact", 0.25), (1, "loss", 2.0),
                                 (2, "loss", 1.0), (2, "rewards/a,b/mean", 0.5)]  # fmt: skip


def logged(parts: list[Path]) -> list[tuple[int, str, float]]:
    """(step, metric, value) of the history records in W&B's own files."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for part in parts:
        for data in chunks(next(part.glob("*.wandb")).read_bytes()):
            record = Record()
            record.ParseFromString(data)
            for item in record.history.item:
                name = "/".join(item.nested_key) or item.key
                if not name.startswith("_"):
                    step = record.history.step.num
                    found.append((step, name, json.loads(item.value_json)))
    return sorted(found)


def chunks(content: bytes) -> Iterator[bytes]:
    """Records of LevelDB's log format: blocks of 32 KiB, seven bytes before each piece; the file
    begins with seven more."""
    place, whole = 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield whole
            whole = b""
