"""What runs inside the jail: the candidate's code, and answers to the referee's calls.

Nothing here decides anything. A candidate that rewrites this module only changes what plain data
it answers, which it may choose anyway. Standard library only.
"""

from __future__ import annotations

import builtins
import os
import sys
import types
from typing import Any

from strop.sandbox.codec import NotPlainError, receive, send

SHUT_IN = b"i"
"""The first byte on the link. The referee sends the code for it, so no code can forge it."""


def run(link: int) -> None:
    """Say that the walls stand, read the code, run it, serve calls until the referee hangs up."""
    os.write(link, SHUT_IN)
    order = receive(link)
    if order["program"]:
        _run_program(order["code"])
    _serve(link, order["code"])


def _run_program(code: str) -> None:
    """The code as a script of its own: prints to the output pipe, ends with its own status."""
    status = 0
    try:
        exec(compile(code, "candidate.py", "exec"), _module("__main__"))
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException as error:  # noqa: BLE001 - it is the candidate's own
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        status = 1
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        status = 1
    os._exit(status & 0xFF)


def _serve(link: int, code: str) -> None:
    namespace = _module("candidate")
    send(link, _attempt(lambda: exec(compile(code, "candidate.py", "exec"), namespace)))
    while True:
        name, args, kwargs = receive(link)
        _answer(link, _attempt(lambda: namespace[name](*args, **kwargs)))  # noqa: B023


def _answer(link: int, answer: dict[str, Any]) -> None:
    try:
        send(link, answer)
    except NotPlainError as error:
        send(link, {"error": ["NotPlainError", str(error)]})


def _attempt(work: Any) -> dict[str, Any]:
    try:
        return {"value": work()}
    except BaseException as error:  # noqa: BLE001 - it is the candidate's own, SystemExit too
        kind = next(k for k in type(error).__mro__ if k.__name__ in vars(builtins))
        return {"error": [kind.__name__, str(error)[:500]]}


def _module(name: str) -> dict[str, Any]:
    module = types.ModuleType(name)
    sys.modules[name] = module
    return vars(module)
