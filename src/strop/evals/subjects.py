"""Who is measured: a model on this machine, one behind an endpoint, or recorded answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from strop.errors import UsageError
from strop.model.load import load_for_inference, weights_hash
from strop.model.logprobs import bare
from strop.model.network import Policy
from strop.recipe.rollout import SamplingRecipe
from strop.rollout.local import LocalSampler
from strop.rollout.sampler import Sampling
from strop.text.render import prompt_ids
from strop.types import Rollout, Task


class Subject(Protocol):
    """Somebody who can be asked."""

    def identity(self) -> Mapping[str, Any]:
        """What makes it this subject and no other; `path` and `sha256` where there are weights."""

    def policy(self) -> Policy:
        """The model itself, for tasks that read likelihoods; `UsageError` where it is elsewhere."""

    def answer(
        self, tasks: Sequence[Task], sampling: SamplingRecipe, samples: int, seed: int
    ) -> list[Rollout]:
        """`samples` answers to every task, in order. The same for a task whatever its company."""


class LocalModel:
    """A model folder (or hub name), loaded once it is asked; or one that is loaded already."""

    def __init__(self, path: str, loaded: Policy | None = None) -> None:
        self.path, self._loaded = path, loaded

    def identity(self) -> Mapping[str, Any]:
        return {"path": self.path, "sha256": weights_hash(self.path)}

    def policy(self) -> Policy:
        if self._loaded is None:
            self._loaded = load_for_inference(self.path)
        return self._loaded

    def answer(
        self, tasks: Sequence[Task], sampling: SamplingRecipe, samples: int, seed: int
    ) -> list[Rollout]:
        policy = self.policy()
        prompts = [prompt_ids(policy.tokenizer, t.prompt, where=str(t.origin)) for t in tasks]
        longest = max(range(len(tasks)), key=lambda i: len(prompts[i]))
        _expect_room(policy, len(prompts[longest]) + sampling.max_tokens, tasks[longest])
        sampled = LocalSampler(policy.model, policy.tokenizer, arithmetic=policy.arithmetic).sample(
            prompts, group_size=samples, sampling=sampling_of(sampling), seed=seed, step=0
        )
        return [
            Rollout(task, ids, group)
            for task, ids, group in zip(tasks, prompts, sampled, strict=True)
        ]


def as_subject(subject: Subject | str) -> Subject:
    """A text is a model folder or hub name."""
    return LocalModel(subject) if isinstance(subject, str) else subject


def _expect_room(policy: Policy, tokens: int, task: Task) -> None:
    context = bare(policy.model).config.get_text_config().max_position_embeddings
    if tokens > context:
        raise UsageError(
            f"the longest prompt and its answer need {tokens} tokens, the model reads {context}",
            where=str(task.origin),
            fix="lower sampling.max_tokens or shorten the prompts",
        )


def sampling_of(recipe: SamplingRecipe) -> Sampling:
    return Sampling(**{**recipe.model_dump(), "stop": tuple(recipe.stop)})
