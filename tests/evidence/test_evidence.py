"""What the pages of evidence stand on: the CHES score by hand, and recipes that load."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from strop.curate.displacement import ches_scores
from strop.files import write_json, write_rows
from strop.model.load import load_policy
from strop.recipe.loading.load import load
from strop.recipe.suite import Suite
from strop.recipe.train.methods import METHODS
from strop.recipe.train.model import ModelRecipe
from strop.tracking.runlog import read_rows
from strop.types import Branch, Tree
from tests.support import ROOT


def evidence(name: str) -> Any:
    """`evidence/<name>.py` as a module."""
    spec = importlib.util.spec_from_file_location(f"evidence_{name}", ROOT / f"evidence/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_ches_by_hand(model_folder: Path) -> None:
    """From the library's own hidden states, one row an answer."""
    chosen, rejected = (5, 6, 2), (7, 8, 9, 2)
    tree = Tree((1, 4), (Branch(chosen, (True,) * 3), Branch(rejected, (True,) * 4)))
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    means = []
    for answer in (chosen, rejected):
        with torch.no_grad():
            hidden = model.model(torch.tensor([(1, 4, *answer)])).last_hidden_state[0]
        means.append(hidden[1 : 1 + len(answer)].mean(0))  # states that predict the answer
    expected = float(means[0] @ means[1] - means[0] @ means[0])
    policy = load_policy(ModelRecipe(path=str(model_folder)))
    assert ches_scores(policy, [tree]).tolist() == pytest.approx([expected], rel=1e-4)
    same = Tree((1, 4), (Branch(chosen, (True,) * 3), Branch(chosen, (True,) * 3)))
    assert ches_scores(policy, [same, tree, same]).tolist() == pytest.approx(
        [0.0, expected, 0.0], rel=1e-4, abs=1e-4
    )


def test_every_recipe_of_the_evidence_loads() -> None:
    module = evidence("runs")
    recipes = {**module.displacement(), **module.preference(), **module.policy()}
    assert len(recipes) >= 20
    for name, recipe in recipes.items():
        whole = {"model": "m", "output": f"runs/{name}", "seed": 0, **recipe}
        loaded = METHODS[recipe["method"]].recipe.model_validate(json.loads(json.dumps(whole)))
        assert loaded.run.steps is not None


class TestFamily:
    def example(self, folder: Path, pairs: int = 100) -> Path:
        rows = [
            {"prompt": f"p{n}", "chosen": f"c{n}", "rejected": f"r{n}", "meta": {}}
            for n in range(pairs)
        ]
        (folder / "data/pairs").mkdir(parents=True)
        write_rows(folder / "data/pairs/preferences.jsonl", rows)
        suite = ROOT / "examples/real/files/suite-voice.yaml"
        (folder / "suite-voice.yaml").write_text(suite.read_text())
        return folder

    def test_the_same_pairs_flipped_split_and_held_out(self, tmp_path: Path) -> None:
        family = evidence("family")
        family.write_data(self.example(tmp_path / "example"), tmp_path)
        held_out, pairs, flipped, thumbs = (
            list(read_rows(tmp_path / f"{name}.jsonl"))
            for name in ("held_out", "pairs", "flipped", "thumbs")
        )
        assert (len(held_out), len(pairs)) == (40, 60)
        assert not {row["prompt"] for row in held_out} & {row["prompt"] for row in pairs}
        turned = [b for a, b in zip(pairs, flipped, strict=True) if a != b]
        assert len(turned) == 12
        assert all(row["chosen"][0] == "r" and row["rejected"][0] == "c" for row in turned)
        assert len(thumbs) == 120
        assert all(row["label"] == (row["completion"][0] == "c") for row in thumbs)

    def test_every_recipe_and_the_suite_load(self, tmp_path: Path) -> None:
        family = evidence("family")
        example = self.example(tmp_path / "example")
        suite = load(Suite, family.write_suite(example, tmp_path))
        assert [task.name for task in suite.tasks] == ["voice", "knowledge", "prose", "pairs"]
        for name, entry in family.ENTRIES.items():
            recipe = entry.recipe(example, tmp_path / "runs" / family.slug(name), 12)
            assert METHODS[recipe["method"]].recipe.model_validate(recipe).run.steps == 12
        assert len({family.slug(name) for name in family.ENTRIES}) == len(family.ENTRIES)

    def test_the_table_holds_what_is_finished(self, tmp_path: Path) -> None:
        family = evidence("family")
        scores = {
            "voice/in_voice": 0.125,
            "knowledge/acc": 0.7,
            "prose/logprob": -2.0,
            "pairs": 0.5,
        }
        summary: dict[str, Any] = {"scores": scores, "figures": {"voice": {"length": 61.4}}}
        held_out = {"pairs": {"chosen_gain_median": -0.25, "displaced": 0.1}}
        for name in ("evals/base", "evals/dpo-flipped", "runs/dpo-flipped"):
            (tmp_path / name).mkdir(parents=True)
        write_json(tmp_path / "evals/base/summary.json", summary)
        summary["figures"] |= held_out
        write_json(tmp_path / "evals/dpo-flipped/summary.json", summary)
        write_json(tmp_path / "runs/dpo-flipped/took.json", {"seconds": 61.2, "peak_mb": 3000.4})
        assert family.table(tmp_path).splitlines()[2:] == [
            "| base | 0.12 | 61 | 0.50 |  |  | 0.700 | 7.4 |  |  |",
            "| dpo, flipped | 0.12 | 61 | 0.50 | -0.250 | 0.10 | 0.700 | 7.4 | 61 | 3000 |",
        ]


