"""A taskset of verifiers: two numbers are added, with a tool. Also its tool server:
`python -m adding`."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

import verifiers.v1 as vf
from verifiers.v1.harnesses.null.harness import NullHarness
from verifiers.v1.harnesses.utils.launch import CHAT_PROGRAM_SOURCE
from verifiers.v1.runtimes.subprocess import SubprocessRuntime
from verifiers.v1.utils.decorators import metric, reward, tool

__all__ = ["Adding", "AnsweringHarness"]


class Sum(vf.TaskData):
    a: int
    b: int


class Calculator(vf.Toolset[vf.ToolsetConfig]):
    TOOL_PREFIX: ClassVar[str | None] = None

    @tool
    def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        return a + b


class Add(vf.Task[Sum]):
    @reward
    async def right(self, trace: vf.Trace) -> float:
        return float(str(self.data.a + self.data.b) in trace.last_reply)

    @reward(weight=0.25)
    async def by_tool(self, trace: vf.Trace) -> float:
        return float(bool(trace.tool_messages))

    @metric
    async def words(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply.split()))

    @classmethod
    def toolsets(cls, config: Any) -> list[vf.Toolset]:
        return [Calculator(vf.ToolsetConfig())]


class Adding(vf.Taskset[Add]):
    def load(self) -> Iterator[Add]:
        for a, b in ((2, 3), (4, 4)):
            yield Add(Sum(prompt=f"What is {a} + {b}?", a=a, b=b), self.config.task)


class AnsweringHarness(NullHarness):
    """The chat program of verifiers' harness `null`, run by this Python, which has what the program
    needs: verifiers itself would fetch it."""

    async def setup(self, runtime: vf.Runtime) -> None:
        """There is nothing to fetch."""

    async def launch(self, ctx: Any, trace: vf.Trace, runtime: Any, *rest: Any, **more: Any) -> Any:
        assert isinstance(runtime, SubprocessRuntime)
        file = f"{uuid.uuid4().hex}.py"
        await runtime.write(file, CHAT_PROGRAM_SOURCE.encode())

        async def prepared(*_: Any, **__: Any) -> list[str]:
            return [sys.executable, file]

        runtime.prepare_uv_script = prepared
        return await super().launch(ctx, trace, runtime, *rest, **more)


if __name__ == "__main__":
    Calculator.run()
