"""How long prompts and answers are, in characters and words."""

from __future__ import annotations

from collections.abc import Sequence

from strop.curate.check.finding import Section
from strop.curate.check.ledger import answers_of, asks, prompt_of, said
from strop.curate.check.survey import Survey, quantiles

AT = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Shares of the order at which lengths are shown."""


def sizes(survey: Survey) -> Section:
    """Quantiles of the sampled prompts and answers."""
    records = survey.sample.records()
    asked = [asks(prompt_of(record)) for record in records]
    answers = [said(answer) for record in records for answer in answers_of(record)]
    return Section("sizes", {"quantiles": AT, "prompt": _of(asked), "answer": _of(answers)})


def _of(texts: Sequence[str]) -> dict[str, list[float]]:
    return {
        "characters": quantiles([len(text) for text in texts], AT),
        "words": quantiles([len(text.split()) for text in texts], AT),
    }
