"""What corrects for a sampler that differs from the trainer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from strop.losses.mismatch import Moments, effective_share, mismatch_weights
from tests.support.policy_cases import BRANCH, LENGTHS, vector

SAMPLER = vector(-1.0, -1.0, -1.0, -1.0, -1.0)


APART = vector(math.log(4), math.log(0.5), math.log(0.1), math.log(3), math.log(2))
"""weights 4 and 0.5 (answer: 2); 0.1, 3 and 2 (answer: 0.6)"""


class TestMismatch:
    @pytest.mark.parametrize(
        ("level", "bound", "cap", "floor", "weight", "masked"),
        [
            ("token", "truncate", 2.5, None, [2.5, 0.5, 0.1, 2.5, 2], [0, 0, 0, 0, 0]),
            ("token", "mask", 2.5, None, [0, 0.5, 0.1, 0, 2], [1, 0, 0, 1, 0]),
            ("token", "mask", 2.5, 0.3, [0, 0.5, 0, 0, 2], [1, 0, 1, 1, 0]),
            ("sequence", "truncate", 1.5, None, [1.5, 1.5, 0.6, 0.6, 0.6], [0, 0, 0, 0, 0]),
            ("sequence", "mask", 1.5, None, [0, 0, 0.6, 0.6, 0.6], [1, 1, 0, 0, 0]),
            ("sequence", "mask", 2.5, 0.8, [2, 2, 0, 0, 0], [0, 0, 1, 1, 1]),
        ],
    )
    def test_by_hand(
        self,
        level: Any,
        bound: Any,
        cap: float,
        floor: float | None,
        weight: list[float],
        masked: list[int],
    ) -> None:
        found = mismatch_weights(
            SAMPLER + APART, SAMPLER, BRANCH, level=level, bound=bound, cap=cap, floor=floor
        )
        assert found.weight_N.tolist() == pytest.approx(weight)
        assert found.masked_N.tolist() == [bool(m) for m in masked]
        raw = [4, 0.5, 0.1, 3, 2] if level == "token" else [2, 2, 0.6, 0.6, 0.6]
        ess = sum(raw) ** 2 / (5 * sum(w * w for w in raw))  # before any bound
        assert effective_share([found.moments]) == pytest.approx(ess)

    @pytest.mark.parametrize("level", ["token", "sequence"])
    def test_equal_probabilities_change_nothing(self, level: Any) -> None:
        found = mismatch_weights(SAMPLER, SAMPLER, BRANCH, level=level, bound="mask", cap=2.0)
        assert found.weight_N.tolist() == [1.0] * 5
        assert effective_share([found.moments]) == pytest.approx(1.0, abs=1e-12)
        assert not found.masked_N.any()

    def test_one_token_that_carries_all(self) -> None:
        found = mismatch_weights(
            vector(0, -60, -60, -60, -60), SAMPLER, BRANCH, level="token", bound="truncate", cap=2.0
        )
        assert effective_share([found.moments]) == pytest.approx(1 / 5)

    @pytest.mark.parametrize("level", ["token", "sequence"])
    @pytest.mark.parametrize("bound", ["truncate", "mask"])
    @pytest.mark.parametrize("apart", [(500.0, -500.0), (90.0, 90.0), (-90.0, -90.0)])
    def test_extreme_log_ratios_are_finite(
        self, level: Any, bound: Any, apart: tuple[float, float]
    ) -> None:
        """In float32, where e^90 and the square of e^-90 are out of range. A share that is not a
        number would pass below every threshold."""
        moved = torch.tensor(apart).repeat_interleave(torch.tensor(LENGTHS))
        sampler = SAMPLER.float()
        found = mismatch_weights(
            sampler + moved, sampler, BRANCH, level=level, bound=bound, cap=2.0, floor=None
        )
        assert found.weight_N.isfinite().all()
        assert (found.weight_N <= 2.0).all()
        even = apart[0] == apart[1] and level == "token"
        if even:
            assert effective_share([found.moments]) == pytest.approx(1.0, rel=1e-5)
        assert 0 < effective_share([found.moments]) <= 1 + 1e-6

    def test_makes_the_expectation_right(self) -> None:
        """E_q[w f] = E_p[f], exactly: every token of a small vocabulary with its probability. With
        a cap it is not, which is the price of a bound."""
        p, q = vector(0.5, 0.3, 0.15, 0.05), vector(0.1, 0.2, 0.3, 0.4)
        f = vector(3.0, -1.0, 0.5, 7.0)
        each = torch.arange(4)
        found = mismatch_weights(p.log(), q.log(), each, level="token", bound="truncate", cap=1e6)
        assert float((q * found.weight_N * f).sum()) == pytest.approx(float((p * f).sum()))
        capped = mismatch_weights(p.log(), q.log(), each, level="token", bound="truncate", cap=2.0)
        assert abs(float((q * capped.weight_N * f).sum() - (p * f).sum())) > 0.1

    def test_sequence_level_makes_the_expectation_of_answers_right(self) -> None:
        """All answers of two tokens; a token's own weight is not enough for what the whole is
        worth."""
        p, q = vector(0.6, 0.3, 0.1), vector(0.2, 0.3, 0.5)
        first, second = torch.cartesian_prod(torch.arange(3), torch.arange(3)).T
        worth = (first * 2 + second * first).double()
        exact = float((p[first] * p[second] * worth).sum())
        probability = q[first] * q[second]
        trainer = torch.stack([p[first], p[second]], 1).log().flatten()
        sampler = torch.stack([q[first], q[second]], 1).log().flatten()
        branch = torch.arange(9).repeat_interleave(2)
        for level, right in (("sequence", True), ("token", False)):
            found = mismatch_weights(
                trainer, sampler, branch, level=level, bound="truncate", cap=1e6
            )
            last = found.weight_N.view(9, 2)[:, 1]
            assert (abs(float((probability * last * worth).sum()) - exact) < 1e-9) is right


def test_the_effective_share_of_parts_is_that_of_the_whole() -> None:
    """Weights far apart in scale, so that their squares would overflow in float32."""
    log_N = torch.tensor([60.0, 59.0, -80.0, 58.5, 60.2], dtype=torch.float64)
    weight_N = (log_N - 60).exp()
    whole = float(weight_N.sum() ** 2 / (5 * weight_N.square().sum()))
    parts = [Moments.of(log_N[:1]), Moments.of(log_N[1:3]), Moments.of(log_N[3:])]
    assert effective_share(parts) == pytest.approx(whole, rel=1e-12)
    assert effective_share([Moments.of(log_N)]) == pytest.approx(whole, rel=1e-12)
