"""Texts in a language that nobody asked for."""

from __future__ import annotations

from collections.abc import Collection

from strop.curate.clean.faults import Fault
from strop.errors import UsageError
from strop.text.language import SHORTEST, known_languages, ranking

UNLIKELY, LIKELY = 0.05, 0.5
"""Below the one for all wanted languages together, and from the other on for a different one, a
text counts as foreign. In between nobody can tell: lists of names, tables, single words."""


def foreign(text: str, wanted: Collection[str], *, shortest: int = SHORTEST) -> Fault | None:
    """The fault `language` where a text is in none of the `wanted` languages (ISO 639-1 codes).

    `foreign("Ja, ich kann Deutsch sprechen.", ["en"])` is `Fault("language", "de, not en")`. Code
    blocks, formulas and tags are left out before looking; fewer than `shortest` letters are no
    fault. Raises `UsageError` for a code that is not known.
    """
    if unknown := sorted(set(wanted) - known_languages()):
        raise UsageError(
            f"unknown language {', '.join(unknown)}", fix="write ISO 639-1 codes, such as en or de"
        )
    ranked = ranking(text, shortest=shortest)
    if not ranked or ranked[0][0] in wanted or ranked[0][1] < LIKELY:
        return None
    share = sum(likely for code, likely in ranked if code in wanted)
    if share >= UNLIKELY:
        return None
    return Fault("language", f"{ranked[0][0]}, not {' or '.join(sorted(wanted))}")
