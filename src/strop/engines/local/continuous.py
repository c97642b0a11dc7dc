"""Decoding many answers at a time: they join while others decode, and leave when they end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import or_
from typing import Generic, TypeVar

import torch

from strop.engines.engine import Request, Sampling
from strop.engines.local.constrained import Matcher
from strop.engines.local.distribution import draw, entropy, kept_logits, likeliest, most_likely
from strop.engines.local.ledger import Ledger
from strop.engines.local.processing import Processing
from strop.engines.local.routes import DrawnRoutes
from strop.engines.local.sampler import LocalSampler
from strop.model.decode import OWN_PROMPT_UP_TO, Decoder, places
from strop.model.prefixes import Prefixes
from strop.types import Completion

K = TypeVar("K", bound=Hashable)
"""The name of a request."""

REPACK_BELOW = 0.9
"""The decoder's rows are repacked when fewer than this share of them is still wanted."""

Listed = tuple[tuple[int, float], ...]
"""The likeliest tokens at one place with their log-probs, most likely first."""

JOIN_FROM = 0.25
"""Where not all that wait can join, so large a share of those who decode joins at once: every
joining moves all keys."""


@dataclass(frozen=True, slots=True)
class Room:
    """How much is decoded at a time: `Room(max_rows=512, max_slots=1e6)`.

    Beyond `least_rows` answers the keys of all, at their longest, have to fit `max_slots`.
    """

    max_rows: int = 512
    max_slots: float = math.inf
    least_rows: int = 0

    def has(self, needed: Needed, *, shared: bool) -> bool:
        if needed.rows > self.max_rows:
            return needed.rows == 1
        return needed.rows <= max(self.least_rows, 1) or needed.slots(shared) <= self.max_slots


class Needed:
    """The rows and key slots of requests that are decoded together, as `TreeDecoder` lays them: in
    a rectangle as wide as the longest."""

    def __init__(self, requests: Iterable[Request] = ()) -> None:
        self.rows = self.longest = self.longest_prompt = self.longest_answer = 0
        self._prompts: set[tuple[str, tuple[int, ...]]] = set()
        for request in requests:
            self.add(request)

    def add(self, request: Request) -> None:
        prompt, sampled = request.prompt.prompt_ids, request.sampling.max_tokens
        self.rows += 1
        self._prompts.add((request.prompt.salt, prompt))
        self.longest = max(self.longest, len(prompt) + sampled)
        self.longest_prompt = max(self.longest_prompt, len(prompt))
        self.longest_answer = max(self.longest_answer, sampled)

    def slots(self, shared: bool) -> int:
        if not shared:
            return self.rows * self.longest
        return len(self._prompts) * self.longest_prompt + self.rows * self.longest_answer

    def worth_sharing(self) -> bool:
        """Whether several answers have one long prompt."""
        return self.rows > len(self._prompts) and self.longest_prompt > OWN_PROMPT_UP_TO


@dataclass(frozen=True, slots=True)
class Alike:
    """Answers that are drawn in one way: their places among all (`None` is all of them), and what
    changes their logits, if anything does."""

    sampling: Sampling
    index_N: torch.Tensor | None
    processing: Processing | None


