"""Data files in another system's form: readable, and equal in content."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from strop.advise.elsewhere.table import EXPORTERS, export
from strop.advise.elsewhere.write import write
from strop.data.records import any_record
from strop.data.sources import rows
from strop.recipe.train.methods import METHODS
from tests.support.elsewhere import QUESTIONS, assistant, chat_rows, recipe_of, text_rows, user
from tests.support.runs import write_jsonl

MULTI_TURN: list[dict[str, Any]] = [
    {
        "prompt": [{"role": "system", "content": "Sei knapp"}, *user(question)],
        "completion": [*assistant("x = 3"), *user("确定?"), *assistant("Ja ✓")],
    }
    for question in QUESTIONS
]


def written(method: str, system: str, folder: Path) -> Path:
    made = export(recipe_of(method, folder), system)
    output = folder / f"{system}-{method}"
    write(made, output, system=EXPORTERS[system].name, method=method)
    return output


def lines(path: Path) -> list[dict[str, Any]]:
    return [row for row, _ in rows(path)]


def test_trl_reads_rows_in_strops_form(tmp_path: Path) -> None:
    for method in ("sft", "dpo", "kto", "grpo", "cpt"):
        kept = lines(written(method, "trl", tmp_path) / "train.jsonl")
        given = chat_rows(METHODS[method].records)
        for row in given:
            row.pop("gap", None)
        assert kept == given


def test_margins_of_a_reward_model_get_the_name_that_trl_reads(tmp_path: Path) -> None:
    recipe = recipe_of("reward_model", tmp_path, objective={"margin": "gap"})
    made = export(recipe, "trl").rows["train.jsonl"]
    assert [row["margin"] for row in made] == [n / 2 for n in range(1, 9)]


def test_conversations_of_several_turns(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "demonstration.jsonl", MULTI_TURN)
    whole = [row["prompt"] + row["completion"] for row in MULTI_TURN]
    for system, name in (("axolotl", "train.jsonl"), ("llamafactory", "train.jsonl"),
                         ("openrlhf", "train.jsonl"), ("verl", "train.parquet")):  # fmt: skip
        kept = lines(written("sft", system, tmp_path) / name)
        assert [row["messages"] for row in kept] == whole
    trl = export(recipe_of("sft", tmp_path), "trl")
    assert "assistant_only_loss: true" in trl.files["config.yaml"]
    assert "--data.multiturn" in export(recipe_of("sft", tmp_path), "openrlhf").files["run.sh"]


def test_llamafactory_names_the_columns_that_are_there(tmp_path: Path) -> None:
    for method in ("sft", "dpo", "kto", "reward_model", "cpt"):
        folder = written(method, "llamafactory", tmp_path)
        said = json.loads((folder / "dataset_info.json").read_text())["train"]
        kept = lines(folder / said["file_name"])
        for column in said["columns"].values():
            assert all(column in row for row in kept)


def test_llamafactory_reads_a_pair_as_messages_and_two_answers(tmp_path: Path) -> None:
    pair = lines(written("dpo", "llamafactory", tmp_path) / "train.jsonl")[2]
    assert pair["messages"] == user(QUESTIONS[2])
    assert pair["chosen"] == assistant("x = 3")[0]
    assert pair["rejected"] == assistant("I do not know")[0]


def test_tools_are_written_or_named(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    for method in ("sft", "dpo", "grpo"):
        kind = METHODS[method].records
        offered = [{**row, "tools": [tool]} for row in chat_rows(kind)]
        write_jsonl(tmp_path / f"{kind}.jsonl", offered)
        for system, having in EXPORTERS.items():
            if method not in having.methods:
                continue
            made = export(recipe_of(method, tmp_path), system)
            kept = [row for some in made.rows.values() for row in some]
            named = any("`tools` of the records" in line for line in made.lost)
            read = "tools" in kept[0] and method != "grpo" and system != "openrlhf"
            assert named != read, (method, system)


def test_plain_texts_stay_plain(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "preference.jsonl", text_rows("preference"))
    for system in ("trl", "axolotl", "llamafactory", "openrlhf", "unsloth"):
        kept = lines(written("dpo", system, tmp_path) / "train.jsonl")
        assert [row["prompt"] for row in kept] == QUESTIONS
        assert kept[0]["chosen"] == "x = 1"


def test_what_is_written_for_trl_is_read_again_by_strop(tmp_path: Path) -> None:
    for method in ("sft", "dpo", "kto", "cpt"):
        path = written(method, "trl", tmp_path) / "train.jsonl"
        records = [any_record(row, origin) for row, origin in rows(path)]
        assert len(records) == 8


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_reward", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REWARD = [
    {"function": "short", "file": "own.py", "weight": 2.0, "options": {"most": 6}},
    {"function": "exact_answer", "gate": True},
    {"function": "picky", "file": "own.py", "optional": True, "clip": [-1.0, 1.0]},
]
OWN = """
def short(prompts, completions, most, **columns):
    return [float(len(c[0]["content"]) <= most) for c in completions]

