"""A check as a stage of a pipeline: its findings in a folder, and a stop where they are too bad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.curate.check.families.likeness import Ches
from strop.curate.check.families.rendering import Rendering
from strop.curate.check.finding import SEVERITIES
from strop.curate.check.hidden_states import ches_of
from strop.curate.check.run import Asked, Report, check
from strop.curate.check.show.page import report_page
from strop.curate.check.stand_in import byte_tokenizer
from strop.curate.manifest import sources_of, writing_records
from strop.data.bad_rows import MAX_BAD
from strop.errors import DataError
from strop.files import write_json, write_whole
from strop.model.load import load_for_inference, load_tokenizer, positions_of
from strop.recipe.curate import CheckSettings
from strop.recipe.template import TemplateRecipe
from strop.recipe.train.data import DataSource

PAGE, REPORT = "check.html", "check.json"


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """What a stage says of its check: `CheckOutcome(report)`."""

    report: Report

    def plain(self) -> dict[str, Any]:
        return self.report.plain()

    @property
    def sentence(self) -> str:
        """`"2 warn, 1 info: length_bias, ..."`."""
        found = self.report.findings
        counts = [(sum(one.severity == s for one in found), s) for s in reversed(SEVERITIES)]
        told = ", ".join(f"{count} {severity}" for count, severity in counts if count)
        return f"{told}: {', '.join(one.code for one in found)}" if found else "no findings"


def check_stage(
    inputs: Sequence[DataSource],
    output: Path | None,
    settings: CheckSettings,
    *,
    overwrite: bool = False,
) -> CheckOutcome:
    """Check the inputs, and write `check.html` and `check.json` into the folder `output`.

    Raises `DataError` after writing where a finding is as severe as `settings.fail_on`.
    """
    rendering, ches = readers(settings)
    allowed = {source.max_bad for source in inputs if source.max_bad is not None}
    asked = Asked(
        sources=inputs,
        eval_sources=sources_of([Path(path) for path in settings.eval]),
        annotators=settings.annotators,
        scale=settings.scale,
        max_bad=min(allowed, default=MAX_BAD),
        rendering=rendering,
        ches=ches,
    )
    outcome = CheckOutcome(check(asked))
    given = settings.plain()
    with writing_records(output, "check", inputs, given, overwrite=overwrite) as written:
        if written.folder is not None:
            write_json(written.folder / REPORT, outcome.plain())
            write_whole(written.folder / PAGE, report_page(outcome.report))
    if outcome.report.fails(settings.fail_on):
        raise DataError(
            f"the check found {outcome.sentence}",
            where=str(output or ", ".join(source.name for source in inputs)),
            fix=f"read {PAGE} there: every finding says what to do",
        )
    return outcome


def readers(settings: CheckSettings) -> tuple[Rendering | None, Ches | None]:
    """What renders the rows, and what gives CHES of pairs; neither without a tokenizer, a model or
    a template. A template alone is written in bytes."""
    template = TemplateRecipe(chat_template=settings.template)
    most, preview = settings.max_length, settings.preview
    if settings.model is not None:
        policy = load_for_inference(settings.model, template)
        most = min(most, positions_of(policy.model.config) or most)
        return (
            Rendering(policy.tokenizer, most, True, preview),
            lambda pairs: ches_of(policy, pairs, most),
        )
    if settings.tokenizer is not None:
        tokenizer = load_tokenizer(settings.tokenizer, template=template)
        return Rendering(tokenizer, most, True, preview), None
    if settings.template is not None:
        return Rendering(byte_tokenizer(settings.template), most, False, preview), None
    return None, None
