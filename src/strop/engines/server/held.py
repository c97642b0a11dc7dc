"""A model with its adapters, asked by many at once and changed by one thread alone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from strop.engines.broadcast import Form, forms_of
from strop.engines.endings import stop_ids
from strop.engines.engine import Request
from strop.engines.local.engine import LocalEngine
from strop.engines.server.lanes import Answered, Lanes, Progress, Stream, Wanted, fail
from strop.errors import UsageError
from strop.model.adapters import attach_adapter, drop_adapter, only_adapter
from strop.model.load import expect_weights, positions_of
from strop.model.logprobs import bare
from strop.model.routing import expect_routers
from strop.model.save import load_weights
from strop.types import Branch, Completion, Tree

PREFIX_BYTES = 2**28
"""Of prompts' keys and values that are kept for later requests: 256 MiB."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one request wants, of which adapter (`None` is the model alone), and where the result
    goes. `sample` jobs of one adapter decode together; what `changes` weights waits for all."""

    adapter: str | None
    sample: Request | None
    run: Callable[[], Any]
    changes: bool
    result: Future[Any]
    stream: Stream | None = None


@dataclass(frozen=True, slots=True)
class Leaving:
    """An adapter, by its name in the model, that goes when nobody uses it any more."""

    adapter: str


class Held:
    """The model of a folder. All its work is done by one thread. Samples join those that decode;
    scores, and adapters that come or go, are done between their turns. What changes the model's own
    weights waits until all answers are done, and what comes later waits for it, so that weights
    never change within an answer.

    `version` names the weights; `adapters` are names in the model by the names that they are asked
    by: an adapter that is loaded under the name of one that was unloaded is another, and answers in
    flight finish with theirs. With `routes` answers say which experts their tokens went to; raises
    `UsageError` where the model has none.
    """

    def __init__(self, path: str, *, routes: bool = False) -> None:
        self.path, self.version, self.routes = path, "0", routes
        self.engine = LocalEngine(path, prefix_bytes=PREFIX_BYTES)
        self.policy = self.engine.policy()
        if routes:
            expect_routers(bare(self.policy.model), where=path)
        self.context = positions_of(bare(self.policy.model).config)
        self.ends = stop_ids(bare(self.policy.model), self.policy.tokenizer)
        self._vocabulary = int(bare(self.policy.model).get_input_embeddings().weight.shape[0])
        self.adapters: dict[str, str] = {}
        self._loaded = 0  # so many adapters were
        self._leaving: list[tuple[str, Future[Any]]] = []
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._lanes = Lanes()
        self._grammars = ThreadPoolExecutor(1, "grammars")  # to compile one holds up nobody else
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End when what was asked before is done."""
        self._grammars.shutdown()
        self._jobs.put(None)
        self._thread.join()

    def sample(
        self,
        request: Request,
        adapter: str | None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Future[Answered[Completion]]:
        """An answer; its tokens are the model's and fit its context, else the future has a
        `UsageError`. `progress` is told the answer's tokens as they are drawn, by the thread that
        draws them: it has to be quick. One that raises fails the request."""
        ids, more = request.prompt.prompt_ids, request.sampling.max_tokens
        stream = None if progress is None else Stream(progress)
        job = Job(adapter, request, lambda: self._expect_readable(ids, more), False, Future(),
                  stream)  # fmt: skip
        if request.sampling.grammar is None:
            self._jobs.put(job)
        else:
            self._grammars.submit(self._make_ready, job, request)
        return job.result

    def score(self, ids: Sequence[int], adapter: str | None) -> Future[Answered[tuple[float, ...]]]:
        """Log-probs of all ids but the first, nats."""

        def scored() -> Answered[tuple[float, ...]]:
            self._expect_readable(ids)
            branch = Branch(tuple(ids[1:]), (True,) * (len(ids) - 1))
            said = self.engine.score([Tree((ids[0],), (branch,))])[0] if branch.ids else ()
            return Answered(said, self.version)

        return self._put(adapter, None, scored)

    def load_adapter(self, name: str, folder: str) -> Future[None]:
        """Those who decode go on. Raises `UsageError` for a name that is loaded."""

        def load() -> None:
            if name in self.adapters:
                raise UsageError(f"an adapter {name!r} is loaded already",
                                 fix="give every version a name of its own")  # fmt: skip
            self._loaded += 1
            own = f"a{self._loaded}"
            self._use(attach_adapter(self.policy.model, own, folder).eval())
            self.adapters[name] = own

        return self._put(None, None, load)

    def unload_adapter(self, name: str) -> Future[None]:
        """Nobody can ask for it any more. It is done when its answers in flight are finished;
        others go on."""

        def unload() -> Leaving:
            if name not in self.adapters:
                raise UsageError(f"no adapter {name!r} is loaded")
            return Leaving(self.adapters.pop(name))

        return self._put(None, None, unload)

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
        self.engine.forget_layers()
        if model is not self.policy.model:
            self.engine = self.engine.around(model)
            self.policy = self.engine.policy()

    def _expect_bare(self) -> None:
        if self.policy.is_adapter:
            raise UsageError("adapters were loaded, and belong to the weights that are there",
                             fix="start another server")  # fmt: skip

    def _expect_readable(self, ids: Sequence[int], more: int = 0) -> None:
        """Raise `UsageError` for ids that the model does not know, none, or too many."""
        if not ids:
            raise UsageError("a prompt has at least one token")
        if self.context is not None and len(ids) + more > self.context:
            raise UsageError(
                f"{len(ids) + more} tokens are asked for, and the model reads {self.context}"
            )
        unknown = max(ids) if max(ids) >= self._vocabulary else min(ids)
        if not 0 <= unknown < self._vocabulary:
            raise UsageError(
                f"there is no token {unknown}: the model knows {self._vocabulary}, from 0 on"
            )

    def _make_ready(self, job: Job, request: Request) -> None:
        """Let a sample join when its grammar is ready."""
        try:
            self.engine.expect_able(request.sampling)
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits has to be told
            fail(job.result, error)
        else:
            self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._next_other()) is not None:
            self._do(job)

    def _next_other(self) -> Job | None:
        """Decode, samples that come joining, until another job is to be done; before weights change
        the answers that were asked for are finished."""
        while True:
            if self._lanes.busy and self._jobs.empty():
                self._step(lambda: not self._jobs.empty())
                continue
            job = self._jobs.get()
            if job is not None and job.sample is not None:
                self._take(job, job.sample)
                continue
            while self._lanes.busy and (job is None or job.changes):
                self._step(lambda: False)
            return job

    def _step(self, called: Callable[[], bool]) -> None:
        """A turn for all, which ends when it is `called`: who comes waits for one token."""
        self._lanes.step(self.engine, called)
        self._free_unused()

    def _free_unused(self) -> None:
        """Free adapters that were unloaded and that no answer needs any more."""
        for leaving in list(self._leaving):
            adapter, result = leaving
            if self._lanes.uses(adapter):
                continue
            self._leaving.remove(leaving)
            try:
                self._use(drop_adapter(self.policy.model, adapter))
            except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits has to be told
                result.set_exception(error)
            else:
                result.set_result(None)

    def _take(self, job: Job, request: Request) -> None:
        """Let a sample join, unless nobody waits for it any more. It can be called off until it is
        answered."""
        if job.result.cancelled():
            job.result.set_running_or_notify_cancel()
            return
        try:
            job.run()
            own = self._own_name(job.adapter)
            wanted = Wanted(request, own, self.version, job.result, job.stream)
            self._lanes.add(self.engine, wanted)
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits has to be told
            fail(job.result, error)

    def _do(self, job: Job) -> None:
        if not job.result.set_running_or_notify_cancel():
            return
        try:
            with only_adapter(self.policy.model, self._own_name(job.adapter)):
                told = self._changed(job) if job.changes else job.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits has to be told
            job.result.set_exception(error)
        else:
            if isinstance(told, Leaving):
                self._leaving.append((told.adapter, job.result))
                self._free_unused()
            else:
                job.result.set_result(told)

    def _changed(self, job: Job) -> Any:
        """What is kept of prompts and layers is of the weights before; a change that fails may be
        half done."""
        try:
            return job.run()
        finally:
            self.engine.forget_prefixes()
            self.engine.forget_layers()

    def _own_name(self, name: str | None) -> str | None:
        """The name of an adapter in the model."""
        if name is not None and name not in self.adapters:
            raise UsageError(f"no model {name!r} is loaded", fix=f"there are {self.path!r} and "
                             f"{', '.join(sorted(self.adapters)) or 'no adapters'}")  # fmt: skip
        return None if name is None else self.adapters[name]
