"""One decoding step by operations whose shapes do not depend on the step, so that a CUDA graph can
repeat it.

A step of a small or middling model asks a GPU for hundreds of short operations, and to ask takes
longer than they do. A graph asks once for all of them. It repeats the same operations on the same
addresses: what changes from step to step is copied into tensors that stay, and every row looks at
all slots, those that nobody wrote being hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from torch.func import functional_call

from strop.model.keys import LayerKeys, Members, attended, in_rectangle
from strop.model.plain import PlainStep

WAITS = frozenset({"dynamic", "longrope"})
"""Rotary embeddings that look at the positions on the CPU, which no graph can."""


def repeatable(causal_lm: Any) -> bool:
    """Whether a graph can hold a step of this model, one that `PlainStep` knows: on a CUDA device,
    with linear layers of torch (those of bitsandbytes allocate as they please) that are not sharded
    (their hooks wait for streams outside of the graph)."""
    if causal_lm.device.type != "cuda" or causal_lm.get_decoder().rotary_emb.rope_type in WAITS:
        return False
    return not any(
        isinstance(m, FSDPModule) or type(m).__module__.startswith("bitsandbytes")
        for m in causal_lm.modules()
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """What a step is made for: `Shape(rows=64, slots=352, longest=300, groups=16, width=8)`.

    Rows have `slots` slots for keys. Where they share prompts, `longest` tokens at most, they are
    laid in a rectangle of `groups` times `width`; else these three are 0.
    """

    rows: int
    slots: int
    longest: int = 0
    groups: int = 0
    width: int = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """What one step is about: the tokens that rows read, at which slot and positions, the slot of
    each row's first key; with shared prompts, whose they are and how long each row's is."""

    slot: int
    tokens_R: torch.Tensor
    positions_R: torch.Tensor
    start_R: torch.Tensor
    members: Members | None = None
    lengths_R: torch.Tensor | None = None


class FixedStep:
    """One new token for up to `shape.rows` rows; rows beyond those that decode compute something
    that nobody reads, and write where nobody looks."""

    def __init__(
        self, causal_lm: Any, plain: PlainStep, keys: Mapping[int, LayerKeys], shape: Shape
    ) -> None:
        self.causal_lm, self.plain, self.keys, self.shape = causal_lm, plain, keys, shape
        nothing_C = torch.zeros(shape.rows, dtype=torch.long, device=causal_lm.device)
        self.tokens_C, self.positions_C, self.start_C, self.lengths_C, self.place_C = (
            nothing_C.clone() for _ in range(5)
        )
        self.slot_1 = nothing_C.new_zeros(1)
        self.row_S = nothing_C.new_zeros(shape.groups * shape.width)
        self._hidden: dict[int | None, torch.Tensor] = {}

    def put(self, rows: Rows) -> None:
        """Copy what the next step is about to where it is read."""
        here = slice(len(rows.tokens_R))
        self.slot_1.fill_(rows.slot)
        self.tokens_C[here] = rows.tokens_R
        self.positions_C[here] = rows.positions_R
        self.start_C[here] = rows.start_R
        if rows.members is not None and rows.lengths_R is not None:
            self.row_S.copy_(rows.members.row_S)
            self.place_C[here] = rows.members.slot_R
            self.lengths_C[here] = rows.lengths_R

    def __call__(self) -> torch.Tensor:
        """Logits of the next tokens, [rows, vocab]."""
        self._hidden.clear()
        return self.plain(self.tokens_C, self.positions_C, self._attend)

    def _attend(
        self, layer: int, q_CHD: torch.Tensor, k_CKD: torch.Tensor, v_CKD: torch.Tensor
    ) -> torch.Tensor:
        keys = self.keys[layer]
        for own, new in ((keys.own_k, k_CKD), (keys.own_v, v_CKD)):
            own[: len(new)].index_copy_(2, self.slot_1, new[:, :, None].to(own.dtype))
        window = keys.scoring.window
        if window not in self._hidden:
            self._hidden[window] = self._make_hidden(window)
        times = self._times if self.shape.groups else None
        return attended(q_CHD, keys, slice(None), times, self._hidden[window])

    def _times(self, x_CKSA: torch.Tensor, matrix_PKAB: torch.Tensor) -> torch.Tensor:
        """What `Members.times` does, whoever the members are now."""
        x = x_CKSA.index_select(0, self.row_S)
        return in_rectangle(x, self.shape.width, matrix_PKAB).index_select(0, self.place_C)

    def _make_hidden(self, window: int | None) -> torch.Tensor:
        """Slots that are not a row's, not written yet or out of its window, [C, 1, 1, keys]; before
        them the same of shared prompts."""
        slot_S = torch.arange(self.shape.slots, device=self.slot_1.device)
        place_L = torch.arange(self.shape.longest, device=self.slot_1.device)
        hidden = (slot_S > self.slot_1) | (slot_S < self.start_C[:, None])
        on_prompt = place_L >= self.lengths_C[:, None]
        if window is not None:
            hidden |= self.slot_1 - slot_S >= window
            on_prompt |= self.positions_C[:, None] - place_L >= window
        return torch.cat([on_prompt, hidden], 1)[:, None, None]


class Whole(torch.nn.Module):
    """A step as a module, so that it can be called with other weights for a moment."""

    def __init__(self, causal_lm: torch.nn.Module, step: Callable[[], torch.Tensor]) -> None:
        super().__init__()
        self.causal_lm, self.step = causal_lm, step

    def forward(self) -> torch.Tensor:
        return self.step()


def lowered(causal_lm: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Under autocast, the weights of linear layers in its precision, by their names in `Whole`.

    Autocast casts float32 weights whenever they are used. A graph would repeat that with every
    step, and read each weight three times over. Weights do not change while answers are decoded.
    """
    device = next(causal_lm.parameters()).device.type
    if not torch.is_autocast_enabled(device):
        return {}
    dtype = torch.get_autocast_dtype(device)
    return {
        f"causal_lm.{name}.weight": module.weight.detach().to(dtype)
        for name, module in causal_lm.named_modules()
        if type(module) is torch.nn.Linear and module.weight.dtype == torch.float32
    }


