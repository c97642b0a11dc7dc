"""The words in which an engine is asked for data: strop's own templates, or a user's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from strop.text.templates import PromptTemplate, read_template

FILES = Path(__file__).parent / "files"

NEEDED: Mapping[str, tuple[str, ...]] = {
    "self_instruct": ("instructions",),
    "think": ("prompt",),
    "critique": ("prompt", "answer", "principle"),
    "revision": ("prompt", "answer", "critique", "principle"),
}
"""What each template has to show."""
GIVEN: Mapping[str, tuple[str, ...]] = {**NEEDED, "self_instruct": ("instructions", "asked")}
"""What each template may show."""


def template_of(name: str, own: str | None = None) -> PromptTemplate:
    """A template by name, from the user's `own` file where there is one."""
    path = FILES / f"{name}.txt" if own is None else Path(own)
    return read_template(name, path, needed=NEEDED[name], given=GIVEN[name])
