"""What a user's environment class is: its tools as JSON schemas, or why it cannot be used."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from strop.rewards.own.functions import offered
from strop.rollout.own.instance import place_of_failure, public_methods
from strop.rollout.tools.functions import FORM, STARRED, parameters_of, place_of, schema_of, yields


@dataclass(frozen=True, slots=True)
class Description:
    """`Description([{"type": "function", "function": {"name": "add", ...}}], rewards=True,
    needs=["answer"], reads=["answer", "level"])`, or what is wrong (`problem`), how to mend it, and
    where it is (`place`, `env.py:12`; empty where the file is all that is known).
    `needs` are columns that `reset` cannot do without, and `reads` those that it names (`None`: it
    takes all)."""

    tools: list[dict[str, Any]] = field(default_factory=list)
    rewards: bool = False
    needs: list[str] = field(default_factory=list)
    reads: list[str] | None = None
    problem: str = ""
    fix: str = ""
    place: str = ""


def described(make: Any, name: str, has: list[str]) -> Description:
    """Describe what `make` makes; `has` are the names that the file has besides. Makes one
    instance, as TRL does."""
    if not callable(make):
        return _missing("class or function", name, has)
    needed = _needed(make)
    if needed:
        return Description(
            problem=f"{name} needs arguments to be made: {', '.join(needed)}",
            fix="name a callable without arguments: give them defaults, or write a function that "
            "passes them",
            place=_line_of(make),
        )
    try:
        instance = make()
    except Exception as error:  # noqa: BLE001 - the user's class may raise anything
        return Description(
            problem=f"{name}() raised {type(error).__name__}: {error}",
            fix="it is made once before the run: mend it, or what it needs",
            place=place_of_failure(error),
        )
    try:
        found = _checked(instance, name)
    except Exception as error:  # noqa: BLE001 - looking at its attributes may run the user's code
        return Description(
            problem=f"looking at {name}() raised {type(error).__name__}: {error}",
            fix="its methods are looked for once before the run: mend it",
            place=place_of_failure(error),
        )
    return replace(found, place=found.place or _line_of(make)) if found.problem else found


def described_agent(function: Any, name: str, has: list[str]) -> Description:
    """Whether this is an agent: a function of three arguments."""
    if not callable(function):
        return _missing("function", name, has)
    try:
        inspect.signature(function).bind("base_url", "api_key", {})
    except TypeError as error:
        return Description(
            problem=f"{name} is called as {name}(base_url, api_key, task): {error}",
            fix=f"write `async def {name}(base_url, api_key, task)`: the address and the key for "
            "OpenAI's client, and the task's columns",
            place=_line_of(function),
        )
    return Description(rewards=True)


def _missing(what: str, name: str, has: list[str]) -> Description:
    return Description(problem=f"the file has no {what} {name!r}", fix=offered(has, name))


def _line_of(thing: Any) -> str:
    """Where a class, a function or a method is written."""
    try:
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}"
    except (OSError, TypeError):  # made by a call, or without a source
        return ""


def _checked(instance: Any, name: str) -> Description:
    if not callable(getattr(instance, "reset", None)):
        return Description(
            problem=f"{name} has no method `reset`",
            fix="write `def reset(self, **columns)`: it begins an episode, and returns a text for "
            "the policy or None",
        )
    if yields(instance.reset):
        return Description(
            problem=f"`reset` of {name} yields, and has to return",
            fix="return the text that begins the episode, or None",
            place=_line_of(instance.reset),
        )
    reward = getattr(instance, "get_reward", None)
    if reward is not None and (not callable(reward) or _needed(reward)):
        needs = f"needs {', '.join(_needed(reward))}" if callable(reward) else "cannot be called"
        return Description(
            problem=f"`get_reward` of {name} {needs}",
            fix="make it a method without arguments that returns the episode's reward",
            place=_line_of(reward),
        )
    if callable(reward) and yields(reward):
        return Description(
            problem=f"`get_reward` of {name} yields, and has to return",
            fix="make it a method without arguments that returns the episode's reward",
            place=_line_of(reward),
        )
    tools, problems = [], []
    for called, method in public_methods(instance).items():
        try:
            tools.append(schema_of(method))
            tools[-1]["function"]["name"] = called
        except Exception as error:  # noqa: BLE001 - evaluating hints may raise anything
            problems.append(f"{place_of(method)}: {error}")
    if problems:
        return Description(
            problem="public methods are tools, and these cannot be described to the policy: "
            + "; ".join(problems),
            fix=f"{FORM}; a method that is no tool begins with `_`",
        )
    return Description(tools, reward is not None, _needed(instance.reset), _read(instance.reset))


def _read(reset: Callable[..., Any]) -> list[str] | None:
    """The columns that `reset` names; `None` where it takes all."""
    every = parameters_of(reset)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in every)
    return None if takes_all else [p.name for p in every if p.kind not in STARRED]


def _needed(function: Callable[..., Any]) -> list[str]:
    """The arguments that it cannot do without."""
    every = parameters_of(function)
    return [p.name for p in every if p.default is p.empty and p.kind not in STARRED]
