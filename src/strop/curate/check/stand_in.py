"""A tokenizer of bytes, to see what a chat template makes of rows where no model is chosen yet."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from strop.errors import UsageError
from strop.recipe.template import TemplateRecipe
from strop.text.chat.named import NAMED, with_template


def byte_tokenizer(template: str) -> Any:
    """A tokenizer with a token for every byte, which writes conversations by a template's name.

    Raises `UsageError` for a file: the tokens that it writes belong to a model's tokenizer.
    """
    if template not in NAMED:
        raise UsageError(
            f"{template} writes the special tokens of a tokenizer, and none is given",
            fix=f"add --tokenizer FOLDER, or name one of: {', '.join(NAMED)}",
        )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_alone = Tokenizer(BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    bytes_alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_alone.decoder = decoders.ByteLevel()
    end = NAMED[template].end_of_turn
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_alone, eos_token=end)
    return with_template(tokenizer, TemplateRecipe(chat_template=template))
