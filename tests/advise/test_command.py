"""`strop advise` as it is typed: what it prints, what it refuses, and real pairs."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from strop.advise.table.rules import read_table
from strop.cli.app import app
from strop.errors import UsageError
from strop.files import write_json, write_rows
from strop.model.load import weights_hash
from tests.support import ROOT
from tests.support.advised import evaluated, question_of

DATA = Path(os.environ.get("STROP_DATA", ROOT.parent / "shared/data"))
CASE = {"name": "a case", "pairs": {"rows": 200, "longer": 0.9},
        "eval": {"items": 200, "right": 100}}  # fmt: skip


def advise(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["advise", *map(str, arguments)])


@pytest.fixture
def given(tmp_path: Path) -> list[object]:
    question = question_of(CASE, tmp_path)
    return ["--data", question.data[0], "--eval", question.eval, "--target", "greedy/accuracy=0.9"]


def test_json_has_every_key_that_others_call(given: list[object]) -> None:
    said = json.loads(advise(*given, "--json").output)
    assert said["verdict"] == "simpo"
    assert all(set(one) == {"verdict", "why_not"} for one in said["runners_up"])
    assert {"risks", "rules", "recipe", "measure_next"} <= said.keys()
    assert said["rules"][0] == "length_decides"
    assert said["recipe"]["method"] == "simpo"
    assert said["facts"]["longer_wins"] == pytest.approx(0.9)


def test_the_text_says_verdict_reason_source_and_counter_case(given: list[object]) -> None:
    said = advise(*given).output
    assert said.splitlines()[0] == "simpo: SimPO"
    for words in ("arXiv 2405.14734", "wrong where:", "runners-up", "before training", "risks",
                  "measure next", "method: simpo", "alarm"):  # fmt: skip
        assert words in said
    assert "missed" not in said


def test_explain_prints_every_rule(given: list[object]) -> None:
    said = advise(*given, "--explain").output
    for rule in read_table().rules:
        assert f"({rule.id}, {rule.stage})" in said
    assert "needs length bias" not in said.split("missed simpo")[0].split("fired simpo")[1][:60]
    told = json.loads(advise(*given, "--explain", "--json").output)["explained"]
    assert {one["rule"] for one in told} == {rule.id for rule in read_table().rules}
    assert {one["outcome"] for one in told} == {"fired", "missed", "open"}


def test_files_are_written(given: list[object], tmp_path: Path) -> None:
    recipe, page = tmp_path / "new.yaml", tmp_path / "page.html"
    said = advise(*given, "--recipe", recipe, "--page", page)
    assert said.exit_code == 0
    assert said.output.splitlines()[-2:] == [f"saved {recipe}", f"saved {page}"]
    assert "method: simpo" in recipe.read_text()
    assert "length_decides" in page.read_text()
    assert "http" not in page.read_text().split("</style>")[-1].replace("arXiv", "")


def test_an_eval_of_another_model_is_refused(
    given: list[object], model_folder: Path, tmp_path: Path
) -> None:
    summary = Path(str(given[3])) / "summary.json"
    known = json.loads(summary.read_text())
    write_json(summary, {**known, "model": {"path": "other", "sha256": "0123456789abcdef"}})
    said = advise(*given, "--model", model_folder)
    assert "the eval is of another model: other" in f"{said.output} {said.exception}"
    mine = {"path": str(model_folder), "sha256": weights_hash(model_folder)}
    write_json(summary, {**known, "model": mine})
    assert advise(*given, "--model", model_folder).exit_code == 0


def test_tasks_without_an_eval_get_the_method_that_they_fit(tmp_path: Path) -> None:
    write_rows(tmp_path / "tasks.jsonl",
               ({"prompt": f"{n} + 1?", "answer": str(n + 1)} for n in range(300)))  # fmt: skip
    said = json.loads(advise("--data", tmp_path / "tasks.jsonl", "--json").output)
    assert said["verdict"] == "no_eval"
    assert said["runners_up"][0]["verdict"] == "grpo"
    assert said["recipe"]["method"] == "grpo"
    advise("--data", tmp_path / "tasks.jsonl", "--recipe", tmp_path / "new.yaml")
    assert "# put the folder of your model" in (tmp_path / "new.yaml").read_text()


def test_rows_that_are_left_out_are_told(given: list[object], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in Path(str(given[1])).read_text().splitlines()]
    bad = [{"prompt": "a", "chosen": None, "rejected": "b"}, {"prompt": 3, "chosen": 4}]
    write_rows(tmp_path / "dirty.jsonl", [*rows, *bad])
    said = advise("--data", tmp_path / "dirty.jsonl", *given[2:]).output
    assert f"1 of {len(rows) + 2} rows cannot be used" in said
    assert "1 of the rows beside the pairs are tasks" in said


def test_a_file_without_a_usable_row_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "chosen": None, "rejected": "b"}] * 20)
    said = advise("--data", tmp_path / "rows.jsonl")
    assert said.exit_code != 0
    assert "`chosen` is null in the first row" in f"{said.output} {said.exception}"


def test_the_length_that_is_chosen_is_named(tmp_path: Path) -> None:
    case = {**CASE, "pairs": {"rows": 200, "longer": 0.1}}
    question = question_of(case, tmp_path)
    said = advise("--data", question.data[0], "--eval", question.eval).output
    assert "the shorter one is chosen with chance 0.90" in said
    assert "Where shorter answers are what is wanted" in said


def test_nothing_given_says_what_to_give() -> None:
    said = json.loads(advise("--json").output)
    assert said["verdict"] == "not_enough_to_decide"
    assert any("--data" in line for line in said["measure_next"]) or said["rules"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--target", "accuracy"], "SCORE=VALUE"),
        (["--target", "greedy/acuracy=0.9"], "greedy/accuracy"),
        (["--target", "greedy/accuracy=nine"], "SCORE=VALUE"),
        (["--target", "greedy/accuracy=nan"], "SCORE=VALUE"),
        (["--target", "greedy/accuracy=90"], "is a share"),
        (["--model", "nowhere"], "no such model folder"),
        (["--eval", "ELSEWHERE"], "an eval is wanted here, and this is a folder of another kind"),
        (["--eval", "RUN"], "this is a training run (strop train)"),
        (["--eval", "MODEL"], "this is a model"),
        (["--data", "MIXED"], "several kinds: 201 pairs and 9 tasks"),
        (["--eval", "nowhere"], "an eval is wanted here, and nothing is there"),
        (["--model", "/nowhere"], "no such model folder"),
        (["--decode", "EVAL"], "wants a decoding study, and this is an eval (strop eval)"),
        (["--decode", "nowhere"], "wants a decoding study, and this is not there"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--data", "ODD"], "strop data build"),
        (["--data", "EMPTY"], "no row"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_get_one_message(
    given: list[object], change: list[str], words: str, tmp_path: Path
) -> None:
    (tmp_path / "odd.jsonl").write_text('{"colour": "green"}\n')
    (tmp_path / "empty.jsonl").write_text("")
    pair, task = {"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "d", "answer": "2"}
    write_rows(tmp_path / "mixed.jsonl", [pair, *[task] * 9])
    places = {"EVAL": str(given[3]), "ELSEWHERE": str(tmp_path)}
    places |= {name.upper(): str(tmp_path / f"{name}.jsonl")
               for name in ("odd", "empty", "mixed")}  # fmt: skip
    for name, mark in {"run": "metrics.jsonl", "model": "config.json"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / mark).write_text("")
        places[name.upper()] = str(tmp_path / name)
    said = advise(*given, *(places.get(word, word) for word in change))
    assert isinstance(said.exception, UsageError)
    assert said.exception.exit_code == 2
    assert words in f"{said.output} {said.exception}"


def test_a_recipe_is_not_written_where_there_is_none(tmp_path: Path) -> None:
    folder = evaluated({"items": 200, "right": 190}, tmp_path / "eval")
    said = advise("--eval", folder, "--target", "greedy/accuracy=0.9", "--recipe", "r.yaml")
    assert said.exit_code != 0
    assert "at_the_bar has no recipe" in f"{said.output} {said.exception}"


def rows_of(file: Path) -> list[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.exists(), reason=f"no public data at {DATA} (set STROP_DATA)")
def test_real_pairs_whose_longer_side_wins(tmp_path: Path) -> None:
    """alpaca_eval: the chosen side is longer in 84 % of the pairs."""
    made = []
    for file in sorted(DATA.glob("alpaca_eval/*.gz")):
        for row in rows_of(file):
            sides = (row["output_1"], row["output_2"])
            if row["preference"] in (None, "", 1.5) or sides[0] == sides[1]:
                continue
            chosen, rejected = sides if float(row["preference"]) < 1.5 else sides[::-1]
            made.append({"prompt": row["instruction"], "chosen": chosen, "rejected": rejected})
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in made))
    alone = json.loads(advise("--data", pairs, "--json").output)
    assert alone["verdict"] == "no_eval"
    assert alone["runners_up"][0]["verdict"] == "simpo"
    assert "strop eval" in alone["measure_next"][0]
    assert "length_bias" in {risk["id"] for risk in alone["risks"]}
    assert 0.82 <= alone["facts"]["longer_wins"] <= 0.88
    folder = evaluated({"items": 200, "right": 100}, tmp_path / "eval")
    said = json.loads(advise("--data", pairs, "--eval", folder, "--json",
                             "--target", "greedy/accuracy=0.9").output)  # fmt: skip
    assert said["verdict"] == "simpo"
    assert any("strop data balance" in line for line in said["work"])
