"""A model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import httpx

from strop.errors import UnscoredError, UsageError
from strop.model.network import Policy
from strop.recipe.template import Scalar, TemplateRecipe
from strop.recipe.train.rollout import SamplingRecipe
from strop.rollout.collect import PromptedTask
from strop.text.script import as_messages, opened_by, tools_of
from strop.types import Completion, FinishReason, Rollout, Task

KEY = "STROP_API_KEY"
"""The environment variable with the bearer token, if the endpoint asks for one."""

AT_ONCE = 8
"""Requests on their way at a time."""

RETRIES = 4
"""Further attempts where the connection fails, or the server is busy or broken."""


CONTINUED = {"add_generation_prompt": False, "continue_final_message": True}
"""vLLM's and SGLang's way to go on with an assistant message that the prompt ends with."""


class Endpoint:
    """`POST <url>/chat/completions`, one request a sample, its seed fixed per sample.

    A text prompt is sent as one user message, tools beside it, and `options` as vLLM's
    `chat_template_kwargs`. Servers cut the `stop` string off an answer; where they say which one it
    was (vLLM, SGLang) it is put back if it is wanted. Raises `UnscoredError` for a request that
    fails to the end: nothing is taken for an empty answer.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        seconds: float = 120.0,
        options: Mapping[str, Scalar] = MappingProxyType({}),
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"--endpoint is {url!r}", fix="write http://127.0.0.1:8000/v1")
        self.url, self.model, self.seconds = url.rstrip("/"), model, seconds
        self.options = dict(options)

    def identity(self) -> Mapping[str, Any]:
        return {"endpoint": self.url, "model": self.model}

    def speaking(self, template: TemplateRecipe) -> Endpoint:
        if template.chat_template is not None:
            raise UsageError(
                "the suite sets chat_template, but a server writes conversations by itself",
                where=self.url,
                fix="start the server with this template and drop chat_template from the suite",
            )
        options = template.template_options
        return Endpoint(self.url, self.model, seconds=self.seconds, options=options)

    def policy(self) -> Policy:
        raise UsageError(
            "an endpoint gives no likelihoods of given texts", where=self.url,
            fix="leave such tasks out of the suite, or measure a model folder",
        )  # fmt: skip

    def answer(
        self, tasks: Sequence[Task], sampling: SamplingRecipe, samples: int, seed: int
    ) -> list[Rollout]:
        asked = [(task, sample) for task in tasks for sample in range(samples)]
        key = os.environ.get(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with (
            httpx.Client(timeout=self.seconds, headers=headers) as client,
            ThreadPoolExecutor(AT_ONCE) as threads,
        ):
            bodies = [self._body(task, sampling, seed + sample) for task, sample in asked]
            kept = sampling.stop if sampling.include_stop_str_in_output else []
            said = list(threads.map(lambda body: self._asked(client, body, kept), bodies))
        groups = (said[first : first + samples] for first in range(0, len(said), samples))
        asked_of = [PromptedTask(task, (), opened_by(task.prompt, "")) for task in tasks]
        return [one.answered(group) for one, group in zip(asked_of, groups, strict=True)]

    def _body(self, task: Task, sampling: SamplingRecipe, seed: int) -> dict[str, Any]:
        if sampling.top_k or sampling.min_p:
            raise UsageError(
                "top_k and min_p are not part of the OpenAI interface",
                fix="use temperature and top_p",
            )
        tools = tools_of(task.columns.get("tools"))
        return {
            "model": self.model,
            "messages": as_messages(task.prompt, role="user"),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": seed,
            **({"stop": sampling.stop} if sampling.stop else {}),
            **({} if sampling.skip_special_tokens else {"skip_special_tokens": False}),
            **({"tools": tools} if tools else {}),
            **(CONTINUED if opened_by(task.prompt, "") else {}),
            **({"chat_template_kwargs": self.options} if self.options else {}),
        }

    def _asked(
        self, client: httpx.Client, body: Mapping[str, Any], kept: Sequence[str]
    ) -> Completion:
        problem = ""
        for attempt in range(RETRIES + 1):
            if attempt:
                time.sleep(min(8.0, 0.25 * 2**attempt))
            try:
                response = client.post(f"{self.url}/chat/completions", json=dict(body))
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if response.status_code == 200:
                return _completion(response, self.url, kept)
            problem = f"status {response.status_code}: {response.text[:200]}"
            if response.status_code < 500 and response.status_code not in (408, 429):
                break
        raise UnscoredError(
            f"the endpoint did not answer ({problem})", where=self.url,
            fix=f"check the address, the model's name and ${KEY}; what was answered is kept",
        )  # fmt: skip


def _completion(response: httpx.Response, url: str, kept: Sequence[str]) -> Completion:
    """The answer; with the stop string that ended it, where it is one of `kept`."""
    try:
        choice = response.json()["choices"][0]
        text = choice["message"]["content"] or ""
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UnscoredError(
            f"the answer is not of the OpenAI form: {type(error).__name__}", where=url,
            fix="give the address that ends before /chat/completions",
        ) from None  # fmt: skip
    matched = choice.get("stop_reason", choice.get("matched_stop"))
    if matched in kept and not text.endswith(matched):
        text += matched
    finish: FinishReason = "length" if choice.get("finish_reason") == "length" else "stop"
    return Completion((), text, (), finish)
