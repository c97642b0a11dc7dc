"""Reads lm-eval's logs of every document (`--log_samples`) as records for the gate."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from strop.data.items import slices_of
from strop.data.json_text import parsed
from strop.data.sources import rows
from strop.errors import DataError
from strop.files import read_text
from strop.types import EvalRecord, Origin, Task

SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl")
"""`samples_arc_easy_2025-07-01T10-00-00.123456.jsonl`."""

LOGPROBS = {
    "perplexity": "logprob",
    "word_perplexity": "logprob_per_word",
    "byte_perplexity": "logprob_per_byte",
    "bits_per_byte": "logprob_per_byte",
}
"""Perplexities are computed from the log-prob (nats) of every document; that is the per-item
score."""

Higher = Mapping[str, bool | None]
"""Whether more of a metric is better: `{"acc": True, "wer": False}`."""


def holds_log_samples(path: str | Path) -> bool:
    """Whether a path is a file that `--log_samples` wrote, or a folder that holds some."""
    return bool(_sample_files(Path(path)))


def read_log_samples(path: str | Path) -> list[EvalRecord]:
    """The records of an `--output_path` of lm-eval (of the latest run of each task), or of one
    `samples_<task>_<date>.jsonl`.

    Scores are `<task>/<metric>`, or `<task>/<metric>,<filter>` for a filter with a name. Whether a
    higher metric is better is read from the `results_<date>.json` beside the samples. Raises
    `DataError` for samples of several models, and if that file is missing.
    """
    latest: dict[str, Path] = {}
    for file in _sample_files(Path(path)):
        latest[_named(file)["task"]] = file
    if not latest:
        raise DataError(
            "no lm-eval samples are here (samples_<task>_<date>.jsonl)", where=str(path),
            fix="run lm_eval with --log_samples --output_path",
        )  # fmt: skip
    folders = sorted({str(file.parent) for file in latest.values()})
    if len(folders) > 1:
        raise DataError(
            f"the folder holds samples of several models: {', '.join(folders)}", where=str(path),
            fix="give the folder of one model",
        )  # fmt: skip
    return [record for task, file in latest.items() for record in _records_of_file(task, file)]


def sample_records(
    name: str,
    sample: Mapping[str, Any],
    higher: Higher,
    origin: Origin,
    slices: Sequence[str] = (),
) -> Iterator[EvalRecord]:
    """The records of one logged document under one filter.

    A metric that lm-eval computes from all documents at once (F1, BLEU) has no per-item score and
    is left out. A metric that is better when lower is negated and named `neg_<metric>`.
    """
    if "doc_id" not in sample or not isinstance(sample.get("metrics"), list):
        raise DataError("the row has no doc_id or no list of metrics", where=str(origin),
                        fix="lm-eval from 0.4.8 on writes them with --log_samples")  # fmt: skip
    doc = sample.get("doc")
    # two versions of a data set share their doc_ids, but not their documents' hashes
    item = "-".join(str(sample[k])[:12] for k in ("doc_id", "doc_hash") if k in sample)
    prompt, output = _asked_and_said(sample)
    groups = Task("", doc if isinstance(doc, dict) else {}, origin)
    variant = sample.get("filter", "none")
    suffix = "" if variant == "none" else f",{variant}"
    for metric, score in _scores(sample, higher, str(origin)).items():
        yield EvalRecord(
            task=f"{name}/{metric}{suffix}",
            item=item,
            score=score if math.isfinite(score) else None,
            cluster=item,
            prompt=prompt,
            output=output,
            slices=slices_of(groups, slices),
        )


def _asked_and_said(sample: Mapping[str, Any]) -> tuple[str, str]:
    """The prompt, and the answer where one was written (a request that comes with settings)."""
    requests = sample.get("arguments") or [()]
    first = _listed(_listed(requests)[0])
    prompt = first[0] if first and isinstance(first[0], str) else ""
    if len(first) < 2 or not isinstance(first[1], Mapping):
        return prompt, ""
    return prompt, str((sample.get("filtered_resps") or [""])[0])


def _listed(values: Any) -> list[Any]:
    """A list, which a file of lm-eval holds as `{"gen_args_0": ..., "gen_args_1": ...}`."""
    return list(values.values() if isinstance(values, Mapping) else values)


def _scores(sample: Mapping[str, Any], higher: Higher, where: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for metric in sample["metrics"]:
        value = sample.get(metric)
        if metric in LOGPROBS:
            found[LOGPROBS[metric]] = _per_unit(value)
        elif isinstance(value, Real):
            better = higher.get(metric)
            if better is None:
                raise DataError(
                    f"nothing says whether more {metric} is better", where=where,
                    fix="set higher_is_better for it in the task's YAML (lm-eval writes it into "
                    "results_<date>.json)",
                )  # fmt: skip
            found[metric if better else f"neg_{metric}"] = float(value) if better else -float(value)
    return found


def _per_unit(value: Any) -> float:
    """A log-prob, or the mean of (log-prob, words or bytes)."""
    if isinstance(value, list | tuple):
        logprob, units = value
        return float(logprob) / float(units)
    return float(value)


def _records_of_file(task: str, file: Path) -> list[EvalRecord]:
    higher = _directions(file).get(task, {})
    records: list[EvalRecord] = []
    for row, origin in rows(file):
        try:
            records += sample_records(task, row, higher, origin)
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise DataError(f"not as lm-eval logs a document ({error!r})", where=str(origin),
                            fix="run lm_eval again with --log_samples") from None  # fmt: skip
    if not records:
        raise DataError(
            "no metric of these samples has a score for each document", where=str(file),
            fix="gate on another task; F1, BLEU and their like exist for a whole set only",
        )  # fmt: skip
    return records


def _directions(file: Path) -> Mapping[str, Higher]:
    """`higher_is_better` of the run that wrote these samples."""
    date = _named(file)["date"]
    results = sorted(file.parent.glob(f"*_{date}.json"))
    if not results:
        raise DataError(
            f"results_{date}.json is not beside the samples, so nothing says which way a metric "
            "counts",
            where=str(file),
            fix="copy it there; lm_eval wrote it in the same run",
        )
    text = read_text(results[0], DataError)
    found = parsed(text, str(results[0]), fix="copy the file that lm_eval wrote")
    directions = found.get("higher_is_better") if isinstance(found, dict) else None
    if not isinstance(directions, dict) or not all(
        isinstance(ways, dict) for ways in directions.values()
    ):
        raise DataError("the file has no higher_is_better", where=str(results[0]),
                        fix="run the tasks again with lm-eval 0.4.3 or later")  # fmt: skip
    return directions


def _sample_files(path: Path) -> list[Path]:
    """Oldest first."""
    if path.is_file():
        return [path] if SAMPLES.fullmatch(path.name) else []
    found = [file for file in path.rglob("samples_*.jsonl") if SAMPLES.fullmatch(file.name)]
    return sorted(found, key=lambda file: _named(file)["date"])


def _named(file: Path) -> re.Match[str]:
    match = SAMPLES.fullmatch(file.name)
    assert match is not None
    return match
