"""Which experts a mixture of experts sends its tokens to: recorded, and replayed.

A router chooses the likeliest experts of each token, and a small difference of precision can make
it choose others: then the same weights say something else. Rollout routing replay (R3: Ma et al.
2025, arXiv 2510.11370) lets the trainer take the experts that the sampler took. The weights of the
experts are computed from the trainer's own logits, so that the router still learns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from typing import Any

import numpy as np
import torch

from strop.errors import UsageError
from strop.types import Routes, Tree, TreeBatch

NO_ROUTE = -1
"""Stands in place of an expert where nothing was recorded; the model then takes its own way."""

LARGEST_BYTE = 256
"""So many experts can be numbered in one byte."""


def _always(router: Any) -> bool:
    return True


def _as_configured(router: Any) -> bool:
    return bool(router.norm_topk_prob)


ROUTERS: Mapping[str, Callable[[Any], bool]] = {
    "MixtralTopKRouter": _always,
    "OlmoeTopKRouter": _as_configured,
    "Qwen2MoeTopKRouter": _as_configured,
    "Qwen3MoeTopKRouter": _as_configured,
}
"""transformers' routers, and whether one divides the weights of the chosen experts by their sum.
All give (logits, weights, experts), where the weights come from a float32 softmax over all
experts."""

RouterOutput = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Hook = Callable[[Any, Any, RouterOutput], RouterOutput | None]


def routers(causal_lm: Any) -> dict[int, Any]:
    """The routers that can be replayed, by the number of their layer; none in a dense model."""
    if not any(map(_rule_of, causal_lm.modules())):
        return {}
    return {
        number: module
        for number, layer in enumerate(causal_lm.get_decoder().layers)
        for module in layer.modules()
        if _rule_of(module)
    }


def _rule_of(module: Any) -> Callable[[Any], bool] | None:
    """The router's entry in the table. An adapter on its weight makes it a module of a derived
    class while it runs."""
    names = (kind.__name__ for kind in type(module).__mro__)
    return next((ROUTERS[name] for name in names if name in ROUTERS), None)


def expect_routers(
    causal_lm: Any, asked: str = "rollout.routing_replay", where: str | None = None
) -> None:
    """Raise `UsageError` for a model without routers, or with others than are known here."""
    if not routers(causal_lm):
        raise UsageError(
            f"{asked} is set, but {type(causal_lm).__name__} has no router that strop can read "
            f"(there is a way for {', '.join(sorted(ROUTERS))})",
            where=where,
            fix=f"drop {asked}: a dense model has no routes",
        )


def packed(experts_TLC: torch.Tensor, experts: int) -> Routes:
    """Expert numbers [tokens, layers, chosen] of a model with so many experts, as bytes."""
    width = 1 if experts <= LARGEST_BYTE else 2
    ids = experts_TLC.cpu().numpy().astype(f"<u{width}")
    return Routes(ids.tobytes(), ids.shape[1], ids.shape[2], 1 if width == 1 else 2)


def unpacked(routes: Routes) -> torch.Tensor:
    """The expert numbers, int32 [tokens, layers, chosen]."""
    ids = np.frombuffer(routes.ids, f"<u{routes.width}").astype(np.int32)
    return torch.from_numpy(ids).view(-1, routes.layers, routes.chosen)


def routes_of(trees: Sequence[Tree], device: torch.device | str) -> torch.Tensor | None:
    """The routes of a laid-out row, [L, layers, chosen], with `NO_ROUTE` where there are none;
    `None` if no token has one. Raises `UsageError` for routes of different shapes."""
    segments = list(
        chain.from_iterable(
            [(len(tree.trunk), tree.routes), *((len(b.ids), b.routes) for b in tree.branches)]
            for tree in trees
        )
    )
    shapes = {(routes.layers, routes.chosen) for _, routes in segments if routes is not None}
    if not shapes:
        return None
    if len(shapes) > 1:
        raise UsageError(f"routes of different models stand together: {sorted(shapes)}")
    routes_LLC = torch.full(
        (sum(length for length, _ in segments), *shapes.pop()), NO_ROUTE, dtype=torch.int32
    )
    first = 0
    for length, routes in segments:
        if routes is not None:
            routes_LLC[first : first + routes.tokens] = unpacked(routes)
        first += length
    return routes_LLC.to(device)


def padded_routes(batch: TreeBatch, routes_LLC: torch.Tensor) -> torch.Tensor:
    """The routes of right-padded rows, one row a branch, row after row, [B * T, layers, chosen]."""
    rows = [
        torch.cat([routes_LLC[slice(*batch.trunk_spans[trunk])], routes_LLC[slice(*span)]])
        for trunk, span in zip(batch.branch_trunk, batch.branch_spans, strict=True)
    ]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=NO_ROUTE)
    return padded.flatten(0, 1)


def expect_fit(causal_lm: Any, routes_TLC: torch.Tensor) -> None:
    """Raise `UsageError` for routes that are not of this model."""
    found = routers(causal_lm)
    layers = len(causal_lm.get_decoder().layers)
    if {(layers, router.top_k) for router in found.values()} != {tuple(routes_TLC.shape[1:])}:
        raise UsageError(
            f"the routes are of {routes_TLC.shape[1]} layers with {routes_TLC.shape[2]} experts a "
            f"token, and the model has {layers} layers, {len(found)} of which route",
            fix="sample with the model that is trained",
        )
    most = int(routes_TLC[:, list(found)].max())
    if most >= min(router.num_experts for router in found.values()):
        raise UsageError(f"a route leads to expert {most}, which the model does not have",
                         fix="sample with the model that is trained")  # fmt: skip


class Replay:
    """Makes routers take recorded experts, and counts where their own would have been others."""

    def __init__(self, routes_TLC: torch.Tensor) -> None:
        self.routes_TLC = routes_TLC
        self.recorded_T = (routes_TLC != NO_ROUTE).all(-1).all(-1)
        self.differing_T = torch.zeros(len(routes_TLC), device=routes_TLC.device)
        self.layers = 0

    def hook(self, layer: int) -> Hook:
        def reroute(router: Any, _: Any, output: RouterOutput) -> RouterOutput:
            logits_TE, weights_TC, own_TC = output
            recorded_TC = self.routes_TLC[:, layer].to(own_TC.dtype)
            experts_TC = torch.where(self.recorded_T[:, None], recorded_TC, own_TC)
            differs_T = (experts_TC.sort(-1).values != own_TC.sort(-1).values).any(-1)
            self.differing_T += differs_T
            self.layers += 1
            chosen_TC = _weights(router, logits_TE, experts_TC)
            return logits_TE, chosen_TC.to(weights_TC.dtype), experts_TC

        return reroute

    def rerouted_T(self) -> torch.Tensor:
        """The share of layers in which a token would have gone elsewhere, of every token that has a
        route."""
        return self.differing_T[self.recorded_T] / max(1, self.layers)


def _weights(router: Any, logits_TE: torch.Tensor, experts_TC: torch.Tensor) -> torch.Tensor:
    """The weights of given experts, as the router weighs those that it chooses itself."""
    all_TE = torch.softmax(logits_TE, -1, dtype=torch.float32)
    chosen_TC = all_TE.gather(-1, experts_TC)
    divides = _rule_of(router)
    if divides is not None and divides(router):
        chosen_TC = chosen_TC / chosen_TC.sum(-1, keepdim=True)
    return chosen_TC


_REPLAYED: ContextVar[torch.Tensor | None] = ContextVar("routes that are replayed", default=None)


def replayed_now() -> torch.Tensor | None:
    """The routes that a forward replays at this moment: layers that are recomputed in the backward
    have to take them again."""
    return _REPLAYED.get()


@contextmanager
def replayed(causal_lm: Any, routes_TLC: torch.Tensor) -> Iterator[Replay]:
    """Send the tokens of one forward along these routes, in the order in which the routers see the
    tokens."""
    replay = Replay(routes_TLC)
    token = _REPLAYED.set(routes_TLC)
    try:
        with hooked(routers(causal_lm), replay.hook):
            yield replay
    finally:
        _REPLAYED.reset(token)


class Record:
    """The experts of the last forward."""

    def __init__(self, causal_lm: Any) -> None:
        found = routers(causal_lm)
        self.layers = len(causal_lm.get_decoder().layers)
        self.experts = next(iter(found.values())).num_experts
        self.dtype = torch.uint8 if self.experts <= LARGEST_BYTE else torch.int16
        self.seen: dict[int, torch.Tensor] = {}

    def hook(self, layer: int) -> Hook:
        def note(_: Any, __: Any, output: RouterOutput) -> None:
            self.seen[layer] = output[2]

        return note

    def last(self) -> torch.Tensor:
        """[tokens, layers, chosen] in the order in which the routers saw the tokens; 0 in layers
        that do not route."""
        nothing = torch.zeros_like(next(iter(self.seen.values())))
        seen = [self.seen.get(layer, nothing) for layer in range(self.layers)]
        return torch.stack(seen, 1).to(self.dtype)


@contextmanager
def recorded(causal_lm: Any) -> Iterator[Record]:
    """Note the experts of the forwards within; the model has to have routers."""
    record = Record(causal_lm)
    with hooked(routers(causal_lm), record.hook):
        yield record


@contextmanager
def hooked(found: Mapping[int, Any], hook_of: Callable[[int], Hook]) -> Iterator[None]:
    handles = [router.register_forward_hook(hook_of(layer)) for layer, router in found.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
