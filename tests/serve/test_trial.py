"""A canary: sticky, one rating a user, taken back when worse is shown, known after a restart."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from strop.recipe.serve import CanaryRecipe
from strop.serve.canary.ratings import Ratings, ratings_until
from strop.serve.canary.trial import Rated, Trial
from tests.support.serving import USER, Serving, recipe_of, rows, serving


def trial(**options: Any) -> Trial:
    return Trial(CanaryRecipe(**{"entry": "new", "share": 0.5, **options}), "new", "old")


def test_sides_stick_and_have_their_share() -> None:
    made = trial(share=0.1)
    sides = {f"user {n}": made.arm(f"user {n}") for n in range(5000)}
    share = sum(arm is not None and arm.side == "canary" for arm in sides.values()) / 5000
    assert share == pytest.approx(0.1, abs=0.015)  # 3 standard deviations: 0.0127
    assert all(made.arm(user) == arm for user, arm in sides.items())
    other = Trial(CanaryRecipe(entry="new", share=0.1), "newer", "old")
    same = [other.arm(user) for user in sides] == list(sides.values())
    assert not same  # another trial draws anew


def test_a_user_counts_once() -> None:
    made = trial()
    for value in (0.0, 1.0, 1.0):
        made.add(Rated("ann", "canary", value))
    made.add(Rated("ben", "canary", 1.0))
    assert made.ratings.standing.canary == 2
    assert made.ratings.standing.canary_mean == 0.5


def test_blocks_compare_one_rating_with_the_mean_of_several() -> None:
    ratings = Ratings(share=0.25, alpha=0.05)
    assert ratings.per_block == 3
    for value in (1.0, 1.0, 0.0, 1.0):
        ratings.add("stable", value)
    ratings.add("canary", 0.0)
    standing = ratings.standing
    assert standing.blocks == 1
    assert standing.difference == pytest.approx(-2 / 3)
    ratings.add("canary", 1.0)  # only one stable rating is left
    assert ratings.standing.blocks == 1


@pytest.mark.parametrize(("said", "signal", "value"), [
    ({"label": True}, "thumb", 1.0),
    ({"label": False}, "thumb", 0.0),
    ({"edit": "x"}, "thumb", None),
    ({"edit": "x"}, "edit", 0.0),
    ({"label": True}, "edit", 1.0),
    ({"name": "stars", "score": 4}, "stars", 0.75),
    ({"name": "stars", "score": 9}, "stars", 1.0),
    ({"name": "other", "score": 4}, "stars", None),
    ({"name": "stars", "score": "good"}, "stars", None),
])  # fmt: skip
def test_what_a_feedback_says_of_the_signal(
    said: dict[str, Any], signal: str, value: float | None
) -> None:
    scale = {"scale": (1.0, 5.0)} if signal == "stars" else {}
    assert trial(signal=signal, **scale).value({"id": "r", **said}) == value


def test_a_smaller_share_takes_longer() -> None:
    counts = [ratings_until(0.1, share, 0.05) for share in (0.5, 0.2, 0.1, 0.05)]
    assert counts == sorted(counts)
    assert counts[0] < 2000  # 1,000 an arm


def rate(server: Serving, user: int, chance: dict[str, float], draw: random.Random) -> str:
    """One user's question and thumb; which side answered."""
    said = server.chat(user=f"user {user}", max_tokens=1)
    side = str(said["strop"].get("arm"))
    thumb = "up" if draw.random() < chance.get(side, 1.0) else "down"
    assert server.post("/v1/feedback", {"id": said["id"], "thumb": thumb}).status_code == 200
    return side


def test_a_worse_canary_is_taken_back_by_itself_and_stays_so(
    model_folder: Path, adapters: list[Path], tmp_path: Path
) -> None:
    recipe = recipe_of(
        model_folder,
        traffic={"folder": str(tmp_path), "flush_seconds": 0},
        canary={"entry": str(adapters[0]), "share": 0.5},
    )
    draw = random.Random(1)
    chance = {"canary": 0.1, "stable": 0.9}
    with serving(recipe) as server:
        sides = [rate(server, user, chance, draw) for user in range(12)]
        assert set(sides) == {"canary", "stable"}
        assert server.get("/canary").json()["canary"]["state"] == "on trial"
    with serving(recipe) as server:  # what was rated before counts
        told = server.get("/canary").json()["canary"]
        assert told["canary"] + told["stable"] == 12
        for user in range(12, 300):
            if rate(server, user, chance, draw) == "None":
                break
        told = server.get("/canary").json()["canary"]
        assert told["state"] == "taken back"
        assert told["high"] < 0
        first = recipe.models[0].name
        weights = server.service.lineup.version(first).place.weights
        for user in range(20):
            assert server.chat(user=f"user {user}")["strop"]["weights"] == weights
    with serving(recipe) as server:  # and after a restart
        assert server.get("/canary").json()["canary"]["state"] == "taken back"
        assert "arm" not in server.chat(messages=[USER])["strop"]
    ends = [row for row in rows(tmp_path) if row.get("event") == "trial_ended"]
    assert [row["state"] for row in ends] == ["taken back"]


def test_a_shadow_answers_unseen_and_a_reward_compares(
    model_folder: Path, adapters: list[Path], tmp_path: Path
) -> None:
    reward = {
        "function": "short_answer",
        "file": str(Path(__file__).parent / "rewards_of_tests.py"),
    }
    recipe = recipe_of(
        model_folder,
        traffic={"folder": str(tmp_path)},
        rewards={"short": [reward]},
        shadow={"entry": str(adapters[0]), "share": 1.0, "rewards": "short"},
    )
    with serving(recipe) as server:
        stable = server.service.lineup.version(recipe.models[0].name).place.weights
        for number in range(5):
            assert server.chat(user=str(number))["strop"]["weights"] == stable
        for _ in range(200):
            counts = server.get("/canary").json()["shadow"]
            if sum(counts.values()) == 5:
                break
        assert sum(counts.values()) == 5
        assert counts["skipped"] == counts["unscored"] == 0
    found = [row for row in rows(tmp_path) if row.get("event") == "shadow"]
    assert len(found) == 5
    for row in found:
        assert row["scores"]["shadow"] == -len(row["shadow_answer"])
