"""math-verify in a process that can be killed: its own time limits need the main thread's alarm."""

from __future__ import annotations

import json
import logging
import re
import resource
import sys
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

READ = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())

MEMORY = 2 * 2**30
"""Bytes a comparison may use: `10^{10^{10}}` would take them all."""


def equal(said: str, gold: str) -> bool:
    """Whether two answers are the same mathematics; what cannot be read equals nothing."""
    right = _parsed(gold)
    return bool(right) and bool(verify(right, _parsed(said), timeout_seconds=None))


def _parsed(answer: str) -> list[Any]:
    """An answer as math-verify reads it: as LaTeX, sets with their braces escaped."""
    bare = answer.strip().strip("$").strip()
    bare = re.sub(r"^\{(.*)\}$", r"\\{\1\\}", bare, flags=re.DOTALL)
    return list(parse(rf"\boxed{{{bare}}}", READ, parsing_timeout=None))


def main() -> None:
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps({"equal": equal(asked["said"], asked["gold"])}), flush=True)


if __name__ == "__main__":
    main()
