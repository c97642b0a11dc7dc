"""Picks among answers without knowing the right one: does the sum that is written hold?"""

import re

SUM = re.compile(r"(\d+) ([+-]) (\d+) = (-?\d+)")


def holds(prompts, completions, **columns):
    """1 where the answer is one sum, and the sum is true."""
    return [float(_holds(said(one))) for one in completions]


def _holds(text):
    found = SUM.findall(text)
    if len(found) != 1:
        return False
    a, sign, b, result = found[0]
    return (int(a) + int(b) if sign == "+" else int(a) - int(b)) == int(result)


def said(completion):
    return completion if isinstance(completion, str) else completion[-1]["content"]
