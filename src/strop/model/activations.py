"""How many tokens one forward may read, so that what it keeps for the backward stays small beside
what training holds anyway.

A token of a forward keeps far more than its hidden state: about 1.5 MB in a model of 135 million
parameters. Larger forwards than needed to keep the processor busy cost memory and give nothing.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

from strop.model.logprobs import bare, decoder_layers, eval_mode, padded_hidden, tree_hidden_rows
from strop.model.network import Policy, ScalarNetwork
from strop.model.sharding import own_part, whole_weights
from strop.model.tree import lay_out
from strop.model.ways import Way
from strop.types import Branch, Tree

MOST_TOKENS = 8192
"""No forward reads more unless the recipe says so."""

SHARE = 3
"""Activations may take a third of weights, gradients and AdamW's two moments together."""

AT_LEAST = {"cpu": 2**29}
AT_LEAST_ELSEWHERE = 2**32
"""Bytes that activations may always take: 512 MiB on a CPU, which is as fast with a few hundred
tokens as with thousands; 4 GiB on a device whose memory is its own."""

TRAINED_BYTES = 12
"""Of a trained parameter beside its weight: gradient and two moments in float32."""

PROBE_TOKENS = 64


def tokens_at_once(network: Policy | ScalarNetwork) -> int:
    """Tokens of one forward whose activations fit: the same for the same model and kind of device,
    whatever memory is free."""
    held: int = sum(
        own_part(p).numel() * (p.element_size() + TRAINED_BYTES * p.requires_grad)
        for p in network.model.parameters()
    )
    fit = tokens_within(held, kept_by_a_token(network), network.device.type)
    return min(fit, network.score.way.most_tokens or fit)


def tokens_within(held: int, kept: int, device: str) -> int:
    """Tokens of one forward beside `held` bytes of weights, gradients and moments, where a token
    keeps `kept` bytes."""
    room = max(held // SHARE, AT_LEAST.get(device, AT_LEAST_ELSEWHERE))
    return max(1, min(MOST_TOKENS, room // max(1, kept)))


def kept_by_a_token(network: Policy | ScalarNetwork) -> int:
    """Bytes that one more token of a forward keeps for the backward, found by trying.

    With gradient checkpointing these are the inputs of all layers and the rest of one.
    """
    with whole_weights(network), network.arithmetic():
        return kept_bytes(network.model, network.score.way if network.score.by_tree else None)


def kept_bytes(model: Any, way: Way | None) -> int:
    """`kept_by_a_token` of a transformers model or the peft model around it; without a `way` of
    tree attention by padded rows."""
    short, long = (_kept(model, way, tokens) for tokens in (PROBE_TOKENS, 2 * PROBE_TOKENS))
    kept = (long - short) // PROBE_TOKENS
    network = bare(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its new name is not in transformers 5.0
        recomputes = network.is_gradient_checkpointing
    if not recomputes:
        return kept
    layers, hidden = decoder_layers(network), int(network.config.get_text_config().hidden_size)
    return kept // layers + layers * hidden * int(network.dtype.itemsize)


def _kept(model: Any, way: Way | None, tokens: int) -> int:
    """Bytes of all storages that a forward over this many tokens keeps, without the weights."""
    network = bare(model)
    half = tuple(number % 10 for number in range(tokens // 2))
    batch = lay_out([Tree(half, (Branch(half, (True,) * len(half)),))], network.device)
    weights = {own_part(p).untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        # a node that keeps its own output would otherwise keep itself alive
        return tensor.detach()

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with eval_mode(model), torch.enable_grad(), hooks:
        # the result holds all that is kept, so no address is used twice
        if way is not None:
            held = tree_hidden_rows(network, batch, batch.predictor_N, way=way)
        else:
            held = padded_hidden(network, batch, batch.predictor_N, batch.branch_N)
    del held
    return sum(kept.values())
