"""Models, tokenizer and records of a run, the same for every side."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from benchmarks.cases import SHAPES, Run
from strop.demo.model import TEMPLATE

SPECIAL = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>")
MEAN_ANSWER = 0.4
"""Mean length of a random model's answers as a share of the longest allowed."""


def build_model(run: Run, folder: Path) -> None:
    """A random Qwen3 whose answers end by themselves, with a tokenizer of whole words."""
    if (folder / "config.json").exists():
        return
    tokenizer = word_tokenizer(run.vocabulary)
    shape = SHAPES[run.shape]
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=run.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        max_position_embeddings=16384,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # the largest models are drawn where that takes seconds, and written as they are computed
    with torch.device("cuda" if run.bfloat16 and torch.cuda.is_available() else "cpu"):
        model = Qwen3ForCausalLM(config)
    plant_ending(model, tokenizer.eos_token_id, run.case.answer[1])
    begun = folder.with_name(f"{folder.name}.part")
    model.to(torch.bfloat16 if run.bfloat16 else torch.float32).save_pretrained(begun)
    tokenizer.save_pretrained(begun)
    begun.replace(folder)  # a folder with a config is a whole model, however this process ends


def word_tokenizer(vocabulary: int) -> Any:
    """`w17 w4` <-> two ids: a text's length in tokens is its number of words."""
    words = [*SPECIAL, *(f"w{i}" for i in range(vocabulary - len(SPECIAL)))]
    plain = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=SPECIAL[0]))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain.add_special_tokens([AddedToken(word, normalized=False) for word in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=plain,
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        additional_special_tokens=list(SPECIAL[2:]),
        chat_template=TEMPLATE,
        model_max_length=16384,
    )


@torch.no_grad()
def plant_ending(model: Any, eos: int, longest: int) -> None:
    """Give every token the same chance to be the last: 1 / (MEAN_ANSWER * longest).

    A constant first component of all embeddings reaches the head through the residual stream; the
    end token's row of the head is raised there by what makes its chance right.
    """
    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    embeddings[:, 0] = 0.25
    probe = torch.randint(4, len(embeddings), (4, 64), generator=torch.Generator().manual_seed(1))
    carried = model.get_decoder()(input_ids=probe.to(model.device)).last_hidden_state[..., 0].mean()
    chance = 1 / (MEAN_ANSWER * longest)
    head[eos] = 0.0
    head[eos, 0] = head[4:, 0].mean() + math.log(chance * len(head)) / carried


def write_records(run: Run, path: Path) -> None:
    """Enough records for every step to see new ones."""
    if path.exists():
        return
    rows = list(_records(run))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _records(run: Run) -> Iterator[dict[str, Any]]:
    case = run.case
    draw = random.Random(0)

    def said(role: str, lengths: tuple[int, int]) -> list[dict[str, str]]:
        words = draw.choices(range(run.vocabulary - len(SPECIAL)), k=draw.randint(*lengths))
        return [{"role": role, "content": " ".join(f"w{i}" for i in words)}]

    for number in range(case.batch * run.steps):
        # the template adds two tokens to a prompt and one to an answer
        prompt = said("user", (case.prompt[0] - 2, case.prompt[1] - 2))
        if case.kind in ("grpo", "sampler"):
            yield {"prompt": prompt}
            continue
        first, second = (said("assistant", (case.answer[0] - 1, case.answer[1] - 1)) for _ in "ab")
        if case.kind == "dpo":
            yield {"prompt": prompt, "chosen": first, "rejected": second}
        elif case.kind == "kto":
            yield {"prompt": prompt, "completion": first, "label": number % 2 == 0}
        else:
            yield {"prompt": prompt, "completion": first}


def even_words(completions: list[Any], **columns: Any) -> list[float]:
    """A reward that random answers earn half of the time: the words' numbers add up to even."""
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    totals = [sum(int(w[1:]) for w in text.split() if w[0] == "w") for text in texts]
    return [float(total % 2 == 0) for total in totals]
