"""Episodes with real servers of openenv-core, each in a process of its own."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from strop.errors import WorldError
from strop.recipe.train.environment import OpenEnvRecipe
from strop.rollout.environment import FaultError, Observation, Said
from strop.rollout.openenv.actions import Actions, actions_of, shown
from strop.rollout.openenv.environment import OpenEnvironments
from strop.text.tools import Call
from strop.types import Completion, Origin, Task

TASK = Task("Find the number.", {"answer": 5}, Origin("tasks.jsonl", 1))
BOUND = 60.0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def worlds_of(*kinds: str) -> Iterator[list[str]]:
    """The addresses of servers of these kinds, in one process: it takes seconds to start."""
    ports = [str(free_port()) for _ in kinds]
    file = Path(__file__).parent / "worlds.py"
    words = [word for pair in zip(kinds, ports, strict=True) for word in pair]
    process = subprocess.Popen([sys.executable, str(file), *words])
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    try:
        until = time.monotonic() + BOUND
        for url in urls:
            while time.monotonic() < until and process.poll() is None:
                try:
                    httpx.get(f"{url}/health", timeout=1.0)
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
        yield urls
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def running() -> Iterator[list[str]]:
    with worlds_of("guess", "echo", "tools") as urls:
        yield urls


@pytest.fixture
def guessing(running: list[str]) -> str:
    return running[0]


async def never(prompt_ids: tuple[int, ...], **_: Any) -> Completion:
    raise AssertionError("nothing is asked of the policy")


def calling(*calls: Call) -> Said:
    listed = [
        {"id": f"call{n:05d}", "type": "function",
         "function": {"name": call.name, "arguments": dict(call.arguments)}}
        for n, call in enumerate(calls)
    ]  # fmt: skip
    message = {"role": "assistant", "content": None, "tool_calls": listed}
    return Said(message, "", tuple(calls))


def saying(text: str) -> Said:
    return Said({"role": "assistant", "content": text}, text)


def guess(number: Any) -> Said:
    return calling(Call("step", {"number": number}))


async def played(
    worlds: OpenEnvironments, turns: Sequence[Said], task: Task = TASK
) -> list[Observation]:
    environment = worlds.make(never)
    try:
        return [await environment.reset(task), *[await environment.step(said) for said in turns]]
    finally:
        await environment.close()


def recipe(url: str, **settings: Any) -> OpenEnvRecipe:
    return OpenEnvRecipe.model_validate({"url": url, **settings})


def read(observation: Observation) -> list[str]:
    return [message["content"] for message in observation.messages]


def test_an_action_is_a_call_whose_arguments_are_its_fields(guessing: str) -> None:
    worlds = OpenEnvironments(recipe(guessing, observation_field="said"))
    (tool,) = worlds.tools or ()
    assert tool["function"]["name"] == "step"
    assert tool["function"]["description"] == "Guess the number."
    assert tool["function"]["parameters"]["properties"]["number"]["type"] == "integer"
    assert tool["function"]["parameters"]["required"] == ["number"]
    began, far, near, right = asyncio.run(played(worlds, [guess(2), guess(4), guess(5)]))
    assert (began.messages, began.done) == (({"role": "user", "content": " Guess."},), False)
    assert (read(far), far.reward, far.done) == (["far"], 0.0, False)
    assert (read(near), near.reward) == (["near"], 0.25)
    assert near.messages[0]["role"] == "tool"
    assert (right.messages, right.reward, right.done) == ((), 1.0, True)
    assert right.facts == {"tool_calls": 1.0, "tool_errors": 0.0}


def test_the_columns_of_the_task_begin_the_episode(guessing: str) -> None:
    worlds = OpenEnvironments(recipe(guessing))
    task = Task("Find it.", {"answer": 3, "level": "easy"}, Origin("tasks.jsonl", 2))
    *_, right = asyncio.run(played(worlds, [guess(3)], task))
    assert (right.done, right.reward) == (True, 1.0)


def test_several_fields_are_read_as_json(guessing: str) -> None:
    _, far = asyncio.run(played(OpenEnvironments(recipe(guessing)), [guess(1)]))
    assert read(far) == ['{"said": "far", "tries": 1}']


def test_wrong_actions_are_told_and_counted(guessing: str) -> None:
    worlds = OpenEnvironments(recipe(guessing, observation_field="said"))
    turns = [guess("x"), guess(-2), calling(Call("fly", {})), guess(5)]
    _, kind, below, unknown, right = asyncio.run(played(worlds, turns))
    assert "valid integer" in read(kind)[0]
    assert read(below) == ["Error: numbers below 0 are not guessed"]
    assert read(unknown) == ["Tool fly not found. There are: step."]
    for observation in (kind, below, unknown):
        assert observation.facts["tool_errors"] == 1.0
        assert not observation.done
    assert right.reward == 1.0


def test_calls_of_a_turn_are_taken_in_order_up_to_the_end(guessing: str) -> None:
    worlds = OpenEnvironments(recipe(guessing, observation_field="said"))
    both = calling(*(Call("step", {"number": number}) for number in (4, 5, 6)))
    _, ended = asyncio.run(played(worlds, [both]))
    assert (ended.done, ended.reward, ended.facts["tool_calls"]) == (True, 1.25, 2.0)


def test_an_answer_without_a_call_ends_the_episode(guessing: str) -> None:
    _, ended = asyncio.run(played(OpenEnvironments(recipe(guessing)), [saying("It is 5.")]))
    assert (ended.done, ended.reward) == (True, None)


def test_more_episodes_than_sessions_wait_for_one(guessing: str) -> None:
    """The server allows two sessions."""

    async def many() -> list[list[Observation]]:
        return await asyncio.gather(*(played(worlds, [guess(4), guess(5)]) for _ in range(7)))

    worlds = OpenEnvironments(recipe(guessing))
    assert [episode[-1].reward for episode in asyncio.run(many())] == [1.0] * 7
    assert worlds.under_way == 0


def test_a_server_that_hangs_is_at_fault(guessing: str) -> None:
    worlds = OpenEnvironments(recipe(guessing, call_seconds=0.5))
    with pytest.raises(FaultError, match=r"did not answer within 0\.5 s"):
        asyncio.run(played(worlds, [guess(-1)]))
    assert worlds.under_way == 0


def test_what_the_policy_says_can_be_the_action(running: list[str]) -> None:
    settings = {"answer_field": "message", "observation_field": "said"}
    worlds = OpenEnvironments(recipe(running[1], **settings))
    assert worlds.tools is None
    began, said, over = asyncio.run(played(worlds, [saying("hi"), saying("bye")]))
    assert began.messages == ()
    assert said.messages == ({"role": "user", "content": "hi!"},)
    assert (said.reward, over.reward, over.done, over.messages) == (0.5, 0.5, True, ())


def test_a_server_of_tools(running: list[str]) -> None:
    worlds = OpenEnvironments(recipe(running[2]))
    (tool,) = worlds.tools or ()
    assert tool["function"]["name"] == "add"
    assert tool["function"]["description"] == "Add two numbers."
    assert sorted(tool["function"]["parameters"]["properties"]) == ["a", "b"]
    calls = calling(Call("add", {"a": 2, "b": 3}), Call("add", {"a": 2}))
    _, heard = asyncio.run(played(worlds, [calls]))
    assert read(heard)[0] == "5"
    assert heard.facts == {"tool_calls": 2.0, "tool_errors": 1.0}


def test_a_server_that_dies_is_at_fault() -> None:
    stop = worlds_of("guess")
    (url,) = stop.__enter__()
    worlds = OpenEnvironments(recipe(url))
    with pytest.raises(FaultError, match="hung up"):
        asyncio.run(orphaned_with(worlds, stop))


async def orphaned_with(worlds: OpenEnvironments, server: Any) -> None:
    environment = worlds.make(never)
    await environment.reset(TASK)
    server.__exit__(None, None, None)
    try:
        await environment.step(guess(5))
    finally:
        await environment.close()


def test_a_server_that_is_not_there_is_refused() -> None:
    with pytest.raises(WorldError) as refused:
        OpenEnvironments(recipe(f"http://127.0.0.1:{free_port()}"))
    assert "no OpenEnv server answers" in str(refused.value)
    assert "uvicorn server.app:app" in str(refused.value)


SCHEMA = {
    "properties": {"message": {"type": "string"}, "loud": {"type": "boolean"},
                   "metadata": {"type": "object"}},
    "required": ["message"],
}  # fmt: skip


def test_a_field_for_the_answer_is_a_text_and_all_that_is_needed() -> None:
    assert actions_of(SCHEMA, "message", "url") == Actions(answer_field="message")
    with pytest.raises(WorldError, match=r"(?s)no text field 'loud'.*one of message;"):
        actions_of(SCHEMA, "loud", "url")
    with pytest.raises(WorldError, match="it needs loud, too"):
        actions_of({**SCHEMA, "required": ["message", "loud"]}, "message", "url")


@pytest.mark.parametrize(
    ("observation", "name", "text", "failed"),
    [({"a": "x", "b": 2}, "b", "2", False), ({"a": "x"}, None, "x", False),
     ({"tool_name": "f", "result": {"content": [{"text": "x"}], "data": None}, "error": None},
      None, "x", False),
     ({"tool_name": "f", "result": None, "error": {"message": "no"}}, None, "no", True)],
)  # fmt: skip
def test_what_is_shown_of_an_observation(
    observation: dict[str, Any], name: str | None, text: str, failed: bool
) -> None:
    read = shown(observation, name)
    assert (read.text, read.failed) == (text, failed)
