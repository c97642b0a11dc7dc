"""An agent that does everything with OpenAI's client that agents do."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        },
    },
}


async def run(base_url: str, api_key: str, task: dict[str, Any]) -> float:
    """Two turns with a tool, whole and as a stream, and two further questions at once; notes its
    reward in a file."""
    client = AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0)
    messages: list[Any] = list(task["prompt"])
    said = await client.chat.completions.create(model="policy", messages=messages, tools=[ADD])
    message = said.choices[0].message
    messages.append(message.model_dump(exclude_none=True))
    called = 0.0
    for call in message.tool_calls or ():
        given = json.loads(call.function.arguments)
        called += given == {"a": 2, "b": 3}
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "5"})
    if not message.tool_calls:
        messages.append({"role": "user", "content": "2 + 3?"})
    stream = await client.chat.completions.create(
        model="policy", messages=messages, tools=[ADD], stream=True, max_tokens=4
    )
    pieces = [c.choices[0].delta.content or "" async for c in stream if c.choices]
    asides = await asyncio.gather(*(aside(client, word) for word in ("3?", "4?")))
    reward = called + float("5" in "".join(pieces)) + 0.01 * sum(asides)
    with (Path(task["folder"]) / "rewards.txt").open("a") as file:
        file.write(f"{reward}\n")
    return reward


async def aside(client: AsyncOpenAI, question: str) -> int:
    """How many letters the answer has."""
    said = await client.chat.completions.create(
        model="policy", messages=[{"role": "user", "content": question}], max_tokens=6
    )
    return len(said.choices[0].message.content or "")
