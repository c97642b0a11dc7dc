"""Several answers to every prompt, scored by a reward: what best-of, rejection sampling and
distilling share."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from strop.curate.synthetic.answers import Drawn
from strop.curate.synthetic.generation import (
    Generated,
    Generation,
    Inputs,
    Target,
    answer_text,
    columns_with,
    generated,
    generating,
    prompt_text,
    rows_in,
    sources,
)
from strop.curate.synthetic.templates import template_of
from strop.engines.engine import Engine
from strop.errors import RecipeError, UnscoredError
from strop.files import SHORT, sha256_hex
from strop.recipe.synthetic import ScoredRecipe
from strop.rewards.compose import Reward
from strop.text.templates import PromptTemplate
from strop.types import Answered, Demonstration, Failure, Record, Score, Task


@dataclass(frozen=True, slots=True)
class ScoredPrompt:
    """A prompt with those of its answers that have a score.

    `ScoredPrompt(task, drawn=(d0, d1), totals=(1.0, 0.0), scores=(Score(1.0, {...}), ...))`
    """

    task: Task
    drawn: tuple[Drawn, ...]
    scores: tuple[Score, ...]
    totals: tuple[float, ...]

    def said(self) -> list[str]:
        """The whole answers, thoughts included."""
        return [one.answer.said for one in self.drawn]


Pick = Callable[[Generation, ScoredPrompt], Iterable[Record]]
"""Makes records of a prompt and its scored answers, and drops the rest."""


def run_scored(
    kind: str,
    inputs: Inputs,
    *,
    engine: Engine,
    reward: Reward,
    recipe: ScoredRecipe,
    target: Target,
    pick: Pick,
) -> Generated:
    """Sample and score answers to every prompt, and write what `pick` makes of them.

    Raises `UnscoredError` where the reward judged no answer at all.
    """
    if recipe.sampling.temperature == 0 and recipe.samples > 1:
        raise RecipeError("at temperature 0 all samples are the same answer",
                          fix="raise sampling.temperature, or set samples to 1")  # fmt: skip
    template, read = _template(recipe), sources(inputs)
    tally = _Tally()
    with generating(
        kind, read, engine, recipe, target,
        templates=[] if template is None else [template],
        further={"reward": reward_said(reward)},
        total=recipe.samples * rows_in(read),
    ) as generation:  # fmt: skip
        for tasks in generation.tasks(read):
            reward.expect_columns(tasks)
            for prompt in _scored(generation, tasks, recipe.samples, reward, template, tally):
                for record in pick(generation, prompt):
                    generation.output.keep(record)
        tally.expect_some()
        generation.figures |= tally.figures()
    return generated(generation)


def demonstration(generation: Generation, prompt: ScoredPrompt, place: int) -> Demonstration:
    """One of the answers, to be imitated."""
    task, drawn, score = prompt.task, prompt.drawn[place], prompt.scores[place]
    meta = generation.meta(task, drawn, score=score.total, scores=dict(score.components))
    return Demonstration(
        prompt_text(task), answer_text(task, drawn), columns_with(task, meta), task.origin
    )


def reward_said(reward: Reward) -> dict[str, Any]:
    """A reward as records name it: its components, and the hash of all that its recipe says."""
    plain = [component.plain() for component in reward.recipe]
    return {
        "components": [component.label for component in reward.recipe],
        "sha256": sha256_hex(repr(plain), SHORT),
    }


def _template(recipe: ScoredRecipe) -> PromptTemplate | None:
    if recipe.template is None:
        return None
    return template_of("think", None if recipe.template == "think" else recipe.template)


def _scored(
    generation: Generation,
    tasks: Sequence[Task],
    samples: int,
    reward: Reward,
    template: PromptTemplate | None,
    tally: _Tally,
) -> Iterator[ScoredPrompt]:
    asked = generation.ask(tasks, samples, template=template)
    usable = [(one.task, drawn) for one in asked if (drawn := generation.usable(one))]
    if not usable:
        return
    judged = reward.judge_rollouts(
        [Answered(task, tuple(one.answer for one in drawn)) for task, drawn in usable]
    )
    scores = iter(judged.scores)
    tally.failures += judged.failures
    for task, drawn in usable:
        found = []
        for one in drawn:
            score = next(scores)
            if score.total is None:
                generation.drop("unscored", _why(score, judged.failures), task.origin)
            else:
                found.append((one, score, score.total))
        tally.add([total for _, _, total in found], len(drawn))
        if found:
            kept, values, totals = zip(*found, strict=True)
            yield ScoredPrompt(task, kept, values, totals)


def _why(score: Score, failures: Sequence[Failure]) -> str:
    """Which component gave no score, and how it failed where it did."""
    missing = [name for name, value in score.components.items() if value is None]
    errors = [f"{f.component}: {f.error}" for f in failures if f.component in missing]
    return "; ".join(dict.fromkeys(errors)) or f"{', '.join(missing)} gave no score"


class _Tally:
    """The scores of a run in figures; what has no score is counted and in none of them."""

    def __init__(self) -> None:
        self.totals: list[float] = []
        self.unscored = 0
        self.failures: list[Failure] = []

    def add(self, totals: Sequence[float], answers: int) -> None:
        self.totals += totals
        self.unscored += answers - len(totals)

    def expect_some(self) -> None:
        """Raise `UnscoredError` where there are answers, and none was scored."""
        if self.totals or not self.unscored:
            return
        errors = dict.fromkeys(f"{f.component}: {f.error}" for f in self.failures)
        raise UnscoredError(
            f"none of {self.unscored} answers could be scored: "
            + ("; ".join(errors) or "the reward gave no score to any"),
            fix="call the reward on one answer by hand, and mend it",
        )

    def figures(self) -> dict[str, float]:
        made: dict[str, float] = {"scored": len(self.totals), "unscored": self.unscored}
        if self.totals:
            made["mean_score"] = round(statistics.fmean(self.totals), 6)
            made["score_deviation"] = round(statistics.pstdev(self.totals), 6)
        return made
