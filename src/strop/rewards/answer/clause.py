"""Reads the answer in a sentence: 72,000 in `The answer is $72,000, as shown.`"""

from __future__ import annotations

import re

SPAN = 400
"""Characters read after "answer is", so that no text takes long."""

STATEMENTS = 50
"""Statements that are tried, the last one first, until one is not a denial."""

_THINGS = r"(?:answers?|(?:correct|right)[ \t]+(?:option|choice))"
_NEEDED = ("answer", "option", "choice")
_VERBS = (
    r"(?:is|are|was|equals|becomes|comes[ \t]+to|(?:should|must|would|will)[ \t]+be)\b"
    r"(?!n['\u2019]t)"
)
_STATED = re.compile(
    rf"\b{_THINGS}\b"
    r"(?:[ \t]+(?:to|for|in|of)\b[^.\n:;=?!]{0,80}?|[ \t]*\([^()\n]{0,80}\))?"
    rf"(?:(?P<colon>[*_ \t]*:|[*_ \t]*$)|[*_]{{0,2}}[ \t]+{_VERBS}|[ \t]*="
    r"|[ \t]+(?P<denied>(?:is|are|was)n['\u2019]t|cannot|can['\u2019]t))",
    re.IGNORECASE | re.MULTILINE,
)
_SAID_BEFORE = re.compile(
    r"(?<![\w.,$-])(\$[^$\n]{1,99}\$|-?\$?\d[\d,./]{0,60}|[A-Z])(?:\*\*)?[ \t]+is[ \t]+"
    r"(?:the|our|my)[ \t]+(?:final[ \t]+|correct[ \t]+)?answer\b"
)
_WHOSE = r"(?:[ \t]+that)?(?:[ \t]+(?:the|our|my|your|his|her|this))?(?:[ \t]+(?:final|correct))?"
_SUPPOSED = re.compile(
    rf"\b(?:if|whether|suppose|assume|assuming|unless){_WHOSE}[ \t]*\Z", re.IGNORECASE
)
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:wrong|incorrect|false|untrue)(?:[ \t]+to[ \t]+(?:say|think))?"
    rf"(?:{_WHOSE})"
    r"|(?:\bnot|n['\u2019]t|\bnever|\bdoubt)(?:[ \t]+(?:think|believe|say|mean|true|sure|likely))?"
    rf"{_WHOSE})[ \t]*\Z",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"[\s*_]*(?:[a-z]+ly[ \t]+)?(?:not|never|neither|unlikely|wrong|incorrect)\b", re.IGNORECASE
)
_INSTEAD = re.compile(r"\b(?:but|rather)[ \t]+(?:rather[ \t]+)?(?!not\b)")
_LEAD = re.compile(
    r"(?:[\s:*_\"\u201c=~\u2248]+|\\approx(?![A-Za-z])"
    r"|(?:about|approximately|approx\.?|around|roughly|nearly|exactly|precisely|simply|just|"
    r"therefore|thus|then|now|clearly|indeed|actually|probably|likely|equal to|given by|"
    r"as follows|the following|given below|shown below|[Oo]ption|[Cc]hoice|the letter)"
    r"(?=[\s:$*]))+"
)
_TALK = re.compile(
    r"(?:let|let['\u2019]s|i|i['\u2019]\w+|we|first|well|okay|ok|sure|here|step|there|this)\b"
    r"(?!\s*=)",
    re.IGNORECASE,
)
_MATHS = re.compile(
    r"\$\$(?P<display>.{1,999}?)\$\$"
    r"|\$(?P<inline>[^\s$](?:[^$\n]{0,997}[^\s$])?|\s[^$\n]{1,997}\s)\$(?!\d)"
    r"|\\\((?P<round>.{1,999}?)\\\)|\\\[(?P<square>.{1,999}?)\\\]",
    re.DOTALL,
)
_BOLD = re.compile(r"\*\*(?=\S)([^*\n]{1,200})(?<=\S)\*\*")
_END = re.compile(
    r"\n|;|(?<!\bDr)(?<!\bMr)(?<!\bMs)(?<!\bMrs)(?<!\bSt)(?<!\bRs)(?<!\b[A-Z]\.[A-Z])(?<!\bapprox)(?<!\bvs)"
    r"(?<!\bi\.e)(?<!\be\.g)[.!?][*_\"'\u201d)$]*(?=\s|\Z)"
)
_NUMBER_FIRST = re.compile(r"(?:[A-Za-z][\w' ()]{0,30}=\s*)?[-+($\u20ac\u00a3\\]{0,3}\.?\d")
_REASONS = r"(?:because|since|which|given[ \t]+that|so[ \t]+that)"
_REMARKS = (
    r"(?:as|so|hence|thus|therefore|where|when|if|with|making|meaning|i\.e\.|that[ \t]+is|rounded|"
    r"in[ \t]+total|in[ \t]+all|altogether|overall|assuming|using|obtained|found|total)"
)
_AFTER_NUMBER = re.compile(rf"(?:,|,?\s+[(\u2013\u2014-]?)\s*(?:{_REASONS}|{_REMARKS})\b")
_AFTER_WORDS = re.compile(rf",?\s+{_REASONS}\b|,\s+{_REMARKS}\b")
_DETAIL = re.compile(
    r"\s+\(|,\s+[A-Za-z]|\s+(?:in|for|at|on|after|from|by|during)\s+[A-Za-z]|\s+[\u2013\u2014-]\s+[A-Za-z]"
)
_IS_VALUE = re.compile(r"\b(?:is|are|equals|gives|makes)[ \t]+(\$?[\d.,/$%\u20ac\u00a3-]{1,60})\Z")
_ANOTHER = r"\W{1,3}(?:\w+\W{1,3}){0,3}?(?:\d|\\|[A-Z]\b)"
_HEDGES = r"(?i:maybe|perhaps|possibly|alternatively|otherwise|either)"
_HEDGED = re.compile(rf"\b(?:{_HEDGES}\b|(?i:or|but){_ANOTHER})")
_OR_ELSE = re.compile(rf"\s*(?i:or|{_HEDGES}){_ANOTHER}")
_JOINED = re.compile(rf"\s*(?:,|,?\s*\b(?:(?i:or|and)|{_HEDGES}))(?:{_ANOTHER}|\s*\$)")


