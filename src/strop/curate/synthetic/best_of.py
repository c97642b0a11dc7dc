"""Best-of-n and rejection sampling: the answers that a reward ranks highest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from strop.curate.signals.pairs import best_against
from strop.curate.synthetic.generation import (
    Generated,
    Generation,
    Inputs,
    Target,
    answer_text,
    columns_with,
    prompt_text,
)
from strop.curate.synthetic.scored import ScoredPrompt, demonstration, run_scored
from strop.curate.synthetic.selection import above, best
from strop.engines.engine import Engine
from strop.recipe.loading.load import Given, load
from strop.recipe.synthetic import BestOfRecipe, RejectRecipe
from strop.rewards.compose import Reward
from strop.types import Demonstration, Preference


def best_of(
    inputs: Inputs,
    engine: Engine,
    reward: Reward,
    settings: Given,
    target: Target,
) -> Generated:
    """The best of several answers to every prompt, as a demonstration or as a pair.

    A pair's rejected answer is the one whose score is nearest to the mean minus two standard
    deviations (arXiv 2502.16825); its `margin` is the difference of the two scores. A prompt whose
    answers all have one score makes no pair.
    """
    recipe = load(BestOfRecipe, settings)
    pick = _best if recipe.keep == "best" else _pair
    return run_scored(
        "best-of", inputs, engine=engine, reward=reward, recipe=recipe, target=target, pick=pick
    )


def reject(
    inputs: Inputs,
    engine: Engine,
    reward: Reward,
    settings: Given,
    target: Target,
) -> Generated:
    """All different answers to every prompt whose reward is at least `threshold` (rejection
    sampling as in arXiv 2308.01825), as demonstrations."""

    recipe = load(RejectRecipe, settings)

    def pick(generation: Generation, prompt: ScoredPrompt) -> Iterator[Demonstration]:
        places = above(prompt.said(), prompt.totals, recipe.threshold)
        _count_rest(generation, prompt, places, recipe.threshold)
        for place in places[: recipe.most]:
            yield demonstration(generation, prompt, place)
        for _ in places[len(places) if recipe.most is None else recipe.most :]:
            generation.drop("beyond_most", f"more than {recipe.most} answers", prompt.task.origin)

    return run_scored(
        "reject", inputs, engine=engine, reward=reward, recipe=recipe, target=target, pick=pick
    )


def _best(generation: Generation, prompt: ScoredPrompt) -> Iterator[Demonstration]:
    yield demonstration(generation, prompt, best(prompt.totals))


def _pair(generation: Generation, prompt: ScoredPrompt) -> Iterator[Preference]:
    task = prompt.task
    found = best_against(prompt.totals)
    if found is None:
        generation.drop("no_contrast", f"all scores are {prompt.totals[0]:g}", task.origin)
        return
    chosen, rejected, margin = found
    texts = [answer_text(task, prompt.drawn[place]) for place in (chosen, rejected)]
    if texts[0] == texts[1]:
        generation.drop("chosen_equals_rejected", "one text has two scores", task.origin)
        return
    meta = generation.meta(
        task,
        prompt.drawn[chosen],
        score=prompt.totals[chosen],
        scores=dict(prompt.scores[chosen].components),
        rejected={
            "index": prompt.drawn[rejected].key.index,
            "score": prompt.totals[rejected],
            "scores": dict(prompt.scores[rejected].components),
        },
        scored=len(prompt.totals),
    )
    columns = columns_with(task, meta, margin=margin)
    yield Preference(prompt_text(task), texts[0], texts[1], columns, task.origin)


def _count_rest(
    generation: Generation, prompt: ScoredPrompt, kept: Sequence[int], threshold: float
) -> None:
    """Count the answers that are no records: too low a score, or an earlier one's text."""
    for place, total in enumerate(prompt.totals):
        if total < threshold:
            reason = f"a reward of {total:g} is below {threshold:g}"
            generation.drop("below_threshold", reason, prompt.task.origin)
        elif place not in kept:
            generation.drop("repeated_answer", "the text of another answer", prompt.task.origin)
