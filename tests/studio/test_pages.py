"""What the pages show, and what they do when they are asked to."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import yaml
from starlette.testclient import TestClient

from strop.files import locked
from strop.judge.trust.anchors import read_anchors
from strop.judge.trust.calibration import human_ceiling
from strop.model.load import weights_hash
from strop.recipe.loading.load import load_recipe
from strop.recipe.serve import CanaryRecipe
from strop.registry.store import Registry
from strop.serve.canary.trial import Trial
from strop.studio import begun
from strop.studio.difference import Stretch, compared
from strop.studio.pages import advise
from strop.studio.pages.compare import differences, grouped
from strop.studio.pages.runs import last_row
from strop.studio.pages.serve import counted
from strop.studio.root import Root, walk
from strop.tracking.control import CONTROL, wish_of
from strop.tracking.story.bands import Band
from tests.support.registries import model, passed, promote
from tests.support.studio import write_jsonl, write_run

JSON = {"Accept": "application/json"}


def test_what_is_found_under_the_root(root: Path) -> None:
    found = walk(root)
    assert found.runs == ("runs/candidate", "runs/seed-0", "runs/seed-1", "runs/stopped")
    assert found.gates == ("gates/candidate.json",)
    assert found.checks == ("checks/pairs.json",)
    assert "data/pairs.jsonl" in found.records
    assert not any(path.startswith("runs/") for path in found.records)
    assert found.traffic == ("traffic",)


def test_checkpoints_and_models_are_not_walked(root: Path) -> None:
    write_run(root / "runs" / "seed-0" / "checkpoint-5" / "deep")
    write_run(root / "runs" / "seed-0" / "final" / "deep")
    write_run(root / ".hidden" / "deep")
    assert len(walk(root).runs) == 4


def test_the_list_shows_states_and_last_values(client: TestClient, root: Path) -> None:
    with locked(root / "runs" / "stopped"):
        page = client.get("/runs").text
    assert page.index("runs/stopped") < page.index("runs/seed-0")  # what works comes first
    assert '<span class="state running">running</span>' in page
    assert "eval_reward 0.6" in page


@pytest.mark.parametrize("end", ["", '{"step": 41, "rew', "torn\n"])
def test_the_last_whole_row_is_found_without_reading_all(root: Path, end: str) -> None:
    path = root / "runs" / "seed-0" / "metrics.jsonl"
    with path.open("a") as stream:
        stream.write(end)
    assert last_row(path)["step"] == 40
    assert last_row(root / "none") == {}


def test_a_run_page_tells_the_story_and_links_what_belongs_to_it(client: TestClient) -> None:
    page = client.get("/run/runs/candidate").text
    assert "Over 40 steps the reward rose" in page
    assert "(held out: went from 0.3 to 0.6)" in page
    assert "entropy_collapse at step 20" in page
    assert '<a href="/gate/gates/candidate.json">' in page
    assert "resumed after step 5" in page
    assert "data/pairs.manifest.json" in page
    assert '<a href="/records/data/pairs.jsonl">' in page
    assert "seconds of a step: 1.5" in page


def test_labels_do_not_go_into_a_run_or_to_those_of_other_pairs(
    client: TestClient, root: Path
) -> None:
    def begin(data: str, output: str) -> str:
        told = client.post("/act/label", json={"data": data, "output": output}, headers=JSON)
        return str(told.json().get("detail", told.json().get("said")))

    assert "labels need a folder of their own" in begin("data/pairs.jsonl", "runs/stopped")
    assert begin("data/pairs.jsonl", "labels") == "ready"
    shutil.copy(root / "data" / "pairs.jsonl", root / "data" / "same.jsonl")
    assert begin("data/same.jsonl", "labels") == "ready"
    (root / "data" / "pairs.jsonl").write_text(
        json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"}) + "\n"
    )
    assert "labels of other pairs go to this folder" in begin("data/pairs.jsonl", "labels")


def test_a_torn_log_and_a_foreign_folder_are_told_and_the_rest_is_shown(
    client: TestClient, root: Path
) -> None:
    with (root / "runs" / "seed-0" / "metrics.jsonl").open("a") as stream:
        stream.write("torn\n")
    (root / "runs" / "seed-1" / "lineage.json").write_text("{")
    (root / "runs" / "foreign").mkdir()
    (root / "runs" / "foreign" / "weights.bin").write_bytes(b"\x00" * 10)
    assert "metrics.jsonl, line 41: the line is no row" in client.get("/run/runs/seed-0").text
    assert "lineage.json cannot be read" in client.get("/runs").text
    answer = client.get("/run/runs/foreign")
    assert answer.status_code == 404
    assert "this folder holds no run" in answer.text
    assert "All runs" in answer.text


def test_series_are_whole(client: TestClient) -> None:
    told = client.get("/series/runs/seed-0", params={"metric": "reward"}).json()
    assert len(told["training"]["x"]) == 40
    assert told["held out"]["x"] == [10, 20, 30, 40]


def test_samples_are_searched_by_step_reward_and_habit(client: TestClient) -> None:
    page = client.get("/samples/runs/seed-0", params={"first": 7, "last": 21, "habit": "no_work"})
    assert "3 found" in page.text
    assert "x = 3 (7)" in page.text
    assert "x = 3 (8)" not in page.text
    late = client.get("/samples/runs/seed-0").text  # the same prompt at steps 1 and 40
    assert '<mark class="rejected"> (1)</mark>' in late
    assert '<mark class="chosen"> (40)</mark>' in late
    assert "0 found" in client.get("/samples/runs/seed-0", params={"low": 2}).text
    assert "40 found" in client.get("/samples/runs/seed-0?text=&first=&last=&low=&high=").text
    assert (
        "&#39;x&#39; is no number" in client.get("/samples/runs/seed-0", params={"low": "x"}).text
    )
    assert "1 found" in client.get("/samples/runs/seed-0", params={"text": "3 (12)"}).text


def test_pausing_and_stopping_leave_a_wish_for_a_run_that_works(
    client: TestClient, root: Path
) -> None:
    folder = root / "runs" / "stopped"
    refused = client.post("/act/run", json={"path": "runs/stopped", "act": "pause"}, headers=JSON)
    assert refused.status_code == 400
    assert "nothing works in runs/stopped" in refused.json()["detail"]
    with locked(folder):
        for act, wish in (("pause", "pause"), ("go", "go"), ("stop", "stop")):
            told = client.post("/act/run", json={"path": "runs/stopped", "act": act})
            assert told.status_code == 200
            assert wish_of(folder) == wish
    assert (folder / CONTROL).exists()


class Process:
    """What is begun in place of a process; it ends when it is let."""

    pid = 4242
    begun: ClassVar[list[list[str]]] = []
    ended = threading.Event()

    def __init__(self, words: list[str], **how: object) -> None:
        assert how["start_new_session"] is True
        self.begun.append(words[1:])

    def wait(self) -> None:
        self.ended.wait(30)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Process]]:
    Process.begun.clear()
    Process.ended.clear()
    monkeypatch.setattr(begun.subprocess, "Popen", Process)
    yield Process
    Process.ended.set()


def test_a_stopped_run_is_resumed_by_as_many_processes_as_it_had(
    client: TestClient, root: Path, processes: type[Process]
) -> None:
    body = {"path": "runs/stopped", "act": "resume"}
    (root / "runs" / "stopped" / "env.json").write_text('{"processes": 2}')
    told = client.post("/act/run", json=body).json()
    assert "process 4242" in told["said"]
    recipe = str(root / "runs" / "stopped" / "recipe.resolved.yaml")
    assert processes.begun == [["-m", "strop", "train", recipe, "--resume", "--nproc", "2"]]
    again = client.post("/act/run", json=body, headers=JSON)
    assert again.status_code == 400
    assert "process 4242 has just begun with it" in again.json()["detail"]
    refused = client.post("/act/run", json={**body, "path": "runs/seed-0"}, headers=JSON)
    assert "the run is finished" in refused.json()["detail"]


def test_a_copied_run_is_not_resumed_elsewhere(
    client: TestClient, root: Path, processes: type[Process]
) -> None:
    shutil.copytree(root / "runs" / "stopped", root / "copied")
    told = client.post("/act/run", json={"path": "copied", "act": "resume"}, headers=JSON)
    assert told.status_code == 400
    assert "which is another folder" in told.json()["detail"]
    assert processes.begun == []


def test_what_a_start_printed_shows_on_the_page(client: TestClient, root: Path) -> None:
    (root / "runs" / "stopped" / "studio.log").write_text("refused: pass --force\n")
    assert "refused: pass --force" in client.get("/run/runs/stopped").text


def test_a_test_message_goes_to_whom_the_run_tells(
    client: TestClient, root: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    folder, heard = root / "runs" / "stopped", tmp_path / "heard.json"
    command = ["sh", "-c", f"cat > {heard}"]
    recipe = load_recipe(recipes["sft"]).plain()
    resolved = folder / "recipe.resolved.yaml"
    resolved.write_text(yaml.safe_dump(recipe))
    body = {"path": "runs/stopped"}
    refused = client.post("/act/notify", json=body, headers=JSON)
    assert "names nobody" in refused.json()["detail"]
    recipe["run"]["notify"] = [{"command": command}]
    resolved.write_text(yaml.safe_dump(recipe))
    told = client.post("/act/notify", json=body, headers=JSON)
    assert told.status_code == 200, told.text
    assert "told" in told.json()["said"]
    assert json.loads(heard.read_text())["event"] == "test"


def test_seeds_of_one_recipe_stand_together_and_others_apart(root: Path) -> None:
    show = Root(root)
    stories = {path: show.story(path) for path in ("runs/seed-0", "runs/seed-1", "runs/candidate")}
    groups = grouped(stories)
    assert [len(group.stories) for group in groups] == [2, 1]
    assert groups[0].name == "runs/seed-0 and 1 more"
    assert {key for key, _ in differences(stories)} == {"seed", "output", "objective.beta"}


def test_a_band_is_mean_lowest_and_highest_of_the_runs_that_are_there() -> None:
    one = (np.array([1, 2, 3, 4]), np.array([0.0, 1.0, 2.0, 3.0]))
    other = (np.array([2, 3, 5]), np.array([3.0, 4.0, 9.0]))
    band = Band.of("a", 0, [one, other])
    assert band.steps_N.tolist() == [1, 2, 3, 4, 5]
    assert band.mean_N.tolist() == [0.0, 2.0, 3.0, 3.0, 9.0]
    assert band.low_N.tolist() == [0.0, 1.0, 2.0, 3.0, 9.0]
    assert band.high_N.tolist() == [0.0, 3.0, 4.0, 3.0, 9.0]


def test_comparing_shows_differences_and_the_same_items(client: TestClient) -> None:
    page = client.get("/compare", params={"run": ["runs/seed-0", "runs/candidate"]}).text
    assert "objective.beta" in page
    assert 'class="run0"' in page
    assert 'class="run1"' in page
    assert "Solve 1x = 6" in page


def test_pairs_show_what_differs() -> None:
    left, right = compared(["The", " Rhine", " flows"], ["The", " Rhone", " flows"])
    assert left == [Stretch("The", False), Stretch(" Rhine", True), Stretch(" flows", False)]
    assert "".join(part.text for part in right) == "The Rhone flows"


def test_records_are_paged_with_their_columns(client: TestClient) -> None:
    page = client.get("/records/data/pairs.jsonl", params={"first": 45}).text
    assert "Row 46" in page
    assert "Row 50" in page
    assert "Row 51" not in page
    assert '<mark class="chosen"> Rhine</mark>' in page
    assert "topic: rivers" in page


def test_a_line_that_is_no_row_is_shown_as_one(client: TestClient, root: Path) -> None:
    (root / "data" / "pairs.jsonl").write_text('{"prompt": "a", "completion": "b"}\n[1, 2]\n')
    page = client.get("/records/data/pairs.jsonl").text
    assert "the line is no JSON object, or too long" in page
    assert "[1, 2]" in page


def test_what_is_learnt_is_marked_with_the_tokens_of_a_model(
    client: TestClient, root: Path, model_folder: Path
) -> None:
    os.symlink(model_folder, root / "inside-model")  # leads out, and is refused
    refused = client.get("/records/data/pairs.jsonl", params={"model": "inside-model"})
    assert refused.status_code == 404
    (root / "inside-model").unlink()
    shutil.copytree(model_folder, root / "inside-model")
    page = client.get("/records/data/pairs.jsonl", params={"model": "inside-model"}).text
    assert "As training reads them" in page
    assert '<mark class="learnt">' in page


def test_a_verdict_shows_intervals_and_wins(client: TestClient, root: Path) -> None:
    page = client.get("/gate/gates/candidate.json").text
    assert "Pass: exact rose from 0.5 to 0.75." in page
    assert "Won: exact" in page
    for file in (root / "evals" / "base").iterdir():
        file.unlink()
    page = client.get("/gate/gates/candidate.json").text
    assert "wins and losses are left out" in page
    assert "Pass: exact rose" in page


def test_a_verdict_of_another_form_is_told(client: TestClient, root: Path) -> None:
    path = root / "gates" / "candidate.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "checks": [{"name": "x"}]}))
    answer = client.get("/gate/gates/candidate.json")
    assert answer.status_code == 404
    assert "the verdict is of another form" in answer.text


def test_promotion_and_the_way_back_follow_the_registrys_rules(
    client: TestClient, root: Path
) -> None:
    store = Registry(root / "registry.db")
    promote(store, model(root / "models" / "one", "first"), "support")
    second = model(root / "runs" / "seed-0" / "final", "second")
    verdict = root / "gates" / "second.json"
    body = {"registry": "registry.db", "model": "runs/seed-0/final", "entry": "support",
            "verdict": "gates/candidate.json"}  # fmt: skip
    refused = client.post("/act/promote", json=body, headers=JSON)
    assert refused.status_code == 400
    assert len(store.events("support")) == 1
    verdict.write_text(json.dumps(passed(weights_hash(second))))
    verdict.with_suffix(".html").write_text("")
    told = client.post("/act/promote", json={**body, "verdict": "gates/second.json"}, headers=JSON)
    assert told.status_code == 200, told.text
    now = store.current("support")
    assert now is not None
    assert now.path.endswith("runs/seed-0/final")
    back = {"registry": "registry.db", "entry": "support", "reason": "slow"}
    assert client.post("/act/rollback", json=back).status_code == 200
    now = store.current("support")
    assert now is not None
    assert now.path.endswith("models/one")
    assert store.events("support")[-1].reason == "slow"
    page = client.get("/registry").text
    assert "support: " in page
    assert "slow" in page


def test_a_registry_that_is_locked_is_told_and_the_others_are_shown(
    client: TestClient, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(Registry(root / "registry.db"), model(root / "models" / "one", "first"), "support")
    promote(Registry(root / "other.db"), model(root / "models" / "two", "x"), "translate")
    names = Registry.names

    def busy(self: Registry) -> list[str]:
        found = names(self)
        if found == ["support"]:
            raise sqlite3.OperationalError("database is locked")
        return found

    monkeypatch.setattr(Registry, "names", busy)
    page = client.get("/registry").text
    assert "registry.db: database is locked" in page
    assert "translate: " in page


def test_traffic_is_counted_by_side(client: TestClient, root: Path) -> None:
    traffic = counted(root / "traffic")
    canary, stable = traffic.arm(("support", "canary")), traffic.arm(("support", "stable"))
    assert (canary.answers, canary.up, canary.down) == (20, 10, 10)
    assert (stable.answers, stable.up) == (40, 32)
    page = client.get("/serve").text
    assert "canary trial-1 was taken back: worse by thumbs" in page
    assert "support is support@1a2b from here on" in page
    assert "1 answers had a shadow" in page
    assert "user: Help 59" in page
    assert "50 %" in page
    assert 'class="band run0"' in page


@pytest.mark.parametrize(
    ("signal", "scale", "share", "alpha"),
    [("thumb", [0.0, 1.0], 0.3, 0.05), ("edit", [0.0, 1.0], 0.1, 0.01),
     ("quality", [1.0, 5.0], 0.5, 0.05)],
)  # fmt: skip
def test_the_drawn_sequence_is_the_servers_own(
    tmp_path: Path, signal: str, scale: list[float], share: float, alpha: float
) -> None:
    recipe = CanaryRecipe.model_validate(
        {"entry": "new", "signal": signal, "scale": scale, "share": share, "alpha": alpha}
    )
    trial = Trial(recipe, "w1", "w2")
    rng = np.random.default_rng(4)
    rows: list[dict[str, object]] = [trial.begin()]
    for n in range(300):
        arm = trial.arm(f"s{n % 250}")
        assert arm is not None
        rows.append({"id": str(n), "messages": [], "trial": trial.id, "arm": arm.side,
                     "session": f"s{n % 250}", "answer": "x"})  # fmt: skip
        said = {"label": bool(rng.random() < 0.6), "name": "quality",
                "score": int(rng.integers(1, 6))}  # fmt: skip
        if signal == "edit" and rng.random() < 0.3:
            said = {"edit": "y"}
        rows.append({"id": str(n), "digest": str(n), **said})
    write_jsonl(tmp_path / "traffic-000001-20260102.jsonl", rows)
    trial.replay(rows)
    standing = trial.ratings.standing
    (found,) = counted(tmp_path).trials.values()
    assert len(found.said) == standing.canary + standing.stable == 250
    assert standing.difference is not None
    drawn = found.drawn()
    assert f"to {standing.difference:.3g}" in drawn


def test_a_form_gets_advice_and_a_run_begins_with_its_recipe(
    client: TestClient,
    root: Path,
    processes: type[Process],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = client.get("/advise", params={"data": "data/pairs.jsonl", "goal": "brand voice"}).text
    assert 'aria-label="Advice"' in page
    bad = client.get("/advise", params={"data": "data/none.jsonl"})
    assert bad.status_code == 200
    assert 'class="problem"' in bad.text
    asked = {"data": "data/pairs.jsonl", "goal": "brand voice"}
    refused = client.post("/act/start", json={**asked, "name": "../x"}, headers=JSON)
    assert refused.status_code == 400
    assert "the name is none" in refused.json()["detail"]
    none = client.post("/act/start", json={**asked, "name": "voice"}, headers=JSON)
    assert "there is nothing to start" in none.json()["detail"]
    advised = advise.answer(advise.Question(data=(root / "data" / "pairs.jsonl",)))
    made = {"method": "simpo", "data": ["data/pairs.jsonl"], "model": {"path": "m"}}
    monkeypatch.setattr(advise, "answer", lambda _: replace(advised, recipe=made))
    told = client.post("/act/start", json={**asked, "name": "voice"}, headers=JSON)
    assert told.status_code == 200, told.text
    recipe = yaml.safe_load((root / "voice.yaml").read_text())
    assert recipe["output"] == str(root / "runs" / "voice")
    assert processes.begun == [["-m", "strop", "train", str(root / "voice.yaml")]]


def test_two_annotators_agree_as_calibrate_computes_it(client: TestClient, root: Path) -> None:
    opened = client.post("/act/label", json={"data": "data/pairs.jsonl", "output": "labels"})
    desk = opened.json()["open"]
    rng = np.random.default_rng(3)
    for person in ("anna", "ben"):
        for _ in range(50):
            shown = client.get(f"{desk}api/pair", params={"person": person}).json()["pair"]
            better = "first" if "Rhine" in shown["answers"][0] else "second"
            other = {"first": "second", "second": "first"}[better]
            said = better if rng.random() < 0.8 else other
            body = {"person": person, "item": shown["item"], "choice": said}
            assert client.post(f"{desk}api/label", json=body).status_code == 200
    told = client.get(f"{desk}api/pair", params={"person": "anna"}).json()["agreement"]
    pairs = read_anchors(root / "labels" / "anchors.jsonl")
    columns = [[pair.human[n] for pair in pairs] for n in (0, 1)]
    by_hand = sum(a == b for a, b in zip(*columns, strict=True)) / 50
    found = human_ceiling(columns, [pair.cluster for pair in pairs])
    assert found is not None
    assert told["pairs"] == found.items == 50
    assert told["observed"] == pytest.approx(by_hand)
    assert told["kappa"] == pytest.approx(found.kappa.mean)
    page = client.get("/label").text
    assert f"People agree on {round(100 * by_hand)} % of 50 pairs" in page
    assert "anna: 50 of 50" in page
