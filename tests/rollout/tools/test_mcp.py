"""Tools of a real MCP server, over its standard input and output and over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from strop.errors import WorldError
from strop.recipe.train.environment import ToolsEnvironmentRecipe
from strop.rollout.environment import FaultError
from strop.rollout.tools import mcp as ours
from strop.rollout.tools.combined import CombinedToolboxes
from strop.rollout.tools.toolbox import ToolResult, told
from strop.text.tools import Call

SERVER = [sys.executable, str(Path(__file__).parent / "mcp_server.py")]
KEY = "sesame-9000"


@pytest.fixture(autouse=True)
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_SUMS", KEY)
    monkeypatch.setattr(ours, "FIRST_WAIT", 0.05)


def sums(**settings: Any) -> dict[str, Any]:
    env = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "SUMS_KEY": "${KEY_OF_SUMS}"}
    return {"mcp": {"command": SERVER, "env": env, "retries": 1, **settings}}


def test_tools_are_listed_and_called(made: Any) -> None:
    tools = made(sums(tools=["divide", "add", "key"]))
    names = [tool["function"]["name"] for tool in tools.boxes.tools]
    assert names == ["divide", "add", "key"]
    schema = tools.boxes.tools[1]["function"]["parameters"]
    assert {k: v["type"] for k, v in schema["properties"].items()} == {
        "a": "integer", "b": "integer",
    }  # fmt: skip
    results = tools.ask(*(Call("add", {"a": n, "b": 1}) for n in range(5)))
    assert results == [ToolResult(str(n + 1)) for n in range(5)]
    assert tools.one("add", a="x", b=1) == told("arguments", 'add: a: "x" is not of type "integer"')
    assert tools.one("divide", a=1, b=0).error == "raised"
    assert tools.one("end").error == "unknown"


def test_a_secret_of_the_server_is_not_told(made: Any) -> None:
    assert made(sums()).one("key") == ToolResult("the key is ***")


def test_a_server_that_dies_is_started_again(made: Any, tmp_path: Path) -> None:
    tools = made(sums())
    assert tools.one("end_once", marker=str(tmp_path / "once")) == ToolResult("alive")
    assert tools.one("end") == told("crashed", "end: the server ended the connection")
    assert tools.one("add", a=1, b=2) == ToolResult("3")


def test_a_call_that_takes_too_long_each_time_is_the_callers(made: Any) -> None:
    tools = made(sums(seconds=0.5, retries=0))
    assert tools.one("sleep", seconds=3.0) == told("hung", "sleep: no answer within 0.5 s")
    assert tools.one("sleep", seconds=0.0) == ToolResult("awake")


def test_a_server_that_cannot_be_started_again_is_a_fault(made: Any) -> None:
    tools = made(sums())
    (kit,) = tools.boxes._kits
    assert tools.one("add", a=1, b=2) == ToolResult("3")
    kit.options = kit.options.model_copy(update={"command": [sys.executable, "-c", "pass"]})
    with pytest.raises(FaultError, match="cannot be reached"):
        tools.one("end")


@pytest.mark.parametrize(("settings", "said"), [
    ({"command": ["/no/such/program"]}, "cannot be reached: FileNotFoundError"),
    ({"command": [sys.executable, "-c", "pass"]}, "cannot be reached"),
    ({"tools": ["add", "subtract"]}, "has no tool 'subtract'\n  fix: it has add, divide"),
    ({"env": {"K": "${NOT_SET_HERE}"}}, "NOT_SET_HERE is not set"),
])  # fmt: skip
def test_what_cannot_work_is_refused_before_the_run(settings: dict[str, Any], said: str) -> None:
    recipe = ToolsEnvironmentRecipe.model_validate({"tools": [sums(**settings, retries=0)]})
    with pytest.raises(WorldError, match=said):
        CombinedToolboxes(recipe)


def wrong(way: str, **settings: Any) -> dict[str, Any]:
    """A server that breaks its protocol."""
    file = str(Path(__file__).parent / "wrong_mcp_server.py")
    return {"mcp": {"command": [sys.executable, file, way], "retries": 1, **settings}}


@pytest.mark.parametrize(("way", "said"), [
    ("schema", "wrong_mcp_server.py schema .*: tool 2 of its list, inputSchema.type: Input should"),
    ("nameless", "tool 1 of its list, inputSchema: Field required"),
    ("endless", "its list of tools has no end"),
    ("refuses", "there is no such method"),
    ("late", "did not list its tools within 5 s"),
])  # fmt: skip
def test_a_list_that_breaks_the_protocol_is_refused_before_the_run(
    way: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "OPENS_WITHIN", 5.0)
    recipe = ToolsEnvironmentRecipe.model_validate({"tools": [wrong(way)]})
    with pytest.raises(WorldError, match=said):
        CombinedToolboxes(recipe)


@pytest.mark.parametrize("session", ["shared", "episode"])
@pytest.mark.parametrize(("way", "said"), [
    ("text", "content: Input should be a valid list"),
    ("nothing", "content: Field required"),
    ("unstructured", "did not return structured content"),
    ("misstructured", "'five' is not of type 'integer'"),
])  # fmt: skip
def test_a_result_that_breaks_the_protocol_is_the_servers_fault(
    made: Any, way: str, said: str, session: str
) -> None:
    """Not the policy's, who is told nothing, nor the end of the run."""
    tools = made(wrong(way, session=session))
    with pytest.raises(FaultError, match=f"act failed 2 times: .*{said}"):
        tools.one("act")


