"""A model with its adapters, asked by many at once and changed by one thread alone."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from strop.engines.broadcast import Form, forms_of
from strop.engines.engine import Request
from strop.engines.local.engine import LocalEngine
from strop.errors import UsageError
from strop.model.adapters import attach_adapter, drop_adapter, only_adapter
from strop.model.load import expect_weights, positions_of
from strop.model.logprobs import TreeScorer, bare
from strop.model.routing import expect_routers
from strop.model.save import load_weights
from strop.types import Branch, Completion, Tree

T = TypeVar("T")

GATHERED_WITHIN = 0.004
"""Seconds in which further requests join a batch that waits to begin."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one request wants, of which adapter (`None` is the model alone), and where the result
    goes. `sample` jobs of one adapter run together."""

    adapter: str | None
    sample: Request | None
    run: Callable[[], Any]
    result: Future[Any]


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """What a job came to, and by what name the weights were called then."""

    what: T
    version: str


class Held:
    """The model of a folder. All its work is done by one thread, in the order in which it came, so
    that weights never change within an answer.

    `version` names the weights; adapters have names of their own. With `routes` answers say which
    experts their tokens went to; raises `UsageError` where the model has none.
    """

    def __init__(self, path: str, *, routes: bool = False) -> None:
        self.path, self.version, self.routes = path, "0", routes
        self.engine = LocalEngine(path)
        self.policy = self.engine.policy()
        if routes:
            expect_routers(bare(self.policy.model), path)
        self.context = positions_of(bare(self.policy.model).config)
        self._vocabulary = int(bare(self.policy.model).get_input_embeddings().weight.shape[0])
        self.adapters: set[str] = set()
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._ahead: list[Job | None] = []
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End when what was asked before is done."""
        self._jobs.put(None)
        self._thread.join()

    def sample(self, request: Request, adapter: str | None) -> Future[Answered[Completion]]:
        """An answer; its tokens are the model's and fit its context, else the future has a
        `UsageError`."""
        ids, more = request.prompt.prompt_ids, request.sampling.max_tokens
        return self._put(adapter, request, lambda: self._expect_readable(ids, more))

    def score(self, ids: Sequence[int], adapter: str | None) -> Future[Answered[tuple[float, ...]]]:
        """Log-probs of all ids but the first, nats."""

        def scored() -> Answered[tuple[float, ...]]:
            self._expect_readable(ids)
            branch = Branch(tuple(ids[1:]), (True,) * (len(ids) - 1))
            said = self.engine.score([Tree((ids[0],), (branch,))])[0] if branch.ids else ()
            return Answered(said, self.version)

        return self._put(adapter, None, scored)

    def load_adapter(self, name: str, folder: str) -> Future[None]:
        def load() -> None:
            if name in self.adapters:
                raise UsageError(f"an adapter {name!r} is loaded already",
                                 fix="give every version a name of its own")  # fmt: skip
            self._use(attach_adapter(self.policy.model, name, folder).eval())
            self.adapters.add(name)

        return self._put(None, None, load)

    def unload_adapter(self, name: str) -> Future[None]:
        def unload() -> None:
            if name not in self.adapters:
                raise UsageError(f"no adapter {name!r} is loaded")
            self._use(drop_adapter(self.policy.model, name))
            self.adapters.discard(name)

        return self._put(None, None, unload)

    def reload(self, folder: str) -> Future[None]:
        """Read all weights again from a folder."""

        def read() -> None:
            self._expect_bare()
            expect_weights(folder)
            load_weights(self.policy, Path(folder))

        return self._put(None, None, read)

    def call_weights(self, version: str) -> Future[None]:
        """From now on the weights have this name."""

        def call() -> None:
            self.version = version

        return self._put(None, None, call)

    def quantization(self) -> str | None:
        """How the model's weights are quantised; `None` where they are not."""
        how = bare(self.policy.model).config.to_dict().get("quantization_config")
        return None if how is None else str(how["quant_method"])

    def forms(self) -> list[Form]:
        """What the model's tensors are like."""
        return forms_of(dict(self.policy.model.named_parameters()))

    def take(self, weights: Mapping[str, torch.Tensor], version: str) -> Future[None]:
        """Copy all weights from these, by name; they have the model's forms. `version` is what they
        are called from now on."""

        def copy() -> None:
            self._expect_bare()
            with torch.no_grad():
                for name, own in self.policy.model.named_parameters():
                    own.copy_(weights[name])
            self.version = version

        return self._put(None, None, copy)

    def _put(
        self, adapter: str | None, sample: Request | None, run: Callable[[], Any]
    ) -> Future[Any]:
        job = Job(adapter, sample, run, Future())
        self._jobs.put(job)
        return job.result

    def _use(self, model: Any) -> None:
        """Sample from and score with this model, which has the same weights with other adapters."""
        if model is not self.policy.model:
            self.policy = replace(self.policy, model=model, score=TreeScorer(model))
            self.engine = LocalEngine(self.path, self.policy)

    def _expect_bare(self) -> None:
        if self.policy.is_adapter:
            raise UsageError("adapters were loaded, and belong to the weights that are there",
                             fix="start another server")  # fmt: skip

    def _expect_readable(self, ids: Sequence[int], more: int = 0) -> None:
        """Raise `UsageError` for ids that the model does not know, or too many."""
        if self.context is not None and len(ids) + more > self.context:
            raise UsageError(
                f"{len(ids) + more} tokens are asked for, and the model reads {self.context}"
            )
        if max(ids) >= self._vocabulary:
            raise UsageError(
                f"there is no token {max(ids)}: the model knows {self._vocabulary}, from 0 on"
            )

    def _work(self) -> None:
        while (job := self._next()) is not None:
            if job.sample is None:
                self._do(job)
                continue
            together = [job, *self._gathered()]
            for adapter in dict.fromkeys(one.adapter for one in together):
                self._sample([one for one in together if one.adapter == adapter], adapter)

    def _next(self) -> Job | None:
        return self._ahead.pop() if self._ahead else self._jobs.get()

    def _gathered(self) -> Iterator[Job]:
        """Further samples that have come; the first other job waits until they are done."""
        time.sleep(GATHERED_WITHIN)
        while not self._jobs.empty():
            job = self._jobs.get()
            if job is None or job.sample is None:
                self._ahead.append(job)
                return
            yield job

    def _sample(self, jobs: Sequence[Job], adapter: str | None) -> None:
        """Answer them together; where that fails, each by itself, so that one takes no other with
        it: an answer depends on its request alone."""
        begun = [job for job in jobs if self._ran(job)]
        with suppress(Exception):  # those who are left find out whose fault it was
            self._answer(begun, adapter)
        for job in begun:
            if not job.result.done():
                self._alone(job, partial(self._answer, [job], adapter))

    def _answer(self, jobs: Sequence[Job], adapter: str | None) -> None:
        requests = [job.sample for job in jobs if job.sample is not None]
        with only_adapter(self.policy.model, adapter):
            for number, completion in self.engine.generate(requests):
                jobs[number].result.set_result(Answered(completion, self.version))

    def _ran(self, job: Job) -> bool:
        """Whether somebody still waits for a job and what it needs is there; else they are told."""
        if not job.result.set_running_or_notify_cancel():
            return False

        def expect() -> None:
            job.run()
            self._expect_adapter(job.adapter)

        return self._alone(job, expect)

    def _do(self, job: Job) -> None:
        def run() -> None:
            self._expect_adapter(job.adapter)
            with only_adapter(self.policy.model, job.adapter):
                job.result.set_result(job.run())

        if job.result.set_running_or_notify_cancel():
            self._alone(job, run)

    def _alone(self, job: Job, run: Callable[[], Any]) -> bool:
        """Whether it ran; else the one who waits for the job is told why."""
        try:
            run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits has to be told
            job.result.set_exception(error)
            return False
        return True

    def _expect_adapter(self, name: str | None) -> None:
        if name is not None and name not in self.adapters:
            raise UsageError(f"no model {name!r} is loaded", fix=f"there are {self.path!r} and "
                             f"{', '.join(sorted(self.adapters)) or 'no adapters'}")  # fmt: skip
