"""Weights that are published while answers are on their way: every token is stamped with the
version that sampled it."""

from __future__ import annotations

from pathlib import Path

from strop.model.network import Policy
from tests.support.engine_servers import Running
from tests.support.served import engine_for, expect_stamped


def test_answers_are_of_the_version_that_they_say(
    trains: Policy, server: Running, tmp_path: Path
) -> None:
    engine = engine_for(trains, tmp_path, server)
    assert len(expect_stamped(engine, trains, rounds=6)) > 1
    engine.close()
    assert not server.held.adapters
    assert not list((tmp_path / "engine").glob("*"))
