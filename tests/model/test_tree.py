"""The tree forward gives the numbers of padded rows, for every model family and shape of tree."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import transformers as hf

from strop.errors import TextError
from strop.model import logprobs
from strop.model.logprobs import Head, TreeScorer, honours_tree, padded_scores, tree_scores
from strop.model.tree import lay_out, plan_attention
from strop.types import Branch, TokenScores, Tree
from tests.support.families import MODELS, VOCABULARY, model_of, tree_of


def gradient(model: Any, scores: TokenScores) -> torch.Tensor:
    """Of a weighted sum in which every token counts differently."""
    model.zero_grad()
    weights = torch.linspace(-1, 2, len(scores.logprobs_N))
    (scores.logprobs_N * weights).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("branches", [1, 2, 8])
@pytest.mark.parametrize("name", MODELS)
def test_equals_padded_rows(name: str, branches: int) -> None:
    model = model_of(name)
    assert honours_tree(model)
    draw = random.Random(branches)
    batch = lay_out([tree_of(draw, branches, 14) for _ in range(4)])
    by_tree, by_rows = tree_scores(model, batch), padded_scores(model, batch)
    assert (by_tree.logprobs_N - by_rows.logprobs_N).abs().max() <= 1e-5
    assert (by_tree.entropy_N - by_rows.entropy_N).abs().max() <= 1e-5
    ours, theirs = gradient(model, by_tree), gradient(model, padded_scores(model, batch))
    assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


@pytest.mark.parametrize("name", ["qwen3", "mistral"])
def test_equals_padded_rows_where_the_fused_kernel_runs(name: str) -> None:
    """Segments longer than `WRITTEN_OUT_KEYS` take the other code path."""
    model = model_of(name)
    draw = random.Random(7)
    ids = [tuple(draw.randrange(VOCABULARY) for _ in range(110)) for _ in range(3)]
    trees = [Tree(ids[0], (Branch(ids[1], (True,) * 110), Branch(ids[2], (True,) * 110)))]
    batch = lay_out(trees)
    by_tree, by_rows = tree_scores(model, batch), padded_scores(model, batch)
    assert (by_tree.logprobs_N - by_rows.logprobs_N).abs().max() <= 1e-5
    ours, theirs = gradient(model, by_tree), gradient(model, padded_scores(model, batch))
    assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def test_a_branch_never_sees_its_sibling() -> None:
    model = model_of("qwen3")
    branch = Branch((5, 6, 7), (True,) * 3)
    first = tree_scores(model, lay_out([Tree((1, 2), (branch, Branch((9,) * 9, (True,) * 9)))]))
    other = tree_scores(model, lay_out([Tree((1, 2), (branch, Branch((4,), (True,))))]))
    assert torch.allclose(first.logprobs_N[:3], other.logprobs_N[:3], atol=1e-6)


def test_layout_is_the_documented_example() -> None:
    tree = Tree((1, 4), (Branch((5, 2), (True, True)), Branch((6, 2), (True, True))))
    batch = lay_out([tree])
    assert batch.tokens_L.tolist() == [1, 4, 5, 2, 6, 2]
    assert batch.positions_L.tolist() == [0, 1, 2, 3, 2, 3]
    assert batch.trunk_spans == ((0, 2),)
    assert batch.branch_spans == ((2, 4), (4, 6))
    assert batch.predictor_N.tolist() == [1, 2, 1, 4]
    assert batch.target_N.tolist() == [5, 2, 6, 2]
    assert batch.branch_N.tolist() == [0, 0, 1, 1]


def test_unsupervised_tokens_are_read_but_not_scored() -> None:
    batch = lay_out([Tree((1,), (Branch((5, 6, 7), (True, False, True)),))])
    assert batch.target_N.tolist() == [5, 7]
    assert batch.predictor_N.tolist() == [0, 2]


def test_no_padding_and_every_token_once() -> None:
    draw = random.Random(3)
    trees = [tree_of(draw, 3, 9) for _ in range(10)]
    batch = lay_out(trees)
    assert len(batch.tokens_L) == sum(map(len, trees))
    plan = plan_attention(batch)
    assert plan.queries[plan.order_L].tolist() == list(range(len(batch.tokens_L)))


def test_empty_trunk_is_refused() -> None:
    with pytest.raises(TextError, match="empty trunk"):
        lay_out([Tree((), (Branch((5,), (True,)),))])


def test_empty_branch_is_refused() -> None:
    with pytest.raises(TextError, match="empty branch"):
        lay_out([Tree((1,), (Branch((), ()),))])


@pytest.mark.parametrize(
    "model",
    [
        lambda: hf.MambaForCausalLM(
            hf.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2)
        ),
        lambda: hf.BloomForCausalLM(
            hf.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4)
        ),
    ],
    ids=["mamba", "bloom"],
)
def test_falls_back_to_padded_rows_with_a_warning(model: Any) -> None:
    torch.manual_seed(0)
    built = model().eval()
    with pytest.warns(UserWarning, match="falling back to padded rows"):
        scorer = TreeScorer(built)
    tree = tree_of(random.Random(1), 2, 6)
    branch = tree.branches[1]
    scores = scorer([tree])
    alone = built(torch.tensor([tree.trunk + branch.ids])).logits[0].log_softmax(-1)
    places = [len(tree.trunk) + i - 1 for i, on in enumerate(branch.supervised) if on]
    expected = [float(alone[p, branch.ids[p - len(tree.trunk) + 1]].detach()) for p in places]
    mine = scores.logprobs_N[scores.branch_N == 1]
    assert torch.allclose(mine, torch.tensor(expected), atol=1e-4)


def test_the_chunked_head_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")
    batch = lay_out([tree_of(random.Random(2), 4, 12) for _ in range(3)])
    whole = tree_scores(model, batch, Head(temperature=0.7))
    expected = gradient(model, whole)
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", 5 * VOCABULARY)
    pieces = tree_scores(model, batch, Head(temperature=0.7))
    assert torch.allclose(whole.logprobs_N, pieces.logprobs_N, atol=1e-6)
    assert torch.allclose(whole.entropy_N, pieces.entropy_N, atol=1e-6)
    assert (gradient(model, pieces) - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_the_vocabulary_is_read_in_blocks_over_its_own_place(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradient are those of a plain softmax in float64."""
    monkeypatch.setattr(logprobs, "BLOCK_ELEMENTS", rows * 11)
    draw = torch.Generator().manual_seed(0)
    raw_NV = torch.randn(7, 11, generator=draw, requires_grad=True)
    target_N, slope_N = torch.arange(7), torch.randn(7, generator=draw)
    logits_NV = raw_NV * 1.0
    got = logprobs.read_vocabulary(logits_NV, target_N, Head(temperature=0.7, collision=True))
    (grad_NV,) = torch.autograd.grad(got[0] @ slope_N, raw_NV)
    exact_NV = raw_NV.detach().double().requires_grad_()
    all_NV = (exact_NV / 0.7).log_softmax(-1)
    (expected_NV,) = torch.autograd.grad(all_NV[target_N, target_N] @ slope_N.double(), exact_NV)
    assert torch.allclose(got[0].double(), all_NV[target_N, target_N], atol=1e-6)
    assert torch.allclose(got[1].double(), -(all_NV.exp() * all_NV).sum(-1), atol=1e-6)
    assert got[2] is not None
    assert torch.allclose(got[2].double(), (2 * all_NV).exp().sum(-1).log(), atol=1e-6)
    assert torch.allclose(grad_NV.double(), expected_NV, atol=1e-6)


