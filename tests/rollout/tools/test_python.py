"""The policy's programs in the sandbox: what they print, and whose doing their end is."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from strop.errors import SandboxError
from strop.recipe.train.environment import ToolsEnvironmentRecipe
from strop.rollout.environment import FaultError
from strop.rollout.tools import python
from strop.rollout.tools.combined import CombinedToolboxes
from strop.rollout.tools.toolbox import ToolResult
from strop.text.tools import Call


def test_what_a_program_prints_is_told(made: Any) -> None:
    tools = made({"python": {}})
    assert tools.boxes.tools[0]["function"]["name"] == "python"
    results = tools.ask(*(Call("python", {"code": f"print({n} ** 40)"}) for n in (7, 8)))
    assert results == [ToolResult(str(7**40)), ToolResult(str(8**40))]
    silent = tools.one("python", code="x = 1")
    assert silent == ToolResult("The program printed nothing: print what you want to see.")
    assert tools.one("python", code="from __future__ import annotations\nprint(__name__)") == (
        ToolResult("__main__")
    )


@pytest.mark.parametrize(("code", "said"), [
    ("2 ** 70", str(2**70)),
    ("x = 3\nx * 'ab'", "'ababab'"),
    ("print('first')\n[1, 2]", "first\n[1, 2]"),
    ("None", "The program printed nothing: print what you want to see."),
    ("[1]\ny = 2", "The program printed nothing: print what you want to see."),
    ("'{braces} % \\n'", repr("{braces} % \n")),
])  # fmt: skip
def test_the_value_of_a_last_expression_is_told(made: Any, code: str, said: str) -> None:
    assert made({"python": {}}).one("python", code=code) == ToolResult(said)


def test_an_error_in_a_last_expression_is_one_of_the_program(made: Any) -> None:
    failed = made({"python": {}}).one("python", code="x = 0\n1 / x")
    assert failed == ToolResult(
        "Traceback (most recent call last):\n"
        '  File "program.py", line 2, in <module>\nZeroDivisionError: division by zero',
        "raised",
    )


def test_an_error_is_told_as_python_tells_it(made: Any) -> None:
    tools = made({"python": {}})
    failed = tools.one("python", code="print('so far')\n\n1 / 0")
    assert failed.error == "raised"
    assert failed.text == (
        "so far\nTraceback (most recent call last):\n"
        '  File "program.py", line 3, in <module>\nZeroDivisionError: division by zero'
    )
    broken = tools.one("python", code="print(")
    assert broken.error == "raised"
    assert broken.text.endswith("SyntaxError: '(' was never closed")
    assert tools.one("python", code="raise SystemExit(0)").error == ""
    assert tools.one("python", code="raise SystemExit(2)") == ToolResult(
        "The program ended with status 2.", "raised"
    )


def test_nothing_is_left_for_the_next_program(made: Any) -> None:
    tools = made({"python": {}})
    tools.one("python", code="x = 1; open('kept', 'w').write('1')")
    assert "NameError" in tools.one("python", code="print(x)").text
    assert "FileNotFoundError" in tools.one("python", code="print(open('kept').read())").text


def test_a_program_that_hangs_or_crashes_is_told_so(made: Any) -> None:
    tools = made({"python": {"seconds": 0.5, "longest": 100, "memory_mb": 256}})
    hung = tools.one("python", code="print('before', flush=True)\nwhile True: pass")
    assert hung.error == "hung"
    assert "before" in hung.text
    crashed = tools.one("python", code="import ctypes\nctypes.string_at(0)")
    assert crashed.error == "crashed"
    assert "signal 11" in crashed.text
    flood = tools.one("python", code="while True: print('x' * 1000)")
    assert flood.error == "crashed"
    assert len(flood.text) < 400
    assert "MemoryError" in tools.one("python", code="x = bytes(10 ** 9)").text
    assert tools.one("python", code="print(3)") == ToolResult("3")


def test_a_sandbox_that_ends_is_replaced(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    tools = made({"python": {}})
    assert tools.one("python", code="print(1)") == ToolResult("1")
    (kit,) = tools.boxes._kits
    sandbox = kit._sandboxes.get()
    kit._sandboxes.put(sandbox)
    os.kill(sandbox.pid, signal.SIGKILL)
    assert tools.one("python", code="print(2)") == ToolResult("2")


def test_without_a_sandbox_it_is_the_machines_fault(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def falls(tier: str) -> None:
        raise SandboxError("no wall")

    tools = made({"python": {}})
    monkeypatch.setattr(python, "start", falls)
    with pytest.raises(FaultError, match="no wall"):
        tools.one("python", code="print(1)")
    monkeypatch.setattr(python, "strongest", lambda: falls("none"))
    recipe = ToolsEnvironmentRecipe.model_validate({"tools": [{"python": {}}]})
    with pytest.raises(SandboxError, match="no wall"):
        CombinedToolboxes(recipe)
