"""The whole command: nothing is lost, nothing is silent, faults are findings."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from strop.cli.app import app
from strop.curate.manifest import sources_of
from strop.curate.signals.build import build
from strop.curate.signals.join import Chains
from strop.curate.signals.rows import unknown_paths
from strop.curate.signals.rules import KINDS
from strop.curate.signals.sources.table import SOURCES, source_of
from strop.data.records import any_record
from strop.errors import DataError, OutputError, UsageError
from strop.types import Origin
from tests.support.exports import Make, made_of, user

PROMPTS = ("2x = 6?", "3x = 6?")
TEXTS = ("x = 3", "x = 4", "x is 3", "", "  x = 3 ")


@st.composite
def exports(draw: st.DrawFn) -> list[Any]:
    """A serving log with everything that may happen to it: feedback of all kinds about answers that
    are there or not, repeated rows, missing answers, images, broken lines."""
    rows: list[Any] = []
    ids = st.sampled_from([f"r{n}" for n in range(6)])
    values = st.one_of(
        st.fixed_dictionaries({"label": st.booleans()}),
        st.fixed_dictionaries({"edit": st.sampled_from(TEXTS)}),
        st.fixed_dictionaries({"choice": st.integers(-1, 3)}),
        st.fixed_dictionaries({"regenerated": ids}),
        st.fixed_dictionaries({"score": st.integers(0, 3), "name": st.sampled_from(
            ["relevance", "correct", "tone", "rating"])}),
        st.fixed_dictionaries({"score": st.sampled_from(["formal", "up", "no"])}),
    )  # fmt: skip
    for _ in range(draw(st.integers(1, 14))):
        kind = draw(st.sampled_from(["request", "request", "feedback", "feedback", "odd"]))
        if kind == "request":
            given_ = draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3))
            said = {"answer": given_[0]} if len(given_) == 1 else {"answers": given_}
            rows.append({"id": draw(ids), "messages": [user(draw(st.sampled_from(PROMPTS)))],
                         "session": draw(st.sampled_from(["s", "t"])), **said})  # fmt: skip
        elif kind == "feedback":
            time = draw(st.sampled_from([None, "2026-01-05T10:00:00Z", "2026-01-05T11:00:00Z"]))
            rows.append({"id": draw(ids), "time": time, **draw(values)})
        else:
            image = {"role": "user", "content": [{"type": "image_url"}]}
            seen = {"id": "r1", "messages": [image], "answer": "x"}
            rows.append(draw(st.sampled_from(["{broken", {"unknown": 1}, seen])))
    return rows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(exports(), st.booleans(), st.sampled_from([KINDS, KINDS[:1], KINDS[3:], KINDS[1:3]]))
def test_no_interaction_is_lost(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], infer: bool, kinds: tuple[str, ...]
) -> None:
    """Used, without a signal and left out add up to what was read, and what is left out stands in
    dropped.jsonl; every record is one that training reads."""
    folder = tmp_path_factory.mktemp("export")
    made = made_of(folder, rows, max_bad=1, infer_regenerations=infer, kinds=kinds)
    assert made.adds_up()
    readable = [row for row in rows if isinstance(row, dict) and "messages" in row]
    assert made.built.interactions == len(readable)
    assert len(made["dropped"]) == sum(made.built.left_out.values()) + len(made.built.bad)
    assert tuple(made.built.records) == kinds
    for name in set(made.files) - {"dropped"}:
        for row in made[name]:
            any_record(row, Origin(name, 1))


def log(tmp_path: Path, *rows: Any, name: str = "log.jsonl") -> Path:
    path = tmp_path / name
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in rows))
    return path


REQUEST = {"id": "r1", "messages": [user("2x = 6?")], "answer": "x = 4", "team": {"name": "a"}}
EDIT = {"id": "r1", "edit": "x = 3", "time": "2026-01-05T10:00:00Z"}


class TestTheCommand:
    def run(self, *args: str) -> tuple[int, str]:
        found = CliRunner().invoke(app, ["data", "build", *args])
        if isinstance(found.exception, DataError | UsageError | OutputError):
            return found.exception.exit_code, str(found.exception)
        return found.exit_code, found.output

    def test_what_it_prints_and_writes(self, tmp_path: Path) -> None:
        path = log(tmp_path, REQUEST, EDIT, {"id": "r9", "label": True})
        code, printed = self.run(str(path), "--output", str(tmp_path / "out"))
        assert code == 0
        for line in (
            f"recognised {path}: serving_log (3 rows)",
            "interactions 1: 1 used, 0 without a signal, 0 left out",
            "signals: 1 edit edit",
            "records: 1 preference, 1 demonstration, 0 feedback, 1 task",
            "1 signals refer to an answer that is in none of the files",
            "unknown fields of serving_log: team.name (1)",
        ):
            assert f"  {line}\n" in printed
        names = sorted(one.name for one in (tmp_path / "out").iterdir())
        assert names == ["demonstrations.jsonl", "manifest.json", "preferences.jsonl",
                         "tasks.jsonl"]  # fmt: skip
        manifest = json.loads((tmp_path / "out/manifest.json").read_text())
        assert manifest["made_by"] == "strop data build"
        assert manifest["files"]["preferences.jsonl"]["rows"] == 1
        assert manifest["settings"]["edits"] == [0.05, 0.7]
        assert manifest["inputs"][0]["path"] == str(path)

    def test_json_is_one_object(self, tmp_path: Path) -> None:
        path = log(tmp_path, REQUEST, EDIT, "{")
        code, printed = self.run(str(path), "--output", str(tmp_path / "out"), "--json",
                                 "--max-bad", "0.5", "--kinds", "preference")  # fmt: skip
        found = json.loads(printed)
        assert code == 0
        assert found["records"] == {"preference": 1}
        assert found["bad"][0]["line"] == 3
        assert found["unknown"] == {"serving_log": {"team.name": 1}}

    def test_a_dry_run_counts_the_same_and_writes_nothing(self, tmp_path: Path) -> None:
        path = log(tmp_path, REQUEST, EDIT)
        args = (str(path), "--output", str(tmp_path / "out"), "--json")
        counted = json.loads(self.run(*args, "--dry-run")[1])
        assert not (tmp_path / "out").exists()
        assert counted | {"output": 0} == json.loads(self.run(*args)[1]) | {"output": 0}

    def test_above_the_share_nothing_is_written(self, tmp_path: Path) -> None:
        path = log(tmp_path, REQUEST, EDIT, "{", {"what": "is this"})
        code, said = self.run(str(path), "--output", str(tmp_path / "out"))
        assert code == 2
        assert f"{path}: 2 of 4 rows (50.00%) cannot be used" in said
        assert f"1 broken_json\n    {path}:3" in said
        assert (
            f"1 unrecognised\n    {path}:4: the row is of no known source: found {{what}}" in said
        )
        assert not (tmp_path / "out").exists()

    def test_values_never_stand_in_a_report(self, tmp_path: Path) -> None:
        secret = "sk-very-secret"
        path = log(
            tmp_path, REQUEST, {"key": secret}, {"id": "r1", "edit": secret, "x": {"y": secret}}
        )
        _, printed = self.run(str(path), "--output", str(tmp_path / "o"), "--max-bad", "1")
        assert "x.y (1)" in printed
        assert secret not in printed
        assert secret not in (tmp_path / "o/dropped.jsonl").read_text()
        assert secret not in (tmp_path / "o/manifest.json").read_text()

    @pytest.mark.parametrize(
        ("args", "said"),
        [
            (("--source", "langfusion"), "no source is called 'langfusion'"),
            (("--kinds", "preference,pairs"), "no kind of record is called 'pairs'"),
            (("--kinds", ""), "--kinds: List should have at least 1 item"),
            (("--edit-min", "0.8"), "edits cannot be kept from 0.8 to 0.7"),
            (("--column", "prompt"), "'prompt' renames nothing"),
            (("--column", "prompt=question"), "`columns` names `question`"),
            (("--thumb", "nothere"), "no signal is called 'nothere'"),
            (("--score", "humor"), "no prompt with several answers has the score 'humor'"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, args: tuple[str, ...], said: str) -> None:
        path = log(tmp_path, REQUEST, EDIT)
        code, told = self.run(str(path), "--output", str(tmp_path / "out"), *args)
        assert code == 2
        assert said in told
        assert not (tmp_path / "out").exists()

    def test_where_something_stands(self, tmp_path: Path) -> None:
        path = log(tmp_path, REQUEST, EDIT)
        args = (str(path), "--output", str(tmp_path / "out"))
        assert self.run(*args)[0] == 0
        assert "something stands there" in self.run(*args)[1]
        assert self.run(*args, "--overwrite")[0] == 0
        assert "give --output a folder" in self.run(str(path), "--output", "a.jsonl")[1]

    def test_columns_are_renamed(self, tmp_path: Path) -> None:
        row = {"question": "2x = 6?", "reply": "3", "ok": True, "other": 1}
        path = log(tmp_path, row, row | {"reply": "4", "ok": False})
        code, _ = self.run(str(path), "--output", str(tmp_path / "out"),
                           *(f"--column={c}" for c in
                             ("prompt=question", "completion=reply", "correct=ok")))  # fmt: skip
        [pair] = (tmp_path / "out/preferences.jsonl").read_text().splitlines()
        assert code == 0
        assert json.loads(pair)["rejected"] == [{"role": "assistant", "content": "4"}]


def test_a_source_can_be_named(make: Make) -> None:
    """A row that looks like another source is read as what it is said to be."""
    row = {"messages": [user("Hi"), {"role": "assistant", "content": "Hello"}], "answer": "Hey",
           "id": "r"}  # fmt: skip
    assert make([row]).built.interactions == 1
    assert make([row])["demonstrations"] == []
    named = make([row], source="openai_chat")
    assert named.said("demonstrations", "completion") == [("Hello",)]


def test_folders_and_packed_files_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    log(folder, EDIT, name="feedback.jsonl")
    log(folder, json.dumps([REQUEST], indent=1), name="requests.json")
    built = build(sources_of([folder]), None)
    assert built.records["preference"] == 1
    assert {Path(path).name for path in built.recognised} == {"feedback.jsonl", "requests.json"}


def test_an_empty_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no rows"):
        build(sources_of([log(tmp_path, "")]), None)


def test_every_source_knows_its_rows_from_those_of_the_others() -> None:
    """The first that recognises a row reads it, so none may claim the rows of one behind it."""
    rows = {
        "openai_preference": {"input": {}, "preferred_output": [], "non_preferred_output": []},
        "otel": {"resourceSpans": []},
        "mlflow": {"info": {}, "data": {}},
        "langsmith": {"id": "1", "run_type": "llm", "inputs": {}, "outputs": {}, "trace_id": "t"},
        "langfuse": {"id": "1", "traceId": "t", "type": "GENERATION", "input": "", "output": ""},
        "tickets": {"ticket_id": "1", "thread": []},
        "serving_log": {"id": "1", "messages": [], "answer": ""},
        "answers": {"prompt": "", "completion": ""},
        "chat_log": {"request": {}, "response": {}},
        "openai_chat": {"messages": []},
    }
    assert list(rows) == list(SOURCES)
    for name, row in rows.items():
        assert source_of(row) == name


def test_unknown_fields_are_named_by_their_path() -> None:
    fields = frozenset(("id", "a.b", "meta.mlflow.*", "input{}", "response.choices"))
    row = {"id": 1, "a": {"b": 2, "c": {"d": 3}}, "meta": {"mlflow.user": 1, "plan": "x"},
           "input": {"question": "?", "context": "!"}, "empty": None, "list": [{"x": 1}],
           "response": "text"}  # fmt: skip
    assert list(unknown_paths(row, fields)) == ["a.c.d", "meta.plan", "input.context", "list"]


def test_progress_is_told(tmp_path: Path) -> None:
    rows = [{**REQUEST, "id": f"r{n}"} for n in range(1500)]
    told: list[int] = []
    build(sources_of([log(tmp_path, *rows)]), None, advance=told.append)
    assert told == [1000, 1000]  # every row is read twice


class TestChains:
    def test_a_chain_has_one_root_and_counts_its_steps(self) -> None:
        chains = Chains({5: 2, 2: 1, 9: 5, 7: 6})
        assert [chains.root(n) for n in (1, 2, 5, 9)] == [1] * 4
        assert [chains.step(n) for n in (9, 1, 5, 2)] == [3, 0, 2, 1]
        assert (chains.root(7), chains.step(7), 6 in chains, 3 in chains) == (6, 1, True, False)

    def test_a_circle_is_not_closed(self) -> None:
        chains = Chains({1: 2, 2: 3, 3: 1})
        assert {chains.root(n) for n in (1, 2, 3)} == {3}
        assert [chains.step(n) for n in (1, 2, 3)] == [2, 1, 0]

    @pytest.mark.parametrize("order", [1, -1])
    def test_time_grows_with_the_links(self, order: int) -> None:
        taken = []
        for n in (5_000, 40_000):
            begun = time.process_time()
            chains = Chains(dict([(place, place - 1) for place in range(1, n)][::order]))
            assert sum(chains.step(place) for place in range(n)) == n * (n - 1) // 2
            assert {chains.root(place) for place in range(n)} == {0}
            taken.append(time.process_time() - begun)
        assert taken[1] < 25 * taken[0] + 0.2  # quadratic: 64 times
