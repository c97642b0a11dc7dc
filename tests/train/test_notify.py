"""Training runs tell of their alarms and of how they ended; secrets are not written down."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from strop.errors import OutputError, StoppedByAlarm, StoppedBySignal, UsageError
from strop.recipe.loading.load import load_recipe
from strop.tracking.control import want
from strop.tracking.notify.notifier import LOG
from strop.train.monitor import journal
from strop.train.monitor.alarms import FiredAlarm
from strop.train.run import train
from strop.train.underway import notifier_of
from tests.support.hooks import Hook, hook_server
from tests.support.runs import final_weights, metrics, same

MORE = ["run.steps=4"]


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    with hook_server() as server:
        monkeypatch.setenv("TEAM_WEBHOOK", server.url.replace("/hook", "/hook/s3cr3t"))
        yield server


TOLD = [*MORE, "run.notify={webhook: '${TEAM_WEBHOOK}'}"]


def rings(monkeypatch: pytest.MonkeyPatch, step: int, action: str) -> None:
    """Let an alarm ring at a step."""
    write = journal.RunJournal._write

    def ringing(self: journal.RunJournal, record: object) -> list[FiredAlarm]:
        fired = write(self, record)  # type: ignore[arg-type]
        said = f"spike at step {step}: too steep"
        rang = record.step == step  # type: ignore[attr-defined]
        return [*fired, FiredAlarm("spike", step, action, said, step)] if rang else fired

    monkeypatch.setattr(journal.RunJournal, "_write", ringing)


def test_a_finished_run_says_what_it_did_and_comes_out_the_same(
    hook: Hook, recipes: dict[str, Path], tmp_path: Path
) -> None:
    told = train(load_recipe(recipes["sft"], TOLD)).parent
    quiet = train(load_recipe(recipes["sft"], [*MORE, f"output={tmp_path / 'quiet'}"])).parent
    (body,) = hook.bodies
    assert (body["event"], body["outcome"], body["about"]) == ("end", "finished", "sft")
    assert body["text"].startswith("sft finished. Over 4 steps the loss ")
    assert body["text"].endswith("No alarm rang.")
    assert body["facts"] == {"folder": str(told), "method": "sft"}
    assert metrics(told) == metrics(quiet)
    assert same(final_weights(told), final_weights(quiet))


def test_the_secret_stands_in_no_file_of_the_run(hook: Hook, recipes: dict[str, Path]) -> None:
    run = train(load_recipe(recipes["sft"], TOLD)).parent
    assert hook.paths == ["/hook/s3cr3t"]
    files = [one for one in run.rglob("*") if one.is_file() and not one.is_symlink()]
    assert any(one.name == LOG for one in files)
    assert "${TEAM_WEBHOOK}" in (run / "recipe.resolved.yaml").read_text()
    assert [one.name for one in files if b"s3cr3t" in one.read_bytes()] == []


def test_an_alarm_is_told_before_the_end_that_it_makes(
    hook: Hook, recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rings(monkeypatch, 2, "stop")
    with pytest.raises(StoppedByAlarm):
        train(load_recipe(recipes["sft"], TOLD))
    assert hook.outcomes == [("alarm", "stop"), ("end", "stopped")]
    assert hook.texts[0] == "sft: spike at step 2: too steep"
    assert hook.bodies[0]["facts"] | {"alarm": "spike", "step": 2} == hook.bodies[0]["facts"]
    assert "ended by an alarm: spike at step 2" in hook.texts[1]


def test_a_stopped_and_a_failed_run_say_so(
    hook: Hook, recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(recipes["sft"], TOLD)
    with pytest.warns(UserWarning, match="asks this run to stop"), pytest.raises(StoppedBySignal):
        train(recipe, on_step=lambda record: want(Path(recipe.output), "stop"))
    assert hook.outcomes == [("end", "stopped")]
    assert "stopped by SIGTERM after step 1" in hook.texts[0]

    def breaks(record: object) -> None:
        raise ZeroDivisionError("of the caller")

    with pytest.raises(ZeroDivisionError):
        train(recipe, resume=True, on_step=breaks)
    assert hook.outcomes[1:] == [("end", "failed")]
    assert hook.texts[1].startswith("sft failed: ZeroDivisionError: of the caller. Over 2 steps")
    train(recipe, resume=True)
    assert hook.outcomes[2:] == [("end", "finished")]
    train(recipe, resume=True)  # there was nothing to do
    assert len(hook.bodies) == 3


def test_a_webhook_that_fails_changes_nothing_of_the_run(
    recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with hook_server([500] * 9) as server:
        monkeypatch.setenv("TEAM_WEBHOOK", server.url)
        with (
            pytest.warns(UserWarning, match="1 message did not arrive"),
            pytest.warns(UserWarning, match=r"webhook \$\{TEAM_WEBHOOK\} was not told \(status 5"),
        ):
            told = train(load_recipe(recipes["sft"], TOLD)).parent
    quiet = train(load_recipe(recipes["sft"], [*MORE, f"output={tmp_path / 'quiet'}"])).parent
    assert metrics(told) == metrics(quiet)
    assert same(final_weights(told), final_weights(quiet))
    (row,) = [json.loads(line) for line in (told / LOG).read_text().splitlines()]
    assert (row["sent"], row["said"]) == ("failed", "status 500: ok")


def test_a_command_is_told_too(recipes: dict[str, Path], tmp_path: Path) -> None:
    code = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10))"
    command = [sys.executable, "-c", code, str(tmp_path / "told")]
    train(load_recipe(recipes["sft"], [*MORE, f"run.notify={json.dumps({'command': command})}"]))
    (line,) = (tmp_path / "told").read_text().splitlines()
    assert json.loads(line)["text"].startswith("sft finished. Over 4 steps")


def test_whoever_cannot_be_told_is_refused_before_anything_is_read(
    recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEAM_WEBHOOK", raising=False)
    recipe = load_recipe(recipes["sft"], [*TOLD, "data=nowhere.jsonl"])
    with pytest.raises(UsageError, match="TEAM_WEBHOOK is not set"):
        train(recipe)
    assert not Path(recipe.output).exists()


def test_who_is_told_may_change_when_a_run_goes_on(hook: Hook, recipes: dict[str, Path]) -> None:
    recipe = load_recipe(recipes["sft"], MORE)
    with pytest.warns(UserWarning, match="asks this run to stop"), pytest.raises(StoppedBySignal):
        train(recipe, on_step=lambda record: want(Path(recipe.output), "stop"))
    train(load_recipe(recipes["sft"], TOLD), resume=True)
    assert hook.outcomes == [("end", "finished")]
    with pytest.raises(OutputError, match=r"run\.batch_size"):
        train(load_recipe(recipes["sft"], [*TOLD, "run.batch_size=3"]), resume=True)


def test_of_several_processes_the_first_one_tells(hook: Hook, recipes: dict[str, Path]) -> None:
    recipe = load_recipe(recipes["sft"], TOLD)
    for rank in (1, 0):
        with notifier_of(recipe, SimpleNamespace(rank=rank)):  # type: ignore[arg-type]
            pass
        assert len(hook.bodies) == (rank == 0)
