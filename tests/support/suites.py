"""A small suite over equations."""

from __future__ import annotations

from collections.abc import Callable

from strop.demo.world import user
from strop.recipe.suite import Suite
from tests.support.runs import EQUATIONS

TASKS = [{"id": f"q{n}", "prompt": user(e), "answer": str(e.x), "topic": "even" if e.x % 2 == 0
          else "odd"} for n, e in enumerate(EQUATIONS[:12])]  # fmt: skip


SCORES = [{"function": "exact_answer", "name": "right"}]


GENERATE = {"kind": "generate", "name": "greedy", "data": "tasks.jsonl", "scores": SCORES,
            "sampling": {"temperature": 0.0, "max_tokens": 6}, "slices": ["topic"]}  # fmt: skip


SAMPLED = {**GENERATE, "name": "sampled", "samples": 3,
           "sampling": {"temperature": 1.0, "max_tokens": 6}}  # fmt: skip


PAIRS = {"kind": "preference", "name": "edits", "data": "pairs.jsonl"}


MakeSuite = Callable[..., Suite]
