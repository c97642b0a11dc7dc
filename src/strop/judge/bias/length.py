"""Win rates as they would be if both answers had the same length.

Dubois, Galambosi, Liang, Hashimoto 2024, "Length-Controlled AlpacaEval" (arXiv 2404.04475),
section 3, fitted jointly: one logistic model over all candidates that were compared with the same
baseline, in which length counts the same for every candidate and an instruction is as hard for
all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from strop.stats.student import t_quantile

Floats = NDArray[np.float64]

LENGTH_PENALTY, HARDNESS_PENALTY, SLOPE_PENALTY = 1.0, 1.0, 1.0
FOLDS = 20
"""Groups of instructions that are left out one by one for the interval."""
NEAR, LEAST_NEAR = 0.25, 0.05
"""A candidate's lengths have support if so large a share of its answers is within so many standard
deviations of the baseline's length."""


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Rows as arrays: which candidate, which instruction, length difference, preference."""

    models: tuple[str, ...]
    model_N: torch.Tensor
    instruction_N: torch.Tensor
    length_N: torch.Tensor
    preference_N: torch.Tensor

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Comparisons:
        """Raises `ValueError` without rows, or for a preference outside 0 to 1."""
        held = list(rows)
        models = sorted({str(row["model"]) for row in held})
        places = {name: n for n, name in enumerate(models)}
        instructions: dict[object, int] = {}
        numbered = [instructions.setdefault(row["instruction"], len(instructions)) for row in held]
        differences, preferences = (
            torch.tensor([float(row[name]) for row in held], dtype=torch.float64)
            for name in ("length_difference", "preference")
        )
        if not held:
            raise ValueError("there are no comparisons")
        if not bool(((preferences >= 0) & (preferences <= 1)).all()):
            raise ValueError("a preference is outside 0 to 1 (0 to 1 for the candidate)")
        return cls(
            tuple(models),
            torch.tensor([places[str(row["model"])] for row in held]),
            torch.tensor(numbered),
            differences,
            preferences,
        )

    def without(self, fold: int) -> Comparisons:
        """All but every `FOLDS`-th instruction."""
        kept = self.instruction_N % FOLDS != fold
        return Comparisons(
            self.models, self.model_N[kept], self.instruction_N[kept], self.length_N[kept],
            self.preference_N[kept],
        )  # fmt: skip


def length_controlled(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Win rates in percent, as they are and at equal length, with a 95 % interval of the latter.

    A row is `{"model", "instruction", "length_difference" (candidate minus baseline, characters),
    "preference" (0 to 1 for the candidate)}`. The model of a preference is

        logit p = theta_m + phi tanh(d / s_m) + psi_m gamma_i

    for candidate m and instruction i, with d the length difference, s_m its standard deviation and
    gamma_i shared by all candidates; a quadratic penalty holds phi and gamma near 0 and psi near 1.
    `length_controlled` is the mean of p over a candidate's instructions without the second term.

    `{"a": {"win_rate": 42.0, "length_controlled": 47.5, "low": 44.9, "high": 50.1}}`. A candidate
    of which fewer than 5 % of the answers are about as long as the baseline's gives no evidence on
    answers of equal length: its last three are `None`. The interval leaves out a twentieth of the
    instructions at a time (delete-a-group jackknife, Kott 2001, Journal of Official Statistics
    17:521-526).
    """
    data = Comparisons.of(rows)
    spread = [data.length_N[data.model_N == n].std(correction=0) for n in range(len(data.models))]
    scale_M = torch.stack(spread).clamp(min=1.0)
    whole = _fit(data, scale_M, Parameters.start(data))
    estimates = _win_rates(whole, data)
    folds = min(FOLDS, int(data.instruction_N.max()) + 1)
    parts = [data.without(fold) for fold in range(folds)]
    left_out = np.stack([_win_rates(_fit(part, scale_M, whole), part) for part in parts])
    variance = ((left_out - left_out.mean(0)) ** 2).sum(0) * (folds - 1) / folds
    half = t_quantile(0.975, max(1, folds - 1)) * np.sqrt(variance)
    found: dict[str, dict[str, float | None]] = {}
    for n, name in enumerate(data.models):
        raw = 100 * float(data.preference_N[data.model_N == n].mean())
        row: dict[str, float | None] = {"win_rate": raw}
        if has_support(data.length_N[data.model_N == n].tolist()):
            value, off = 100 * float(estimates[n]), 100 * float(half[n])
            row |= {"length_controlled": value, "low": max(0.0, value - off),
                    "high": min(100.0, value + off)}  # fmt: skip
        else:
            row |= dict.fromkeys(("length_controlled", "low", "high"))
        found[name] = row
    return found


def has_support(differences: Sequence[float]) -> bool:
    """Whether enough length differences are near 0 for a statement about equal lengths."""
    values = np.asarray(differences, dtype=float)
    scale = values.std()
    near = np.abs(values) <= NEAR * scale if scale else values == 0
    return bool(near.mean() >= LEAST_NEAR)


@dataclass(frozen=True, slots=True)
class Parameters:
    """theta [M], phi [1], gamma [I] and psi [M] of the joint model."""

    theta_M: torch.Tensor
    phi_1: torch.Tensor
    gamma_I: torch.Tensor
    psi_M: torch.Tensor

    @classmethod
    def start(cls, data: Comparisons) -> Parameters:
        models, instructions = len(data.models), int(data.instruction_N.max()) + 1
        theta, phi, gamma = (
            torch.zeros(size, dtype=torch.float64) for size in (models, 1, instructions)
        )
        return cls(theta, phi, gamma, torch.ones_like(theta))

    def at_equal_length(self, data: Comparisons) -> torch.Tensor:
        """Logit of every row without its length term, [N]."""
        hard_N = self.psi_M[data.model_N] * self.gamma_I[data.instruction_N]
        return self.theta_M[data.model_N] + hard_N

    def loss(self, data: Comparisons, length_N: torch.Tensor) -> torch.Tensor:
        misfit = torch.nn.functional.binary_cross_entropy_with_logits(
            self.at_equal_length(data) + self.phi_1 * length_N, data.preference_N, reduction="sum"
        )
        held = LENGTH_PENALTY * self.phi_1**2 + SLOPE_PENALTY * ((self.psi_M - 1) ** 2).sum()
        return misfit + held.sum() + HARDNESS_PENALTY * (self.gamma_I**2).sum()


def _fit(data: Comparisons, scale_M: torch.Tensor, start: Parameters) -> Parameters:
    """The penalised maximum of the likelihood, by L-BFGS."""
    length_N = torch.tanh(data.length_N / scale_M[data.model_N])
    begin = (start.theta_M, start.phi_1, start.gamma_I, start.psi_M)
    values = [value.clone().requires_grad_(True) for value in begin]
    search = torch.optim.LBFGS(
        values, max_iter=300, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        search.zero_grad()
        loss = Parameters(*values).loss(data, length_N)
        loss.backward()
        return loss

    search.step(closure)
    return Parameters(*(value.detach() for value in values))


def _win_rates(found: Parameters, data: Comparisons) -> Floats:
    """Mean chance to win at equal length over the rows of every candidate, [M]."""
    chance_N = torch.sigmoid(found.at_equal_length(data)).numpy()
    model_N = data.model_N.numpy()
    counts = np.bincount(model_N, minlength=len(data.models))
    means: Floats = np.bincount(model_N, chance_N, minlength=len(data.models)) / counts
    return means
