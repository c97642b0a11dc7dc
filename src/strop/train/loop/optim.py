"""The optimizer and its learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from strop.model.arithmetic import Precision
from strop.model.logprobs import bare
from strop.model.network import Network
from strop.model.sharding import part_like
from strop.recipe.train.run import OptimRecipe
from strop.train.loop.eight_bit import SMALLEST, TABLES, Entry, adamw_8bit, with_tables
from strop.train.loop.muon import Float32Muon


class Optimizers:
    """Optimizers over disjoint parameters, stepped as one; `updates` counts the steps."""

    def __init__(self, members: Sequence[torch.optim.Optimizer]) -> None:
        self.members = tuple(members)
        self.updates = 0

    def step(self, learning_rate: float) -> None:
        """One update of every parameter at this rate."""
        for member in self.members:
            for group in member.param_groups:
                group["lr"] = learning_rate
            member.step()
        self.updates += 1

    def zero_grad(self) -> None:
        for member in self.members:
            member.zero_grad(set_to_none=True)

    def tensors(self, *, copy: bool = True) -> dict[str, torch.Tensor]:
        """All state in host memory, by `member.parameter.name`: `0.3.exp_avg`; without `copy`,
        state that is there already is itself."""
        return {
            f"{which}.{number}.{name}": torch.as_tensor(value)
            .detach()
            .to("cpu", copy=copy)
            .contiguous()
            for which, member in enumerate(self.members)
            for number, parameter in enumerate(_parameters(member))
            for name, value in member.state.get(parameter, {}).items()
            if name not in TABLES
        }

    def parameter_of(self, name: str) -> torch.nn.Parameter:
        """The parameter to which a tensor of this name belongs."""
        which, number, _ = name.split(".", 2)
        return _parameters(self.members[int(which)])[int(number)]

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """The inverse of `tensors`."""
        for which, member in enumerate(self.members):
            state: dict[int, Entry] = {}
            for place, value in tensors.items():
                owner, number, name = place.split(".", 2)
                if int(owner) == which:
                    parameter = self.parameter_of(place)
                    if value.shape == parameter.shape:
                        value = part_like(value, parameter)
                    entry = state.setdefault(int(number), {})
                    # 8-bit AdamW counts its steps in a plain number
                    entry[name] = int(value) if value.dtype == torch.int64 else value
            state = {number: with_tables(member, entry) for number, entry in state.items()}
            member.load_state_dict({**member.state_dict(), "state": state})


def _parameters(member: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """An optimizer's parameters in the order of its state."""
    return [p for group in member.param_groups for p in group["params"]]


def build_optimizer(
    network: Network, recipe: OptimRecipe, *, muon: Precision = "bfloat16"
) -> Optimizers:
    """AdamW over the trained parameters, without decay of biases and norms. Where the recipe asks
    for 8 bits, it keeps the moments of large tensors so. Where it asks for Muon (Jordan et al.
    2024, kellerjordan.github.io/posts/muon), that takes the hidden matrices at the same rate
    (matched to AdamW's root mean square update: Liu et al. 2025, arXiv 2502.16982) and
    orthogonalises in the precision `muon`.

    Raises `ModelError` where 8 bits are asked for and bitsandbytes is missing or no tensor is
    large.
    """
    hidden = set(_hidden_matrices(network)) if recipe.optimizer == "muon" else set()
    large = set(_large(network)) if recipe.optimizer == "adamw_8bit" else set()
    rest = [p for p in network.trainable() if p not in hidden and p not in large]
    members: list[torch.optim.Optimizer] = []
    if rest:
        members.append(
            torch.optim.AdamW(
                _groups(rest, recipe), lr=recipe.learning_rate, betas=recipe.betas, fused=True
            )
        )
    if recipe.optimizer == "adamw_8bit":
        members.append(
            adamw_8bit(
                _groups([p for p in network.trainable() if p in large], recipe),
                learning_rate=recipe.learning_rate,
                betas=recipe.betas,
            )
        )
    if hidden:
        kind = Float32Muon if muon == "float32" else torch.optim.Muon
        members.append(
            kind(
                [p for p in network.trainable() if p in hidden],
                lr=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return Optimizers(members)


def _groups(parameters: Sequence[torch.nn.Parameter], recipe: OptimRecipe) -> list[dict[str, Any]]:
    """Matrices, which decay, and biases and norms, which do not."""
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _large(network: Network) -> Iterator[torch.nn.Parameter]:
    """Trained tensors whose moments may be kept in 8 bits. Those of embeddings may not: rare words
    get rare and large gradients, and training becomes unstable (arXiv 2110.02861, section 2.3)."""
    embeddings = bare(network.model).get_input_embeddings().weight
    for parameter in network.trainable():
        if parameter.numel() >= SMALLEST and parameter is not embeddings:
            yield parameter


def _hidden_matrices(network: Network) -> Iterator[torch.nn.Parameter]:
    """Trained matrices between the embeddings and the head."""
    model = bare(network.model)
    embeddings = model.get_input_embeddings().weight
    for parameter in model.get_decoder().parameters():
        if parameter.requires_grad and parameter.dim() == 2 and parameter is not embeddings:
            yield parameter


def learning_rate(recipe: OptimRecipe, step: int, total: int) -> float:
    """The rate of optimizer step `step` (from 0) out of `total`.

    Rises linearly over the warm-up, then follows the schedule down to `final_ratio`. The first
    and the last step have a rate above 0, too.
    """
    warmup = round(recipe.warmup_ratio * total)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    remaining = {
        "constant": 1.0,
        "linear": 1.0 - done,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
    }[recipe.schedule]
    return recipe.learning_rate * (recipe.final_ratio + (1.0 - recipe.final_ratio) * remaining)
