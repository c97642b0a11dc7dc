"""Whether two ways of one forward agree: tight in float32, above the rounding of deep models in
bfloat16, below what a real fault does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from strop.model import logprobs
from strop.model.decode import honours_plain
from strop.model.logprobs import honours_tree, padded_scores
from strop.model.probe import agree, probe_of
from strop.model.tree import lay_out
from strop.types import TokenScores, Tree, TreeBatch


@pytest.fixture(scope="module")
def deep() -> LlamaForCausalLM:
    """Thirty layers in bfloat16 whose log-probs spread over tens of nats."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=500, hidden_size=64, intermediate_size=128,
                         num_hidden_layers=30, num_attention_heads=4, num_key_value_heads=2,
                         initializer_range=0.15)  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    model.lm_head.weight.data.normal_(0.0, 0.8)
    return model.to(torch.bfloat16)


def test_precision_decides_what_is_equal() -> None:
    zeros = torch.zeros(4)
    assert agree(zeros, torch.full((4,), 9e-4), torch.float32)
    assert not agree(zeros, torch.tensor([0.0, 0.0, 0.0, 2e-3]), torch.float32)
    assert agree(zeros, torch.tensor([0.0, 0.1, 0.0, 0.8]), torch.bfloat16)
    assert not agree(zeros, torch.full((4,), 0.3), torch.bfloat16)


def test_the_probe_is_spread_over_the_vocabulary(deep: Any) -> None:
    first, second = probe_of(deep)
    assert first.trunk == (150, 50, 200)
    assert second.branches[0].ids == (250, 400, 450, 350)


def test_a_deep_model_in_bfloat16_is_read_as_a_tree(deep: Any) -> None:
    assert honours_tree(deep)
    assert honours_plain(deep)


def test_its_rounding_is_why_single_values_are_not_compared(deep: Any) -> None:
    batch = lay_out(probe_of(deep))
    with torch.no_grad():
        by_tree = logprobs.tree_scores(deep, batch).logprobs_N
        by_rows = padded_scores(deep, batch).logprobs_N
    assert (by_tree - by_rows).abs().max() > 0.1


def seeing_siblings(model: Any, batch: TreeBatch) -> TokenScores:
    """As if every branch continued the one before it."""
    rows = []
    for tree in probe_of(model):
        first, second = tree.branches
        rows += [Tree(tree.trunk, (first,)), Tree(tree.trunk + first.ids, (second,))]
    return padded_scores(model, lay_out(rows))


def reading_backwards(model: Any, batch: TreeBatch) -> TokenScores:
    """As if the order of a prompt did not count."""
    turned = [
        Tree((*tree.trunk[-2::-1], tree.trunk[-1]), tree.branches) for tree in probe_of(model)
    ]
    return padded_scores(model, lay_out(turned))


@pytest.mark.parametrize("fault", [seeing_siblings, reading_backwards])
def test_a_fault_is_above_the_rounding(
    deep: Any, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "padded_scores", fault)
    assert not honours_tree(deep)
