"""Scored groups as JSON values, which a checkpoint keeps. Versions are written as ages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from strop.engines.engine import PromptedTask
from strop.types import Completion, Rollout, Score, ScoredGroup, VersionSpan

Saved = dict[str, Any]


def group_plain(group: ScoredGroup, version: int) -> Saved:
    """The group without its task; spans say how much older than `version` they are."""
    completions = [
        {
            "text": c.text, "finish": c.finish, "opened": c.opened,
            "ids": list(c.ids), "sampled": list(c.sampled), "logprobs": list(c.sampler_logprobs()),
            "spans": [[s.start, s.stop, version - s.version] for s in c.versions],
        }
        for c in group.rollout.completions
    ]  # fmt: skip
    return {"completions": completions, "scores": [asdict(score) for score in group.scores]}


def group_of(saved: Mapping[str, Any], prompt: PromptedTask, version: int) -> ScoredGroup:
    """The group again, its ages counted back from `version`."""
    completions = tuple(_completion(one, version) for one in saved["completions"])
    scores = tuple(Score(one["total"], one["components"]) for one in saved["scores"])
    return ScoredGroup(Rollout(prompt.task, prompt.prompt_ids, completions), scores)


def _completion(saved: Mapping[str, Any], version: int) -> Completion:
    made = Completion(
        text=saved["text"],
        finish=saved["finish"],
        ids=tuple(saved["ids"]),
        sampled=tuple(saved["sampled"]),
        logprobs=tuple(saved["logprobs"]),
        versions=tuple(VersionSpan(a, b, version - age) for a, b, age in saved["spans"]),
    )
    return replace(made, opened=saved["opened"])
