"""What a device can do and costs: a table that is meant to be edited, or this machine, measured."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch

from strop.errors import UsageError
from strop.files import read_text
from strop.model.arithmetic import cpu_speeds

GIB = 2**30
HERE = "here"
CPU_BANDWIDTH = 20.0
"""GB a second that a processor is assumed to read: that of two memory channels, shared."""


@dataclass(frozen=True, slots=True)
class Range:
    """`Range(low=3.1, likely=3.6, high=4.4)`."""

    low: float
    likely: float
    high: float

    def times(self, factor: float) -> Range:
        return Range(self.low * factor, self.likely * factor, self.high * factor)

    def plain(self) -> dict[str, float]:
        return {"low": self.low, "likely": self.likely, "high": self.high}


@dataclass(frozen=True, slots=True)
class Hardware:
    """One device: `Hardware("h100", "NVIDIA H100 SXM", "cuda", 79.1, 989.0, 3350.0, ...)`; tflops
    are of bfloat16 products, on a processor of float32 ones."""

    id: str
    name: str
    kind: Literal["cpu", "cuda"]
    memory_gib: float
    tflops: float
    gb_per_second: float
    price: Range
    prices_of: str


def hardware(name: str = HERE, table: Path | None = None) -> Hardware:
    """A row of the table (the package's, or a file of one's own), or this machine for `here`.

    Raises `UsageError` for a name that is not in the table, and for a table that is none.
    """
    if name == HERE:
        return _here()
    rows = _table(table)
    if name not in rows or name == "prices_of":
        known = ", ".join(row for row in rows if row != "prices_of")
        raise UsageError(f"no hardware is called {name}", fix=f"use {HERE} or one of: {known}; or "
                         "give a table of your own: --hardware-file")  # fmt: skip
    row = rows[name]
    if "prices_of" not in rows:
        raise UsageError("the hardware table does not say when its prices were looked up",
                         where=str(table), fix='add prices_of = "2026-01" at its top')  # fmt: skip
    try:
        memory, tflops, speed = (
            float(row[key]) for key in ("memory_gib", "tflops", "gb_per_second")
        )
        price = Range(*map(float, row["price"]))
        if min(memory, tflops, speed) <= 0 or not 0 <= price.low <= price.likely <= price.high:
            raise ValueError("sizes are above 0, and prices rise from low to high")
        return Hardware(name, str(row["name"]), row["kind"], memory, tflops, speed, price,
                        str(row.get("prices_of", rows["prices_of"])))  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the row {name} of the hardware table is not whole: {error}",
                         where=str(table or "hardware.toml"),
                         fix="write it as the package's own rows are") from None  # fmt: skip


def _table(path: Path | None) -> dict[str, Any]:
    own = files("strop.train.preflight.cost").joinpath("files/hardware.toml")
    text = own.read_text(encoding="utf-8") if path is None else read_text(path, UsageError)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the hardware table is no TOML: {error}", where=str(path),
                         fix="mend the line") from None  # fmt: skip


def _here() -> Hardware:
    """This machine: its first GPU as the table knows it by name, or its processor, measured."""
    free = Range(0.0, 0.0, 0.0)
    if not torch.cuda.is_available():
        threads = torch.get_num_threads()
        speed = cpu_speeds().float32 * threads / 1000
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
        said = f"this machine's processor, {threads} threads"
        return Hardware(HERE, said, "cpu", memory, speed, CPU_BANDWIDTH, free, "")
    found = torch.cuda.get_device_properties(0)
    rows = {row["name"]: name for name, row in _table(None).items() if isinstance(row, dict)}
    near = next((rows[name] for name in rows if name in found.name), None)
    if near is None:
        raise UsageError(f"the table does not know the speed of {found.name}",
                         fix="name the row that is nearest: --hardware NAME")  # fmt: skip
    row = hardware(near)
    return Hardware(HERE, found.name, "cuda", found.total_memory / GIB, row.tflops,
                    row.gb_per_second, free, "")  # fmt: skip
