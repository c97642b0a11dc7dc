"""A judge in training: it rewards, the lineage names it, and the policy's own family is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from strop.errors import RewardError
from strop.judge.asking.family import expect_other_family, family_of
from strop.judge.build import judge_hash
from strop.recipe.judge import JudgeRecipe
from strop.recipe.loading.load import load, load_recipe
from strop.train.run import train
from tests.support.runs import metrics
from tests.support.servers import chat_server


def named(**told: str) -> JudgeRecipe:
    return load(JudgeRecipe, {"uncalibrated": "planted", **told})


def test_a_family_is_an_architecture(model_folder: Path, tmp_path: Path) -> None:
    LlamaConfig().save_pretrained(tmp_path / "other")
    policy = str(model_folder)
    assert family_of(policy) == "qwen"
    assert family_of(str(tmp_path / "other")) == "llama"
    expect_other_family(named(model=str(tmp_path / "other")), policy, "judge.yaml")
    url = {"url": "http://127.0.0.1:9/v1"}
    expect_other_family(named(model_name="llama-3-70b", **url), policy, "judge.yaml")
    for own in ({"model": policy}, {"model_name": "Qwen/Qwen3-32B", **url}):
        with pytest.raises(RewardError, match="own family"):
            expect_other_family(named(**own), policy, "judge.yaml")
        expect_other_family(named(same_family="no other", **own), policy, "judge.yaml")


def written(folder: Path, name: str, told: Mapping[str, str]) -> Path:
    path = folder / name
    path.write_text("".join(f"{key}: {value}\n" for key, value in told.items()))
    return path


def test_a_policy_learns_from_a_judge(recipes: dict[str, Path], tmp_path: Path) -> None:
    """One that scores answers by their length, 0 for those it cannot see the end of."""

    def reply(body: dict[str, Any]) -> str:
        text = body["messages"][0]["content"]
        answer = text.split(" the answer\n")[1].split("\n")[0]
        return f"Score: {min(10, len(answer) // 2)}"

    with chat_server(reply) as server:
        judge = written(tmp_path, "judge.yaml", {"url": server.url, "model_name": "m",
                                                 "uncalibrated": "planted"})  # fmt: skip
        reward = f"reward=[{{function: judge_score, judge: {judge}}}]"
        final = train(load_recipe(recipes["grpo"], [reward, "run.steps=2"]), force=True)
    run = final.parent
    row = metrics(run)[0]
    assert row["rewards/judge_score/mean"] == pytest.approx(row["reward"])
    assert 0 < row["reward"] < 1
    lineage = json.loads((run / "lineage.json").read_text())
    assert judge_hash(judge) in json.dumps(lineage)


def test_one_of_the_policys_own_family_is_refused_before_it_is_asked(
    recipes: dict[str, Path], tmp_path: Path
) -> None:
    told = {"url": "http://127.0.0.1:9/v1", "model_name": "qwen3-8b", "uncalibrated": "planted"}
    judge = written(tmp_path, "judge.yaml", told)
    reward = f"reward=[{{function: judge_score, judge: {judge}}}]"
    with pytest.raises(RewardError, match="same_family"):
        train(load_recipe(recipes["grpo"], [reward]))
