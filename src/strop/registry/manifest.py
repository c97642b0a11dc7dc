"""What files a model folder holds, by content."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from strop.errors import RegistryError
from strop.files import hashed_files, sha256_of_hashes
from strop.registry.records import Manifest

HASHED = ("*.safetensors", "config.json", "adapter_config.json", "tokenizer.json")
"""Files at the top of the folder that make up its weights hash."""


def manifest_of(folder: Path) -> Manifest:
    """sha256 and size of every file, by relative name; links count as what they lead to.

    Raises `RegistryError` for a link that leads nowhere and a file that cannot be read.
    """
    try:
        return hashed_files(folder, files_of(folder))
    except OSError as error:
        raise RegistryError(f"the model folder cannot be read: {error}",
                            where=str(folder)) from None  # fmt: skip


def files_of(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path
        elif not path.is_dir():
            raise RegistryError("is no file, or a link that leads nowhere", where=str(path),
                                fix="take it out of the model folder")  # fmt: skip


def weights_of(manifest: Manifest) -> str:
    """The hash that `strop.model.load.weights_hash` gives for a folder of these files."""
    return sha256_of_hashes(
        (name, manifest[name]["sha256"])
        for name in sorted(manifest)
        if "/" not in name and any(fnmatchcase(name, pattern) for pattern in HASHED)
    )


def expect_weights(manifest: Manifest, weights: str, path: str) -> None:
    """Raise `RegistryError` unless these files hold weights, and exactly those."""
    if not any(name.endswith(".safetensors") for name in manifest):
        raise RegistryError("the folder holds no safetensors weights", where=path,
                            fix="promote a folder saved with save_pretrained")  # fmt: skip
    if weights_of(manifest) != weights:
        raise RegistryError(
            f"the folder's weights hash to {weights_of(manifest)}, not to {weights}",
            where=path,
            fix="something writes to the folder; wait until it has ended",
        )
