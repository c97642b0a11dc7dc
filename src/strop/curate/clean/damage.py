"""Texts that were decoded wrongly or cut: mended where the original is certain, else a fault.

The library ftfy (Speer 2019, doi 10.5281/zenodo.2591652) undoes mojibake only where the letters,
encoded back, are valid UTF-8. What is a matter of taste stays: quotation marks, ligatures, line
ends, the normal form of Unicode, HTML entities.
"""

from __future__ import annotations

import re

import ftfy
from ftfy.badness import is_bad

from strop.curate.clean.faults import Fault, Mended

_CERTAIN = ftfy.TextFixerConfig(
    unescape_html=False,
    replace_lossy_sequences=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    normalization=None,
)
_REPAIRS = {
    "remove_terminal_escapes": "terminal codes",
    "fix_c1_controls": "control characters",
    "fix_surrogates": "surrogates",
    "remove_control_chars": "control characters",
}
"""Steps of ftfy, as they are told; every other one undoes a wrong decoding."""
_SUSPECT = re.compile("[^\t\n\r\x20-\x7e]")
_LOST = re.compile("\ufffd")
_HALF = re.compile("[\ud800-\udfff]")
_REST = "mojibake"


def mended(text: str) -> Mended:
    """A text without the damage that can be undone for certain, and which kinds were undone.

    `mended("cafÃ©") == Mended("café", ("mojibake",))`. Pairs of surrogates become their character;
    control characters go, but tabs and line ends stay. Lines are mended one by one, since one file
    often mixes encodings.
    """
    if not _SUSPECT.search(text):
        return Mended(text, ())
    lines, repairs = [], dict[str, None]()
    for line in text.split("\n"):
        new, steps = _mended_line(line)
        lines.append(new)
        repairs |= dict.fromkeys(steps)
    return Mended("\n".join(lines), tuple(repairs))


def _mended_line(line: str) -> tuple[str, list[str]]:
    if not _SUSPECT.search(line):
        return line, []
    fixed = ftfy.fix_and_explain(line, _CERTAIN)
    if fixed.text == line:
        return line, []
    return fixed.text, [_REPAIRS.get(step.parameter, _REST) for step in fixed.explanation or ()]


def damaged(text: str) -> Fault | None:
    """The fault `damaged` of a text that is still broken after `mended`: characters that were lost
    (U+FFFD), halves of surrogate pairs, or letters that only a wrong decoding puts together."""
    signs = {
        "lost characters": len(_LOST.findall(text)),
        "halves of surrogate pairs": len(_HALF.findall(text)),
        "lines of mojibake": sum(map(is_bad, _lines(text))),
    }
    seen = [f"{count} {sign}" for sign, count in signs.items() if count]
    return Fault("damaged", ", ".join(seen)) if seen else None


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if _SUSPECT.search(line)]
