"""One episode's instance of a user's class, in the process that holds nothing else.

TRL's `environment_factory` form (trl/trainer/grpo_trainer.py): a callable without arguments makes
the instance; its public methods are tools, but `reset`, which begins an episode with the columns of
its task, and `get_reward`, which says at the end how good it was. Methods may be coroutines.
Standard library only, as are those that it imports.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import inspect
import math
import os
import pickle
import random
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from strop.rollout.tools.said import LONGEST, NoTextError, readable, text_of

RESERVED = ("reset", "get_reward")
"""Public methods that are no tools."""

Answer = dict[str, Any]

OURS = os.path.dirname(__file__) + os.sep
LIBRARY = os.path.dirname(os.__file__) + os.sep


def public_methods(instance: Any) -> dict[str, Callable[..., Any]]:
    """Its tools by their names, as TRL finds them: bound methods, static ones are none. Properties
    are not run: what they compute may not be there yet."""
    names = [n for n in dir(instance) if not n.startswith("_") and n not in RESERVED]
    held = {n: getattr(instance, n, None) for n in names if not _computed(instance, n)}
    return {n: method for n, method in held.items() if inspect.ismethod(method)}


def _computed(instance: Any, name: str) -> bool:
    found = inspect.getattr_static(instance, name, None)
    return isinstance(found, (property, functools.cached_property))


class Instance:
    """Answers the orders of its episode.

    Every process of an episode begins with the same `seed` of `random` (and of numpy, where the
    file imported it), so that its earlier calls come to the same. A call that is tried again draws
    anew.
    """

    def __init__(self, make: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._make, self._loop = make, loop
        self._seed = ""
        self._instance: Any = None
        self._doing = ""

    def answer(self, order: Answer) -> Answer:
        """Carry out `begin`, `call` or `reward`, or `run` an agent. What fails by the environment's
        doing is `failed`."""
        try:
            self._doing = order["do"]
            if order["do"] == "run":
                return {"reward": self._run(order)}
            if order["do"] == "begin":
                row = pickle.loads(base64.b64decode(order["row"]))
                return {"said": self._begin(order["seed"], row)}
            if order["do"] == "call":
                again = f"{order['number']}/{order['attempt']}" if order["attempt"] else ""
                return self._call(order["name"], order["arguments"], again)
            return {"reward": self._reward()}
        except NoTextError as error:
            return {"garbled": str(error)}
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            return {"failed": self._failure(error)}

    def _failure(self, error: Exception) -> str:
        """`env.py:12: reset raised KeyError: 'level'`."""
        place = place_of_failure(error)
        said = f"{self._doing} raised {type(error).__name__}: {error}"
        return f"{place}: {said}" if place else said

    def _begin(self, seed: str, row: dict[str, Any]) -> str | None:
        self._seed = seed
        seed_draws(seed)
        self._doing = f"{getattr(self._make, '__name__', 'it')}()"
        self._instance = self._make()
        self._doing = "reset"
        said = self._value(self._instance.reset(**_accepted(self._instance.reset, row)))
        return None if said is None else text_of(said)

    def _call(self, name: str, arguments: dict[str, Any], again: str) -> Answer:
        method = getattr(self._instance, name)
        try:
            inspect.signature(method).bind(**arguments)
        except TypeError as error:
            return _told("arguments", str(error))
        if again:
            seed_draws(f"{self._seed}/{again}")
        try:
            result = self._value(method(**arguments))
        except Exception as error:  # noqa: BLE001 - it is told to the policy, as TRL does
            return _told("raised", str(error))
        text = text_of(result)
        if len(text) > LONGEST:
            return _told("raised", f"the result has {len(text)} characters, more than {LONGEST}")
        return {"text": text, "error": ""}

    def _reward(self) -> float | None:
        self._doing = "get_reward"
        return _number(self._value(self._instance.get_reward()), "get_reward")

    def _run(self, order: Answer) -> float | None:
        """An agent's whole episode. OpenAI's client reads the variables where it is given
        nothing."""
        seed_draws(order["seed"])
        os.environ.update(OPENAI_BASE_URL=order["base_url"], OPENAI_API_KEY=order["api_key"])
        task = pickle.loads(base64.b64decode(order["row"]))
        self._doing = getattr(self._make, "__name__", "the agent")
        returned = self._make(order["base_url"], order["api_key"], task)
        return _number(self._value(returned), "the agent")

    def _value(self, returned: Any) -> Any:
        """What was returned, or what a coroutine comes to."""
        if not inspect.isawaitable(returned):
            return returned
        return self._loop.run_until_complete(_result(returned))


async def _result(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def place_of_failure(error: BaseException) -> str:
    """`env.py:12`, the line of the user's file at which it failed: the last one in the first file
    that is neither of this room nor Python's own. Empty where none is."""
    frames = [
        (frame.f_code.co_filename, number)
        for frame, number in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith((LIBRARY, OURS, "<"))
    ]
    lines = [number for path, number in frames if path == frames[0][0]]
    return f"{frames[0][0]}:{lines[-1]}" if frames else ""


def _number(reward: Any, source: str) -> float | None:
    if reward is None:
        return None
    if isinstance(reward, str | bytes):  # which float() would read, as it does for no other reward
        raise TypeError(f"{source} returned the text {reward!r:.40}, which is no number")
    number = float(reward)
    if not math.isfinite(number):
        raise ValueError(f"{source} returned {number}")
    return number


def _accepted(reset: Callable[..., Any], row: dict[str, Any]) -> dict[str, Any]:
    """The columns that `reset` takes: all of them, or those that it names."""
    parameters = inspect.signature(reset).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return row
    return {p.name: row[p.name] for p in parameters if p.name in row}


def _told(kind: str, said: str) -> Answer:
    """An error as TRL tells it to the model."""
    return {"text": readable(str({"error": said[:LONGEST]})), "error": kind}


def seed_draws(seed: str) -> None:
    """Seed the generators of `random` and numpy, which forks would otherwise share."""
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(random.Random(seed).getrandbits(32))
