"""What went wrong in production becomes a golden set that nobody can change unseen."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from strop.cli.evals.mine import mine as mine_command
from strop.data.records import preference, task
from strop.data.sources import read
from strop.errors import DataError, MissingEvidenceError, OutputError
from strop.evals.golden.manifest import check_frozen, write_golden
from strop.evals.golden.mine import Mined, mine
from strop.recipe.loading.load import load
from strop.recipe.suite import Suite
from tests.support.runs import WriteRows

DOWN = {"prompt": "Who wrote Faust?", "completion": "Schiller.", "label": False}
UP = {"prompt": "Who wrote Emma?", "completion": "Austen.", "label": True}
EDIT = {"prompt": "Greet Bo", "completion": "Sure! Hi Bo", "edited": "Hi Bo", "topic": "mail"}
FAILED = {"prompt": "Solve 2x = 6", "completion": "x = 4", "score": 0.0, "answer": "3",
          "topic": "algebra"}  # fmt: skip
SETTINGS = {"by": [], "per_stratum": None, "below": 0.5, "seed": 0, "sources": []}


def mined(write_rows: WriteRows, *rows: dict[str, Any], **options: Any) -> Mined:
    return mine([write_rows("production.jsonl", rows)], **options)


def test_each_signal_becomes_what_it_can_be(write_rows: WriteRows) -> None:
    passed = {**FAILED, "prompt": "Solve 2x = 8", "score": 1.0}
    unscored = {**FAILED, "prompt": "Solve 2x = 9", "score": None}
    silent = {"prompt": "Hi", "completion": "Hello"}
    untouched = {**EDIT, "edited": "Sure!  Hi Bo"}
    rows = (DOWN, UP, EDIT, FAILED, passed, unscored, silent, untouched)
    found = mined(write_rows, *rows)
    assert found.signals == {
        "edit": 1, "failed": 1, "no_signal": 1, "passed": 1, "thumbs_down": 1, "thumbs_up": 1,
        "unchanged_edit": 1, "unscored": 1,
    }  # fmt: skip
    (pair,) = found.pairs
    assert (pair["chosen"], pair["rejected"], pair["topic"]) == ("Hi Bo", "Sure! Hi Bo", "mail")
    judged, lone = found.tasks
    assert (judged["prompt"], judged["answer"], judged["bad"]) == ("Solve 2x = 6", "3", "x = 4")
    assert (judged["judge"], judged["signal"]) == ("exact_answer", "failed")
    assert (lone["judge"], lone["signal"], lone["bad"]) == (None, "thumbs_down", "Schiller.")
    assert lone["mined_from"] == "production.jsonl:1"


def test_the_threshold_decides_what_failed(write_rows: WriteRows) -> None:
    rows = [{**FAILED, "prompt": f"Solve {n}x = 6", "score": n / 10} for n in range(1, 10)]
    assert len(mined(write_rows, *rows).tasks) == 4
    assert len(mined(write_rows, *rows, below=0.8).tasks) == 7


@pytest.mark.parametrize(
    ("columns", "judge"),
    [
        ({"answer": 7}, "exact_answer"),
        ({"answer": "It follows that the two are equal and so we see that #### 7"}, "exact_answer"),
        ({"answer": "one two three four five six seven eight nine ten eleven twelve more"}, None),
        ({"answer": [{"name": "f", "arguments": {}}]}, "tool_call"),
        ({"tests": ["assert f(1) == 2"], "answer": "def f(x): ..."}, "code_tests"),
        ({"schema": {"type": "object"}}, "json_schema"),
        ({"answer": ""}, None),
        ({"tests": []}, None),
    ],
)
def test_the_reward_is_told_by_what_there_is_to_judge_by(
    write_rows: WriteRows, columns: dict[str, Any], judge: str | None
) -> None:
    (row,) = mined(write_rows, {"prompt": "p", "completion": "c", "score": 0, **columns}).tasks
    assert row["judge"] == judge


def test_a_thumb_down_is_set_against_the_edit_of_the_same_prompt(write_rows: WriteRows) -> None:
    down = {"prompt": "greet bo!", "completion": "Go away", "label": False}
    as_good = {"prompt": "Greet Bo", "completion": "Hi  Bo", "label": False}
    found = mined(write_rows, EDIT, down, as_good)
    assert {(p["chosen"], p["rejected"]) for p in found.pairs} == {
        ("Hi Bo", "Sure! Hi Bo"),
        ("Hi Bo", "Go away"),
    }
    assert len({p["cluster"] for p in found.pairs}) == 1
    assert [row["bad"] for row in found.tasks] == ["Hi  Bo"]


def test_chat_records_become_pairs_in_chat_form(write_rows: WriteRows) -> None:
    asked = [{"role": "user", "content": "Greet Bo"}]
    found = mined(write_rows, {"prompt": asked, "completion": "Sure! Hi Bo", "edited": "Hi Bo"})
    assert found.pairs[0]["chosen"] == [{"role": "assistant", "content": "Hi Bo"}]
    assert found.pairs[0]["rejected"] == [{"role": "assistant", "content": "Sure! Hi Bo"}]
    openai = {"input": {"messages": asked}, "preferred_output": found.pairs[0]["chosen"],
              "non_preferred_output": found.pairs[0]["rejected"]}  # fmt: skip
    again = mined(write_rows, openai)
    assert again.pairs[0]["chosen"] == found.pairs[0]["chosen"]
    assert again.pairs[0]["prompt"] == asked


LETTER = ("Write a short and friendly mail to a customer whose parcel is late by three days and "
          "offer a voucher for the next order")  # fmt: skip


def test_duplicates_go_and_the_judgeable_one_stays(write_rows: WriteRows) -> None:
    bare = {"prompt": "solve 2x=6", "completion": "no", "label": False}
    other = {**FAILED, "prompt": "Solve 2x = 8", "answer": "4"}
    wrong = {**FAILED, "answer": "33"}
    letters = [{"prompt": text, "completion": "c", "label": False}
               for text in (LETTER, LETTER.replace("friendly", "kind"))]  # fmt: skip
    found = mined(write_rows, bare, FAILED, wrong, other, *letters)
    assert [row["prompt"] for row in found.tasks] == ["Solve 2x = 6", "Solve 2x = 8", LETTER]
    assert found.tasks[0]["answer"] == "3"
    assert found.dropped == {"equal": 2, "near": 1, "over_quota": 0}
    assert found.conflicts == 1  # the answer 33


def test_edits_of_one_prompt_differ_and_share_a_cluster(write_rows: WriteRows) -> None:
    other = {**EDIT, "completion": "Yo Bo"}
    found = mined(write_rows, EDIT, other, {**EDIT, "edited": "hi Bo!"})
    assert [p["rejected"] for p in found.pairs] == ["Sure! Hi Bo", "Yo Bo"]
    assert len({p["cluster"] for p in found.pairs}) == 1
    assert len({p["id"] for p in found.pairs}) == 2


def test_the_users_own_cluster_and_id_are_kept(write_rows: WriteRows) -> None:
    (row,) = mined(write_rows, {**FAILED, "id": 17, "cluster": "customer 4"}).tasks
    assert (row["source_id"], row["cluster"]) == (17, "customer 4")
    assert row["id"] != 17


def many(count: int = 300) -> list[dict[str, Any]]:
    topics = ["common"] * 9 + ["rare"]
    return [
        {**FAILED, "prompt": f"Solve {n}x = 6", "topic": topics[n % 10]} for n in range(1, count)
    ] + [{**DOWN, "prompt": f"Who wrote book {n}?"} for n in range(40)]


def test_every_stratum_is_there_and_none_is_over_its_quota(write_rows: WriteRows) -> None:
    found = mined(write_rows, *many(), by=["topic"], per_stratum=12)
    assert found.strata == {
        "signal=failed, topic=common": {"found": 269, "kept": 12},
        "signal=failed, topic=rare": {"found": 30, "kept": 12},
        "signal=thumbs_down, topic=none": {"found": 40, "kept": 12},
    }
    assert [row["topic"] for row in found.tasks].count("rare") == 12
    assert found.dropped["over_quota"] == 339 - 36


def test_the_draw_depends_on_the_seed_and_not_on_the_order(write_rows: WriteRows) -> None:
    def drawn(rows: list[dict[str, Any]], seed: int) -> set[str]:
        found = mined(write_rows, *rows, by=["topic"], per_stratum=12, seed=seed)
        return {row["prompt"] for row in found.tasks}

    rows = many()
    assert drawn(rows, 0) == drawn(rows[::-1], 0)
    assert drawn(rows, 0) != drawn(rows, 1)
    counts = dict.fromkeys(range(1, 300), 0)
    for seed in range(30):  # every item has its chance, and no part of the file is preferred
        for row in mined(write_rows, *rows[:299], per_stratum=60, seed=seed).tasks:
            counts[int(row["prompt"].split()[1][:-1])] += 1
    assert max(counts.values()) < 20  # mean 6, standard deviation 2.2
    assert sum(n == 0 for n in counts.values()) < 6
    assert abs(sum(n for i, n in counts.items() if i < 150) / (30 * 60) - 149 / 299) < 0.05


def test_a_second_run_writes_the_same_bytes_and_leaves_the_first_alone(
    write_rows: WriteRows, tmp_path: Path
) -> None:
    found = mined(write_rows, *many(), EDIT, by=["topic"], per_stratum=5)
    settings = {**SETTINGS, "by": ["topic"], "per_stratum": 5}
    manifest = write_golden(found, tmp_path / "a", settings)
    again = mined(write_rows, *many(), EDIT, by=["topic"], per_stratum=5)
    write_golden(again, tmp_path / "b", settings)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["golden.json", "pairs.jsonl", "suite.yaml", "tasks.exact_answer.jsonl",
                     "tasks.jsonl"]  # fmt: skip
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    for name, one in manifest["files"].items():
        content = (tmp_path / "a" / name).read_bytes()
        assert one == {
            "sha256": hashlib.sha256(content).hexdigest(),
            "items": len(content.splitlines()),
        }
    (tmp_path / "a" / "suite.yaml").write_text("name: mine\n")
    write_golden(again, tmp_path / "a", settings)
    assert (tmp_path / "a" / "suite.yaml").read_text() == "name: mine\n"


def test_another_set_or_other_files_are_not_overwritten(
    write_rows: WriteRows, tmp_path: Path
) -> None:
    folder = tmp_path / "golden"
    write_golden(mined(write_rows, FAILED), folder, SETTINGS)
    before = (folder / "tasks.jsonl").read_bytes()
    with pytest.raises(OutputError, match=r"tasks.jsonl differs"):
        write_golden(mined(write_rows, {**FAILED, "answer": "4"}), folder, SETTINGS)
    assert (folder / "tasks.jsonl").read_bytes() == before
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="something else"):
        write_golden(mined(write_rows, FAILED), tmp_path / "else", SETTINGS)


def test_the_suite_loads_and_reads_only_what_can_be_judged(
    write_rows: WriteRows, tmp_path: Path
) -> None:
    code = {"prompt": "Write f", "completion": "?", "score": 0, "tests": ["assert f(1) == 2"]}
    found = mined(write_rows, FAILED, code, DOWN, EDIT, by=["topic"])
    manifest = write_golden(found, tmp_path / "golden", {**SETTINGS, "by": ["topic"]})
    assert manifest["unjudged"] == 1
    suite = load(Suite, tmp_path / "golden" / "suite.yaml")
    assert [one.name for one in suite.tasks] == [
        "edits",
        "golden-code_tests",
        "golden-exact_answer",
    ]
    pairs = read(suite.tasks[0].data, preference)  # type: ignore[union-attr]
    assert [pair.chosen for pair in pairs] == ["Hi Bo"]
    for one, prompt in zip(suite.tasks[1:], ("Write f", "Solve 2x = 6"), strict=True):
        (item,) = read(one.data, task)  # type: ignore[union-attr]
        assert item.prompt == prompt
        assert set(one.slices) == {"signal", "topic"} <= set(item.columns)


def test_one_kind_of_task_needs_no_second_file_and_nothing_judgeable_no_suite(
    write_rows: WriteRows, tmp_path: Path
) -> None:
    write_golden(mined(write_rows, FAILED), tmp_path / "one", SETTINGS)
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [
        "golden.json", "suite.yaml", "tasks.jsonl",
    ]  # fmt: skip
    write_golden(mined(write_rows, DOWN), tmp_path / "none", SETTINGS)
    assert not (tmp_path / "none" / "suite.yaml").exists()


def test_a_changed_golden_set_is_missing_evidence(write_rows: WriteRows, tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    write_golden(mined(write_rows, FAILED, EDIT), folder, SETTINGS)
    tasks = folder / "tasks.jsonl"
    check_frozen(tasks)
    check_frozen(folder / "pairs.jsonl")
    frozen = hashlib.sha256(tasks.read_bytes()).hexdigest()
    tasks.write_text(tasks.read_text().replace('"3"', '"4"'))
    changed = hashlib.sha256(tasks.read_bytes()).hexdigest()
    with pytest.raises(MissingEvidenceError, match="changed since it was frozen") as caught:
        check_frozen(tasks)
    assert frozen in str(caught.value)
    assert changed in str(caught.value)
    assert caught.value.exit_code == 12
    check_frozen(folder / "pairs.jsonl")
    (folder / "own.jsonl").write_text("{}\n")
    check_frozen(folder / "own.jsonl")
    check_frozen(write_rows("alone.jsonl", [FAILED]))
    (folder / "golden.json").write_text('{"files": []}')
    with pytest.raises(DataError, match="not the manifest of a golden set"):
        check_frozen(tasks)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"completion": "c", "label": False}, "found {completion, label}"),
        ({"prompt": "p", "label": False}, "no `completion`"),
        ({"prompt": "p", "completion": 5, "label": False}, "`completion` is neither"),
        ({**DOWN, "label": "down"}, "`label` is 'down'"),
        ({**FAILED, "score": "low"}, "`score` is 'low'"),
        ({**EDIT, "edited": " "}, "`edited` is empty"),
        ({**EDIT, "edited": 7}, "neither text nor a list"),
    ],
)
def test_broken_rows_are_named(write_rows: WriteRows, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        mined(write_rows, FAILED, row)
    assert "production.jsonl:2" in str(caught.value)
    assert message in str(caught.value)
    assert caught.value.fix


def test_nothing_wrong_and_a_column_nobody_has_are_refused(write_rows: WriteRows) -> None:
    with pytest.raises(DataError, match="found 1 thumbs_up"):
        mined(write_rows, UP)
    with pytest.raises(DataError, match="no item has the column 'tpoic'") as caught:
        mined(write_rows, FAILED, by=["tpoic"])
    assert "answer, topic" in str(caught.value)


def test_the_command_reports_and_a_dry_run_writes_nothing(
    write_rows: WriteRows, tmp_path: Path
) -> None:
    app = typer.Typer()
    app.command()(mine_command)
    file = write_rows("production.jsonl", [DOWN, UP, EDIT, FAILED, FAILED])
    args = [str(file), "--output", str(tmp_path / "golden")]
    dry = CliRunner().invoke(app, [*args, "--dry-run"])
    assert dry.exit_code == 0
    assert not (tmp_path / "golden").exists()
    shown = CliRunner().invoke(app, args).output
    assert "kept 2 tasks and 1 pairs; dropped 1 equal, 0 near, 0 over_quota" in shown
    assert "1 tasks have nothing to be judged by" in shown
    result = json.loads(CliRunner().invoke(app, [*args, "--json"]).output)
    assert (result["tasks"], result["pairs"], result["unjudged"]) == (2, 1, 1)
    manifest = json.loads((tmp_path / "golden" / "golden.json").read_text())
    assert manifest["sources"] == [
        {"name": "production.jsonl", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    ]
