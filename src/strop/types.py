"""The records that flow through strop (standard library only at run time).

Axis names in shapes: N supervised tokens, B branches, P prompts, G completions of one prompt,
L tokens of a laid-out row. Each stage returns a new type; nothing is filled in later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from strop.errors import UsageError

if TYPE_CHECKING:
    import torch

Message = dict[str, Any]
"""One chat message: `{"role": "user", "content": "Solve 3x + 7 = 22"}`."""

Text = str | list[Message]
"""A prompt or completion: plain text or a list of chat messages."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record came from: `Origin("pairs.jsonl", 17)` prints as `pairs.jsonl:17`."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Document:
    """Raw text for continued pretraining:
    `Document("15 / 3 = 5", {}, Origin("corpus.jsonl", 1))`."""

    text: str
    columns: Mapping[str, Any]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One example to imitate: `Demonstration("Solve 2x = 6", "x = 3", {}, Origin("sft.jsonl", 1))`.

    A conversation keeps everything up to the first assistant turn in `prompt` and the rest in
    `completion`; only assistant turns are supervised.
    """

    prompt: Text
    completion: Text
    columns: Mapping[str, Any]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Preference:
    """One comparison.

    `Preference("Solve 2x = 6", "x = 3", "Sure! x = 3", {}, Origin("pairs.jsonl", 1))`
    """

    prompt: Text
    chosen: Text
    rejected: Text
    columns: Mapping[str, Any]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Feedback:
    """One thumb: `Feedback("Solve 2x = 6", "x = 3", True, {}, Origin("thumbs.jsonl", 1))`."""

    prompt: Text
    completion: Text
    label: bool
    columns: Mapping[str, Any]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt to answer and what a reward needs to judge the answer.

    `Task("Solve 2x = 6", {"answer": "3"}, Origin("tasks.jsonl", 1))`
    """

    prompt: Text
    columns: Mapping[str, Any]
    origin: Origin


RecordKind = Literal["document", "demonstration", "preference", "feedback", "task"]
"""A kind of record, as files, methods and messages name it."""

Record = Document | Demonstration | Preference | Feedback | Task


@dataclass(frozen=True, slots=True)
class Routes:
    """Which experts tokens went to: `Routes(bytes([3, 1, 0, 2]), layers=2, chosen=2)` is one token
    that took 3 and 1 in layer 0, 0 and 2 in layer 1. `ids` are little-endian integers of `width`
    bytes, [token, layer, chosen], of all layers; in one that does not route they mean nothing.
    """

    ids: bytes = field(repr=False)
    layers: int
    chosen: int
    width: Literal[1, 2] = 1

    @property
    def tokens(self) -> int:
        return len(self.ids) // (self.layers * self.chosen * self.width)


@dataclass(frozen=True, slots=True)
class Branch:
    """One continuation: `Branch(ids=(5, 6, 2), supervised=(True, True, True))`.

    `supervised[i]` says whether token i is learnt; a tool result inside a branch is read only.
    `routes` are those that its first tokens have to take.
    """

    ids: tuple[int, ...]
    supervised: tuple[bool, ...]
    routes: Routes | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """One prompt (trunk, with its `routes`) with its continuations (branches).

    `Tree(trunk=(1, 4), branches=(Branch((5, 2), (True, True)), Branch((6, 2), (True, True))))`
    """

    trunk: tuple[int, ...]
    branches: tuple[Branch, ...]
    routes: Routes | None = None

    def __len__(self) -> int:
        return len(self.trunk) + sum(len(branch.ids) for branch in self.branches)


