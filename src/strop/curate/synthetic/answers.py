"""Answers of an engine to prompts: asked once, kept, and counted with what they cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from strop.curate.synthetic.journal import AnswerJournal
from strop.engines.draws import DrawKey
from strop.engines.engine import Engine, PromptedTask, Request, Sampling
from strop.errors import ModelError, UnscoredError, UsageError
from strop.files import SHORT, sha256_hex
from strop.recipe.requests import PricesRecipe
from strop.text.script import tools_of
from strop.types import FAILED, Answer, Completion, Task, Usage

MILLION = 1_000_000

OnAnswer = Callable[[int], None]
"""Called with the number of answers that have come since the last call."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """An answer and what it was drawn with: `Drawn(Answer("x = 3", "stop"), DrawKey(0, "synthetic",
    prompt="9f86d081884c7d65", index=2))`."""

    answer: Answer
    key: DrawKey

    def fault(self, *, keep_cut: bool) -> tuple[str, str] | None:
        """Why the answer cannot be used, as kind and reason: it failed, was cut, or is empty."""
        finish = self.answer.finish
        if finish in FAILED:
            return "failed", f"the engine gave no answer ({finish})"
        if finish == "length" and not keep_cut:
            return "cut", "the answer met the token limit"
        if not self.answer.text.strip():
            return "empty", "the answer is empty"
        return None


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt with its answers, in the order of their indices; where the engine cannot be asked
    there are none, and `refused` says why: `Asked(task, (), "the longest prompt ...")`."""

    task: Task
    drawn: tuple[Drawn, ...]
    refused: str = ""


@dataclass(slots=True)
class Cost:
    """What answers cost: `Cost(answers=800, prompt_tokens=96000, completion_tokens=51200)`.

    `answers` are all that were used, whenever they were given, and `uncounted` those among them
    whose tokens nobody counted; `asked` are those that this run had to ask for.
    """

    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    asked: int = 0

    def add(self, usage: Usage | None) -> None:
        self.answers += 1
        if usage is None:
            self.uncounted += 1
        else:
            self.prompt_tokens += usage.prompt
            self.completion_tokens += usage.completion

    def money(self, prices: PricesRecipe | None) -> float | None:
        """What the counted tokens cost, where there are prices."""
        if prices is None:
            return None
        spent = self.prompt_tokens * prices.prompt + self.completion_tokens * prices.completion
        return round(spent / MILLION, 6)

    def plain(self, prices: PricesRecipe | None) -> dict[str, Any]:
        """For a manifest: the same whether a run was interrupted or not."""
        counted = {name: value for name, value in asdict(self).items() if name != "asked"}
        return {**counted, "money": self.money(prices)}


