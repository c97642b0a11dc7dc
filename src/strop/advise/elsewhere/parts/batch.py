"""A step's records as micro-batches of one process."""

from __future__ import annotations

from dataclasses import dataclass

from strop.advise.elsewhere.carried import Keys

USUAL = 4
"""Most sequences of a forward where the recipe does not bound its tokens."""


@dataclass(frozen=True, slots=True)
class Batch:
    """`Batch(4, 8)`: eight micro-batches of four records make a step of 32."""

    micro: int
    accumulation: int

    @property
    def size(self) -> int:
        return self.micro * self.accumulation


def split(size: int, most: int) -> Batch:
    """The largest equal micro-batches of at most `most` records: `split(32, 5) == Batch(4, 8)`."""
    micro = max(n for n in range(1, min(size, max(1, most)) + 1) if size % n == 0)
    return Batch(micro, size // micro)


def split_coupled(keys: Keys, size: int, most: int) -> Batch:
    """The same for a loss that compares the records of a micro-batch: never one alone, where a step
    holds several. Seven records with at most two in each are `Batch(7, 1)`."""
    batch = split(size, max(2, most))
    batch = Batch(size, 1) if batch.micro == 1 else batch
    if batch.micro > most:
        keys.say(
            f"`run.micro_batch_tokens`: a micro-batch of {keys.recipe.method} compares its records "
            f"there, so it holds {batch.micro}, more than these tokens allow"
        )
    return batch


def step_size(keys: Keys, records: int) -> int:
    """Records of a step: `run.batch_size`, and in a run of epochs no more than there are."""
    size: int = keys.take("run.batch_size")
    return size if keys.at("run.epochs") is None else min(size, records)


def most_at_once(keys: Keys, branches: int = 1) -> int:
    """Most records of a forward: as many as fit into `run.micro_batch_tokens` where all are as long
    as `text.max_length`; `branches` answers are counted as sequences of their own."""
    tokens: int | None = keys.take("run.micro_batch_tokens")
    if tokens is None:
        return max(1, USUAL // branches)
    return max(1, tokens // (int(keys.at("text.max_length")) * branches))
