"""`strop serve` as a process: told to end, killed, started where it cannot."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from strop.cli.app import app
from tests.support.serving import USER, rows


@contextmanager
def process(folder: Path, model: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address."""
    command = [sys.executable, "-m", "strop", "serve", f"m={model}", "--port", "0", "--json",
               "--traffic", str(folder), *more]  # fmt: skip
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    try:
        yield run, str(json.loads(run.stdout.readline())["url"])
    finally:
        run.kill()
        run.communicate()


def asked(**more: Any) -> dict[str, Any]:
    return {"messages": [USER], "max_tokens": 4, **more}


def test_what_was_acknowledged_outlives_a_kill_and_what_is_under_way_a_sigterm(
    model_folder: Path, tmp_path: Path
) -> None:
    with process(tmp_path, model_folder) as (run, url):
        said = httpx.post(f"{url}/v1/chat/completions", json=asked(), timeout=60).json()
        told = {"id": said["id"], "thumb": "up"}
        assert httpx.post(f"{url}/v1/feedback", json=told).status_code == 200
        run.kill()
        run.wait()
    assert [row["label"] for row in rows(tmp_path) if "label" in row] == [True]
    with process(tmp_path, model_folder) as (run, url):
        again = httpx.post(f"{url}/v1/feedback", json=told).json()
        assert again["repeated"] is True
        answers: list[int] = []

        def ask() -> None:
            body = asked(max_tokens=110, n=16)
            answers.append(httpx.post(f"{url}/v1/chat/completions", json=body,
                                      timeout=60).status_code)  # fmt: skip

        thread = threading.Thread(target=ask)
        thread.start()
        for _ in range(500):
            if "strop_requests_running 1.0" in httpx.get(f"{url}/metrics").text or answers:
                break
            threading.Event().wait(0.01)
        run.send_signal(signal.SIGTERM)
        thread.join()
        assert answers == [200]
        assert run.wait(30) in (0, 143)
    assert [row["label"] for row in rows(tmp_path) if "label" in row] == [True]


def refused(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["serve", *arguments])
    assert found.exit_code != 0
    return str(found.exception)


def test_what_was_given_is_named(model_folder: Path, tmp_path: Path) -> None:
    missing = str(tmp_path / "final")
    assert refused(missing).startswith(f"{missing}: no folder is called so")
    config = str(model_folder / "config.json")
    assert refused(config).startswith(f"{config}: this is a file")
    assert refused(str(model_folder), "--port", "70000").startswith("--port 70000: `port`")
    given = f"a b={model_folder}"
    assert refused(given).startswith(f"{given}: `models.0.name`")
    said = refused(f"x={model_folder}", f"x={model_folder}")
    assert "two are called x" in said
    assert "file" not in said
    assert refused(str(model_folder), "--set", "limits.tokens=x").startswith("--set limits.tokens:")
    assert "nothing is named that could be served" in refused()
    empty = tmp_path / "serve.yaml"
    empty.write_text("port: 8000\n")
    assert refused("--config", str(empty)).startswith(f"{empty}: nothing is named")


@pytest.mark.parametrize("more", [["--dry-run"], []])
def test_a_server_behind_that_is_not_there(model_folder: Path, more: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    said = refused(str(model_folder), "--engine", f"http://127.0.0.1:{port}", "--port", "0", *more)
    assert f"http://127.0.0.1:{port}: no server answers here" in said
    assert f"fix: start one: strop engine serve {model_folder} --port {port}" in said
    other = f"sglang:http://127.0.0.1:{port}"
    said = refused(str(model_folder), "--engine", other, "--port", "0", *more)
    assert "sglang.launch_server" in said
    said = refused(str(model_folder), "--engine", "http://127.0.0.1:1/v1", *more)
    assert "write the server's own, http://127.0.0.1:1 " in said
    said = refused(str(model_folder), "--engine", "127.0.0.1:1", *more)
    assert "write one like http://127.0.0.1:8000" in said
    assert not said.endswith("/v1")


def test_mistakes_are_told_before_anything_is_loaded(model_folder: Path, tmp_path: Path) -> None:
    assert "no registry is given" in refused("support")
    assert "port" in refused("--port", "70000", str(model_folder))
    assert "models" in refused()
    assert "token" in refused(str(model_folder), "--host", "0.0.0.0")
    config = tmp_path / "serve.yaml"
    config.write_text("models: [{name: a, path: x}]\ncanry: {}\n")
    said = refused("--config", str(config))
    assert "serve.yaml:2" in said
    assert "canary" in said
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port}" in refused(str(model_folder), "--port", port)


@pytest.mark.parametrize(("yaml", "names"), [
    ("models: 3\n", "models"), ("models: {name: a}\n", "models"), ("traffic: here\n", "traffic"),
])  # fmt: skip
def test_options_beside_a_wrong_yaml_say_what_is_wrong_in_it(
    model_folder: Path, tmp_path: Path, yaml: str, names: str
) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text(yaml)
    said = refused(str(model_folder), "--config", str(config), "--traffic", str(tmp_path / "t"))
    assert "serve.yaml:1" in said
    assert names in said


def test_a_folder_that_cannot_be_made_is_told(model_folder: Path) -> None:
    assert "no folder can be made" in refused(str(model_folder), "--traffic", "/proc/nowhere/t")


def test_two_servers_do_not_share_a_log(model_folder: Path, tmp_path: Path) -> None:
    with process(tmp_path, model_folder):
        said = refused(str(model_folder), "--port", "0", "--traffic", str(tmp_path))
        assert "another run works in this folder" in said


def test_a_dry_run_looks_at_everything(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no config.json" in refused("--dry-run", f"m={empty}")
    assert "no registry" in refused("--dry-run", "support")
    config = tmp_path / "serve.yaml"
    base = f"models: [{{name: m, path: {model_folder}}}]\n"
    config.write_text(base + "tokens: [{name: app, env: NOT_SET_HERE}]\n")
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    assert "NOT_SET_HERE" in refused("--dry-run", "--config", str(config))
    config.write_text(base + "rewards: {r: [{function: no_such_reward}]}\n")
    assert "no_such_reward" in refused("--dry-run", "--config", str(config))
    config.write_text(base + f"traffic: {{folder: {tmp_path / 't'}}}\n"
                             "canary: {entry: nowhere}\n")  # fmt: skip
    assert "no registry" in refused("--dry-run", "--config", str(config))
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("arguments", [["--json"], []])
def test_a_dry_run_says_what_would_be_served(model_folder: Path, arguments: list[str]) -> None:
    found = CliRunner().invoke(app, ["serve", f"m={model_folder}", "--dry-run", *arguments])
    assert found.exit_code == 0
    assert "m" in found.output
