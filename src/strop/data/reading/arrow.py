"""Reading with Arrow: Parquet (also written), folders that `datasets` saved, zstd."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.data.forms import Row
from strop.errors import DataError
from strop.recipe.train.data import DataSource
from strop.types import Origin

AT_ONCE = 1024
"""Rows of a Parquet file that are turned into Python values together."""


def parquet_rows(path: Path) -> Iterator[tuple[Row, Origin]]:
    """Rows of a Parquet file, numbered from 1; `AT_ONCE` of them are in memory."""
    import pyarrow.parquet  # here alone, for the sake of start-up

    number = 0
    try:
        # given the name, Arrow would read `a=1/b.parquet` as a partition
        with path.open("rb") as stream:
            file = pyarrow.parquet.ParquetFile(stream)
            for batch in file.iter_batches(batch_size=AT_ONCE):
                batch.validate(full=True)
                for row in batch.to_pylist():
                    number += 1
                    yield row, Origin(str(path), number)
    except (pyarrow.ArrowException, OSError, ValueError, LookupError, OverflowError) as error:
        said = str(error).split("\n")[0][:300]
        raise DataError(f"not a Parquet file: {said}", where=str(path),
                        fix="write the file again; it may be cut short") from None  # fmt: skip


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a Parquet file. Raises `DataError` where a column holds values of several
    types, which Parquet cannot."""
    import pyarrow.parquet

    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), path)
    except pyarrow.ArrowException as error:
        said = str(error).split("\n")[0][:300]
        raise DataError(
            f"the rows fit into no Parquet file: {said}",
            where=str(path),
            fix="give every row the same columns, with values of one type",
        ) from None


def saved_rows(path: Path) -> Iterator[tuple[Row, Origin]]:
    """Rows of a folder that `Dataset.save_to_disk` wrote, numbered from 1."""
    import datasets  # here alone, for the sake of start-up
    import pyarrow

    try:
        found = datasets.load_from_disk(str(path))
    except (pyarrow.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"not a saved dataset: {error}", where=str(path),
                        fix="save it again with save_to_disk") from None  # fmt: skip
    if not isinstance(found, datasets.Dataset):
        raise DataError("the folder holds several splits", where=str(path),
                        fix="give the folder of one split below it")  # fmt: skip
    for number, row in enumerate(found, start=1):
        yield row, Origin(str(path), number)


def hub_rows(source: DataSource) -> Iterator[tuple[Row, Origin]]:
    """Rows of a data set that `datasets` loads by its name (or from a local folder), numbered
    from 1."""
    dataset = _loaded(source)
    for number, row in enumerate(dataset, start=1):
        yield row, Origin(source.name, number)


def hub_files(source: DataSource) -> list[Path]:
    """The files of this split in the cache of `datasets`."""
    return [Path(file["filename"]) for file in _loaded(source).cache_files]


def _loaded(source: DataSource) -> Any:
    import datasets

    assert source.hub is not None
    split = source.split or "train"
    try:
        return datasets.load_dataset(
            source.hub, source.config, split=split, revision=source.revision
        )
    except (
        datasets.exceptions.DatasetsError,
        OSError,
        ValueError,
        LookupError,
        RuntimeError,
    ) as error:
        said = " ".join(str(error).split())[:300]
        raise DataError(
            f"`datasets` cannot load split {split!r}: {said}",
            where=source.name,
            fix="check hub, config, split and revision, and that the hub can be reached; a data "
            "set on a disk is given as `path`",
        ) from None


def zstd_bytes(path: Path) -> Any:
    """The unpacked bytes of a `.zst` file; reading a broken file raises `OSError`."""
    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))
