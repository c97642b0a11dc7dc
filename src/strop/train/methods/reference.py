"""Reference log-probs of an offline run: computed once, before the first step, kept on disk.

Before the first step the policy *is* the reference, so no second model is ever loaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from strop.distributed.deal import share_of
from strop.distributed.world import ALONE, World
from strop.files import sha256_of_parts, write_whole
from strop.model.load import weights_hash
from strop.model.logprobs import eval_mode
from strop.model.network import Policy
from strop.recipe.train.offline import PairRecipe, UnpairedRecipe
from strop.text.lazy import Chosen
from strop.text.trees import Rendered
from strop.train.loop.micro_batches import forward_tokens, passes
from strop.types import TokenScores, Tree

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MethodRecords:
    """Rendered records that a method trains on. `prefix` names the cached files; `visited` gives
    the records that some step visits, in order (None: all)."""

    rendered: Rendered
    prefix: str
    visited: Callable[[], Indices] | None


class ReferenceCache:
    """Reference log-probs of a run's records, computed before step 1, kept in its folder."""

    def __init__(self, folder: Path, start: str, world: World = ALONE) -> None:
        self.folder, self.start, self.world = folder, start, world

    @cached_property
    def model(self) -> str:
        """Hash of the model that the run starts from; reads all its files, once a run."""
        return weights_hash(self.start)

    def scores(
        self,
        policy: Policy,
        recipe: PairRecipe | UnpairedRecipe,
        trees: Sequence[Tree],
        read: Callable[[TokenScores], torch.Tensor],
        records: MethodRecords,
        name: str,
    ) -> torch.Tensor:
        """`read` of every branch of `trees`; records that no step visits are left at NaN."""
        visited = None if records.visited is None else records.visited()
        chosen = np.arange(len(trees)) if visited is None else visited
        read_trees = Chosen(trees, chosen)
        precision = f"{recipe.model.dtype}/{recipe.model.quantize}"
        found = reference_scores(
            policy,
            read_trees,
            read,
            path=self.folder / f"{records.prefix}{name}.safetensors",
            key=f"{self.model}/{precision}/{recipe.objective}/{trees_hash(read_trees)}",
            max_tokens=forward_tokens(recipe.run, policy),
            world=self.world,
        )
        branches = len(trees[0].branches)
        scores = torch.full((len(trees), branches, *found.shape[1:]), float("nan"))
        scores[torch.from_numpy(chosen)] = found.view(-1, branches, *found.shape[1:])
        return scores.flatten(0, 1)


def reference_scores(
    policy: Policy,
    trees: Sequence[Tree],
    read: Callable[[TokenScores], torch.Tensor],
    *,
    path: Path,
    key: str,
    max_tokens: int,
    world: World,
) -> torch.Tensor:
    """`read(scores)` of every branch of `trees`, in order, shape [B, ...] float32; every data
    rank of `world` computes a part.

    Taken from `path` when that file was written under the same `key` (model, data and what is
    read); a file that is damaged is written again, with a warning.
    """
    cached = world.first(lambda: _cached(path, key))
    if cached is not None:
        return cached
    own = Chosen(trees, np.asarray(share_of(len(trees), world.data_rank, world.data_size)))

    def scored(trees: Sequence[Tree]) -> torch.Tensor:
        return read(policy.score(trees)).cpu()

    with torch.no_grad(), eval_mode(policy.model), policy.arithmetic():
        rows = passes(policy, own, max_tokens, scored, world)
    scores_B = torch.cat([row for part in world.by_data_rank(rows) for row in part])
    world.first(lambda: write_whole(path, save({"scores_B": scores_B}, metadata={"key": key})))
    return scores_B


def trees_hash(trees: Sequence[Tree]) -> str:
    """Hash of everything a forward reads of these trees, 16 hex digits."""
    return sha256_of_parts(
        repr((tree.trunk, [(b.ids, b.supervised) for b in tree.branches])).encode()
        for tree in trees
    )


def _cached(path: Path, key: str) -> torch.Tensor | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            scores_B: torch.Tensor = file.get_tensor("scores_B")
    except SafetensorError as error:
        warnings.warn(
            f"{path} is damaged ({error}): its reference log-probs are computed again", stacklevel=2
        )
        return None
    return scores_B
