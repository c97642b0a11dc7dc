"""A model that another one is compared with, token by token: a frozen one, or its own start.

The student's forward asks for the teacher's logits of a chunk of rows at a time, from hidden states
that are kept; so the logits of all rows are never there at once, of neither of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from strop.errors import ModelError
from strop.model.adapters import (
    adapted,
    adapter_base,
    attach_adapter,
    instead,
    is_adapter_folder,
    nf4,
    without_its_file,
)
from strop.model.load import load_tokenizer, load_transformer, pick_device
from strop.model.logprobs import (
    Head,
    TreeScorer,
    bare,
    eval_mode,
    logits_of,
    padded_hidden,
    padded_scores,
    scores_of,
)
from strop.model.network import Policy
from strop.model.probe import agree, probe_of
from strop.model.tree import lay_out
from strop.recipe.train.teacher import ModelTeacher
from strop.tracking.phases import phase
from strop.types import Tree

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Compare = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(student's log-probs [n, V], teacher's [n, V]) -> [n]."""

StandIn = Callable[[], AbstractContextManager[None]]
"""Within what it gives, a model has other weights: a `Reference`'s, or another adapter."""

TEACHER = "teacher"
"""What a teacher's adapter is called beside the student's."""


@dataclass(frozen=True, slots=True)
class LocalTeacher:
    """A model in this process that gives whole distributions: `LocalTeacher(policy)`.

    A teacher that is the student's own model with other weights has them within `weights()` alone:
    those of the run's start, or another adapter over the same frozen weights, so that there is no
    second model. `vocabulary` are the tokens that are compared: those that both heads have, because
    heads of the same tokenizer may be padded to different lengths.
    """

    policy: Policy
    vocabulary: int
    weights: StandIn = nullcontext

    @torch.no_grad()
    def logprobs(self, trees: Sequence[Tree], temperature: float = 1.0) -> torch.Tensor:
        """Log-probs of the supervised tokens, nats, [N]."""
        with self._reading():
            return self.policy.score(trees, Head(temperature=temperature)).logprobs_N

    @torch.no_grad()
    def rows(self, trees: Sequence[Tree]) -> TeacherRows:
        """What its head makes logits of, at every supervised token of these trees."""
        with self._reading():
            return TeacherRows(self, self.policy.score.hidden_rows(trees))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with phase("forward"), eval_mode(self.policy.model), self.weights(), self.arithmetic():
            yield

    @contextmanager
    def head_weights(self) -> Iterator[None]:
        """The same, where the head is one of those that are trained, or has an adapter; without the
        dropout of that, because the student is in the middle of its own forward."""
        head = bare(self.policy.model).get_output_embeddings()
        trained = any(parameter.requires_grad for parameter in head.parameters())
        if not trained and isinstance(head, torch.nn.Linear):
            yield
            return
        with self.weights(), eval_mode(head):
            yield

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """The teacher's own precision, whatever the student computes in."""
        device = self.policy.device.type
        with torch.autocast(device, enabled=False), self.policy.arithmetic():
            yield


@dataclass(frozen=True, slots=True)
class TeacherRows:
    """A teacher's hidden states of N rows, and the head that reads them."""

    teacher: LocalTeacher
    hidden_ND: torch.Tensor = field(repr=False)

    @torch.no_grad()
    def logprobs(self, rows: slice, temperature: float) -> torch.Tensor:
        """Log-probs of the whole vocabulary at some of the rows, float32 [n, V]."""
        teacher = self.teacher
        with teacher.head_weights(), teacher.arithmetic():
            logits = logits_of(bare(teacher.policy.model), self.hidden_ND[rows])
        return scaled(logits, teacher.vocabulary, temperature)

    def against(
        self, compare: Compare, temperature: float
    ) -> Callable[[torch.Tensor, slice], torch.Tensor]:
        """What the student's head calls with each chunk of its logits (`Head.against`)."""

        def apart(logits_nV: torch.Tensor, rows: slice) -> torch.Tensor:
            student_nV = scaled(logits_nV, self.teacher.vocabulary, temperature)
            return compare(student_nV, self.logprobs(rows, temperature))

        return apart


def in_common(*policies: Policy) -> int:
    """How many tokens all of these heads have."""
    configs = (bare(policy.model).config.get_text_config() for policy in policies)
    return min(int(config.vocab_size) for config in configs)


def scaled(logits_nV: torch.Tensor, vocabulary: int, temperature: float) -> torch.Tensor:
    """Log-probs of the first `vocabulary` tokens at a temperature, float32."""
    kept = logits_nV[:, :vocabulary].float()
    with torch.autocast(logits_nV.device.type, enabled=False):
        return torch.log_softmax(kept / temperature if temperature != 1 else kept, -1)


def load_teacher(recipe: ModelTeacher, device: str) -> Policy:
    """A frozen model from its folder, in the recipe's precision (its own unless it says). Weights
    in 4 bits keep an adapter beside them, as QLoRA trained it: merged they would be rounded."""
    place = pick_device(device)
    dtype: Any = "auto" if recipe.dtype is None else DTYPES[recipe.dtype]
    stored = torch.float32 if recipe.dtype is None else dtype
    apart = recipe.quantize is not None and is_adapter_folder(recipe.path)
    model = load_transformer(
        adapter_base(recipe.path) if apart else recipe.path,
        stored if recipe.quantize else dtype,
        trust_remote_code=recipe.trust_remote_code,
        quantized=nf4(stored) if recipe.quantize else None,
        device=place,
    )
    if recipe.quantize:
        without_its_file(model)
    model = adapted(model, recipe.path) if apart else model
    model = model.to(place) if recipe.quantize is None else model
    model.eval().requires_grad_(False)
    tokenizer = load_tokenizer(recipe.path, recipe.trust_remote_code)
    return Policy(model, tokenizer, False, TreeScorer(model))


def beside(policy: Policy, folder: str) -> StandIn:
    """Load a teacher's adapter beside the one that the policy trains, over the same frozen weights.

    Raises `ModelError` for an adapter that does not fit. No random number of the run is drawn.
    """
    model, device = policy.model, policy.device
    training = model.training
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        attach_adapter(model, TEACHER, folder)
    model.train(training)
    return partial(instead, model, TEACHER)


@torch.no_grad()
def expect_readable_head(policy: Policy, name: str) -> None:
    """Raise `ModelError` for a model whose logits are not its head's product with the last hidden
    state, as far as strop computes that: whole distributions could not be compared in chunks."""
    model = bare(policy.model)
    batch = lay_out(probe_of(model), policy.device)
    with eval_mode(policy.model), policy.arithmetic():
        hidden_ND = padded_hidden(model, batch, batch.predictor_N, batch.branch_N)
        apart = scores_of(model, batch, hidden_ND).logprobs_N
        whole = padded_scores(model, batch).logprobs_N
    dtype = torch.bfloat16 if policy.bfloat16 else model.dtype
    if not agree(apart, whole, dtype):
        raise ModelError(
            f"the {name} ({type(model).__name__}) changes its logits after the head in a way that "
            "strop does not know, so distributions cannot be compared in chunks",
            fix="use on_policy_distil, which reads log-probs of sampled tokens alone",
        )
