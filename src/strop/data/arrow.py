"""What Arrow reads for us: Parquet, folders that `datasets` saved, zstd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from strop.data.records import Row
from strop.errors import DataError
from strop.types import Origin


def parquet_rows(path: Path) -> Iterator[tuple[Row, Origin]]:
    """Rows of a Parquet file, numbered from 1."""
    import pyarrow.parquet  # here alone, for the sake of start-up

    try:
        with path.open("rb") as stream:  # by its name, Arrow would read `a=1/b.parquet` otherwise
            table = pyarrow.parquet.read_table(stream)
        table.validate(full=True)
        listed = table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, LookupError, OverflowError) as error:
        said = str(error).split("\n")[0][:300]
        raise DataError(f"not a Parquet file: {said}", where=str(path),
                        fix="write the file again; it may be cut short") from None  # fmt: skip
    for number, row in enumerate(listed, start=1):
        yield row, Origin(str(path), number)


def saved_rows(path: Path) -> Iterator[tuple[Row, Origin]]:
    """Rows of what `Dataset.save_to_disk` wrote, numbered from 1."""
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


def zstd_bytes(path: Path) -> Any:
    """The unpacked bytes of a `.zst` file; reading on raises `OSError` where it is broken."""
    import pyarrow

    return pyarrow.input_stream(str(path), compression="zstd")
