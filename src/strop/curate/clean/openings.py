"""Answers that open with boilerplate ("Sure! Here is the list:"), speak of themselves as an AI, or
refuse. A model learns such habits fastest of all, since every answer starts with them."""

from __future__ import annotations

import re

from strop.curate.clean.faults import Fault, Mended
from strop.text.refusal import refuses

_PHRASE = r"(?:[^.!?:\n]|[.:](?=\S)){0,200}?"
"""Up to the end of a sentence; `Node.js` and `10:30` end none."""
_ASSENT = (
    r"(?:sure(?: thing)?|certainly|of course|absolutely|definitely|gladly|okay|ok|alright|all right"
    r"|understood|got it|great|no problem|you got it|with pleasure|happy to help|glad to help"
    r"|(?:(?:that(?: is|'s)|what) )?(?:an? )?(?:great|good|excellent|interesting|fantastic"
    r"|wonderful|fascinating) (?:question|idea|choice|request)"
    rf"|(?:thank you|thanks) for (?:your|the|asking|sharing){_PHRASE}"
    r"|nat\u00fcrlich|gerne?|selbstverst\u00e4ndlich|klar|bien s\u00fbr|certainement|avec plaisir"
    r"|\u00a1?claro(?: que s\u00ed)?|\u00a1?por supuesto|con gusto)"
)
_OFFER = (
    r"(?:(?:i(?:'d| would) (?:be |love |like )|i(?:'m| am) (?:happy|glad|here|delighted|more than)"
    r"|i can (?:certainly |definitely |surely )?(?:help|assist|do that|provide|give)"
    rf"|i(?:'ll| will) (?:do|help|try|be) |let me (?:help|assist)|happy to |glad to )"
    rf"{_PHRASE}[.!:])"
)
_HERE = rf"(?:here(?: is|'s| are| you go| goes)|below (?:is|are)|hier (?:ist|sind)|voici){_PHRASE}"
_LEAD = rf"(?:{_HERE}[.!:])"
_OPENING = re.compile(
    rf"\s*(?:{_ASSENT}(?: ?[!.]+|,? ?-+)\s*(?:{_OFFER}\s*)?(?:{_LEAD}\s*)?"
    rf"|{_ASSENT}[,;]? (?:{_OFFER}\s*(?:{_LEAD}\s*)?|{_LEAD}\s*)"
    rf"|{_OFFER}\s*(?:{_LEAD}\s*)?|{_HERE}:[ \t]*\n\s*)",
    re.IGNORECASE,
)
"""Assent with an offer and a lead-in, or either alone; a lead-in alone has to end its line in a
colon, and `Certainly, cats sleep a lot` says something."""

_AI = re.compile(
    r"\bas an? (?:\w+[ -]){0,4}(?:ai|artificial intelligence|language model|chatbot)\b"
    r"|\bi(?:'m| am) (?:just |only |merely )?an? (?:\w+[ -]){0,4}(?:ai|language model|chatbot)\b"
    r"|\bmy (?:training data|knowledge cut-?off|last (?:knowledge )?update)\b"
    r"|\bi was (?:trained|created|developed) by (?:openai|anthropic|google|meta|microsoft|mistral)",
    re.IGNORECASE,
)
OPENING = 400
"""Characters in which an answer that speaks of itself does so."""


def without_opening(text: str) -> Mended:
    """An answer without its boilerplate opening.

    `without_opening("Sure, I can help with that: cats sleep.")` is
    `Mended("Cats sleep.", ("opening",))`; what begins a line of its own, such as code, keeps its
    first letter. An answer that says nothing else stays as it is, and so does a refusal.
    """
    match = _OPENING.match(_plain(text))
    if match is None or not match.group().strip():
        return Mended(text, ())
    rest = text[match.end() :]
    if not rest.strip() or refuses(text) or refuses(rest):
        return Mended(text, ())
    if not match.group().endswith("\n"):
        rest = rest[0].upper() + rest[1:]
    return Mended(rest, ("opening",))


def _plain(text: str) -> str:
    return text.replace("\u2019", "'")


def refused(text: str) -> Fault | None:
    """The fault `refusal` of an answer that declines (`text/refusal.py` says how it is told)."""
    return Fault("refusal", "the answer declines what was asked") if refuses(text) else None


def disclaimed(text: str) -> Fault | None:
    """The fault `disclaimer` of an answer that opens by speaking of itself as an AI: `As an AI
    language model, I have no feelings, but ...`."""
    if _AI.search(_plain(text[:OPENING])):
        return Fault("disclaimer", "the answer speaks of itself as an AI")
    return None
