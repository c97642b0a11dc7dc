"""Answers drawn by a server of another process, over vLLM's protocol."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from strop.engines.server.app import engine_app
from strop.errors import UsageError
from strop.serve.models.holder import Behind
from tests.support.engine_servers import App, Running, engine_server
from tests.support.rounds import Futures, Rounds, endless, wait_for
from tests.support.servers import saying, talking_server
from tests.support.serving import USER, Serving, recipe_of, rows, serving
from tests.support.sglang_app import Sglang


def ids(server: Serving, model: str, **how: Any) -> list[list[int]]:
    said = server.chat(model=model, return_token_ids=True, max_tokens=12, **how)
    return [choice["token_ids"] for choice in said["choices"]]


def test_adapters_of_a_server_behind_answer_as_the_embedded_engine(
    model_folder: Path, adapters: list[Path]
) -> None:
    models = [{"name": "base", "path": str(model_folder)},
              {"name": "one", "path": str(adapters[0])}]  # fmt: skip
    with engine_server(model_folder) as behind:
        engine = {"kind": "vllm", "url": behind.url}
        with serving(recipe_of(models=models, engine=engine)) as server:
            found = {name: ids(server, name, temperature=0.0) for name in ("base", "one")}
            drawn = ids(server, "one", seed=4, n=3)
            assert ids(server, "one", seed=4, n=3) == drawn  # pure functions of their seeds
            assert len({tuple(one) for one in drawn}) == 3
            streamed = server.client.chat.completions.create(
                model="one", messages=[{"role": "user", "content": "Solve 2x = 6"}],
                max_tokens=12, temperature=0.0, stream=True,
            )  # fmt: skip
            text = "".join(c.choices[0].delta.content or "" for c in streamed)
            whole = server.chat(model="one", max_tokens=12, temperature=0.0)
            assert text == whole["choices"][0]["message"]["content"]
            refused = server.post("/v1/chat/completions", {
                "model": "one", "messages": [{"role": "user", "content": "x"}],
                "presence_penalty": 1.0,
            })  # fmt: skip
            assert refused.status_code == 400
            assert "penalties" in refused.json()["error"]["message"]
    with serving(recipe_of(models=models)) as own:
        assert {name: ids(own, name, temperature=0.0) for name in ("base", "one")} == found


APPS: dict[str, App] = {"vllm": engine_app, "sglang": Sglang().app}


@contextmanager
def behind(kind: str, folder: Path, **more: Any) -> Iterator[tuple[Running, Serving]]:
    """`strop serve` in front of a server of this kind."""
    with engine_server(folder, app=APPS[kind]) as running:
        endless(running.held)
        recipe = recipe_of(folder, engine={"kind": kind, "url": running.url}, **more)
        with serving(recipe) as server:
            yield running, server


def chunks(server: Serving, **asked: Any) -> list[Any]:
    """The events of a streamed chat, as JSON."""
    body = {"messages": [USER], "stream": True, **asked}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as answer:
        said = answer.read().decode().split("\n\n")
    assert said[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in said[:-2]]


@pytest.mark.parametrize("kind", APPS)
def test_a_stream_says_what_the_whole_answer_says(
    kind: str, model_folder: Path, tmp_path: Path
) -> None:
    how: dict[str, Any] = {"max_tokens": 30, "seed": 5, "n": 2, "logprobs": True,
                           "return_token_ids": True, "temperature": 0.8}  # fmt: skip
    with behind(kind, model_folder, traffic={"folder": str(tmp_path)}) as (_, server):
        whole = server.chat(**how)
        came = chunks(server, **how, stream_options={"include_usage": True})
    assert came[-1]["usage"] == whole["usage"]
    assert whole["usage"]["completion_tokens"] == 60
    assert {one["strop"]["weights"] for one in came} == {whole["strop"]["weights"]}
    for index in range(2):
        mine = [c for one in came for c in one["choices"] if c["index"] == index]
        wanted = whole["choices"][index]
        assert len(mine) > 5
        text = "".join(c["delta"].get("content") or "" for c in mine)
        assert text == wanted["message"]["content"]
        assert [i for c in mine for i in c.get("token_ids") or ()] == wanted["token_ids"]
        said = [x["logprob"] for c in mine for x in (c.get("logprobs") or {}).get("content") or ()]
        told = [x["logprob"] for x in wanted["logprobs"]["content"]]
        assert said == pytest.approx(told, abs=2e-5)
        assert mine[-1]["finish_reason"] == wanted["finish_reason"] == "length"
    logged = [row for row in rows(tmp_path) if "token_ids" in row]
    assert [row["token_ids"] for row in logged] == [[c["token_ids"] for c in whole["choices"]]] * 2


@pytest.mark.parametrize("kind", APPS)
def test_the_first_words_come_before_the_last_token_is_drawn(
    kind: str, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing waits for the client to have read a piece."""
    with behind(kind, model_folder) as (_, server):
        rounds = Rounds(monkeypatch, free=8)
        streamed = server.client.chat.completions.create(
            model=server.service.recipe.models[0].name, messages=[USER], max_tokens=40,
            temperature=0.0, stream=True,
        )  # fmt: skip
        text = ""
        for chunk in streamed:
            text += chunk.choices[0].delta.content or ""
            if text:
                rounds.go_on.set()
        whole = server.chat(max_tokens=40, temperature=0.0)
        assert text == whole["choices"][0]["message"]["content"]


