"""Runs the probes of a recipe: finds texts for them and refuses a reward that fails.

It first refuses gold answers that the verifier rejects, because no completion could then earn the
reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from strop.data.records import task
from strop.data.sources import rows
from strop.errors import DataError, RecipeError, RewardError
from strop.recipe.train.reward import ProbesRecipe, RewardComponent
from strop.rewards.audit.attacks import Pair
from strop.rewards.audit.pairs import pairs_from_golds, pairs_from_labels
from strop.rewards.audit.probes import ProbeFinding, catalogue, probe
from strop.rewards.audit.sample import read_completions
from strop.rewards.compose import Reward, columns_of
from strop.text.chat.template import Tools
from strop.types import Task

Encode = Callable[[str], list[int]]

SHOWN = 5
"""Rejected gold answers that a message names."""


def attacked(
    components: Sequence[RewardComponent],
    recipe: ProbesRecipe,
    file: Path,
    tools: Tools = None,
) -> list[ProbeFinding]:
    """Probe a reward on a file of tasks with gold answers, or of completions with labels; with
    `tools` also as the reward of episodes that use them (empty: of episodes without tools).

    Raises `DataError` if the file gives no pair of a right and a wrong completion.
    """
    first = next(iter(rows(file)), None)
    if first is None:
        raise DataError("the file holds no rows", where=str(file))
    if "completion" in first[0] or "completions" in first[0]:
        pairs = pairs_from_labels(read_completions(file))
    else:
        tasks = [task(row, origin) for row, origin in rows(file)]
        Reward(components).expect_columns(tasks)
        pairs = pairs_from_golds(components, tasks)
    if not pairs:
        raise DataError(
            f"no right and wrong completion can be made for {components[0].label}",
            where=str(file),
            fix="give completions with `label` true and false for the same prompts",
        )
    pairs = [replace(pair, episode=tools is not None) for pair in pairs]
    return _findings(Reward(components), recipe, pairs, None, tools)


def defend(
    components: Sequence[RewardComponent],
    recipe: ProbesRecipe,
    tasks: Sequence[Task],
    encode: Encode,
    tools: Tools = None,
) -> dict[str, int]:
    """Check before a run that gold answers pass their own verifier and that critical probes hold.

    `tools` are those of the episodes: empty where they have none, `None` where answers are no
    episodes. Returns counts for the run's own log. Raises `DataError` or `RewardError`.
    What an environment gives cannot be asked about a text, and is left out.
    """
    components = [component for component in components if not component.is_environment]
    reward = Reward(components)
    if recipe.completions is not None and components:
        pairs = pairs_from_labels(read_completions(Path(recipe.completions)))
    else:
        pairs = pairs_from_golds(components, tasks) if components else []
    pairs = [replace(pair, episode=tools is not None) for pair in pairs]
    if pairs and recipe.completions is None:
        expect_golds(reward, pairs)
    if not pairs:
        if recipe.file is not None or recipe.completions is not None or recipe.accept:
            raise RecipeError(
                "probes need right and wrong completions, and there are none for "
                f"{components[0].label if components else 'an environment'}",
                fix="set probes.completions to labelled completions, or drop `probes`",
            )
        return {}
    findings = _findings(reward, recipe, _spread(pairs, recipe.tasks), encode, tools)
    failed = [one for one in findings if one.critical and one.verdict == "fails"]
    unknown = recipe.accept.keys() - {one.probe for one in findings}
    if unknown:
        raise RecipeError(
            f"probes.accept names {', '.join(sorted(unknown))}, which was not run",
            fix=f"probes: {', '.join(one.probe for one in findings)}",
        )
    open_ones = [one for one in failed if one.probe not in recipe.accept]
    if open_ones:
        said = "".join(
            f"\n  {one.probe}: held {one.held} of {one.trials}; {one.example}" for one in open_ones
        )
        raise RewardError(
            f"the reward can be had without the right answer:{said}",
            fix="mend it (docs/rewards.md), or say in probes.accept why it may stay",
        )
    return {"probes": len(findings), "probes_accepted": len(failed)}


def _findings(
    reward: Reward,
    recipe: ProbesRecipe,
    pairs: Sequence[Pair],
    encode: Encode | None,
    tools: Tools,
) -> list[ProbeFinding]:
    own = Path(recipe.file) if recipe.file else None
    return probe(reward, pairs, catalogue(reward.recipe, own, tools), encode)


def _spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """At most `count` pairs, evenly spaced."""
    step = max(1.0, len(pairs) / count)
    return [pairs[int(i * step)] for i in range(min(count, len(pairs)))]


def expect_golds(reward: Reward, pairs: Sequence[Pair]) -> None:
    """Raise `DataError` naming the rows whose right answer the first component rejects."""
    component, function = reward.components[0]
    judged = Reward([component], functions=[function]).judge(
        [pair.task.prompt for pair in pairs],
        [pair.form(pair.right) for pair in pairs],
        columns_of([pair.task for pair in pairs]),
    )
    rejected = [
        (pair, value)
        for pair, score in zip(pairs, judged.scores, strict=True)
        if (value := score.components[component.label]) is None or value < 1.0
    ]
    if rejected:
        lines = "".join(
            f"\n  {pair.task.origin}: {pair.gold if pair.gold is not None else pair.right!r} "
            f"earned {value}"
            for pair, value in rejected[:SHOWN]
        )
        more = f"\n  and {len(rejected) - SHOWN} more" if len(rejected) > SHOWN else ""
        raise DataError(
            f"{component.label} rejects the right answer of {len(rejected)} of {len(pairs)} "
            f"tasks:{lines}{more}",
            fix="mend these rows, or choose the verifier that reads such answers",
        )
