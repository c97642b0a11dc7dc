"""What a named value means, and the choices a person can make about it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from strop.curate.signals.interaction import Signal

THUMBS = frozenset((
    "thumb", "thumbs", "thumb_up", "thumbs_up", "label", "like", "liked", "helpful", "feedback",
    "user_feedback", "user_score", "user_rating", "user_thumb", "user_thumbs", "human_feedback",
    "satisfaction", "rating", "csat", "satisfaction_rating", "stars", "star_rating",
    "resolution", "status", "resolved",
))  # fmt: skip
"""Names under which a value says whether a person was content."""

VERDICTS = frozenset((
    "correct", "is_correct", "correctness", "answer_correctness", "accuracy", "passed", "pass",
    "tests_passed", "exact_match", "verified", "success", "task_success",
))  # fmt: skip
"""Names under which a value says whether the answer was checked and is right."""

YES = frozenset((
    "true", "yes", "y", "up", "thumbs_up", "thumb_up", "thumbsup", "like", "liked", "good",
    "great", "positive", "helpful", "satisfied", "pass", "passed", "correct", "right", "success",
    "solved", "resolved", "fixed", "accepted", "+1", "\U0001f44d", "1",
))  # fmt: skip
NO = frozenset((
    "false", "no", "n", "down", "thumbs_down", "thumb_down", "thumbsdown", "dislike", "disliked",
    "bad", "negative", "unhelpful", "not_helpful", "unsatisfied", "dissatisfied", "fail", "failed",
    "incorrect", "wrong", "failure", "unsolved", "unresolved", "not_resolved", "reopened",
    "rejected", "escalated", "-1", "\U0001f44e", "0",
))  # fmt: skip
"""Words, folded to lower case and underscores, that say yes or no."""

STAR_NAMES = frozenset((
    "rating", "user_rating", "csat", "satisfaction_rating", "stars", "star_rating",
))  # fmt: skip
"""Names under which a 1 alone may be the worst of five stars as well as a thumb up."""

LIKED_FROM, DISLIKED_TO, STARS = 4.0, 2.0, 5.0
"""Of one to five stars: from how many an answer was liked, up to how many it was not. Three say
neither."""

KINDS = ("preference", "demonstration", "feedback", "task")


@dataclass(frozen=True, slots=True)
class Rules:
    """What becomes of the signals: `Rules(score="relevance", kinds=("preference",))`.

    `edits` are the bounds of the normalised edit distance between which an edit is kept. `thumbs`
    and `verdicts` are further names of such signals. `score` names the score by which several
    answers to one prompt are ranked; the only one there is unless given. `infer_regenerations`
    takes answers to one prompt within one session for regenerations. `all_prompts` makes tasks
    also of prompts whose answers nobody judged. `balance_length` leaves pairs of right and wrong
    answers out until length alone does not tell them apart.
    """

    kinds: tuple[str, ...] = KINDS
    edits: tuple[float, float] = (0.05, 0.7)
    thumbs: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    score: str | None = None
    infer_regenerations: bool = False
    all_prompts: bool = False
    balance_length: bool = True


def folded(name: str) -> str:
    """`folded("User-Feedback ") == "user_feedback"`; `"-1"` and `"+1"` stay."""
    plain = name.strip().casefold()
    return plain if plain in ("-1", "+1") else re.sub(r"[\s.\-/]+", "_", plain)


@dataclass(slots=True)
class Numbers:
    """The numbers under one name: `Numbers(lowest=1.0, highest=5.0, graded=True)`; `graded` says
    that some are none of 1, 0 and -1."""

    lowest: float = math.inf
    highest: float = -math.inf
    graded: bool = False

    def see(self, value: float) -> None:
        """One more of them."""
        self.lowest, self.highest = min(self.lowest, value), max(self.highest, value)
        self.graded = self.graded or value not in (1, 0, -1)


NO_NUMBERS = Numbers(1.0, 1.0)


def meaning(mark: Signal, rules: Rules, numbers: Mapping[str, Numbers]) -> Signal | None:
    """A mark as thumb, verdict or score by its name.

    It stays a mark where the name does not say; `None` for a middle number of stars, which says
    nothing. A thumb or a verdict is read from a bool, from a word of `YES` or `NO`, or from 1
    against 0 or -1. `numbers` are all that stand under every name: where they go above 1 and up to
    5, those under the name of a thumb are stars, and where the name is one of stars and nothing but
    1 was seen, nobody can tell. Where some are none of 1, 0 and -1, those under the name of a
    verdict are scores, the 1 among them as well. A number under another name is a score.
    """
    if mark.kind != "mark":
        return mark
    name, seen = folded(mark.name), numbers.get(mark.name, NO_NUMBERS)
    if name in THUMBS or mark.name in rules.thumbs:
        liked = _in_words(mark)
        if liked is None and _is_number(mark.value):
            if name in STAR_NAMES and seen.lowest == seen.highest == 1:
                return None
            liked = _liked(float(mark.value), seen.highest)
            if liked is None and 1 < seen.highest <= STARS:
                return None
        if liked is not None:
            return replace(mark, kind="thumb", value=liked)
    elif name in VERDICTS or mark.name in rules.verdicts:
        right = _in_words(mark)
        if right is None and _is_number(mark.value) and not seen.graded:
            right = yes_or_no(mark.value)
        if right is not None:
            return replace(mark, kind="verdict", value=right)
    return replace(mark, kind="score", value=float(mark.value)) if _is_number(mark.value) else mark


def _in_words(mark: Signal) -> bool | None:
    """What a mark says without a number: as a bool, or by the word beside it."""
    return mark.value if isinstance(mark.value, bool) else yes_or_no(mark.label)


def yes_or_no(value: object) -> bool | None:
    """A bool, a word of `YES` or `NO`, or 1 against 0 or -1; `None` for anything else."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value == 1 if value in (1, 0, -1) else None
    word = folded(value) if isinstance(value, str) else None
    return word in YES if word in YES or word in NO else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _liked(value: float, highest: float) -> bool | None:
    """Thumb of a number: 1 against 0 or -1, or stars where the highest number is above 1."""
    if highest <= 1:
        return yes_or_no(value)
    if highest <= STARS and not DISLIKED_TO < value < LIKED_FROM:
        return value >= LIKED_FROM
    return None
