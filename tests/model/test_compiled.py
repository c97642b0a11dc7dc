"""Compiled decoder layers: the same numbers, and one compilation for rows of any length."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.errors import ModelError, RecipeError
from strop.model import compiled as compiled_layers
from strop.model.attention import recomputed_alike
from strop.model.compiled import MOST, CompiledLayers, expect_compilable, expect_compiler
from strop.model.logprobs import TreeScorer, compile_layers, tree_scores
from strop.model.opaque import _FORWARD, layout_of, opaque, spans_of
from strop.model.tree import lay_out, plan_attention
from strop.model.ways import BLOCKS, FLEX, VARLEN, Way
from strop.recipe.loading.load import load_recipe
from strop.train.run import train
from strop.types import Tree
from tests.support.experts import mixture
from tests.support.families import model_of, tree_of
from tests.support.runs import metrics


def rows(count: int) -> list[list[Tree]]:
    """Forwards of different lengths, with different numbers of trees and branches."""
    return [
        [tree_of(random.Random(10 * n + k), 1 + (n + k) % 3, 5 + 4 * n) for k in range(1 + n % 3)]
        for n in range(count)
    ]


Read = list[tuple[torch.Tensor, torch.Tensor]]


def read(scorer: TreeScorer, forwards: Sequence[Sequence[Tree]]) -> Read:
    """Log-probs and all gradients of each forward."""
    found = []
    for trees in forwards:
        scorer.causal_lm.zero_grad()
        logprobs_N = scorer(trees).logprobs_N
        logprobs_N.sum().backward()
        slopes = [p.grad.flatten() for p in scorer.parameters() if p.grad is not None]
        found.append((logprobs_N.detach(), torch.cat(slopes)))
    return found


def expect_alike(found: Read, expected: Read) -> None:
    for (logprobs_N, slopes), (exact_N, exact) in zip(found, expected, strict=True):
        assert (logprobs_N - exact_N).abs().max() <= 1e-4
        assert (slopes - exact).norm() <= 1e-5 * exact.norm()


@pytest.mark.parametrize("name", ["qwen3", "mistral", "gemma2", "gpt_oss"])
def test_the_opaque_operation_is_tree_attention(name: str) -> None:
    """With windows, soft-caps and sinks; values and gradients."""
    model = model_of(name)
    batch = lay_out(rows(3)[2])
    found = []
    for way in (BLOCKS, opaque(BLOCKS)):
        model.zero_grad()
        logprobs_N = tree_scores(model, batch, way=way).logprobs_N
        logprobs_N.sum().backward()
        slopes = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((logprobs_N.detach(), torch.cat(slopes)))
    expect_alike(found[1:], found[:1])


def test_a_row_comes_back_from_its_spans() -> None:
    batch = lay_out(rows(3)[2])
    again = layout_of(tuple(map(tuple, spans_of(batch).tolist())), torch.device("cpu"))
    assert again.positions_L.equal(batch.positions_L)
    assert (again.trunk_spans, again.branch_spans, again.branch_trunk) == (
        batch.trunk_spans, batch.branch_spans, batch.branch_trunk,
    )  # fmt: skip
    assert plan_attention(again).keys.equal(plan_attention(batch).keys)


@pytest.mark.parametrize("way", [BLOCKS, FLEX, VARLEN])
def test_every_way_has_one_for_compiled_layers(way: Way) -> None:
    assert opaque(way).name == f"{way.name}_opaque"
    assert opaque(way).most_tokens == way.most_tokens


@pytest.mark.parametrize("sinks", [False, True])
def test_torchs_own_check_of_the_operation(sinks: bool) -> None:
    """What the compiler is told of shapes and gradients is so."""
    batch = lay_out(rows(2)[1])
    dice = torch.Generator().manual_seed(0)
    tokens = len(batch.tokens_L)
    given = [
        torch.randn(1, heads, tokens, 8, generator=dice).requires_grad_() for heads in (4, 2, 2)
    ]
    sink = torch.randn(4, generator=dice).requires_grad_() if sinks else None
    torch.library.opcheck(
        _FORWARD,
        (*given, sink, spans_of(batch), BLOCKS.name, 0.35, 3, None),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor",
                    "test_aot_dispatch_dynamic"),
    )  # fmt: skip


def test_rows_of_many_lengths_take_one_compilation() -> None:
    model = model_of("qwen3").train()
    scorer = TreeScorer(model)
    expected = read(scorer, rows(5))
    layers = compile_layers(scorer, model, backend="aot_eager")
    expect_alike(read(scorer, rows(5)), expected)
    assert layers.compilations == 1
    with torch.no_grad():
        scorer(rows(7)[6])
    scorer(rows(7)[5])
    assert layers.compilations == 1, "for further lengths, and for forwards without gradient"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("qwen3", 1), ("gemma2", 2)])
def test_inductor_gives_the_numbers_of_eager(name: str, most: int) -> None:
    """Gemma2's layers differ by their windows."""
    model = model_of(name).train()
    scorer = TreeScorer(model)
    expected = read(scorer, rows(5))
    layers = compile_layers(scorer, model)
    expect_alike(read(scorer, rows(5)), expected)
    assert layers.compilations == most


