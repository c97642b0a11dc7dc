"""AdamW with moments of 8 bits, by bitsandbytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from strop.errors import ModelError

SMALLEST = 4096
"""Numbers of a tensor from which on bitsandbytes keeps moments in 8 bits: those of smaller tensors
take no memory to speak of."""

BLOCK = 256
"""Numbers that share a scale of 32 bits, in each of the two moments."""

BYTES = 2 * (1 + 4 / BLOCK)
"""Of both moments of one number."""

TABLES = {"qmap1": "dynamic", "qmap2": "udynamic"}
"""What the 256 codes of each moment stand for, which all tensors share: no checkpoint keeps it."""

Entry = dict[str, torch.Tensor | int]
"""An optimizer's state of one parameter."""


def expect_bitsandbytes() -> Any:
    """The library, or `ModelError` where it is not installed."""
    try:
        import bitsandbytes  # an extra
    except ImportError:
        raise ModelError(
            "optim.optimizer adamw_8bit needs bitsandbytes", fix="pip install 'strop[quantize]'"
        ) from None
    return bitsandbytes


def adamw_8bit(
    groups: Sequence[dict[str, Any]], *, learning_rate: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """AdamW whose moments are quantised block by block (Dettmers et al. 2022, arXiv 2110.02861).

    Raises `ModelError` if there is nothing to quantise: it would be plain AdamW by another name.
    """
    bitsandbytes = expect_bitsandbytes()
    if not groups:
        raise ModelError(
            f"optim.optimizer adamw_8bit keeps moments of tensors from {SMALLEST} numbers on in 8 "
            "bits, and no trained tensor is so large",
            fix="set optim.optimizer: adamw",
        )
    made: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(
        list(groups), lr=learning_rate, betas=betas
    )
    return made


def with_tables(member: Any, entry: Entry) -> Entry:
    """A parameter's state as it was saved, with the tables that its codes need, if it has codes."""
    if "state1" not in entry:
        return entry
    return {**entry, **{name: member.name2qmap[table] for name, table in TABLES.items()}}
