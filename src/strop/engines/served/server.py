"""What every server does for a run, whatever protocol it speaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from strop.engines.engine import Request
from strop.errors import HttpError
from strop.http import HttpClient, RequestLimits
from strop.types import Finish, Routes, VersionSpan

CONTROL_SECONDS = 300.0
"""Within so many seconds a server has to have taken new weights."""
SIGN_SECONDS = 5.0
"""Within so many seconds a server gives a sign of life."""

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class About:
    """What a server holds: `About(model="/models/base", context=4096, adapters=("a1b2-7",))`.

    `model` is the name that it was started with; `context` is `None` where its model sets no bound.
    """

    model: str
    context: int | None
    adapters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Started:
    """How a server was started, as it says itself: `Started(quantization=None, workers=1,
    transfers=frozenset({"ipc"}), sleeps=True)`.

    `workers` are its processes that hold weights, `transfers` the ways by which it takes weights
    from memory to memory (`gloo`, `nccl`, `ipc`), and `sleeps` whether it can give its GPU memory
    back and keep its weights.
    """

    quantization: str | None
    workers: int
    transfers: frozenset[str]
    sleeps: bool


Labels = Mapping[str | None, int]
"""What a server calls its weights, and which versions they are."""


@dataclass(frozen=True, slots=True)
class Span:
    """What a server calls the weights that sampled some tokens: `Span("a1b2-7", 0, 12)`."""

    label: str | None
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Said:
    """An answer: `Said(ids=(5, 2), logprobs=(-0.1, -0.02), finish="stop",
    spans=(Span("a1b2-7", 0, 2),))`.

    `logprobs` are those of the distribution that the ids were drawn from, nats, and `None` where
    the server does not give them; there are no spans where it says nothing of its weights. `routes`
    are those of the prompt and of the answer, where they were asked for.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    finish: Finish
    spans: tuple[Span, ...]
    routes: tuple[Routes, Routes] | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens of an answer that were not told before: `Part(ids=(5, 2), logprobs=(-0.1, -0.02))`;
    `logprobs` are what they are in `Said`."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None


Tell = Callable[[Part], None]


@dataclass(frozen=True, slots=True)
class Scored:
    """Log-probs of given tokens, nats, and what the server calls the weights that gave them:
    `Scored(logprobs=(-0.1, -2.3), spans=(Span("a1b2-7", 0, 0),))`."""

    logprobs: tuple[float, ...]
    spans: tuple[Span, ...]


class OtherWeightsError(HttpError):
    """A server is there, and does not hold the weights that the run gave it."""

    def __init__(self, problem: str, *, where: str) -> None:
        super().__init__(f"{problem}: it was restarted, or serves another run", where=where)


class Server(Protocol):
    """One server; every call has an end. Raises `HttpError` for what fails.

    `adapter` is the name of a loaded adapter, and `None` the model itself. `scores_together` says
    that several texts may be scored at the same time.
    """

    url: str
    scores_together: bool

    def about(self) -> About:
        """Also a sign of life."""

    def expect_usable(self, prompt_ids: Sequence[int]) -> None:
        """Raise `UsageError` where the server says that it runs in a way in which its answers are
        not what a run needs; `prompt_ids` are any prompt to ask it with."""

    def started(self) -> Started | None:
        """How it was started; `None` where it does not say."""

    def encoded(self, body: Body) -> list[int] | None:
        """The ids of a `prompt` or of `messages`; `None` where the server has no tokenizer."""

    def sample(
        self,
        request: Request,
        adapter: str | None,
        stop_ids: Sequence[int],
        *,
        tell: Tell | None = None,
        waiting: Future[Any] | None = None,
    ) -> Said:
        """One answer, drawn with the seed of the request's key.

        `tell` is told its tokens as they are drawn, in order: all that the answer has, exactly.
        When `waiting` is cancelled the connection is closed, by which the server ends its work, and
        `CancelledError` is raised.
        """

    def score(self, ids: Sequence[int], adapter: str | None) -> Scored:
        """Log-probs of all given tokens but the first, at temperature 1."""

    def load_adapter(self, name: str, folder: Path) -> None: ...

    def unload_adapter(self, name: str, *, leaving: bool = False) -> None:
        """One who is `leaving` waits for a sign of life alone."""

    def reload(self, folder: Path) -> None:
        """Read all weights again, from this folder, whose name is theirs from now on, and forget
        what the old ones computed."""

    def receive(self, weights: Mapping[str, torch.Tensor], name: str, way: str) -> None:
        """Take these weights, all of the model's, from memory to memory, by one of its `transfers`;
        `name` is theirs from now on."""

    def sleep(self) -> None:
        """Give the GPU memory back, once all answers are given; weights are kept elsewhere."""

    def wake_up(self, *, leaving: bool = False) -> None:
        """Be ready to answer, or to take weights. One who is `leaving` does not wait for it."""


