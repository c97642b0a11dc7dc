"""Builds right and wrong completions of a task, from labelled completions or the gold answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from strop.recipe.train.reward import RewardComponent
from strop.rewards.answer.number import value_of
from strop.rewards.answer.read import final_answer, stated_answer
from strop.rewards.audit.attacks import Pair
from strop.rewards.audit.sample import LabelledCompletion
from strop.text.parse import plain
from strop.types import Task


def pairs_from_labels(said: Sequence[LabelledCompletion]) -> list[Pair]:
    """One pair for every prompt that has both a liked and a disliked completion, with bare answers
    if the liked one contains the column `answer`."""
    sides: dict[str, dict[bool, LabelledCompletion]] = {}
    for one in said:
        if one.label is not None:
            sides.setdefault(json.dumps(one.task.prompt), {}).setdefault(one.label > 0.5, one)
    return [_labelled(both[True], both[False]) for both in sides.values() if len(both) == 2]


def _labelled(liked: LabelledCompletion, disliked: LabelledCompletion) -> Pair:
    right, wrong = plain(liked.completion), plain(disliked.completion)
    text = str(liked.task.columns.get("answer") or "")
    gold, other = stated_answer(text) or text, final_answer(wrong)
    if not gold or gold not in right or other is None:
        return Pair(liked.task, right, wrong)
    return Pair(liked.task, right, wrong, gold, other)


def pairs_from_golds(components: Sequence[RewardComponent], tasks: Sequence[Task]) -> list[Pair]:
    """Pairs written from the column that the first component reads; none unless that component is a
    built-in verifier with a known answer."""
    primary = components[0]
    if primary.function not in WRITERS or primary.file is not None or primary.url is not None:
        return []
    tags = [tag for c in components if c.function == "format_tags"
            for tag in c.options.get("tags", ("answer",))]  # fmt: skip
    made = (WRITERS[primary.function](task, tags) for task in tasks)
    return [pair for pair in made if pair is not None]


def _answer(task: Task, tags: Sequence[str]) -> Pair | None:
    text = str(task.columns.get("answer") or "")
    gold = (stated_answer(text) or text).strip()
    if not gold:
        return None
    other = _another(gold)
    return Pair(task, _written(gold, tags), _written(other, tags), gold, other)


def _another(gold: str) -> str:
    """An answer that is not the gold one."""
    value = value_of(gold)
    return "none of these" if value is None else str(value + 1)


def _written(answer: str, tags: Sequence[str]) -> str:
    """A short solution with every tag that the format requires."""
    thought = "".join(f"<{t}>Let me see.</{t}>\n" for t in tags if t != "answer")
    return f"{thought or 'Let me see.'}<answer>{answer}</answer>"


def _code(task: Task, tags: Sequence[str]) -> Pair | None:
    solution = task.columns.get("solution") or task.columns.get("canonical_solution")
    if not solution:
        return None
    name = str(task.columns.get("entry_point") or "solution")
    wrong = f"```python\ndef {name}(*args, **kwargs):\n    raise NotImplementedError\n```"
    return Pair(task, str(solution), wrong)


def _tools(task: Task, tags: Sequence[str]) -> Pair | None:
    answer = task.columns.get("answer")
    calls = json.loads(answer) if isinstance(answer, str) else answer
    if not calls:
        return None
    right = [_call(call) for call in (calls if isinstance(calls, list) else [calls])]
    wrong = [{**right[0], "name": f"{right[0]['name']}_other"}, *right[1:]]
    return Pair(task, json.dumps(right), json.dumps(wrong))


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """A call with the first value that each argument accepts."""
    if isinstance(call.get("name"), str):
        return {"name": call["name"], "arguments": call.get("arguments", {})}
    ((name, accepted),) = call.items()
    chosen = {key: _first(values) for key, values in accepted.items() if "" not in values}
    return {"name": name, "arguments": chosen}


def _first(values: Any) -> Any:
    """The first accepted value; in nested objects every value is again a list of accepted
    values."""
    value = values[0] if isinstance(values, list) else values
    if isinstance(value, dict):
        return {k: _first(v) for k, v in value.items() if v and "" not in v}
    return value


def _json(task: Task, tags: Sequence[str]) -> Pair | None:
    example = task.columns.get("answer", task.columns.get("example"))
    if example is None:
        return None
    right = example if isinstance(example, str) else json.dumps(example)
    return Pair(task, right, "I cannot answer in JSON.")


WRITERS: dict[str, Callable[[Task, Sequence[str]], Pair | None]] = {
    "exact_answer": _answer,
    "math_answer": _answer,
    "code_tests": _code,
    "tool_call": _tools,
    "json_schema": _json,
}
"""Writers of a right and a wrong completion for each verifier."""
