"""Samples and refines a study's answers, and stores them so that an interrupted study can
resume."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from strop.engines.build import FolderEngine
from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, in_groups, requests_of, sampling_of
from strop.errors import UsageError
from strop.files import SHORT, sha256_hex, write_rows
from strop.recipe.study import Refine, Study
from strop.text.render import opening, prompts_ids
from strop.text.script import before_answer
from strop.types import Completion, Rollout, Task, Text

AT_ONCE = 32
"""Prompts sampled in one call."""

Side = Literal["base", "model"]


@dataclass(frozen=True, slots=True)
class Draws:
    """The answers of one model at one temperature.

    `Draws("base", 0.7, rounds=([rollout, ...], [rollout, ...]))`: a rollout per item; `rounds[0]`
    holds the answers, `rounds[r]` the r-th revisions of each item's first answers.
    """

    side: Side
    temperature: float
    rounds: tuple[list[Rollout], ...]


def temperatures_of(study: Study) -> list[float]:
    """All temperatures, greedy first."""
    return sorted({0.0, *study.temperatures})


def answers_of(study: Study, items: int) -> int:
    """How many answers of one model a study samples, revisions included."""
    return items * sum(
        _samples(study, t) + sum(_refined(study, t) for _ in range(_rounds(study)))
        for t in temperatures_of(study)
    )


def draws_of(
    study: Study,
    tasks: Sequence[Task],
    engines: Mapping[Side, FolderEngine],
    parts: Path,
    advance: Callable[[int], None],
) -> Iterator[Draws]:
    """Sample every model at every temperature; parts that are already in the folder `parts` are
    read.

    A model is loaded only if one of its parts is missing. `advance` gets the number of answers
    done.
    """
    for side, engine in engines.items():
        prompts = prompts_ids(engine.tokenizer(), tasks)
        for temperature in temperatures_of(study):
            kept = parts / f"{_key(study, engine, prompts, temperature)}.jsonl"
            if not kept.exists():
                writer = _Writer(engine, study, temperature, advance)
                _store(kept, writer.rounds(tasks, prompts))
            else:
                here = _samples(study, temperature) + _rounds(study) * _refined(study, temperature)
                advance(len(tasks) * here)
            yield Draws(side, temperature, _restore(kept, tasks))


class _Writer:
    """One model at one temperature."""

    def __init__(
        self,
        engine: FolderEngine,
        study: Study,
        temperature: float,
        advance: Callable[[int], None],
    ) -> None:
        self.engine, self.study, self.temperature = engine, study, temperature
        self.tokenizer = engine.tokenizer()
        recipe = study.sampling.model_copy(update={"temperature": temperature})
        self.sampling = sampling_of(recipe)
        self.advance = advance

    def rounds(
        self, tasks: Sequence[Task], prompts: Sequence[tuple[int, ...]]
    ) -> list[list[Rollout]]:
        """Answers to all tasks, then their revisions round by round."""
        self._expect_room_for_all(tasks, prompts)
        asked = [
            PromptedTask(task, ids, opening(self.tokenizer, task.prompt, ids))
            for task, ids in zip(tasks, prompts, strict=True)
        ]
        drawn = self._sample(asked, _samples(self.study, self.temperature), 0)
        rounds = [
            [
                Rollout(task, ids, group)
                for task, ids, group in zip(tasks, prompts, drawn, strict=True)
            ]
        ]
        if self.study.refine:
            for number in range(1, self.study.refine.rounds + 1):
                rounds.append(self._revised(self.study.refine, rounds[-1], number))
        return rounds

    def _revised(self, refine: Refine, before: list[Rollout], number: int) -> list[Rollout]:
        count = _refined(self.study, self.temperature)
        asked = [
            self._revision(refine, rollout.task, completion.said)
            for rollout in before
            for completion in rollout.completions[:count]
        ]
        longest = max(len(prompt.prompt_ids) for prompt in asked)
        self._expect_room(longest + self.sampling.max_tokens)
        flat = [group[0] for group in self._sample(asked, 1, number)]
        return [
            Rollout(r.task, r.prompt_ids, tuple(flat[i * count : (i + 1) * count]))
            for i, r in enumerate(before)
        ]

    def _revision(self, refine: Refine, task: Task, said: str) -> PromptedTask:
        """The prompt of a revision; it ends with a user turn."""
        ids = self._ids(revision_prompt(refine, task.prompt, said), task)
        return PromptedTask(task, ids, opening(self.tokenizer, "", ids))

    def _sample(
        self, prompts: Sequence[PromptedTask], group_size: int, number: int
    ) -> list[tuple[Completion, ...]]:
        """`group_size` completions per prompt in round `number`, `AT_ONCE` prompts at a time."""
        key = DrawKey(self.study.seed, "decode", round=number)
        requests = requests_of(prompts, self.sampling, key, group_size)
        done: list[tuple[Completion, ...]] = []
        for start in range(0, len(requests), AT_ONCE * group_size):
            here = requests[start : start + AT_ONCE * group_size]
            done += in_groups(self.engine.generate(here), group_size)
            self.advance(len(here))
        return done

    def _ids(self, prompt: Text, task: Task) -> tuple[int, ...]:
        (ids,) = prompts_ids(self.tokenizer, [replace(task, prompt=prompt)])
        return ids

    def _expect_room_for_all(
        self, tasks: Sequence[Task], prompts: Sequence[tuple[int, ...]]
    ) -> None:
        """Raise before sampling if the longest prompt, or its longest revision, would not fit."""
        longest = max(range(len(prompts)), key=lambda i: len(prompts[i]))
        needed = len(prompts[longest])
        if self.study.refine:
            task = tasks[longest]
            empty = self._ids(revision_prompt(self.study.refine, task.prompt, "-"), task)
            needed = len(empty) + self.sampling.max_tokens
        self._expect_room(needed + self.sampling.max_tokens)

    def _expect_room(self, tokens: int) -> None:
        context = self.engine.context()
        if tokens > context:
            of = "prompt, its answer and a revision" if self.study.refine else "prompt and answer"
            drop = " or drop `refine`" if self.study.refine else ""
            raise UsageError(
                f"the longest {of} may need {tokens} tokens, the model reads {context}",
                fix=f"lower sampling.max_tokens, shorten the prompts{drop}",
            )


def revision_prompt(refine: Refine, prompt: Text, completion: str) -> Text:
    """The question, the model's answer and the instruction, in the form of the question."""
    if not isinstance(prompt, str):
        return [
            *before_answer(prompt),
            {"role": "assistant", "content": completion},
            {"role": "user", "content": refine.instruction},
        ]
    parts = {"prompt": prompt, "completion": completion, "instruction": refine.instruction}
    # in one pass: an answer may hold braces of its own
    return re.sub(r"\{(prompt|completion|instruction)\}", lambda m: parts[m[1]], refine.template)


