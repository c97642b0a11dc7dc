"""What was said in episodes with tools, in few words."""

from __future__ import annotations

from typing import Any

from strop.episodes import Episode, Turn
from strop.types import Finish, Message, VersionSpan


def calling(number: int, name: str, words: str = "", **arguments: Any) -> Message:
    """A turn with a call."""
    function = {"name": name, "arguments": arguments}
    call = {"id": f"call{number:05d}", "type": "function", "function": function}
    return {"role": "assistant", "content": words or None, "tool_calls": [call]}


def at_once(*calls: tuple[str, dict[str, Any]]) -> list[Message]:
    """One turn with several calls (name, arguments)."""
    turns = [calling(number, name, **given) for number, (name, given) in enumerate(calls)]
    return [turns[0] | {"tool_calls": [call for turn in turns for call in turn["tool_calls"]]}]


def result(number: int, name: str, text: str) -> Message:
    return {"role": "tool", "tool_call_id": f"call{number:05d}", "name": name, "content": text}


def saying(text: str) -> Message:
    return {"role": "assistant", "content": text}


def called(*calls: tuple[str, dict[str, Any], str], answer: str | None = None) -> list[Message]:
    """Calls (name, arguments, result) one after the other, then the answer."""
    said: list[Message] = []
    for number, (name, arguments, text) in enumerate(calls):
        said += [calling(number, name, **arguments), result(number, name, text)]
    return said if answer is None else [*said, saying(answer)]


def episode_of(
    messages: list[Message], *rewards: float | None, final: float | None = None,
    finish: Finish = "stop",
) -> Episode:  # fmt: skip
    """An episode of these messages; `rewards` are those of its turns (default: none)."""
    said = [m for m in messages if m["role"] == "assistant"]
    turns = tuple(Turn(1, reward) for reward in rewards or (None,) * len(said))
    given = [reward for reward in (*rewards, final) if reward is not None]
    count = len(turns)
    return Episode(
        str(said[-1]["content"] or ""), finish, (5,) * count, (True,) * count, (-0.1,) * count,
        (VersionSpan(0, count, 1),),
        turns=turns, messages=tuple(messages), reward=sum(given) if given else None,
    )  # fmt: skip
