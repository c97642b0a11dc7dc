"""Fault 13: a damaged registry is made again from the copy of its rows, and nothing else is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from strop.errors import RegistryError
from strop.registry.database import mirror_of, writing
from strop.registry.journal import record
from strop.registry.store import Registry
from strop.registry.upkeep.rebuild import rebuild


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Two promotions of one name, a rollback, three looks of the gate."""
    store = Registry(tmp_path / "registry.db")
    for weights in ("w1", "w2"):
        verdict = {"name": "pass", "sentence": "Pass.", "candidate": {"sha256": weights}}
        store.promote(
            "algebra", weights=weights, path=f"/m/{weights}", lineage={"model": weights},
            verdict=verdict,
        )  # fmt: skip
    store.rollback("algebra", "slow \u2028 answers")
    for candidate in ("w1", "w2", "w1"):
        store.record_attempt(
            evidence="e", suite="final", sealed=True, base="w0", candidate=candidate, verdict="pass"
        )
    return store


def damage(path: Path) -> bytes:
    content = bytearray(path.read_bytes())
    content[100:] = random.Random(0).randbytes(len(content) - 100)
    path.write_bytes(content)
    return bytes(content)


def test_comes_back_whole(registry: Registry) -> None:
    before = (registry.entries(), registry.events(), registry.attempts(), registry.stacks())
    damaged = damage(registry.path)
    with pytest.raises(RegistryError, match=r"cannot be used[\s\S]*strop registry rebuild"):
        registry.entries()
    said = CliRunner().invoke(app, ["registry", "rebuild", "--registry", str(registry.path)])
    assert said.output.endswith("again: 2 entries, 3 events, 3 attempts\n")
    after = (registry.entries(), registry.events(), registry.attempts(), registry.stacks())
    assert after == before
    assert (registry.path.parent / "damaged-1-registry.db").read_bytes() == damaged
    registry.record_attempt(
        evidence="e", suite="final", sealed=True, base="w0", candidate="w3", verdict="pass"
    )
    assert registry.attempts()[-1].look == 4  # numbers go on where they were


def test_a_lost_file_too(registry: Registry) -> None:
    entries = registry.entries()
    for ending in ("", "-wal", "-shm"):
        registry.path.with_name(f"registry.db{ending}").unlink(missing_ok=True)
    assert rebuild(registry.path, dry_run=True) == {"entries": 2, "events": 3, "attempts": 3}
    assert not registry.path.exists()
    rebuild(registry.path)
    assert registry.entries() == entries


def test_a_whole_one_is_left_alone(registry: Registry) -> None:
    before = registry.path.read_bytes()
    with pytest.raises(RegistryError, match="nothing to make again"):
        rebuild(registry.path)
    assert registry.path.read_bytes() == before


@pytest.mark.parametrize("line", ["{", "[]", '{"table": "sqlite_master", "row": [1]}'])
def test_a_damaged_copy_is_refused_by_line(registry: Registry, line: str) -> None:
    damaged = damage(registry.path)
    with mirror_of(registry.path).open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(RegistryError, match=r"rows\.jsonl:9: the line is no row"):
        rebuild(registry.path)
    assert registry.path.read_bytes() == damaged


def test_without_a_copy(registry: Registry) -> None:
    damage(registry.path)
    mirror_of(registry.path).unlink()
    with pytest.raises(RegistryError, match="put back a copy"):
        registry.entries()
    with pytest.raises(RegistryError, match="the copy of the rows cannot be read"):
        rebuild(registry.path)


def test_an_undone_write_leaves_no_trace(registry: Registry) -> None:
    before = mirror_of(registry.path).read_bytes()
    with pytest.raises(RuntimeError), writing(registry.path) as db:  # noqa: PT012
        record(db, "algebra", "rollback", registry.entries()[0].id, None)
        raise RuntimeError
    assert mirror_of(registry.path).read_bytes() == before
    assert len(registry.events()) == 3