@dataclass(frozen=True, slots=True)
class TreeBatch:
    """Many trees laid end to end in one row, each trunk stored once, no padding.

    For the tree above: `tokens_L = [1, 4, 5, 2, 6, 2]`, `positions_L = [0, 1, 2, 3, 2, 3]`,
    `trunk_spans = ((0, 2),)`, `branch_spans = ((2, 4), (4, 6))`, `branch_trunk = (0, 0)`,
    `predictor_N = [1, 2, 1, 4]`, `target_N = [5, 2, 6, 2]`, `branch_N = [0, 0, 1, 1]`.
    """

    tokens_L: torch.Tensor
    positions_L: torch.Tensor
    trunk_spans: tuple[tuple[int, int], ...]
    branch_spans: tuple[tuple[int, int], ...]
    branch_trunk: tuple[int, ...]
    predictor_N: torch.Tensor
    target_N: torch.Tensor
    branch_N: torch.Tensor

    @property
    def branches(self) -> int:
        return len(self.branch_spans)


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What one forward says of every supervised token.

    `logprobs_N = [-0.1, -2.3]` nats, `entropy_N = [0.4, 1.1]` nats, `branch_N = [0, 0]`;
    `collision_N` is log sum_v p(v)^2 and `divergence_N` the distance of a teacher, where they were
    asked for; `rerouted_T` in which share of the layers a given route was another's choice.
    """

    logprobs_N: torch.Tensor
    entropy_N: torch.Tensor
    branch_N: torch.Tensor
    branches: int
    collision_N: torch.Tensor | None = None
    divergence_N: torch.Tensor | None = None
    rerouted_T: torch.Tensor | None = None

    def sums_B(self) -> torch.Tensor:
        """Sum of log-probs per branch, shape [B]."""
        return self.logprobs_N.new_zeros(self.branches).index_add(0, self.branch_N, self.logprobs_N)

    def lengths_B(self) -> torch.Tensor:
        """Supervised tokens per branch, shape [B]."""
        ones_N = self.logprobs_N.detach().new_ones(len(self.branch_N))
        return ones_N.new_zeros(self.branches).index_add(0, self.branch_N, ones_N)


Finish = Literal["stop", "length", "aborted", "error"]
FAILED: tuple[Finish, ...] = ("aborted", "error")
"""Why an answer ended: it was complete, it met the token limit, it was called off, it failed."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a server counted for one answer: `Usage(prompt=12, completion=40)`."""

    prompt: int
    completion: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a judge reads: `Answer(text="x = 3", finish="stop")`.

    `opened` is what the prompt had begun of the answer: `"<think>\\n"`, or an assistant message it
    ended with. `usage` is what a server says that the answer cost.
    """

    text: str
    finish: Finish
    opened: str = field(default="", kw_only=True)
    usage: Usage | None = field(default=None, kw_only=True)

    @property
    def said(self) -> str:
        """The whole answer, as rewards and readers see it."""
        return self.opened + self.text


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """Tokens that one version of the policy sampled: `VersionSpan(start=0, stop=2, version=7)` are
    the first two ids of a completion."""

    start: int
    stop: int
    version: int


@dataclass(frozen=True, slots=True)
class Completion(Answer):
    """An answer as the tokens that were produced, never text turned back into tokens.

    `Completion("x = 3", "stop", ids=(5, 2), sampled=(True, True), logprobs=(-0.1, -0.02),
    versions=(VersionSpan(0, 2, 7),))`. `sampled[i]` says whether the policy wrote id i (a tool's
    result is read, not learnt). `logprobs` are those of the sampled ids under the distribution they
    were drawn from (after temperature and truncation), nats, or `None` where an engine gives none.
    `ids` include the end-of-sequence token if there is one. If they were asked for: `entropies` of
    the whole distribution at temperature 1 at each sampled id, nats; `prompt_routes` and `routes`,
    the experts of the prompt and of all ids but the last; `likeliest`, (id, log-prob) at each one.
    """

    ids: tuple[int, ...]
    sampled: tuple[bool, ...]
    logprobs: tuple[float, ...] | None
    versions: tuple[VersionSpan, ...]
    entropies: tuple[float, ...] | None = None
    prompt_routes: Routes | None = None
    routes: Routes | None = None
    likeliest: tuple[tuple[tuple[int, float], ...], ...] | None = None

    def __post_init__(self) -> None:
        logprobs = sum(self.sampled) if self.logprobs is None else len(self.logprobs)
        if len(self.sampled) != len(self.ids) or logprobs != sum(self.sampled):
            raise UsageError(
                f"a completion has {len(self.ids)} ids, {len(self.sampled)} marks of which "
                f"{sum(self.sampled)} are sampled, and {logprobs} log-probs",
                fix="mark every id, and give a log-prob for each one that the policy sampled",
            )

    @classmethod
    def one_turn(
        cls,
        ids: Sequence[int],
        text: str,
        logprobs: Sequence[float] | None,
        finish: Finish,
        version: int = 0,
        entropies: Sequence[float] | None = None,
    ) -> Completion:
        """A completion all of whose ids one version of the policy sampled."""
        return cls(
            text=text,
            finish=finish,
            ids=tuple(ids),
            sampled=(True,) * len(ids),
            logprobs=None if logprobs is None else tuple(logprobs),
            versions=(VersionSpan(0, len(ids), version),) if ids else (),
            entropies=None if entropies is None else tuple(entropies),
        )

    def branches(self) -> tuple[Branch, ...]:
        """The completion as training reads it: what the policy did not sample is not supervised."""
        return (Branch(self.ids, self.sampled),)

    def sampler_logprobs(self) -> tuple[float, ...]:
        """`logprobs`, to train with; raises `UsageError` where there are none."""
        if self.logprobs is None:
            raise _untrainable()
        return self.logprobs


def trainable(answer: Answer) -> Completion:
    """The answer as a completion with log-probs; raises `UsageError` where it has no tokens or no
    log-probs, for then it can be judged and not trained on."""
    if not isinstance(answer, Completion):
        raise _untrainable()
    answer.sampler_logprobs()
    return answer


def _untrainable() -> UsageError:
    return UsageError(
        "an answer without its tokens and their log-probs can be judged, but not trained on",
        fix="sample with an engine that gives both",
    )


@dataclass(frozen=True, slots=True)
class Rollout:
    """One task with its G completions: `Rollout(task, prompt_ids=(1, 4), completions=(c0, c1))`."""

    task: Task
    prompt_ids: tuple[int, ...]
    completions: tuple[Completion, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """One task with answers whose tokens are unknown (a server's, recorded ones), which can be
    judged: `Answered(task, completions=(Answer("x = 3", "stop"),))`."""

    task: Task
    completions: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """What the rewards say of one completion.

    `Score(total=1.1, components={"exact_answer": 1.0, "format_tags": 0.5})`;
    `None` means it could not be judged, which is not zero.
    """

    total: float | None
    components: Mapping[str, float | None]


FaultKind = Literal["raised", "hung", "ended", "returned", "not_finite"]
"""How a reward fails: an exception, no answer in time, its process died, something that is no
number (or too few of them), NaN or infinity."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A reward that failed: `Failure("my_reward", "KeyError: 'answer'", "raised", 8)`; `count` are
    the completions it left unscored by that."""

    component: str
    error: str
    kind: FaultKind
    count: int


@dataclass(frozen=True, slots=True)
class Judged:
    """Scores in the order of the completions, and what went wrong on the way."""

    scores: tuple[Score, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """A rollout with one score per completion."""

    rollout: Rollout
    scores: tuple[Score, ...]


Scale = tuple[float | None, float | None]
"""The lowest and the highest score there can be; `None` where there is no bound."""


@dataclass(frozen=True, slots=True)
class EvalRecord:
    """One judged item of an eval.

    `EvalRecord("accuracy", item="17", score=1.0, cluster="17", sample=0, prompt="2x = 6",
    output="x = 3", slices={"topic": "fractions"}, scale=(0.0, 1.0))`; `slices` are groups to look
    at, `details` further figures; `scale` is the scale of the score where it is known.
    """

    task: str
    item: str
    score: float | None
    cluster: str
    sample: int = 0
    prompt: str = ""
    output: str = ""
    details: Mapping[str, float | None] = field(default_factory=dict)
    slices: Mapping[str, str] = field(default_factory=dict)
    scale: Scale | None = None


VerdictName = Literal["pass", "regressed", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Check:
    """One demand of a gate, and what was found.

    `Check("accuracy", "target", estimate=0.53, low=0.48, high=0.58, bound=0.0, verdict="pass",
    n=400, n_needed=None, detectable=0.05, method="tango", base=0.44, candidate=0.97)`. `estimate`
    is the mean difference candidate - base (a band's is the ratio of means, held between `bound`
    and `upper`). `floor` is the largest difference that changing nothing was seen to make, `noisy`
    says that the change does not stand out of it; `detectable` the smallest true one that so many
    items would show; `lost` and `gained` count changed 0s and 1s; `items` have `n` scores.
    """

    name: str
    kind: Literal["target", "guardrail", "band"]
    estimate: float
    low: float
    high: float
    bound: float
    verdict: VerdictName
    n: int
    n_needed: int | None
    detectable: float | None
    method: str
    base: float
    candidate: float
    unscored: int = 0
    upper: float | None = None
    floor: float | None = None
    noisy: bool = False
    lost: int | None = None
    gained: int | None = None
    churn: float | None = None
    mcnemar: float | None = None
    items: int | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """One group of one score: `Slice("accuracy", "topic", "fractions", n=40, estimate=-0.1,
    low=-0.2, high=0.0, q_value=0.2)`.

    `q_value` is Benjamini and Hochberg's over all slices of a verdict: advice, never the verdict.
    """

    score: str
    column: str
    value: str
    n: int
    estimate: float
    low: float
    high: float
    q_value: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of the gate: a name, a sentence, the checks it stands on, and groups to look at.

    `remarks` are what a reader has to know beside it: items counted as lost, overlap let through.
    """

    name: VerdictName
    sentence: str
    checks: tuple[Check, ...]
    slices: tuple[Slice, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotFinite:
    """Why a step left an update out, and what it was made of:
    `NotFinite(("loss of forward 1 of 1: nan",), ({"origin": "pairs.jsonl:17", ...},))`. `made` is
    what the step had learnt by then: `"2 updates of the policy and 1 of the critic"`.
    """

    tensors: tuple[str, ...]
    batch: tuple[Mapping[str, Any], ...]
    made: str = ""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimizer step: `StepRecord(step=1, total=800, metrics={"loss": 2.1})`.

    `samples` are completions worth keeping for a reader: `{"prompt": ..., "completion": ...}`.
    """

    step: int
    total: int
    metrics: Mapping[str, float]
    samples: Sequence[Mapping[str, Any]] = ()
    not_finite: NotFinite | None = None
