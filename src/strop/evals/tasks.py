"""What one task of a suite asks a model, and the per-item records it returns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from strop.data.records import preference, task
from strop.data.sources import read
from strop.errors import UnscoredError, UsageError
from strop.model.logprobs import bare
from strop.model.network import Policy
from strop.recipe.eval import GenerateTask, PreferenceTask
from strop.recipe.rollout import SamplingRecipe
from strop.rewards.compose import Reward
from strop.rollout.local import LocalSampler
from strop.rollout.sampler import Sampling
from strop.text.render import preference_tree, prompt_ids
from strop.types import EvalRecord, Preference, Rollout, Task

FORWARD = 64
"""Pairs scored in one forward."""


def generate(policy: Policy, recipe: GenerateTask, *, seed: int) -> list[Rollout]:
    """`samples` answers per item, in the order of the data."""
    tasks = read([source.path for source in recipe.data], task)
    prompts = [prompt_ids(policy.tokenizer, t.prompt, where=str(t.origin)) for t in tasks]
    _expect_room(policy, max(map(len, prompts)) + recipe.sampling.max_tokens, recipe.name)
    sampled = LocalSampler(policy.model, policy.tokenizer).sample(
        prompts,
        group_size=recipe.samples,
        sampling=sampling_of(recipe.sampling),
        seed=seed,
        step=0,
    )
    return [Rollout(t, ids, group) for t, ids, group in zip(tasks, prompts, sampled, strict=True)]


def score_rollouts(recipe: GenerateTask, rollouts: Sequence[Rollout]) -> list[EvalRecord]:
    """One record per answer and component; raises `UnscoredError` when a component judged none."""
    judged = Reward(recipe.scores).judge_rollouts(rollouts)
    answers = [
        (rollout, sample) for rollout in rollouts for sample in range(len(rollout.completions))
    ]
    records = []
    for component in recipe.scores:
        values = [score.components[component.label] for score in judged.scores]
        if all(value is None for value in values):
            reasons = "; ".join(f.error for f in judged.failures if f.component == component.label)
            raise UnscoredError(
                f"{recipe.name}/{component.label}: no item could be scored: "
                f"{reasons or 'the reward returned None for every item'}",
                fix="call the reward on one completion by hand and mend it",
            )
        for (rollout, sample), value in zip(answers, values, strict=True):
            completion = rollout.completions[sample]
            records.append(
                EvalRecord(
                    task=f"{recipe.name}/{component.label}",
                    item=item_of(rollout.task),
                    score=value,
                    cluster=str(rollout.task.columns.get("cluster", item_of(rollout.task))),
                    sample=sample,
                    output=completion.text,
                )
            )
    return records


@torch.no_grad()
def prefer(policy: Policy, recipe: PreferenceTask) -> Iterator[EvalRecord]:
    """1.0 where the chosen answer is likelier, 0.5 for a tie, 0.0 where the rejected one is."""
    pairs = read([source.path for source in recipe.data], preference)
    for start in range(0, len(pairs), FORWARD):
        part = pairs[start : start + FORWARD]
        with policy.arithmetic():
            scores = policy.score([preference_tree(policy.tokenizer, pair) for pair in part])
        values = scores.sums_B() / (scores.lengths_B() if recipe.per_token else 1.0)
        for pair, (chosen, rejected) in zip(part, values.view(-1, 2).tolist(), strict=True):
            item = item_of(pair)
            yield EvalRecord(
                task=recipe.name,
                item=item,
                score=0.5 if chosen == rejected else float(chosen > rejected),
                cluster=str(pair.columns.get("cluster", item)),
                details={"chosen": chosen, "rejected": rejected},
            )


def _expect_room(policy: Policy, tokens: int, name: str) -> None:
    context = bare(policy.model).config.get_text_config().max_position_embeddings
    if tokens > context:
        raise UsageError(
            f"task {name}: the longest prompt and its answer need {tokens} tokens, "
            f"the model reads {context}",
            fix="lower sampling.max_tokens or shorten the prompts",
        )


def item_of(record: Task | Preference) -> str:
    """The row's own `id`, or a hash of its content, so that reordering a file changes nothing."""
    if "id" in record.columns:
        return str(record.columns["id"])
    answers: list[Any] = []
    if isinstance(record, Preference):
        answers = [record.chosen, record.rejected]
    content = json.dumps(
        [record.prompt, *answers, dict(record.columns)], sort_keys=True, default=str
    )
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def sampling_of(recipe: SamplingRecipe) -> Sampling:
    return Sampling(**{**recipe.model_dump(), "stop": tuple(recipe.stop)})
