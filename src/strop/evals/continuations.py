"""Log-probs of continuations, for multiple choice, perplexity and lm-eval's requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from strop.errors import TextError
from strop.model.logprobs import (
    CHUNK_ELEMENTS,
    eval_mode,
    logits_of,
    padded_logits,
    tree_hidden_rows,
)
from strop.model.network import Policy
from strop.model.tree import lay_out
from strop.text.encode import Encoder, Tokenizer
from strop.text.runs import runs
from strop.types import Branch, Tree, TreeBatch

TOKENS = 16384
"""Tokens in one forward; a longer tree gets a forward of its own."""

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Continuation:
    """`Continuation(logprob=-3.2, tokens=2, greedy=False)`: the sum over the supervised tokens in
    nats, their number, and whether greedy decoding would write them."""

    logprob: float
    tokens: int
    greedy: bool


@torch.no_grad()
def read_continuations(policy: Policy, trees: Sequence[Tree]) -> list[Continuation]:
    """A continuation for every branch, in order; each trunk is computed once."""
    found: list[Continuation] = []
    with policy.arithmetic(), eval_mode(policy.model):
        for part in runs(trees, TOKENS):
            found += _read(policy, part)
    return found


def context_of(policy: Policy) -> int:
    """Tokens the model can read. Nothing is predicted from a continuation's last token, so trunk
    and branch together may be one token longer."""
    causal_lm = policy.score.causal_lm
    tokens = int(causal_lm.config.get_text_config().max_position_embeddings)
    # padded rows read the last token too, at a position of its own
    return tokens if policy.score.by_tree else tokens - 1


def pair_ids(encoder: Encoder, context: str, continuation: str) -> tuple[Ids, Ids]:
    """Ids of a context and its continuation, split as in lm-eval's `_encode_pair`.

    White space at the context's end goes to the continuation, where most tokenizers have it; both
    are tokenised as one text, which is cut at the context's length.
    """
    kept = context.rstrip()
    trunk = encoder.ids(kept, special=True)
    return trunk, encoder.ids(context + continuation, special=True)[len(trunk) :]


def prefix_id(tokenizer: Tokenizer) -> int:
    """The token before the first token of a text: BOS, or EOS where there is no BOS."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise TextError(
        "the tokenizer has neither BOS nor EOS, so nothing predicts a text's first token",
        fix="set eos_token in tokenizer_config.json",
    )


def windows(ids: Ids, prefix: int, length: int) -> list[Tree]:
    """A text as trees that predict every token once, with the context that lm-eval gives it.

    In `windows((0, 1, 2, 3, 4, 5), prefix=9, length=4)` the first tree predicts 0-3 after 9; the
    last predicts 4 and 5 after 1-3, the longest context that the model allows.
    """
    first = Tree((prefix,), (_learnt(ids[:length]),))
    later = []
    for start in range(length, len(ids), length):
        end = min(start + length, len(ids))
        later.append(Tree(ids[end - length - 1 : start], (_learnt(ids[start:end]),)))
    return [first, *later]


def _learnt(ids: Ids) -> Branch:
    return Branch(ids, (True,) * len(ids))


def continuing(trunk: Ids, branches: Sequence[Ids]) -> Tree:
    """A tree whose branches are supervised at every token."""
    return Tree(trunk, tuple(map(_learnt, branches)))


def _read(policy: Policy, trees: Sequence[Tree]) -> list[Continuation]:
    causal_lm = policy.score.causal_lm
    batch = lay_out(trees, causal_lm.device)
    # only a last token, from which nothing is predicted, can be one position too far
    within_L = batch.positions_L.clamp(max=context_of(policy) - 1)
    figures_N3 = _figures(policy, replace(batch, positions_L=within_L))
    figures_B3 = figures_N3.new_zeros(batch.branches, 3).index_add(0, batch.branch_N, figures_N3)
    return [
        Continuation(logprob, int(tokens), hits == tokens)
        for logprob, hits, tokens in figures_B3.tolist()
    ]


def _figures(policy: Policy, batch: TreeBatch) -> torch.Tensor:
    """(log-prob, 1 where it is the likeliest token, 1) of every supervised token, [N, 3]."""
    found = []
    rows = batch.target_N.split(_rows_at_once(policy))
    for logits_NV, target_N in zip(_logits(policy, batch), rows, strict=True):
        all_NV = torch.log_softmax(logits_NV.float(), -1)
        logprobs_N = all_NV.gather(1, target_N[:, None]).squeeze(1)
        hits_N = all_NV.argmax(-1) == target_N
        columns = (logprobs_N.double(), hits_N.double(), torch.ones_like(logprobs_N).double())
        found.append(torch.stack(columns, 1))
    return torch.cat(found)


def _logits(policy: Policy, batch: TreeBatch) -> Iterator[torch.Tensor]:
    """Logits of the supervised positions, a chunk at a time."""
    causal_lm = policy.score.causal_lm
    rows = _rows_at_once(policy)
    if policy.score.by_tree and policy.score.way.takes(batch):
        found_ND = tree_hidden_rows(causal_lm, batch, batch.predictor_N, way=policy.score.way)
        for hidden_ND in found_ND.split(rows):
            yield logits_of(causal_lm, hidden_ND)
    else:
        yield from padded_logits(causal_lm, batch).split(rows)


def _rows_at_once(policy: Policy) -> int:
    config = policy.score.causal_lm.config.get_text_config()
    return max(1, CHUNK_ELEMENTS // int(config.vocab_size))
