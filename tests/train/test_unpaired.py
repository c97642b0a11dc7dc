"""Thumbs: the reference point of KTO is what the paper says, over the whole step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from strop.losses.preference import kto
from strop.model.network import Policy
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.offline import UnpairedRecipe
from strop.train.methods.unpaired import OtherAnswers, UnpairedMethod, other_answers
from strop.train.run import train
from strop.types import Branch, Tree
from tests.support.runs import metrics
from tests.support.steps import losses_of

TREES = [Tree((1, i), (Branch((20 + i, 30 + i, 2), (True,) * 3),)) for i in range(4, 10)]
LABELS = torch.tensor([True, False, True, True, False, True])


def recipe_of(recipes: dict[str, Path], *overrides: str) -> UnpairedRecipe:
    recipe = load_recipe(recipes["kto"], list(overrides))
    assert isinstance(recipe, UnpairedRecipe)
    return recipe


def test_every_prompt_gets_the_answer_of_another_record() -> None:
    others = other_answers(TREES, 3, 64)
    assert [t.trunk for t in others] == [t.trunk for t in TREES]
    answers = [t.branches for t in TREES]
    assert sorted(t.branches[0].ids for t in others) == sorted(b[0].ids for b in answers)
    assert all(mine.branches != theirs.branches for mine, theirs in zip(TREES, others, strict=True))


@pytest.mark.parametrize("max_tokens", [10**6, 7])
def test_loss_and_reference_point_by_hand(
    max_tokens: int, policy: Policy, recipes: dict[str, Path]
) -> None:
    """Also when every forward holds one record only: the reference point is that of the step."""
    recipe = recipe_of(recipes, f"run.micro_batch_tokens={max_tokens}",
                       "objective={beta: 0.3, desirable_weight: 1.2}")  # fmt: skip
    others = other_answers(TREES, 3, 64)
    with torch.no_grad():
        sums_R = policy.score(TREES).sums_B()
        other_R = policy.score(others).sums_B()
    ref_R, ref_other_R = sums_R - torch.arange(6.0), other_R - 2.0
    method = UnpairedMethod(recipe, policy, TREES, LABELS, ref_R, OtherAnswers(others, ref_other_R))
    chosen = [4, 0, 2]
    kl = torch.tensor(2.0)  # policy - reference is 2 nats for the answer of every other record
    expected = kto(
        sums_R[chosen], ref_R[chosen], LABELS[chosen], kl, beta=0.3, desirable_weight=1.2
    )
    losses = [loss_of() for loss_of in losses_of(method, chosen)]
    assert len(losses) == (1 if max_tokens > 100 else 3)
    assert sum(float(loss.value.detach()) for loss in losses) == pytest.approx(
        float(expected.mean()), abs=1e-5
    )
    assert all(loss.metrics["kl"].result() == pytest.approx(2.0, abs=1e-4) for loss in losses)


def test_the_reference_point_is_never_negative(policy: Policy, recipes: dict[str, Path]) -> None:
    others = other_answers(TREES, 3, 64)
    with torch.no_grad():
        sums_R, other_R = policy.score(TREES).sums_B(), policy.score(others).sums_B()
    held = OtherAnswers(others, other_R + 5.0)
    method = UnpairedMethod(recipe_of(recipes), policy, TREES, LABELS, sums_R, held)
    assert losses_of(method, [0, 1])[0]().metrics["kl"].result() == 0.0


def test_the_reference_point_carries_no_gradient(policy: Policy, recipes: dict[str, Path]) -> None:
    """Moving the answers to other prompts alone must not move the loss's gradient."""
    others = other_answers(TREES, 3, 64)
    with torch.no_grad():
        sums_R, other_R = policy.score(TREES).sums_B(), policy.score(others).sums_B()
    held = OtherAnswers(others, other_R - 1.0)
    method = UnpairedMethod(recipe_of(recipes), policy, TREES, LABELS, sums_R, held)
    chosen = [0, 1, 2]
    losses_of(method, chosen)[0]().value.backward()
    seen = torch.cat([p.grad.flatten().clone() for p in policy.trainable()])
    policy.model.zero_grad()
    sums = policy.score([TREES[i] for i in chosen]).sums_B()
    kto(sums, sums_R[chosen], LABELS[chosen], torch.tensor(1.0), beta=0.1).mean().backward()
    alone = torch.cat([p.grad.flatten() for p in policy.trainable()])
    assert (seen - alone).norm() <= 1e-4 * alone.norm()


def test_a_run_starts_at_one_half_and_pulls_the_thumbs_apart(recipes: dict[str, Path]) -> None:
    options = ["optim.learning_rate=3e-4", "run.steps=20", "run.batch_size=16", "eval.every=20"]
    rows = metrics(train(load_recipe(recipes["kto"], options), force=True).parent)
    assert rows[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["loss"] < 0.45
    assert rows[-1]["rewards/margins"] > 0.2
    assert rows[-1]["eval_rewards/margins"] > 0.2