def test_temperature_divides_the_logits() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    logprobs_N, entropy_N, collision_N = logprobs.read_vocabulary(
        logits, torch.tensor([1]), Head(temperature=2.0, collision=True)
    )
    p = torch.tensor([0.5, 1.0, 2.0]).softmax(0)
    assert float(logprobs_N) == pytest.approx(float(p[1].log()), abs=1e-6)
    assert float(entropy_N) == pytest.approx(float(-(p * p.log()).sum()), abs=1e-6)
    assert collision_N is not None
    assert float(collision_N) == pytest.approx(float(p.square().sum().log()), abs=1e-6)


def test_divergence_is_the_exact_kl() -> None:
    model, other = model_of("qwen3"), model_of("llama")
    tree = Tree((1, 2), (Branch((5, 6), (True, True)),))
    kl_N = TreeScorer(model).divergence([tree], TreeScorer(other))
    row = torch.tensor([tree.trunk + tree.branches[0].ids])
    p, q = (m(row).logits[0, 1:3].log_softmax(-1) for m in (model, other))
    assert torch.allclose(kl_N, (p.exp() * (p - q)).sum(-1), atol=1e-5)
    assert TreeScorer(model).divergence([tree], TreeScorer(model)).abs().max() < 1e-6


def test_gradients_agree_in_bfloat16_autocast() -> None:
    model = model_of("qwen3")
    batch = lay_out([tree_of(random.Random(4), 2, 10) for _ in range(3)])
    exact = padded_scores(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = tree_scores(model, batch)
    assert rough.logprobs_N.dtype == torch.float32
    assert (rough.logprobs_N - exact.logprobs_N).abs().mean() < 0.1
