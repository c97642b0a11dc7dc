"""A small recipe of every method with its data, for exports to other systems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strop.advise.elsewhere.carried import Export
from strop.advise.elsewhere.table import export
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.methods import METHODS, Recipe
from tests.support.runs import write_jsonl

Values = dict[str, Any]

QUESTIONS = ["Solve 2x = 6", "Löse 3x = 9 für x", "求解 5x = 10", "2x = 8?\nSay it 🙂",
             "x - 1 = 0", "x / 2 = 4", "7 = x", "0 = x + 2"]  # fmt: skip
"""Eight prompts in several scripts."""


def user(text: str) -> list[Values]:
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[Values]:
    return [{"role": "assistant", "content": text}]


def chat_rows(kind: str) -> list[Values]:
    """Eight records of messages."""
    rows: dict[str, Any] = {
        "document": lambda n, q: {"text": f"{q} {n}"},
        "demonstration": lambda n, q: {"prompt": user(q), "completion": assistant(f"x = {n} ✓")},
        "preference": lambda n, q: {"prompt": user(q), "chosen": assistant(f"x = {n}"),
                                    "rejected": assistant("I do not know"), "gap": n / 2},
        "feedback": lambda n, q: {"prompt": user(q), "completion": assistant(f"x = {n}"),
                                  "label": n % 2 == 0},
        "task": lambda n, q: {"prompt": user(q), "answer": str(n)},
    }  # fmt: skip
    return [rows[kind](n, q) for n, q in enumerate(QUESTIONS, start=1)]


def text_rows(kind: str) -> list[Values]:
    """The same as plain texts."""

    def plain(value: Any) -> Any:
        return value[0]["content"] if isinstance(value, list) else value

    return [{name: plain(value) for name, value in row.items()} for row in chat_rows(kind)]


def values_of(method: str, folder: Path, **more: Any) -> Values:
    """A recipe of this method over eight records in `folder`."""
    row = METHODS[method]
    path = folder / f"{row.records}.jsonl"
    if not path.exists():
        write_jsonl(path, chat_rows(row.records))
    values: Values = {
        "method": method,
        "output": str(folder / "run"),
        "model": {"path": "org/model"},
        "data": str(path),
        "optim": {"learning_rate": 1e-6},
        "run": {"epochs": 2, "batch_size": 4},
    }
    if "teacher" in row.recipe.model_fields:
        values["teacher"] = "org/teacher"
    elif row.records == "task":
        values["reward"] = [{"function": "exact_answer"}]
    if method == "ppo":
        values["value"] = {"path": "org/critic", "learning_rate": 1e-5}
    return values | more


def recipe_of(method: str, folder: Path, **more: Any) -> Recipe:
    return load_recipe(values_of(method, folder, **more))


TEXT_ONLY = {("kto", "axolotl")}
"""axolotl reads thumbs as plain texts only."""


def exported(method: str, system: str, folder: Path, **more: Any) -> Export:
    if (method, system) in TEXT_ONLY:
        write_jsonl(folder / "feedback.jsonl", text_rows("feedback"))
    if (method, system) == ("mpo", "llamafactory"):
        more = {"objective": {"losses": {"dpo": 0.8, "bco_pair": 0.2}}, **more}
    return export(recipe_of(method, folder, **more), system)


def changed(values: Values, key: str, value: Any) -> Values:
    """The values with another one at a dotted key."""
    name, _, rest = key.partition(".")
    if not rest:
        return {**values, name: value}
    inner = values.get(name) or {}
    assert isinstance(inner, Mapping)
    return {**values, name: changed(dict(inner), rest, value)}
