"""Agents as users write them, against OpenAI's client."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, BadRequestError, OpenAI

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


async def run(base_url: str, api_key: str, task: dict[str, Any]) -> float:
    """Asks, adds what it is asked to add, and is content with the right number."""
    client = AsyncOpenAI(base_url=base_url, api_key=api_key)
    messages: list[Any] = list(task["prompt"])
    while True:
        said = await client.chat.completions.create(
            model="any", messages=messages, tools=[ADD], temperature=1.0
        )
        message = said.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            assert said.choices[0].finish_reason == "stop"
            assert said.usage is not None
            assert said.usage.completion_tokens > 0
            return float(str(task["answer"]) in str(message.content))
        assert said.choices[0].finish_reason == "tool_calls"
        for call in message.tool_calls:
            given = json.loads(call.function.arguments)
            result = str(given["a"] + given["b"])
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


def chat(base_url: str, api_key: str, task: dict[str, Any]) -> None:
    """Two turns by a client that reads its address from the environment, then a fresh one, as a
    stream; no reward."""
    client = OpenAI()
    messages: list[Any] = list(task["prompt"])
    for question in ("Again?", None):
        said = client.chat.completions.create(
            model="m", messages=messages, temperature=0.1, max_tokens=50
        )
        messages.append({"role": "assistant", "content": said.choices[0].message.content})
        if question:
            messages.append({"role": "user", "content": question})
    stream = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "Sum up."}], stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "".join(pieces)


async def parallel(base_url: str, api_key: str, task: dict[str, Any]) -> float:
    """Asks three things at once."""
    client = AsyncOpenAI(base_url=base_url, api_key=api_key)

    async def one(word: str) -> str:
        said = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": word}]
        )
        return str(said.choices[0].message.content)

    return float(len(await asyncio.gather(*(one(word) for word in ("a", "b", "c")))))


async def refused(base_url: str, api_key: str, task: dict[str, Any]) -> float:
    """Asks for what it cannot have, and counts how often it is told so."""
    client = AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0)
    messages: list[Any] = list(task["prompt"])
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    wishes: list[dict[str, Any]] = [
        {"n": 2}, {"stop": ["x"]}, {"tool_choice": "required", "tools": [ADD]},
        {"response_format": {"type": "json_object"}}, {"messages": picture},
    ]  # fmt: skip
    told = 0
    for wish in wishes:
        try:
            await client.chat.completions.create(**{"model": "m", "messages": messages, **wish})
        except BadRequestError:
            told += 1
    await client.chat.completions.create(model="m", messages=messages)
    return float(told)


async def endless(base_url: str, api_key: str, task: dict[str, Any]) -> float:
    """Asks again and again."""
    client = AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0)
    messages: list[Any] = list(task["prompt"])
    while True:
        said = await client.chat.completions.create(model="m", messages=messages)
        messages.append({"role": "assistant", "content": said.choices[0].message.content})
        messages.append({"role": "user", "content": "More."})


async def failing(base_url: str, api_key: str, task: dict[str, Any]) -> float:
    """Asks once, then fails in the way that the task names."""
    client = AsyncOpenAI(base_url=base_url, api_key=api_key)
    await client.chat.completions.create(model="m", messages=list(task["prompt"]))
    if task["way"] == "raise":
        raise RuntimeError("no")
    if task["way"] == "crash":
        os._exit(1)
    if task["way"] in ("hang", "daemons"):
        if task["way"] == "daemons":
            start_daemons(task["pids"])
        time.sleep(1000)
    return 1.0


def start_daemons(pids: str) -> None:
    """A process in a session of its own, and one whose parent has ended."""
    loud = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(1000)"
    orphan = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {loud!r}])"
    with open(pids, "w") as told:
        for program in (loud, orphan):
            subprocess.Popen([sys.executable, "-c", program], stdout=told, start_new_session=True)
    while len(Path(pids).read_text().split()) < 2:
        time.sleep(0.05)


async def silent(base_url: str, api_key: str, task: dict[str, Any]) -> float:
    """Asks for nothing."""
    return 1.0


def two(base_url: str, task: dict[str, Any]) -> None:
    """Takes too few arguments."""


def wrong(base_url: str, api_key: str, task: dict[str, Any]) -> float:
    """Makes the calls of the task, writes down what it was told, then asks as one should."""
    told = [posted(base_url, api_key, path, body) for path, body in task["calls"]]
    Path(task["told"]).write_text(json.dumps(told))
    right = {"messages": list(task["prompt"])}
    return float(posted(base_url, api_key, "/chat/completions", right)[0] == 200)


def cut_short(base_url: str, api_key: str, task: dict[str, Any]) -> float:
    """Asks until it is refused, and then does what the task names."""
    prompt = [{"role": "user", "content": task.get("say", "Go.")}]
    while posted(base_url, api_key, "/chat/completions", {"messages": prompt})[0] == 200:
        pass
    if task["then"] == "raise":
        raise RuntimeError("refused")
    if task["then"] == "hang":
        time.sleep(1000)
    return 1.0


def posted(base_url: str, api_key: str, path: str, body: Any) -> tuple[int, str]:
    """The status, and what a refusal says."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    request = urllib.request.Request(base_url + path, data, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        return error.code, json.loads(text)["error"]["message"] if text.startswith("{") else text
