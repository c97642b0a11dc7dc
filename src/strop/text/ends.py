"""The tokens that end an answer.

A tokenizer has one end-of-sequence token; a chat model often ends its turns with another: Gemma's
`<end_of_turn>`, Llama's `<|eot_id|>` and `<|eom_id|>`. Whichever of them ends a turn is learnt,
stops sampling, and stands in the `generation_config.json` of what is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

STOPS = "eos_tokens"
"""Where tokenizer_config.json names the tokens that stop generation."""

END_OF_TURN = "end_of_turn"
"""Where it names the tokens that a recipe says end a turn."""


def ends_of(tokenizer: Any) -> tuple[int, ...]:
    """Ids of all tokens that end an answer, the tokenizer's EOS first: `(2, 106)`."""
    saved = tokenizer.init_kwargs
    named = [*(saved.get(STOPS) or []), *(saved.get(END_OF_TURN) or [])]
    further = tokenizer.convert_tokens_to_ids(named)
    ids = [tokenizer.eos_token_id, *further]
    return tuple(dict.fromkeys(i for i in ids if i is not None))


def appended_end(tokenizer: Any) -> int | None:
    """The id that closes a turn where the template writes nothing behind it: the recipe's first."""
    named = tokenizer.init_kwargs.get(END_OF_TURN)
    return int(tokenizer.convert_tokens_to_ids(named[0])) if named else None


def set_stops(tokenizer: Any, ids: Sequence[int]) -> None:
    """Name the ids that stop generation as tokens of the tokenizer; they are saved with it."""
    known = [token for token in tokenizer.convert_ids_to_tokens(list(ids)) if token]
    named = dict.fromkeys([*(tokenizer.init_kwargs.get(STOPS) or []), *known])
    named.pop(tokenizer.eos_token, None)
    if named:
        tokenizer.init_kwargs[STOPS] = list(named)


def set_end_of_turn(tokenizer: Any, tokens: Sequence[str]) -> None:
    """Say which tokens end a turn; they are saved with the tokenizer."""
    tokenizer.init_kwargs[END_OF_TURN] = list(tokens)
