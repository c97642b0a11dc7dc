"""Memory of a run at its peak, from sizes alone.

What is held all the time (weights, a reference, a critic, moments), and beside it what is largest:
what learning holds (gradients, activations of one forward, logits), what the critic's learning
holds, or what sampling holds (keys and logits of its rows).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM

from strop.engines.local.engine import KEYS_AT_LEAST, KEYS_AT_LEAST_ELSEWHERE
from strop.model.activations import TRAINED_BYTES, kept_bytes, tokens_within
from strop.model.adapters import add_lora
from strop.model.load import critic_recipe, load_config
from strop.model.logprobs import CHUNK_ELEMENTS
from strop.model.ways import BLOCKS
from strop.recipe.train.methods import Recipe, method_of
from strop.recipe.train.model import LoraRecipe, ModelRecipe
from strop.recipe.train.online import OnlineRecipe
from strop.recipe.train.run import OptimRecipe
from strop.train.loop.eight_bit import BYTES
from strop.train.methods.table import compares_with_reference
from strop.train.preflight.cost.shape import Shape, shape_of
from strop.train.preflight.cost.teacher import teacher_of
from strop.train.preflight.cost.workload import Workload

FLOAT, HALF = 4, 2
"""Bytes of a number in float32 and in bfloat16."""
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in 4 bits: half a byte, a scale of 8 bits for 64 weights, and a float32 for 256
scales (Dettmers et al. 2023, arXiv 2305.14314, section 3)."""
LOGIT_BYTES = {"float32": 4, "bfloat16": 6}
"""A logit of one chunk: its probability, and later its gradient, stand in its own place; where
the arithmetic is bfloat16, beside it."""
HOLES, ADAPTER_HOLES, QUANTIZED_HOLES = 0.85, 1.2, 1.9
"""Places of freed buffers that the C library keeps and nothing else fits into. With an adapter, and
with one over 4-bit weights, as a share of the activations; where a whole model is trained, of what
the gradients displace (`_gaps`). Measured on a CPU (docs/estimate.md)."""
SAMPLED_COPIES = 4
"""Logits, scaled logits, probabilities and draws, of the rows that are sampled."""
CONTEXT = {"cpu": round(0.05 * 2**30), "cuda": round(1.2 * 2**30)}
"""On a CPU pages of libraries that training is the first to touch: 46 to 59 MiB were seen beside
what the C library had given out or kept. On a GPU what the driver, its libraries' work spaces and
the allocator's rounding take: by so much a public table exceeds the sum of all other parts
(docs/estimate.md)."""

WORDS = 64
"""Of a network whose layers alone are looked at."""

WIDTHS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
"""What a network's layers are wide by, its head's dimension apart."""
NARROW = 512
"""Hidden units that are left of a wide network: what does not grow with its width stays small."""

Device = Literal["cpu", "cuda"]

DIVIDED = frozenset({"weights", "adapter", "copies", "gradients", "moments", "reference",
                     "head gradients", "critic", "critic moments"})  # fmt: skip
"""Parts that GPUs which train together can divide; of the others each has its own."""


@dataclass(frozen=True, slots=True)
class Critic:
    """PPO's value network as it is trained, and its sizes; its one row of a head is not counted."""

    model: ModelRecipe
    config: Any
    shape: Shape

    @property
    def weights(self) -> int:
        """Of the body: a value network has no head over the vocabulary."""
        head = 0 if self.shape.tied else self.shape.vocabulary * self.shape.hidden
        return self.shape.parameters - head

    @property
    def trained(self) -> int:
        lora = self.model.lora
        return self.weights if lora is None else self.shape.adapter(lora)


