"""Whether servers hold the model of a folder."""

from __future__ import annotations

import secrets
import threading
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from strop.engines.canary import MOST_TOKENS, Canary, canary_tree
from strop.engines.endings import stop_ids
from strop.engines.engine import PromptedTask
from strop.engines.served.server import Server
from strop.errors import HttpError, UsageError
from strop.model.adapters import adapter_base, is_adapter_folder
from strop.model.load import load_for_inference, weights_hash
from strop.model.logprobs import bare
from strop.model.network import Policy
from strop.text.encode import Tokenizer
from strop.types import Message, Origin, Task

EXACT, ROUNDED = 1e-3, 0.02
"""Nats a token by which a server may differ from a folder in float32, and from one in fewer
bits."""

ASKED = "A train leaves at 9:40 and arrives at 12:05. How long does it take? Show each step."
ANSWERED = (
    "From 9:40 to 12:00 are 2 hours and 20 minutes, and 5 more make 2 hours and 25 minutes. "
    "<answer>145</answer> I am sorry, I cannot say more: nobody told me how fast it was. "
    "def minutes(hours, rest): return 60 * hours + rest  # \u00fc \u4e2d"
)
CHAT: list[Message] = [{"role": "user", "content": ASKED}]


class Holding:
    """What servers have to hold: a folder's model, or its adapter's under a name of its own.

    The folder is loaded once, to score the fixed text and to see where answers end. `limit` is in
    nats a token; `context` bounds the text. Servers that are to draw answers, too (`samples`), have
    to run in a way in which these are what is asked for.
    """

    def __init__(self, path: str, limit: float | None, *, context: int, samples: bool) -> None:
        self.path, self._samples = path, samples
        policy = load_for_inference(path)
        ids = _fixed_text(policy.tokenizer)[: min(MOST_TOKENS, context - 1)]
        tree = canary_tree([PromptedTask(Task(ASKED, {}, Origin("canary", 1)), ids)])
        self.limit = limit if limit is not None else _limit_of(policy)
        self.ids = (*tree.trunk, *tree.branches[0].ids)
        self.logprobs_N = Canary(policy, tree, limit=self.limit).trained()
        self.stops = sorted(stop_ids(bare(policy.model), policy.tokenizer))
        is_adapter = is_adapter_folder(path)
        self.adapter = f"strop-{secrets.token_hex(4)}" if is_adapter else None
        self._base = adapter_base(path) if is_adapter else path
        self._prepared: set[str] = set()
        self._alone: dict[str, threading.Lock] = {}

    def score(self, ids: Sequence[int], server: Server) -> tuple[float, ...]:
        """Log-probs of all ids but the first, nats; a server that does not score several texts
        together is given one after another."""
        with nullcontext() if server.scores_together else self._alone[server.url]:
            return server.score(ids, self.adapter).logprobs

    def prepare(self, server: Server) -> None:
        """Load the adapter, if there is one, and prove that the server holds the model.

        Raises `UsageError` for another model, or answers that are not what is asked for, and
        `HttpError` for a server that does not answer.
        """
        about = server.about()
        self._expect_folder(server, about.model)
        if self._samples:
            server.expect_usable(self.ids)
        if self.adapter is not None and self.adapter not in about.adapters:
            self._load(server, self.adapter)
        self._prepared.add(server.url)
        self._alone.setdefault(server.url, threading.Lock())
        self._expect_logprobs(server)

    def still(self, server: Server) -> bool:
        """Whether a server answers; raises `UsageError` if it no longer holds the model."""
        try:
            self._expect_logprobs(server)
        except HttpError:
            return False
        return True

    def leave(self, servers: Sequence[Server]) -> None:
        """Unload the adapter wherever it was loaded."""
        for server in servers:
            if self.adapter is None or server.url not in self._prepared:
                continue
            self._prepared.discard(server.url)
            try:
                server.unload_adapter(self.adapter)
            except HttpError as error:
                warnings.warn(
                    f"{server.url} may still hold the adapter {self.adapter}: {error.problem}",
                    stacklevel=2,
                )

    def _load(self, server: Server, name: str) -> None:
        try:
            server.load_adapter(name, Path(self.path).resolve())
        except HttpError as error:
            if error.status is None:
                raise
            raise UsageError(
                f"the server does not take the adapter {self.path}: {error.problem}",
                where=server.url,
                fix="start it as docs/engines.md says for a model with an adapter, on a machine "
                "that sees this folder under this path; or merge the adapter (strop merge) and "
                "serve the whole model",
            ) from None

    def _expect_folder(self, server: Server, model: str) -> None:
        """Raise `UsageError` where the server names a folder of other weights; a name that is no
        folder here is left to the fixed text."""
        if Path(model).is_dir() and weights_hash(model) != weights_hash(self._base):
            raise UsageError(
                f"the server holds {model}, and {self.path} is to be measured",
                where=server.url, fix=f"start one with {self._base}",
            )  # fmt: skip

    def _expect_logprobs(self, server: Server) -> None:
        said_N = torch.tensor(self.score(self.ids, server), dtype=torch.float64)
        apart = float((said_N - self.logprobs_N).abs().mean())
        if not apart <= self.limit:
            raise UsageError(
                f"the server does not hold {self.path}: its log-probs of a fixed text are "
                f"{apart:.3g} nats a token from the folder's (limit {self.limit:g})",
                where=server.url,
                fix=f"start it with {self._base}, in the precision of its weights (--dtype); "
                "`limit` of the engine allows a larger difference",
            )


def _fixed_text(tokenizer: Tokenizer) -> tuple[int, ...]:
    """A question and the beginning of an answer, as a conversation where the model has those."""
    if tokenizer.chat_template is None:
        asked = tokenizer(f"{ASKED} ")["input_ids"]
    else:
        asked = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    return (*asked, *tokenizer(ANSWERED, add_special_tokens=False)["input_ids"])


def _limit_of(policy: Policy) -> float:
    dtype = next(iter(policy.model.parameters())).dtype
    return EXACT if dtype == torch.float32 else ROUNDED
