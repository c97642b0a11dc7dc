"""Before a version is served: does it read and end as it was trained?"""

from __future__ import annotations

import warnings
from typing import Any

from strop.errors import ModelError, TextError
from strop.serve.models.renderer import Renderer
from strop.text.render import demonstration_tree
from strop.types import Demonstration, Message, Origin

QUESTION: list[Message] = [{"role": "user", "content": "How many days has a week?"}]
ANSWER: list[Message] = [{"role": "assistant", "content": "A week has 7 days."}]


def expect_parity(renderer: Renderer, ends: frozenset[int], folder: str) -> None:
    """Write one conversation as training does and as the server does. Raises `ModelError` where the
    prompts differ, or where training teaches to end an answer with a token at which the server
    would not stop; warns where the template ends answers with no such token at all. A model without
    a chat template has nothing to compare."""
    tokenizer: Any = renderer.tokenizer
    if not renderer.has_template:
        return
    try:
        trained = demonstration_tree(
            tokenizer, Demonstration(QUESTION, ANSWER, {}, Origin("self-test", 0))
        )
    except TextError as error:
        warnings.warn(f"{folder}: answers may run on to their limit: {error.problem}", stacklevel=2)
        return
    asked = renderer.prompted(QUESTION, None, "").prompt_ids
    if asked != trained.trunk:
        raise ModelError("the prompt that is served is not the one that is trained on",
                         where=folder, fix="save the tokenizer again with the model")  # fmt: skip
    last = trained.branches[0].ids[-1]
    if last not in ends:
        raise ModelError(
            f"the chat template ends an answer with {tokenizer.decode([last])!r}, and generation "
            "does not stop there",
            where=folder,
            fix=f"add {last} to eos_token_id in generation_config.json",
        )
