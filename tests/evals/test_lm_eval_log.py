"""Logs of lm-eval as records: which way a metric counts, filters, and what may be missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from strop.errors import DataError
from strop.evals.lm_eval.log import holds_log_samples, read_log_samples


def written_log(folder: Path, samples: list[dict[str, Any]], higher: Any) -> Path:
    date = "2025-07-01T10-00-00.123456"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"samples_a_b_{date}.jsonl"
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    if higher is not None:
        results = {"higher_is_better": {"a_b": higher}}
        (folder / f"results_{date}.json").write_text(json.dumps(results))
    return path


def sample(number: int, **metrics: Any) -> dict[str, Any]:
    return {
        "doc_id": number,
        "doc": {},
        "arguments": {"gen_args_0": {"arg_0": "asked", "arg_1": {"until": []}}},
        "filtered_resps": ["said"],
        "metrics": list(metrics),
        "filter": "none",
        "doc_hash": f"{number}abcdefabcdef0",
        **metrics,
    }


def test_directions_filters_and_metrics_of_a_whole_set(tmp_path: Path) -> None:
    samples = [
        sample(3, exact_match=1, wer=0.25, f1=[0, 1], perplexity=-2.5, bits_per_byte=[-6.0, 12]),
        {**sample(3, exact_match=0), "filter": "strict-match"},
        sample(4, exact_match=float("nan")),
    ]
    records = read_log_samples(written_log(tmp_path, samples, {"exact_match": True, "wer": False}))
    assert [(r.task, r.item, r.score) for r in records] == [
        ("a_b/exact_match", "3-3abcdefabcde", 1.0),
        ("a_b/neg_wer", "3-3abcdefabcde", -0.25),
        ("a_b/logprob", "3-3abcdefabcde", -2.5),
        ("a_b/logprob_per_byte", "3-3abcdefabcde", -0.5),
        ("a_b/exact_match,strict-match", "3-3abcdefabcde", 0.0),
        ("a_b/exact_match", "4-4abcdefabcde", None),
    ]
    assert (records[0].prompt, records[0].output) == ("asked", "said")


def test_what_is_missing_in_a_log_is_said(tmp_path: Path) -> None:
    def said(samples: list[dict[str, Any]], higher: Any) -> str:
        path = written_log(tmp_path / "log", samples, higher)
        with pytest.raises(DataError) as caught:
            read_log_samples(path)
        (tmp_path / "log" / "results_2025-07-01T10-00-00.123456.json").unlink(missing_ok=True)
        return str(caught.value)

    assert "is not beside the samples" in said([sample(0, acc=1)], None)
    assert "jsonl:1: nothing says whether more acc is better" in said([sample(0, acc=1)], {})
    assert "jsonl:2: the row has no doc_id" in said([sample(0, acc=1), {}], {"acc": True})
    assert "no metric of these samples has a score" in said([sample(0, f1=[0, 1])], {"f1": True})
    assert "has no higher_is_better" in said_without_directions(tmp_path)
    assert not holds_log_samples(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="no lm-eval samples are here"):
        read_log_samples(tmp_path / "empty")
    for model in ("a", "b"):
        written_log(tmp_path / "two" / model, [sample(0, acc=1)], {"acc": True})
    (tmp_path / "two" / "b" / "samples_a_b_2025-07-01T10-00-00.123456.jsonl").rename(
        tmp_path / "two" / "b" / "samples_c_2025-07-01T10-00-00.123456.jsonl"
    )
    with pytest.raises(DataError, match="samples of several models"):
        read_log_samples(tmp_path / "two")


def said_without_directions(folder: Path) -> str:
    path = written_log(folder / "old", [sample(0, acc=1)], {})
    (folder / "old" / "results_2025-07-01T10-00-00.123456.json").write_text("{}")
    with pytest.raises(DataError) as caught:
        read_log_samples(path)
    return str(caught.value)
