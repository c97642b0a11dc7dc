"""Critique and revision: planned replies, known pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strop.curate.synthetic.critique import critique
from strop.data.records import any_record
from strop.errors import RecipeError
from strop.recipe.loading.load import load
from strop.recipe.synthetic import CritiqueRecipe
from strop.types import Answer, Origin, Preference
from tests.support.generated import left_out, prompts_file, target, written
from tests.support.scripted import Scripted

PRINCIPLES = """principles:
  - {name: short, critique: Name what is too long., revision: Make it short.}
  - {name: kind, critique: Name what is unkind., revision: Make it kind.}
  - {name: right, critique: Name what is untrue., revision: Make it true.}
"""


class Replies:
    """Answers are "Answer to P"; a critique is of the answer it is shown; a revision of both."""

    def __init__(self, **replies: Any) -> None:
        self.replies = replies

    def __call__(self, prompt: str, index: int) -> Any:
        for name in ("revision", "critique"):
            if f"<{name}>" in prompt or (name == "critique" and "Do not rewrite" in prompt):
                return self.replies.get(name, f"a {name}")
        return self.replies.get("answer", f"Answer to {prompt}")


def run(
    folder: Path, replies: Any, rows: list[dict[str, Any]] | None = None, **recipe: Any
) -> tuple[Any, Scripted]:
    own = folder / "mine.yaml"
    own.write_text(PRINCIPLES)
    inputs = prompts_file(folder, rows or [{"prompt": "P", "id": "7"}])
    engine = Scripted(replies)
    given = load(CritiqueRecipe, {"principles": str(own), **recipe})
    return critique(inputs, engine, given, target(folder)), engine


NEW = {"revision": "So: <revision>A better answer</revision>"}


def test_the_revision_is_chosen_and_the_answer_rejected(tmp_path: Path) -> None:
    made, engine = run(tmp_path, Replies(**NEW, critique="It is bad."))
    (row,) = written(tmp_path)
    assert (row["prompt"], row["chosen"], row["rejected"]) == (
        "P",
        "A better answer",
        "Answer to P",
    )
    assert isinstance(any_record(row, Origin("out.jsonl", 1)), Preference)
    answered, criticised, revised = (prompt for prompt, _ in engine.asked)
    assert answered == "P"
    for shown in (criticised, revised):
        assert "P\n" in shown
        assert "Answer to P" in shown
    assert "It is bad." in revised
    name = row["meta"]["principles_used"][0]
    line = next(line for line in PRINCIPLES.splitlines() if f"name: {name}," in line)
    assert criticised.split("\n\n")[-1].startswith(line.split("critique: ")[1].split(",")[0])
    assert row["meta"]["templates"].keys() == {"critique", "revision"}
    assert row["meta"]["kind"] == "critique"
    assert (made.records, made.cost.answers) == (1, 3)


def test_a_chat_prompt_is_asked_and_written_as_chat(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "P"}]
    _, engine = run(tmp_path, Replies(**NEW), [{"prompt": turns}])
    (row,) = written(tmp_path)
    assert row["prompt"] == turns
    assert row["chosen"] == [{"role": "assistant", "content": "A better answer"}]
    assert "System: Be brief.\n\nUser: P" in engine.asked[1][0]


def test_every_round_revises_what_the_one_before_left_by_another_principle(tmp_path: Path) -> None:
    count = 0

    def replies(prompt: str, index: int) -> str:
        nonlocal count
        if "<revision>" not in prompt:
            return "An answer." if prompt == "P" else "Look."
        count += 1
        assert (f"draft {count - 1}" in prompt) == (count > 1)
        return f"<revision>draft {count}</revision>"

    run(tmp_path, replies, rounds=3)
    (row,) = written(tmp_path)
    assert (row["chosen"], row["rejected"]) == ("draft 3", "An answer.")
    assert sorted(row["meta"]["principles_used"]) == ["kind", "right", "short"]


def test_principles_are_drawn_for_every_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": f"P{n}"} for n in range(40)]
    run(tmp_path, Replies(**NEW), rows)
    used = [row["meta"]["principles_used"][0] for row in written(tmp_path)]
    assert {name: used.count(name) for name in set(used)}.keys() == {"short", "kind", "right"}
    assert max(used.count(name) for name in set(used)) < 25


@pytest.mark.parametrize(
    ("replies", "kind"),
    [
        ({"revision": "<revision>answer  TO p</revision>"}, "unchanged"),
        ({"revision": "Here it is: better"}, "no_revision"),
        ({"revision": "<revision> </revision>"}, "no_revision"),
        ({"revision": Answer("<revision>bet", "length")}, "cut"),
        ({"revision": Answer("", "error")}, "failed"),
        ({**NEW, "critique": " "}, "empty"),
        ({**NEW, "critique": Answer("", "aborted")}, "failed"),
        ({**NEW, "critique": "<think>nothing but that"}, "empty"),
        ({**NEW, "answer": Answer("", "error")}, "failed"),
        ({**NEW, "answer": "<think>nothing but that"}, "empty"),
    ],
)
def test_what_makes_no_pair_is_counted(tmp_path: Path, replies: Any, kind: str) -> None:
    """Beside it a prompt that makes one."""

    def say(prompt: str, index: int) -> Any:
        good = "good prompt" in prompt
        return Replies(**(NEW if good else replies))(prompt, index)

    run(tmp_path, say, [{"prompt": "P"}, {"prompt": "good prompt"}])
    assert [row["prompt"] for row in written(tmp_path)] == ["good prompt"]
    assert [found for found, _ in left_out(tmp_path)] == [kind]


def test_thoughts_are_in_neither(tmp_path: Path) -> None:
    run(tmp_path, Replies(
        answer="<think>hm</think>An answer", critique="<think>hm</think>Bad.",
        revision="<think>hm <revision>no</revision></think><revision>Better</revision>",
    ))  # fmt: skip
    (row,) = written(tmp_path)
    assert (row["chosen"], row["rejected"]) == ("Better", "An answer")


def test_a_template_without_tags_takes_the_whole_reply(tmp_path: Path) -> None:
    own = tmp_path / "revise.txt"
    shown = "{{ answer }} for {{ prompt }}: {{ critique }} {{ principle.revision }}"
    own.write_text(f"Mend {shown}")

    def replies(prompt: str, index: int) -> str:
        return "All new" if prompt.startswith("Mend") else "old"

    run(tmp_path, replies, revision=str(own))
    assert written(tmp_path)[0]["chosen"] == "All new"


def test_more_rounds_than_principles(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="4 rounds need as many principles, there are 3"):
        run(tmp_path, Replies(**NEW), rounds=4)
