"""What the data verbs write, and what stands there when they fail."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from strop.curate.manifest import (
    Listing,
    intact,
    listing_of,
    manifest_of,
    records_of,
    sources_of,
    writing_records,
)
from strop.data.bad_rows import BadRow
from strop.data.reading.folders import find
from strop.data.sources import at
from strop.errors import DataError, OutputError
from strop.types import Origin

GOOD = {"prompt": "2x = 6", "chosen": "3", "rejected": "4", "meta": {"trace_id": "t1"}}


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw.jsonl"
    rows = [json.dumps(GOOD | {"prompt": f"{n}x = 6"}) for n in range(3)]
    path.write_text("\n".join([rows[0], "{broken", *rows[1:]]) + "\n")
    return path


def write(raw: Path, out: Path | None, max_bad: float, overwrite: bool = False) -> None:
    inputs = sources_of([raw])
    with writing_records(out, "clean", inputs, {"pii": "keep"}, overwrite=overwrite) as output:
        for record in records_of(inputs, output, max_bad=max_bad):
            if record.origin.line == 4:
                output.drop(BadRow("equal", "the same", record.origin, excess=True), record)
            else:
                output.keep(record)


class TestListing:
    """What a run's lineage and a later manifest say of the manifest beside a file."""

    def test_the_file_is_listed_and_still_the_same(self, raw: Path, tmp_path: Path) -> None:
        out = tmp_path / "new" / "clean.jsonl"
        write(raw, out, max_bad=0.5)
        path = out.with_name("clean.manifest.json")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        expected = Listing(str(path), digest, "strop data clean", unchanged=True)
        assert listing_of(at(out)) == expected
        assert listing_of(at(raw)) is None
        write(out, tmp_path / "again.jsonl", max_bad=0.5)
        (source,) = json.loads((tmp_path / "again.manifest.json").read_text())["inputs"]
        assert source["manifest"] == asdict(expected)

    def test_a_changed_file_is_said_to_be(self, raw: Path, tmp_path: Path) -> None:
        out = tmp_path / "new" / "clean.jsonl"
        write(raw, out, max_bad=0.5)
        assert intact(out) is not None
        out.write_text(out.read_text().replace("0x", "9x"))
        listing = listing_of(at(out))
        assert listing is not None
        assert not listing.unchanged
        assert intact(out) is None

    def test_a_manifest_of_something_else_lists_nothing(self, raw: Path, tmp_path: Path) -> None:
        for content in ("{", "[]", '{"files": {"raw.jsonl": {"sha256": "x"}}}'):
            (tmp_path / "manifest.json").write_text(content)
            assert listing_of(at(raw)) is None
        write(raw, tmp_path / "new", max_bad=0.5)
        (tmp_path / "new" / "other.jsonl").write_text(raw.read_text())
        assert listing_of(at(tmp_path / "new" / "other.jsonl")) is None
        assert listing_of(at(tmp_path / "new" / "records.jsonl")) is not None


class TestAFile:
    def test_records_drops_and_manifest(self, raw: Path, tmp_path: Path) -> None:
        out = tmp_path / "new" / "clean.jsonl"
        write(raw, out, max_bad=0.5)
        assert lines(out) == [GOOD | {"prompt": "0x = 6"}, GOOD | {"prompt": "1x = 6"}]
        same, broken = lines(out.with_name("clean.dropped.jsonl"))
        assert same == {"file": str(raw), "line": 4, "kind": "equal", "reason": "the same",
                        "row": GOOD | {"prompt": "2x = 6"}}  # fmt: skip
        assert (broken["line"], broken["kind"]) == (2, "broken_json")
        manifest = json.loads(out.with_name("clean.manifest.json").read_text())
        assert manifest["made_by"] == "strop data clean"
        assert manifest["settings"] == {"pii": "keep"}
        assert manifest["dropped"] == {"equal": 1, "broken_json": 1}
        assert manifest["inputs"][0]["path"] == str(raw)
        made = manifest["files"]["clean.jsonl"]
        digest = hashlib.sha256(out.read_bytes()).hexdigest()
        assert made == {"sha256": digest, "size": out.stat().st_size, "rows": 2}
        assert manifest["files"]["clean.dropped.jsonl"]["rows"] == 2
        assert manifest_of(out) == out.with_name("clean.manifest.json")

    def test_the_folder_around_it_holds_one_data_file(self, raw: Path, tmp_path: Path) -> None:
        out = tmp_path / "new" / "clean.jsonl"
        write(raw, out, max_bad=0.5)
        assert find(out.parent).files == (out,)
        assert sorted(file.name for file in out.parent.iterdir()) == [
            "clean.dropped.jsonl", "clean.jsonl", "clean.manifest.json",
        ]  # fmt: skip

    def test_too_dirty_writes_nothing(self, raw: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"raw.jsonl:2: broken JSON"):
            write(raw, tmp_path / "new" / "clean.jsonl", max_bad=0.2)
        assert list((tmp_path / "new").iterdir()) == []

    def test_an_earlier_output_stays(self, raw: Path, tmp_path: Path) -> None:
        out = tmp_path / "clean.jsonl"
        out.write_text("mine")
        with pytest.raises(OutputError, match="something stands there"):
            write(raw, out, max_bad=0.5)
        assert out.read_text() == "mine"
        write(raw, out, max_bad=0.5, overwrite=True)
        assert len(lines(out)) == 2

    @pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.json", "a.jsonl.gz"])
    def test_other_endings(self, raw: Path, tmp_path: Path, name: str) -> None:
        with pytest.raises(OutputError, match="written as JSONL"):
            write(raw, tmp_path / name, max_bad=0.5)


def test_a_folder(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    write(raw, out, max_bad=0.5)
    assert [row["prompt"] for row in lines(out / "records.jsonl")] == ["0x = 6", "1x = 6"]
    assert len(lines(out / "dropped.jsonl")) == 2
    assert find(out).files == (out / "records.jsonl",)
    assert manifest_of(out) == manifest_of(out / "records.jsonl") == out / "manifest.json"


def test_without_a_path_it_counts(raw: Path, tmp_path: Path) -> None:
    with writing_records(None, "check", sources_of([raw]), {}) as output:
        for record in records_of(sources_of([raw]), output, max_bad=0.5):
            output.keep(record)
        output.drop(BadRow("equal", "the same", Origin("a", 1)))
    assert output.rows == {"records.jsonl": 3}
    assert output.dropped == {"broken_json": 1, "equal": 1}
    assert list(tmp_path.iterdir()) == [raw]


class TestWhatOverwriteSpares:
    def test_a_folder_that_holds_more(self, raw: Path, tmp_path: Path) -> None:
        out = tmp_path / "clean"
        write(raw, out, max_bad=0.5)
        write(raw, out, max_bad=0.5, overwrite=True)
        (out / "notes.txt").write_text("mine")
        with pytest.raises(OutputError, match=r"also holds notes\.txt"):
            write(raw, out, max_bad=0.5, overwrite=True)
        assert (out / "notes.txt").read_text() == "mine"

    @pytest.mark.parametrize("output", ["raw.jsonl", "."])
    def test_an_input(self, raw: Path, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(raw.parent)
        before = raw.read_bytes()
        with pytest.raises(OutputError, match=r"would be replaced|would delete"):
            write(raw, Path(output), max_bad=0.5, overwrite=True)
        assert raw.read_bytes() == before
