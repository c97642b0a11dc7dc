"""The demo's raw model: a byte-pair tokenizer trained on generated text and a tiny Qwen3."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from strop.model.logprobs import padded_scores, tree_scores
from strop.model.probe import PROBE
from strop.model.tree import lay_out

TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<|end|>"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int = 325) -> Any:
    """Byte-pair encoding with every digit a token of its own and a two-role chat template."""
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        chat_template=TEMPLATE,
        model_max_length=128,
    )


def raw_model(
    tokenizer: Any, seed: int, *, width: int = 112, layers: int = 3, positions: int = 128
) -> Any:
    """A Qwen3 with random weights (about 0.5 M parameters), the same for the same seed."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=width // 4,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def save_raw(folder: Path, texts: Iterable[str], seed: int) -> None:
    """Write model and tokenizer as a folder that transformers loads."""
    tokenizer = train_tokenizer(texts)
    raw_model(tokenizer, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def probe_exactness() -> float:
    """Largest difference between the tree forward and padded rows on a tiny model, nats."""
    tokenizer = train_tokenizer(["Solve 3x + 7 = 22"], vocabulary=300)
    causal_lm = raw_model(tokenizer, seed=0, width=64)
    batch = lay_out(PROBE)
    with torch.no_grad():
        by_tree, by_rows = tree_scores(causal_lm, batch), padded_scores(causal_lm, batch)
    return float((by_tree.logprobs_N - by_rows.logprobs_N).abs().max())
