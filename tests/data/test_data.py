"""Reading records: every form users have, every mistake with file, line and fix."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import Dataset

from strop.data.order import batch_indices, permutation
from strop.data.records import PARSERS, demonstration, document, feedback, preference, task
from strop.data.sources import at, data_hash, read
from strop.errors import DataError
from strop.types import Origin
from tests.support.runs import WriteRows

ROWS = [{"prompt": "2x = 6", "completion": "3", "source": "a"}, {"prompt": "b", "completion": "c"}]
HERE = Origin("f.jsonl", 1)


class TestSources:
    def test_all_kinds_of_files_give_the_same_records(self, tmp_path: Path) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in ROWS)
        (tmp_path / "a.jsonl").write_text("\ufeff" + lines + "\n")
        (tmp_path / "b.json").write_text(json.dumps(ROWS))
        with gzip.open(tmp_path / "c.jsonl.gz", "wt") as stream:
            stream.write(lines)
        plain = [{**row, "source": row.get("source")} for row in ROWS]
        pyarrow.parquet.write_table(pa.Table.from_pylist(plain), tmp_path / "d.parquet")
        Dataset.from_list(plain).save_to_disk(str(tmp_path / "e"))
        for name in ("a.jsonl", "b.json", "c.jsonl.gz", "d.parquet", "e"):
            records = read([at(tmp_path / name)], demonstration)
            assert [r.prompt for r in records] == ["2x = 6", "b"], name
            assert records[0].columns["source"] == "a"
            assert records[1].origin.line == 2

    def test_a_folder_is_all_its_files(self, tmp_path: Path, write_rows: WriteRows) -> None:
        write_rows("1.jsonl", ROWS[:1])
        write_rows("2.jsonl", ROWS[1:])
        assert [r.prompt for r in read([at(tmp_path)], demonstration)] == ["2x = 6", "b"]

    def test_broken_line_names_file_line_and_fix(self, tmp_path: Path) -> None:
        path = tmp_path / "bad.jsonl"
        path.write_text('{"prompt": "a", "completion": "b"}\n\n{"prompt": "a", \n')
        with pytest.raises(DataError, match=r"bad\.jsonl:3: broken JSON[\s\S]*fix: mend or drop"):
            read([at(path)], demonstration)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.jsonl", b"[1, 2]\n", "a.jsonl:1: the line is not a JSON object"),
            ("a.jsonl", b"", "holds no records"),
            ("a.jsonl", b'{"prompt": "\xff"}\n', "not UTF-8"),
            ("a.jsonl", b"[" * 100_000 + b"\n", "a.jsonl:1: broken JSON"),
            ("a.xlsx", b"prompt\n", "unknown kind of data file"),
            ("a.csv", b"prompt\n", "holds no records"),
            ("a.json", b'{"prompt": 1}', "expected a JSON array"),
            ("a.parquet", b"nonsense", "not a Parquet file"),
            ("a.jsonl.gz", b"nonsense", "cannot read the file"),
        ],
    )
    def test_bad_files(self, tmp_path: Path, name: str, content: bytes, message: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message.replace(".", r"\.")):
            read([at(tmp_path / name)], task)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such file"):
            read([at(tmp_path / "nowhere.jsonl")], task)

    def test_hash_follows_content(self, write_rows: WriteRows) -> None:
        first, same = write_rows("a.jsonl", ROWS), write_rows("b.jsonl", ROWS)
        other = write_rows("c.jsonl", ROWS[:1])
        assert data_hash([first]) == data_hash([same]) != data_hash([other])


class TestForms:
    def test_messages_split_before_the_first_assistant_turn(self) -> None:
        turns = [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "a"},
            {"role": "user", "content": "v"},
            {"role": "assistant", "content": "b"},
        ]
        record = demonstration({"messages": turns}, HERE)
        assert (record.prompt, record.completion) == (turns[:2], turns[2:])

    def test_openai_preference(self) -> None:
        said = [[{"role": "assistant", "content": text}] for text in ("good", "bad")]
        row = {
            "input": {"messages": [{"role": "user", "content": "u"}], "tools": []},
            "preferred_output": said[0],
            "non_preferred_output": said[1],
        }
        record = preference(row, HERE)
        assert (record.chosen, record.rejected) == (said[0], said[1])

    def test_whole_conversations_share_their_prompt(self) -> None:
        user = {"role": "user", "content": "u"}
        chosen, rejected = ({"role": "assistant", "content": text} for text in ("good", "bad"))
        row = {"prompt": "u", "chosen": [user, chosen], "rejected": [user, rejected]}
        record = preference(row, HERE)
        assert (record.prompt, record.chosen, record.rejected) == ([user], [chosen], [rejected])

    def test_unknown_columns_are_kept(self) -> None:
        assert task({"prompt": "p", "answer": "5", "n": 2}, HERE).columns == {"answer": "5", "n": 2}

    def test_feedback_label_is_a_thumb(self) -> None:
        assert feedback({"prompt": "p", "completion": "c", "label": False}, HERE).label is False
        with pytest.raises(DataError, match="use true or false"):
            feedback({"prompt": "p", "completion": "c", "label": 0.5}, HERE)


@pytest.mark.parametrize(
    ("parse", "row", "message"),
    [
        (demonstration, {"prompt": "a", "chosen": "b", "rejected": "c"}, "fits preference methods"),
        (preference, {"prompt": "a", "completion": "b"}, "fits methods sft"),
        (document, {"prompt": "a"}, "give every line {text}"),
        (demonstration, {"prompt": "a", "completion": " "}, "`completion` is empty"),
        (demonstration, {"prompt": "", "completion": "b"}, "`prompt` is empty"),
        (preference, {"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen equals rejected"),
        (preference, {"chosen": "a", "rejected": "b"}, "the pair has no prompt"),
        (demonstration, {"messages": [{"role": "user", "content": "u"}]}, "no assistant turn"),
        (demonstration, {"messages": [{"content": "u"}]}, r"`messages\[0\]` has no role"),
        (demonstration, {"messages": "u"}, "`messages` is one text, not a list of messages"),
        (document, {"text": "  "}, "`text` is empty"),
        (task, {"prompt": 5}, "neither text nor a list"),
    ],
)
def test_bad_rows(parse: Callable[..., Any], row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse(row, HERE)
    assert str(caught.value).startswith("f.jsonl:1: ")
    assert "fix:" in str(caught.value)


def test_every_kind_has_a_parser() -> None:
    assert set(PARSERS) == {"document", "demonstration", "preference", "feedback", "task"}


class TestOrder:
    def test_every_epoch_visits_everything_once(self) -> None:
        seen = [i for step in range(10) for i in batch_indices(10, 3, seed=1, step=step)]
        for epoch in range(3):
            assert sorted(seen[epoch * 10 : epoch * 10 + 10]) == list(range(10))

    def test_is_a_pure_function_of_seed_and_step(self) -> None:
        assert batch_indices(50, 8, 3, 7) == batch_indices(50, 8, 3, 7)
        assert batch_indices(50, 8, 3, 7) != batch_indices(50, 8, 4, 7)

    @pytest.mark.parametrize(("count", "seed", "epoch", "stream"), [
        (1, 0, 0, 0), (3, 5, 2, 1), (300, 7, 1, 0), (70_000, 7, 0, 3),
    ])  # fmt: skip
    def test_is_that_of_the_generator_whatever_a_place_takes(
        self, count: int, seed: int, epoch: int, stream: int
    ) -> None:
        """Bytes of an index follow the count; its value does not."""
        draw = np.random.Generator(np.random.Philox(key=[seed + (stream << 32), epoch]))
        order = permutation(count, seed, epoch, stream)
        assert order.tolist() == draw.permutation(count).tolist()
        assert order.itemsize == {1: 1, 3: 1, 300: 2, 70_000: 4}[count]
        with pytest.raises(ValueError, match="read-only"):
            order[0] = 0

    def test_a_batch_is_read_off_the_epochs_one_by_one(self) -> None:
        """Also where it spans several epochs, and after another epoch was asked for."""
        for count, size in ((10, 3), (3, 8), (7, 7)):
            for step in (0, 1, 5, 2):
                places = range(step * size, (step + 1) * size)
                expected = [permutation(count, 4, p // count)[p % count] for p in places]
                assert batch_indices(count, size, 4, step) == expected

    def test_a_batch_larger_than_the_data_goes_round(self) -> None:
        assert len(batch_indices(3, 8, 0, 0)) == 8