def test_predicted_ratios_of_asynchronous_runs_by_hand(tmp_path: Path) -> None:
    """Sampling 6 s and training 4 s: 10 in turn, 6 at once; a run that took 8 had parts of 8 and
    5."""
    split = evidence("split")
    rows = {
        "sync": {"sampling_time": 6.0, "step_time": 10.0},
        "ahead": {"step_time": 8.0, "async/generator_idle": 0.0, "async/trainer_idle": 3.0},
    }
    for name, row in rows.items():
        (tmp_path / name).mkdir()
        lines = [json.dumps({**row, "step_time": 99.0} if n == 0 else row) for n in range(201)]
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "ahead/recipe.resolved.yaml").write_text("rollout: {source: {max_staleness: 2}}\n")
    assert split.staleness_of(tmp_path / "ahead") == 2
    before = split.synchronous(tmp_path / "sync")
    found = split.compare("ahead", before, split.asynchronous(tmp_path / "ahead"), 2)
    assert found.measured == pytest.approx(10 / 8)
    assert found.by_means == pytest.approx(10 / 6)
    assert found.by_steps == pytest.approx(10 / 6, rel=0.01)
    assert found.by_parts == pytest.approx(10 / 8)
    assert "+33%" in split.table([found])[2]
    with pytest.raises(SystemExit, match="not asynchronous"):
        split.asynchronous(tmp_path / "sync")


def test_engines_that_wait_and_their_periods_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight seconds for 32 answers: one every quarter, and none before it was asked for. A batch of
    12 s that shares its rounds with the next: 12 / (2 - 6 / p) = p at 9, and with two more 6."""
    monkeypatch.syspath_prepend(str(ROOT / "evidence"))
    paced = evidence("paced")
    turns = paced.in_turns(8.0 / 32)
    assert [turns(asked, 24) for asked in (10.0, 10.0, 20.0)] == [10.25, 10.5, 20.25]
    assert paced.in_rounds(12.0)(10.0, 6) == 13.0
    for kind, ahead, seconds in (("turns", 2, 12), ("rounds", 1, 9), ("rounds", 2, 6)):
        found = paced.predicted(kind, [12.0] * 4000, [6.0] * 4000, ahead)
        assert found == pytest.approx(seconds, rel=0.01)


def test_forecasts_of_what_is_left_by_hand() -> None:
    """Steps of 2 s that become 1 s in the middle: the mean of all still says half as much again.
    Where that is because half of the groups are learnt from, known work foretells it."""
    remaining = evidence("remaining")
    seconds = (9.0,) + (2.0,) * 40 + (1.0,) * 80
    learnt = (1.0,) * 41 + (0.5,) * 80
    log = remaining.Log("run", "online", seconds, (0.0,) * 121, (50.0,) * 121, learnt)
    assert remaining.moments(log) == {"step 21": 21, "half": 60}
    assert remaining.off(log, "median of 20", 21) == pytest.approx(200 / 120 - 1)
    assert remaining.off(log, "median of 20", 61) == pytest.approx(0)
    assert remaining.off(log, "mean of all", 61) == pytest.approx(100 / 60 - 1)
    known = "speeds so far, future work known"
    assert remaining.off(log, known, 21) == pytest.approx(0)


def test_a_trend_of_groups_that_are_learnt_from() -> None:
    """Shares of 1 / sqrt(step), 8 s of training at a share of 1, and 3 s of sampling: the power law
    finds what follows; a share that grows is taken for one that stays."""
    remaining = evidence("remaining")
    falling = tuple(number**-0.5 for number in range(1, 101))
    trend = "power law of what is learnt from"

    def log(learnt: tuple[float, ...]) -> Any:
        seconds = tuple(3.0 + 8.0 * share for share in learnt)
        return remaining.Log("run", "online", seconds, (3.0,) * 100, (50.0,) * 100, learnt)

    assert remaining.off(log(falling), trend, 30) == pytest.approx(0)
    rising = tuple(reversed(falling))
    stays = 3.0 * 70 + 8.0 * 70 * sum(rising[10:30]) / 20
    found = remaining.off(log(rising), trend, 30)
    assert found == pytest.approx(stays / sum(log(rising).seconds[30:]) - 1)