def critic_of(recipe: Recipe, config: Any) -> Critic | None:
    """The critic of a recipe that has one; `config` is that of the policy."""
    if recipe.critic is None:
        return None
    same = recipe.critic.path == recipe.model.path
    its = config if same else load_config(recipe.critic.path, recipe.model.trust_remote_code)
    model = critic_recipe(recipe.critic.path, recipe.critic.lora, recipe.model)
    return Critic(model, its, shape_of(its))


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes by what they are for, at the peak: `Memory({"weights": 538_060_032, ...}, 477, ...)`.

    `tokens` are those of one forward, `kept` the bytes that one of them keeps.
    """

    parts: Mapping[str, int]
    tokens: int
    kept: int

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def memory_of(
    recipe: Recipe, config: Any, shape: Shape, workload: Workload, device: Device
) -> Memory:
    """The memory of a run as strop trains it."""
    model = recipe.model
    trained = _trained(shape, model.lora)
    held = _weights(shape.parameters, shape.linear, model, trained)
    kept = _kept(config, model)
    tokens = recipe.run.micro_batch_tokens or tokens_within(
        held["weights"] + held["adapter"] + TRAINED_BYTES * trained, kept, device
    )
    tokens = max(min(tokens, workload.step_tokens), workload.longest)
    method = method_of(recipe)
    critic = critic_of(recipe, config)
    teacher = teacher_of(recipe, shape)
    always = {
        **held,
        "moments": _moments(recipe.optim, trained, _embedded(shape, model)),
        "reference": _reference(recipe, trained),
        "context": CONTEXT[device],
        **({} if critic is None else _held_critic(critic, recipe.optim)),
        **({} if teacher is None else {"teacher": teacher.held}),
    }
    read = min(tokens, workload.supervised)
    head = {} if method.scalar_head else _head(shape, model, read)
    sampling = {} if workload.answers == 0 else _sampling(shape, model, workload, device)
    learning = _learning(trained, tokens * kept, head)
    values = {} if critic is None else _learning(
        critic.trained, tokens * _kept(critic.config, critic.model), {}
    )  # fmt: skip
    if device == "cpu":
        learning["heap gaps"] = _gaps(model, learning, sampling)
        if critic is not None:
            values["heap gaps"] = _gaps(critic.model, values, sampling)
    largest = max(learning, values, sampling, key=lambda parts: sum(parts.values()))
    return Memory({name: size for name, size in (always | largest).items() if size}, tokens, kept)


def _learning(trained: int, activations: int, head: Mapping[str, int]) -> dict[str, int]:
    """What a backward holds. Policy and critic are updated one after the other, and gradients are
    dropped after each update."""
    return {"gradients": FLOAT * trained, "activations": activations, **head}


def _gaps(model: ModelRecipe, learning: Mapping[str, int], sampling: Mapping[str, int]) -> int:
    """Of a whole model: gradients come into being one by one where activations were freed, and the
    next forward's activations do not fit between them, so as much is displaced as there are
    gradients, at most all activations; and what sampling held has other sizes again. A rule that
    meets what was measured; its cause is not proven (docs/estimate.md)."""
    activations = learning["activations"]
    if model.lora is not None:
        share = ADAPTER_HOLES if model.quantize is None else QUANTIZED_HOLES
        return round(share * activations)
    displaced = min(activations, learning["gradients"] + learning.get("head gradients", 0))
    return round(HOLES * (displaced + sum(sampling.values())))


def _held_critic(critic: Critic, optim: OptimRecipe) -> dict[str, int]:
    """Its weights (with an adapter and copies) and moments, which stand beside the policy's."""
    parts = _weights(critic.weights, critic.shape.linear, critic.model, critic.trained)
    moments = _moments(optim, critic.trained, _embedded(critic.shape, critic.model))
    return {"critic": sum(parts.values()), "critic moments": moments}


def _moments(optim: OptimRecipe, trained: int, embedded: int) -> int:
    """AdamW's two moments; those that are kept in 8 bits are all but the embeddings'."""
    if optim.optimizer != "adamw_8bit":
        return 2 * FLOAT * trained
    return round(BYTES * (trained - embedded)) + 2 * FLOAT * embedded


def _embedded(shape: Shape, model: ModelRecipe) -> int:
    """Trained numbers of the embeddings."""
    return 0 if model.lora else shape.vocabulary * shape.hidden


def _trained(shape: Shape, lora: LoraRecipe | None) -> int:
    return shape.parameters if lora is None else shape.adapter(lora)


def _weights(parameters: int, linear: int, model: ModelRecipe, trained: int) -> dict[str, int]:
    """Frozen weights are kept in the precision of the arithmetic, trained ones in float32 (and in
    bfloat16 once more while a forward runs)."""
    if model.lora is None:
        copies = HALF * parameters if model.dtype == "bfloat16" else 0
        return {"weights": FLOAT * parameters, "adapter": 0, "copies": copies}
    size = _size(model)
    frozen = size * parameters
    if model.quantize is not None:
        frozen = round(NF4 * linear) + size * (parameters - linear)
    return {"weights": frozen, "adapter": FLOAT * trained, "copies": 0}


