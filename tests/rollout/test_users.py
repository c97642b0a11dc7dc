"""Simulated users: by a script, by a class of one's own, played by a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strop.engines.engine import PromptedTask, Request
from strop.errors import DataError, WorldError
from strop.recipe.train.environment import UserEnvironmentRecipe
from strop.rollout import frozen
from strop.rollout.environments import way_of
from strop.rollout.play import Player
from strop.text.parse import decode
from strop.types import Origin, Task
from tests.support.episodes import ScriptedEngine, asked
from tests.support.templates import PLAIN, speaking

CUSTOMERS = Path(__file__).with_name("customers.py")
OPENING = [{"role": "user", "content": "My bill is wrong."}]


@pytest.fixture(scope="module")
def told(tokenizer: Any) -> Any:
    changed = speaking(tokenizer, PLAIN)
    changed.init_kwargs["end_of_turn"] = ["<|im_end|>"]
    return changed


def dialogues(told: Any, say: Any, user: dict[str, Any], columns: list[dict[str, Any]]) -> Any:
    """The episodes of tasks with these columns, in their order."""
    recipe = UserEnvironmentRecipe.model_validate({"user": user, "max_turns": 4})
    way = way_of(recipe)
    requests = []
    for number, row in enumerate(columns, 1):
        (one,) = asked(told, [OPENING])
        task = Task(OPENING, row, Origin("tasks.jsonl", number))
        requests.append(Request(PromptedTask(task, one.prompt.prompt_ids), one.sampling, one.key))
    player = Player(ScriptedEngine(told, say), way.play(told, 2048), recipe)
    try:
        found = dict(player.generate(requests))
    finally:
        player.close()
    return [found[number] for number in range(len(columns))]


def test_a_script_says_its_turns_and_ends(told: Any) -> None:
    (episode,) = dialogues(
        told,
        lambda prompt, request: "I see.",
        {"turns": "then"},
        [{"then": ["And now?", "Thanks."]}],
    )
    said = [m["content"] for m in episode.messages]
    assert said == ["I see.", "And now?", "I see.", "Thanks.", "I see."]
    assert episode.finish == "stop"
    assert episode.facts["user_turns"] == 2
    assert episode.facts["user_ended"] == 1
    assert episode.reward is None


def test_a_task_without_a_script_is_refused(told: Any) -> None:
    way = way_of(UserEnvironmentRecipe.model_validate({"user": {"turns": "then"}}))
    way.expect(Task(OPENING, {"then": ["And now?"]}, Origin("tasks.jsonl", 1)))
    for wrong in ({}, {"then": "And now?"}, {"then": [1, None]}):
        with pytest.raises(DataError, match=r"tasks\.jsonl:2: the column `then` holds no list of"):
            way.expect(Task(OPENING, wrong, Origin("tasks.jsonl", 2)))


def test_a_user_of_ones_own_answers_and_says_how_content_it_is(told: Any) -> None:
    def say(prompt: str, request: Request) -> str:
        return "You get a refund." if "charged twice" in prompt else "What is wrong?"

    user = {"file": str(CUSTOMERS), "class": "Customer"}
    helped, lost = dialogues(told, say, user, [{"patience": 2}, {"patience": 1}])
    assert [m["role"] for m in helped.messages] == ["assistant", "user", "assistant"]
    assert (helped.reward, helped.finish) == (1.0, "stop")
    assert (lost.reward, len(lost.turns)) == (0.0, 1)
    with pytest.raises(WorldError, match="Talker has the public methods hang_up, reply"):
        way_of(UserEnvironmentRecipe.model_validate({"user": {**user, "class": "Talker"}}))


def test_a_model_plays_the_user_it_is_told_to_be(
    told: Any, model_folder: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model reads has the roles changed about; the same dialogue gets the same replies,
    another episode others."""
    read: list[str] = []
    plain = frozen.LocalEngine.prompted

    def noted(engine: Any, tasks: Any, sampling: Any) -> Any:
        made = plain(engine, tasks, sampling)
        read.extend(decode(tokenizer, one.prompt_ids, special=True) for one in made)
        return made

    monkeypatch.setattr(frozen.LocalEngine, "prompted", noted)
    user = {"model": str(model_folder), "max_tokens": 4, "ends_with": "zzz", "temperature": 1.0}
    row = {"persona": "Brief."}
    monkeypatch.setattr("strop.rollout.users.model.WHO", "{persona}{ends_with}")
    first = dialogues(told, lambda prompt, request: "ok", user, [row])
    again = dialogues(told, lambda prompt, request: "ok", user, [row])
    assert first[0].messages == again[0].messages
    assert (
        read[0] == "<|user|>Brief.zzz<|assistant|>My bill is wrong.<|end|><|user|>ok<|assistant|>"
    )
    way = way_of(UserEnvironmentRecipe.model_validate({"user": user}))
    with pytest.raises(DataError, match="the column `persona` says nothing of who the user is"):
        way.expect(Task(OPENING, {}, Origin("tasks.jsonl", 2)))