class Continuous(Generic[K]):
    """Answers that are decoded together, by weights that stay as they are.

    Every answer has the counter-based random numbers of its draw key, so it depends neither on the
    order nor on the other answers: `add(requests)`, then `step()` until nothing is `busy`.
    """

    def __init__(
        self,
        sampler: LocalSampler,
        version: int,
        room: Room = Room(),
        prefixes: Prefixes | None = None,
        weights: str = "",
    ) -> None:
        self.sampler, self.version, self.room = sampler, version, room
        self.prefixes, self.weights = prefixes, weights
        self._waiting: deque[tuple[K, Request]] = deque()
        self._decoding: dict[int, tuple[K, Request]] = {}
        device = sampler.causal_lm.device
        self._ledger = Ledger(device)
        self._routes, self._routed = DrawnRoutes(), 0  # so many that decode ask for routes
        self._stopping = 0  # so many that decode have stop strings
        self._matchers: dict[int, Matcher] = {}
        self._likeliest: dict[int, list[Listed]] = {}
        self._decoder: Decoder | None = None
        self._shared = False
        self._full = 0  # so many decoded when there was no room for others
        self._stems = self._vocabulary = 0
        self._apart = True  # every stem has one answer, and they are in the same order
        self._until_limit = 0  # so many tokens until an answer is as long as it may be
        self._alike: list[Alike] = []
        nobody = torch.empty(0, dtype=torch.long, device=device)
        # of every answer: its row in the ledger, its row in the decoder, its last token, how many
        # it has and how many it may have
        self._row_A = self._stem_A = self._token_A = self._place_A = self._limit_A = nobody

    @property
    def busy(self) -> int:
        """Requests without an answer."""
        return len(self._waiting) + len(self._decoding)

    @property
    def decoding(self) -> list[K]:
        """The requests that decode."""
        return [key for key, _ in self._decoding.values()]

    @property
    def waiting(self) -> list[K]:
        """The requests that there was no room for yet."""
        return [key for key, _ in self._waiting]

    def add(self, requests: Iterable[tuple[K, Request]]) -> None:
        """Requests under names of their own; they join in this order as soon as there is room.

        Raises `UsageError` where routes are asked of a model that has none, a bias is for tokens
        that there are not, or a grammar cannot be used.
        """
        coming = list(requests)
        for _, request in coming:
            self.sampler.expect_able(request.sampling)
        self._waiting.extend(coming)

    def drawn(
        self, begin: Mapping[K, int]
    ) -> list[tuple[K, tuple[int, ...], tuple[float, ...], tuple[Listed, ...]]]:
        """Ids and log-probs of answers that decode, each from its token `begin` on, and the
        likeliest tokens there, if they are asked for."""
        found = []
        for row, place in zip(self._row_A.tolist(), self._place_A.tolist(), strict=True):
            key = self._decoding[row][0]
            if key in begin:
                ids, logprobs, _ = self._ledger.drawn(row, place, begin[key])
                listed = self._likeliest.get(row, ())[begin[key] :]
                found.append((key, tuple(ids), tuple(logprobs), tuple(listed)))
        return found

    def abort(self, key: K) -> None:
        """Forget a request; where it decodes, its row is free for the next."""
        self._waiting = deque(pair for pair in self._waiting if pair[0] != key)
        rows = [row for row, (name, _) in self._decoding.items() if name == key]
        for row in rows:
            self._leave(row)
        if rows:
            gone = torch.tensor(rows, device=self._row_A.device)
            self._keep((~torch.isin(self._row_A, gone)).nonzero().squeeze(1))

    @torch.no_grad()
    def step(
        self, tokens: int = 1, called: Callable[[], bool] = lambda: False
    ) -> list[tuple[K, Completion]]:
        """So many tokens for every answer that decodes, fewer where some end with one: those are
        returned at once; and no further one when `called`."""
        with self.sampler.sampling():
            for _ in range(tokens):
                if not self.busy:
                    break
                if (finished := self._round()) or called():
                    return finished
        return []

    def _round(self) -> list[tuple[K, Completion]]:
        logits = self._advance() if self._decoding else None
        for joining in by_salt(self._admitted()):
            logits = self._join(joining, logits)
        if logits is None:
            return []
        ends = self._draw(logits)
        self._place_A = self._place_A + 1
        self._until_limit -= 1
        if self._until_limit > 0 and not any(ends):
            return []
        told = (x.tolist() for x in (self._row_A, self._place_A, self._limit_A))
        finished, goes_on = [], []
        for number, (row, place, limit) in enumerate(zip(*told, strict=True)):
            if ends[number] or place >= limit:
                finished.append(self._finished(row, place, ends[number]))
            else:
                goes_on.append(number)
        self._keep(torch.tensor(goes_on, dtype=torch.long, device=self._row_A.device))
        return finished

    def _advance(self) -> torch.Tensor:
        """The decoder reads the tokens drawn last; logits of the next, [stems, V]."""
        assert self._decoder is not None
        token_S = self._token_A
        if not self._apart:
            shape = torch.Size((self._stems, self._vocabulary))
            token_S, self._stem_A = grow(self._decoder, self._stem_A, token_S, shape)
            self._stems = len(token_S)
            one_each = torch.arange(self._stems, device=token_S.device)
            self._apart = torch.equal(self._stem_A, one_each)
        if not self._routed:
            return self._decoder.step(token_S)
        with self.sampler.recorded() as record:
            logits = self._decoder.step(token_S)
        self._routes.read_tokens(
            record, self._decoder, self._row_A, self._place_A - 1, self._stem_A
        )
        return logits

    def _admitted(self) -> list[tuple[K, Request]]:
        """Those that join now, first come first served."""
        decoding, waiting = len(self._decoding), len(self._waiting)
        too_few = self._full - decoding < min(waiting, JOIN_FROM * decoding)
        if not waiting or (self._full and too_few):
            return []
        if not self._decoding:
            wanted = Needed(request for _, request in self._waiting)
            self._shared = self.sampler.by_tree and wanted.worth_sharing()
        needed = Needed(request for _, request in self._decoding.values())
        count = 0
        for _, request in self._waiting:
            needed.add(request)
            if not self.room.has(needed, shared=self._shared):
                break
            count += 1
        self._full = decoding + count if count < waiting else 0
        if count < min(waiting, JOIN_FROM * decoding):
            return []
        return [self._waiting.popleft() for _ in range(count)]

    def _join(
        self, joining: Sequence[tuple[K, Request]], logits: torch.Tensor | None
    ) -> torch.Tensor:
        """New rows, one a distinct prompt, all of one salt; the logits of all rows, [stems, V]."""
        if self._decoder is None:
            self._decoder = self.sampler.decoder(
                shared=self._shared, prefixes=self.prefixes, weights=self.weights
            )
        requests = [request for _, request in joining]
        salt = requests[0].prompt.salt
        prompts = [request.prompt.prompt_ids for request in requests]
        distinct = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        row_N = self._ledger.take(requests)
        self._decoding.update(zip(row_N.tolist(), joining, strict=True))
        room = max(len(self._decoding), self._stems + len(distinct))  # a stem may have no answer
        stem_N = torch.tensor([distinct[one] for one in prompts], device=row_N.device)
        routed = sum(request.sampling.routes for request in requests)
        self._routed += routed
        self._stopping += sum(bool(request.sampling.stop) for request in requests)
        for row, request in zip(row_N.tolist(), requests, strict=True):
            if request.sampling.top_logprobs:
                self._likeliest[row] = []
            if request.sampling.grammar is not None:
                self._matchers[row] = self.sampler.matcher(request.sampling.grammar)
        if routed:
            with self.sampler.recorded() as record:  # of every token, so that all have to be read
                new = self._decoder.join(list(distinct), room, whole=True, salt=salt)
            self._routes.read_prompts(record, self._decoder, row_N, stem_N)
        else:
            new = self._decoder.join(list(distinct), room, salt=salt)
        limits = [one.sampling.max_tokens for one in requests]
        limit_N = torch.tensor(limits, device=row_N.device)
        self._until_limit = min([*limits, *([self._until_limit] if len(self._row_A) else [])])
        self._apart = self._apart and len(distinct) == len(requests)
        self._row_A = torch.cat([self._row_A, row_N])
        self._stem_A = torch.cat([self._stem_A, stem_N + self._stems])
        self._place_A = torch.cat([self._place_A, torch.zeros_like(row_N)])
        self._limit_A = torch.cat([self._limit_A, limit_N])
        self._stems, self._vocabulary = self._stems + len(distinct), new.shape[1]
        self._alike = []
        return new if logits is None else torch.cat([logits, new])

    def _draw(self, logits: torch.Tensor) -> list[bool]:
        """A token for every answer, into the ledger; whether each answer ends with it."""
        ledger = self._ledger
        self._alike = self._alike or self._by_sampling()
        tokens, order = [], []
        for alike in self._alike:
            sampling, index_N = alike.sampling, alike.index_N
            row_N, place_N, stem_N = self._row_A, self._place_A, self._stem_A
            if index_N is not None:
                row_N, place_N, stem_N = row_N[index_N], place_N[index_N], stem_N[index_N]
                order.append(index_N)
            mine = logits
            if len(self._alike) > 1 or alike.processing:  # what is drawn from is overwritten
                mine, stem_N = logits[stem_N], torch.arange(len(stem_N), device=stem_N.device)
            if sampling.entropies:
                ledger.entropies_RT[row_N, place_N] = entropy(mine)[stem_N]
            if alike.processing:
                said_NT = ledger.ids_RT[:, : int(place_N.max())][row_N]
                mine = alike.processing(mine.float(), said_NT, place_N)
            if sampling.temperature == 0 and not sampling.top_logprobs:
                token_N = most_likely(mine)[stem_N]  # for certain: log-prob 0
                ledger.ids_RT[row_N, place_N] = token_N
                ledger.logprobs_RT[row_N, place_N] = 0.0
                tokens.append(token_N)
                continue
            kept = kept_logits(mine, sampling)
            listed = likeliest(kept, sampling.top_logprobs) if sampling.top_logprobs else None
            uniform_N = ledger.uniforms_RT[row_N, place_N]
            token_N, logprob_N = draw(kept, stem_N, uniform_N)
            ledger.ids_RT[row_N, place_N] = token_N
            ledger.logprobs_RT[row_N, place_N] = logprob_N
            tokens.append(token_N)
            if listed is not None:
                self._list(row_N, [part[stem_N] for part in listed], token_N, logprob_N)
        self._token_A = torch.cat(tokens)
        if order:
            self._token_A = torch.empty_like(self._token_A).index_copy_(
                0, torch.cat(order), self._token_A
            )
        drawn = self._token_A.tolist()
        ends = [token in self.sampler.stop_ids for token in drawn]
        if self._stopping:
            ends = list(map(or_, ends, self._said()))
        if self._matchers:
            ends = list(map(or_, ends, self._read_by_grammars(drawn)))
        return ends

    def _list(
        self,
        row_N: torch.Tensor,
        likeliest: Sequence[torch.Tensor],
        token_N: torch.Tensor,
        logprob_N: torch.Tensor,
    ) -> None:
        """Note the likeliest tokens that have any mass. That which was drawn has the log-prob of
        its draw, which is rounded otherwise."""
        listed_NK, chance_NK = likeliest
        chance_NK = torch.where(listed_NK == token_N[:, None], logprob_N[:, None], chance_NK)
        told = (x.tolist() for x in (row_N, listed_NK, chance_NK))
        for row, ids, chances in zip(*told, strict=True):
            some = [(i, x) for i, x in zip(ids, chances, strict=True) if x > -math.inf]
            self._likeliest[row].append(tuple(some))

    def _by_sampling(self) -> list[Alike]:
        """How to draw, and for which answers."""
        alike: dict[Sampling, list[int]] = {}
        rows = self._row_A.tolist()
        for number, row in enumerate(rows):
            sampling = self._decoding[row][1].sampling
            alike.setdefault(drawn_by(sampling), []).append(number)
        if len(alike) == 1:
            return [Alike(how, None, self._processing(how, rows)) for how in alike]
        device = self._row_A.device
        return [
            Alike(how, torch.tensor(numbers, device=device),
                  self._processing(how, [rows[number] for number in numbers]))
            for how, numbers in alike.items()
        ]  # fmt: skip

    def _processing(self, sampling: Sampling, rows: Sequence[int]) -> Processing | None:
        if not sampling.changes_logits:
            return None
        prompts = [self._decoding[row][1].prompt.prompt_ids for row in rows]
        matchers = [self._matchers[row] for row in rows] if sampling.grammar else []
        return Processing(sampling, prompts, matchers, self._row_A.device)

    def _read_by_grammars(self, drawn: Sequence[int]) -> list[bool]:
        """Which answers are complete by their grammar."""
        return [
            row in self._matchers and self._matchers[row].reads(token)
            for row, token in zip(self._row_A.tolist(), drawn, strict=True)
        ]

    def _said(self) -> list[bool]:
        """Which answers contain one of their stop strings."""
        said = []
        for row, place in zip(self._row_A.tolist(), self._place_A.tolist(), strict=True):
            sampling = self._decoding[row][1].sampling
            ids = self._ledger.ids_RT[row, : place + 1].tolist() if sampling.stop else []
            said.append(bool(sampling.stop) and self.sampler.said(sampling, ids))
        return said

    def _finished(self, row: int, length: int, ended: bool) -> tuple[K, Completion]:
        key, asked = self._decoding[row]
        drawn = self._ledger.drawn(row, length)
        made = self.sampler.completion(asked, drawn, "stop" if ended else "length", self.version)
        if asked.sampling.top_logprobs:
            made = replace(made, likeliest=tuple(self._likeliest[row]))
        if asked.sampling.routes:
            prompt, own = self._routes.of_answer(row, length - 1)
            made = replace(made, prompt_routes=prompt, routes=own)
        self._leave(row)
        return key, made

    def _leave(self, row: int) -> None:
        _, asked = self._decoding.pop(row)
        self._routed -= asked.sampling.routes
        self._stopping -= bool(asked.sampling.stop)
        self._matchers.pop(row, None)
        self._likeliest.pop(row, None)
        self._routes.leave(row)
        self._ledger.free(row)

    def _keep(self, index_N: torch.Tensor) -> None:
        """Only these answers go on."""
        self._row_A, self._stem_A = self._row_A[index_N], self._stem_A[index_N]
        self._place_A, self._limit_A = self._place_A[index_N], self._limit_A[index_N]
        self._token_A = self._token_A[index_N]
        if len(self._alike) > 1 or any(alike.processing for alike in self._alike):
            self._alike = []
        self._apart = not len(index_N)
        if not len(index_N):
            self._decoder, self._stems, self._alike = None, 0, []
            self._routes = DrawnRoutes()
        else:
            self._until_limit = int((self._limit_A - self._place_A).min())


