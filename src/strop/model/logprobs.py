"""Log-probs and entropies of supervised tokens, without keeping [N, vocab] alive.

Only target positions go through the LM head, in chunks; a chunk's logits are dropped after the
forward and recomputed in the backward. The softmax is float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from strop.errors import ModelError
from strop.model.attention import attention_of
from strop.model.compiled import CompiledLayers, expect_compilable
from strop.model.probe import agree, probe_of
from strop.model.routing import expect_fit, padded_routes, replayed, routes_of
from strop.model.tree import lay_out
from strop.model.ways import BLOCKS, Way, chosen
from strop.types import TokenScores, Tree, TreeBatch

CHUNK_ELEMENTS = 2**24
"""Logits held at once (64 MiB in float32); a smaller head is computed in one piece."""

COMPARED = 8
"""Tensors as large as the logits that comparing two distributions needs at once."""

BLOCK_ELEMENTS = 2**20
"""Logits read at once on a CPU: with their probabilities they stay in its cache."""


@dataclass(frozen=True, slots=True)
class Head:
    """Options of reading the vocabulary: the sampling temperature, whether the entropy has a
    gradient (an entropy bonus needs it), whether to compute the collision log sum_v p(v)^2, too.

    `against(logits_nV, rows)` compares the logits of these rows of the supervised tokens with
    something else, shape [n], with a gradient; it is called again in the backward.
    """

    temperature: float = 1.0
    entropy_gradient: bool = False
    collision: bool = False
    against: Callable[[torch.Tensor, slice], torch.Tensor] | None = None


@contextmanager
def eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Dropout off for the duration, whatever mode the model is in."""
    training = [module for module in model.modules() if module.training]
    if training:  # to say it to every module of a model takes longer than to look
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class TreeScorer(torch.nn.Module):
    """Scores trees with one model: `TreeScorer(model)(trees)`.

    It is a module around the model, and calling it runs its own forward: what wraps a module
    (sharding, data parallelism, hooks) can wrap the tree forward.

    Uses the tree forward if the model honours transformers' attention interface (tested once by
    comparing both on a small probe, which also chooses the `way` to compute attention), else padded
    rows, with a warning. `bfloat16` says that forwards run under autocast. A model that is not
    `loaded` yet reads padded rows until `find_way` is called.
    """

    def __init__(self, model: Any, *, bfloat16: bool = False, loaded: bool = True) -> None:
        super().__init__()
        self.causal_lm = bare(model)
        self.compiled: CompiledLayers | None = None
        self.by_tree, self.way = False, BLOCKS
        if loaded:
            self.find_way(bfloat16=bfloat16)

    def find_way(self, *, bfloat16: bool) -> None:
        """Choose how attention is computed where the model is now."""
        way = tree_way(self.causal_lm, bfloat16=bfloat16)
        self.by_tree, self.way = way is not None, way or BLOCKS
        if not self.by_tree:
            warnings.warn(
                f"{type(self.causal_lm).__name__} does not honour transformers' attention "
                "interface: falling back to padded rows (same numbers, slower, no shared prompts)",
                stacklevel=3,
            )

    def __call__(self, trees: Sequence[Tree], head: Head = Head()) -> TokenScores:
        """Log-prob and entropy of every supervised token; tokens that have routes take them."""
        scores: TokenScores = super().__call__(trees, head)
        return scores

    def forward(self, trees: Sequence[Tree], head: Head) -> TokenScores:
        batch = lay_out(trees, self.causal_lm.device)
        routes_LLC = routes_of(trees, self.causal_lm.device)
        if routes_LLC is None:
            return self._scores(batch, head)
        expect_fit(self.causal_lm, routes_LLC)
        seen = routes_LLC if self._takes(batch) else padded_routes(batch, routes_LLC)
        with replayed(self.causal_lm, seen) as replay:
            scores = self._scores(batch, head)
        return replace(scores, rerouted_T=replay.rerouted_T())

    def _takes(self, batch: TreeBatch) -> bool:
        """Whether the row is computed as it is, and not as padded rows."""
        return self.by_tree and self.way.takes(batch)

    def _scores(self, batch: TreeBatch, head: Head) -> TokenScores:
        if head.against is not None:
            return scores_of(self.causal_lm, batch, self._hidden(batch), head)
        if not self._takes(batch):
            return padded_scores(self.causal_lm, batch, head)
        return tree_scores(self.causal_lm, batch, head, way=way_now(self))

    @torch.no_grad()
    def hidden_rows(self, trees: Sequence[Tree]) -> torch.Tensor:
        """Hidden states that predict the supervised tokens, [N, D], without a gradient."""
        return self._hidden(lay_out(trees, self.causal_lm.device))

    def _hidden(self, batch: TreeBatch) -> torch.Tensor:
        if self._takes(batch):
            return tree_hidden_rows(self.causal_lm, batch, batch.predictor_N, way=way_now(self))
        return padded_hidden(self.causal_lm, batch, batch.predictor_N, batch.branch_N)

    def divergence(self, trees: Sequence[Tree], other: TreeScorer) -> torch.Tensor:
        """KL(this model || other) at every supervised position, exact over the vocabulary, [N].

        Both vocabularies have to be the same.
        """
        batch = lay_out(trees, self.causal_lm.device)
        chunks = zip(self._vocabulary(batch), other._vocabulary(batch), strict=True)
        return torch.cat([(p.exp() * (p - q)).sum(-1) for p, q in chunks])

    def distributions(self, trees: Sequence[Tree]) -> torch.Tensor:
        """Log-probs of the whole vocabulary at every supervised position, [N, vocab]; only for
        small N."""
        return torch.cat(list(self._vocabulary(lay_out(trees, self.causal_lm.device))))

    def _vocabulary(self, batch: TreeBatch) -> Iterator[torch.Tensor]:
        """Log-probs of the whole vocabulary at the supervised positions, a chunk at a time."""
        rows = _rows_at_once(self.causal_lm)
        if not self._takes(batch):
            for logits in padded_logits(self.causal_lm, batch).split(rows):
                yield torch.log_softmax(logits.float(), -1)
            return
        hidden_ND = tree_hidden_rows(self.causal_lm, batch, batch.predictor_N, way=self.way)
        for hidden in hidden_ND.split(rows):
            yield torch.log_softmax(logits_of(self.causal_lm, hidden).float(), -1)


