"""Ways of writing that a classifier could tell the liked answer by, each one number of a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from strop.text.lengths import repeated_share
from strop.text.refusal import refuses

OPENING = 60
"""Characters of an answer that its opening is told by."""


def _holds(pattern: str, flags: int = re.IGNORECASE) -> Callable[[str], float]:
    """1 where the pattern is found, else 0."""
    find = re.compile(pattern, flags).search
    return lambda text: float(find(text) is not None)


def _opens(pattern: str) -> Callable[[str], float]:
    """1 where a text begins with the pattern (marks before it aside), else 0."""
    begins = re.compile(rf"[\s*_#>\"'`]*(?:{pattern})\b", re.IGNORECASE).match
    return lambda text: float(begins(text[:OPENING]) is not None)


def _counts(pattern: str, flags: int = re.MULTILINE) -> Callable[[str], float]:
    """How often the pattern is found."""
    find = re.compile(pattern, flags).findall
    return lambda text: float(len(find(text)))


def _unended(text: str) -> float:
    """1 where a text breaks off: its last character ends no sentence, list, block or formula."""
    last = text.rstrip()[-1:]
    return float(last.isalpha() or last in ",;-(")


def _refusal(text: str) -> float:
    return float(refuses(text))


def _repetition(text: str) -> float:
    return float(repeated_share(text[:4000], 3) > 0.3)


_EMOJI = "[\u2600-\u27bf\U0001f300-\U0001faff]"

FEATURES: Mapping[str, Callable[[str], float]] = {
    "opens with Sure": _opens(r"sure|certainly|absolutely|of course|definitely|gladly"),
    "opens with praise": _opens(
        r"(?:(?:what|that(?:'s| is)|this is) an? )?(?:great|good|excellent|wonderful|fantastic"
        r"|interesting) (?:question|point|idea|choice)"
    ),
    "opens with Here is": _opens(r"here(?:'s|\u2019s| is| are)|below (?:is|are)"),
    "opens with a greeting": _opens(r"hello|hi|hey|dear|good (?:morning|evening|day)|greetings"),
    "opens with thanks": _opens(r"thanks|thank you"),
    "opens with yes or no": _opens(r"yes|no|yeah|yep|nope"),
    "opens with I": _opens(r"i(?:'m|'d|'ll|'ve)?"),
    "apology": _holds(r"\b(?:sorry|apologi[sz]e|apologies|unfortunately|regret)\b"),
    "refusal": _refusal,
    "as an AI": _holds(r"\bas an? (?:\w+ ){0,3}(?:ai|language model|assistant|chatbot)\b"),
    "first person": _holds(r"\b(?:i|i'm|i've|i'd|i'll|my|me|mine|myself)\b"),
    "hedging": _holds(
        r"\b(?:perhaps|maybe|might|possibly|probably|it depends|in general|typically|it seems)\b"
    ),
    "warning": _holds(
        r"\b(?:it(?:'s| is) important to|please note|keep in mind|be aware|consult (?:a|an|with))\b"
    ),
    "offer at the end": _holds(
        r"(?:let me know|feel free|hope (?:this|that) helps|happy to help|any (?:other|further"
        r"|more) questions|anything else)[^\n]{0,120}\s*\Z"
    ),
    "question at the end": _holds(r"\?\s*\Z"),
    "breaks off": _unended,
    "exclamation mark": _holds(r"!(?!=)"),
    "emoji": _holds(_EMOJI),
    "heading": _holds(r"^\s{0,3}#{1,6} ", re.MULTILINE),
    "bold": _holds(r"\*\*[^*\n]+\*\*"),
    "bullets": _counts(r"^\s*[-*\u2022] "),
    "numbered list": _counts(r"^\s*\d{1,3}[.)] "),
    "table": _holds(r"^\s*\|.+\|\s*$", re.MULTILINE),
    "code block": _holds(r"```"),
    "formula": _holds(r"\$[^$\n]+\$|\\\(|\\\[|\\boxed"),
    "link": _holds(r"https?://|\bwww\."),
    "thought": _holds(r"</?think>"),
    "paragraphs": _counts(r"\n\s*\n"),
    "repeats itself": _repetition,
}
"""Each a number of an answer; one whose higher side is the chosen one more often is a bias."""
