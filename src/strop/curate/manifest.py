"""What a data verb writes: records, dropped rows, and a manifest that says how they came about."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from strop import __version__
from strop.data.bad_rows import BadRow, no_records
from strop.data.reading.folders import find
from strop.data.records import RecordT, any_record, row_of
from strop.data.sources import Parse, at, rows_hash, sieve_of, stream
from strop.errors import OutputError
from strop.files import (
    hashed_files,
    locked_beside,
    place,
    remove,
    sha256_of,
    write_json,
    writing_folder,
)
from strop.recipe.train.data import DataSource
from strop.types import Record

MANIFEST, DROPPED, RECORDS = "manifest.json", "dropped.jsonl", "records"


@dataclass(slots=True)
class Output:
    """Where the records of a data verb go.

    Records that are kept stand in `<name>.jsonl`, one file for every name that is given to `keep`;
    those that are dropped in `dropped.jsonl` with file, line, kind and reason. `keep` and `drop`
    write at once, so nothing is held in memory. Without a `folder` they only count.
    """

    folder: Path | None
    rows: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    _open: dict[str, IO[str]] = field(default_factory=dict)
    _closing: ExitStack = field(default_factory=ExitStack)

    def keep(self, record: Record, name: str = RECORDS) -> None:
        """Write a record in strop's own form."""
        self._write(f"{name}.jsonl", row_of(record))
        self.rows[f"{name}.jsonl"] += 1

    def drop(self, bad: BadRow, record: Record | None = None) -> None:
        """Note a row that is left out; `record` is written with it where there is one."""
        row = {} if record is None else {"row": row_of(record)}
        self._write(DROPPED, bad.plain() | row)
        self.dropped[bad.kind] += 1

    def _write(self, name: str, row: Mapping[str, Any]) -> None:
        if self.folder is None:
            return
        if name not in self._open:
            stream = (self.folder / name).open("w", encoding="utf-8")
            self._open[name] = self._closing.enter_context(stream)
        self._open[name].write(json.dumps(row, ensure_ascii=False, default=str) + "\n")

    def close(self) -> None:
        """End all files; they are whole afterwards."""
        self._closing.close()