def _rows_at_once(causal_lm: Any, copies: int = 1) -> int:
    """Positions whose logits fit in one chunk, with so many `copies` of them."""
    return max(1, CHUNK_ELEMENTS // copies // int(causal_lm.config.get_text_config().vocab_size))


def bare(model: Any) -> Any:
    """The transformers model itself, without peft's wrapper; adapters are inside its modules."""
    return model if isinstance(model, PreTrainedModel) else model.get_base_model()


def way_now(scorer: Any) -> Way:
    """How a scorer's model computes attention in a forward that begins now."""
    compiled: CompiledLayers | None = scorer.compiled
    way: Way = scorer.way
    return compiled.way if compiled is not None and compiled.applies() else way


def compile_layers(scorer: Any, model: Any, backend: str = "inductor") -> CompiledLayers:
    """Let a scorer's training forwards run through compiled decoder layers.

    Raises `ModelError` for a model that cannot be compiled.
    """
    expect_compilable(model)
    layers = layers_of(model)
    known = layers and all(isinstance(layer, GradientCheckpointingLayer) for layer in layers)
    if layers is None or not known or not scorer.by_tree:
        raise ModelError(
            f"run.compile is set, but {type(model).__name__} has no decoder layers that compute "
            "tree attention",
            fix="drop run.compile",
        )
    made = CompiledLayers(model, layers, scorer.way, backend)
    scorer.compiled = made
    return made


def layers_of(model: Any) -> list[torch.nn.Module] | None:
    """The decoder layers, in order; `None` if they cannot be found."""
    count = decoder_layers(model)
    lists = [m for m in model.get_decoder().modules() if isinstance(m, torch.nn.ModuleList)]
    found = next((layers for layers in lists if len(layers) == count), None)
    return None if found is None else list(found)


def decoder_layers(model: Any) -> int:
    """How many layers call attention in one forward."""
    return int(model.config.get_text_config().num_hidden_layers)


def tree_scores(
    causal_lm: Any,
    batch: TreeBatch,
    head: Head = Head(),
    *,
    way: Way = BLOCKS,
    observer: Callable[[torch.nn.Module], None] | None = None,
) -> TokenScores:
    """One forward over the laid-out row."""
    hidden_ND = tree_hidden_rows(causal_lm, batch, batch.predictor_N, way=way, observer=observer)
    return scores_of(causal_lm, batch, hidden_ND, head)


def scores_of(
    causal_lm: Any, batch: TreeBatch, hidden_ND: torch.Tensor, head: Head = Head()
) -> TokenScores:
    """What the head says of the supervised tokens, by the hidden states that predict them."""
    read = _through_head(causal_lm, hidden_ND, batch.target_N, head)
    return TokenScores(read[0], read[1], batch.branch_N, batch.branches, read[2], read[3])


def tree_hidden_rows(
    model: Any,
    batch: TreeBatch,
    rows_N: torch.Tensor,
    *,
    way: Way = BLOCKS,
    observer: Callable[[torch.nn.Module], None] | None = None,
) -> torch.Tensor:
    """Hidden states at the given places of the laid-out row, [N, D]."""
    with attention_of(model, way.name):
        hidden_1LD: torch.Tensor = model.get_decoder()(
            input_ids=batch.tokens_L[None],
            position_ids=batch.positions_L[None],
            use_cache=False,
            tree_plan=way.plan(batch),
            tree_observer=observer,
        ).last_hidden_state
    return hidden_1LD[0].index_select(0, rows_N)


def padded_scores(causal_lm: Any, batch: TreeBatch, head: Head = Head()) -> TokenScores:
    """The same numbers from right-padded rows, one row a branch, trunks repeated."""
    logits_NV = padded_logits(causal_lm, batch)
    read = read_vocabulary(logits_NV, batch.target_N, head)
    return TokenScores(read[0], read[1], batch.branch_N, batch.branches, read[2])


def padded_logits(causal_lm: Any, batch: TreeBatch) -> torch.Tensor:
    """Logits of the supervised positions from padded rows, [N, vocab]."""
    tokens_BT, mask_BT = _padded_rows(batch)
    logits_BTV = causal_lm(input_ids=tokens_BT, attention_mask=mask_BT, use_cache=False).logits
    # a row is trunk then branch, so a token's position is its column
    logits_NV: torch.Tensor = logits_BTV[batch.branch_N, batch.positions_L[batch.predictor_N]]
    return logits_NV


def padded_hidden(
    model: Any, batch: TreeBatch, rows_N: torch.Tensor, branch_N: torch.Tensor
) -> torch.Tensor:
    """Hidden states at the given places of the laid-out row as branches `branch_N` see them, from
    padded rows, [N, D]."""
    tokens_BT, mask_BT = _padded_rows(batch)
    hidden_BTD = model.get_decoder()(
        input_ids=tokens_BT, attention_mask=mask_BT, use_cache=False
    ).last_hidden_state
    hidden_ND: torch.Tensor = hidden_BTD[branch_N, batch.positions_L[rows_N]]
    return hidden_ND


def _padded_rows(batch: TreeBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, one row a branch, trunks repeated, [B, T]."""
    rows = [
        torch.cat([batch.tokens_L[slice(*batch.trunk_spans[trunk])], batch.tokens_L[slice(*span)]])
        for trunk, span in zip(batch.branch_trunk, batch.branch_spans, strict=True)
    ]
    tokens_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    ones = [torch.ones_like(row) for row in rows]
    return tokens_BT, torch.nn.utils.rnn.pad_sequence(ones, batch_first=True)


def _through_head(
    causal_lm: Any, hidden_ND: torch.Tensor, target_N: torch.Tensor, head: Head
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Log-probs, entropies and, if requested, collisions and comparisons, each of shape [N]."""

    def score(
        hidden: torch.Tensor, target: torch.Tensor, first: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        logits = logits_of(causal_lm, hidden)
        apart = None
        if head.against is not None:
            apart = head.against(logits, slice(first, first + len(hidden)))
        return *read_vocabulary(logits, target, head), apart

    rows = _rows_at_once(causal_lm, 1 if head.against is None else COMPARED)
    if len(hidden_ND) <= rows:
        return score(hidden_ND, target_N, 0)
    chunks = zip(
        hidden_ND.split(rows), target_N.split(rows), range(0, len(hidden_ND), rows), strict=True
    )
    scored = [checkpoint(score, *chunk, use_reentrant=False) for chunk in chunks]
    collision_N = torch.cat([s[2] for s in scored]) if head.collision else None
    apart_N = torch.cat([s[3] for s in scored]) if head.against is not None else None
    logprobs_N, entropy_N = (torch.cat([s[i] for s in scored]) for i in (0, 1))
    return logprobs_N, entropy_N, collision_N, apart_N


def logits_of(causal_lm: Any, hidden_ND: torch.Tensor) -> torch.Tensor:
    """The LM head with the soft-cap of its config, [N, vocab]."""
    return capped(causal_lm, causal_lm.get_output_embeddings()(hidden_ND))


def capped(causal_lm: Any, logits_NV: torch.Tensor) -> torch.Tensor:
    """What the head gives, with the soft-cap of its config, [N, vocab]."""
    softcap = getattr(causal_lm.config, "final_logit_softcapping", None)
    if softcap is None:
        return logits_NV
    bounded: torch.Tensor = softcap * torch.tanh(logits_NV / softcap)
    return bounded


VocabularyRead = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
"""Log-probs, entropies and, if requested, collisions, each of shape [N]."""


def read_vocabulary(
    logits_NV: torch.Tensor, target_N: torch.Tensor, head: Head = Head()
) -> VocabularyRead:
    """float32 log-prob of each target and entropy of its whole distribution, nats, shapes [N].

    The logits are overwritten.
    """
    if head.entropy_gradient:
        return _read_with_gradients(logits_NV, target_N, head)
    read: VocabularyRead = ReadVocabulary.apply(  # type: ignore[no-untyped-call]
        logits_NV, target_N, head.temperature, head.collision
    )
    return read


def _read_with_gradients(
    logits_NV: torch.Tensor, target_N: torch.Tensor, head: Head
) -> VocabularyRead:
    """`read_vocabulary` with a gradient of the entropy, too."""
    all_NV = torch.log_softmax(logits_NV.float() / head.temperature, dim=-1)
    logprobs_N = all_NV.gather(1, target_N[:, None]).squeeze(1)
    entropy_N = -(all_NV.exp() * all_NV).sum(-1)
    collision_N = torch.logsumexp(2 * all_NV.detach(), -1) if head.collision else None
    return logprobs_N, entropy_N, collision_N


class ReadVocabulary(torch.autograd.Function):
    """Log-prob, entropy and collision with as few passes over [N, vocab], and as little memory, as
    possible.

    The probabilities are written over the logits, a block of rows at a time; they alone are kept
    for the backward, which turns them into the gradient in place:
    d log p(target) / d logits = onehot(target) - p.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits_NV: torch.Tensor,
        target_N: torch.Tensor,
        temperature: float,
        collision: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        p_NV = logits_NV.detach().float()
        rows = max(1, BLOCK_ELEMENTS // p_NV.shape[1]) if p_NV.device.type == "cpu" else len(p_NV)
        blocks = zip(p_NV.split(rows), target_N.split(rows), strict=True)
        read = [_into_probabilities(*block, temperature) for block in blocks]
        logprobs_N, entropy_N, square_N = (torch.cat(each) for each in zip(*read, strict=True))
        collision_N = square_N.log() if collision else None
        ctx.temperature, ctx.dtype = temperature, logits_NV.dtype
        ctx.save_for_backward(p_NV, target_N)
        ctx.mark_non_differentiable(entropy_N)
        if collision_N is not None:
            ctx.mark_non_differentiable(collision_N)
        return logprobs_N, entropy_N, collision_N

    @staticmethod
    def backward(
        ctx: Any, grad_N: torch.Tensor, *_: torch.Tensor | None
    ) -> tuple[torch.Tensor, None, None, None]:
        p_NV, target_N = ctx.saved_tensors
        slope_N1 = grad_N[:, None] / ctx.temperature
        grad_NV = p_NV.mul_(-slope_N1).scatter_add_(1, target_N[:, None], slope_N1)
        return grad_NV.to(ctx.dtype), None, None, None


def _into_probabilities(
    logits_NV: torch.Tensor, target_N: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Read log-prob, entropy and sum of squared probabilities, and leave the probabilities in place
    of the logits."""
    scaled_NV = logits_NV.div_(temperature) if temperature != 1 else logits_NV
    p_NV = torch.softmax(scaled_NV, -1)
    # the likeliest token has p >= 1 / vocab, so its logarithm is exact to float32
    top_N, place_N = scaled_NV.max(-1)
    lse_N = top_N - p_NV.gather(1, place_N[:, None]).squeeze(1).log()
    logprobs_N = scaled_NV.gather(1, target_N[:, None]).squeeze(1) - lse_N
    entropy_N = lse_N - torch.linalg.vecdot(p_NV, scaled_NV)
    square_N = torch.linalg.vecdot(p_NV, p_NV)
    logits_NV.copy_(p_NV)
    return logprobs_N, entropy_N, square_N


@torch.no_grad()
def tree_way(causal_lm: Any, *, bfloat16: bool = False) -> Way | None:
    """The way in which the tree forward gives this model's own numbers, tried on a small probe;
    `None` if there is none. `bfloat16` says that forwards run under autocast.

    Every decoder layer has to call tree attention (a recurrent or convolutional layer would mix
    branches), and the log-probs have to equal those of padded rows.
    """
    batch = lay_out(probe_of(causal_lm), causal_lm.device)
    dtype = torch.bfloat16 if bfloat16 else causal_lm.dtype

    def agrees(way: Way) -> bool:
        layers: list[torch.nn.Module] = []
        by_tree = tree_scores(causal_lm, batch, way=way, observer=layers.append)
        if len(layers) != decoder_layers(causal_lm):
            return False
        by_rows = padded_scores(causal_lm, batch)
        if by_rows.logprobs_N.isnan().any():
            raise ModelError(
                f"the log-probs of {causal_lm.name_or_path or type(causal_lm).__name__} are NaN",
                fix="its weights are damaged, or too large for its precision: take another copy, "
                "or load it in float32",
            )
        return agree(by_tree.logprobs_N, by_rows.logprobs_N, dtype)

    autocast = torch.autocast(causal_lm.device.type, torch.bfloat16, enabled=bfloat16)
    with eval_mode(causal_lm), autocast:
        return chosen(causal_lm, agrees)


def honours_tree(causal_lm: Any) -> bool:
    """Whether the tree forward gives this model's own numbers."""
    return tree_way(causal_lm) is not None
