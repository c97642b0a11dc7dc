"""A registry with one entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from strop.registry.records import Entry
from strop.registry.store import Registry
from tests.support.registries import model, promote, run


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "store" / "r.db")


@pytest.fixture
def entry(registry: Registry, tmp_path: Path) -> Entry:
    return promote(registry, model(tmp_path / "one", "first"))


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """base -> sft -> dpo, with paths short enough to write down."""
    monkeypatch.chdir(tmp_path)
    base = model(Path("base"), "raw")
    sft = run(Path("sft"), base, "sft")
    return run(Path("dpo"), sft, "dpo")
