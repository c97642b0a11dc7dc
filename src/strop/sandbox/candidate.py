"""Runs inside the jail: executes the candidate's code and answers the referee's calls.

No verdict depends on this module. A candidate that rewrites it only changes the data that it
answers, which it may choose anyway. Standard library only.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import traceback
import types
from typing import Any

from strop.sandbox.values.codec import NotPlainError, receive, send
from strop.sandbox.values.raised import describe
from strop.sandbox.values.shelf import Shelf

SHUT_IN = b"i"
"""The first byte on the link. The referee sends the code for it, so no code can forge it."""


def run(link: int) -> None:
    """Report that the jail is closed, read the code, run it, serve calls until the referee hangs
    up."""
    os.write(link, SHUT_IN)
    order = receive(link)
    if order["program"]:
        _run_program(order["code"])
    _serve(link, order["code"])


def _run_program(code: str) -> None:
    """The code as a script of its own: prints to the output pipe, ends as Python ends a script
    (threads, then exit functions, then what was not yet printed) with its own status."""
    status = _run_script(code)
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 - it is the candidate's own
        status = status or 1
    os._exit(status & 0xFF)


def _run_script(code: str) -> int:
    try:
        exec(compile(code, "candidate.py", "exec"), _module("__main__"))
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:  # noqa: BLE001 - it is the candidate's own
        traceback.print_exc()
        return 1
    return 0


def _serve(link: int, code: str) -> None:
    namespace = _module("candidate")
    shelf = Shelf(namespace)

    def load() -> None:
        exec(compile(code, "candidate.py", "exec"), namespace)

    _answer(link, _attempt(load), shelf)
    while True:
        order = receive(link, shelf)
        _answer(link, _attempt(lambda: shelf.answer(order)), shelf)  # noqa: B023


def _answer(link: int, answer: dict[str, Any], shelf: Shelf) -> None:
    try:
        send(link, answer, shelf)
    except NotPlainError as error:
        send(link, {"error": describe(error)})


def _attempt(work: Any) -> dict[str, Any]:
    try:
        return {"value": work()}
    except BaseException as error:  # noqa: BLE001 - it is the candidate's own, SystemExit too
        return {"error": describe(error)}


def _module(name: str) -> dict[str, Any]:
    module = types.ModuleType(name)
    sys.modules[name] = module
    return vars(module)
