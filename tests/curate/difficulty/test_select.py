"""Which records are kept: by what a judge says, by a column, for their variety."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from strop.curate.difficulty.judged import RUBRICS, score_in
from strop.curate.difficulty.select import SelectReport, select
from strop.curate.manifest import sources_of
from strop.errors import DataError, RecipeError, UsageError
from strop.recipe.curate import SelectSettings
from strop.recipe.loading.load import load
from strop.types import Task
from tests.support.planned import ScriptedEngine, read_jsonl, strop
from tests.support.runs import WriteRows


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("Score: 4", 4.0),
        ("It needs two steps.\nScore: 3", 3.0),
        ("**Score: 5**", 5.0),
        ("Score: 4.5/6", 4.5),
        ("score = 2.", 2.0),
        ("6", 6.0),
        ("4/6", 4.0),
        ("<think>Score: 1? no</think>Score: 2", 2.0),
        ("", None),
        ("Score: 7", None),
        ("Score: 0", None),
        ("Score: -3", None),
        ("Score: 14", None),
        ("Score: high", None),
        ("a 3 or a 4", None),
        ("Score: 3 or 4", None),
        ("underscore 5", None),
        ("<think>Score: 5", None),
    ],
)
def test_scores_are_read_or_missing(said: str, score: float | None) -> None:
    assert score_in(said) == score


def judge(task: Task, number: int) -> str:
    """Complexity is the number of words of the request, quality the digit in the answer."""
    text = task.prompt[0]["content"]  # type: ignore[index]
    request = re.search(r"\[request\]\n(.*?)\n\[end", text, flags=re.S)
    answer = re.search(r"\[answer\]\n(.*?)\n\[end", text, flags=re.S)
    assert request is not None
    if answer is None:
        return f"Score: {len(request[1].split())}"
    digit = re.search(r"\d", answer[1])
    return f"So be it.\nScore: {digit[0]}" if digit else "I cannot say."


ROWS = [
    {"prompt": "one", "completion": "good 6"},
    {"prompt": "one two", "completion": "bad 1"},
    {"prompt": "one two three", "completion": "fair 4"},
    {"prompt": "one two three four", "completion": "unreadable"},
    {"prompt": "one two three four five", "completion": "fair 3"},
]


def selected(
    rows: list[dict[str, Any]], write_rows: WriteRows, out: Path, engine: Any = None, **given: Any
) -> tuple[list[dict[str, Any]], SelectReport]:
    if engine is not None:
        given["model"] = "judge"
    settings = load(SelectSettings, given)
    path = write_rows("rows.jsonl", rows)
    report = select(sources_of([path]), out, settings, overwrite=True, engine=engine)
    return read_jsonl(out), report


class TestJudged:
    def test_quality(self, write_rows: WriteRows, tmp_path: Path) -> None:
        out = tmp_path / "out.jsonl"
        kept, report = selected(ROWS, write_rows, out, ScriptedEngine(judge), by="quality", keep=2)
        assert kept == [ROWS[0] | {"quality": 6.0}, ROWS[2] | {"quality": 4.0}]
        assert (report.unscored, report.mean, report.mean_before) == (1, 5.0, 14 / 4)
        dropped = {row["line"]: row["kind"] for row in read_jsonl(tmp_path / "out.dropped.jsonl")}
        assert dropped == {2: "quality_rank", 4: "unscored", 5: "quality_rank"}

    def test_missing_is_never_zero(self, write_rows: WriteRows, tmp_path: Path) -> None:
        """Asked for the lowest, the unreadable one is not among them."""
        kept, _ = selected(ROWS, write_rows, tmp_path / "o.jsonl", ScriptedEngine(judge),
                           by="quality", keep=4, order="lowest")  # fmt: skip
        assert [row["prompt"] for row in kept] == [ROWS[n]["prompt"] for n in (0, 1, 2, 4)]

    def test_complexity_needs_no_answer(self, write_rows: WriteRows, tmp_path: Path) -> None:
        rows = [{"prompt": row["prompt"]} for row in ROWS]
        kept, _ = selected(rows, write_rows, tmp_path / "o.jsonl", ScriptedEngine(judge),
                           by="complexity", keep=1)  # fmt: skip
        assert kept == [{"prompt": "one two three four five", "complexity": 5.0}]
        with pytest.raises(DataError, match=r"rows.jsonl:1: the record has no answer"):
            selected(rows, write_rows, tmp_path / "o.jsonl", ScriptedEngine(judge),
                     by="quality", keep=1)  # fmt: skip

    def test_deita_is_the_product(self, write_rows: WriteRows, tmp_path: Path) -> None:
        kept, _ = selected(ROWS, write_rows, tmp_path / "o.jsonl", ScriptedEngine(judge),
                           by="deita", keep=1)  # fmt: skip
        assert kept == [ROWS[4] | {"complexity": 5.0, "quality": 3.0, "deita": 15.0}]

    def test_braces_of_a_record_are_its_own(self, write_rows: WriteRows, tmp_path: Path) -> None:
        rows = [{"prompt": "{answer} {prompt}", "completion": "{prompt} 2"}]
        engine = ScriptedEngine(judge)
        selected(rows, write_rows, tmp_path / "o.jsonl", engine, by="quality", keep=1)
        ((messages, _),) = engine.asked
        assert "[request]\n{answer} {prompt}\n[end" in messages[0]["content"]
        assert "[answer]\n{prompt} 2\n[end" in messages[0]["content"]
        assert set(RUBRICS) == {"complexity", "quality"}

    def test_over_http_each_answer_is_paid_once(
        self, write_rows: WriteRows, tmp_path: Path, chat_server: Any
    ) -> None:
        chat_server.reply = lambda text: judge(Task([{"content": text}], {}, None), 0)  # type: ignore[arg-type]
        path, out = write_rows("a.jsonl", ROWS), tmp_path / "out.jsonl"
        args = ["data", "select", path, "--by", "quality", "--keep", 2, "--model", "judge",
                "--endpoint", chat_server.url, "--output", out]  # fmt: skip
        found = json.loads(strop(*args, "--json"))
        assert found["unscored"] == 1
        assert len(chat_server.seen) == 5
        assert chat_server.seen[0]["temperature"] == 0.0
        strop(*args, "--overwrite", "--requests", 1)
        assert len(chat_server.seen) == 5
        assert [row["quality"] for row in read_jsonl(out)] == [6.0, 4.0]


class TestColumns:
    def test_a_nested_column(self, write_rows: WriteRows, tmp_path: Path) -> None:
        scores: list[Any] = [0.5, None, 3, "9", True, 2.5, float("inf")]
        rows = [{"prompt": f"q{n}", "meta": {"score": score}} for n, score in enumerate(scores)]
        out = tmp_path / "o.jsonl"
        kept, report = selected(rows, write_rows, out, by="meta.score", keep=2)
        assert [row["prompt"] for row in kept] == ["q2", "q5"]
        assert report.unscored == 4, "null, a text, a bool and infinity are no scores"

    def test_the_order_of_rows_does_not_count(self, write_rows: WriteRows, tmp_path: Path) -> None:
        rows = [{"prompt": f"q{n}", "score": n // 10} for n in range(100)]
        one, _ = selected(rows, write_rows, tmp_path / "o.jsonl", by="score", keep=15)
        random.Random(0).shuffle(rows)
        two, _ = selected(rows, write_rows, tmp_path / "o.jsonl", by="score", keep=15)
        assert {row["prompt"] for row in one} == {row["prompt"] for row in two}
        assert sum(row["score"] == 9 for row in one) == 10

    def test_a_judged_score_is_a_column_later(self, write_rows: WriteRows, tmp_path: Path) -> None:
        rows = [row | {"quality": n} for n, row in enumerate(ROWS)]
        kept, _ = selected(rows, write_rows, tmp_path / "o.jsonl", by="quality", keep=1)
        assert kept == [rows[4]]

    def test_no_such_column(self, write_rows: WriteRows, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no record has a number in the column quality") as told:
            selected(ROWS, write_rows, tmp_path / "o.jsonl", by="quality", keep=1)
        assert "name a model (--model) for quality" in str(told.value)


TOPICS = ["cat paw fur tail", "tax law court fine", "sum times minus root"]


class TestDiverse:
    def test_one_of_each_topic(self, write_rows: WriteRows, tmp_path: Path) -> None:
        """Nine of ten rows are of the first topic; three that are kept are of three topics."""
        rows = [{"prompt": f"{TOPICS[0]} w{n}", "completion": "a"} for n in range(36)]
        rows += [{"prompt": f"{topic} w{n}", "completion": "a"}
                 for topic in TOPICS[1:] for n in range(2)]  # fmt: skip
        kept, report = selected(rows, write_rows, tmp_path / "o.jsonl", diverse=True, keep=3)
        assert {row["prompt"][:3] for row in kept} == {"cat", "tax", "sum"}
        assert report.radius is not None
        one, _ = selected(rows, write_rows, tmp_path / "o.jsonl", diverse=True, keep=1)
        assert one[0]["prompt"].startswith("cat"), "the first is near to most"
        random.Random(0).shuffle(rows)
        turned, _ = selected(rows, write_rows, tmp_path / "o.jsonl", diverse=True, keep=3)
        assert {r["prompt"] for r in kept} == {r["prompt"] for r in turned}

    def test_the_most_diverse_of_the_best(self, write_rows: WriteRows, tmp_path: Path) -> None:
        best = [{"prompt": f"{TOPICS[0]} w{n}", "score": 10 + n} for n in range(5)]
        rows = [*best, {"prompt": f"{TOPICS[1]} w", "score": 9}, {"prompt": TOPICS[2], "score": 1}]
        out = tmp_path / "o.jsonl"
        kept, _ = selected(rows, write_rows, out, by="score", keep=2)
        assert [row["score"] for row in kept] == [13, 14]
        kept, _ = selected(rows, write_rows, out, by="score", keep=2, diverse=True)
        assert [row["score"] for row in kept] == [14, 9], "among the six best"
        dropped = {row["line"]: row["kind"] for row in read_jsonl(tmp_path / "o.dropped.jsonl")}
        assert dropped[7] == "score_rank"
        assert dropped[1] == "not_diverse"
        kept, _ = selected(rows, write_rows, out, by="score", keep=2, diverse=True, pool=4)
        assert [row["score"] for row in kept] != [13, 14]


class TestSettings:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "nothing says which records are kept"),
            ({"by": "score", "model": "m"}, "`model` is only read by"),
            ({"by": "ifd", "model": "m", "endpoint": "http://x/v1"}, "no endpoint tells"),
            ({"by": "score", "pool": 2}, "`pool` is only read with both"),
            ({"diverse": True, "pool": 2}, "`pool` is only read with both"),
            ({"by": "score", "embeddings": "w"}, "`embeddings` is only read with"),
            ({"diverse": True, "order": "lowest"}, "`order` is only read with"),
            ({"by": "quality", "endpoint": "http://x/v1"}, "`endpoint` needs `model`"),
            ({"by": "quality", "model": "m", "tokens": 9}, "`tokens` is only read with `endpoint`"),
        ],
    )
    def test_what_would_be_inert_is_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(RecipeError, match=message):
            load(SelectSettings, {"keep": 1, **options})

    def test_ifd_of_another_engine(self, write_rows: WriteRows, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="ifd reads likelihoods"):
            selected(ROWS, write_rows, tmp_path / "o.jsonl", ScriptedEngine(judge), by="ifd",
                     keep=1)  # fmt: skip
