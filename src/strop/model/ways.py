"""The ways to compute tree attention, and which one a model takes on its device.

A way is chosen once per model: the first one with which every layer calls tree attention and a
small batch gives the numbers of padded rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from strop.model import attention, flex, varlen
from strop.model.tree import plan_attention
from strop.types import TreeBatch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Way:
    """One way: the name of its attention function, what plans a row for it, and how many tokens a
    row may have (`None`: any number). A longer row is computed as padded rows."""

    name: str
    plan: Callable[[TreeBatch], Any]
    most_tokens: int | None = None

    def takes(self, batch: TreeBatch) -> bool:
        return self.most_tokens is None or len(batch.tokens_L) <= self.most_tokens


MASKED_TOKENS = 4096
"""On a GPU, longer rows never go through masks that are written out."""

VARLEN = Way(varlen.NAME, varlen.plan_varlen)
FLEX = Way(flex.NAME, flex.plan_flex)
BLOCKS = Way(attention.NAME, plan_attention)
FEW_BLOCKS = Way(attention.NAME, plan_attention, MASKED_TOKENS)

WAYS = {"cuda": (VARLEN, FLEX, FEW_BLOCKS)}
"""What is tried on a kind of device, best first; on others rectangles of similar segments."""


def ways_for(model: Any) -> tuple[Way, ...]:
    """The ways to try for a model on its device, best first. The kernels know no dropout of
    attention weights."""
    ways = WAYS.get(model.device.type, (BLOCKS,))
    drops = getattr(model.config.get_text_config(), "attention_dropout", 0.0)
    return ways[-1:] if drops else ways


CANNOT = (TypeError, ValueError, KeyError, RuntimeError)
"""What is raised where a model takes no extra arguments or has no such attention, and where a
kernel does not take the model's precision, its sizes or the device."""


def chosen(model: Any, agrees: Callable[[Way], bool]) -> Way | None:
    """The first way for which `agrees` holds, or `None`; which one, and why not one before it, is
    logged."""
    for way in ways_for(model):
        try:
            good = agrees(way)
            reason = "it does not give the numbers of padded rows"
        except CANNOT as error:
            good, reason = False, f"{type(error).__name__}: {str(error).splitlines()[:1]}"
        if good:
            logger.info("%s: tree attention by %s", type(model).__name__, way.name)
            return way
        logger.info("%s: no tree attention by %s: %s", type(model).__name__, way.name, reason)
    return None


def _no_mask(*_: Any, **__: Any) -> None:
    """The plan carries the mask; transformers need not build one."""


AttentionInterface.register(varlen.NAME, varlen.varlen_attention)
AttentionInterface.register(flex.NAME, flex.flex_tree_attention)
AttentionMaskInterface.register(varlen.NAME, _no_mask)
AttentionMaskInterface.register(flex.NAME, _no_mask)
