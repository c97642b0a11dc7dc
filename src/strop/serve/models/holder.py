"""Who holds weights and draws answers: this process, or a server of its own behind this one."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from strop.engines.endings import stopped, text_of
from strop.engines.engine import Request
from strop.engines.served.expect import reached
from strop.engines.served.kinds import KINDS, Kind
from strop.engines.served.server import Part, Server
from strop.engines.server.held import Held
from strop.engines.server.lanes import Answered, Progress, fail
from strop.errors import HttpError, ModelError, UsageError
from strop.model.load import load_tokenizer, stops_of, weights_hash
from strop.recipe.serve import EngineRecipe
from strop.text.ends import ends_of
from strop.types import Completion

CONTEXT = 4096
"""Tokens that a server is told to read where none answers: an example."""

PROBE = "Solve 2x = 6, and say: how \u00fc do you read <this>?"


class Holder(Protocol):
    """A base model with its adapters; `ends` are the tokens at which its answers end."""

    context: int | None
    ends: frozenset[int]

    def sample(
        self,
        request: Request,
        adapter: str | None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Future[Answered[Completion]]:
        """An answer; `progress` is told its tokens as they come. To cancel the future ends the work
        on it."""

    def load_adapter(self, name: str, folder: str) -> Future[None]: ...

    def unload_adapter(self, name: str) -> Future[None]: ...

    def close(self) -> None: ...


def holding(recipe: EngineRecipe) -> Callable[[str], Holder]:
    """How a base model's folder becomes a `Holder`."""
    if recipe.url is None:
        return Held
    kind = KINDS[recipe.kind]
    server = kind.connect(recipe.url, seconds=recipe.seconds)
    return lambda folder: Behind(folder, server, kind, recipe.at_once)


def expect_engine(recipe: EngineRecipe, folder: str) -> None:
    """Raise `UsageError` where a server is to draw the answers, and none is there."""
    if recipe.url is not None:
        kind = KINDS[recipe.kind]
        server = kind.connect(recipe.url, seconds=recipe.seconds)
        reached(server, kind, folder, context=CONTEXT, rank=None)


class Behind:
    """A model that vLLM or SGLang holds, asked over its own protocol; `at_once` requests at a time.

    Adapters have names there that nobody else gives, so that what an earlier run left, or another
    one uses, is not in the way. They are unloaded at the end.

    Raises `UsageError` where no server answers, where it draws in a way of its own, reads text
    otherwise than the folder's tokenizer, or holds another folder's weights.
    """

    def __init__(self, folder: str, server: Server, kind: Kind, at_once: int) -> None:
        self._server = server
        self._tokenizer = load_tokenizer(folder)
        self._run = secrets.token_hex(4)
        self._loaded: set[str] = set()
        about = reached(server, kind, folder, context=CONTEXT, rank=None)
        server.expect_usable(self._tokenizer(PROBE).input_ids)
        self.context = about.context
        self.ends = frozenset({*ends_of(self._tokenizer), *stops_of(folder)})
        self._threads = ThreadPoolExecutor(at_once, "behind")
        self._expect_same(folder, about.model)

    def sample(
        self,
        request: Request,
        adapter: str | None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Future[Answered[Completion]]:
        """A request is on its way until it is answered or its future is cancelled, which closes its
        connection: the server then draws no more of it."""
        result: Future[Answered[Completion]] = Future()

        def give_up(task: Future[None]) -> None:
            if task.cancelled():  # this model is closed
                result.cancel()

        task = self._threads.submit(self._answer, result, request, adapter, progress)
        task.add_done_callback(give_up)
        return result

    def load_adapter(self, name: str, folder: str) -> Future[None]:
        """The server has to see the folder under the same path."""
        return self._threads.submit(self._load, name, Path(folder))

    def unload_adapter(self, name: str) -> Future[None]:
        return self._threads.submit(self._unload, name)

    def close(self) -> None:
        """The server itself goes on: it was there before."""
        self._threads.shutdown(cancel_futures=True)
        for name in list(self._loaded):
            with suppress(HttpError):
                self._unload(name, leaving=True)

    def _load(self, name: str, folder: Path) -> None:
        self._server.load_adapter(self._name_of(name), folder)
        self._loaded.add(name)

    def _unload(self, name: str, *, leaving: bool = False) -> None:
        self._loaded.discard(name)
        self._server.unload_adapter(self._name_of(name), leaving=leaving)

    def _name_of(self, adapter: str) -> str:
        return f"strop-{self._run}-{adapter}"

    def _answer(
        self,
        result: Future[Answered[Completion]],
        request: Request,
        adapter: str | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        try:
            answered = self._sampled(result, request, adapter, progress)
        except CancelledError:
            result.set_running_or_notify_cancel()
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits has to be told
            fail(result, error)
        else:
            if result.set_running_or_notify_cancel():
                result.set_result(answered)

    def _sampled(
        self,
        result: Future[Answered[Completion]],
        request: Request,
        adapter: str | None,
        progress: Callable[[Progress], None] | None,
    ) -> Answered[Completion]:
        def tell(part: Part) -> None:
            if progress is not None and not result.cancelled():
                progress(Progress(part.ids, part.logprobs or (), ()))

        said = self._server.sample(
            request, None if adapter is None else self._name_of(adapter), sorted(self.ends),
            waiting=result, tell=None if progress is None else tell,
        )  # fmt: skip
        text = stopped(text_of(self._tokenizer, said.ids, request.sampling), request.sampling)
        made = Completion.one_turn(said.ids, text, said.logprobs, said.finish)
        return Answered(made, self._server.url)

    def _expect_same(self, folder: str, named: str) -> None:
        own: Sequence[int] = self._tokenizer(PROBE).input_ids
        theirs = self._server.encoded({"prompt": PROBE})
        if theirs is not None and list(own) != theirs:
            raise UsageError("the server reads text otherwise than this folder's tokenizer",
                             where=self._server.url,
                             fix=f"start it with {folder}")  # fmt: skip
        if Path(named).is_dir() and weights_hash(named) != weights_hash(folder):
            raise ModelError(f"the server holds the weights of {named}", where=self._server.url,
                             fix=f"start it with {folder}")  # fmt: skip
