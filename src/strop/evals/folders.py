"""What a folder is, in words: for the message that says that it is not what was asked for."""

from __future__ import annotations

from pathlib import Path

MARKS = {
    "decode.json": "a decoding study (strop eval decode)",
    "records.jsonl": "an eval (strop eval)",
    "metrics.jsonl": "a training run (strop train)",
    "adapter_config.json": "an adapter",
    "config.json": "a model",
}
"""Files that only one kind of folder has, the surest first."""


def kind_of(folder: Path) -> str:
    """`"a training run (strop train)"`; says where nothing is there, too."""
    if not folder.exists():
        return "not there"
    if folder.is_file():
        return "a file"
    if not any(folder.iterdir()):
        return "empty"
    found = [kind for mark, kind in MARKS.items() if (folder / mark).exists()]
    return found[0] if found else "a folder of another kind"
