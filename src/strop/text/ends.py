"""The tokens that end an answer.

A tokenizer has one end-of-sequence token; a chat model often ends its turns with another: Gemma's
`<end_of_turn>`, Llama's `<|eot_id|>` and `<|eom_id|>`. Every token that may end a turn is
supervised, stops sampling, and is in the `generation_config.json` of the saved model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

STOPS = "eos_tokens"
"""Key of tokenizer_config.json for the tokens that stop generation."""

END_OF_TURN = "end_of_turn"
"""Key of tokenizer_config.json for the tokens that end a turn according to the recipe."""


def ends_of(tokenizer: Any) -> tuple[int, ...]:
    """Ids of all tokens that end an answer, the tokenizer's EOS first: `(2, 106)`."""
    saved = tokenizer.init_kwargs
    named = [*(saved.get(STOPS) or []), *(saved.get(END_OF_TURN) or [])]
    further = tokenizer.convert_tokens_to_ids(named)
    ids = [tokenizer.eos_token_id, *further]
    return tuple(dict.fromkeys(i for i in ids if i is not None))


def appended_end(tokenizer: Any) -> int | None:
    """The id that closes a turn if the template writes no end: the recipe's first end of turn, if
    it names one."""
    named = tokenizer.init_kwargs.get(END_OF_TURN)
    return int(tokenizer.convert_tokens_to_ids(named[0])) if named else None


def set_stops(tokenizer: Any, ids: Sequence[int]) -> None:
    """Store the tokens that stop generation in the tokenizer; they are saved with it."""
    known = [token for token in tokenizer.convert_ids_to_tokens(list(ids)) if token]
    named = dict.fromkeys([*(tokenizer.init_kwargs.get(STOPS) or []), *known])
    named.pop(tokenizer.eos_token, None)
    if named:
        tokenizer.init_kwargs[STOPS] = list(named)


def set_end_of_turn(tokenizer: Any, tokens: Sequence[str]) -> None:
    """Store the tokens that end a turn in the tokenizer; they are saved with it."""
    tokenizer.init_kwargs[END_OF_TURN] = list(tokens)
