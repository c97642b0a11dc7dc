"""The answers to one task as a group that is learnt from."""

from __future__ import annotations

from collections.abc import Sequence

from strop.engines.engine import PromptedTask
from strop.episodes import Episode
from strop.types import Answer, Completion, Rollout, trainable


def rollout_of(prompt: PromptedTask, answers: Sequence[Answer]) -> Rollout:
    """A task with its answers, all of which begin with the rollout's prompt: what a template or an
    environment wrote otherwise for some episodes is read in their branches.

    Raises `UsageError` for answers without tokens or log-probs.
    """
    completions = tuple(trainable(answer) for answer in answers)
    shared = min((one.shared for one in completions if isinstance(one, Episode)), default=None)
    if shared is None:
        return Rollout(prompt.task, prompt.prompt_ids, completions)
    ids = prompt.prompt_ids
    based = tuple(_based(one, shared, ids) for one in completions)
    return Rollout(prompt.task, ids[:shared], based)


def _based(completion: Completion, shared: int, ids: tuple[int, ...]) -> Completion:
    return completion.based(shared, ids) if isinstance(completion, Episode) else completion
