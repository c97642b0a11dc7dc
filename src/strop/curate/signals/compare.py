"""Answers of several interactions to one prompt -> pairs: regenerations, scores, verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strop.curate.signals.interaction import Interaction, Signal
from strop.curate.signals.join import Joined, by_answer, latest
from strop.curate.signals.pairs import Balanced, balanced, best_against, nearest_in_length
from strop.curate.signals.records import columns
from strop.curate.signals.rules import Rules
from strop.errors import UsageError
from strop.recipe.loading.yaml_text import short
from strop.text.parse import plain
from strop.types import Message, Preference


@dataclass(frozen=True, slots=True)
class Held:
    """An answer that waits for others to the same prompt.

    `Held(7, interaction, answer, scores={"relevance": 0.8}, right=None, liked=True)`; `place` is
    the interaction's number, `right` its verdict, `liked` its thumb, `step` its place in a chain of
    regenerations.
    """

    place: int
    interaction: Interaction
    answer: list[Message]
    scores: Mapping[str, float] = field(default_factory=dict)
    right: bool | None = None
    liked: bool | None = None
    step: int = 0

    @property
    def text(self) -> str:
        return plain(self.answer)


Pair = tuple[Held, Held, dict[str, Any], str]
"""Chosen, rejected, columns, and the signal that says so."""


def held_of(joined: Joined, signals: tuple[Signal, ...]) -> Iterator[Held]:
    """The answers of an interaction with what is to be compared about them."""
    one = joined.interaction
    own: dict[int, list[Signal]] = dict(by_answer(signals, len(one.answers)))
    for number, answer in enumerate(one.answers):
        said = own.get(number, [])
        scores = {s.name: s.value for s in said if s.kind == "score"}
        right = _clear([s for s in said if s.kind == "verdict"])
        liked = _clear([s for s in said if s.kind == "thumb"])
        yield Held(joined.place, one, answer, scores, right, liked, joined.step)


def _clear(signals: list[Signal]) -> bool | None:
    counts = latest(signals) if signals else None
    return None if counts is None else bool(counts.value)


@dataclass(slots=True)
class Compared:
    """What comparing made: pairs, the reason of every interaction that is in none, and how the
    lengths of verified pairs were balanced."""

    pairs: list[Preference] = field(default_factory=list)
    used: set[int] = field(default_factory=set)
    reasons: dict[int, str] = field(default_factory=dict)
    lengths: Balanced | None = None

    def keep(self, pair: Pair) -> None:
        """Make a preference of a pair."""
        chosen, rejected, more, signal = pair
        one, other = chosen.interaction, rejected.interaction
        assert one.prompt is not None
        extra = columns(one, signal, more)
        if other is not one:
            extra["meta"]["rejected_trace_id"] = other.trace_id or other.id
        made = Preference(one.prompt, chosen.answer, rejected.answer, extra, one.origin)
        self.pairs.append(made)
        self.used |= {chosen.place, rejected.place}

    def miss(self, held: Sequence[Held], reason: str) -> None:
        """Note why these answers are in no pair, but for what was noted before."""
        for one in held:
            self.reasons.setdefault(one.place, reason)


def compared(groups: Mapping[tuple[str, int], Sequence[Held]], rules: Rules) -> Compared:
    """The pairs of all groups.

    Raises `UsageError` where `rules.score` names a score that no answer has.
    """
    made = Compared()
    verified: list[Pair] = []
    score = _score_of(groups, rules)
    for key, held in groups.items():
        if key[0] == "chain":
            _regenerations(held, made)
            continue
        verified += _verified(held, made)
        _scored(held, score, made)
    _balance(verified, rules, made)
    for held in groups.values():
        made.miss(held, "one_answer" if len(held) == 1 else "other_answer")
    return made


def _score_of(groups: Mapping[tuple[str, int], Sequence[Held]], rules: Rules) -> str | None:
    """The score by which answers are ranked; `None` where there are several and none is named."""
    names = {n for held in groups.values() if len(held) > 1 for one in held for n in one.scores}
    if rules.score is not None and rules.score not in names:
        found = ", ".join(short(name) for name in sorted(names)) or "none"
        raise UsageError(
            f"no prompt with several answers has the score {short(rules.score)!r}: found {found}",
            fix="name one that the answers have, or leave --score out",
        )
    return rules.score or (next(iter(names)) if len(names) == 1 else None)


def _regenerations(held: Sequence[Held], made: Compared) -> None:
    """The last answer, which the user did not ask to be replaced, against the earlier ones."""
    held = sorted(held, key=lambda one: one.step)
    last = held[-1]
    if last.liked is False:
        made.miss(held, "not_accepted")
        return
    for one in held[:-1]:
        if one.interaction.prompt != last.interaction.prompt:
            made.miss([one, last], "prompt_changed")
        elif one.text.split() == last.text.split() or one.liked:
            made.miss([one, last], "same_answer")
        else:
            made.keep((last, one, {}, "regenerated"))


def _scored(held: Sequence[Held], score: str | None, made: Compared) -> None:
    if score is None:
        scored = [one for one in held if one.scores]
        if len(scored) > 1:
            made.miss(scored, "several_scores")
        return
    scored = [one for one in held if score in one.scores]
    if len(scored) < 2:
        return
    found = best_against([one.scores[score] for one in scored])
    if found is None:
        made.miss(scored, "equal_scores")
        return
    best, worse, margin = found
    if scored[best].text.split() == scored[worse].text.split():
        made.miss(scored, "same_answer")
    else:
        made.keep((scored[best], scored[worse], {"margin": margin}, f"score {score}"))


def _verified(held: Sequence[Held], made: Compared) -> list[Pair]:
    """Right and wrong answers to one prompt in pairs that differ least in length."""
    right = [one for one in held if one.right is True]
    wrong = [one for one in held if one.right is False]
    places = nearest_in_length(*([len(one.text) for one in side] for side in (right, wrong)))
    matched = {("right", r) for r, _ in places} | {("wrong", w) for _, w in places}
    for name, side in (("right", right), ("wrong", wrong)):
        rest = [one for n, one in enumerate(side) if (name, n) not in matched]
        made.miss(rest, "no_counterpart")
    pairs: list[Pair] = []
    for r, w in places:
        if right[r].text.split() == wrong[w].text.split():
            made.miss([right[r], wrong[w]], "same_answer")
        else:
            pairs.append((right[r], wrong[w], {}, "verified"))
    return pairs


def _balance(verified: Sequence[Pair], rules: Rules, made: Compared) -> None:
    kept = range(len(verified))
    if verified and rules.balance_length:
        made.lengths = balanced([len(p[0].text) for p in verified],
                                [len(p[1].text) for p in verified])  # fmt: skip
        kept = made.lengths.kept  # type: ignore[assignment]
    chosen = set(kept)
    for number, pair in enumerate(verified):
        if number in chosen:
            made.keep(pair)
        else:
            made.miss(pair[:2], "length_balance")
