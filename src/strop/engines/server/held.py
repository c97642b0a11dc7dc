"""A model with its adapters, asked by many at once and changed by one thread alone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from strop.engines.engine import Request
from strop.engines.local.engine import LocalEngine
from strop.engines.server.lanes import Lanes
from strop.errors import UsageError
from strop.model.adapters import attach_adapter, drop_adapter, only_adapter
from strop.model.load import expect_weights, positions_of
from strop.model.logprobs import TreeScorer, bare
from strop.model.save import load_weights
from strop.types import Branch, Completion, Tree

PREFIX_BYTES = 2**28
"""Of prompts' keys and values that are kept for later requests: 256 MiB."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one request wants, of which adapter (`None` is the model alone), and where the result
    goes. `sample` jobs of one adapter decode together; what `changes` weights waits for them."""

    adapter: str | None
    sample: Request | None
    run: Callable[[], Any]
    changes: bool
    result: Future[Any]


class Held:
    """The model of a folder. All its work is done by one thread. Samples join those that decode;
    what changes weights waits until their answers are done, and what comes later waits for it, so
    that weights never change within an answer.

    `version` names the weights; adapters have names of their own.
    """

    def __init__(self, path: str) -> None:
        self.path, self.version = path, "0"
        self.engine = LocalEngine(path, prefix_bytes=PREFIX_BYTES)
        self.policy = self.engine.policy()
        self.context = positions_of(bare(self.policy.model).config)
        self.adapters: set[str] = set()
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._lanes = Lanes()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End when what was asked before is done."""
        self._jobs.put(None)
        self._thread.join()

    def sample(self, request: Request, adapter: str | None) -> Future[Completion]:
        """An answer; its tokens fit the context, else the future has a `UsageError`."""
        length = len(request.prompt.prompt_ids) + request.sampling.max_tokens
        return self._put(adapter, request, lambda: self._expect_room(length))

    def score(self, ids: Sequence[int], adapter: str | None) -> Future[tuple[float, ...]]:
        """Log-probs of all ids but the first, nats."""

        def scored() -> tuple[float, ...]:
            self._expect_room(len(ids))
            branch = Branch(tuple(ids[1:]), (True,) * (len(ids) - 1))
            return self.engine.score([Tree((ids[0],), (branch,))])[0]

        return self._put(adapter, None, scored)

    def load_adapter(self, name: str, folder: str) -> Future[None]:
        def load() -> None:
            if name in self.adapters:
                raise UsageError(f"an adapter {name!r} is loaded already",
                                 fix="give every version a name of its own")  # fmt: skip
            model = attach_adapter(self.policy.model, name, folder).eval()
            self.policy = replace(self.policy, model=model, score=TreeScorer(model))
            self.engine = LocalEngine(self.path, self.policy, prefix_bytes=PREFIX_BYTES)
            self.adapters.add(name)

        return self._put(None, None, load, changes=True)

    def unload_adapter(self, name: str) -> Future[None]:
        def unload() -> None:
            drop_adapter(self.policy.model, name)
            self.adapters.discard(name)

        return self._put(None, None, unload, changes=True)

    def reload(self, folder: str) -> Future[None]:
        """Read all weights again from a folder."""

        def read() -> None:
            if self.policy.is_adapter:
                raise UsageError("adapters were loaded, and belong to the weights that are there",
                                 fix="start another server")  # fmt: skip
            expect_weights(folder)
            load_weights(self.policy, Path(folder))
            self.engine.forget_prefixes()

        return self._put(None, None, read, changes=True)

    def forget_prefixes(self) -> Future[None]:
        """Drop what is kept of prompts that were read."""
        return self._put(None, None, lambda: self.engine.forget_prefixes())

    def _put(
        self,
        adapter: str | None,
        sample: Request | None,
        run: Callable[[], Any],
        *,
        changes: bool = False,
    ) -> Future[Any]:
        job = Job(adapter, sample, run, changes, Future())
        self._jobs.put(job)
        return job.result

    def _expect_room(self, tokens: int) -> None:
        if self.context is not None and tokens > self.context:
            raise UsageError(f"{tokens} tokens are asked for, and the model reads {self.context}")

    def _work(self) -> None:
        while (job := self._next_other()) is not None:
            self._do(job)

    def _next_other(self) -> Job | None:
        """Decode, samples that come joining, until another job is to be done; before weights change
        the answers that were asked for are finished."""
        while True:
            if self._lanes.busy and self._jobs.empty():
                self._lanes.step(self.policy.model)
                continue
            job = self._jobs.get()
            if job is not None and job.sample is not None:
                self._take(job)
                continue
            while self._lanes.busy and (job is None or job.changes):
                self._lanes.step(self.policy.model)
            return job

    def _take(self, job: Job) -> None:
        if job.sample is not None and self._ran(job):
            self._lanes.add(self.engine, job.adapter, job.sample, job.result)

    def _ran(self, job: Job) -> bool:
        """Whether what a job needs is there; else it is told."""
        try:
            job.run()
            self._expect_adapter(job.adapter)
        except UsageError as error:
            job.result.set_exception(error)
            return False
        return True

    def _do(self, job: Job) -> None:
        try:
            self._expect_adapter(job.adapter)
            with only_adapter(self.policy.model, job.adapter):
                job.result.set_result(job.run())
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits has to be told
            job.result.set_exception(error)

    def _expect_adapter(self, name: str | None) -> None:
        if name is not None and name not in self.adapters:
            raise UsageError(f"no model {name!r} is loaded", fix=f"there are {self.path!r} and "
                             f"{', '.join(sorted(self.adapters)) or 'no adapters'}")  # fmt: skip
