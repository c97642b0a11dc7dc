"""Hashes of what an eval depends on. They decide whether it has to run again, and whether two evals
can be compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from strop.data.sources import data_hash, rows_hash
from strop.engines.engine import Engine
from strop.evals.ask import as_engine
from strop.files import SHORT, sha256_hex, sha256_of
from strop.judge.build import judge_hash
from strop.model.load import weights_hash
from strop.recipe.study import Study
from strop.recipe.suite import Suite
from strop.recipe.train.data import DataSource

ENGINES = ("engine", "base_engine")
"""Keys of a suite or a study that say who answers."""


def suite_hash(suite: Suite | Study) -> str:
    """Hash of the tasks, data and rewards of a suite or a decoding study by content: one that was
    moved to another folder keeps its hash, one whose data or rewards changed does not. Who answers
    is no part of it."""
    asked = {name: value for name, value in suite.plain().items() if name not in ENGINES}
    return _digest([_by_content(asked), list(_judges(asked))])


def inputs_of(suite: Suite, engine: Engine | str, reference: str | None) -> str:
    """Hash of everything the result depends on, addresses of servers left out."""
    known = as_engine(engine, suite.engine).identity()
    identity = {name: value for name, value in known.items() if name != "servers"}
    against = weights_hash(reference) if reference else None
    return _digest([suite_hash(suite), identity, against])


def _by_content(value: Any) -> Any:
    """Plain recipe values in which every file is replaced by the hash of its bytes."""
    if isinstance(value, list):
        return [_by_content(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {name: _by_content(item) for name, item in value.items() if name != "model"}
    if isinstance(value.get("path"), str):
        found["path"] = data_hash([value["path"]])
    if isinstance(value.get("hub"), str):
        found["hub"] = rows_hash(DataSource.model_validate(value))
    for name in ("file", "rubric", "against"):
        if isinstance(value.get(name), str):
            found[name] = sha256_of(Path(value[name]))
    if isinstance(value.get("judge"), str):
        found["judge"] = judge_hash(value["judge"])
    if isinstance(value.get("chat_template"), str) and Path(value["chat_template"]).is_file():
        found["chat_template"] = sha256_of(Path(value["chat_template"]))
    if isinstance(value.get("include_path"), str):
        folder = Path(value["include_path"])
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        found["include_path"] = [[str(f.relative_to(folder)), sha256_of(f)] for f in files]
    return found


def _judges(value: Any) -> Iterator[str]:
    """Weights of the reward models of a suite, in order."""
    if isinstance(value, dict):
        if isinstance(value.get("model"), str):
            yield weights_hash(value["model"])
        for item in value.values():
            yield from _judges(item)
    elif isinstance(value, list):
        for item in value:
            yield from _judges(item)


def _digest(value: Any) -> str:
    return sha256_hex(json.dumps(value, sort_keys=True), SHORT)
