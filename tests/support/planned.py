"""An engine that answers as a test says, and what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from typer.testing import CliRunner

from strop.cli.app import app
from strop.engines.engine import PromptedTask, Request, Sampling
from strop.recipe.template import TemplateRecipe
from strop.types import Answer, Task, Tree

Script = Callable[[Task, int], str]
"""What is said to a task as its answer number so and so."""


class ScriptedEngine:
    """Says what the script says; `asked` are (prompt, number) of all requests so far."""

    def __init__(self, script: Script, name: str = "scripted") -> None:
        self.script, self.name = script, name
        self.asked: list[tuple[Any, int]] = []

    def identity(self) -> Mapping[str, Any]:
        return {"scripted": self.name}

    def with_template(self, template: TemplateRecipe) -> ScriptedEngine:
        return self

    def prompted(self, tasks: Sequence[Task], sampling: Sampling) -> list[PromptedTask]:
        return [PromptedTask(task, ()) for task in tasks]

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        for number, request in reversed(list(enumerate(requests))):
            self.asked.append((request.prompt.task.prompt, request.key.index))
            text = self.script(request.prompt.task, request.key.index)
            yield number, Answer(text, "length" if text.endswith("...") else "stop")

    def score(self, trees: Sequence[Tree]) -> NoReturn:
        raise NotImplementedError

    def choose(self, prompts: Sequence[Any], options: Sequence[str]) -> NoReturn:
        raise AssertionError("nothing is chosen")

    def publish(self, weights: Mapping[str, torch.Tensor]) -> NoReturn:
        raise NotImplementedError

    def policy(self) -> NoReturn:
        raise NotImplementedError


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def strop(*args: object) -> str:
    """What a command prints; raises what it raises."""
    result = CliRunner().invoke(app, list(map(str, args)))
    if result.exception is not None:
        raise result.exception
    return result.output
