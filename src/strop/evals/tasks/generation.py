"""Scores generated answers and preference pairs as per-item records."""

from __future__ import annotations

from collections.abc import Sequence

from strop.data.items import cluster_of, item_of, slices_of
from strop.episodes import asked_of
from strop.errors import UnscoredError
from strop.evals.reading import Reader
from strop.recipe.suite import AnswerTask, PreferenceTask, ScoredTask
from strop.rewards.compose import Reward
from strop.rewards.find import declared_range
from strop.text.parse import plain
from strop.text.render import preference_tree
from strop.types import FAILED, Answered, EvalRecord, Judged, Preference, Rollout, Scale

MET: Scale = (0.0, 1.0)
"""The range of a criterion that was met or not."""


def score_rollouts(
    recipe: ScoredTask, reward: Reward, rollouts: Sequence[Rollout | Answered]
) -> list[EvalRecord]:
    """One record per answer and component, and per part of a component (a rubric's criteria),
    without a score for an answer that failed or was called off; raises `UnscoredError` when a
    component judged none."""
    judged = reward.judge_rollouts(rollouts)
    answers = [
        (rollout, sample) for rollout in rollouts for sample in range(len(rollout.completions))
    ]
    records = []
    for component in recipe.scores:
        name = f"{recipe.name}/{component.label}"
        values = [score.components[component.label] for score in judged.scores]
        if all(value is None for value in values):
            raise _unscored(name, component.label, judged, rollouts)
        parts = {
            part: [score.components[part] for score in judged.scores]
            for part in judged.scores[0].components
            if part.startswith(f"{component.label}/")
        }
        records += [
            record_of(recipe, f"{recipe.name}/{one}", rollout, sample, value, scale=scale)
            for one, of_it, scale in (
                (component.label, values, declared_range(component)),
                *((part, of_it, MET) for part, of_it in parts.items()),
            )
            for (rollout, sample), value in zip(answers, of_it, strict=True)
        ]
    return records


def _unscored(
    name: str, label: str, judged: Judged, rollouts: Sequence[Rollout | Answered]
) -> UnscoredError:
    if all(answer.finish in FAILED for one in rollouts for answer in one.completions):
        return UnscoredError(
            f"{name}: no item could be scored: every answer failed or was called off",
            fix="see why the engine gave no answers, and run it again",
        )
    reasons = "; ".join(f.error for f in judged.failures if f.component == label)
    return UnscoredError(
        f"{name}: no item could be scored: {reasons or 'the reward returned None for every item'}",
        fix="call the reward on one completion by hand and mend it",
    )


def record_of(
    recipe: AnswerTask,
    name: str,
    rollout: Rollout | Answered,
    sample: int,
    score: float | None,
    *,
    scale: Scale | None = None,
) -> EvalRecord:
    """The record of one answer under the name of one score."""
    answer = rollout.completions[sample]
    return EvalRecord(
        task=name,
        item=item_of(rollout.task),
        score=score,
        cluster=cluster_of(rollout.task),
        sample=sample,
        prompt=plain(asked_of(rollout.task, answer)),
        output=answer.said,
        slices=slices_of(rollout.task, recipe.slices),
        scale=scale,
    )


def prefer(
    reader: Reader, recipe: PreferenceTask, pairs: Sequence[Preference], reference: Reader | None
) -> list[EvalRecord]:
    """1.0 if the chosen answer is likelier, 0.5 for a tie, 0.0 if the rejected one is.

    With a reference, `drift/<name>/held` too: 0 for a displaced pair, whose chosen answer is less
    likely than under the reference although the margin rose, else 1. The details hold the chosen
    answer's gain over the reference, in nats per token.
    """
    chosen_B, rejected_B = _means(reader, recipe, pairs)
    records = []
    for pair, chosen, rejected in zip(pairs, chosen_B, rejected_B, strict=True):
        score = 0.5 if chosen == rejected else float(chosen > rejected)
        details = {"chosen": chosen, "rejected": rejected}
        records.append(_pair_record(recipe, recipe.name, pair, score, details))
    return records if reference is None else [*records, *_held(reader, recipe, pairs, reference)]


def _held(
    reader: Reader, recipe: PreferenceTask, pairs: Sequence[Preference], reference: Reader
) -> list[EvalRecord]:
    per_token = recipe.model_copy(update={"per_token": True})
    ours, theirs = (_means(one, per_token, pairs) for one in (reader, reference))
    records = []
    for pair, chosen, rejected, was_chosen, was_rejected in zip(pairs, *ours, *theirs, strict=True):
        gain, margin = chosen - was_chosen, (chosen - rejected) - (was_chosen - was_rejected)
        displaced = gain < 0 < margin
        details = {"gain": gain, "margin": margin}
        name = f"drift/{recipe.name}/held"
        records.append(_pair_record(recipe, name, pair, 1.0 - displaced, details))
    return records


def _means(
    reader: Reader, recipe: PreferenceTask, pairs: Sequence[Preference]
) -> tuple[list[float], list[float]]:
    """Log-probs of the chosen and of the rejected answers: sums, or means per token."""
    trees = [preference_tree(reader.tokenizer, pair) for pair in pairs]
    branches = [branch for tree in trees for branch in tree.branches]
    values = [
        total / (sum(branch.supervised) if recipe.per_token else 1)
        for total, branch in zip(reader.sums(trees), branches, strict=True)
    ]
    return values[::2], values[1::2]


def _pair_record(
    recipe: PreferenceTask,
    name: str,
    pair: Preference,
    score: float,
    details: dict[str, float],
) -> EvalRecord:
    return EvalRecord(
        task=name,
        item=item_of(pair),
        score=score,
        cluster=cluster_of(pair),
        prompt=plain(pair.prompt),
        details=details,
        slices=slices_of(pair, recipe.slices),
        scale=(0.0, 1.0),
    )
