"""What an engine is: it turns requests into completions, scores given tokens, takes new weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar

import torch

from strop.engines.draws import DrawKey
from strop.errors import UsageError
from strop.model.network import Policy
from strop.recipe.template import TemplateRecipe
from strop.recipe.train.rollout import RolloutRecipe, SamplingRecipe
from strop.text.encode import Tokenizer
from strop.text.render import opening, prompts_ids
from strop.types import Answer, Task, Tree

A = TypeVar("A", bound=Answer)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw: `Sampling(temperature=1.0, max_tokens=64)`; temperature 0 is greedy.

    Truncations apply after temperature, in this order: `top_k` (0 is off), `top_p` (1 is off),
    `min_p` (0 is off; relative to the likeliest token). An answer ends at the first of the `stop`
    strings, which stays in its text unless `include_stop_str_in_output` is off; its special tokens
    do not, unless `skip_special_tokens` is off. (Both are vLLM's names.)
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    include_stop_str_in_output: bool = True
    skip_special_tokens: bool = True


def sampling_of(recipe: SamplingRecipe | RolloutRecipe) -> Sampling:
    """What a recipe says of sampling; what it does not name is off."""
    names = {field.name for field in fields(Sampling)}
    given = {name: value for name, value in recipe if name in names}
    return Sampling(**{**given, "stop": tuple(recipe.stop)})


@dataclass(frozen=True, slots=True)
class PromptedTask:
    """A task with its rendered prompt: `PromptedTask(task, prompt_ids=(1, 4), opened="<think>")`.

    `opened` is what the prompt has begun of the answer; `prompt_ids` are empty where a server
    writes the prompt.
    """

    task: Task
    prompt_ids: tuple[int, ...]
    opened: str = ""


def prompted_tasks(tokenizer: Tokenizer, tasks: Sequence[Task]) -> list[PromptedTask]:
    """Tasks with their prompts as the model reads them."""
    return [
        PromptedTask(task, ids, opening(tokenizer, task.prompt, ids))
        for task, ids in zip(tasks, prompts_ids(tokenizer, tasks), strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Request:
    """One completion that is wanted:
    `Request(prompt, Sampling(max_tokens=64), DrawKey(0, "eval", prompt="1,4", index=2))`."""

    prompt: PromptedTask
    sampling: Sampling
    key: DrawKey


def requests_of(
    prompts: Sequence[PromptedTask], sampling: Sampling, key: DrawKey, group_size: int
) -> list[Request]:
    """`group_size` requests per prompt, prompt by prompt; `key` says all but prompt and index.

    The indices of a prompt that comes again count on, so that its answers are others.
    """
    seen: Counter[tuple[int, ...]] = Counter()
    requests = []
    for prompt in prompts:
        ids = prompt.prompt_ids
        name = ",".join(map(str, ids)) if ids else str(prompt.task.origin)
        first = seen[ids] if ids else 0
        for index in range(first, first + group_size):
            requests.append(Request(prompt, sampling, replace(key, prompt=name, index=index)))
        seen[ids] += group_size
    return requests


def in_groups(finished: Iterable[tuple[int, A]], group_size: int) -> list[tuple[A, ...]]:
    """What `Engine.generate` yields of `requests_of`, in their order: `group_size` per prompt.

    Raises `UsageError` where a request has no answer or two.
    """
    ordered = sorted(finished, key=lambda pair: pair[0])
    indices = [index for index, _ in ordered]
    if indices != list(range(len(ordered))) or len(ordered) % group_size:
        raise UsageError(
            f"the engine gave {len(ordered)} answers, to requests {indices[:5]} and so on, where "
            "each request has one",
            fix="let `generate` yield every request's index once, with its answer",
        )
    answers = [answer for _, answer in ordered]
    return [
        tuple(answers[first : first + group_size]) for first in range(0, len(answers), group_size)
    ]


class Engine(Protocol):
    """Where tokens come from: a model in this process, a server, recorded answers.

    An engine that cannot do one of these raises `UsageError`.
    """

    def identity(self) -> Mapping[str, Any]:
        """What makes it this engine and no other; `path` and `sha256` where there are weights."""

    def speaking(self, template: TemplateRecipe) -> Engine:
        """The same engine, writing conversations as a suite says."""

    def prompted(self, tasks: Sequence[Task], sampling: Sampling) -> Sequence[PromptedTask]:
        """The tasks' prompts as this engine writes them, with room for answers to the longest."""

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """(index of the request, its answer), one by one as they finish; a `Completion` where the
        engine gives tokens. An answer depends on its request alone, whatever its company."""

    def score(self, trees: Sequence[Tree]) -> list[tuple[float, ...]]:
        """Log-probs of the supervised tokens of every branch, branch by branch, nats, at
        temperature 1."""

    def publish(self, weights: Mapping[str, torch.Tensor]) -> int:
        """Take these weights, by parameter name; the version of the policy they make."""

    def policy(self) -> Policy:
        """The model itself, for tasks that read whole distributions over the vocabulary."""
