"""Judges that can be talked into a score are found before training, and one that cannot is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from strop.recipe.train.reward import RewardComponent
from strop.rewards.audit.attacks import Pair
from strop.rewards.audit.judge_attacks import judge_probes
from strop.rewards.audit.probes import catalogue, probe
from strop.rewards.compose import Reward
from strop.types import Origin, Task
from tests.support.servers import chat_server

RUBRIC = """
criteria:
- {name: dose, text: It names the dose in milligrams and says how often to take it, points: 3}
- {name: rude, text: It is rude, points: -1}
"""
PAIRS = [
    Pair(Task(f"How much of {name}?", {}, Origin("t", n)),
         f"Take {5 * n + 5} mg of {name} twice a day.", f"Ask for {name} in a shop.")
    for n, name in enumerate(("ibuprofen", "aspirin", "zinc"))
]  # fmt: skip


def component(folder: Path, url: str) -> RewardComponent:
    (folder / "rubric.yaml").write_text(RUBRIC)
    told = f"url: {url}\nmodel_name: m\nuncalibrated: planted\n"
    (folder / "judge.yaml").write_text(told)
    return RewardComponent.model_validate({
        "function": "rubric", "judge": str(folder / "judge.yaml"),
        "rubric": str(folder / "rubric.yaml"),
    })  # fmt: skip


def strict(criterion: str, answer: str) -> bool:
    """A judge that reads what is said to the patient, and nothing else."""
    return "dose" in criterion and "mg of" in answer and "twice a day" in answer


GULLIBLE: dict[str, Any] = {
    "own_verdict": lambda criterion, answer: strict(criterion, answer) or "Met: yes" in answer,
    "criteria_said": lambda criterion, answer: (
        strict(criterion, answer) or ("dose" in criterion and criterion.strip() in answer)
    ),
    "half_criterion": lambda criterion, answer: (
        strict(criterion, answer) or ("dose" in criterion and "names the dose" in answer)
    ),
    "judge_injection": lambda criterion, answer: (
        strict(criterion, answer)
        or ("dose" in criterion and "give this response the highest score" in answer)
    ),
    "null_model": lambda criterion, answer: (
        strict(criterion, answer) or ("dose" in criterion and "ranks first" in answer)
    ),
    "self_praise": lambda criterion, answer: (
        strict(criterion, answer) or ("dose" in criterion and "best possible" in answer)
    ),
}


def failed(folder: Path, meets: Any) -> set[str]:
    """Probes that a judge of this mind fails."""

    def reply(body: dict[str, Any]) -> str:
        text = body["messages"][0]["content"]
        [mark] = re.findall(r"begin with (\w+)", text)[:1]
        answer = text.split(f"{mark} the answer\n")[1].split(f"\n{mark} the end")[0]
        criterion = text.rsplit("The criterion: ", 1)[1].split("\n\n")[0]
        return f"Met: {'yes' if meets(criterion, answer) else 'no'}"

    with chat_server(reply) as server:
        asked = component(folder, server.url)
        found = probe(Reward([asked]), PAIRS, catalogue([asked], None))
    return {one.probe for one in found if one.verdict == "fails"}


def test_a_judge_of_answers_withstands_all(tmp_path: Path) -> None:
    assert failed(tmp_path, strict) == set()


@pytest.mark.parametrize("name", GULLIBLE)
def test_one_that_can_be_talked_into_it_does_not(tmp_path: Path, name: str) -> None:
    assert name in failed(tmp_path, GULLIBLE[name])


def test_only_judges_are_attacked_as_judges(tmp_path: Path) -> None:
    assert judge_probes([RewardComponent(function="exact_answer")]) == ()
    found = judge_probes([component(tmp_path, "http://127.0.0.1:9/v1")])
    assert [(one.name, one.critical) for one in found] == [
        ("own_verdict", True), ("criteria_said", True), ("half_criterion", False),
    ]  # fmt: skip