class Answers:
    """Asks an engine, but for what the journal holds.

    An answer that failed is not kept: it is asked for again when the run is started again.
    """

    def __init__(
        self,
        engine: Engine,
        sampling: Sampling,
        seed: int,
        journal: AnswerJournal,
        on_answer: OnAnswer = lambda count: None,
    ) -> None:
        self.engine, self.sampling, self.seed = engine, sampling, seed
        self.journal, self.on_answer = journal, on_answer
        self.cost = Cost()
        self._given = 0

    def ask(self, tasks: Sequence[Task], count: int = 1, *, round: int = 0) -> list[Asked]:
        """`count` answers to every prompt, in order.

        `round` tells draws of one prompt apart. A prompt that the engine cannot be asked (too long
        for the model, not renderable) is refused by itself. Raises `UnscoredError` where the engine
        has not given one answer yet and none came of all these prompts.
        """
        requests = [self._requests(task, count, round, first)
                    for task, first in zip(tasks, _repeats(tasks, count), strict=True)]  # fmt: skip
        found: dict[DrawKey, Answer] = {}
        for request in (one for group in requests for one in group):
            if kept := self.journal.get(self.journal.key(request)):
                found[request.key] = kept
        self.on_answer(len(found))
        open_places = [
            n for n, group in enumerate(requests) if any(r.key not in found for r in group)
        ]
        prompts = self._prompted([tasks[n] for n in open_places])
        refused = {
            n: prompt.problem
            for n, prompt in zip(open_places, prompts, strict=True)
            if isinstance(prompt, UsageError)
        }
        wanted = [
            replace(request, prompt=prompt)
            for n, prompt in zip(open_places, prompts, strict=True)
            if not isinstance(prompt, UsageError)
            for request in requests[n]
            if request.key not in found
        ]
        self._ask(wanted, found)
        self._expect_some(found, refused, len(wanted))
        return [self._asked(task, group, found, refused.get(n, ""))
                for n, (task, group) in enumerate(zip(tasks, requests, strict=True))]  # fmt: skip

    def _requests(self, task: Task, count: int, round: int, first: int) -> list[Request]:
        key = DrawKey(self.seed, "synthetic", round=round, prompt=prompt_hash(task))
        prompt = PromptedTask(task, ())
        return [
            Request(prompt, self.sampling, replace(key, index=index))
            for index in range(first, first + count)
        ]

    def _prompted(self, tasks: Sequence[Task]) -> list[PromptedTask | UsageError]:
        """The prompts as the engine writes them, or why it cannot, prompt by prompt."""
        if not tasks:
            return []
        try:
            return list(self.engine.prompted(tasks, self.sampling))
        except ModelError:
            raise
        except UsageError as error:
            if len(tasks) == 1:
                return [error]
        return [one for task in tasks for one in self._prompted([task])]

    def _ask(self, wanted: Sequence[Request], found: dict[DrawKey, Answer]) -> None:
        for number, answer in self.engine.generate(wanted) if wanted else ():
            request = wanted[number]
            self.cost.asked += 1
            if isinstance(answer, Completion) and answer.usage is None:
                usage = Usage(len(request.prompt.prompt_ids), len(answer.ids))
                answer = replace(answer, usage=usage)
            if answer.finish not in FAILED:
                answer = self.journal.add(self.journal.key(request), answer)
            found[request.key] = answer
            self.on_answer(1)
        lost = sum(request.key not in found for request in wanted)
        if lost:
            raise UsageError(f"the engine left {lost} of {len(wanted)} requests without an answer",
                             fix="let `generate` yield every request's index once")  # fmt: skip

    def _expect_some(
        self, found: dict[DrawKey, Answer], refused: dict[int, str], wanted: int
    ) -> None:
        self._given += sum(answer.finish not in FAILED for answer in found.values())
        if self._given:
            return
        if refused and not wanted:
            raise UsageError(f"none of the prompts can be asked: {next(iter(refused.values()))}",
                             fix="try another engine, or shorter prompts")  # fmt: skip
        raise UnscoredError("the engine gave no answer to any prompt",
                            fix="look at the warnings, and try one prompt by hand")  # fmt: skip

    def _asked(
        self, task: Task, group: Sequence[Request], found: dict[DrawKey, Answer], refused: str
    ) -> Asked:
        if refused:
            return Asked(task, (), refused)
        drawn = tuple(Drawn(found[request.key], request.key) for request in group)
        for one in drawn:
            self.cost.add(one.answer.usage)
        return Asked(task, drawn)


def prompt_hash(task: Task) -> str:
    """What a prompt is called in draw keys: a hash of its content, wherever it stands."""
    asked = [task.prompt, tools_of(task.columns.get("tools"))]
    return sha256_hex(json.dumps(asked, sort_keys=True, default=str), SHORT)


def _repeats(tasks: Sequence[Task], count: int) -> list[int]:
    """The first index of every prompt: one that comes again counts on, for other answers."""
    seen: Counter[str] = Counter()
    firsts = []
    for task in tasks:
        name = prompt_hash(task)
        firsts.append(seen[name])
        seen[name] += count
    return firsts
