"""Weights that are published while answers are on their way: every token is stamped with the
version that sampled it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from strop.engines.server import app
from strop.http import HttpClient
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


ASKED = {"token_ids": [2, 40, 3], "sampling_params": {"max_tokens": 2}}


def test_a_paused_server_answers_once_it_goes_on(server: Running) -> None:
    client, said = HttpClient(), threading.Event()

    def ask() -> None:
        client.post(f"{server.url}/inference/v1/generate", ASKED)
        said.set()

    client.tell(f"{server.url}/pause?mode=keep", {})
    threading.Thread(target=ask, daemon=True).start()
    assert not said.wait(0.3)
    client.tell(f"{server.url}/resume", {})
    assert said.wait(20)


def test_a_pause_that_nobody_ends_ends_by_itself(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "PAUSED_AT_MOST", 0.05)
    client = HttpClient()
    client.tell(f"{server.url}/pause?mode=keep", {})
    assert client.post(f"{server.url}/inference/v1/generate", ASKED)["choices"]
