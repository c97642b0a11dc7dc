"""One number per answer or per token from a sequence classifier with a single label."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from strop.model.compiled import CompiledLayers
from strop.model.logprobs import (
    bare,
    decoder_layers,
    eval_mode,
    padded_hidden,
    tree_hidden_rows,
    way_now,
)
from strop.model.probe import agree, probe_of
from strop.model.tree import lay_out
from strop.model.ways import BLOCKS, Way, chosen
from strop.types import Tree, TreeBatch

Places = tuple[torch.Tensor, torch.Tensor]
"""Indices of the laid-out row, and for each the number of the branch that sees it, [N]."""


class ScalarScorer(torch.nn.Module):
    """Reads trees through the scalar head of `AutoModelForSequenceClassification`. A module around
    the model whose own forward runs, like `TreeScorer`."""

    def __init__(self, model: Any, *, bfloat16: bool = False, loaded: bool = True) -> None:
        super().__init__()
        self.classifier = bare(model)
        # rewards are compared by small differences, so the head is never rounded to 8 bits
        self.classifier.score.float()
        self.compiled: CompiledLayers | None = None
        self.by_tree, self.way = False, BLOCKS
        if loaded:
            self.find_way(bfloat16=bfloat16)

    def find_way(self, *, bfloat16: bool) -> None:
        """Choose how attention is computed where the model is now."""
        way = self._tree_way(bfloat16)
        self.by_tree, self.way = way is not None, way or BLOCKS
        if not self.by_tree:
            warnings.warn(
                f"{type(self.classifier).__name__} does not honour transformers' attention "
                "interface: falling back to padded rows (same numbers, slower)",
                stacklevel=3,
            )

    def finals(self, trees: Sequence[Tree]) -> torch.Tensor:
        """The score of every branch, read at its last token that is not padding, [B] float32.

        transformers' own classifiers pool there, so a saved model gives the same number.
        """
        return self(trees, self._last_tokens)

    def values(self, trees: Sequence[Tree]) -> torch.Tensor:
        """The value before every supervised token is written, [N] float32."""
        return self(trees, lambda batch: (batch.predictor_N, batch.branch_N))

    @property
    def _device(self) -> torch.device:
        return torch.device(self.classifier.device)

    def _last_tokens(self, batch: TreeBatch) -> Places:
        pad = self.classifier.config.get_text_config().pad_token_id
        tokens = batch.tokens_L.tolist()
        last = [
            max((i for i in range(start, stop) if tokens[i] != pad), default=stop - 1)
            for start, stop in batch.branch_spans
        ]
        device = batch.tokens_L.device
        return torch.tensor(last, device=device), torch.arange(batch.branches, device=device)

    def __call__(
        self, trees: Sequence[Tree], places: Callable[[TreeBatch], Places]
    ) -> torch.Tensor:
        """The head's output at these places of the laid-out row, as branches see them, [N]."""
        scores_N: torch.Tensor = super().__call__(trees, places)
        return scores_N

    def forward(self, trees: Sequence[Tree], places: Callable[[TreeBatch], Places]) -> torch.Tensor:
        batch = lay_out(trees, self._device)
        rows_N, branch_N = places(batch)
        if self.by_tree and self.way.takes(batch):
            hidden_ND = tree_hidden_rows(self.classifier, batch, rows_N, way=way_now(self))
        else:
            hidden_ND = padded_hidden(self.classifier, batch, rows_N, branch_N)
        head = self.classifier.score
        with torch.autocast(hidden_ND.device.type, enabled=False):
            scores_N1: torch.Tensor = head(hidden_ND.to(next(head.parameters()).dtype))
        return scores_N1.sum(-1)  # no view: hooks on what a module returns may need its own tensor

    @torch.no_grad()
    def _tree_way(self, bfloat16: bool) -> Way | None:
        """The way in which every layer calls tree attention and the numbers equal those of padded
        rows."""
        batch = lay_out(probe_of(self.classifier), self._device)
        dtype = torch.bfloat16 if bfloat16 else self.classifier.dtype

        def agrees(way: Way) -> bool:
            layers: list[torch.nn.Module] = []
            by_tree = tree_hidden_rows(
                self.classifier, batch, batch.predictor_N, way=way, observer=layers.append
            )
            by_rows = padded_hidden(self.classifier, batch, batch.predictor_N, batch.branch_N)
            scale = by_rows.abs().mean()
            close = agree(by_tree / scale, by_rows / scale, dtype)
            return close and len(layers) == decoder_layers(self.classifier)

        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=bfloat16)
        with eval_mode(self.classifier), autocast:
            return chosen(self.classifier, agrees)
