"""Checks before step 1 that find runs which would look normal and learn nothing, and the check
after the last step that the merged model is the trained one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from strop.errors import TrainingError, UsageError
from strop.model.adapters import merge_for_good
from strop.model.logprobs import eval_mode
from strop.model.network import Network, Policy, ScalarNetwork
from strop.text.trees import Rendered
from strop.types import Tree


@dataclass(frozen=True, slots=True)
class DataCheck:
    """`DataCheck(records=896, dropped=3, cut=0, supervised=17920, ends_in_eos=1.0)`.

    `ends_in_eos` is the share of answers whose last learnt token is one that ends an answer.
    """

    records: int
    dropped: int
    cut: int
    supervised: int
    ends_in_eos: float

    def plain(self) -> dict[str, float]:
        return asdict(self)


def check_rendered(rendered: Rendered) -> DataCheck:
    """Raise `UsageError` if no token is supervised or no answer ends in EOS."""
    tally = rendered.tally
    if tally.supervised == 0:
        raise UsageError(
            "not one token is supervised, so the run would learn nothing",
            fix="check that the data holds assistant turns",
        )
    if tally.ended == 0:
        raise UsageError(
            "no answer ends in the end-of-sequence token, so the model would never learn to stop",
            fix="raise text.max_length if every answer was cut, or check the tokenizer's eos_token",
        )
    return DataCheck(
        records=len(rendered.trees),
        dropped=tally.dropped,
        cut=tally.cut,
        supervised=tally.supervised,
        ends_in_eos=tally.ended / tally.branches,
    )


MERGED_LIMITS = {"float32": 1e-3, "bfloat16": 0.05, "nf4": 0.5}
"""Nats a token that merging may cost, by the precision of the weights it is rounded to."""


@torch.no_grad()
def merged_difference(network: Network, trees: Sequence[Tree], *, limit: float) -> float:
    """How far a network is from itself with its adapter merged: the mean KL of their distributions
    over the vocabulary, nats a token (of a scalar head: the mean difference of the scores).

    The adapter stays merged, so call it last. Raises `TrainingError` above `limit`, because then
    the served model would not be the trained one.
    """
    # tree by tree: a distribution is as long as the vocabulary, and only those from before the
    # merge have to be kept
    with eval_mode(network.model), network.arithmetic():
        before = [_read(network, tree) for tree in trees]
        merge_for_good(network.model)
        apart = [
            _apart(network, was, _read(network, tree))
            for was, tree in zip(before, trees, strict=True)
        ]
    # rounding takes it below 0 where nothing differs
    difference = abs(float(torch.cat(apart).mean()))
    if not difference <= limit:
        raise TrainingError(
            f"the merged model is not the one that was trained: they are {difference:.3g} nats a "
            f"token apart (limit {limit:g})",
            fix="leave modules that share weights or are saved whole out of model.lora.targets; "
            "the last checkpoint has the adapter",
        )
    return difference


def _read(network: Network, tree: Tree) -> torch.Tensor:
    if isinstance(network, Policy):
        return network.score.distributions([tree])
    assert isinstance(network, ScalarNetwork)
    return network.score.finals([tree])


def _apart(network: Network, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """KL of every position, or difference of every score."""
    if not isinstance(network, Policy):
        return (before - after).abs()
    return torch.stack([(p.exp() * (p - q)).sum() for p, q in zip(before, after, strict=True)])
