"""A student compared with a teacher through their heads: exact, in chunks, and with little held."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from strop.errors import ModelError
from strop.losses.distillation import forward_kl, generalized_js, reverse_kl
from strop.model import logprobs
from strop.model.load import load_policy
from strop.model.logprobs import Head, TreeScorer
from strop.model.network import Policy
from strop.model.reference import Reference
from strop.model.teacher import Compare, LocalTeacher, expect_readable_head, in_common
from strop.recipe.train.model import LoraRecipe, ModelRecipe
from strop.types import Branch, Tree
from tests.support.held import Held

VOCABULARY = 2048


def small(seed: int, *, vocabulary: int = VOCABULARY, layers: int = 2) -> Policy:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False,
        initializer_range=0.3,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    return Policy(model, None, False, TreeScorer(model))


def frozen(seed: int, **sizes: int) -> LocalTeacher:
    policy = small(seed, **sizes)
    policy.model.requires_grad_(False).eval()
    return LocalTeacher(policy, VOCABULARY)


def some_trees(count: int = 3, answer: int = 9) -> list[Tree]:
    """Prompts with two answers each; of every answer the third token is read, not learnt."""
    draw = torch.Generator().manual_seed(1)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, 250, (length,), generator=draw).tolist())

    learnt = tuple(place != 2 for place in range(answer))
    return [
        Tree(ids(5 + n), (Branch(ids(answer), learnt), Branch(ids(answer), learnt)))
        for n in range(count)
    ]


def dense(policy: Policy, trees: Sequence[Tree], temperature: float) -> torch.Tensor:
    """Log-probs of the vocabulary at every supervised token, by plain forwards, a row an answer."""
    rows = []
    for tree in trees:
        for branch in tree.branches:
            ids = torch.tensor([[*tree.trunk, *branch.ids]])
            logits = policy.model(input_ids=ids).logits[0, len(tree.trunk) - 1 : -1, :VOCABULARY]
            rows.append(logits[torch.tensor(branch.supervised)])
    return torch.log_softmax(torch.cat(rows) / temperature, -1)


def compared(
    student: Policy, teacher: LocalTeacher, trees: Sequence[Tree], loss: Compare, temperature: float
) -> torch.Tensor:
    head = Head(against=teacher.rows(trees).against(loss, temperature))
    found = student.score(trees, head).divergence_N
    assert found is not None
    return found


def gradient_of(student: Policy, loss_N: torch.Tensor) -> torch.Tensor:
    """Of a weighted sum, so that every row's own gradient shows."""
    weights = torch.linspace(0.5, 1.5, len(loss_N))
    grads = torch.autograd.grad((weights * loss_N).sum(), student.trainable())
    return torch.cat([grad.flatten() for grad in grads])


@pytest.mark.parametrize("by_tree", [True, False])
@pytest.mark.parametrize("chunk", [10**9, 7])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("loss", [forward_kl, reverse_kl, partial(generalized_js, beta=0.3)])
def test_equals_a_dense_computation(
    loss: Compare, temperature: float, chunk: int, by_tree: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher, trees = small(0), frozen(1), some_trees()
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", chunk * VOCABULARY)
    student.score.by_tree = teacher.policy.score.by_tree = by_tree
    found = compared(student, teacher, trees, loss, temperature)
    mine, theirs = (dense(p, trees, temperature) for p in (student, teacher.policy))
    expected = loss(mine, theirs.detach())
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)
    gradient, exact = gradient_of(student, found), gradient_of(student, expected)
    assert float((gradient - exact).norm()) <= 2e-5 * float(exact.norm())


def test_heads_of_one_tokenizer_may_be_padded_to_different_lengths() -> None:
    student, trees = small(0), some_trees()
    teacher = frozen(1, vocabulary=VOCABULARY + 64)
    assert in_common(student, teacher.policy) == VOCABULARY
    found = compared(student, teacher, trees, forward_kl, 1.0)
    expected = forward_kl(dense(student, trees, 1.0), dense(teacher.policy, trees, 1.0))
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


class TestTheSameModelAtItsStart:
    """A student with an adapter, and one whose weights are all trained."""

    @pytest.mark.parametrize("lora", [None, LoraRecipe(rank=4)])
    def test_reads_the_weights_of_the_start(
        self, lora: LoraRecipe | None, model_folder: Path
    ) -> None:
        recipe = ModelRecipe(path=str(model_folder), lora=lora)
        policy, trees = load_policy(recipe), some_trees()
        start = load_policy(ModelRecipe(path=str(model_folder)))
        teacher = LocalTeacher(policy, in_common(policy), Reference(policy).in_place)
        with torch.no_grad():
            for parameter in policy.trainable():
                parameter.add_(0.05 * torch.randn_like(parameter))
        moved = [parameter.detach().clone() for parameter in policy.trainable()]
        expected = start.score.distributions(trees)
        rows = teacher.rows(trees)
        found = rows.logprobs(slice(0, len(expected)), 1.0)
        torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)
        with torch.no_grad():
            now = policy.score.distributions(trees)
        assert float((now - expected).detach().abs().max()) > 0.01
        head = Head(against=rows.against(reverse_kl, 1.0))
        loss = policy.score(trees, head).divergence_N
        assert loss is not None
        loss.sum().backward()  # the start's weights are in place while its head is read
        for parameter, before in zip(policy.trainable(), moved, strict=True):
            assert torch.equal(parameter.detach(), before)
        assert float(loss.detach().min()) >= -1e-6

    def test_an_adapters_start_costs_no_copy_of_the_model(self, model_folder: Path) -> None:
        recipe = ModelRecipe(path=str(model_folder), lora=LoraRecipe(rank=4))
        policy = load_policy(recipe)
        kept = sum(weight.numel() for weight in Reference(policy).weights)
        assert kept < 0.5 * sum(p.numel() for p in policy.model.parameters())


class TestWhatIsHeld:
    def test_no_tensor_is_larger_than_a_chunk_and_few_are_alive(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """512 rows of 16,384 tokens: of both models together less is held than one such matrix."""
        student, trees = small(0, vocabulary=16_384), some_trees(count=16, answer=17)
        teacher = LocalTeacher(frozen(1, vocabulary=16_384).policy, 16_384)
        rows = sum(sum(branch.supervised) for tree in trees for branch in tree.branches)
        whole = 4 * rows * 16_384
        exact = gradient_of(student, compared(student, teacher, trees, forward_kl, 1.0))
        monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", 8 * 16 * 16_384)
        with Held() as held:
            compared(student, teacher, trees, forward_kl, 1.0).sum().backward()
        assert held.largest <= whole / 16  # the head's own gradient; a chunk is half of that
        assert held.peak < 0.6 * whole
        loss = compared(student, teacher, trees, forward_kl, 1.0)
        apart = (gradient_of(student, loss) - exact).norm()
        assert float(apart) <= 1e-5 * float(exact.norm())


class TestHeads:
    def test_a_plain_head_is_readable(self) -> None:
        expect_readable_head(small(0), "student")

    def test_one_whose_logits_are_changed_later_is_refused(self) -> None:
        policy = small(0)
        forward = policy.model.forward

        def scaled(**given: Any) -> Any:
            out = forward(**given)
            out.logits = out.logits / 3
            return out

        policy.model.forward = scaled
        with pytest.raises(ModelError, match="changes its logits after the head"):
            expect_readable_head(policy, "student")
