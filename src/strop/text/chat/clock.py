"""The day that chat templates write, where they write one.

The day is a setting (`strop.recipe.template.DAY` unless a recipe names another), not the
calendar's: what is measured today compares with what was measured last month.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime, time
from string import ascii_letters

from strop.recipe.template import DAY

_today: ContextVar[date] = ContextVar("today", default=DAY)


def today() -> date:
    """The day that a template is told."""
    return _today.get()


@contextmanager
def written_on(day: date) -> Iterator[None]:
    """Everything that is rendered inside is told this day."""
    token = _today.set(day)
    try:
        yield
    finally:
        _today.reset(token)


def dated(template: str, day: date) -> str:
    """The template with a `strftime_now` that knows this day alone, at midnight.

    A template that does not ask for the time is returned as it is.
    """
    if "strftime_now" not in template:
        return template
    moment = datetime.combine(day, time())
    known = {f"%{d}": moment.strftime(f"%{d}") for d in ascii_letters}
    known |= {f"%-{d}": moment.strftime(f"%-{d}") for d in "dmHIMSjy"}
    known["%%"] = "%"  # after all others
    replaced = "".join(f".replace({mark!r}, {text!r})" for mark, text in known.items())
    macro = "{%- macro strftime_now(format) -%}{{ format" + replaced + " }}{%- endmacro +%}"
    return macro + template
