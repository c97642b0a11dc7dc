"""Where an answer ends, and its text up to there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from strop.engines.engine import Sampling
from strop.text.ends import ends_of
from strop.text.parse import decode


def stop_ids(causal_lm: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends an answer: the tokenizer's and the generation config's."""
    configured = causal_lm.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*ends_of(tokenizer), *listed] if i is not None)


def text_of(tokenizer: Any, ids: Sequence[int], sampling: Sampling) -> str:
    """All that ids say, past a stop string, too."""
    return decode(tokenizer, ids, special=not sampling.skip_special_tokens)


def stopped(text: str, sampling: Sampling) -> str:
    """A text up to the stop string that ends first, with or without that string."""
    ends = [(text.find(stop) + len(stop), stop) for stop in sampling.stop if stop in text]
    if not ends:
        return text
    end, stop = min(ends)
    return text[:end] if sampling.include_stop_str_in_output else text[: end - len(stop)]
