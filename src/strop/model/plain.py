"""One decoding step of a plain decoder, written out.

A step of a small model spends more time around its matrix products than in them. Llama, Mistral,
Qwen2 and Qwen3 share one layer, written out here with fewer and larger operations: queries and keys
are normalised and rotated together. Linear layers are called as modules, so adapters and quantized
weights take part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

PLAIN = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Model types with the decoder layer that is written out here."""

NORMED = frozenset({"qwen3"})
"""Those of them that normalise queries and keys."""

Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(layer number, query [R, heads, D], key and value [R, kv_heads, D]) -> [R, heads * D]."""


class PlainStep:
    """The layers of one decoder; rebuilt for each sampling, since training changes the weights."""

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        self.layers = decoder.layers[: decoder.config.num_hidden_layers]
        self.weights_ND: list[torch.Tensor | None] = [None] * len(self.layers)
        if decoder.config.model_type in NORMED:
            self.weights_ND = [_query_key_norm(layer.self_attn) for layer in self.layers]
        self.floor = decoder.norm.weight.new_tensor(decoder.norm.variance_epsilon**0.5).float()

    def __call__(
        self, tokens_R: torch.Tensor, positions_R: torch.Tensor, attend: Attend
    ) -> torch.Tensor:
        """Last hidden states of one new token per row, [R, H]."""
        hidden_RH = self.decoder.embed_tokens(tokens_R)
        cos_1RD, sin_1RD = self.decoder.rotary_emb(hidden_RH[None], positions_R[None])
        half = sin_1RD.shape[-1] // 2
        signed_1RD = torch.cat([-sin_1RD[..., :half], sin_1RD[..., half:]], -1)
        turn = cos_1RD[0, :, None], signed_1RD[0, :, None]
        for layer, weights_ND in zip(self.layers, self.weights_ND, strict=True):
            normed_RH = self._normed(hidden_RH, layer.input_layernorm.weight)
            q_RND, k_RKD, v_RKD = self._query_key_value(
                layer.self_attn, normed_RH, weights_ND, turn
            )
            attended_RF = attend(layer.self_attn.layer_idx, q_RND, k_RKD, v_RKD)
            hidden_RH = hidden_RH + layer.self_attn.o_proj(attended_RF)
            normed_RH = self._normed(hidden_RH, layer.post_attention_layernorm.weight)
            hidden_RH = hidden_RH + _mlp(layer.mlp, normed_RH)
        return self._normed(hidden_RH, self.decoder.norm.weight)

    def _query_key_value(
        self,
        module: Any,
        normed_RH: torch.Tensor,
        weights_ND: torch.Tensor | None,
        turn: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query, key and value of one token per row; queries and keys are normalised if the model
        does so, and rotated."""
        rows, size = len(normed_RH), module.head_dim
        query_RF, key_RF = module.q_proj(normed_RH), module.k_proj(normed_RH)
        both_RND = torch.cat([query_RF, key_RF], -1).view(rows, -1, size)
        if weights_ND is not None:
            both_RND = self._normed(both_RND, weights_ND)
        cos_R1D, signed_R1D = turn
        both_RND = torch.addcmul(both_RND * cos_R1D, both_RND.roll(size // 2, -1), signed_R1D)
        heads = query_RF.shape[-1] // size
        value_RKD = module.v_proj(normed_RH).view(rows, -1, size)
        return both_RND[:, :heads], both_RND[:, heads:], value_RKD

    def _normed(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """x / sqrt(mean(x^2) + epsilon) * weight, the quotient in float32."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        root = torch.hypot(length * x.shape[-1] ** -0.5, self.floor)
        return (x / root).to(x.dtype) * weight


def _query_key_norm(module: Any) -> torch.Tensor:
    """Norm weights of all query heads, then of all key heads, [N, D]."""
    heads, kv_heads = (m.out_features // module.head_dim for m in (module.q_proj, module.k_proj))
    queries = module.q_norm.weight.expand(heads, -1)
    return torch.cat([queries, module.k_norm.weight.expand(kv_heads, -1)])


def _mlp(module: Any, normed_RH: torch.Tensor) -> torch.Tensor:
    gated_RF = module.act_fn(module.gate_proj(normed_RH)).mul_(module.up_proj(normed_RH))
    out_RH: torch.Tensor = module.down_proj(gated_RF)
    return out_RH
