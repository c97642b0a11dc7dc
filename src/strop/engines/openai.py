"""A model behind an OpenAI-compatible server."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn
from urllib.parse import urlsplit

import torch

from strop.engines.draws import DrawKey
from strop.engines.engine import Chances, PromptedTask, Request, Sampling, expect_served
from strop.errors import HttpError, UnscoredError, UsageError
from strop.http import HttpClient, RequestLimits
from strop.recipe.template import Scalar, TemplateRecipe
from strop.text.script import THOUGHTS, as_messages, opened_by, tools_of
from strop.types import FAILED, Answer, Finish, Task, Tree, Usage

KEY = "STROP_API_KEY"
"""The environment variable with the bearer token, if the endpoint needs one."""

CONTINUED = {"add_generation_prompt": False, "continue_final_message": True}
"""vLLM's and SGLang's options to continue an assistant message at the end of the prompt."""

MOST_LISTED = 20
"""First tokens that are asked for with their log-probs: as many as OpenAI and vLLM give."""

REFUSALS = (400, 413, 422)
"""Statuses by which a server refuses this one request: too long, filtered, malformed."""

FINISHES: Mapping[str, Finish] = {
    "length": "length",
    "abort": "aborted",
    "content_filter": "error",
}
"""Servers' finish reasons of incomplete answers; `abort` is vLLM's and SGLang's."""


LOOK = RequestLimits(seconds=5.0, retries=0)
"""What a look at an endpoint may take."""


