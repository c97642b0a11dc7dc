"""Who is measured: a model on this machine, one behind an endpoint, or recorded answers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from strop.engines.engine import Sampling
from strop.engines.local import LocalSampler
from strop.errors import UsageError
from strop.model.load import load_for_inference, load_tokenizer, weights_hash
from strop.model.logprobs import bare
from strop.model.network import Policy
from strop.recipe.template import AS_IT_IS, TemplateRecipe
from strop.recipe.train.rollout import SamplingRecipe
from strop.rollout.collect import prompted_tasks
from strop.text.chat.named import with_template
from strop.types import Rollout, Task


class Subject(Protocol):
    """Somebody who can be asked."""

    def identity(self) -> Mapping[str, Any]:
        """What makes it this subject and no other; `path` and `sha256` where there are weights."""

    def speaking(self, template: TemplateRecipe) -> Subject:
        """The same one, whose conversations are written as a suite says."""

    def policy(self) -> Policy:
        """The model itself, for tasks that read likelihoods; `UsageError` where it is elsewhere."""

    def answer(
        self, tasks: Sequence[Task], sampling: SamplingRecipe, samples: int, seed: int
    ) -> list[Rollout]:
        """`samples` answers to every task, in order. The same for a task whatever its company."""


class LocalModel:
    """A model folder (or hub name), loaded once it is asked; or one that is loaded already."""

    def __init__(
        self, path: str, loaded: Policy | None = None, template: TemplateRecipe = AS_IT_IS
    ) -> None:
        self.path, self._loaded, self.template = path, loaded, template

    def identity(self) -> Mapping[str, Any]:
        return {"path": self.path, "sha256": weights_hash(self.path)}

    def speaking(self, template: TemplateRecipe) -> LocalModel:
        if self._loaded is None or template == AS_IT_IS:
            return LocalModel(self.path, self._loaded, template)
        tokenizer = with_template(copy.deepcopy(self._loaded.tokenizer), template)
        return LocalModel(self.path, replace(self._loaded, tokenizer=tokenizer), template)

    def policy(self) -> Policy:
        if self._loaded is None:
            self._loaded = load_for_inference(self.path, self.template)
        return self._loaded

    def tokenizer(self) -> Any:
        if self._loaded is None:
            return load_tokenizer(self.path, template=self.template)
        return self._loaded.tokenizer

    def answer(
        self, tasks: Sequence[Task], sampling: SamplingRecipe, samples: int, seed: int
    ) -> list[Rollout]:
        policy = self.policy()
        asked = prompted_tasks(policy.tokenizer, tasks)
        longest = max(asked, key=lambda one: len(one.prompt_ids))
        _expect_room(policy, len(longest.prompt_ids) + sampling.max_tokens, longest.task)
        sampled = LocalSampler(policy.model, policy.tokenizer, arithmetic=policy.arithmetic).sample(
            [one.prompt_ids for one in asked],
            group_size=samples,
            sampling=sampling_of(sampling),
            seed=seed,
            step=0,
        )
        return [one.answered(group) for one, group in zip(asked, sampled, strict=True)]


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
