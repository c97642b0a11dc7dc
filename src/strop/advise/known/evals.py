"""What evals say: the score and its gap to the target, what is sampled, what sampling more would
do."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from strop.errors import DataError, MissingEvidenceError, UsageError
from strop.evals.decode.estimators import pass_at
from strop.evals.folders import kind_of
from strop.evals.records import read_records
from strop.evals.summary import read_summary
from strop.files import read_text
from strop.model.load import weights_hash
from strop.stats.clustered import MeanEstimate, number_clusters
from strop.stats.share import Share, share
from strop.types import EvalRecord

K = 8
"""Answers an item of `pass_k`, or as many as there are."""
FORM = ("format", "format_tags", "schema", "json_schema", "parsed", "regex", "well_formed")
"""Last parts of the names of scores that say whether an answer has the wanted form."""
ENOUGH = 0.05
"""Two-sided level of the interval of the gap."""


@dataclass(frozen=True, slots=True)
class Target:
    """`Target("greedy/accuracy", 0.9)`: a score and the value that it is to reach."""

    score: str
    value: float


def read_target(text: str) -> Target:
    """`"greedy/accuracy=0.9"`; raises `UsageError` for anything else."""
    name, found, value = text.rpartition("=")
    try:
        if not found or not name.strip() or not math.isfinite(float(value)):
            raise ValueError
        return Target(name.strip(), float(value))
    except ValueError:
        raise UsageError(f"--target {text} is not SCORE=VALUE",
                         fix="write it as in --target greedy/accuracy=0.9") from None  # fmt: skip


@dataclass(frozen=True, slots=True)
class KnownEval:
    """Facts by name, and the name of the score they are of."""

    facts: Mapping[str, Any]
    score: str | None


def read_eval(
    folder: Path, target: Target | None, golds: Mapping[str, str] | None = None
) -> KnownEval:
    """The facts of one eval folder. `golds` are the right answers of prompts, where data has them.

    Raises `UsageError` for a target that the eval does not measure, `DataError` and
    `MissingEvidenceError` for a folder that holds no eval.
    """
    records = read_records(folder)
    summary = read_summary(folder) or {}
    by_score: dict[str, list[EvalRecord]] = {}
    for record in records:
        by_score.setdefault(record.task, []).append(record)
    name = _chosen(by_score, target, folder)
    facts: dict[str, Any] = {"evaluated": True}
    if name is None:
        return KnownEval(facts, None)
    mine = [one for one in by_score[name] if one.score is not None]
    if not mine:
        raise MissingEvidenceError(f"no item of {name} has a score", where=str(folder),
                                   fix="read its records, and run the eval again")  # fmt: skip
    facts |= _score(mine, target)
    if not _has_samples(mine):
        facts["greedy"] = facts["score"]
    sampled = _sampled_beside(by_score, name)
    facts |= _pass(sampled) if sampled else {}
    task = (sampled or mine)[0].task.split("/")[0]
    figures = summary.get("figures", {}).get(task, {})
    facts["entropy"] = figures.get("entropy")
    facts["unformatted"] = _unformatted(by_score, task, name, figures)
    facts["gold_in_wrong"] = _gold_in_wrong(sampled or mine, golds or {})
    return KnownEval(facts, name)


def expect_same_model(folder: Path, model: Path) -> None:
    """Raise `UsageError` where an eval says that it is of other weights than the model's."""
    measured = (read_summary(folder) or {}).get("model") or {}
    known = measured.get("sha256")
    if known is not None and known != weights_hash(model):
        raise UsageError(
            f"the eval is of another model: {measured.get('path')}",
            where=str(folder),
            fix=f"run the suite on {model}, or name that model as --model",
        )


def read_prompted(folder: Path, target: Target | None) -> dict[str, Any]:
    """The gap that another prompt leaves."""
    if target is None:
        raise UsageError("--prompted says nothing without a target",
                         fix="add --target SCORE=VALUE")  # fmt: skip
    return {"prompted_gap": read_eval(folder, target).facts["gap"]}


def read_decoding(folder: Path, target: Target | None) -> dict[str, Any]:
    """The fewest answers of the base from which a vote or a rule that knows no gold meets the
    target; 1,000,000 where none does. Raises `UsageError` for another folder."""
    path = folder / "decode.json"
    if not path.exists():
        raise UsageError(
            f"--decode wants a decoding study, and this is {kind_of(folder)}",
            where=str(folder),
            fix="name a folder that strop eval decode wrote (--output)",
        )
    if target is None:
        return {}
    rows = json.loads(read_text(path, DataError))["rows"]
    enough = [
        row["k"] for row in rows
        if row["model"] == "base" and row["method"] in ("maj", "best") and row["k"] > 1
        and row["accuracy"] >= target.value
    ]  # fmt: skip
    return {"sampling_k": min(enough, default=1_000_000)}


