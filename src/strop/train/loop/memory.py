"""Out-of-memory errors that name the size of what did not fit and the settings to lower."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from strop.errors import TrainingError
from strop.recipe.train.methods import Offline, Online

ASKED = "you tried to allocate"
"""Part of torch's message when host memory runs out; for GPU memory torch has an error class."""


@contextmanager
def explained(where: str, shape: Callable[[], str], lower: str) -> Iterator[None]:
    """Turn an out-of-memory error inside the block into a `TrainingError` that says what was too
    large."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        full = isinstance(error, MemoryError | torch.OutOfMemoryError) or ASKED in str(error)
        if not full:
            raise
        raise TrainingError(
            f"out of memory with {shape()} ({str(error).splitlines()[0][:200]})",
            where=where,
            fix=f"lower {lower}; then --resume goes on from the last checkpoint",
        ) from None


def to_learn(recipe: Offline | Online) -> str:
    """What bounds the memory of learning; all but the last leave the result as it is, so a resumed
    run may change them (`directory.MAY_CHANGE`)."""
    tokens = recipe.run.micro_batch_tokens or "chosen by the model's size"
    longest = recipe.text.max_length
    again = "" if recipe.model.gradient_checkpointing else " or set model.gradient_checkpointing"
    return (
        f"run.micro_batch_tokens ({tokens}){again}, which a resumed run may change, or lower "
        f"text.max_length ({longest}) in another output"
    )


def to_sample(recipe: Online) -> str:
    """The settings that bound the memory of sampling."""
    rollout = recipe.rollout
    return (
        f"run.batch_size ({recipe.run.batch_size}), rollout.group_size ({rollout.group_size}) or "
        f"rollout.max_tokens ({rollout.max_tokens}), which makes it another run (--force-resume)"
    )
