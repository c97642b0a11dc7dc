"""Constitutional-style pairs: an answer, its critique by a principle, and the revision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from strop.curate.synthetic.answers import Drawn, prompt_hash
from strop.curate.synthetic.generation import (
    Generated,
    Generation,
    Inputs,
    Target,
    columns_with,
    generated,
    generating,
    prompt_text,
    rows_in,
    sources,
)
from strop.curate.synthetic.selection import folded
from strop.curate.synthetic.templates import FILES, template_of
from strop.engines.draws import DrawKey, uniforms
from strop.engines.engine import Engine
from strop.errors import RecipeError
from strop.recipe.loading.load import Given, digest, load
from strop.recipe.synthetic import CritiqueRecipe, Principle, Principles
from strop.rewards.compose import as_said
from strop.text.parse import last_tag, spoken
from strop.text.templates import PromptTemplate, conversation
from strop.types import Preference, Task, Text

TAG = "revision"


@dataclass(frozen=True, slots=True)
class Revised:
    """How far a prompt has come: `Revised(task, drawn, answer="Sure! x = 3", now="x = 3",
    by=("to the point",))`; `drawn` is the first answer, `now` what the last revision left of it."""

    task: Task
    drawn: Drawn
    answer: str
    now: str
    by: tuple[str, ...] = ()


def critique(inputs: Inputs, engine: Engine, settings: Given, target: Target) -> Generated:
    """Pairs by critique and revision (arXiv 2212.08073, section 3.1): the revision is chosen, the
    answer rejected.

    Thoughts are no part of either. A prompt is left out where a reply failed, was cut or is empty,
    where a revision stands in no tags that its template asks for, and where it changed nothing.
    """
    recipe, read = load(CritiqueRecipe, settings), sources(inputs)
    listed = load(Principles, recipe.principles or FILES / "principles.yaml")
    principles = listed.principles
    if recipe.rounds > len(principles):
        raise RecipeError(
            f"{recipe.rounds} rounds need as many principles, there are {len(principles)}",
            fix="lower `rounds`, or add principles",
        )
    asks = template_of("critique", recipe.critique), template_of("revision", recipe.revision)
    with generating(
        "critique", read, engine, recipe, target,
        templates=asks,
        further={"principles": {"sha256": digest(listed)}},
        total=(1 + 2 * recipe.rounds) * rows_in(read),
    ) as generation:  # fmt: skip
        for tasks in generation.tasks(read):
            states = _answered(generation, tasks)
            for round in range(recipe.rounds):
                states = _revised(generation, states, round, principles, asks)
            for state in states:
                _keep(generation, state)
    return generated(generation)


def _answered(generation: Generation, tasks: Sequence[Task]) -> list[Revised]:
    states = []
    for asked in generation.ask(tasks):
        for drawn in generation.usable(asked):
            answer = spoken(drawn.answer.said).strip()
            if answer:
                states.append(Revised(asked.task, drawn, answer, answer))
            else:
                generation.drop("empty", "the answer is only a thought", asked.task.origin)
    return states


def _revised(
    generation: Generation,
    states: Sequence[Revised],
    round: int,
    principles: Sequence[Principle],
    asks: tuple[PromptTemplate, PromptTemplate],
) -> list[Revised]:
    """One critique and one revision of every answer that is still there."""
    by = {prompt_hash(s.task): _principle(generation, s.task, round, principles) for s in states}
    shown = {
        prompt_hash(s.task): {"prompt": conversation(prompt_text(s.task)), "answer": s.now,
                              "principle": by[prompt_hash(s.task)]}
        for s in states
    }  # fmt: skip
    critiques = _replies(generation, states, asks[0], shown, 2 * round + 1)
    for name, said in critiques.items():
        shown[name]["critique"] = said
    criticised = [state for state in states if prompt_hash(state.task) in critiques]
    revisions = _replies(generation, criticised, asks[1], shown, 2 * round + 2)
    found = []
    for state in criticised:
        name = prompt_hash(state.task)
        if name not in revisions:
            continue
        now = _revision(revisions[name], asks[1])
        if now:
            found.append(replace(state, now=now, by=(*state.by, by[name].name)))
        else:
            generation.drop("no_revision", f"no <{TAG}>...</{TAG}> in the reply", state.task.origin)
    return found


def _principle(
    generation: Generation, task: Task, round: int, principles: Sequence[Principle]
) -> Principle:
    """The principle of a round, drawn for every prompt; none comes twice."""
    key = DrawKey(generation.recipe.seed, "synthetic", prompt=f"principles {prompt_hash(task)}")
    order = np.argsort(uniforms(key, len(principles)), kind="stable")
    return principles[int(order[round])]


def _replies(
    generation: Generation,
    states: Sequence[Revised],
    template: PromptTemplate,
    shown: dict[str, dict[str, object]],
    round: int,
) -> dict[str, str]:
    """What the engine says to a template, by the hash of the prompt it is about."""
    tasks = [
        Task(_in_form(state.task, template.render(**shown[prompt_hash(state.task)])), {},
             state.task.origin)
        for state in states
    ]  # fmt: skip
    found = {}
    for state, asked in zip(states, generation.ask(tasks, round=round), strict=True):
        for drawn in generation.usable(asked):
            said = spoken(drawn.answer.said).strip()
            if said:
                found[prompt_hash(state.task)] = said
            else:
                reason = f"the {template.name} is only a thought"
                generation.drop("empty", reason, state.task.origin)
    return found


def _in_form(task: Task, words: str) -> Text:
    """A request in the form of the prompt that it is about."""
    return words if isinstance(task.prompt, str) else [{"role": "user", "content": words}]


def _revision(said: str, template: PromptTemplate) -> str:
    """The revision in a reply: what its tags hold, where the template asks for tags."""
    return (last_tag(said, TAG) or "") if f"<{TAG}>" in template.text else said


def _keep(generation: Generation, state: Revised) -> None:
    task = state.task
    if folded(state.now).casefold() == folded(state.answer).casefold():
        generation.drop("unchanged", "the revision says what the answer said", task.origin)
        return
    columns = columns_with(task, generation.meta(task, state.drawn, principles_used=list(state.by)))
    chosen, rejected = as_said(task.prompt, state.now), as_said(task.prompt, state.answer)
    generation.output.keep(Preference(prompt_text(task), chosen, rejected, columns, task.origin))
