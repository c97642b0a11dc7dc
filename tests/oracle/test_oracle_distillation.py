"""strop's distillation against TRL's GKD: the loss of the same logits, and its gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from strop.losses.distillation import forward_kl, generalized_js, reverse_kl

pytestmark = pytest.mark.oracle

ROWS, TOKENS, VOCABULARY = 3, 7, 31


def logits(seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(ROWS, TOKENS, VOCABULARY, generator=draw)


def labels() -> torch.Tensor:
    """Prompt tokens are not learnt: their number differs from row to row."""
    ids = torch.zeros(ROWS, TOKENS, dtype=torch.long)
    for row in range(ROWS):
        ids[row, : row + 1] = -100
    return ids


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
def test_loss_and_gradient_are_those_of_trls_gkd(beta: float, temperature: float) -> None:
    gkd: Any = pytest.importorskip("trl.experimental.gkd")
    learnt = labels() != -100
    teacher = logits(1)
    own, other = (logits(0).requires_grad_() for _ in range(2))
    loss = gkd.GKDTrainer.generalized_jsd_loss(own, teacher, labels(), beta, temperature)
    (expected,) = torch.autograd.grad(loss, own)
    student, told = (torch.log_softmax(x[learnt] / temperature, -1) for x in (other, teacher))
    found = generalized_js(student, told, beta=beta).mean()
    (gradient,) = torch.autograd.grad(found, other)
    assert float(found.detach()) == pytest.approx(float(loss.detach()), abs=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("beta", "divergence"), [(0.0, forward_kl), (1.0, reverse_kl)])
def test_the_ends_are_the_two_kls(beta: float, divergence: Any) -> None:
    gkd: Any = pytest.importorskip("trl.experimental.gkd")
    learnt = labels() != -100
    own, teacher = logits(0), logits(1)
    loss = gkd.GKDTrainer.generalized_jsd_loss(own, teacher, labels(), beta, 1.0)
    student, told = (torch.log_softmax(x[learnt], -1) for x in (own, teacher))
    assert float(divergence(student, told).mean()) == pytest.approx(float(loss), abs=1e-5)
