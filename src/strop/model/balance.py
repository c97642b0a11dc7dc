"""How evenly a mixture's routers share out tokens, and the loss that makes them do so.

The load-balancing loss of Switch Transformer (Fedus et al. 2022, arXiv 2101.03961, equations 4 to
6) as transformers computes it: E sum_e f_e p_e over the tokens of all layers together, where f_e is
how often expert e is chosen a token and p_e its mean probability. Only p_e has a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from strop.errors import TrainingError
from strop.model.routing import Hook, RouterOutput, hooked, routers


@dataclass(frozen=True, slots=True)
class Load:
    """What the routers did with some tokens, summed over tokens and layers: how often each expert
    was chosen, its probability, and the number of choices made. Two tokens in a layer of three
    experts, of which one is chosen: `Load([1., 1., 0.], [0.9, 0.8, 0.3], 2)`."""

    chosen_E: torch.Tensor
    probability_E: torch.Tensor
    rows: float

    def balance(self, chosen_E: torch.Tensor, rows: float) -> torch.Tensor:
        """These tokens' part of the loss of a batch in which experts were chosen so often, in so
        many rows: the parts add up to the loss of the batch."""
        often_E = chosen_E.to(self.probability_E) / rows
        return len(often_E) * (often_E * self.probability_E).sum() / rows


class Watch:
    """Sees what the routers of one forward say."""

    def __init__(self) -> None:
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def hook(self, layer: int) -> Hook:
        # nothing is computed here: layers may be computed again in the backward, without hooks
        def note(_: Any, __: Any, output: RouterOutput) -> None:
            self.seen.append((output[0], output[2]))

        return note

    def load(self, tokens: int) -> Load:
        """Of a forward over so many tokens, each read once; raises `TrainingError` for another
        number, of padded rows."""
        found = {len(logits) for logits, _ in self.seen}
        if found != {tokens}:
            raise TrainingError(
                f"the routers read {sorted(found)} tokens and not {tokens}: the forward was too "
                "long for tree attention, and padding would count as tokens",
                fix="lower run.micro_batch_tokens, or drop model.router_aux_loss_coef",
            )
        probability_E = sum_of([_probabilities(logits) for logits, _ in self.seen])
        experts = probability_E.shape[0]
        chosen = torch.cat([chosen.flatten() for _, chosen in self.seen])
        chosen_E = torch.bincount(chosen.long(), minlength=experts).float()
        return Load(chosen_E, probability_E, float(tokens * len(self.seen)))


def _probabilities(logits_TE: torch.Tensor) -> torch.Tensor:
    """In float32 at least, [T, E]."""
    return torch.softmax(logits_TE, -1, dtype=torch.promote_types(logits_TE.dtype, torch.float32))


def sum_of(probabilities: list[torch.Tensor]) -> torch.Tensor:
    """Over tokens and layers, [E]."""
    return torch.stack([probability_TE.sum(0) for probability_TE in probabilities]).sum(0)


@contextmanager
def watched(causal_lm: Any) -> Iterator[Watch]:
    """Look at the routers of the one forward within."""
    watch = Watch()
    with hooked(routers(causal_lm), watch.hook):
        yield watch
