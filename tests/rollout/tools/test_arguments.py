"""What a checker says of a call is short, and the same in every process."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from strop.rollout.tools.arguments import LONGEST, SHOWN, Arguments
from strop.text.tools import Call

NUMBERS = {"a": {"type": "integer"}, "b": {"type": "integer"}}
TOOL: Any = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": NUMBERS}},
}


def test_mistakes_repeat_little_of_what_was_written() -> None:
    arguments = Arguments([TOOL])
    for call in (
        Call("add", {"a": "y" * 50_000}),
        Call("add", {"y" * 50_000: 1}),
        Call("y" * 50_000, {}),
        Call("add", dict.fromkeys(map(str, range(5_000)), 1)),
    ):
        mistake = arguments.mistake(call)
        assert mistake is not None
        assert len(mistake.text) < SHOWN * (LONGEST + 100)
    mistake = arguments.mistake(Call("add", {"a": "y" * 50_000}))
    assert mistake is not None
    assert 'is not of type "integer"' in mistake.text


def test_foreign_arguments_are_told_in_the_order_in_which_they_were_given() -> None:
    """Sets of texts have another order in every process, and a run is to repeat to the bit."""
    program = (
        "from strop.rollout.tools.arguments import Arguments; from strop.text.tools import Call;"
        f"print(Arguments([{TOOL!r}]).mistake(Call('add', dict.fromkeys('zyxwv', 1))).text)"
    )
    path = ":".join(sys.path)
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    (text,) = texts
    assert text.index("'z'") < text.index("'y'") < text.index("'x'")
    assert "and 2 more" in text
