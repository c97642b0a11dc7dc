"""A model with its adapters, asked by many at once and changed by one thread alone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from strop.engines.broadcast import Form, forms_of
from strop.engines.engine import Request
from strop.engines.local.engine import LocalEngine
from strop.engines.server.lanes import Answered, Lanes, Wanted, fail
from strop.errors import UsageError
from strop.model.adapters import attach_adapter, drop_adapter, only_adapter
from strop.model.load import expect_weights, positions_of
from strop.model.logprobs import TreeScorer, bare
from strop.model.routing import expect_routers
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

    `version` names the weights; adapters have names of their own. With `routes` answers say which
    experts their tokens went to; raises `UsageError` where the model has none.
    """

    def __init__(self, path: str, *, routes: bool = False) -> None:
        self.path, self.version, self.routes = path, "0", routes
        self.engine = LocalEngine(path, prefix_bytes=PREFIX_BYTES)
        self.policy = self.engine.policy()
        if routes:
            expect_routers(bare(self.policy.model), where=path)
        self.context = positions_of(bare(self.policy.model).config)
        self._vocabulary = int(bare(self.policy.model).get_input_embeddings().weight.shape[0])
        self.adapters: set[str] = set()
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._lanes = Lanes()
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

        return self._put(None, None, load, changes=True)

    def unload_adapter(self, name: str) -> Future[None]:
        def unload() -> None:
            if name not in self.adapters:
                raise UsageError(f"no adapter {name!r} is loaded")
            self._use(drop_adapter(self.policy.model, name))
            self.adapters.discard(name)

        return self._put(None, None, unload, changes=True)

    def reload(self, folder: str) -> Future[None]:
        """Read all weights again from a folder."""

        def read() -> None:
            self._expect_bare()
            expect_weights(folder)
            load_weights(self.policy, Path(folder))

        return self._put(None, None, read, changes=True)

    def call_weights(self, version: str) -> Future[None]:
        """From now on the weights have this name."""

        def call() -> None:
            self.version = version

        return self._put(None, None, call, changes=True)

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

        return self._put(None, None, copy, changes=True)

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

    def _use(self, model: Any) -> None:
        """Sample from and score with this model, which has the same weights with other adapters."""
        if model is not self.policy.model:
            self.policy = replace(self.policy, model=model, score=TreeScorer(model))
            self.engine = LocalEngine(self.path, self.policy, prefix_bytes=PREFIX_BYTES)

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
        while (job := self._next_other()) is not None:
            self._do(job)

    def _next_other(self) -> Job | None:
        """Decode, samples that come joining, until another job is to be done; before weights change
        the answers that were asked for are finished."""
        while True:
            if self._lanes.busy and self._jobs.empty():
                self._lanes.step(self.engine)
                continue
            job = self._jobs.get()
            if job is not None and job.sample is not None:
                self._take(job, job.sample)
                continue
            while self._lanes.busy and (job is None or job.changes):
                self._lanes.step(self.engine)
            return job

    def _take(self, job: Job, request: Request) -> None:
        """Let a sample join, unless nobody waits for it any more. It can be called off until it is
        answered."""
        if job.result.cancelled():
            job.result.set_running_or_notify_cancel()
            return
        try:
            job.run()
            self._expect_adapter(job.adapter)
            self._lanes.add(self.engine, Wanted(request, job.adapter, self.version, job.result))
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits has to be told
            fail(job.result, error)

    def _do(self, job: Job) -> None:
        if not job.result.set_running_or_notify_cancel():
            return
        try:
            self._expect_adapter(job.adapter)
            with only_adapter(self.policy.model, job.adapter):
                told = self._changed(job) if job.changes else job.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits has to be told
            job.result.set_exception(error)
        else:
            job.result.set_result(told)

    def _changed(self, job: Job) -> Any:
        """What is kept of prompts is of the weights before; a change that fails may be half
        done."""
        try:
            return job.run()
        finally:
            self.engine.forget_prefixes()

    def _expect_adapter(self, name: str | None) -> None:
        if name is not None and name not in self.adapters:
            raise UsageError(f"no model {name!r} is loaded", fix=f"there are {self.path!r} and "
                             f"{', '.join(sorted(self.adapters)) or 'no adapters'}")  # fmt: skip
