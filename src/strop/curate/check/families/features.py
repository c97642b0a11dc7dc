"""Ways of writing that a classifier could tell the liked answer by, each one number of a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from strop.text.lengths import repeated_share
from strop.text.refusal import refuses

BEGINNING, END = 1_500, 200
"""Characters of an answer that its opening (or whether it refuses) and its end are told by."""
REPEATING = 0.3
"""Share of word triples that were said before from which a text repeats itself."""

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


@dataclass(frozen=True, slots=True)
class Look:
    """A text as the features read it: itself, in small letters, its different words, its lines
    without the space before them."""

    text: str
    small: str
    words: frozenset[str]
    lines: tuple[str, ...]

    @classmethod
    def at(cls, text: str) -> Look:
        small = text.lower().replace("\u2019", "'")
        lines = tuple(line.lstrip() for line in text.split("\n"))
        return cls(text, small, frozenset(_WORD.findall(small)), lines)


Feature = Callable[[Look], float]


def _opens(pattern: str) -> Feature:
    """1 where a text begins with the pattern (marks before it aside), else 0."""
    begins = re.compile(rf"[\s*_#>\"'`]*(?:{pattern})\b").match
    return lambda look: float(begins(look.small) is not None)


def _says(*words: str) -> Feature:
    """1 where one of these words stands in a text, else 0."""
    wanted = frozenset(words)
    return lambda look: float(not wanted.isdisjoint(look.words))


def _phrases(*phrases: str) -> Feature:
    """1 where one of these stands in a text, else 0."""
    return lambda look: float(any(phrase in look.small for phrase in phrases))


def _ends(*phrases: str) -> Feature:
    """1 where one of these stands in the last lines of a text, else 0."""
    return lambda look: float(any(phrase in look.small[-END:] for phrase in phrases))


def _holds(pattern: str) -> Feature:
    """1 where the pattern is found, else 0."""
    find = re.compile(pattern).search
    return lambda look: float(find(look.text) is not None)


def _lines(*marks: str) -> Feature:
    """How many lines begin with one of these."""
    return lambda look: float(sum(line.startswith(marks) for line in look.lines))


def _numbered(look: Look) -> float:
    """How many lines begin with a number of a list."""
    return float(sum(line[:1].isdigit() and _ITEM.match(line) is not None for line in look.lines))


def _as_an_ai(look: Look) -> float:
    if "as a" not in look.small:
        return 0.0
    return float(re.search(_AI, look.small) is not None)


def _unended(look: Look) -> float:
    """1 where a text breaks off: its last character ends no sentence, list, block or formula."""
    last = look.text.rstrip()[-1:]
    return float(last.isalpha() or last in (",", ";", "-", "("))


def _refusal(look: Look) -> float:
    return float(refuses(look.text[:BEGINNING]))


def _repetition(look: Look) -> float:
    return float(repeated_share(look.text[:BEGINNING], 3) > REPEATING)


_AI = re.compile(r"\bas an? (?:\w+ ){0,3}(?:ai|language model|assistant|chatbot)\b")
_ITEM = re.compile(r"\d{1,3}[.)] ")
_EMOJI = "[\u2600-\u27bf\U0001f300-\U0001faff]"

FEATURES: Mapping[str, Feature] = {
    "opens with Sure": _opens("sure|certainly|absolutely|of course|definitely|gladly"),
    "opens with praise": _opens(
        "(?:(?:what|that(?:'s| is)|this is) an? )?(?:great|good|excellent|wonderful|fantastic"
        "|interesting) (?:question|point|idea|choice)"
    ),
    "opens with Here is": _opens("here(?:'s| is| are)|below (?:is|are)"),
    "opens with a greeting": _opens("hello|hi|hey|dear|good (?:morning|evening|day)|greetings"),
    "opens with thanks": _opens("thanks|thank you"),
    "opens with yes or no": _opens("yes|no|yeah|yep|nope"),
    "opens with I": _opens("i(?:'m|'d|'ll|'ve)?"),
    "apology": _says(
        "sorry", "apologize", "apologise", "apologies", "apology", "unfortunately", "regret"
    ),
    "refusal": _refusal,
    "as an AI": _as_an_ai,
    "first person": _says(
        "i", "i'm", "i've", "i'd", "i'll", "my", "me", "mine", "myself"
    ),
    "hedging": _says(
        "perhaps", "maybe", "might", "possibly", "probably", "typically", "seems", "depends"
    ),
    "warning": _phrases(
        "important to", "please note", "keep in mind", "be aware", "consult a", "consult with"
    ),
    "offer at the end": _ends(
        "let me know", "feel free", "this helps", "that helps", "happy to help", "other questions",
        "further questions", "more questions", "anything else",
    ),
    "question at the end": lambda look: float(look.text.rstrip().endswith("?")),
    "breaks off": _unended,
    "exclamation mark": _phrases("! ", "!\n", "!!"),
    "emoji": _holds(_EMOJI),
    "heading": _lines("# ", "## ", "### ", "#### ", "##### "),
    "bold": _holds(r"\*\*[^*\n]+\*\*"),
    "bullets": _lines("- ", "* ", "\u2022 "),
    "numbered list": _numbered,
    "table": _lines("|"),
    "code block": _phrases("```"),
    "formula": _holds(r"\$[^$\n]+\$|\\\(|\\\[|\\boxed"),
    "link": _phrases("http://", "https://", "www."),
    "thought": _phrases("<think>", "</think>"),
    "paragraphs": lambda look: float(look.text.count("\n\n")),
    "repeats itself": _repetition,
}  # fmt: skip
"""Each a number of an answer; one whose higher side is the chosen one more often is a bias."""


def measured(text: str) -> list[float]:
    """Every feature of one text, in the order of the table."""
    look = Look.at(text)
    return [feature(look) for feature in FEATURES.values()]
