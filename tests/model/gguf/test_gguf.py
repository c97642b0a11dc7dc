"""GGUF files: every number and token where llama.cpp looks for it, or a refusal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from strop.errors import ModelError, OutputError
from strop.model.blend.alike import TEXTS
from strop.model.gguf.export import Export, check_export, neighbours, write_gguf
from strop.model.gguf.tokens import CONTRACTIONS, REST, vocabulary
from strop.model.stored import stored

HERE = Path("no-registry.db")
CHAT = "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}"

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": None,
    "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 32}  # fmt: skip


def byte_level(split: Sequence[Any], *, ignore_merges: bool = False) -> Any:
    """A byte-level BPE tokenizer learnt from the fixed texts."""
    bpe = Tokenizer(BPE(ignore_merges=ignore_merges))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(list(split))
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=420, special_tokens=["<|end|>", "<|user|>"],
                         initial_alphabet=alphabet, show_progress=False)  # fmt: skip
    bpe.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|end|>",
        additional_special_tokens=["<|user|>"], chat_template=CHAT,
    )  # fmt: skip


def split_like(digits: str) -> list[Any]:
    pattern = Regex(CONTRACTIONS + digits + REST)
    return [pre_tokenizers.Split(pattern, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]  # fmt: skip


GPT_2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
SPLITS: dict[str, tuple[list[Any], bool]] = {
    "gpt-2": ([GPT_2], False),
    "smollm": ([pre_tokenizers.Digits(individual_digits=True), GPT_2], False),
    "qwen2": (split_like("\\p{N}"), False),
    "llama-bpe": (split_like("\\p{N}{1,3}"), True),
    "dbrx": (split_like("\\p{N}{1,3}"), False),
}


def saved(folder: Path, config: Any, rule: str = "gpt-2") -> Path:
    """A model with random weights and a tokenizer of this rule."""
    split, merges = SPLITS[rule]
    tokenizer = byte_level(split, ignore_merges=merges)
    config.vocab_size = len(tokenizer) + 3  # rows that no token has, as models have them
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


KINDS: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**SIZES),
    "llama-3.1": lambda: LlamaConfig(**SIZES, rope_parameters=LLAMA3),
    "qwen2": lambda: Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=False),
}


@contextmanager
def exportable(folder: Path, **options: Any) -> Iterator[Export]:
    with stored(str(folder), HERE) as found:
        yield check_export(found, folder / "x.gguf", **{"dtype": "float32", **options})


def exported(folder: Path, **options: Any) -> Path:
    with exportable(folder, **options) as plan:
        write_gguf(plan, folder / "x.gguf")
    return folder / "x.gguf"


def field(reader: Any, name: str) -> Any:
    return reader.fields[name].contents()


def test_rows_that_are_rotated_together_stand_together() -> None:
    """Two heads of width four: transformers pairs rows 0 and 2, 1 and 3 of a head."""
    rows = torch.arange(8)[:, None]
    assert neighbours(rows, 4).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_number_is_where_llama_cpp_looks(dtype: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", KINDS["qwen3"]())
    reader = gguf.GGUFReader(exported(folder, dtype=dtype))
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    weights = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert len(found) == len(weights) == 2 * 11 + 3
    pairs = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output.weight": "lm_head.weight",
        "blk.1.attn_q.weight": "model.layers.1.self_attn.q_proj.weight",
        "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
        "blk.1.attn_k_norm.weight": "model.layers.1.self_attn.k_norm.weight",
    }
    for name, own in pairs.items():
        kind = np.float32 if weights[own].dim() == 1 else np.dtype(dtype)
        assert found[name].dtype == kind
        assert np.array_equal(found[name], weights[own].numpy().astype(kind))
    assert field(reader, "general.architecture") == "qwen3"
    assert field(reader, "qwen3.attention.key_length") == 16
    assert field(reader, "qwen3.attention.head_count_kv") == 2
    assert field(reader, "qwen3.block_count") == 2
    assert field(reader, "general.file_type") == (0 if dtype == "float32" else 1)


def test_a_llamas_queries_and_keys_are_turned_and_nothing_else(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", KINDS["llama"]())
    found = {t.name: t.data for t in gguf.GGUFReader(exported(folder)).tensors}
    own = AutoModelForCausalLM.from_pretrained(folder).model.layers[0].self_attn
    for name, module in (("attn_q", own.q_proj), ("attn_k", own.k_proj)):
        turned = neighbours(module.weight.detach(), 8).numpy()
        assert np.array_equal(found[f"blk.0.{name}.weight"], turned)
        assert not np.array_equal(turned, module.weight.detach().numpy())
    assert np.array_equal(found["blk.0.attn_v.weight"], own.v_proj.weight.detach().numpy())


def test_stretched_positions_are_written_as_factors(tmp_path: Path) -> None:
    """Llama 3.1: short waves stay (1), long ones are stretched by the factor (4)."""
    folder = saved(tmp_path / "m", KINDS["llama-3.1"]())
    found = {t.name: t.data for t in gguf.GGUFReader(exported(folder)).tensors}
    # wavelengths are 2 pi 10000^(i/4): 6.3 (below 32 / 4), 63, 628 and 6283 (above 32 / 1)
    assert found["rope_freqs.weight"].tolist() == pytest.approx([1.0, 4.0, 4.0, 4.0], rel=1e-6)


@pytest.mark.parametrize("rule", SPLITS)
def test_rules_are_known_by_name(rule: str, tmp_path: Path) -> None:
    split, merges = SPLITS[rule]
    tokenizer = byte_level(split, ignore_merges=merges)
    tokenizer.save_pretrained(tmp_path)
    held = vocabulary(tmp_path, len(tokenizer) + 2, None)
    assert held.rule == rule
    assert held.tokens[:2] == ("<|end|>", "<|user|>")
    assert held.kinds[:3] == (3, 3, 1)  # control, control, normal
    assert held.kinds[-2:] == (5, 5)  # unused
    vocab = tokenizer.get_vocab()
    assert all(held.tokens[number] == token for token, number in vocab.items())
    assert len(held.merges) == len(vocab) - 258
    assert held.notes == ()


def test_what_llama_cpp_has_no_rule_for_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no name for the rule"):
        vocabulary(tmp_path, 400, None)
    held = vocabulary(tmp_path, 400, "smollm")
    assert held.rule == "smollm"
    assert "4 of 4 fixed texts become other tokens" in held.notes[0]
    with pytest.raises(ModelError, match="there is no rule"):
        vocabulary(tmp_path, 400, "gpt-9")
    byte_level(SPLITS["gpt-2"][0]).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="which llama"):
        vocabulary(tmp_path, 500, "gpt-2")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": Unigram([("a", 0.0)], 0, False)}, "no byte-level BPE"),
        ({"normalizer": normalizers.Lowercase()}, "normalises texts"),
        ({"decoder": decoders.Metaspace()}, "no byte-level BPE"),
    ],
)
def test_other_tokenizers_are_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    made = byte_level(SPLITS["gpt-2"][0]).backend_tokenizer
    for part, value in change.items():
        setattr(made, part, value)
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelError, match=said):
        vocabulary(tmp_path, 500, None)


def test_a_text_begins_with_bos_only_if_the_tokenizer_says_so(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", KINDS["llama"]())
    assert field(gguf.GGUFReader(exported(folder)), "tokenizer.ggml.add_bos_token") is False
    told = Tokenizer.from_file(str(folder / "tokenizer.json"))
    told.post_processor = processors.TemplateProcessing(
        single="<|user|> $A", special_tokens=[("<|user|>", 1)]
    )
    PreTrainedTokenizerFast(tokenizer_object=told, bos_token="<|user|>", eos_token="<|end|>",
                            chat_template=CHAT).save_pretrained(folder)  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 7]}))
    (folder / "x.gguf").unlink()
    reader = gguf.GGUFReader(exported(folder))
    assert field(reader, "tokenizer.ggml.add_bos_token") is True
    assert field(reader, "tokenizer.ggml.bos_token_id") == 1
    assert field(reader, "tokenizer.ggml.eos_token_id") == 0
    assert field(reader, "tokenizer.ggml.eot_token_id") == 7
    assert field(reader, "tokenizer.chat_template") == CHAT


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "GemmaForCausalLM is not carried"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "yarn"),
        ({"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 8,
          "use_sliding_window": True}, "sliding windows"),
        ({"hidden_act": "gelu"}, "gelu"),
    ],
)  # fmt: skip
def test_what_is_not_carried_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", KINDS["qwen3"]())
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=said), exportable(folder):
        pass


def test_nothing_is_overwritten_and_half_a_file_never_stays(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", KINDS["llama"]())
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = 1e6
    model.save_pretrained(folder)
    with exportable(folder, dtype="float16") as plan, pytest.raises(ModelError, match="--dtype"):
        write_gguf(plan, folder / "x.gguf")
    assert not list(folder.glob("*gguf*"))
    exported(folder)
    with pytest.raises(OutputError, match="exists already"), exportable(folder):
        pass


@pytest.mark.engines
@pytest.mark.parametrize(
    ("kind", "rule"),
    [("llama", "gpt-2"), ("llama", "dbrx"), ("llama-3.1", "llama-bpe"), ("qwen2", "qwen2"),
     ("qwen3", "smollm")],
)  # fmt: skip
def test_llama_cpp_says_the_same(kind: str, rule: str, tmp_path: Path) -> None:
    """The real thing: the same tokens of every text, the same greedy answer in float32."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs pip install llama-cpp-python")
    folder = saved(tmp_path / "m", KINDS[kind](), rule)
    theirs = llama_cpp.Llama(str(exported(folder)), n_ctx=128, verbose=False, n_threads=1,
                             type_k=0, type_v=0, flash_attn=False)  # fmt: skip
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    ours = AutoModelForCausalLM.from_pretrained(folder).eval()
    for text in (*TEXTS, "<|user|>Solve 12x = 144<|end|>", "  two spaces\n\n\ttabs 1234567"):
        ids = tokenizer(text)["input_ids"]
        assert theirs.tokenize(text.encode(), add_bos=False, special=True) == ids
        ids = ids[:60]
        whole = ours.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)
        answer = whole[0, len(ids) :].tolist()  # up to its end, where llama.cpp would go on
        theirs.reset()
        told = theirs.generate(ids, top_k=1, temp=0.0, repeat_penalty=1.0)
        assert [next(told) for _ in answer] == answer
    theirs.close()
