"""Finds the files of a path: a file, a pattern, a folder, one split of a data set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from strop.errors import DataError
from strop.recipe.loading.paths import matching

KINDS = (".jsonl", ".json", ".csv", ".parquet")
PACKED = (".gz", ".zst")
ENDINGS = (*KINDS, *(kind + packed for kind in KINDS[:3] for packed in PACKED))

METADATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "metadata.json",
            "config.json", "manifest.json", "dropped.jsonl")  # fmt: skip
"""Files that describe the data beside them, or list what was left out of it."""
ASIDE = tuple(f".{name}" for name in ("manifest.json", "dropped.jsonl"))
"""Suffixes of such files beside a single data file."""

TRAIN = frozenset(("train", "training"))
HELD_OUT = frozenset(("validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation"))

_SHARD = re.compile(r"(.+?)-\d+-of-\d+")


@dataclass(frozen=True, slots=True)
class DataFiles:
    """The data files of a path, in the order they are read.

    `DataFiles((Path("d/train-00000-of-00001.parquet"),), split="train", others=("test",))`; `saved`
    is the folder where `datasets` wrote them; `others` are the splits that are not read.
    """

    files: tuple[Path, ...]
    saved: Path | None = None
    split: str | None = None
    others: tuple[str, ...] = ()


def find(path: Path, *, held_out: bool = False) -> DataFiles:
    """The files of a path, those of a folder sorted by name.

    Of a data set with splits, `train` is read. Raises `DataError` if the split is ambiguous: no
    `train` or two, files outside the splits, and for `held_out` data every folder with several
    splits.
    """
    try:
        return _find(path, held_out)
    except OSError as error:
        raise DataError(f"cannot read it: {error.strerror}", where=str(path),
                        fix="check the path and its permissions") from None  # fmt: skip


def _find(path: Path, held_out: bool) -> DataFiles:
    if not path.exists():
        listed = matching(path)
        if not listed:
            raise DataError("no such file or folder", where=str(path), fix="check the path")
        return DataFiles(_expect_data(listed))
    if not path.is_dir():
        return DataFiles(_expect_data([path]))
    if (path / "state.json").exists():
        return DataFiles(tuple(sorted(f for f in path.rglob("*") if f.is_file())), saved=path)
    held = sorted(_data_in(path))
    if held and not (path / "dataset_dict.json").exists():
        return _of_files(path, _expect_data(held), held_out)
    return _of_folders(path, held_out)


def _data_in(folder: Path) -> Iterator[Path]:
    return (
        file
        for file in folder.iterdir()
        if file.name.endswith(ENDINGS)
        and not file.name.startswith(".")
        and file.name not in METADATA
        and not file.name.endswith(ASIDE)
    )


def _of_files(folder: Path, files: Sequence[Path], held_out: bool) -> DataFiles:
    _refuse_twins(folder, files)
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(_split_of(file), []).append(file)
    sharded = any(_SHARD.fullmatch(_stem(file)) for file in files)
    split = _chosen(folder, {name: held[0].name for name, held in splits.items()}, sharded,
                    held_out)  # fmt: skip
    if split is None:
        return DataFiles(tuple(files))
    return DataFiles(
        tuple(splits[split]), split=split, others=tuple(n for n in splits if n != split)
    )


def _of_folders(folder: Path, held_out: bool) -> DataFiles:
    """For a folder of folders: that of its only split, or of `train`."""
    below = sorted(
        one
        for one in folder.iterdir()
        if one.is_dir() and ((one / "state.json").exists() or any(_data_in(one)))
    )
    if not below:
        raise DataError(
            "the folder holds no data files", where=str(folder), fix=f"add {', '.join(ENDINGS)}"
        )
    if len(below) == 1:
        return _find(below[0], held_out)
    split = _chosen(folder, {one.name: one.name for one in below}, True, held_out)
    assert split is not None
    found = _find(folder / split, held_out)
    return replace(found, split=split, others=tuple(o.name for o in below if o.name != split))


def _chosen(folder: Path, splits: Mapping[str, str], sharded: bool, held_out: bool) -> str | None:
    """The split to read; `None` for all files of a folder without splits.

    `splits` has an example file or folder for each split; `sharded` says that they are splits
    whatever their names.
    """
    train = [name for name in splits if _words(name) & TRAIN]
    kept_back = [name for name in splits if name not in train and _words(name) & HELD_OUT]
    if len(splits) == 1 or not (kept_back or sharded):
        return None
    if len(train) == 1 and not held_out and len(train) + len(kept_back) == len(splits):
        return train[0]
    use = "to measure on" if held_out else "to read"
    example = folder / re.sub(r"-\d+-of-\d+", "-*", splits[(kept_back or list(splits))[0]])
    raise DataError(
        f"the folder holds {', '.join(sorted(splits))}, and it is not clear which {use}",
        where=str(folder),
        fix=f"name the one that is meant, for example {example}, or all of them with a pattern "
        f"({folder / '*'})",
    )


def _split_of(file: Path) -> str:
    """`train-00000-of-00002.parquet` and `train_1.jsonl` belong to the split `train`."""
    name = _stem(file)
    shard = _SHARD.fullmatch(name)
    return shard[1] if shard else re.sub(r"(?<=\w)[-_.]?\d+$", "", name)


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+", name.lower()))


def kind_of(file: Path) -> str:
    """The kind of a data file, packed or not: `kind_of(Path("a.jsonl.gz")) == ".jsonl"`."""
    ending = max((end for end in ENDINGS if file.name.endswith(end)), key=len)
    return f".{ending.split('.')[1]}"


def _stem(file: Path) -> str:
    """A file's name without the ending of its kind."""
    return file.name[: file.name.rindex(kind_of(file))]


def _refuse_twins(folder: Path, files: Sequence[Path]) -> None:
    """Raise for one name with two endings: it is probably one set of records in two formats, which
    would be read twice."""
    seen: dict[str, Path] = {}
    for file in files:
        twin = seen.setdefault(_stem(file), file)
        if twin != file:
            raise DataError(
                f"{twin.name} and {file.name} have one name, so they may hold the same records",
                where=str(folder),
                fix="take one out, or list the files that are meant under `data`",
            )


def _expect_data(files: Sequence[Path]) -> tuple[Path, ...]:
    for file in files:
        if not file.name.endswith(ENDINGS):
            raise DataError(
                "unknown kind of data file", where=str(file), fix=f"use {', '.join(ENDINGS)}"
            )
        if not file.is_file():
            raise DataError("no regular file: a folder, a pipe, a device, or a link to nothing",
                            where=str(file), fix="give a file")  # fmt: skip
    return tuple(files)