@pytest.mark.slow
def test_layers_that_are_computed_twice_are_compiled_both_times() -> None:
    model = model_of("qwen3").train()
    scorer = TreeScorer(model)
    expected = read(scorer, rows(4))
    again = {"use_reentrant": False, "context_fn": recomputed_alike(model)}
    model.gradient_checkpointing_enable(again)
    layers = compile_layers(scorer, model, backend="aot_eager")
    expect_alike(read(scorer, rows(4)), expected)
    assert 1 <= layers.compilations <= MOST


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["model.lora={rank: 4}"]])
def test_a_compiled_run_is_the_run(recipes: dict[str, Path], options: list[str]) -> None:
    made = [
        metrics(train(load_recipe(recipes["dpo"], [*options, *more])).parent)
        for more in (["output=runs/eager"], ["output=runs/compiled", "run.compile=true"])
    ]
    for eager, compiled in zip(*made, strict=True):
        assert compiled["loss"] == pytest.approx(eager["loss"], rel=1e-4)
        assert compiled["grad_norm"] == pytest.approx(eager["grad_norm"], rel=1e-3)


class Graph:
    """Stands for what a backend is given."""


def test_a_fourth_compilation_ends_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_layers, "lookup_backend", lambda name: lambda graph, _: graph)
    model = model_of("qwen3").train()
    scorer = TreeScorer(model)
    layers = compile_layers(scorer, model)
    graph: Any = Graph()
    for _ in range(MOST):
        assert layers._counted(graph, ()) is graph
    assert layers.applies()
    with pytest.warns(UserWarning, match="more than 3 times"):
        layers._counted(graph, ())
    assert not layers.applies()
    read(scorer, rows(1))
    assert layers.compilations == MOST + 1, "further forwards are not compiled"


def test_only_training_forwards_are_compiled() -> None:
    model = model_of("qwen3").train()
    layers = CompiledLayers(model, [], BLOCKS)
    assert layers.applies()
    with torch.no_grad():
        assert not layers.applies()
    assert not CompiledLayers(model.eval(), [], BLOCKS).applies()


def test_models_that_cannot_be_compiled_are_refused() -> None:
    with pytest.raises(ModelError, match="its experts read as many tokens as are sent to them"):
        expect_compilable(mixture())
    model = model_of("qwen3")
    expect_compilable(model)
    model.config.attention_dropout = 0.1
    with pytest.raises(ModelError, match="its attention has dropout"):
        expect_compilable(model)


def test_a_missing_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise compiled_layers.InvalidCxxCompiler

    monkeypatch.setattr(compiled_layers, "get_cpp_compiler", none)
    with pytest.raises(ModelError, match=r"no C\+\+ compiler"):
        expect_compiler("cpu")
    expect_compiler("cuda")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["run.distributed.shard=full"], "cuts the layers"),
        (["model.kernels=liger"], "fuses the same operations"),
        (["model.lora={rank: 2}", "model.quantize=nf4"], "reads layers in 4 bits"),
    ],
)
def test_options_that_contradict_it_are_refused(
    options: list[str], why: str, recipes: dict[str, Path]
) -> None:
    with pytest.raises(RecipeError, match=why):
        load_recipe(recipes["sft"], ["run.compile=true", *options])
