"""The preference losses, and pairs to compute them of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from strop.losses.preference import (
    aot,
    aot_unpaired,
    apo_down,
    apo_zero,
    bco_pair,
    cpo,
    discopop,
    dpo,
    dpop,
    exo_pair,
    f_dpo,
    hinge,
    ipo,
    nca_pair,
    orpo,
    robust_dpo,
    simpo,
    sppo_hard,
)

Loss = Callable[..., torch.Tensor]


WITH_REFERENCE: dict[str, Loss] = {
    "dpo": partial(dpo, label_smoothing=0.1),
    "robust_dpo": partial(robust_dpo, label_smoothing=0.1),
    "ipo": ipo,
    "hinge": hinge,
    "exo_pair": exo_pair,
    "nca_pair": nca_pair,
    "bco_pair": partial(bco_pair, delta=0.3),
    "sppo_hard": sppo_hard,
    "aot": partial(aot, label_smoothing=0.1),
    "aot_unpaired": partial(aot_unpaired, label_smoothing=0.1),
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    "discopop": discopop,
    "dpop": dpop,
    "f_dpo reverse_kl": partial(f_dpo, divergence="reverse_kl"),
    "f_dpo forward_kl": partial(f_dpo, divergence="forward_kl"),
    "f_dpo js": partial(f_dpo, divergence="js"),
    "f_dpo alpha": partial(f_dpo, divergence="alpha", alpha=0.3),
}


WITHOUT_REFERENCE: dict[str, Loss] = {
    "simpo": partial(simpo, gamma=0.5),
    "orpo": orpo,
    "cpo": partial(cpo, label_smoothing=0.1),
}


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def pairs(u_chosen: list[float], u_rejected: list[float]) -> tuple[torch.Tensor, ...]:
    """Four sums with these log-ratios: the reference is -2 for chosen and -3 for rejected."""
    chosen, rejected = vector(*u_chosen), vector(*u_rejected)
    ref_chosen, ref_rejected = torch.full_like(chosen, -2), torch.full_like(rejected, -3)
    return chosen + ref_chosen, rejected + ref_rejected, ref_chosen, ref_rejected


def random_pairs(count: int, seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(4, count, generator=generator, dtype=torch.float64)
    return tuple(draws - 3)