class OpenAIEngine:
    """`POST <url>/chat/completions`, one request per sample, with a fixed seed per sample.

    A text prompt is sent as one user message, with its tools, and `options` as vLLM's
    `chat_template_kwargs`. Servers cut the `stop` string off an answer; if they name it (vLLM,
    SGLang) it is put back where the sampling wants it. Raises `UnscoredError` for a request that
    still fails after all retries. A failure never counts as an empty answer: `content: null`
    without a tool call is a failed answer (`finish` is `error`). Calls that a server parsed out of
    the text are put back in Hermes' syntax, `<tool_call>{"name": ..., "arguments":
    ...}</tool_call>`. Answers have no tokens. With `cache` they are kept in that folder, and an
    answered request is not sent again.

    With `lenient` a request that the server refuses (too long, filtered) gets `Answer("", "error")`
    with a warning, and the others continue; with `some_may_fail` so does one that fails after all
    retries while the server answers others. With `thoughts`, a thought that the server returns
    separately (`reasoning_content`) is put before the answer, in `<think>` tags.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        limits: RequestLimits = RequestLimits(),  # noqa: B008 - frozen
        options: Mapping[str, Scalar] = MappingProxyType({}),
        cache: Path | None = None,
        lenient: bool = False,
        some_may_fail: bool = False,
        thoughts: bool = False,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"--endpoint is {url!r}", fix="write http://127.0.0.1:8000/v1")
        if "@" in urlsplit(url).netloc or urlsplit(url).query:
            raise UsageError(
                "the endpoint's address holds a login or a query, which would be written down",
                fix=f"give the address alone, and the key as ${KEY}",
            )
        self.url, self.model, self.options = url.rstrip("/"), model, dict(options)
        key = os.environ.get(KEY, "")
        if not (key.isascii() and key.isprintable()):
            raise UsageError(
                f"${KEY} holds a character that no HTTP header can carry",
                fix="set it to the key alone: letters, digits and signs, no line break",
            )
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.lenient, self.some_may_fail, self.thoughts = lenient, some_may_fail, thoughts
        self.client = HttpClient(limits, headers=headers, cache=cache, keep=_is_answer)

    def identity(self) -> Mapping[str, Any]:
        return {"endpoint": self.url, "model": self.model}

    def expect(self) -> None:
        """Look at the endpoint; nothing is asked of its model. Raises `UsageError` where nobody
        answers, the key is refused, or it lists its models and this one is not among them."""
        looking = HttpClient(LOOK, headers=self.client.headers)
        try:
            listed = looking.get(f"{self.url}/models")
        except HttpError as error:
            if error.status in (401, 403):
                raise UsageError(f"the endpoint refuses the key (status {error.status})",
                                 where=self.url, fix=f"set ${KEY}") from None  # fmt: skip
            if error.status is None:
                raise UsageError(
                    f"no endpoint answers here within {LOOK.seconds:g} s ({error.problem})",
                    where=self.url, fix="check the address, or start the server",
                ) from None  # fmt: skip
            return  # it does not list its models
        names = _names_of(listed)
        if names and self.model not in names:
            raise UsageError(f"the endpoint has no model {self.model!r}", where=self.url,
                             fix=f"give one that it has: {', '.join(names)}")  # fmt: skip

    def with_template(self, template: TemplateRecipe) -> OpenAIEngine:
        if template.chat_template is not None:
            raise UsageError(
                "the suite sets chat_template, but a server writes conversations by itself",
                where=self.url,
                fix="start the server with this template and drop chat_template from the suite",
            )
        limits, cache = self.client.limits, self.client.cache
        options = template.template_options
        return OpenAIEngine(
            self.url, self.model, limits=limits, options=options, cache=cache,
            lenient=self.lenient, some_may_fail=self.some_may_fail, thoughts=self.thoughts,
        )  # fmt: skip

    def prompted(self, tasks: Sequence[Task], sampling: Sampling) -> list[PromptedTask]:
        return [PromptedTask(task, (), opened_by(task.prompt, "")) for task in tasks]

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        for number, said in self._posted([self._body(request) for request in requests]):
            yield number, self._answer(said, requests[number])

    def score(self, trees: Sequence[Tree]) -> list[tuple[float, ...]]:
        self.policy()

    def choose(self, prompts: Sequence[PromptedTask], options: Sequence[str]) -> list[Chances]:
        """From the likeliest first tokens that the server lists: a token counts for the option that
        it is, but for spaces. Options of several tokens are not found."""
        sampling, key = Sampling(temperature=0.0, max_tokens=1), DrawKey(0, "judge")
        bodies = [
            {**self._body(Request(prompt, sampling, key)), "logprobs": True,
             "top_logprobs": MOST_LISTED}
            for prompt in prompts
        ]  # fmt: skip
        found = [Chances(None)] * len(prompts)
        for number, said in self._posted(bodies):
            if isinstance(said, HttpError):
                found[number] = Chances(None, problem=f"the request got no answer ({said.problem})")
            else:
                found[number] = _listed(said, options)
        return found

    def publish(self, weights: Mapping[str, torch.Tensor]) -> int:
        raise UsageError(
            "an endpoint takes no weights from here", where=self.url,
            fix="start the server with the new model",
        )  # fmt: skip

    def policy(self) -> NoReturn:
        raise UsageError(
            "an endpoint gives no likelihoods of given texts", where=self.url,
            fix="leave such tasks out of the suite, or measure a model folder",
        )  # fmt: skip

    def _posted(self, bodies: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Any]]:
        address, refusals = f"{self.url}/chat/completions", REFUSALS if self.lenient else ()
        try:
            yield from self.client.post_all(
                address, bodies, refusals=refusals, some_may_fail=self.some_may_fail
            )
        except HttpError as error:
            raise UnscoredError(
                f"the endpoint did not answer ({error.problem})", where=self.url,
                fix=f"check the address, the model's name and ${KEY}; what was answered is kept",
            ) from None  # fmt: skip

    def _body(self, request: Request) -> dict[str, Any]:
        sampling, task = request.sampling, request.prompt.task
        expect_served(sampling, self.url)
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
            "seed": request.key.seed + request.key.index + (request.key.round << 16),
            **({"stop": list(sampling.stop)} if sampling.stop else {}),
            **({} if sampling.skip_special_tokens else {"skip_special_tokens": False}),
            **({"tools": tools} if tools else {}),
            **(CONTINUED if opened_by(task.prompt, "") else {}),
            **({"chat_template_kwargs": self.options} if self.options else {}),
        }

    def _answer(self, said: Any, request: Request) -> Answer:
        """The answer, with the stop string that ended it if the sampling wants it."""
        if isinstance(said, HttpError):
            warnings.warn(f"{self.url}: a request got no answer ({said.problem})", stacklevel=2)
            return Answer("", "error", opened=request.prompt.opened)
        try:
            choice = said["choices"][0]
            message = choice["message"]
            content, calls = message["content"], _calls(message)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UnscoredError(
                f"the answer is not of the OpenAI form: {type(error).__name__}", where=self.url,
                fix="give the address that ends before /chat/completions",
            ) from None  # fmt: skip
        sampling = request.sampling
        text = "\n".join([*([content] if content else []), *calls])
        matched = choice.get("stop_reason", choice.get("matched_stop"))
        kept = sampling.stop if sampling.include_stop_str_in_output else ()
        if matched in kept and not text.endswith(matched):
            text += matched
        thoughts = [message[name] for name in THOUGHTS if message.get(name)]
        if self.thoughts and thoughts:
            text = f"<think>\n{thoughts[0]}\n</think>\n\n{text}"
        finish = FINISHES.get(choice.get("finish_reason"), "stop")
        if finish == "stop" and content is None and not calls:
            finish = "error"
        return Answer(text, finish, opened=request.prompt.opened, usage=_usage(said))


def _is_answer(said: Any) -> bool:
    """Whether a response may be cached: it has the OpenAI form and did not fail."""
    try:
        choice = said["choices"][0]
        content, calls = choice["message"]["content"], choice["message"].get("tool_calls")
    except (KeyError, IndexError, TypeError, AttributeError):
        return False
    failed = FINISHES.get(choice.get("finish_reason"), "stop") in FAILED
    return not failed and (content is not None or bool(calls))


def _listed(said: Any, options: Sequence[str]) -> Chances:
    """Log-probs of the options among the first tokens that a server lists."""
    try:
        listed = said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        chances = [(str(one["token"]).strip(), float(one["logprob"])) for one in listed]
    except (KeyError, IndexError, TypeError, ValueError):
        return Chances(None, _usage(said), "the server gives no log-probs")
    totals = [
        math.fsum(math.exp(logprob) for token, logprob in chances if token == option.strip())
        for option in options
    ]
    if not any(totals):
        return Chances(None, _usage(said), "none of the verdicts is among its likeliest tokens")
    least = min(logprob for _, logprob in chances) if len(options) == 2 else -math.inf
    return Chances(tuple(math.log(total) if total else least for total in totals), _usage(said))


def _usage(said: Any) -> Usage | None:
    """The server's token counts, if it returns them."""
    counted = said.get("usage")
    used = counted if isinstance(counted, dict) else {}
    prompt, completion = used.get("prompt_tokens"), used.get("completion_tokens")
    if isinstance(prompt, int) and isinstance(completion, int):
        return Usage(prompt, completion)
    return None


def _calls(message: Mapping[str, Any]) -> list[str]:
    """The calls of a message in Hermes' syntax."""
    functions = [call["function"] for call in message.get("tool_calls") or []]
    named = [{"name": f["name"], "arguments": _read(f["arguments"])} for f in functions]
    return [f"<tool_call>{json.dumps(one, ensure_ascii=False)}</tool_call>" for one in named]


def _read(arguments: Any) -> Any:
    """Arguments as an object; text that is not JSON stays as the model wrote it."""
    try:
        return json.loads(arguments)
    except (ValueError, TypeError):
        return arguments


def _names_of(listed: Any) -> list[str]:
    """The models that `/models` lists, in OpenAI's form; none for another form."""
    try:
        return [str(one["id"]) for one in listed["data"]]
    except (KeyError, TypeError):
        return []
