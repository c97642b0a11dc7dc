"""Which pairs displace likelihood: how alike two answers are to the model's hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from strop.model.logprobs import bare, padded_hidden, tree_hidden_rows
from strop.model.network import Policy
from strop.model.tree import lay_out
from strop.types import Tree

PAIRS_AT_ONCE = 64


@torch.no_grad()
def ches_scores(policy: Policy, trees: Sequence[Tree]) -> torch.Tensor:
    """Length-normalised centred hidden embedding similarity of every preference pair, [P] float32.

        CHES = <H+, H-> / (T+ T-) - |H+|^2 / T+^2,   H = sum of the last hidden states of an answer

    Razin et al. 2024 (arXiv 2410.08847), definition 2: the higher, the more learning this pair
    lowers its own chosen answer. `trees` hold two branches, chosen first; each answer's hidden
    states are those that predict its supervised tokens.
    """
    scores = []
    for start in range(0, len(trees), PAIRS_AT_ONCE):
        batch = lay_out(trees[start : start + PAIRS_AT_ONCE], policy.device)
        model = bare(policy.model)
        with policy.arithmetic():
            if policy.score.by_tree:
                hidden_ND = tree_hidden_rows(model, batch, batch.predictor_N)
            else:
                hidden_ND = padded_hidden(model, batch, batch.predictor_N, batch.branch_N)
        hidden_ND = hidden_ND.float()
        sums_BD = hidden_ND.new_zeros(batch.branches, hidden_ND.shape[1])
        sums_BD = sums_BD.index_add(0, batch.branch_N, hidden_ND)
        lengths_B = torch.bincount(batch.branch_N, minlength=batch.branches)
        means_BD = sums_BD / lengths_B[:, None]
        chosen, rejected = means_BD[0::2], means_BD[1::2]
        scores.append((chosen * rejected).sum(1) - chosen.square().sum(1))
    return torch.cat(scores).cpu()
