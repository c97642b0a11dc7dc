"""New instructions from a few seeds, each unlike all others, and answers to them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

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
    sources,
)
from strop.curate.synthetic.selection import most_alike
from strop.curate.synthetic.templates import template_of
from strop.data.duplicates import Words, asked, words
from strop.engines.draws import DrawKey, uniforms
from strop.engines.engine import Engine
from strop.errors import DataError
from strop.recipe.loading.load import Given, load
from strop.recipe.synthetic import SelfInstructRecipe
from strop.recipe.train.data import DataSource
from strop.text.parse import spoken
from strop.text.templates import PromptTemplate
from strop.types import Demonstration, Origin, Task

_NUMBERED = re.compile(r"^[ \t]*(?:task[ \t]+)?\d+[.):][ \t]+", re.IGNORECASE | re.MULTILINE)
PROPOSALS = "proposals"
"""Where a proposed instruction comes from: `proposals:17` is the seventeenth."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One that was proposed: `Instruction("Name a river.", drawn, Origin("proposals", 17), 0.42)`.

    `drawn` is the reply it stood in, `nearest` its ROUGE-L with the most alike of those before it.
    """

    text: str
    drawn: Drawn
    origin: Origin
    nearest: float = 0.0


@dataclass(slots=True)
class Pool:
    """The seeds, the instructions that were kept so far, and the words of all of them."""

    seeds: list[str]
    kept: list[Instruction] = field(default_factory=list)
    read: list[Words] = field(default_factory=list)

    def nearest(self, said: Words) -> float:
        """The largest ROUGE-L of an instruction with any in the pool, 0 to 1."""
        return most_alike(said, self.read)


def self_instruct(inputs: Inputs, engine: Engine, settings: Given, target: Target) -> Generated:
    """Instructions that are unlike the seeds and each other (arXiv 2212.10560, section 2.2), and
    answers to them: demonstrations, or tasks where `answers` is off.

    Seeds are the prompts of `inputs`. An instruction whose answer failed, was cut or is empty is
    left out. Fewer than `count` come where the engine has nothing new to say: the figure
    `instructions` counts those that were kept.
    """
    recipe, read = load(SelfInstructRecipe, settings), sources(inputs)
    template = template_of("self_instruct", recipe.template)
    with generating("self-instruct", read, engine, recipe, target,
                    templates=[template]) as generation:  # fmt: skip
        pool = _pool(generation, read)
        _fill(generation, recipe, pool, template)
        _write(generation, recipe, pool.kept)
    return generated(generation)


def instructions_in(reply: str, *, cut: bool) -> list[str]:
    """The numbered instructions of a reply; of one that was `cut` the last is not whole.

    `instructions_in("9. Name a river.\\n10. Why is", cut=True) == ["Name a river."]`
    """
    parts = [part.strip() for part in _NUMBERED.split(reply)[1:]]
    return [part for part in (parts[:-1] if cut else parts) if part]


def unfit(text: str, recipe: SelfInstructRecipe) -> tuple[str, str] | None:
    """Why an instruction is no good by itself, as kind and reason: its length, its words."""
    said = words(text)
    if len(said) < recipe.min_words:
        return "too_short", f"{len(said)} words"
    if len(said) > recipe.max_words:
        return "too_long", f"{len(said)} words"
    if not text[0].isalnum() and text[0] not in "\"'(\u00a1\u00bf\u201c\u00ab":
        return "malformed", "begins with a sign"
    avoided = [word for word in recipe.avoid if word.casefold() in said]
    if avoided:
        return "keyword", f"speaks of {avoided[0]}"
    return None


def _pool(generation: Generation, inputs: Sequence[DataSource]) -> Pool:
    seeds = [asked(task.prompt) for tasks in generation.tasks(inputs) for task in tasks]
    if not seeds:
        raise DataError(
            "there are no seeds",
            where=", ".join(one.name for one in inputs),
            fix='give rows with a prompt: {"prompt": "Name three rivers."}',
        )
    return Pool(seeds, read=[words(seed) for seed in seeds])


def _fill(
    generation: Generation, recipe: SelfInstructRecipe, pool: Pool, template: PromptTemplate
) -> None:
    """Ask for instructions, round by round, until there are enough or nothing new comes."""
    proposed = idle = round = 0
    while len(pool.kept) < recipe.count and idle < recipe.patience:
        before = len(pool.kept)
        requests = []
        for number in range(recipe.at_once):
            key = DrawKey(recipe.seed, "synthetic", round=round, prompt="examples", index=number)
            words_asked = template.render(
                instructions=_shown(recipe, pool, key), asked=recipe.asked
            )
            requests.append(
                Task(generation.form(words_asked), {}, Origin(f"round {round}", number))
            )
        for drawn, text in _proposals(generation, requests, round):
            proposed += 1
            if len(pool.kept) < recipe.count:
                origin = Origin(PROPOSALS, proposed)
                _take(generation, recipe, pool, Instruction(text, drawn, origin))
        idle = idle + 1 if len(pool.kept) == before else 0
        round += 1
        _progress(generation, recipe, len(pool.kept), 0)
    generation.figures |= {"proposed": proposed, "rounds": round, "instructions": len(pool.kept)}


def _shown(recipe: SelfInstructRecipe, pool: Pool, key: DrawKey) -> list[str]:
    """Seeds and kept instructions for one request, drawn and mixed by its key."""
    kept = [one.text for one in pool.kept]
    numbers = uniforms(key, len(pool.seeds) + len(kept))
    first = np.argsort(numbers[: len(pool.seeds)], kind="stable")[: recipe.seeds_shown]
    later = np.argsort(numbers[len(pool.seeds) :], kind="stable")[: recipe.generated_shown]
    shown = [pool.seeds[n] for n in first] + [kept[n] for n in later]
    mixed = np.argsort(uniforms(replace(key, prompt="order"), len(shown)), kind="stable")
    return [shown[n] for n in mixed]


def _progress(generation: Generation, recipe: SelfInstructRecipe, kept: int, answered: int) -> None:
    """An answer counts as much as an instruction."""
    total = 2 * recipe.count if recipe.answers else recipe.count
    generation.target.on_progress(kept + answered, total)


def _proposals(
    generation: Generation, requests: Sequence[Task], round: int
) -> Iterator[tuple[Drawn, str]]:
    for one in generation.ask(requests, round=round):
        for drawn in generation.usable(one, keep_cut=True):
            found = instructions_in(spoken(drawn.answer.said), cut=drawn.answer.finish == "length")
            if not found:
                generation.drop("no_list", "the reply holds no numbered list", one.task.origin)
            yield from ((drawn, text) for text in found)


def _take(
    generation: Generation, recipe: SelfInstructRecipe, pool: Pool, proposed: Instruction
) -> None:
    """Keep an instruction that is fit and new."""
    fault = unfit(proposed.text, recipe)
    said = words(proposed.text)
    nearest = 0.0 if fault else pool.nearest(said)
    if fault is None and nearest >= recipe.similarity:
        fault = "similar", f"ROUGE-L {nearest:.2f} with an earlier one"
    if fault is not None:
        generation.drop(*fault, proposed.origin)
        return
    pool.kept.append(replace(proposed, nearest=round(nearest, 4)))
    pool.read.append(said)


def _write(generation: Generation, recipe: SelfInstructRecipe, kept: Sequence[Instruction]) -> None:
    for start in range(0, len(kept), recipe.at_once):
        here = kept[start : start + recipe.at_once]
        tasks = [Task(generation.form(one.text), {}, one.origin) for one in here]
        if not recipe.answers:
            for one, task in zip(here, tasks, strict=True):
                columns = columns_with(task, _meta(generation, task, one, one.drawn))
                generation.output.keep(replace(task, columns=columns))
            continue
        for one, answered in zip(here, generation.ask(tasks), strict=True):
            for drawn in generation.usable(answered):
                task = answered.task
                columns = columns_with(task, _meta(generation, task, one, drawn))
                completion = answer_text(task, drawn)
                record = Demonstration(task.prompt, completion, columns, task.origin)
                generation.output.keep(record)
        _progress(generation, recipe, len(kept), start + len(here))


def _meta(generation: Generation, task: Task, one: Instruction, drawn: Drawn) -> dict[str, object]:
    instruction = {"draw": asdict(one.drawn.key), "nearest": one.nearest}
    return generation.meta(task, drawn, instruction=instruction)
