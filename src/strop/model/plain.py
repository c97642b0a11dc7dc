"""One decoding step of a plain decoder, written out.

A step of a small model spends more time around its matrix products than in them. Llama, Mistral,
Qwen2 and Qwen3 share one layer, written out here with fewer and larger operations: queries and keys
are normalised and rotated together. Linear layers are packed where they are plain
(`strop.model.packed`), else called as modules, so adapters and quantized weights take part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from strop.model.keys import Scoring
from strop.model.logprobs import capped
from strop.model.packed import PACKING_ROWS, Packing, Products, room_on

PLAIN = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Model types with the decoder layer that is written out here."""

NORMED = frozenset({"qwen3"})
"""Those of them that normalise queries and keys."""

Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(layer number, query [R, heads, D], key and value [R, kv_heads, D]) -> [R, heads * D]."""


@dataclass(frozen=True, slots=True)
class LayerProducts:
    """The linear layers of one decoder layer: queries beside keys, and values; what attention read;
    gate and up; down."""

    query_key_value: Products
    attended: Products
    gate_up: Products
    down: Products

    @classmethod
    def of(cls, layer: Any, packing: Packing) -> LayerProducts:
        attention, mlp = layer.self_attn, layer.mlp
        return cls(
            packing.of([attention.q_proj, attention.k_proj], [attention.v_proj]),
            packing.of([attention.o_proj]),
            packing.of([mlp.gate_proj], [mlp.up_proj]),
            packing.of([mlp.down_proj]),
        )


class PlainStep:
    """The layers of one decoder, and its head, for as long as their weights stay. They are copied
    at the first step of several rows; if it is `kept` for many samplings, at once.

    `scorings` are how layers turn products of queries and keys into weights, once that was seen:
    with them prompts can be read, too.
    """

    def __init__(self, causal_lm: Any, *, kept: bool = False) -> None:
        self.decoder = decoder = causal_lm.get_decoder()
        self.causal_lm = causal_lm
        self.layers = decoder.layers[: decoder.config.num_hidden_layers]
        self.weights_ND: list[torch.Tensor | None] = [None] * len(self.layers)
        if decoder.config.model_type in NORMED:
            self.weights_ND = [_query_key_norm(layer.self_attn) for layer in self.layers]
        self.scorings: dict[int, Scoring] = {}
        self.products = self._products(Packing(0))
        self.packed = False
        self.packing_rows = 1 if kept else PACKING_ROWS
        self.floor = decoder.norm.weight.new_tensor(decoder.norm.variance_epsilon**0.5).float()

    def _products(self, packing: Packing) -> tuple[list[LayerProducts], Products]:
        """Of every layer, and of the head."""
        head = packing.of([self.causal_lm.get_output_embeddings()])
        return [LayerProducts.of(layer, packing) for layer in self.layers], head

    def __call__(
        self, tokens_R: torch.Tensor, positions_R: torch.Tensor, attend: Attend
    ) -> torch.Tensor:
        """Logits of the token after one new token per row, [R, vocab]."""
        return self.logits(self.hidden(tokens_R, positions_R, attend))

    def logits(self, hidden_RH: torch.Tensor) -> torch.Tensor:
        """What follows these last hidden states, [R, vocab]."""
        return capped(self.causal_lm, self.products[1](hidden_RH)[0])

    def hidden(
        self, tokens_R: torch.Tensor, positions_R: torch.Tensor, attend: Attend
    ) -> torch.Tensor:
        """Last hidden states of tokens, whosever they are: only `attend` knows, [R, H]."""
        hidden_RH = self.decoder.embed_tokens(tokens_R)
        cos_1RD, sin_1RD = self.decoder.rotary_emb(hidden_RH[None], positions_R[None])
        half = sin_1RD.shape[-1] // 2
        signed_1RD = torch.cat([-sin_1RD[..., :half], sin_1RD[..., half:]], -1)
        turn = cos_1RD[0, :, None], signed_1RD[0, :, None]
        if not self.packed and len(tokens_R) >= self.packing_rows:
            self.products, self.packed = self._products(Packing(room_on(tokens_R.device))), True
        for layer, products, weights_ND in zip(
            self.layers, self.products[0], self.weights_ND, strict=True
        ):
            normed_RH = self._normed(hidden_RH, layer.input_layernorm.weight)
            both_RF, value_RF = products.query_key_value(normed_RH)
            size = layer.self_attn.head_dim
            both_RND = self._turned(both_RF.unflatten(-1, (-1, size)), weights_ND, turn)
            value_RKD = value_RF.unflatten(-1, (-1, size))
            heads = both_RND.shape[1] - value_RKD.shape[1]
            attended_RF = attend(
                layer.self_attn.layer_idx, both_RND[:, :heads], both_RND[:, heads:], value_RKD
            )
            hidden_RH = hidden_RH + products.attended(attended_RF)[0]
            normed_RH = self._normed(hidden_RH, layer.post_attention_layernorm.weight)
            gate_RF, up_RF = products.gate_up(normed_RH)
            gated_RF = layer.mlp.act_fn(gate_RF).mul_(up_RF)
            hidden_RH = hidden_RH + products.down(gated_RF)[0]
        return self._normed(hidden_RH, self.decoder.norm.weight)

    def _turned(
        self,
        both_RND: torch.Tensor,
        weights_ND: torch.Tensor | None,
        turn: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Queries and keys, normalised if the model does so, and rotated."""
        if weights_ND is not None:
            both_RND = self._normed(both_RND, weights_ND)
        cos_R1D, signed_R1D = turn
        half = both_RND.shape[-1] // 2
        return torch.addcmul(both_RND * cos_R1D, both_RND.roll(half, -1), signed_R1D)

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