def answer_sentence(text: str) -> str | None:
    """The answer in the last sentence that names one: `"5"` for `"The answer is 5, in total."`.

    `""` if the text only denies answers; `None` if no sentence names an answer.
    """
    lowered = text.lower()
    if not any(word in lowered for word in _NEEDED):  # much faster than the search below
        return None
    denied = False
    for mark in reversed(list(_STATED.finditer(text))[-STATEMENTS:]):
        said = _statement(text, mark)
        if said:
            return said
        denied = denied or said is not None
    if denied:
        return ""
    before = list(_SAID_BEFORE.finditer(text))
    return before[-1][1].strip("$") if before else None


def _statement(text: str, mark: re.Match[str]) -> str | None:
    """What follows a mark: `""` for a denial, `None` for a question, a condition or small talk."""
    before = text[max(0, mark.start() - 60) : mark.start()]
    rest = text[mark.end() : mark.end() + SPAN]
    if _SUPPOSED.search(before):
        return None
    if mark["denied"] or _DENIED_BEFORE.search(before):
        return ""
    if _DENIED.match(rest):
        instead = _INSTEAD.search(_sentence(rest)[0])
        return clause(rest[instead.end() :]) or "" if instead else ""
    if mark["colon"] is not None and _TALK.match(rest[_led(rest) :]):
        return None
    return clause(rest) or None


def clause(rest: str) -> str | None:
    """The answer at the start of a text: `clause("about 15.") == "15"`. `None` for a question.

    Explanations and decoration are cut off. Several answers, as in `12, or maybe 13`, are all kept;
    such a list equals no single answer.
    """
    rest = _BOLD.sub(r"\1", rest)
    rest = rest[_led(rest) :]
    maths = _MATHS.match(rest)
    if maths and not _JOINED.match(rest, maths.end()):
        return str(maths[maths.lastgroup or 0]).strip()
    said, end, after = _sentence(rest)
    if end.startswith("?"):
        return None
    if _OR_ELSE.match(after):
        return f"{said}, {after.strip()}"
    if maths:
        return said.replace("$", "").strip()
    return _bare(_shortened(said))


def _led(rest: str) -> int:
    """Where the answer starts, after spaces, stars and words such as "about"."""
    lead = _LEAD.match(rest)
    return lead.end() if lead else 0


def _sentence(rest: str) -> tuple[str, str, str]:
    """A text's first sentence, the punctuation mark that ends it, and the rest."""
    end = _END.search(rest)
    return (rest[: end.start()], end[0], rest[end.end() :]) if end else (rest, "", "")


def _shortened(said: str) -> str:
    """A clause without reasons and remarks, unless they hold another answer."""
    number_first = _NUMBER_FIRST.match(said)
    if not number_first and not _HEDGED.search(said):
        value = _IS_VALUE.search(said)  # the number of apples, which is 72
        if value:
            return value[1]
    cut = (_AFTER_NUMBER if number_first else _AFTER_WORDS).search(said)
    if cut and cut.start() and not _HEDGED.search(said, cut.start()):
        said = said[: cut.start()]
    detail = _DETAIL.search(said) if number_first else None
    if detail and not re.search(r"\d|\\", said[detail.start() :]) and not _HEDGED.search(said):
        said = said[: detail.start()]
    return said


def _bare(said: str) -> str:
    return said.strip().strip("*_\"'\u201c\u201d,:` \t").strip()