class Calls:
    """HTTP to one server: questions get `seconds`, new weights and signs of life their own time.

    A sample that takes longer than `seconds` is not asked for again: its server is still at work.
    """

    def __init__(self, url: str, *, seconds: float) -> None:
        self.url = url.rstrip("/")
        self._asking = HttpClient(RequestLimits(seconds=seconds, retries=1, slow_again=False))
        self._control = HttpClient(RequestLimits(seconds=CONTROL_SECONDS, retries=0))
        self._sign = HttpClient(RequestLimits(seconds=SIGN_SECONDS, retries=0))

    def ask(self, route: str, body: Body, waiting: Future[Any] | None = None) -> Any:
        return self._asking.post(f"{self.url}/{route}", body, waiting=waiting)

    def hear(self, route: str, body: Body, waiting: Future[Any] | None) -> Iterator[Any]:
        """The events of an answer, which is asked for as a stream."""
        return self._asking.events(f"{self.url}/{route}", body | {"stream": True}, waiting=waiting)

    def tell(self, route: str, body: Body, *, leaving: bool = False) -> None:
        client = self._sign if leaving else self._control
        client.tell(f"{self.url}/{route}", body)

    def look(self, route: str) -> Any:
        """Answered at once by a server that is alive."""
        return self._sign.get(f"{self.url}/{route}")

    def read(self, route: str) -> Any:
        """What a server has to gather first."""
        return self._control.get(f"{self.url}/{route}")

    def models(self) -> About:
        """What `/v1/models` lists: the model and its adapters, in OpenAI's form with the field
        `max_model_len`, which vLLM and SGLang have in common."""
        said = self.look("v1/models")
        try:
            base = next(one for one in said["data"] if one.get("parent") is None)
            adapters = tuple(str(one["id"]) for one in said["data"] if one.get("parent"))
            most = base["max_model_len"]
            return About(str(base["id"]), None if most is None else int(most), adapters)
        except (KeyError, TypeError, ValueError, StopIteration):
            raise HttpError("the list of models is of another form",
                            where=f"{self.url}/v1/models", status=200) from None  # fmt: skip

    def tokens(self, body: Body) -> list[int] | None:
        """The ids that `/tokenize` gives; `None` where there is no such route."""
        try:
            return [int(i) for i in self.ask("tokenize", body)["tokens"]]
        except HttpError as error:
            if error.status in (404, 405, 501):
                return None
            raise
        except (KeyError, TypeError, ValueError):
            raise HttpError("the answer has no tokens", where=f"{self.url}/tokenize") from None


def spans_of(listed: Sequence[Mapping[str, Any]]) -> tuple[Span, ...]:
    """Spans in the form that vLLM and SGLang have in common."""
    return tuple(
        Span(
            None if one["version"] is None else str(one["version"]),
            int(one["start"]),
            int(one["end"]),
        )
        for one in listed
    )


def weights_of(spans: Sequence[Span]) -> str | None:
    """What an answer's weights are called; `None` where it does not say."""
    return " and ".join(sorted({one.label for one in spans if one.label is not None})) or None


def expect_labels(spans: Sequence[Span], labels: Labels, url: str) -> None:
    """Raise `OtherWeightsError` for weights without one of these labels."""
    if {one.label for one in spans or (Span(None, 0, 0),)} - labels.keys():
        raise OtherWeightsError(
            f"it samples from other weights ({weights_of(spans)}) than were published "
            f"({' or '.join(str(one) for one in labels)})",
            where=url,
        )


def versions_of(said: Said, labels: Labels, url: str) -> tuple[VersionSpan, ...]:
    """Which version sampled which tokens of an answer; one without a token need not say it.

    Raises `OtherWeightsError` for weights without one of these labels, and `HttpError` for spans
    that do not cover the tokens.
    """
    count = len(said.ids)
    if not count and not said.spans:
        return ()
    expect_labels(said.spans, labels, url)
    spans = said.spans or (Span(None, 0, count),)
    stops = [one.stop for one in spans]
    ends = list(zip([0, *stops[:-1]], [*stops[:-1], count], strict=True))
    if count and [(one.start, one.stop) for one in spans] != ends:
        raise HttpError("the answer's weights do not cover its tokens", where=url)
    made = tuple(VersionSpan(one.start, one.stop, labels[one.label]) for one in spans)
    return made if count else ()
