"""Every way to compute tree attention gives what the dense one gives."""

from __future__ import annotations

import inspect
import logging
import random
from typing import Any

import pytest
import torch
from torch.nn.attention import flex_attention as torch_flex
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.attention.varlen import varlen_attn

from strop.model import flex, logprobs, varlen, ways
from strop.model.attention import tree_attention
from strop.model.logprobs import TreeScorer, padded_scores, tree_scores, tree_way
from strop.model.tree import lay_out, plan_attention
from strop.model.ways import BLOCKS, FEW_BLOCKS, FLEX, VARLEN, Way
from strop.types import Branch, Tree, TreeBatch
from tests.support.families import model_of, tree_of
from tests.support.varlen import looped_varlen

HEADS, SHARED, SIZE = 4, 2, 16
Attend = Any


def row(seed: int, longest: int = 14) -> TreeBatch:
    draw = random.Random(seed)
    trees = [tree_of(draw, branches, longest) for branches in (1, 3, 2, 0, 5)]
    return lay_out(trees)


def inputs(batch: TreeBatch, dtype: torch.dtype) -> list[torch.Tensor]:
    dice = torch.Generator().manual_seed(len(batch.tokens_L))
    tokens = len(batch.tokens_L)
    return [
        torch.randn(1, heads, tokens, SIZE, dtype=dtype, generator=dice).requires_grad_()
        for heads in (HEADS, SHARED, SHARED)
    ]


def read(attend: Attend, plan: Any, given: list[torch.Tensor], **options: Any) -> torch.Tensor:
    out: torch.Tensor = attend(torch.nn.Module(), *given, None, tree_plan=plan, **options)[0]
    return out


