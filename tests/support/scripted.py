"""An engine with planned answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from strop.engines.engine import PromptedTask, Request, Sampling
from strop.errors import UsageError
from strop.text.parse import plain
from strop.types import Answer, Task
from tests.support.runs import Stop

Say = Callable[[str, int], str | Answer]
"""(words of the prompt, index of the draw) -> the answer."""


class Scripted:
    """Says what `say` does, the last request first; `asked` are (prompt, index) of every request.

    It breaks off before it has answered more than `most`, and cannot be asked a prompt that holds
    the word `unaskable`.
    """

    def __init__(self, say: Say, *, most: int = 1_000_000) -> None:
        self.say, self.most = say, most
        self.asked: list[tuple[str, int]] = []

    def identity(self) -> Mapping[str, Any]:
        return {"scripted": "yes"}

    def with_template(self, template: object) -> Scripted:
        return self

    def prompted(self, tasks: Sequence[Task], sampling: Sampling) -> list[PromptedTask]:
        if any("unaskable" in plain(task.prompt) for task in tasks):
            raise UsageError("the longest prompt is too long")
        return [PromptedTask(task, ()) for task in tasks]

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        for number in reversed(range(len(requests))):
            request = requests[number]
            if len(self.asked) == self.most:
                raise Stop
            words = plain(request.prompt.task.prompt)
            self.asked.append((words, request.key.index))
            said = self.say(words, request.key.index)
            yield number, said if isinstance(said, Answer) else Answer(said, "stop")

    def score(self, trees: Sequence[Any]) -> NoReturn:
        raise AssertionError("nothing is scored")

    def choose(self, prompts: Sequence[PromptedTask], options: Sequence[str]) -> NoReturn:
        raise AssertionError("nothing is chosen")

    def publish(self, weights: Mapping[str, Any]) -> NoReturn:
        raise AssertionError("nothing is published")

    def policy(self) -> NoReturn:
        raise AssertionError("there is no model")
