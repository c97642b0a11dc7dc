"""Everything that a rule of the advisor may ask about."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

Goal = Literal["style", "format", "knowledge", "reasoning", "domain", "safety"]
Signal = Literal[
    "verifier", "part_verifier", "pairs", "thumbs", "demonstrations", "documents", "prompts", "none"
]
"""What the data says of good answers, the most telling first."""

VERIFIABLE, PARTLY = 0.8, 0.2
"""Share of tasks with something to check an answer against, from which a verifier alone is enough,
and from which it is worth a method of its own."""
SAMPLES_BADLY = 0.05
"""Sampled accuracy below which most groups of 8 hold no right answer: 0.95^8 = 0.66."""
FOR_WANT_OF_FORMAT = 0.1
"""Share of wrong answers that hold the right one, from which the form is what is missing."""
APART = 0.2
"""By what share the lengths of two answers differ from which a bias of length decides the method:
below, what a sum over tokens gains by length is little beside what the words give."""
NEARLY_ONE = 0.1
"""Share of nearly identical pairs from which what pushes the rejected answer down pushes the chosen
one down with it, step after step."""
KNOWS = 0.05
"""How far greedy accuracy lies above sampled accuracy where a model knows more than it samples."""
LEARNABLE = 0.3
"""Greedy accuracy that shows without sampling that groups will hold right answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known: `Facts(data=True, pairs=1200, prompts=1100, noise=0.02, evaluated=True)`.

    `None` is unknown. Counts of records are 0 where data was given that has none of them. Truths
    are False where nothing shows them, except for those that may be unknown.

    - Data: rows by kind; `prompts`, the different ones; `verifiable`, the share of tasks with an
      answer, tests or a schema; `noise`, the estimated share of wrong labels, from what was judged
      twice (0 where nothing was), `noise_items` such comparisons; `cyclic`, the share of prompts
      whose preferences run in a circle; `longer_wins`, the chance that the longer answer of a pair
      is the chosen one, `length_bias` whether that is surely not chance, `lengths_apart` by what
      share the lengths of the two differ (the median); `near_identical`, the share of pairs with
      nearly one answer; `liked`, the share of thumbs up.
    - Evals: the `score` of `items`, `greedy` where each was answered once; the `target`, the `gap`
      between them with its interval; `pass_1` and `pass_k`, sampled, of `k` answers; `unformatted`,
      the share of answers without the wanted form, cut or empty; `gold_in_wrong`, the share of
      wrong answers that hold the right one; `entropy` in nats a token; `sampling_k`, the fewest
      answers from which a vote or a rule that knows no gold picks one that meets the target;
      `prompted_gap`, the gap under another prompt; `items_needed` to tell the gap from nothing.
    - Model: `parameters`; `tuned`, whether it was taught to answer (a chat template, or SFT in its
      lineage); `plateau`, whether SFT's loss has stopped falling; `domain_ratio`, its bits a byte
      on the documents over those on ordinary prose.
    - A teacher: `teacher_gain`, its score above the model's, with the lower end of its interval;
      `same_tokens`, whether ids mean the same tokens to both; `teacher_times`, how many times as
      large it is.
    - The rest: `goal` and `prototype` as read from words; `users` a week.
    """

    data: bool = False
    model: bool = False
    evaluated: bool = False
    pairs: int | None = None
    thumbs: int | None = None
    demonstrations: int | None = None
    documents: int | None = None
    tasks: int | None = None
    prompts: int | None = None
    verifiable: float | None = None
    noise: float | None = None
    noise_items: int | None = None
    cyclic: float | None = None
    longer_wins: float | None = None
    length_bias: bool = False
    lengths_apart: float | None = None
    near_identical: float | None = None
    liked: float | None = None
    items: int | None = None
    score: float | None = None
    greedy: float | None = None
    target: float | None = None
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    items_needed: int | None = None
    pass_1: float | None = None
    pass_k: float | None = None
    k: int | None = None
    unformatted: float | None = None
    gold_in_wrong: float | None = None
    entropy: float | None = None
    sampling_k: int | None = None
    prompted_gap: float | None = None
    parameters: int | None = None
    tuned: bool | None = None
    plateau: bool | None = None
    domain_ratio: float | None = None
    teacher_gain: float | None = None
    teacher_gain_low: float | None = None
    same_tokens: bool | None = None
    teacher_times: float | None = None
    goal: Goal | None = None
    prototype: bool = False
    users: int | None = None

    @property
    def signal(self) -> Signal | None:
        """What the data says of good answers; `None` without data."""
        if not self.data:
            return None
        share = self.verifiable if self.tasks and self.verifiable is not None else 0.0
        if share >= VERIFIABLE:
            return "verifier"
        if share >= PARTLY:
            return "part_verifier"
        for kind in ("pairs", "thumbs", "demonstrations", "documents"):
            if getattr(self, kind):
                return kind
        return "prompts" if self.tasks else "none"

    @property
    def length_decides(self) -> bool:
        """Whether length tells the chosen answer of a pair, and lengths differ by much."""
        return self.length_bias and (self.lengths_apart is None or self.lengths_apart >= APART)

    @property
    def nearly_one_answer(self) -> bool:
        """Whether many pairs hold nearly one answer twice."""
        return (self.near_identical or 0.0) >= NEARLY_ONE

    @property
    def clean_pairs(self) -> float | None:
        """How many pairs with right labels teach a noise-corrected loss as much as these: its
        variance grows by 1 / (1 - 2 noise)^2 (Chowdhury et al. 2024, arXiv 2403.00409)."""
        if self.pairs is None or self.noise is None:
            return None
        return self.pairs * (1 - 2 * self.noise) ** 2

    @property
    def only_form_is_missing(self) -> bool | None:
        """Whether the model knows answers that it does not sample in the wanted form: the form is
        missing, wrong answers hold the right one, or greedy ones are right where sampled ones are
        not. `None` where nothing says it."""
        lead = None if self.greedy is None or self.pass_1 is None else self.greedy - self.pass_1
        signs = [
            None if self.unformatted is None else self.unformatted > 0.5,
            None if self.gold_in_wrong is None else self.gold_in_wrong >= FOR_WANT_OF_FORMAT,
            None if lead is None else lead >= KNOWS,
        ]
        known = [sign for sign in signs if sign is not None]
        return any(known) if known else None

    @property
    def samples_right_answers(self) -> bool | None:
        """Whether groups of sampled answers hold right ones: what a policy gradient learns from."""
        if self.pass_1 is not None:
            return self.pass_1 >= SAMPLES_BADLY
        return True if self.greedy is not None and self.greedy >= LEARNABLE else None


DERIVED = (
    "signal", "length_decides", "nearly_one_answer", "clean_pairs", "only_form_is_missing",
    "samples_right_answers",
)  # fmt: skip
NAMES = (*(one.name for one in fields(Facts)), *DERIVED)
"""Every name that a rule may use."""


def value_of(facts: Facts, name: str) -> object:
    """The value of a fact, derived ones included."""
    return getattr(facts, name)
