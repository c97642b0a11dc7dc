"""The engine protocol: requests become completions, given tokens get log-probs, new weights are
published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol, TypeVar

import torch

from strop.engines.draws import DrawKey
from strop.engines.grammar import Grammar
from strop.errors import UsageError
from strop.model.network import Policy
from strop.recipe.template import TemplateRecipe
from strop.recipe.train.rollout import RolloutRecipe, SamplingRecipe
from strop.text.encode import Tokenizer
from strop.text.render import opening, prompts_ids
from strop.types import Answer, Task, Tree, Usage

A = TypeVar("A", bound=Answer)


EMBEDDED = ("repetition_penalty", "frequency_penalty", "presence_penalty", "logit_bias", "grammar",
            "top_logprobs")  # fmt: skip
"""Options of sampling that the embedded engine alone reads."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw: `Sampling(temperature=1.0, max_tokens=64)`; temperature 0 is greedy.

    Truncations apply after temperature, in this order: `top_k` (0 is off), `top_p` (1 is off),
    `min_p` (0 is off; relative to the likeliest token). An answer ends at the first of the `stop`
    strings. Its text includes the stop string unless `include_stop_str_in_output` is off, and
    excludes special tokens unless `skip_special_tokens` is off. (Both are vLLM's names.) With
    `entropies` the completions of the embedded engine say the entropy at each of their tokens, with
    `routes` to which experts their tokens went (servers say it where they were started so).

    The embedded engine alone reads what follows; all of it changes the logits before the
    temperature, so that log-probs are those of the distribution that results. `logit_bias` is added
    to the logits of its tokens. `repetition_penalty` divides positive logits and multiplies
    negative ones of all tokens of the prompt and of the answer so far (1 is off). From the logit of
    a token that the answer contains n times, `frequency_penalty` is subtracted n times, and
    `presence_penalty` once. (vLLM's names and order.) With a `grammar` only tokens that continue a
    text of it are drawn, and the answer ends where that is complete. With `top_logprobs`
    completions say so many likeliest tokens at each place.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    include_stop_str_in_output: bool = True
    skip_special_tokens: bool = True
    entropies: bool = False
    routes: bool = False
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    grammar: Grammar | None = None
    top_logprobs: int = 0

    def plain(self) -> dict[str, Any]:
        """As JSON has it, to be noted and compared. What the embedded engine alone reads is there
        only where it is set, so that earlier notes stay equal."""
        said = asdict(self) | {"stop": list(self.stop)}
        unset = Sampling()
        left_out = [name for name in EMBEDDED if getattr(self, name) == getattr(unset, name)]
        return {name: value for name, value in said.items() if name not in left_out}

    @property
    def changes_logits(self) -> bool:
        """Whether anything but temperature and truncations decides what is drawn from."""
        penalties = (self.repetition_penalty, self.frequency_penalty, self.presence_penalty)
        return penalties != (1, 0, 0) or bool(self.logit_bias) or self.grammar is not None


def expect_served(sampling: Sampling, where: str) -> None:
    """Raise `UsageError` for what the embedded engine alone can do."""
    if sampling.changes_logits or sampling.top_logprobs:
        raise UsageError(
            "penalties, logit_bias, top_logprobs and grammars are not sent to a server",
            where=where,
            fix="sample from the model's folder, with the embedded engine",
        )


def sampling_of(recipe: SamplingRecipe | RolloutRecipe) -> Sampling:
    """The sampling of a recipe; truncations that it does not name are off."""
    names = {field.name for field in fields(Sampling)}
    given = {name: value for name, value in recipe if name in names}
    return Sampling(**{**given, "stop": tuple(recipe.stop)})


@dataclass(frozen=True, slots=True)
class PromptedTask:
    """A task with its rendered prompt: `PromptedTask(task, prompt_ids=(1, 4), opened="<think>")`.

    `opened` is the beginning of the answer that the prompt already contains; `prompt_ids` are empty
    if a server renders the prompt. Prompts of different `salt` are read apart: what was kept of one
    is not taken for another, so that the time an answer takes does not tell what others asked.
    """

    task: Task
    prompt_ids: tuple[int, ...]
    opened: str = ""
    salt: str = ""


def prompted_tasks(tokenizer: Tokenizer, tasks: Sequence[Task]) -> list[PromptedTask]:
    """Tasks with their prompts as the model reads them."""
    return [
        PromptedTask(task, ids, opening(tokenizer, task.prompt, ids))
        for task, ids in zip(tasks, prompts_ids(tokenizer, tasks), strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Request:
    """A request for one completion: `Request(prompt, Sampling(max_tokens=64), DrawKey(0, "eval",
    prompt="1,4", index=2))`."""

    prompt: PromptedTask
    sampling: Sampling
    key: DrawKey


def requests_of(
    prompts: Sequence[PromptedTask], sampling: Sampling, key: DrawKey, group_size: int
) -> list[Request]:
    """`group_size` requests per prompt, prompt by prompt; `key` is the draw key without prompt and
    index.

    If a prompt appears twice its indices continue, so that its answers differ.
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
    """The answers that `Engine.generate` yields for `requests_of`, in order, `group_size` per
    prompt.

    Raises `UsageError` if a request has no answer or several.
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


@dataclass(frozen=True, slots=True)
class Chances:
    """How likely an answer begins with each option: `Chances((-0.2, -1.7), Usage(120, 1))`; nats.

    An option that a server does not list has `-inf`; one of two counts as the least likely token
    that is listed, which is the most that it can be. `logprobs` are `None` where there are none,
    and `problem` says why.
    """

    logprobs: tuple[float, ...] | None
    usage: Usage | None = None
    problem: str = ""


class RolloutEngine(Protocol):
    """What training asks of an engine: answers, from the weights that were published."""

    def identity(self) -> Mapping[str, Any]:
        """Identifies the engine; has `path` and `sha256` if there are weights."""

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """(index of the request, its answer), one by one as they finish; a `Completion` if the
        engine returns tokens. An answer depends on its request alone, not on the other requests."""

    def publish(self, weights: Mapping[str, torch.Tensor]) -> int:
        """Load these weights, by parameter name; returns the new version of the policy."""


class Engine(RolloutEngine, Protocol):
    """Generates answers: a model in this process, a server, recorded answers. A method that an
    engine does not support raises `UsageError`."""

    def with_template(self, template: TemplateRecipe) -> Engine:
        """The same engine with a suite's chat template."""

    def prompted(self, tasks: Sequence[Task], sampling: Sampling) -> Sequence[PromptedTask]:
        """The tasks' prompts as this engine renders them; raises if the longest leaves no room for
        an answer."""

    def score(self, trees: Sequence[Tree]) -> list[tuple[float, ...]]:
        """Log-probs of the supervised tokens of every branch, branch by branch, nats, at
        temperature 1."""

    def choose(self, prompts: Sequence[PromptedTask], options: Sequence[str]) -> list[Chances]:
        """How likely each answer begins with each of the options."""

    def policy(self) -> Policy:
        """The model itself, for tasks that read whole distributions over the vocabulary."""