@pytest.mark.parametrize("kind", APPS)
@pytest.mark.parametrize("how", ["stream", "whole"])
def test_a_client_that_goes_away_ends_the_work_behind(
    kind: str, how: str, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({"messages": [USER], "max_tokens": 100, "stream": how == "stream"}).encode()
    head = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n")  # fmt: skip
    with behind(kind, model_folder) as (running, server):
        rounds = Rounds(monkeypatch, free=6)
        noted = Futures(running.held, monkeypatch)
        address = ("127.0.0.1", httpx.URL(server.url).port or 0)
        with socket.create_connection(address) as client:
            client.sendall(head.encode() + body)
            assert rounds.reached.wait(30)
            if how == "stream":
                assert client.recv(2**16).startswith(b"HTTP/1.1 200")
        noted.wait_until_cancelled()
        rounds.go_on.set()
        wait_for(lambda: not running.held._lanes.busy)
        assert rounds.count < 40  # of 100
        wait_for(lambda: server.service.turnstile.inside == 0)
        assert server.chat(max_tokens=3)["usage"]["completion_tokens"] == 3


def test_a_server_that_fails_in_the_middle_is_told_as_an_event(model_folder: Path) -> None:
    part = {"index": 0, "token_ids": [40], "logprobs": {"content": [{"logprob": -0.5}]},
            "finish_reason": None}  # fmt: skip
    with behind("vllm", model_folder) as (running, server):
        holder = server.service.lineup.version(server.service.recipe.models[0].name).held
        assert isinstance(holder, Behind)
        talk = saying({"choices": [part]}, {"error": {"message": "out of memory"}}, b"[DONE]")
        with talking_server(talk) as url:
            holder._server._calls.url = url  # type: ignore[attr-defined]
            came = chunks(server, max_tokens=5)
        assert "out of memory" in came[-1]["error"]["message"]
        assert came[-1]["error"]["type"] == "server_error"
        holder._server._calls.url = running.url  # type: ignore[attr-defined]
        assert server.chat(max_tokens=3)["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("embedded", [True, False])
def test_ids_in_and_ids_out_are_streamed(embedded: bool, model_folder: Path) -> None:
    body: Any = {"token_ids": [2, 40, 41, 3], "model": model_folder.name,
                 "sampling_params": {"max_tokens": 20, "seed": 3}}  # fmt: skip

    def asked(server: Serving) -> None:
        whole = server.post("/inference/v1/generate", body).json()
        said = server.post("/inference/v1/generate", {**body, "stream": True}).text
        events = [line.removeprefix("data: ") for line in said.split("\n\n") if line]
        assert events.pop() == "[DONE]"
        parts = [json.loads(one) for one in events]
        ids = [i for one in parts for i in one["choices"][0]["token_ids"]]
        assert ids == whole["choices"][0]["token_ids"]
        assert len(parts) > 2
        assert {one["weights"] for one in parts} == {whole["weights"]}
        refused = server.post("/inference/v1/generate", {**body, "stream": True, "token_ids": []})
        assert refused.status_code == 422
        too_long = {**body, "stream": True, "token_ids": [40] * 5000}
        for stream in (True, False):
            refused = server.post("/inference/v1/generate", {**too_long, "stream": stream})
            assert refused.status_code == 400
            assert "5020 tokens are asked for" in refused.json()["error"]["message"]

    if embedded:
        with serving(recipe_of(model_folder)) as server:
            asked(server)
    else:
        with behind("vllm", model_folder) as (_, server):
            asked(server)


def test_a_server_of_other_weights_or_nobody_is_refused(model_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(model_folder, other)
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    with engine_server(other) as behind:
        engine = {"kind": "vllm", "url": behind.url}
        with pytest.raises(UsageError, match="holds the weights of"):
            start(model_folder, engine)
        url = behind.url
    with pytest.raises(UsageError, match=f"{url}: no server answers"):
        start(model_folder, {"kind": "vllm", "url": url})


def test_adapters_on_a_server_behind_are_each_runs_own(
    model_folder: Path, adapters: list[Path]
) -> None:
    """One that was killed leaves its adapters there; one that ends takes its own away."""
    models = [{"name": "one", "path": str(adapters[0])}, {"name": "two", "path": str(adapters[1])}]
    with engine_server(model_folder) as running:
        running.held.load_adapter("somebody's", str(adapters[0])).result(30)
        recipe = recipe_of(models=models, engine={"kind": "vllm", "url": running.url})
        with serving(recipe) as first:
            with serving(recipe) as second:
                assert len(running.held.adapters) == 5
                assert ids(first, "one", seed=2) == ids(second, "one", seed=2)
            assert len(running.held.adapters) == 3
            assert ids(first, "two", seed=2)[0]
        assert set(running.held.adapters) == {"somebody's"}


def test_a_server_that_reads_no_seeds_is_refused(model_folder: Path) -> None:
    app = Sglang(deterministic=False).app
    with (
        engine_server(model_folder, app=app) as running,
        pytest.raises(UsageError, match="reads no seeds"),
    ):
        start(model_folder, {"kind": "sglang", "url": running.url})


def start(folder: Path, engine: dict[str, str]) -> None:
    with serving(recipe_of(folder, engine=engine)):
        pass


def test_a_server_that_is_gone_is_no_mistake_of_the_client(model_folder: Path) -> None:
    with behind("vllm", model_folder) as (running, server):
        running.kill()
        said = server.post("/v1/chat/completions", {"messages": [USER], "max_tokens": 3})
        assert said.status_code == 503
        assert "ConnectError" in said.json()["error"]["message"]
        (error,) = [one for one in chunks(server, max_tokens=3) if "error" in one]
        assert "ConnectError" in error["error"]["message"]
