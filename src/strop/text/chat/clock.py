"""The day that chat templates write, if they write one.

The day is a setting (`strop.recipe.template.DAY` unless a recipe names another), not today's date,
so that today's measurements compare with last month's.
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
    """The day that templates write."""
    return _today.get()


@contextmanager
def written_on(day: date) -> Iterator[None]:
    """Templates that are rendered inside the block write this day."""
    token = _today.set(day)
    try:
        yield
    finally:
        _today.reset(token)


def dated(template: str, day: date) -> str:
    """The template with a `strftime_now` that always returns midnight of this day.

    A template that does not use the time is returned unchanged.
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
