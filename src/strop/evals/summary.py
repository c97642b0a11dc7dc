"""`summary.json` of an eval: the suite, the model, the scores, and overlap with training data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from strop.data.json_text import parsed
from strop.engines.build import FolderEngine
from strop.engines.engine import Engine
from strop.errors import DataError
from strop.evals.inputs import suite_hash
from strop.evals.jobs import Job
from strop.evals.judges import judges_of
from strop.evals.overlap import check_overlap
from strop.files import SHORT, read_text, sha256_hex
from strop.model.load import weights_hash
from strop.recipe.suite import Suite
from strop.registry.lineage import ancestry, parents_of
from strop.text.render import prompt_texts
from strop.types import EvalRecord

SUMMARY = "summary.json"


class Seen(TypedDict):
    """`{"task": "greedy", "of": 400, "items": [{"item": "7", "where": "sft.jsonl:3"}]}`."""

    task: str
    of: int
    items: list[dict[str, Any]]


class Measured(TypedDict, total=False):
    """The keys of a summary that the gate reads, with their types; other keys are kept as they
    are."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    suite: str
    suite_sha256: str | None
    sealed: bool
    model: dict[str, Any] | None
    reference: dict[str, Any] | None
    overlap: list[Seen]
    not_compared: dict[str, str]
    prompts: dict[str, str]
    judges: dict[str, dict[str, Any]]


READ = TypeAdapter(Measured)


def summary_of(
    suite: Suite, engine: Engine, reference: str | None, jobs: Sequence[Job]
) -> dict[str, Any]:
    """The part of a summary that is known before the engine answers."""
    against = {"path": reference, "sha256": weights_hash(reference)} if reference else None
    return {
        "suite": suite.name,
        "suite_sha256": suite_hash(suite),
        "sealed": suite.sealed,
        "model": dict(engine.identity()),
        "reference": against,
        "judges": judges_of(suite),
        **_overlap(jobs, engine),
    }


def prompts_of(engine: Engine, jobs: Sequence[Job]) -> dict[str, str]:
    """A hash of every task's prompts as the model read them, template and date included:
    `{"greedy": "3f1c..."}`. Empty if the engine renders the prompts elsewhere."""
    if not isinstance(engine, FolderEngine):
        return {}
    tokenizer = engine.tokenizer()
    found = {}
    for job in (job for job in jobs if job.items):
        texts = prompt_texts(tokenizer, job.items)
        found[job.name] = sha256_hex(json.dumps(texts), SHORT)
    return found


def counts(records: Sequence[EvalRecord], names: Sequence[str]) -> dict[str, dict[str, int]]:
    """`{"greedy/accuracy": {"items": 400, "unscored": 0}}`."""
    found = {name: {"items": 0, "unscored": 0} for name in names}
    for record in records:
        if record.task in found:
            found[record.task]["items"] += 1
            found[record.task]["unscored"] += record.score is None
    return found


def read_summary(folder: str | Path) -> dict[str, Any] | None:
    """`summary.json` of an eval folder; `None` for a plain file of scores."""
    path = Path(folder) / SUMMARY
    if not path.exists():
        return None
    again = "run `strop eval` again"
    try:
        found = parsed(read_text(path, DataError), str(path), fix=again)
        return dict(READ.validate_python(found, strict=True))
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(map(str, wrong["loc"]))
        raise DataError(f"not the summary of an eval: {place}: {wrong['msg']}",
                        where=str(path), fix=again) from None  # fmt: skip


def _overlap(jobs: Sequence[Job], engine: Engine) -> dict[str, Any]:
    """Items of the suite that the model or an ancestor was trained on, and training data that could
    not be compared."""
    lineage = ancestry(engine.path) if isinstance(engine, FolderEngine) else {}
    found: list[dict[str, Any]] = []
    unknown: dict[str, str] = {}
    for job in (job for job in jobs if job.items and parents_of(lineage)):
        report = check_overlap(job.items, lineage, job.told_by)
        unknown |= report.unknown
        seen = [{"item": one.item, "where": one.training[0]} for one in report.found]
        found.append({"task": job.name, "of": len(job.items), "items": seen})
    return {"overlap": found, "not_compared": unknown}
