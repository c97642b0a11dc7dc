"""Who is told is one way each, holds no secret, and wants what can happen there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from strop.errors import RecipeError
from strop.recipe.gate import GateRules
from strop.recipe.loading.load import load, load_recipe
from strop.recipe.pipeline import Pipeline


def run_with(notify: Any, tmp_path: Path) -> Any:
    recipe = {
        "method": "sft", "output": "run", "model": "m", "data": "d.jsonl",
        "optim": {"learning_rate": 1e-5}, "run": {"steps": 1, "notify": notify},
    }  # fmt: skip
    path = tmp_path / "sft.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return load_recipe(path).run.notify


def test_one_alone_is_a_list_of_one_with_the_defaults(tmp_path: Path) -> None:
    (one,) = run_with({"webhook": "http://127.0.0.1:9/hook"}, tmp_path)
    assert (one.wanted, one.limit.count, one.limit.seconds) == (("alarm", "end"), 5, 600)
    assert one.name == "webhook http://127.0.0.1:9/hook"
    assert run_with([], tmp_path) == []


@pytest.mark.parametrize(
    ("notify", "problem"),
    [
        ({}, "give `webhook` or `command`, one of them"),
        ({"webhook": "http://a/b", "command": ["c"]}, "give `webhook` or `command`"),
        ({"command": ["c"], "format": "slack"}, "`format` is for a webhook"),
        ({"command": ["c"], "headers": {"X-A": "b"}}, "`headers` is for a webhook"),
        ({"command": []}, "at least 1 item"),
        ({"webhook": "http://a/b", "events": ["verdict"]}, "a training run gives no verdict"),
        ({"webhook": "http://a/b", "events": []}, "at least 1 item"),
        ({"webhook": "http://a/b", "at_most": {"count": 0}}, "greater than or equal to 1"),
    ],
)
def test_what_would_tell_nobody_or_is_not_read_is_refused(
    notify: Any, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=problem):
        run_with(notify, tmp_path)


@pytest.mark.parametrize(
    "notify",
    [
        {"webhook": "https://hooks.slack.com/services/T0/B0/s3cr3t"},
        {"webhook": "https://discord.com/api/webhooks/1/s3cr3t", "format": "discord"},
        {"webhook": "https://ada:s3cr3t@alerts.example/hook"},
        {"webhook": "https://alerts.example/hook?key=s3cr3t"},
        {"webhook": "https://alerts.example/hook", "headers": {"Authorization": "Bearer s3cr3t"}},
        {"webhook": "https://alerts.example/hook", "headers": {"X-Api-Key": "s3cr3t"}},
    ],
)
def test_a_secret_in_the_recipe_is_refused_and_not_repeated(notify: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="environment variable") as found:
        run_with(notify, tmp_path)
    assert "s3cr3t" not in str(found.value)


@pytest.mark.parametrize(
    "notify",
    [
        {"webhook": "${SLACK_WEBHOOK}", "format": "slack"},
        {"webhook": "https://hooks.slack.com/services/${SLACK_PATH}"},
        {"webhook": "https://alerts.example/hook?key=${KEY}"},
        {"webhook": "https://alerts.example/hook", "headers": {"Authorization": "Bearer ${KEY}"}},
    ],
)
def test_the_name_of_a_secret_is_kept_as_it_is(notify: Any, tmp_path: Path) -> None:
    (one,) = run_with(notify, tmp_path)
    assert one.webhook == notify["webhook"]
    assert one.headers == notify.get("headers", {})


def test_a_pipeline_tells_verdicts_and_its_end_and_no_alarms() -> None:
    stages = [{"kind": "train", "name": "sft", "recipe": "sft.yaml"}]
    given = {"name": "p", "stages": stages, "notify": {"command": ["tell"]}}
    assert load(Pipeline, given).notify[0].wanted == ("verdict", "end")
    given["notify"] = {"command": ["tell"], "events": ["alarm"]}
    with pytest.raises(RecipeError, match=r"write `run\.notify` into the training recipe"):
        load(Pipeline, given)


def test_a_policy_tells_each_verdict() -> None:
    rules = load(GateRules, {"targets": [{"score": "a"}], "notify": {"command": ["tell"]}})
    assert (rules.notify[0].wanted, rules.notify[0].limit) == (("verdict",), None)
    with pytest.raises(RecipeError, match="events"):
        load(GateRules, {"targets": [{"score": "a"}],
                         "notify": {"command": ["tell"], "events": ["verdict"]}})  # fmt: skip
