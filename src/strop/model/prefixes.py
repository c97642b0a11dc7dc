"""Keys and values of prompts that were read, for later prompts that begin alike.

They belong to the weights that computed them: whoever changes weights forgets them all, or asks
under another name of the weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from strop.files import sha256_hex

BLOCK = 16
"""Tokens that are found together: prompts are compared block by block."""

LayerPair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, [kv, tokens, D] each."""


@dataclass(eq=False, slots=True)
class Stretch:
    """The tokens `begin` to `stop` of prompts, by layer; those before them are the parent's. Where
    prompts part, a stretch is split in two."""

    parent: Stretch | None
    begin: int
    layers: tuple[LayerPair, ...]
    names: tuple[str, ...]

    @property
    def stop(self) -> int:
        return self.begin + len(self.names) * BLOCK

    @property
    def bytes(self) -> int:
        return sum(x.numel() * x.element_size() for pair in self.layers for x in pair)


@dataclass(frozen=True, slots=True)
class Known:
    """The first `length` tokens of a prompt, kept in the stretches that end with `last`."""

    length: int
    last: Stretch

    def layer(self, number: int) -> LayerPair:
        """Keys and values of these tokens in one layer, [kv, length, D] each."""
        parts: list[LayerPair] = []
        stretch: Stretch | None = self.last
        stop = self.length
        while stretch is not None:
            k, v = stretch.layers[number]
            wanted = max(stop - stretch.begin, 0)
            parts.append((k[:, :wanted], v[:, :wanted]))
            stop, stretch = min(stop, stretch.begin), stretch.parent
        parts.reverse()
        return torch.cat([k for k, _ in parts], 1), torch.cat([v for _, v in parts], 1)


class Prefixes:
    """Prompts read before, at most `most_bytes` of keys and values; what was not used for longest
    goes first."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self._of_block: dict[str, Stretch] = {}
        self._by_use: OrderedDict[Stretch, None] = OrderedDict()

    def find(self, weights: str, ids: Sequence[int]) -> Known | None:
        """The longest beginning in whole blocks that these weights read before and that leaves a
        token to read: its hidden state predicts the answer."""
        found: Known | None = None
        for number, name in enumerate(_names(weights, ids[: len(ids) - 1]), start=1):
            stretch = self._of_block.get(name)
            if stretch is None:
                break
            found = Known(number * BLOCK, stretch)
        if found is not None:
            self._touch(found.last)
        return found

    def add(self, weights: str, ids: Sequence[int], layers: Sequence[LayerPair]) -> None:
        """Keep a prompt's whole blocks that are not there yet; `layers` have all its tokens."""
        names = tuple(_names(weights, ids))
        there = next((n for n, name in enumerate(names) if name not in self._of_block), len(names))
        if there == len(names):
            return
        parent = self._of_block[names[there - 1]] if there else None
        begin, stop = there * BLOCK, len(names) * BLOCK
        if parent is not None and parent.stop != begin:
            parent = self._split(parent, begin)
        stretch = Stretch(parent, begin, _cut(layers, begin, stop), names[there:])
        self._of_block.update(dict.fromkeys(stretch.names, stretch))
        self._by_use[stretch] = None
        self.bytes += stretch.bytes
        self._touch(stretch)
        while self.bytes > self.most_bytes:
            self._drop(next(iter(self._by_use)))

    def forget(self) -> None:
        """The weights have changed."""
        self._of_block.clear()
        self._by_use.clear()
        self.bytes = 0

    def _split(self, stretch: Stretch, at: int) -> Stretch:
        """The part before token `at`; what comes after it stays the stretch that children know."""
        own, blocks = at - stretch.begin, (at - stretch.begin) // BLOCK
        head = Stretch(stretch.parent, stretch.begin, _cut(stretch.layers, 0, own),
                       stretch.names[:blocks])  # fmt: skip
        self._of_block.update(dict.fromkeys(head.names, head))
        stretch.layers = _cut(stretch.layers, own, stretch.stop - stretch.begin)
        stretch.parent, stretch.begin, stretch.names = head, at, stretch.names[blocks:]
        self._by_use[head] = None
        return head

    def _touch(self, stretch: Stretch | None) -> None:
        """A parent counts as used after its children, so that it outlives them."""
        while stretch is not None:
            self._by_use.move_to_end(stretch)
            stretch = stretch.parent

    def _drop(self, stretch: Stretch) -> None:
        del self._by_use[stretch]
        self.bytes -= stretch.bytes
        for name in stretch.names:
            del self._of_block[name]


def _cut(layers: Sequence[LayerPair], begin: int, stop: int) -> tuple[LayerPair, ...]:
    """Copies, so that what is dropped later is freed."""
    return tuple((k[:, begin:stop].clone(), v[:, begin:stop].clone()) for k, v in layers)


def _names(weights: str, ids: Sequence[int]) -> Iterator[str]:
    """A name for each whole block that stands for all tokens up to its end, and for the weights."""
    name = sha256_hex(weights)
    for begin in range(0, len(ids) - BLOCK + 1, BLOCK):
        text = ",".join(map(str, ids[begin : begin + BLOCK]))
        name = sha256_hex(name + text)
        yield name
