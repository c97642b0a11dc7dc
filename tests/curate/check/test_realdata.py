"""The check on public data that nobody here wrote."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from strop.curate.check.finding import Finding
from strop.curate.check.run import Asked, Report, check
from strop.data.sources import at
from strop.recipe.train.data import DataSource
from tests.support import ROOT
from tests.support.runs import write_jsonl

DATA = Path(os.environ.get("STROP_DATA", ROOT.parent / "shared/data"))

pytestmark = pytest.mark.realdata


def rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(path(name), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def path(name: str) -> Path:
    found = DATA / f"{name}.jsonl.gz"
    if not found.exists():
        pytest.skip(f"no public data at {found} (set STROP_DATA)")
    return found


def models() -> list[str]:
    return sorted(file.name.removesuffix(".jsonl.gz") for file in DATA.glob("alpaca_eval/*.gz"))


def pairs_of(model: str) -> list[dict[str, Any]]:
    """The answer that the judge preferred as chosen; `preference` runs from 1 to 2."""
    made = []
    for row in rows(f"alpaca_eval/{model}"):
        sides = (row["output_1"], row["output_2"])
        if row["preference"] in (None, "", 1.5) or sides[0] == sides[1]:
            continue
        chosen, rejected = sides if float(row["preference"]) < 1.5 else sides[::-1]
        made.append({"prompt": row["instruction"], "chosen": chosen, "rejected": rejected})
    return made


@pytest.fixture(scope="module")
def alpaca_eval(tmp_path_factory: pytest.TempPathFactory) -> Report:
    if not models():
        pytest.skip(f"no public data at {DATA} (set STROP_DATA)")
    made = [pair for model in models() for pair in pairs_of(model)]
    file = tmp_path_factory.mktemp("alpaca_eval") / "pairs.jsonl"
    return check(Asked([at(write_jsonl(file, made))]), ("prompts", "duplicates"))


def found(report: Report, code: str) -> list[Finding]:
    return [one for one in report.findings if one.code == code]


class TestAlpacaEval:
    def test_unique_prompts(self, alpaca_eval: Report) -> None:
        assert len(models()) == 17
        figures = alpaca_eval.sections["prompts"].figures
        assert figures["unique_prompts"] == 805
        assert 16 < figures["rows_a_prompt"] <= 17
        assert found(alpaca_eval, "repeated_prompts")

    def test_one_constant_answer(self, alpaca_eval: Report) -> None:
        """NullModel answers all 805 prompts with one text."""
        answer = alpaca_eval.sections["duplicates"].figures["most_repeated_answer"]
        assert answer["prompts"] == 805
        (one,) = found(alpaca_eval, "repeated_answer")
        assert one.count == answer["rows"] == 805

    @pytest.mark.parametrize("style", ["verbose", "concise"])
    def test_length_bias(self, tmp_path: Path, style: str) -> None:
        """The judge prefers the longer of two answers: of a model that was told to be brief it
        prefers nearly none."""
        made = pairs_of(f"gpt-3.5-turbo-1106_{style}")
        report = check(Asked([at(write_jsonl(tmp_path / "pairs.jsonl", made))]), ("length",))
        (one,) = found(report, "length_bias")
        assert "the longer one wins" in one.said
        measured = report.sections["length"].figures["preference"]["auc"]
        assert measured["low"] > 0.6


def test_agreement_of_pandalm() -> None:
    """Three people on 999 pairs: published as 0 (tie), 1 and 2."""
    names = ("annotator1", "annotator2", "annotator3")
    report = check(Asked([at(path("pandalm/testset"))], annotators=names))
    figures = report.sections["annotators"].figures
    assert figures["items"] == 999
    assert len(figures["pairs"]) == 3
    for one in figures["pairs"].values():
        assert 0.91 <= one["agreement"] <= 0.93
        assert 0.85 <= one["kappa"] <= 0.88
    assert 0.85 <= figures["fleiss_kappa"] <= 0.88
    assert figures["krippendorff_alpha"] == pytest.approx(figures["fleiss_kappa"], abs=0.001)
    assert not found(report, "annotator_agreement")


def test_gsm8k_has_no_leak() -> None:
    columns = {"prompt": "question", "completion": "answer"}
    train, test = (
        DataSource(path=str(path(f"gsm8k/{split}")), columns=columns) for split in ("train", "test")
    )
    report = check(Asked([train], eval_sources=[test]), ("rows", "prompts", "duplicates", "leak"))
    assert report.sections["leak"].figures == {"eval_items": 1319, "leaked": 0, "matches": []}
    assert report.sections["rows"].figures["rows"] == 7473
    assert [one.code for one in report.findings if one.severity != "info"] == []
