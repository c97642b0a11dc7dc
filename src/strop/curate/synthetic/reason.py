"""Distilling reasoning: answers with their thoughts, kept where a verifier finds them right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from strop.curate.synthetic.generation import Generated, Generation, Inputs, Target
from strop.curate.synthetic.scored import ScoredPrompt, demonstration, run_scored
from strop.curate.synthetic.selection import diverse, first_of_equals, shortest
from strop.engines.engine import Engine
from strop.recipe.loading.load import Given, load
from strop.recipe.synthetic import ReasonRecipe
from strop.rewards.compose import Reward
from strop.types import Demonstration

FIRST: dict[str, Callable[[Sequence[str], int], list[int]]] = {
    "shortest": shortest,
    "diverse": diverse,
}
"""Which right answers of a prompt are kept where there are more than enough."""


def reason(
    inputs: Inputs,
    engine: Engine,
    reward: Reward,
    settings: Given,
    target: Target,
) -> Generated:
    """Demonstrations whose completions hold the thought and the answer, as the engine wrote them.

    Only answers to which the verifier gives at least `threshold` are kept, at most `most` a prompt.
    A thought stands in `<think>...</think>`, as chat templates have it; training writes it in the
    way of its own template.
    """

    recipe = load(ReasonRecipe, settings)

    def pick(generation: Generation, prompt: ScoredPrompt) -> Iterator[Demonstration]:
        places, said, origin = [], prompt.said(), prompt.task.origin
        for place, total in enumerate(prompt.totals):
            if total < recipe.threshold:
                why = f"the verifier gave {total:g}"
                generation.drop("wrong", why, origin)
            elif recipe.thought and not _thinks(said[place]):
                generation.drop("no_thought", "no closed <think>...</think>", origin)
            else:
                places.append(place)
        different = [places[n] for n in first_of_equals([said[place] for place in places])]
        for _ in range(len(places) - len(different)):
            generation.drop("repeated_answer", "the text of another answer", origin)
        taken = FIRST[recipe.first]([said[place] for place in different], recipe.most)
        for _ in range(len(different) - len(taken)):
            generation.drop("beyond_most", f"more than {recipe.most} right answers", origin)
        if different:
            generation.count("solved_prompts")
        for n in taken:
            yield demonstration(generation, prompt, different[n])

    return run_scored(
        "reason", inputs, engine=engine, reward=reward, recipe=recipe, target=target, pick=pick
    )


def _thinks(said: str) -> bool:
    """Whether an answer holds a thought that ends: `<think>` may stand in the prompt."""
    thought, closed, _ = said.partition("</think>")
    return bool(closed and thought.replace("<think>", "").strip())