def _chosen(
    by_score: Mapping[str, Sequence[EvalRecord]], target: Target | None, folder: Path
) -> str | None:
    """The score that counts: the target's, or the only one that is a share; `None` for several."""
    good = [name for name in by_score if not name.startswith("drift/")]
    shares = [
        name for name in good if all(0 <= (one.score or 0.0) <= 1 for one in by_score[name])
    ]  # fmt: skip
    if target is not None:
        if target.score not in good:
            raise UsageError(f"the eval has no score {target.score}", where=str(folder),
                             fix=f"name one of: {', '.join(good)}")  # fmt: skip
        if target.score in shares and not 0 <= target.value <= 1:
            raise UsageError(f"{target.score} is a share, and {target.value:g} is none",
                             fix="give a target from 0 to 1")  # fmt: skip
        return target.score
    return shares[0] if len(shares) == 1 else None


def _score(records: Sequence[EvalRecord], target: Target | None) -> dict[str, Any]:
    values = [float(record.score or 0.0) for record in records]
    clusters = [record.cluster for record in records]
    interval = _interval(values, clusters)
    facts: dict[str, Any] = {"score": interval.mean, "items": len(set(clusters))}
    if target is None:
        return facts
    short = target.value - interval.mean
    return {
        **facts,
        "target": target.value,
        "gap": short,
        "gap_low": target.value - interval.high,
        "gap_high": target.value - interval.low,
        "items_needed": _needed(values, clusters, target.value) if short > 0 else None,
    }


def _interval(values: Sequence[float], clusters: Sequence[str]) -> Share:
    if all(0 <= value <= 1 for value in values):
        return share(values, clusters)
    index = number_clusters(clusters)
    if index.max() == 0:
        return Share(float(np.mean(values)), -float("inf"), float("inf"))
    mean = MeanEstimate.of(np.asarray(values), index)
    return Share(mean.estimate, *mean.interval(ENOUGH))


def _needed(values: Sequence[float], clusters: Sequence[str], target: float) -> int | None:
    """Items from which a gap of this size shows with 80 % power."""
    index = number_clusters(clusters)
    if index.max() == 0 or np.ptp(values) == 0:
        return None
    short = MeanEstimate.of(target - np.asarray(values), index)
    return short.needed(0.0, ENOUGH)


def _has_samples(records: Sequence[EvalRecord]) -> bool:
    """Whether every item was answered more than once."""
    counts = Counter(record.item for record in records)
    return min(counts.values()) > 1


def _sampled_beside(
    by_score: Mapping[str, Sequence[EvalRecord]], name: str
) -> Sequence[EvalRecord] | None:
    """The records with several answers an item: of this score, or of the same score of another task
    (`sampled/accuracy` beside `greedy/accuracy`)."""
    last = name.rsplit("/", 1)[-1]
    same = [name, *(other for other in by_score if other.rsplit("/", 1)[-1] == last)]
    kept = ([one for one in by_score[other] if one.score is not None] for other in same)
    return next((records for records in kept if records and _has_samples(records)), None)


def _pass(records: Sequence[EvalRecord]) -> dict[str, Any]:
    """`pass_1` and `pass_k`, an answer being right at a score of 1."""
    by_item: dict[str, list[bool]] = {}
    for record in records:
        by_item.setdefault(record.item, []).append((record.score or 0.0) >= 1.0)
    rows = list(by_item.values())
    k = min(K, *map(len, rows)) if len(rows) > 1 else min(K, len(rows[0]))
    return {
        "pass_1": sum(sum(row) / len(row) for row in rows) / len(rows),
        "pass_k": sum(pass_at(row, k) for row in rows) / len(rows),
        "k": k,
    }


def _unformatted(
    by_score: Mapping[str, Sequence[EvalRecord]],
    task: str,
    name: str,
    figures: Mapping[str, float],
) -> float | None:
    """The share of answers without the wanted form, where the same task measures it; else of those
    that were cut or are empty; `None` where no answers were kept."""
    for other, records in by_score.items():
        if other != name and other.startswith(f"{task}/") and other.rsplit("/", 1)[1] in FORM:
            values = [record.score for record in records if record.score is not None]
            return 1 - sum(values) / len(values) if values else None
    if "finished" in figures:
        return 1 - min(figures["finished"], figures.get("answered", 1.0))
    outputs = [record.output for record in by_score[name]]
    return sum(not text.strip() for text in outputs) / len(outputs) if any(outputs) else None


def _gold_in_wrong(records: Sequence[EvalRecord], golds: Mapping[str, str]) -> float | None:
    """The share of wrong answers that hold the right one as words of their own; an item whose
    prompt holds it says nothing."""
    wrong = [
        one for one in records
        if (one.score or 0.0) < 1.0 and one.prompt in golds
        and not _holds(one.prompt, golds[one.prompt])
    ]  # fmt: skip
    if not wrong:
        return None
    return sum(_holds(one.output, golds[one.prompt]) for one in wrong) / len(wrong)


def _holds(text: str, gold: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(gold)}(?!\w)", text, re.IGNORECASE) is not None
