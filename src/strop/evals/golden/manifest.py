"""A golden set on disk: files, a manifest with their hashes, a suite that runs them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from strop.errors import DataError, MissingEvidenceError, OutputError
from strop.evals.golden.mine import Mined
from strop.files import read_text, sha256_hex, sha256_of, writing_folder

MANIFEST, SUITE = "golden.json", "suite.yaml"
TASKS, PAIRS = "tasks.jsonl", "pairs.jsonl"


def write_golden(mined: Mined, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write a golden set and return its manifest.

    The files are `tasks.jsonl`, `pairs.jsonl`, `golden.json`, `suite.yaml`, and a
    `tasks.<reward>.jsonl` for each reward that judges some but not all tasks. The same records and
    settings give the same bytes. If the folder already holds the same golden set, it stays as it
    is, its suite included; anything else in it raises `OutputError`.
    """
    files = {name: _lines(rows) for name, rows in _files(mined).items()}
    manifest = {
        "version": 1,
        "files": {
            name: {"sha256": sha256_hex(content), "items": content.count(b"\n")}
            for name, content in files.items()
        },
        "strata": mined.strata,
        "signals": mined.signals,
        "dropped": mined.dropped,
        "conflicts": mined.conflicts,
        "unjudged": sum(row["judge"] is None for row in mined.tasks),
        **settings,
    }
    suite = _suite(mined, settings)
    contents = {**files, MANIFEST: (json.dumps(manifest, indent=1) + "\n").encode()}
    if suite is not None:
        contents[SUITE] = yaml.safe_dump(suite, sort_keys=False).encode()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        _expect_same(folder, contents)
    else:
        _write(folder, contents)
    return manifest


def sources_of(paths: Sequence[Path]) -> list[dict[str, str]]:
    """Name and hash of every mined file; without folders, so that the set is the same elsewhere."""
    return [{"name": path.name, "sha256": sha256_of(path)} for path in paths]


def check_frozen(data: str | Path) -> None:
    """Raise `MissingEvidenceError` if a golden set's manifest beside a data file lists it with
    another hash. A file that no manifest lists is not frozen and passes."""
    path = Path(data)
    manifest = path.parent / MANIFEST
    if not path.is_file() or not manifest.exists():
        return
    listed = _listed(manifest).get(path.name)
    found = sha256_of(path) if listed else None
    if listed != found:
        raise MissingEvidenceError(
            f"the golden set changed since it was frozen: {path.name} has sha256 {found}, "
            f"{MANIFEST} says {listed}",
            where=str(path),
            fix="bring back the frozen file, or mine a new set into another folder: scores on "
            "changed items compare with no earlier ones",
        )


def _listed(manifest: Path) -> dict[str, str]:
    """File name -> sha256."""
    try:
        listed = json.loads(read_text(manifest, DataError))["files"]
        return {name: str(one["sha256"])[:64] for name, one in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(
            "not the manifest of a golden set", where=str(manifest),
            fix="bring back the file that `strop eval mine` wrote",
        ) from None  # fmt: skip


def _files(mined: Mined) -> dict[str, list[dict[str, Any]]]:
    files = {}
    if mined.tasks:
        files[TASKS] = mined.tasks
    if mined.pairs:
        files[PAIRS] = mined.pairs
    for judge in _judges(mined):
        name = _file_of(mined, judge)
        files[name] = [row for row in mined.tasks if row["judge"] == judge or name == TASKS]
    return files


def _judges(mined: Mined) -> list[str]:
    return sorted({row["judge"] for row in mined.tasks} - {None})


def _file_of(mined: Mined, judge: str) -> str:
    """The file of one reward's tasks: `tasks.jsonl` if this reward judges all of them."""
    alone = all(row["judge"] == judge for row in mined.tasks)
    return TASKS if alone else f"tasks.{judge}.jsonl"


def _suite(mined: Mined, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """A suite over all items that can be judged; `None` if there are none."""
    slices = ["signal", *settings["by"]]
    tasks: list[dict[str, Any]] = []
    if mined.pairs:
        tasks.append({"kind": "preference", "name": "edits", "data": PAIRS, "slices": [*slices]})
    for judge in _judges(mined):
        tasks.append(
            {
                "kind": "generate",
                "name": "golden" if _file_of(mined, judge) == TASKS else f"golden-{judge}",
                "data": _file_of(mined, judge),
                "slices": [*slices],
                "sampling": {"temperature": 0.0, "max_tokens": 512},
                "scores": [{"function": judge}],
            }
        )
    return {"name": "golden", "seed": settings["seed"], "tasks": tasks} if tasks else None


def _expect_same(folder: Path, contents: Mapping[str, bytes]) -> None:
    names = [name for name in contents if name != SUITE]
    for name in names:
        file = folder / name
        if not file.is_file() or file.read_bytes() != contents[name]:
            raise OutputError(
                f"the folder holds something else than this golden set ({name} differs)",
                where=str(folder),
                fix="a golden set stays as it was frozen: choose another --output",
            )


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    with writing_folder(folder, replace=False) as temporary:
        for name, content in contents.items():
            (temporary / name).write_bytes(content)


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, default=str) + "\n" for row in rows).encode()