def _rounds(study: Study) -> int:
    return study.refine.rounds if study.refine else 0


def _samples(study: Study, temperature: float) -> int:
    """Answers per item: one if greedy, because greedy answers are all equal."""
    return study.samples if temperature > 0 else 1


def _refined(study: Study, temperature: float) -> int:
    """Refined answers per item."""
    return min(study.refine.answers, _samples(study, temperature)) if study.refine else 0


def _key(
    study: Study, engine: FolderEngine, prompts: Sequence[tuple[int, ...]], temperature: float
) -> str:
    """Hash of everything that a part's answers depend on; their grading is not included."""
    refine = study.refine.plain() if study.refine else None
    who = engine.identity()
    asked = [who["sha256"], prompts, temperature, _samples(study, temperature),
             study.sampling.plain(), refine, study.seed,
             *([who["engine"]] if "engine" in who else [])]  # fmt: skip
    return sha256_hex(json.dumps(asked), SHORT)


def _store(path: Path, rounds: Sequence[Sequence[Rollout]]) -> None:
    """One line per item and round, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(
        path,
        (
            {"round": number, "prompt_ids": rollout.prompt_ids, "drawn": _drawn(rollout)}
            for number, rollouts in enumerate(rounds)
            for rollout in rollouts
        ),
    )


def _drawn(rollout: Rollout) -> list[dict[str, Any]]:
    return [
        {"ids": c.ids, "text": c.text, "finish_reason": c.finish, "opened": c.opened}
        for c in rollout.completions
    ]


def _restore(path: Path, tasks: Sequence[Task]) -> tuple[list[Rollout], ...]:
    rounds: dict[int, list[Rollout]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        done = rounds.setdefault(row["round"], [])
        completions = tuple(_completion(kept) for kept in row["drawn"])
        done.append(Rollout(tasks[len(done)], tuple(row["prompt_ids"]), completions))
    return tuple(rounds.values())


def _completion(kept: Mapping[str, Any]) -> Completion:
    """A stored completion, whose log-probs were not kept."""
    made = Completion.one_turn(kept["ids"], kept["text"], None, kept["finish_reason"])
    return replace(made, opened=kept["opened"])
