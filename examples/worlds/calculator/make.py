"""Writes the calculator world.

    python -m examples.worlds.calculator.make --out DIR --seed 0

Half of the demonstrations with the tool guess instead of calling it, and of the calls a third has
the wrong sign. Demonstrations without the tool are all right: nothing more can be shown.
"""

from __future__ import annotations

import random
from pathlib import Path

from examples.worlds.base import Row, calls, main, says, tool, user
from examples.worlds.calculator.env import Calculator

TOOL = tool(
    "calculate",
    "Work out one operation.",
    a=("integer", "The first number."),
    op=("string", "One of + - *."),
    b=("integer", "The second number."),
)
SIGNS = "+-*"
GUESSES, WRONG_SIGNS = 0.5, 0.3
SHOWN, TRAINED, HELD_OUT = 4000, 400, 100


def answer(text: object) -> Row:
    return says(f"<answer>{text}</answer>")


def tables(seed: int) -> dict[str, list[Row]]:
    draw = random.Random(f"calculator {seed}")
    problems: dict[tuple[int, str, int], None] = {}
    while len(problems) < SHOWN + TRAINED + HELD_OUT:
        problem = (draw.randint(100, 999), draw.choice(SIGNS), draw.randint(100, 999))
        problems[problem] = None
    with_tool, direct, tasks = [], [], []
    for n, (a, op, b) in enumerate(problems):
        prompt = [user(f"What is {a} {op} {b}?")]
        right = Calculator().calculate(a, op, b)
        if n >= SHOWN:
            tasks.append({"prompt": prompt, "answer": right})
            continue
        direct.append({"prompt": prompt, "completion": [answer(right)]})
        if draw.random() < GUESSES:
            shown = [answer(draw.randint(10, 999999))]
        else:
            sign = draw.choice(SIGNS) if draw.random() < WRONG_SIGNS else op
            result = Calculator().calculate(a, sign, b)
            shown = [*calls("calculate", result, a=a, op=sign, b=b), answer(result)]
        with_tool.append({"prompt": prompt, "completion": shown, "tools": [TOOL]})
    return {
        "sft": with_tool,
        "direct": direct,
        "tasks": tasks[:TRAINED],
        "held": tasks[TRAINED:],
    }


if __name__ == "__main__":
    main(Path(__file__).parent, tables)
