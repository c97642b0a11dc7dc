"""A process that calls the functions of a user's file: `python -m strop.rollout.tools.worker FILE
FUNCTION...`.

`{"describe": true}` or `{"name", "arguments"}` a line in, an object a line out. Standard library
only, beside what the user's file imports.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.errors import RewardError
from strop.rewards.own.functions import offered, own_names
from strop.rollout.tools.functions import FORM, place_of, schema_of
from strop.rollout.tools.said import LONGEST, NoTextError, readable, text_of
from strop.sandbox.orders import orders

Answer = dict[str, Any]
Functions = Mapping[str, Callable[..., Any]]


def found(file: Path, wanted: Sequence[str]) -> tuple[Functions, Answer]:
    """The functions of these names, or why there are none (`problem`, `fix`)."""
    try:
        names = own_names(file)
    except RewardError as error:
        return {}, {"problem": error.problem, "where": error.where, "fix": error.fix}
    own = {n: f for n, f in names.items() if inspect.isfunction(f)}
    missing = [name for name in wanted if name not in own]
    if missing:
        said = f"the file has no function {missing[0]!r}"
        return {}, {"problem": said, "where": str(file), "fix": offered(own, missing[0])}
    return {name: own[name] for name in wanted}, {}


def described(functions: Functions) -> Answer:
    """Their schemas (`tools`), or why they cannot be described (`problem`, `fix`)."""
    tools, problems = [], []
    for name, function in functions.items():
        try:
            tools.append(schema_of(function))
            tools[-1]["function"]["name"] = name
        except Exception as error:  # noqa: BLE001 - evaluating hints may raise anything
            problems.append(f"{place_of(function)}: {error}")
    if problems:
        said = "these functions cannot be described to the policy: " + "; ".join(problems)
        return {"problem": said, "fix": FORM}
    return {"tools": tools}


def called(functions: Functions, name: str, arguments: Mapping[str, Any]) -> Answer:
    """What a call came to: `text` and `error`, or that it gave no text (`garbled`)."""
    try:
        result = functions[name](**arguments)
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
    except Exception as error:  # noqa: BLE001 - it is told to the policy
        said = readable(f"{type(error).__name__}: {error}"[:LONGEST])
        return {"text": str({"error": said}), "error": "raised"}
    try:
        return {"text": text_of(result)[:LONGEST], "error": ""}
    except NoTextError as error:
        return {"garbled": str(error)}


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def main() -> None:
    lines, answers = orders()
    file, wanted = Path(sys.argv[1]), sys.argv[2:]
    sys.path.insert(0, str(file.parent))  # as if the file were run: it may import its neighbours
    functions, problem = found(file, wanted)
    print("ready", file=answers, flush=True)
    while True:
        order = json.loads(lines.get())
        if order.get("describe"):
            answer = problem or described(functions)
        else:
            answer = called(functions, order["name"], order["arguments"])
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