def by_salt(joining: Sequence[tuple[K, Request]]) -> list[list[tuple[K, Request]]]:
    """Requests that may be read together: those of one salt."""
    together: dict[str, list[tuple[K, Request]]] = {}
    for one in joining:
        together.setdefault(one[1].prompt.salt, []).append(one)
    return list(together.values())


def drawn_by(sampling: Sampling) -> Sampling:
    """What of a sampling decides how one token is drawn."""
    return replace(sampling, max_tokens=0, stop=(), include_stop_str_in_output=True,
                   skip_special_tokens=True, routes=False)  # fmt: skip


def grow(
    decoder: Decoder, stem_A: torch.Tensor, token_A: torch.Tensor, shape: torch.Size
) -> tuple[torch.Tensor, torch.Tensor]:
    """The decoder's next tokens and every answer's new stem; `shape` is [stems, vocabulary].

    A stem whose answers drew different tokens becomes several.
    """
    stems, vocabulary = shape
    child_C, child_A = torch.unique(stem_A * vocabulary + token_A, return_inverse=True)
    parent_C, token_C = child_C // vocabulary, child_C % vocabulary
    parted = bool((parent_C[1:] == parent_C[:-1]).any())
    place_C = parent_C
    if parted or len(child_C) < REPACK_BELOW * stems:
        place_C, stems = places(parent_C), len(child_C)
        parent_S = torch.empty_like(parent_C)
        parent_S[place_C] = parent_C
        decoder.arrange(parent_S)
    token_S = token_C.new_zeros(stems)
    token_S[place_C] = token_C
    return token_S, place_C[child_A]