def uncached(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast as it is, without its memory of weights that it has cast: it would remember some
    that only the graph computes, or forget some that the graph reads."""
    kind = device.type
    return torch.autocast(kind, dtype=torch.get_autocast_dtype(kind),
                          enabled=torch.is_autocast_enabled(kind), cache_enabled=False)  # fmt: skip


class Repeats:
    """Takes steps by a `FixedStep`, made anew where its shape is another or keys moved elsewhere;
    on a CUDA device by a graph of it. The logits it gives are overwritten by the next step."""

    def __init__(self, causal_lm: Any, plain: PlainStep) -> None:
        self.causal_lm, self.plain = causal_lm, plain
        self.weights = lowered(causal_lm)
        self.on_graph = causal_lm.device.type == "cuda"
        self.pool = torch.cuda.graph_pool_handle() if self.on_graph else None
        self._made: tuple[FixedStep, Callable[[], torch.Tensor]] | None = None

    def moved(self) -> None:
        """Keys are at other addresses now."""
        self._made = None

    def __call__(self, keys: Mapping[int, LayerKeys], rows: Rows) -> torch.Tensor:
        """Logits of the next tokens, [rows, vocab]."""
        shape = _shape_of(next(iter(keys.values())), rows)
        if self._made is None or self._made[0].shape != shape:
            self._made = None  # its memory is for the next
            step = FixedStep(self.causal_lm, self.plain, keys, shape)
            step.put(rows)
            self._made = step, self._graph_of(step) if self.on_graph else self._run_of(step)
        step, run = self._made
        step.put(rows)
        return run()[: len(rows.tokens_R)]

    def _run_of(self, step: FixedStep) -> Callable[[], torch.Tensor]:
        """With the lowered weights for the model's own; nothing else changes, not even embeddings
        that are tied to the head."""
        whole = Whole(self.causal_lm, step)
        return lambda: functional_call(whole, self.weights, (), tie_weights=False)

    def _graph_of(self, step: FixedStep) -> Callable[[], torch.Tensor]:
        run, device, graph = self._run_of(step), self.causal_lm.device, torch.cuda.CUDAGraph()
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside), uncached(device):
            run()  # libraries allocate what they need at their first call
        torch.cuda.current_stream(device).wait_stream(aside)
        # other threads may use the device meanwhile
        with (
            torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"),
            uncached(device),
        ):
            logits_CV = run()

        def replayed() -> torch.Tensor:
            graph.replay()
            return logits_CV

        return replayed


def _shape_of(keys: LayerKeys, rows: Rows) -> Shape:
    """Rows are rounded up to a power of two, so that few shapes occur while answers end."""
    count, (room, _, slots, _) = len(rows.tokens_R), keys.own_k.shape
    padded = min(1 << (count - 1).bit_length(), room)
    if rows.members is None or keys.prompt_k is None:
        return Shape(padded, slots)
    groups, _, longest, _ = keys.prompt_k.shape
    return Shape(padded, slots, longest, groups, rows.members.width)
