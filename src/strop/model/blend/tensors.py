"""A model folder's safetensors, one tensor at a time.

The format (huggingface.co/docs/safetensors): eight bytes with the length of a JSON header, the
header (`{name: {"dtype", "shape", "data_offsets"}}`), then the bytes of all tensors. They are read
and not mapped: a mapped file counts as this process's memory as far as it was read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from strop.errors import ModelError
from strop.files import copy_hashed

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip

INDEX = "*.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor is: `Place(file=Path("model.safetensors"), start=4096, dtype=torch.float32,
    shape=(64, 32))`; `start` counts bytes from the beginning of the file."""

    file: Path
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class Tensors:
    """The tensors of all safetensors files at the top of a folder, read one by one.

    Raises `ModelError` for a file that is cut or holds a kind of number that is not known here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: dict[str, Place] = {}
        for file in sorted(folder.glob("*.safetensors")):
            self.places |= _places(file)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def read(self, name: str) -> torch.Tensor:
        """A tensor as it is stored."""
        place = self.places[name]
        with place.file.open("rb") as stream:
            stream.seek(place.start)
            held = bytearray(stream.read(place.size))
        if len(held) != place.size:
            raise ModelError(f"the file ends within {name}", where=str(place.file),
                             fix="copy or download it again")  # fmt: skip
        flat = torch.frombuffer(held, dtype=place.dtype) if held else torch.empty(0)
        return flat.to(place.dtype).reshape(place.shape)

    def floating(self, name: str) -> torch.Tensor:
        """A tensor in float32."""
        return self.read(name).float()

    def dtype(self) -> torch.dtype:
        """The precision that most of the weights are stored in."""
        sizes: dict[torch.dtype, int] = {}
        for place in self.places.values():
            sizes[place.dtype] = sizes.get(place.dtype, 0) + math.prod(place.shape)
        return max(sizes, key=lambda kind: sizes[kind])


def _places(file: Path) -> dict[str, Place]:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= file.stat().st_size:
            raise ModelError("is no safetensors file", where=str(file), fix="save the model again")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    unknown = {told["dtype"] for told in header.values()} - DTYPES.keys()
    if unknown:
        raise ModelError(
            f"holds numbers of the kind {min(unknown)}",
            where=str(file),
            fix=f"save the model in one of {', '.join(DTYPES)}",
        )
    return {
        name: Place(
            file,
            8 + length + told["data_offsets"][0],
            DTYPES[told["dtype"]],
            tuple(told["shape"]),
        )
        for name, told in header.items()
    }


def write_like(
    layout: Tensors, folder: Path, made: Callable[[str, torch.Tensor], torch.Tensor]
) -> None:
    """Write the files of `layout` with other numbers: `made` gets the name and the tensor that is
    stored there, and returns the new one, in any precision, which is rounded to the stored one.

    Files, names, order and header are those of `layout`, so a tensor that is not changed gives the
    same bytes. One tensor is held at a time.
    """
    for file in sorted({place.file for place in layout.places.values()}):
        held = {name: place for name, place in layout.places.items() if place.file == file}
        with file.open("rb") as source, (folder / file.name).open("wb") as target:
            first = min((place.start for place in held.values()), default=0)
            target.write(source.read(first))
            for name, place in sorted(held.items(), key=lambda one: one[1].start):
                tensor = made(name, layout.read(name)).to(place.dtype).contiguous()
                target.write(tensor.flatten().view(torch.uint8).numpy().tobytes())
    for index in layout.folder.glob(INDEX):
        with index.open("rb") as source:
            copy_hashed(source, folder / index.name)
