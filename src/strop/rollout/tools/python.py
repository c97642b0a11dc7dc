"""Programs of the policy in the sandbox, as a tool."""

from __future__ import annotations

import asyncio
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from strop.errors import SandboxError
from strop.recipe.train.tools import PythonToolRecipe
from strop.rollout.environment import FaultError
from strop.rollout.tools.kit import Stateless, described
from strop.rollout.tools.said import cut, readable
from strop.rollout.tools.toolbox import ToolResult, told
from strop.sandbox.client import Printed, Sandbox
from strop.sandbox.confine.jail import Limits
from strop.sandbox.tiers import start, strongest
from strop.text.tools import Call

WALL_FACTOR = 3.0
"""Seconds by the wall clock for each of CPU time."""
TRIES = 3
"""New sandboxes that are started for a program whose sandbox ended."""
BYTES = 4
"""Of a character, at most."""

PROGRAM = """
import ast, sys, traceback
sys.stderr = sys.stdout
names = {{"__name__": "__main__"}}
try:
    tree = ast.parse({code!r}, "program.py")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "program.py", "exec"), names)
    if last is not None:
        exec(compile(ast.Interactive([last]), "program.py", "single"), names)
except Exception as error:
    within = error.__traceback__ and error.__traceback__.tb_next
    traceback.print_exception(type(error), error, within)
    raise SystemExit(1)
"""
"""The program of the policy, with its errors among what it prints. The value of a last expression
is shown as in a notebook: many models have learnt to write programs so."""

SLOW = ("it used more", "it took longer")
"""How the sandbox says that a program's time was over."""


class PythonTool:
    """A tool `python(code)`. Raises `SandboxError` where no sandbox holds."""

    def __init__(self, recipe: PythonToolRecipe) -> None:
        self.options = recipe.python
        self.tools: list[dict[str, Any]] = [described(
            self.options.name,
            "Runs a Python program and returns what it prints, and the value of its last line if "
            "that is an expression. Nothing is kept between programs, and there is no network.",
            {"type": "object", "required": ["code"],
             "properties": {"code": {"type": "string", "description": "The program."}}},
        )]  # fmt: skip
        self._tier = strongest()
        self._limits = Limits(
            seconds=self.options.seconds,
            wall=WALL_FACTOR * self.options.seconds,
            memory=self.options.memory_mb * 2**20,
            output=BYTES * self.options.longest,
        )
        count = os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(count, "python-tool")
        self._sandboxes: SimpleQueue[Sandbox | None] = SimpleQueue()
        for _ in range(count):
            self._sandboxes.put(None)

    def seat(self) -> Stateless:
        return Stateless(self.call)

    async def call(self, call: Call) -> ToolResult:
        loop = asyncio.get_running_loop()
        try:
            printed = await loop.run_in_executor(self._threads, self._run, call.arguments["code"])
        except SandboxError as error:
            raise FaultError(str(error)) from None
        return self._result(printed)

    def _result(self, printed: Printed) -> ToolResult:
        said = cut(readable(printed.output).rstrip("\n"), self.options.longest)
        before = f"\nIt had printed:\n{said}" if said else ""
        if printed.killed:
            kind = "hung" if printed.killed.startswith(SLOW) else "crashed"
            return told(kind, f"the program was stopped: {printed.killed}{before}")
        if printed.status < 0:
            return told("crashed", f"the program ended by signal {-printed.status}{before}")
        if printed.status > 0:
            return ToolResult(said or f"The program ended with status {printed.status}.", "raised")
        return ToolResult(said or "The program printed nothing: print what you want to see.")

    def _run(self, code: str) -> Printed:
        """In a thread: a program in a sandbox that nobody else uses meanwhile. Raises
        `SandboxError`."""
        sandbox = self._sandboxes.get()
        try:
            for left in range(TRIES, -1, -1):
                try:
                    sandbox = sandbox or start(self._tier)
                    return sandbox.run_program(PROGRAM.format(code=code), "", self._limits)
                except SandboxError:  # it has closed itself
                    sandbox = None
                    if not left:
                        raise
            raise AssertionError("the last try ends in one of the above")
        finally:
            self._sandboxes.put(sandbox)

    async def close(self) -> None:
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        while not self._sandboxes.empty():
            sandbox = self._sandboxes.get()
            if sandbox is not None:
                with contextlib.suppress(SandboxError):
                    sandbox.close()
