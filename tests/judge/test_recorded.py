"""What recorded verdicts of real judges give, beside the figures that were published."""

from __future__ import annotations

import csv
import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from strop.judge.bias import consistent, length_controlled, position_bias
from strop.judge.panel import dawid_skene, weighted_vote, weights
from strop.judge.panel.votes import _maximised
from strop.judge.suspicion import suspicion
from strop.judge.trust.calibration import agreement, human_ceiling, majority
from tests.support import ROOT

DATA = Path(os.environ.get("STROP_DATA", ROOT.parent / "shared/data"))
JUDGES = ("GPT-4", "ChatGPT", "PaLM2", "LLaMA2")

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not DATA.exists(), reason=f"no public data at {DATA} (set STROP_DATA)"),
]


def lines(path: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / f"{path}.jsonl.gz", "rt") as stream:
        return [json.loads(line) for line in stream]


@cache
def llmbar(subset: str, judge: str) -> tuple[list[float | None], list[float | None], list[float]]:
    """Verdicts in both orders (1: the second answer) and the truth."""
    rows = lines(f"llmbar/LLMBar_{subset}.{judge}.Vanilla")
    said = [
        [{"1": 0.0, "2": 1.0}.get(row["results"][0][f"swap = {swap}"]["winner"]) for row in rows]
        for swap in (False, True)
    ]
    return said[0], said[1], [float(row["label"] == 2) for row in rows]


class TestLlmbar:
    def test_on_natural_pairs_gpt_4_is_consistent(self) -> None:
        straight, swapped, gold = llmbar("Natural", "GPT-4")
        found = position_bias(straight, swapped)
        assert found.consistency.mean == pytest.approx(0.95)
        assert found.consistency.low <= 0.97 <= found.consistency.high
        kept = [(v, g) for v, g in zip(consistent(straight, swapped, otherwise=None), gold,
                                       strict=True) if v is not None]  # fmt: skip
        assert np.mean([v == g for v, g in kept]) > 0.95

    def test_consistency_is_not_enough_on_adversarial_pairs(self) -> None:
        """ChatGPT's consistent verdicts on Neighbor are wrong far more often than right."""
        straight, swapped, gold = llmbar("Adversarial_Neighbor", "ChatGPT")
        assert position_bias(straight, swapped).consistency.mean == pytest.approx(0.716, abs=0.001)
        verdicts = consistent(straight, swapped, otherwise=None)
        kept = [(v, g) for v, g in zip(verdicts, gold, strict=True) if v is not None]
        assert len(kept) == 96
        assert np.mean([v == g for v, g in kept]) < 0.2

    def test_fifty_anchors_beat_the_majority_on_adversarial_pairs(self) -> None:
        panels = [llmbar("Adversarial_Neighbor", judge) for judge in JUDGES]
        gold = np.array(panels[0][2])
        orders = [order for straight, swapped, _ in panels for order in (straight, swapped)]
        votes = np.array([[np.nan if v is None else v for v in order] for order in orders])
        gains = []
        for seed in range(100):
            order = np.random.default_rng(seed).permutation(len(gold))
            anchors, rest = order[:50], order[50:]
            learnt = weights(votes[:, anchors], gold[anchors])
            panel, plain = (
                np.mean(weighted_vote(votes[:, rest], w) == gold[rest])
                for w in (learnt, np.ones(len(votes)))
            )
            gains.append(panel - plain)
        assert np.quantile(gains, 0.025) > 0.2

    def test_without_anchors_the_panel_finds_what_its_judges_share(self) -> None:
        """Dawid and Skene's model of one verdict a judge takes the errors that three of four share
        for the truth, and does worse than the majority; which of the two mirror images it finds is
        luck, so with both orders it is right here. Anchors settle it."""
        panels = [llmbar("Adversarial_Neighbor", judge) for judge in JUDGES]
        gold = np.array(panels[0][2])
        votes = np.array([[np.nan if v is None else v for v in one[0]] for one in panels])
        nothing = np.full(len(gold), np.nan)
        alone = _maximised(votes, nothing, ~np.isnan(nothing))
        unsupervised = float(np.mean((alone.chance_n > 0.5) == gold))
        majority_right = float(np.mean(1 - np.abs(weighted_vote(votes, np.ones(4)) - gold)))
        assert (unsupervised, majority_right) == pytest.approx((0.209, 0.481), abs=0.001)
        helped = []
        for seed in range(50):
            order = np.random.default_rng(seed).permutation(len(gold))
            known = nothing.copy()
            known[order[:50]] = gold[order[:50]]
            found = dawid_skene(votes, known).chance_n > 0.5
            helped.append(np.mean(found[order[50:]] == gold[order[50:]]))
        assert np.quantile(helped, 0.025) > majority_right