@contextmanager
def writing_records(
    path: Path | None,
    verb: str,
    inputs: Sequence[DataSource],
    settings: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> Iterator[Output]:
    """An `Output` whose files stand at `path` when the block ends; nothing where the block raises.

    `path` is a folder, or a file `<name>.jsonl` for verbs that make one set of records: the
    manifest and the dropped rows then stand beside it, as `<name>.manifest.json` and
    `<name>.dropped.jsonl`. Without a path nothing is written. Raises `OutputError` where something
    stands at `path`, unless `overwrite`, and where another process is writing it.
    """
    if path is None:
        yield Output(None)
        return
    path = path.resolve()
    expect_free(path, overwrite=overwrite)
    _expect_apart(path, inputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked_beside(path):
        expect_free(path, overwrite=overwrite)  # who held it may just have written it
        with _writing(path, verb, inputs, settings) as output:
            yield output


@contextmanager
def _writing(
    path: Path, verb: str, inputs: Sequence[DataSource], settings: Mapping[str, Any]
) -> Iterator[Output]:
    single = path.suffix == ".jsonl"
    folder = path.with_name(f".{path.name}.parts.tmp") if single else path
    with writing_folder(folder) as temporary:
        output = Output(temporary)
        try:
            yield output
        finally:
            output.close()
        if single:
            (temporary / f"{RECORDS}.jsonl").touch()
        names = {name: target.name for name, target in files_beside(path).items()} if single else {}
        made_by = {"made_by": f"strop data {verb}", "strop": __version__}
        read = [{**one.place(), "sha256": rows_hash(one), **_chained(one)} for one in inputs]
        write_json(
            temporary / MANIFEST,
            {
                "version": 1,
                **made_by,
                "inputs": read,
                "settings": dict(settings),
                "files": _files(output, temporary, names),
                "dropped": dict(output.dropped.most_common()),
            },
        )
    if single:
        for name, target in files_beside(path).items():
            if (folder / name).exists():
                place(folder / name, target)
            else:
                target.unlink(missing_ok=True)
        remove(folder)


def expect_free(path: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` where a data verb cannot write."""
    if path.suffix in (".json", ".csv", ".parquet", ".gz", ".zst"):
        raise OutputError(
            f"records are written as JSONL, not as {path.suffix}",
            where=str(path),
            fix="give a file that ends in .jsonl, or a folder",
        )
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise OutputError("something stands there", where=str(path),
                          fix="choose another --output, or pass --overwrite")  # fmt: skip
    if path.is_dir():
        _expect_ours(path)


def _expect_ours(folder: Path) -> None:
    """Raise `OutputError` where replacing a folder would delete what no data verb wrote."""
    ours = {MANIFEST, *_read_manifest(folder / MANIFEST).get("files", {})}
    others = sorted(one.name for one in folder.iterdir() if one.name not in ours)
    if others:
        raise OutputError(
            f"the folder also holds {', '.join(others[:3])}{', ...' * (len(others) > 3)}, which "
            "--overwrite would delete",
            where=str(folder),
            fix="choose another --output, or move these away",
        )


def _expect_apart(path: Path, inputs: Sequence[DataSource]) -> None:
    """Raise `OutputError` where an input would be replaced by what is made from it."""
    for source in inputs:
        files = () if source.path is None else find(Path(source.path)).files
        read = [file.resolve() for file in files]
        if any(file == path or path in file.parents for file in read):
            raise OutputError(
                f"{source.name} is read, and would be replaced",
                where=str(path),
                fix="choose an --output that is none of the inputs",
            )


def files_beside(path: Path) -> dict[str, Path]:
    """Where the files of a folder go if one file was asked for; the records last."""
    return {
        DROPPED: path.with_name(f"{path.stem}.{DROPPED}"),
        MANIFEST: path.with_name(f"{path.stem}.{MANIFEST}"),
        f"{RECORDS}.jsonl": path,
    }


def manifest_of(path: Path) -> Path | None:
    """The manifest of a data file that a data verb wrote, where there is one."""
    beside = (path.with_name(f"{path.stem}.{MANIFEST}"), path.parent / MANIFEST, path / MANIFEST)
    return next((one for one in beside if one.is_file()), None)


@dataclass(frozen=True, slots=True)
class Listing:
    """The manifest that lists the files of a source, and what it says of them.

    `Listing("/d/clean.manifest.json", "9f86...", "strop data clean", unchanged=True)`; `unchanged`
    says whether every file that is read is still the one that the manifest lists; `before` are the
    verbs that made what that verb read, as far as their manifests are there.
    """

    path: str
    sha256: str
    made_by: str
    unchanged: bool
    before: list[str] = field(default_factory=list)


def intact(output: Path) -> dict[str, Any] | None:
    """The manifest of an output; `None` where there is none, or a file that it lists is missing or
    was changed since."""
    found = read_manifest(output)
    for name, listed in found.get("files", {}).items():
        file = (output if output.is_dir() else output.parent) / name
        if not file.is_file() or sha256_of(file) != listed["sha256"]:
            return None
    return found or None


def read_manifest(output: Path) -> dict[str, Any]:
    """The manifest of an output, whatever became of the files; empty where there is none."""
    path = manifest_of(output)
    found = {} if path is None else _read_manifest(path)
    single = output.suffix == ".jsonl"
    return found if not single or output.name in found.get("files", {}) else {}


def listing_of(source: DataSource) -> Listing | None:
    """Who made the files of a source; `None` where no manifest of a data verb lists the first."""
    if source.path is None:
        return None
    files = find(Path(source.path)).files
    path = manifest_of(files[0])
    listed = {} if path is None else _read_manifest(path)
    if path is None or files[0].name not in listed.get("files", {}):
        return None
    unchanged = all(
        file.parent == files[0].parent
        and file.name in listed["files"]
        and listed["files"][file.name]["sha256"] == sha256_of(file)
        for file in files
    )
    before = list(dict.fromkeys(_made_before(listed)))
    return Listing(str(path), sha256_of(path), listed["made_by"], unchanged, before)


def _made_before(manifest: Mapping[str, Any], deepest: int = 10) -> Iterator[str]:
    """The verbs behind the inputs of a manifest, the latest first; a chain ends after ten."""
    for source in manifest.get("inputs", []) if deepest else []:
        files = find(Path(source["path"])).files if Path(source.get("path", "")).exists() else []
        path = manifest_of(files[0]) if files else None
        earlier = {} if path is None else _read_manifest(path)
        if path is not None and files[0].name in earlier.get("files", {}):
            yield earlier["made_by"]
            yield from _made_before(earlier, deepest - 1)


def _read_manifest(path: Path) -> dict[str, Any]:
    """A manifest that a data verb wrote; empty for any other file of that name."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    ours = isinstance(found, dict) and str(found.get("made_by", "")).startswith("strop data ")
    return found if ours and isinstance(found.get("files"), dict) else {}


def _chained(source: DataSource) -> dict[str, Any]:
    """The manifest beside an input, for the manifest of what is made from it."""
    listing = listing_of(source)
    return {} if listing is None else {"manifest": asdict(listing)}


def _files(output: Output, folder: Path, names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """`{"clean.jsonl": {"sha256": ..., "size": ..., "rows": 90}}`: all files of a folder, those of
    records with their rows; `names` says what a file will be called."""
    hashed = hashed_files(folder, sorted(folder.iterdir()))
    lines = {f"{RECORDS}.jsonl": 0, **output.rows, DROPPED: output.dropped.total()}
    return {
        names.get(name, name): one | ({"rows": lines[name]} if name in lines else {})
        for name, one in hashed.items()
    }


def records_of(
    inputs: Sequence[DataSource],
    output: Output,
    *,
    max_bad: float | None = None,
    parse: Parse[Record] = any_record,
) -> Iterator[Record]:
    """The records of these sources, each of the kind that it looks like, one by one.

    `parse` may ask more of a row, and raise `DataError` for a bad one. For the rest as `parsed_of`.
    """
    return parsed_of(inputs, output, parse, max_bad=max_bad)


def parsed_of(
    inputs: Sequence[DataSource],
    output: Output,
    parse: Parse[RecordT],
    *,
    max_bad: float | None = None,
) -> Iterator[RecordT]:
    """What `parse` makes of the rows of these sources, one by one; bad rows go to `output`.

    Raises `DataError` at the end of a source of which more than `max_bad` are bad (1 % unless
    given), and where no source holds a row, so that nothing is written.
    """
    rows = 0
    for source in inputs:
        sieve = sieve_of(source)
        if max_bad is not None:
            sieve.max_bad = max_bad
        yield from stream(source, parse, sieve)
        sieve.expect_clean()
        rows += sieve.rows
        for bad in sieve.dropped:
            output.drop(bad)
    if not rows:
        raise no_records([source.name for source in inputs])


def sources_of(paths: Sequence[Path], max_bad: float | None = None) -> list[DataSource]:
    """Files and folders of a command line as sources, with the share of bad rows they may have."""
    return [at(path).model_copy(update={"max_bad": max_bad}) for path in paths]
