"""Many processes at once, older and damaged databases, and attempts beside promotions."""

from __future__ import annotations

import json
import multiprocessing
import random
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from strop.errors import RegistryError
from strop.model.load import weights_hash
from strop.registry import database
from strop.registry.records import Entry
from strop.registry.store import Registry
from strop.registry.upkeep.garbage import collect
from strop.registry.upkeep.verify import verify
from tests.support.registries import invoke, model, promote


def _promote_at_once(path: Path, folder: Path, start: Any) -> None:
    start.wait()
    promote(Registry(path), folder)


class TestProcesses:
    def test_promotions_at_once_all_arrive(self, registry: Registry, tmp_path: Path) -> None:
        context = multiprocessing.get_context("fork")
        start = context.Barrier(4)
        folders = [model(tmp_path / str(n), f"weights {n}") for n in range(4)]
        processes = [
            context.Process(target=_promote_at_once, args=(registry.path, folder, start))
            for folder in folders
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * 4
        current = [registry.entry(entry).weights for entry in registry.stacks()["algebra"]]
        assert sorted(current) == sorted(map(weights_hash, folders))
        assert not [found for found in verify(registry) if found.problems]

    def test_garbage_collection_in_between_is_noticed(
        self, registry: Registry, entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put = registry.objects.put

        def overtaken(folder: Path, manifest: Any) -> None:
            put(folder, manifest)
            assert collect(Registry(registry.path)).size == len("second")

        monkeypatch.setattr(registry.objects, "put", overtaken)
        with pytest.raises(RegistryError, match="garbage collection took files away"):
            promote(registry, model(tmp_path / "two", "second"))
        assert registry.current("algebra") == entry


class TestDatabase:
    def test_another_schema(self, tmp_path: Path) -> None:
        path = tmp_path / "r.db"
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE entries (id TEXT PRIMARY KEY, weights TEXT NOT NULL)")
        for use in (Registry(path).entries, lambda: attempt(Registry(path))):
            with pytest.raises(RegistryError, match="no registry of this version") as caught:
                use()
            assert caught.value.exit_code == 2
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA application_id = {database.APPLICATION}")
            db.execute("PRAGMA user_version = 99")
        with pytest.raises(RegistryError, match="it holds schema 99"):
            Registry(path).entries()

    def test_a_damaged_file(self, registry: Registry, entry: Entry) -> None:
        content = bytearray(registry.path.read_bytes())
        content[100:] = random.Random(0).randbytes(len(content) - 100)
        registry.path.write_bytes(content)
        with pytest.raises(RegistryError, match=r"cannot be used.*\n.*strop registry rebuild"):
            registry.entries()

    def test_a_locked_file(
        self, registry: Registry, entry: Entry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
        holder = sqlite3.connect(registry.path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryError, match=r"locked\n.*another process"):
            attempt(registry)
        assert registry.entries() == [entry]  # readers do not wait
        holder.close()
        attempt(registry)

    def test_a_place_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(RegistryError, match="cannot be used"):
            attempt(Registry(tmp_path / "file" / "r.db"))
        with pytest.raises(RegistryError, match="cannot be used"):
            attempt(Registry(tmp_path))

    def test_read_only_for_this_user(self) -> None:
        """Reading works without any write access; writing is one clear refusal."""
        code = """
import os, sys
from strop.errors import RegistryError
from strop.registry.store import Registry
if os.geteuid() == 0:
    os.setuid(65534)
registry = Registry(sys.argv[1])
print(registry.names())
try:
    registry.rollback("algebra")
except RegistryError as error:
    print(error)
"""
        with tempfile.TemporaryDirectory() as place:
            registry = Registry(Path(place) / "r.db")
            for weights in ("first", "second"):
                promote(registry, model(Path(place) / weights, weights))
            registry.path.chmod(0o444)
            Path(place).chmod(0o555)
            ran = subprocess.run(
                [sys.executable, "-c", code, str(registry.path)],
                capture_output=True, text=True, check=True, timeout=60,
            )  # fmt: skip
            Path(place).chmod(0o755)
        assert ran.stdout.startswith("['algebra']\n")
        assert "attempt to write a readonly database" in ran.stdout
        assert "fix: ask who owns the file" in ran.stdout

    def test_nothing_is_ever_changed(self, registry: Registry, entry: Entry) -> None:
        attempt(registry)
        with sqlite3.connect(registry.path) as db:
            for table in ("entries", "events", "attempts"):
                for change in (f"DELETE FROM {table}", f"UPDATE {table} SET who = 'x'"):
                    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                        db.execute(change)


def attempt(registry: Registry, evidence: str = "e1", **options: Any) -> Any:
    given = {"suite": "gsm8k", "sealed": True, "base": "b", "candidate": "c", "verdict": "pass"}
    return registry.record_attempt(evidence=evidence, **{**given, **options})


class TestAttempts:
    def test_looks_are_counted_by_evidence(self, registry: Registry) -> None:
        looks = [attempt(registry, evidence).look for evidence in ("e1", "e2", "e1", "e1", "e2")]
        assert looks == [1, 1, 2, 3, 2]
        assert [a.look for a in registry.attempts("e1")] == [1, 2, 3]
        assert [a.number for a in registry.attempts()] == [1, 2, 3, 4, 5]
        assert registry.attempts("e3") == []

    def test_everything_is_kept(self, registry: Registry) -> None:
        made = attempt(registry, sealed=False, verdict="inconclusive")
        assert (made.evidence, made.suite, made.sealed, made.base, made.candidate) == (
            "e1", "gsm8k", False, "b", "c",
        )  # fmt: skip
        assert made.verdict == "inconclusive"
        assert made.who
        assert registry.attempts() == [made]

    def test_the_table(self, registry: Registry) -> None:
        attempt(registry)
        attempt(registry, sealed=False)
        said = invoke("attempts", "--registry", registry.path)
        assert "1 sealed" in said
        assert said.count("gsm8k") == 2
        rows = invoke("attempts", "--json", "--registry", registry.path).splitlines()
        assert [json.loads(row)["look"] for row in rows] == [1, 2]
