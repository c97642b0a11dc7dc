"""A Llama, Mistral, Qwen2 or Qwen3 folder -> one GGUF file, tensor by tensor.

Keys and names: GGUF's specification (github.com/ggml-org/ggml, docs/gguf.md); what each
architecture has to have: llama.cpp's src/models (version of llama-cpp-python 0.3.36).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from strop.errors import ModelError, OutputError
from strop.files import place
from strop.model.adapters import is_adapter_folder
from strop.model.blend.alike import config_of, expect_plain
from strop.model.blend.tensors import Tensors
from strop.model.gguf.tokens import Vocabulary, vocabulary
from strop.model.load import load_config, load_tokenizer, positions_of, stops_of
from strop.model.stored import Stored

ARCHITECTURES = {
    "LlamaForCausalLM": "llama", "MistralForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}  # fmt: skip

NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
"""transformers' name of a module (in a layer: without the layer) -> GGUF's."""

LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")

TURNED = ("self_attn.q_proj", "self_attn.k_proj")
"""Modules whose rows are in another order in GGUF's `llama`, which rotates neighbours."""

Precision = Literal["float32", "float16"]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a file holds: `Summary("qwen3", "float32", tensors=36, tokens=325,
    pretokenizer="gpt-2")`."""

    architecture: str
    dtype: Precision
    tensors: int
    tokens: int
    pretokenizer: str


@dataclass(frozen=True, slots=True)
class Export:
    """An export that can be made; `notes` are sentences that a reader has to know."""

    model: Stored
    config: Any
    weights: Tensors
    names: dict[str, str]
    vocabulary: Vocabulary
    summary: Summary
    notes: tuple[str, ...]


def check_export(
    model: Stored, output: Path, *, dtype: Precision, pretokenizer: str | None = None
) -> Export:
    """Everything that can be checked before a weight is read.

    Raises `ModelError` for what is not carried: an adapter, another architecture, other rotary
    positions, sliding windows, a tokenizer that llama.cpp does not have.
    """
    _gguf()
    if output.exists():
        raise OutputError("the file exists already", where=str(output), fix="choose another name")
    if is_adapter_folder(str(model.folder)):
        raise ModelError("is an adapter, and a GGUF file holds a whole model", where=model.name,
                         fix="merge it first: strop merge")  # fmt: skip
    expect_plain(model.folder)
    kind = str((config_of(model.folder).get("architectures") or ["nothing"])[0])
    if kind not in ARCHITECTURES:
        raise ModelError(f"{kind} is not carried", where=model.name,
                         fix=f"strop exports {', '.join(ARCHITECTURES)}; llama.cpp's own converter "
                         "knows more")  # fmt: skip
    config, weights = load_config(str(model.folder)), Tensors(model.folder)
    _expect_positions(config, model.name)
    names = {name: _renamed(name, model.name) for name in weights}
    biased = [name for name in weights if name.endswith(".bias")]
    if biased and ARCHITECTURES[kind] == "qwen3":
        raise ModelError(f"llama.cpp's qwen3 has no place for {biased[0]}", where=model.name,
                         fix="use llama.cpp's own converter")  # fmt: skip
    rows = weights.places["model.embed_tokens.weight"].shape[0]
    held = vocabulary(model.folder, rows, pretokenizer)
    summary = Summary(ARCHITECTURES[kind], dtype, len(names), rows, held.rule)
    return Export(model, config, weights, names, held, summary, held.notes)


def write_gguf(plan: Export, output: Path) -> None:
    """Write the file, whole or not at all; one tensor is held at a time."""
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        writer = _gguf().GGUFWriter(temporary, plan.summary.architecture)
        _describe(writer, plan)
        _describe_tokens(writer, plan)
        kinds = {name: _kind(plan, name) for name in plan.weights}
        factors = _rope_factors(plan.config)
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype,
                                   factors.nbytes)  # fmt: skip
        for name, kind in kinds.items():
            shape = plan.weights.places[name].shape
            size = int(np.prod(shape)) * kind.itemsize
            writer.add_tensor_info(plan.names[name], shape, kind, size)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for name, kind in kinds.items():
            writer.write_tensor_data(_numbers(plan, name, kind))
        writer.close()
        place(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)


def _describe(writer: Any, plan: Export) -> None:
    """The sizes of the network."""
    config = plan.config
    width = _head_width(config)
    writer.add_name(Path(plan.model.name).name)
    writer.add_file_type(0 if plan.summary.dtype == "float32" else 1)  # LlamaFileType
    writer.add_context_length(positions_of(config) or 2048)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(plan.summary.tokens)


def _describe_tokens(writer: Any, plan: Export) -> None:
    """The vocabulary, the tokens that begin and end a text, and the chat template."""
    held, folder = plan.vocabulary, str(plan.model.folder)
    tokenizer = load_tokenizer(folder)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(held.rule)
    writer.add_token_list(list(held.tokens))
    writer.add_token_types(list(held.kinds))
    writer.add_token_merges(list(held.merges))
    begun = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id is not None
    writer.add_add_bos_token(bool(begun))
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    others = [end for end in stops_of(folder) if end != tokenizer.eos_token_id]
    if others:
        writer.add_eot_token_id(others[0])
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _kind(plan: Export, name: str) -> np.dtype[Any]:
    """llama.cpp wants vectors in float32."""
    vector = len(plan.weights.places[name].shape) == 1
    return np.dtype("float32" if vector else plan.summary.dtype)


def _numbers(plan: Export, name: str, kind: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """A tensor as GGUF has it."""
    tensor = plan.weights.floating(name)
    module = _module(name)[1].rpartition(".")[0]
    if plan.summary.architecture == "llama" and module in TURNED:
        tensor = neighbours(tensor, _head_width(plan.config))
    with np.errstate(over="ignore"):  # what becomes infinite is refused below
        found = tensor.contiguous().numpy().astype(kind)
    if not np.isfinite(found).all():
        raise ModelError(f"{name} holds numbers that {kind} cannot", where=plan.model.name,
                         fix="export with --dtype float32")  # fmt: skip
    return found


def neighbours(rows: torch.Tensor, width: int) -> torch.Tensor:
    """The rows of each head, [heads * width, ...], so that what is rotated together stands
    together: transformers pairs row i with row i + width / 2, GGUF's `llama` row 2i with 2i + 1."""
    turned: torch.Tensor = rows.unflatten(0, (-1, 2, width // 2)).transpose(1, 2).flatten(0, 2)
    return turned


def _rope_factors(config: Any) -> np.ndarray[Any, Any] | None:
    """By what Llama 3.1 divides each frequency of its rotary positions; `None` for plain ones."""
    rope = config.rope_parameters
    if rope.get("rope_type", "default") != "llama3":
        return None
    scaled = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].double()
    width = _head_width(config)
    plain = rope["rope_theta"] ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    found: np.ndarray[Any, Any] = (plain / scaled).float().numpy()
    return found


def _expect_positions(config: Any, name: str) -> None:
    """Raise `ModelError` for positions and windows that are not carried."""
    rope = config.rope_parameters
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "llama3") or rope.get("partial_rotary_factor", 1) != 1:
        raise ModelError(f"its rotary positions ({kind}) are not carried", where=name,
                         fix="use llama.cpp's own converter")  # fmt: skip
    windows = {kind for kind in getattr(config, "layer_types", None) or () if "sliding" in kind}
    mistral = config.model_type == "mistral" and config.sliding_window is not None
    if windows or mistral:
        raise ModelError("its sliding windows are not carried", where=name,
                         fix="use llama.cpp's own converter")  # fmt: skip
    if config.hidden_act != "silu":
        raise ModelError(f"its activation {config.hidden_act} is not carried", where=name,
                         fix="use llama.cpp's own converter")  # fmt: skip


def _head_width(config: Any) -> int:
    told = getattr(config, "head_dim", None)
    return int(told or config.hidden_size // config.num_attention_heads)


def _module(name: str) -> tuple[str, str]:
    """`("blk.3.", "self_attn.q_proj.weight")` of a weight in a layer, `("", name)` of others."""
    inside = LAYER.fullmatch(name)
    return (f"blk.{inside[1]}.", inside[2]) if inside else ("", name)


def _renamed(name: str, model: str) -> str:
    layer, rest = _module(name)
    module, _, kind = rest.rpartition(".")
    if module not in NAMES:
        raise ModelError(f"its weight {name} has no place in a GGUF file", where=model,
                         fix="use llama.cpp's own converter")  # fmt: skip
    return f"{layer}{NAMES[module]}.{kind}"


def _gguf() -> Any:
    try:
        import gguf  # an extra
    except ImportError:
        raise ModelError(
            "GGUF files need the package gguf", fix="pip install 'strop[gguf]'"
        ) from None
    return gguf
