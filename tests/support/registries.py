"""Small model folders, and a registry that holds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from strop.cli.app import app
from strop.model.load import weights_hash
from strop.registry.lineage import ancestry
from strop.registry.records import Entry
from strop.registry.store import Registry

FILES = {
    "model.safetensors": b"weights",
    "config.json": b"{}",
    "tokenizer.json": b'{"shared": true}',
    "extra/notes.txt": b"notes",
}


CHECK = {
    "name": "greedy/accuracy", "kind": "target", "estimate": 0.53, "low": 0.48, "high": 0.58,
    "bound": 0.0, "verdict": "pass", "n": 400, "n_needed": None, "method": "tango", "base": 0.44,
    "candidate": 0.97,
}  # fmt: skip


def model(folder: Path, weights: str, **files: bytes) -> Path:
    """A model folder of four small files; only the weights depend on `weights`."""
    for name, content in {**FILES, "model.safetensors": weights.encode(), **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def passed(weights: str) -> dict[str, Any]:
    sides = {side: {"path": f"/{side}", "sha256": weights} for side in ("base", "candidate")}
    return {"name": "pass", "sentence": "Pass: better.", "checks": [CHECK], **sides}


def promote(registry: Registry, folder: Path, name: str = "algebra", **options: Any) -> Entry:
    weights = weights_hash(folder)
    given = {"verdict": passed(weights), "lineage": ancestry(folder), **options}
    return registry.promote(name, weights=weights, path=str(folder), **given)


def stored(registry: Registry) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in registry.objects.folder.rglob("*")
        if path.is_file()
    }  # fmt: skip


def damage(path: Path) -> None:
    """Flip one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def invoke(*args: object) -> str:
    result = CliRunner().invoke(app, ["registry", *map(str, args)])
    if result.exception is not None:
        raise result.exception
    return result.output


def run(folder: Path, parent: Path, method: str, seed: int = 0) -> Path:
    """What a run leaves behind; returns its final folder."""
    made = model(folder / "final", f"{method} {seed}")
    lineage = {
        "method": method, "parent": {"path": str(parent), "sha256": weights_hash(parent)},
        "data": [{"path": "/data/pairs.jsonl", "sha256": "2f34abcd00000000"}], "rows": [896],
        "rewards": ["aa11bb22cc33dd44"], "recipe": "5d2c8e120000",
        "code": {"strop": "0.1.0", "commit": "1a2b3c4d5e6f7a8b"}, "self_check": {},
    }  # fmt: skip
    (folder / "lineage.json").write_text(json.dumps(lineage))
    environment = {"strop": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "system": "Linux",
                   "threads": 1, "cuda": None}  # fmt: skip
    (folder / "env.json").write_text(json.dumps(environment))
    recipe = {"method": method, "seed": seed, "optim": {"learning_rate": 1e-6}}
    (folder / "recipe.resolved.yaml").write_text(yaml.safe_dump(recipe))
    return made