def picky(prompts, completions, **columns):
    return [None if "?" in c[0]["content"] else 5.0 for c in completions]
"""
SAID = ["x = 1", "x = 1, I am sure", "x = 9", "x = 1?"]
WORTH = [3.0, 1.0, 0.0, 2.0]
"""Gate times (2 if short, and 1 for the clipped last reward where it gives a value)."""


def with_rewards(folder: Path, system: str) -> ModuleType:
    (folder / "own.py").write_text(OWN)
    components = [
        {**one, **({"file": str(folder / "own.py")} if "file" in one else {})} for one in REWARD
    ]
    made = export(recipe_of("grpo", folder, reward=components), system)
    output = folder / system
    write(made, output, system=system, method="grpo")
    return load(output / "reward.py")


def test_the_reward_of_trl_is_the_recipes(tmp_path: Path) -> None:
    module = with_rewards(tmp_path, "trl")
    completions = [assistant(text) for text in SAID]
    prompts = [user("x?")] * 4
    assert module.reward(prompts, completions, answer=["1"] * 4) == pytest.approx(WORTH)


def test_the_reward_of_verl_is_the_recipes(tmp_path: Path) -> None:
    module = with_rewards(tmp_path, "verl")
    row = lines(tmp_path / "verl" / "train.parquet")[0]
    for text, worth in zip(SAID, WORTH, strict=True):
        made = module.compute_score("strop", text, "1", row["extra_info"])
        assert made == pytest.approx(worth)
    assert row["prompt"] == user(QUESTIONS[0])


def test_the_reward_of_openrlhf_is_the_recipes(tmp_path: Path) -> None:
    module = with_rewards(tmp_path, "openrlhf")
    row = lines(tmp_path / "openrlhf" / "train.jsonl")[0]
    prompt = "<user>x?<assistant>"
    made = module.reward_func([prompt + text for text in SAID], [prompt] * 4, [row["label"]] * 4)
    assert made["rewards"].tolist() == pytest.approx(WORTH)


def test_the_overlong_penalty_is_part_of_trls_reward(tmp_path: Path) -> None:
    """10 tokens before 50: nothing up to 40, half at 45, all of it at 50."""
    made = export(recipe_of("grpo", tmp_path, rollout={"max_tokens": 50, "overlong_buffer": 10,
                                                       "group_size": 2}), "trl")  # fmt: skip
    write(made, tmp_path / "out", system="TRL", method="grpo")
    module = load(tmp_path / "out" / "reward.py")
    ids = [[0] * 40, [0] * 45, [0] * 50]
    answers = [assistant("x = 1")] * 3
    worth = module.reward([user("x?")] * 3, answers, answer=["1"] * 3, completion_ids=ids)
    assert worth == pytest.approx([1.0, 0.5, 0.0])