def _kept(config: Any, model: ModelRecipe) -> int:
    """Bytes that a token keeps, from forwards of the network's first layer, and of two: what each
    further layer adds. Weights have no values, because only sizes count."""
    one, two = (_kept_by_layers(config, model, layers) for layers in (1, 2))
    layers, each = int(config.get_text_config().num_hidden_layers), two - one
    kept = one + (layers - 1) * each
    if not model.gradient_checkpointing:
        return kept
    hidden = int(config.get_text_config().hidden_size)
    return kept // layers + layers * hidden * _size(model)


def _kept_by_layers(config: Any, model: ModelRecipe, layers: int) -> int:
    """The same of a network of so many layers, tried on one that is narrower by a common divisor of
    its widths: what is kept grows with them, and apart from them with an adapter's rank."""
    width = _divisor(config.get_text_config())
    if model.lora is None:
        return width * _tried(config, model, layers, width, None)
    once, twice = (
        _tried(config, model, layers, width, model.lora.model_copy(update={"rank": rank}))
        for rank in (model.lora.rank, 2 * model.lora.rank)
    )
    by_rank = twice - once
    return width * (once - by_rank) + by_rank


def _tried(
    config: Any, model: ModelRecipe, layers: int, width: int, lora: LoraRecipe | None
) -> int:
    small = copy.deepcopy(config)
    text = small.get_text_config()
    text.num_hidden_layers = layers
    text.vocab_size = WORDS
    text.pad_token_id = text.bos_token_id = text.eos_token_id = None
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    for name in WIDTHS if width > 1 else ():
        setattr(text, name, getattr(text, name) // width)
    dtype = torch.bfloat16 if model.dtype == "bfloat16" else torch.float32
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(small, dtype=dtype)
    network = network.to_empty(device="cpu")
    if lora is not None:
        network = add_lora(network, lora)
        if model.gradient_checkpointing:
            network.enable_input_require_grads()
    return kept_bytes(network, BLOCKS)


def _divisor(text: Any) -> int:
    """By how much the widths of a wide network of the usual kind are divided; 1 for others."""
    widths = [int(getattr(text, name, None) or 0) for name in WIDTHS]
    if 0 in widths or getattr(text, "head_dim", None) is None:
        return 1
    common, hidden = math.gcd(*widths), int(text.hidden_size)
    return max(
        d for d in range(1, common + 1) if common % d == 0 and (d == 1 or hidden // d >= NARROW)
    )


def _size(model: ModelRecipe) -> int:
    return HALF if model.dtype == "bfloat16" else FLOAT


def _reference(recipe: Recipe, trained: int) -> int:
    """A second copy, where a whole model is compared with itself at every step. Methods on records
    compute the reference once, before the first step; adapters are switched off."""
    online = isinstance(recipe, OnlineRecipe) and reads_reference(recipe)
    return FLOAT * trained if online and recipe.model.lora is None else 0


def reads_reference(recipe: Recipe) -> bool:
    """Whether a run compares with the model that it starts from."""
    if isinstance(recipe, OnlineRecipe):
        return compares_with_reference(recipe)
    return method_of(recipe).reference


def _head(shape: Shape, model: ModelRecipe, supervised: int) -> dict[str, int]:
    """Of the largest moment of the head's backward, beside `gradients`. A chunk's logits are there
    while the gradient of the head from that chunk is computed; the sum with that of the chunks
    before it is a third matrix, and by then the logits are gone. One chunk has nothing to be added
    to but, in a tied head, the embedding's gradient later on."""
    logits = LOGIT_BYTES[model.dtype] * min(CHUNK_ELEMENTS, supervised * shape.vocabulary)
    if model.lora is not None:
        return {"logits": logits}
    matrix = FLOAT * shape.vocabulary * shape.hidden
    if supervised * shape.vocabulary <= CHUNK_ELEMENTS:
        return {"logits": logits, "head gradients": matrix * shape.tied}
    if logits > matrix:
        return {"logits": logits, "head gradients": 2 * matrix}
    return {"head gradients": 3 * matrix}


def _sampling(
    shape: Shape, model: ModelRecipe, workload: Workload, device: Device
) -> dict[str, int]:
    """Keys and values of the rows that are sampled at once, up to half of the weights."""
    size = _size(model)
    slot = shape.slot_bytes(size)
    most = max(
        size * shape.parameters // 2, KEYS_AT_LEAST.get(device, KEYS_AT_LEAST_ELSEWHERE)
    )  # fmt: skip
    keys = min(most, slot * workload.answers * workload.answer_tokens)
    rows = max(1, min(workload.answers, keys // max(1, slot * workload.answer_tokens)))
    return {"keys": keys, "sampled logits": SAMPLED_COPIES * FLOAT * rows * shape.vocabulary}
