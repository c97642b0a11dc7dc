"""Which answers become records: the best, those above a threshold, few that differ."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz import process
from rapidfuzz.distance import Indel

from strop.data.duplicates import Words, words


def rouge_l(left: Words, right: Words) -> float:
    """ROUGE-L, the F1 of the longest common subsequence of words, 0 to 1 (Lin 2004, section 3).

    `rouge_l(("a", "b", "c", "d"), ("a", "b", "d"))` is `2 * 3 / (4 + 3)`.
    """
    return float(Indel.normalized_similarity(left, right))


def most_alike(said: Words, others: Sequence[Words]) -> float:
    """The largest ROUGE-L of a text with any of the others, 0 where there are none."""
    found = process.extractOne(said, others, scorer=Indel.normalized_similarity)
    return 0.0 if found is None else float(found[1])


def folded(text: str) -> str:
    """A text as repeats are told: spaces and line breaks do not count, everything else does."""
    return " ".join(text.split())


def first_of_equals(texts: Sequence[str]) -> list[int]:
    """The places of the texts that repeat no earlier one."""
    seen: dict[str, int] = {}
    for place, text in enumerate(texts):
        seen.setdefault(folded(text), place)
    return sorted(seen.values())


def best(scores: Sequence[float]) -> int:
    """The place of the highest score, the first of equals."""
    return max(range(len(scores)), key=lambda place: scores[place])


def above(texts: Sequence[str], scores: Sequence[float], threshold: float) -> list[int]:
    """The places of the different texts with a score of at least `threshold`, the best first, equal
    scores in order."""
    good = [place for place, score in enumerate(scores) if score >= threshold]
    different = [good[n] for n in first_of_equals([texts[place] for place in good])]
    return sorted(different, key=lambda place: -scores[place])


def shortest(texts: Sequence[str], most: int) -> list[int]:
    """The places of the `most` shortest texts, in words and then characters, the shortest first."""
    order = sorted(range(len(texts)), key=lambda n: (len(texts[n].split()), len(texts[n]), n))
    return order[:most]


def diverse(texts: Sequence[str], most: int) -> list[int]:
    """The places of `most` texts that differ: the shortest first, then each time the one whose
    nearest relative among those taken is the least alike by ROUGE-L (greedy k-centre, Gonzalez
    1985)."""
    if not texts:
        return []
    read = [words(text) for text in texts]
    taken = shortest(texts, 1)
    nearest = [rouge_l(one, read[taken[0]]) for one in read]
    while len(taken) < min(most, len(texts)):
        left = [place for place in range(len(texts)) if place not in taken]
        taken.append(min(left, key=lambda place: (nearest[place], place)))
        last = read[taken[-1]]
        nearest = [max(now, rouge_l(one, last)) for now, one in zip(nearest, read, strict=True)]
    return taken