@pytest.mark.parametrize(("settings", "said"), [
    ({"url": "http://h/mcp"}, "give `command` or `url`"),
    ({"headers": {"X": "1"}}, "headers are only read with url"),
])  # fmt: skip
def test_options_that_contradict_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ToolsEnvironmentRecipe.model_validate({"tools": [sums(**settings)]})


def count(tools: Any, box: Any, *names: str) -> list[str]:
    """What an episode is told to these calls at once."""

    async def all_of_them() -> list[ToolResult]:
        return await asyncio.gather(*(box.call(Call(name, {})) for name in names))

    return [result.text.split()[0] for result in tools.runner.run(all_of_them())]


def test_one_session_of_all_episodes_keeps_one_count(made: Any) -> None:
    tools = made(sums())
    one, other = tools.boxes.make("0"), tools.boxes.make("1")
    assert count(tools, one, "count", "count") == ["1", "2"]
    assert count(tools, other, "count") == ["3"]


def test_each_episode_has_a_session_of_its_own(made: Any) -> None:
    """A crash costs its own episode's session, which comes back with its earlier calls; ended
    episodes leave no process, not even one that hangs."""
    tools = made(sums(session="episode", retries=0, seconds=2.0))
    one, other, idle = (tools.boxes.make(str(n)) for n in range(3))
    assert count(tools, one, "count", "count", "count") == ["1", "2", "3"]
    assert count(tools, other, "count") == ["1"]
    assert tools.runner.run(one.call(Call("end", {}))).error == "crashed"
    assert count(tools, other, "count") == ["2"]
    assert count(tools, one, "count") == ["4"]
    told_pids = [tools.runner.run(box.call(Call("count", {}))).text for box in (one, other)]
    pids = [int(text.split()[1]) for text in told_pids]
    assert tools.runner.run(other.call(Call("sleep", {"seconds": 60.0}))).error == "hung"
    assert count(tools, other, "count") == ["4"]
    for box in (one, other, idle):
        tools.runner.run(box.close())
    assert len(set(pids)) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_session_that_is_called_off_while_it_begins_leaves_no_process(made: Any) -> None:
    tools = made(sums(session="episode"))
    (kit,) = tools.boxes._kits

    async def called_off() -> None:
        box = tools.boxes.make("0")
        calling = asyncio.create_task(box.call(Call("count", {})))
        await asyncio.sleep(0.05)
        calling.cancel()
        await asyncio.wait([calling])
        await box.close()

    tools.runner.run(called_off())
    assert len(kit._connections) == 1
    tools.runner.run(kit.close())
    assert not kit._connections
    assert not [p for p in children_of(os.getpid()) if "mcp_server.py" in p]


def test_no_call_begins_a_session_once_its_episode_is_over(made: Any) -> None:
    tools = made(sums(session="episode", seconds=30.0))
    (kit,) = tools.boxes._kits

    async def played() -> list[Any]:
        box, late = tools.boxes.make("0"), tools.boxes.make("1")
        await box.call(Call("count", {}))
        calls = [Call("sleep", {"seconds": 60.0}), Call("count", {})]
        calling = [asyncio.create_task(box.call(one)) for one in calls]
        calling.append(asyncio.create_task(late.call(Call("count", {}))))
        await asyncio.sleep(0.05)  # the second waits for the first; the third session begins
        await late.close()
        await box.close()
        return await asyncio.gather(*calling, return_exceptions=True)

    said = tools.runner.run(played())
    assert [str(one) for one in said] == ["the episode is over"] * 3
    assert not kit._connections


def children_of(pid: int) -> list[str]:
    lists = (one.read_text() for one in Path(f"/proc/{pid}/task").glob("*/children"))
    found = []
    for child in " ".join(lists).split():
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{child}/cmdline").read_bytes().decode())
    return found


@contextlib.contextmanager
def running(*how: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server over HTTP: its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([*SERVER, str(port), *how], env=env, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port}/mcp", process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def served() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with running() as server:
        yield server


def test_a_server_without_sessions_keeps_no_episode_apart(made: Any) -> None:
    with running("stateless") as (url, _):
        with pytest.raises(WorldError, match="gives no sessions, so that episodes would meet"):
            made({"mcp": {"url": url, "session": "episode"}})
        assert made({"mcp": {"url": url}}).one("add", a=1, b=2) == ToolResult("3")


def test_a_running_server_over_http(made: Any, served: tuple[str, subprocess.Popen[bytes]]) -> None:
    """Once it is gone, that is the server's fault, not the policy's."""
    url, process = served
    tools = made({"mcp": {"url": url, "headers": {"X-Key": "${KEY_OF_SUMS}"}, "retries": 1}})
    results = tools.ask(*(Call("add", {"a": n, "b": 1}) for n in range(3)))
    assert results == [ToolResult("1"), ToolResult("2"), ToolResult("3")]
    own = made({"mcp": {"url": url, "session": "episode"}})
    one, other = own.boxes.make("0"), own.boxes.make("1")
    assert count(own, one, "count", "count") == ["1", "2"]
    assert count(own, other, "count") == ["1"]
    process.kill()
    process.wait()
    with pytest.raises(FaultError):
        tools.one("add", a=1, b=2)
    with pytest.raises(WorldError, match="cannot be reached"):
        made({"mcp": {"url": url, "retries": 0}})