def slopes(out: torch.Tensor, given: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    return torch.autograd.grad((out * weights).sum(), given)


def masked(
    batch: TreeBatch,
    given: list[torch.Tensor],
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention through one written-out mask of the whole row, [1, L, heads, D]."""
    q, k, v = given
    tokens = q.shape[2]
    sees_LL = torch.zeros(tokens, tokens, dtype=torch.bool)
    branches = zip(batch.branch_trunk, batch.branch_spans, strict=True)
    seen = [(span, span) for span in batch.trunk_spans]
    seen += [(batch.trunk_spans[trunk], span) for trunk, span in branches]
    for before, (start, stop) in seen:
        for token in range(start, stop):
            sees_LL[token, before[0] : min(before[1], token + 1)] = True
            sees_LL[token, start : token + 1] = True
    if sliding_window is not None:
        apart_LL = batch.positions_L[:, None] - batch.positions_L[None]
        sees_LL &= apart_LL < sliding_window
    scores = scaling * q @ k.repeat_interleave(HEADS // SHARED, 1).transpose(2, 3)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(~sees_LL, float("-inf")).exp()
    sums = weights.sum(-1, keepdim=True)
    if s_aux is not None:
        sums = sums + s_aux.to(sums.dtype).exp()[None, :, None, None]
    return (weights / sums @ v.repeat_interleave(HEADS // SHARED, 1)).transpose(1, 2)


@pytest.fixture
def looped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's place is taken by a loop over its sequences, which runs anywhere."""
    monkeypatch.setattr(varlen, "varlen_attn", looped_varlen)


def test_the_sequences_of_the_documented_example() -> None:
    tree = Tree((1, 4), (Branch((5, 2), (True, True)), Branch((6,), (True,))))
    plan = varlen.plan_varlen(lay_out([tree]))
    assert plan.keys_M.tolist() == [0, 1, 0, 1, 2, 3, 0, 1, 4]
    assert plan.starts_q.tolist() == [0, 2, 4, 5]
    assert plan.starts_k.tolist() == [0, 2, 6, 9]
    assert (plan.longest_q, plan.longest_k) == (2, 4)
    assert plan.starts_q.dtype == plan.starts_k.dtype == torch.int32


@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.usefixtures("looped")
def test_sequences_are_the_dense_mask(seed: int, window: int | None) -> None:
    """Values and gradients in float64, with query heads that share keys."""
    batch = row(seed)
    given = inputs(batch, torch.float64)
    options: dict[str, Any] = {"scaling": 0.3, "sliding_window": window}
    exact = masked(batch, given, **options)
    found = read(varlen.varlen_attention, varlen.plan_varlen(batch), given, **options)
    assert torch.allclose(found, exact, atol=1e-10, rtol=0)
    for ours, theirs in zip(slopes(found, given), slopes(exact, given), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-10, rtol=0)


def test_the_rectangles_are_the_mask() -> None:
    """The way of a processor, whose softmax is in float32."""
    batch = row(5)
    given = inputs(batch, torch.float32)
    options: dict[str, Any] = {"scaling": 0.3, **OPTIONS["all"]}
    found = read(tree_attention, plan_attention(batch), given, **options)
    assert torch.allclose(found, masked(batch, given, **options), atol=1e-5)


def test_shared_rows_add_up_their_gradients_in_float32() -> None:
    """300 gradients of 1: a sum in bfloat16 stops at 256, where the next number is 258."""
    x = torch.zeros(2, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    index = torch.tensor([0] * 300 + [1])
    (grad,) = torch.autograd.grad(varlen.gathered(x, index).float().sum(), x)
    assert grad.flatten().tolist() == [300.0, 1.0]


@pytest.mark.parametrize(
    "unknown", [{"softcap": 20.0}, {"s_aux": torch.zeros(4)}, {"dropout": 0.1}]
)
def test_what_the_kernel_does_not_know_is_refused(unknown: dict[str, Any]) -> None:
    batch = row(0)
    with pytest.raises(ValueError, match="knows no soft-caps, sinks or dropout"):
        read(varlen.varlen_attention, varlen.plan_varlen(batch),
             inputs(batch, torch.float32), **unknown)  # fmt: skip


def test_the_kernel_is_called_as_torch_declares_it() -> None:
    """torch 2.11 and later; only `enable_gqa` came after it."""
    declared = inspect.signature(varlen_attn)
    given = inspect.signature(looped_varlen)
    names = ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert list(declared.parameters)[:7] == names
    assert len([p for p in given.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]) == 7
    assert {"scale", "window_size", *varlen.SHARED_HEADS} <= declared.parameters.keys()


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"sliding_window": 5},
    "softcap": {"softcap": 0.7},
    "sinks": {"s_aux": torch.tensor([0.5, -1.0, 2.0, 0.0])},
    "all": {"sliding_window": 4, "softcap": 1.3, "s_aux": torch.tensor([0.1, 0.2, -0.3, 1.0])},
}


@pytest.mark.parametrize("longest", [14, 150], ids=["one block", "many blocks"])
@pytest.mark.parametrize("name", OPTIONS)
def test_flex_is_the_dense_mask(name: str, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients in float64. torch lets nobody differentiate FlexAttention on a CPU,
    because its compiled form cannot; written out, as it runs here, it can."""
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)
    batch = row(3, longest)
    given = inputs(batch, torch.float64)
    options: dict[str, Any] = {"scaling": 0.3, **OPTIONS[name]}
    exact = masked(batch, given, **options)
    found = read(flex.flex_tree_attention, flex.plan_flex(batch), given, **options)
    assert torch.allclose(found, exact, atol=1e-10, rtol=0)
    for ours, theirs in zip(slopes(found, given), slopes(exact, given), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-10, rtol=0)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_block_that_is_looked_at_is_computed(seed: int) -> None:
    """Those of torch's own search through the whole mask."""
    batch = row(seed, 300)
    plan = flex.plan_flex(batch)
    tokens = len(batch.tokens_L)
    assert tokens > 4 * flex.BLOCK
    mask = plan.block_mask(None)
    torchs = create_block_mask(mask.mask_mod, None, None, tokens, tokens, "cpu")
    wanted = (torchs.to_dense() > 0)[0, 0]
    assert torch.equal((mask.to_dense() > 0)[0, 0], wanted)
    assert wanted.float().mean() < 0.5  # siblings and other trees are left out


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss", "mistral", "qwen3"])
def test_a_whole_model_by_flex(name: str) -> None:
    model = model_of(name)
    batch = row(4)
    with torch.no_grad():
        found = tree_scores(model, batch, way=FLEX).logprobs_N
        assert (found - padded_scores(model, batch).logprobs_N).abs().max() <= 1e-5


@pytest.mark.usefixtures("looped")
@pytest.mark.parametrize("name", ["mistral", "qwen3"])
def test_a_whole_model_by_sequences(name: str) -> None:
    model = model_of(name)
    batch = row(4)
    with torch.no_grad():
        found = tree_scores(model, batch, way=VARLEN).logprobs_N
        assert (found - padded_scores(model, batch).logprobs_N).abs().max() <= 1e-5


def chosen_by(model: Any, monkeypatch: pytest.MonkeyPatch) -> Way | None:
    """The choice with the ways of a GPU."""
    monkeypatch.setitem(ways.WAYS, "cpu", ways.WAYS["cuda"])
    return tree_way(model)


@pytest.mark.usefixtures("looped")
def test_the_best_way_that_fits_is_chosen(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="strop.model.ways")
    assert chosen_by(model_of("qwen3"), monkeypatch) == VARLEN
    assert chosen_by(model_of("gpt_oss"), monkeypatch) == FLEX
    assert "GptOssForCausalLM: tree attention by strop_flex" in caplog.messages
    assert any("no tree attention by strop_varlen: ValueError" in said for said in caplog.messages)


def test_the_way_without_a_kernel_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel of torch itself cannot run on a CPU, and a wrong one is found out."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(flex, "flex_attention", broken)
    assert chosen_by(model_of("qwen3"), monkeypatch) == FEW_BLOCKS

    def misaligned(q: Any, k: Any, v: Any, starts_q: Any, starts_k: Any, *_: Any, **__: Any) -> Any:
        """Causal order aligned at the first query and the first key, as other kernels have it."""
        first_k = [k[a : a + n] for a, n in zip(starts_k[:-1], starts_q.diff(), strict=True)]
        first_v = [v[a : a + n] for a, n in zip(starts_k[:-1], starts_q.diff(), strict=True)]
        longest = int(starts_q.diff().max())
        return looped_varlen(q, torch.cat(first_k), torch.cat(first_v), starts_q, starts_q,
                             longest, longest, window_size=(-1, 0))  # fmt: skip

    monkeypatch.setattr(varlen, "varlen_attn", misaligned)
    assert chosen_by(model_of("qwen3"), monkeypatch) == FEW_BLOCKS


def test_attention_dropout_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("qwen3")
    model.config.attention_dropout = 0.1
    assert chosen_by(model, monkeypatch) == FEW_BLOCKS


def test_a_processor_takes_the_rectangles() -> None:
    assert tree_way(model_of("qwen3")) == BLOCKS


def test_a_long_row_goes_without_written_out_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("qwen3")
    scorer = TreeScorer(model)
    tree = tree_of(random.Random(0), 2, 12)
    called: list[str] = []

    def noted(name: str) -> Any:
        original = getattr(logprobs, name)

        def call(*given: Any, **options: Any) -> Any:
            called.append(name)
            return original(*given, **options)

        return call

    for name in ("tree_scores", "padded_scores"):
        monkeypatch.setattr(logprobs, name, noted(name))
    scorer.way = Way(BLOCKS.name, plan_attention, len(tree))
    short = scorer([tree]).logprobs_N
    scorer.way = Way(BLOCKS.name, plan_attention, len(tree) - 1)
    long = scorer([tree]).logprobs_N
    assert called == ["tree_scores", "padded_scores"]
    assert (short - long).abs().max() <= 1e-5