def test_pandalm_people_and_the_recorded_judge() -> None:
    rows, judged = lines("pandalm/testset"), lines("pandalm/gpt-3.5-turbo")
    people = [[str(row[f"annotator{n}"]) for row in rows] for n in (1, 2, 3)]
    items = range(len(rows))
    pairs = [agreement(people[a], people[b], items) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert (
        0.91 <= min(p.observed.mean for p in pairs) <= max(p.observed.mean for p in pairs) <= 0.93
    )
    assert 0.85 <= min(p.kappa.mean for p in pairs) <= max(p.kappa.mean for p in pairs) <= 0.88
    verdicts = [{"1": "1", "2": "2", "Tie": "0"}.get(row["gpt_result"]) for row in judged]
    found = agreement(verdicts, majority(people), items)
    assert found.items == 974  # what could not be parsed is missing, no tie
    assert found.observed.mean == pytest.approx(0.72, abs=0.01)
    assert found.kappa.mean == pytest.approx(0.49, abs=0.01)
    ceiling = human_ceiling(people, items)
    assert ceiling is not None
    assert found.observed.high < ceiling.observed.low


def test_length_controlled_win_rates_beside_the_published_ones() -> None:
    with (DATA / "alpaca_eval/leaderboard.csv").open() as stream:
        published = {row[""]: row for row in csv.DictReader(stream)}
    rows = [
        {"model": name, "instruction": row["instruction"], "preference": row["preference"] - 1,
         "length_difference": len(row["output_2"]) - len(row["output_1"])}
        for name in published for row in lines(f"alpaca_eval/{name}")
    ]  # fmt: skip
    found = length_controlled(rows)
    assert len(found) == 17
    raw = {name: row["win_rate"] for name, row in found.items()}
    controlled = {name: row["length_controlled"] for name, row in found.items()}
    theirs = {name: float(row["length_controlled_winrate"]) for name, row in published.items()}
    for name, row in published.items():
        assert raw[name] == pytest.approx(float(row["win_rate"]), abs=0.01)
        low, high = found[name]["low"], found[name]["high"]
        assert low is not None
        assert high is not None
        assert low < controlled[name] < high
    names = sorted(found)
    assert spearmanr([controlled[n] for n in names], [theirs[n] for n in names])[0] >= 0.97
    assert np.median([abs(controlled[n] - theirs[n]) for n in names]) <= 1.0
    assert spearmanr([raw[n] for n in names], [theirs[n] for n in names])[0] < 0.94


def test_an_attack_on_the_judge_is_seen_and_16_other_models_are_not_suspected() -> None:
    suspected = {}
    for file in sorted((DATA / "alpaca_eval").glob("*.jsonl.gz")):
        rows = lines(f"alpaca_eval/{file.name.removesuffix('.jsonl.gz')}")
        found = suspicion([row["instruction"] for row in rows],
                          [row["output_2"] or "" for row in rows])  # fmt: skip
        suspected[file.name.removesuffix(".jsonl.gz")] = len(found.sentences)
    assert len(suspected) == 17
    # one text for everything, and it speaks to the judge
    assert {name: count for name, count in suspected.items() if count} == {"NullModel": 2}
