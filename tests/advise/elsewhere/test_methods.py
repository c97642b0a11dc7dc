"""Every method with every system: exported with the same step, or refused with who has it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from strop.advise.elsewhere.carried import Export
from strop.advise.elsewhere.table import EXPORTERS, export
from strop.errors import DataError, UsageError
from strop.recipe.train.methods import METHODS
from tests.support.elsewhere import exported, recipe_of, text_rows, values_of
from tests.support.runs import write_jsonl

PAIRS = [(method, system) for method in METHODS for system in EXPORTERS]
HAD = [(method, system) for method, system in PAIRS if method in EXPORTERS[system].methods]
NOT_HAD = sorted(set(PAIRS) - set(HAD))


def config(made: Export, name: str = "config.yaml") -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(made.files[name])
    return read


@pytest.mark.parametrize(("method", "system"), HAD)
def test_what_a_system_has_is_written_with_its_differences(
    method: str, system: str, tmp_path: Path
) -> None:
    made = exported(method, system, tmp_path)
    assert made.rows
    assert all(len(rows) == 8 for rows in made.rows.values())
    assert made.lost
    assert made.command.split()[-1] in ("train.py", "config.yaml", "run", "run.sh")
    for name, text in made.files.items():
        if name.endswith(".py"):
            compile(text, name, "exec")


@pytest.mark.parametrize(("method", "system"), NOT_HAD)
def test_what_a_system_has_not_is_refused_with_who_has_it(
    method: str, system: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"has no method {method}") as refused:
        export(recipe_of(method, tmp_path), system)
    having = [name for name, other in EXPORTERS.items() if method in other.methods]
    for name in having or ["train it with strop"]:
        assert name in str(refused.value.fix)


def test_the_table_refuses_and_allows() -> None:
    assert ("dpo", "verl") in NOT_HAD
    assert ("raft", "trl") in NOT_HAD
    assert {("dpo", "trl"), ("grpo", "verl"), ("sft", "llamafactory")} <= set(HAD)


def test_mpo_of_other_losses_is_refused_where_only_one_mixture_is_had(tmp_path: Path) -> None:
    recipe = recipe_of("mpo", tmp_path, objective={"losses": {"dpo": 1.0, "hinge": 1.0}})
    with pytest.raises(UsageError, match="only dpo and bco_pair"):
        export(recipe, "llamafactory")
    assert config(export(recipe, "trl"))["loss_type"] == ["sigmoid", "hinge", "sft"]


def step_of(made: Export, system: str, method: str) -> int:
    """Sequences (of thumbs and pairs: records) of an optimizer step of the written config."""
    if system == "openrlhf":
        found = re.search(r"--train\.batch_size (\d+)", made.files["run.sh"])
        assert found is not None
        return int(found[1])
    if system == "verl":
        read = config(made, "run.yaml")
        if method == "sft":
            return int(read["data"]["train_batch_size"])
        actor = read["actor_rollout_ref"]["actor"]
        return int(actor["ppo_mini_batch_size"] * read["actor_rollout_ref"]["rollout"]["n"])
    read = config(made)
    read = read.get("training", read)
    micro = read.get("per_device_train_batch_size", read.get("micro_batch_size"))
    return int(micro * read["gradient_accumulation_steps"])


@pytest.mark.parametrize(("method", "system"), HAD)
@pytest.mark.parametrize("tokens", [None, 8192])
def test_a_step_holds_as_many_records(
    method: str, system: str, tokens: int | None, tmp_path: Path
) -> None:
    run = {"steps": 3, "batch_size": 6, "micro_batch_tokens": tokens}
    group = 4 if METHODS[method].records == "task" else 1
    more = {"rollout": {"group_size": group}} if group > 1 else {}
    made = exported(method, system, tmp_path, run=run, **more)
    assert step_of(made, system, method) == 6 * group


@pytest.mark.parametrize("system", ["trl", "axolotl", "unsloth"])
def test_updates_cut_a_step_of_samples(system: str, tmp_path: Path) -> None:
    """Six prompts of four answers in three updates, each made twice."""
    made = exported("grpo", system, tmp_path, run={"steps": 5, "batch_size": 6},
                    rollout={"group_size": 4},
                    objective={"mini_batches": 3, "num_iterations": 2})  # fmt: skip
    assert step_of(made, system, "grpo") == 8
    read = config(made)
    read = read.get("training", read)
    assert read["max_steps"] == 5 * 6
    options = read.get("trl", read)
    assert options["num_iterations"] == 2
    sampled = options.get("generation_batch_size") or (
        read["per_device_train_batch_size"] * options["steps_per_generation"]
    )
    assert sampled == 24


@pytest.mark.parametrize("system", ["trl", "llamafactory", "unsloth"])
@pytest.mark.parametrize("size", [2, 6, 7])
def test_thumbs_are_never_alone_in_a_micro_batch(system: str, size: int, tmp_path: Path) -> None:
    """The KL of kto pairs prompts with the answers of others in the micro-batch."""
    run = {"steps": 1, "batch_size": size, "micro_batch_tokens": 1}
    made = exported("kto", system, tmp_path, run=run)
    read = config(made)
    assert read.get("training", read)["per_device_train_batch_size"] > 1
    assert step_of(made, system, "kto") == size
    assert any("`run.micro_batch_tokens`" in line for line in made.lost)


def test_a_step_holds_no_more_records_than_there_are(tmp_path: Path) -> None:
    made = exported("sft", "trl", tmp_path, run={"epochs": 1, "batch_size": 100})
    assert step_of(made, "trl", "sft") == 8


def test_cdpo_is_a_mixture_of_two_losses_with_trl(tmp_path: Path) -> None:
    """Its own label smoothing is ignored by `sigmoid`."""
    read = config(exported("dpo", "trl", tmp_path, objective={"label_smoothing": 0.2}))
    assert dict(zip(read["loss_type"], read["loss_weights"], strict=True)) == pytest.approx(
        {"sigmoid": 1.6, "robust": -0.6}
    )
    assert read["label_smoothing"] == 0.2


def test_the_cap_of_cispo_is_the_cap_itself_there(tmp_path: Path) -> None:
    read = config(exported("cispo", "trl", tmp_path, objective={"epsilon_high": 4.0}))
    assert read["epsilon_high"] == 5.0


def test_axolotl_counts_the_warm_up_of_simpo_in_steps(tmp_path: Path) -> None:
    """It refuses `warmup_ratio` with this trainer: 5 epochs of 8 records in steps of 2 are 20."""
    optim = {"learning_rate": 1e-6, "warmup_ratio": 0.2}
    run = {"epochs": 5, "batch_size": 2}
    read = config(exported("simpo", "axolotl", tmp_path, optim=optim, run=run))
    assert read["warmup_steps"] == 4
    assert "warmup_ratio" not in read


def test_an_option_that_changes_the_loss_is_named_where_it_is_lost(tmp_path: Path) -> None:
    made = exported("nca_pair", "trl", tmp_path, objective={"length_normalized": True})
    assert any("`objective.length_normalized`" in line and "changes the loss" in line
               for line in made.lost)  # fmt: skip
    assert not any("length_normalized" in line for line in exported("dpo", "trl", tmp_path,
                   objective={"length_normalized": True}).lost)  # fmt: skip


class TestTeachers:
    """GKD of TRL, which has two methods of strop."""

    @pytest.mark.parametrize(
        ("method", "objective", "beta", "lmbda"),
        [
            ("distil", {}, 0.0, 0.0),
            ("distil", {"divergence": "reverse_kl"}, 1.0, 0.0),
            ("distil", {"divergence": "generalized_js"}, 0.5, 0.0),
            ("distil", {"divergence": "generalized_js", "beta": 0.2}, 0.2, 0.0),
            ("gkd", {}, 0.5, 0.5),
            ("gkd", {"beta": 0.9, "own_samples": 1.0}, 0.9, 1.0),
        ],
    )
    def test_the_divergence_and_the_share_of_own_samples(
        self, method: str, objective: dict[str, Any], beta: float, lmbda: float, tmp_path: Path
    ) -> None:
        made = exported(method, "trl", tmp_path, objective=objective)
        read = config(made)
        assert (read["beta"], read["lmbda"]) == (beta, lmbda)
        assert read["teacher_model_name_or_path"] == "org/teacher"
        assert read["teacher_model_init_kwargs"]["dtype"] == "auto"
        assert "teacher_model=args.teacher_model_name_or_path" in made.files["train.py"]
        assert [row["messages"][-1]["role"] for row in made.rows["train.jsonl"]] == [
            "assistant"
        ] * 8

    def test_samples_are_drawn_as_the_recipe_says(self, tmp_path: Path) -> None:
        rollout = {"temperature": 0.7, "max_tokens": 33}
        read = config(exported("gkd", "trl", tmp_path, rollout=rollout))
        assert (read["temperature"], read["max_new_tokens"]) == (0.7, 33)

    @pytest.mark.parametrize(
        ("method", "more", "said"),
        [
            ("distil", {"objective": {"divergence": "skewed_forward_kl"}}, "no skewed_forward_kl"),
            ("distil", {"teacher": {"path": "org/t", "prompt": "hint"}}, "is told more"),
            ("distil", {"teacher": {"path": "org/t", "system": "Think."}}, "is told more"),
            ("gkd", {"teacher": {"own": "start", "system": "Think."}}, "is the student or a"),
            ("distil", {"teacher": {"recorded": "a.safetensors"}}, "is the student or a record"),
            ("gkd", {"rollout": {"temperature": 0}}, "a temperature above 0"),
        ],
    )
    def test_what_gkd_has_not_is_refused(
        self, method: str, more: dict[str, Any], said: str, tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match=said):
            exported(method, "trl", tmp_path, **more)

    def test_plain_texts_and_several_turns_are_refused(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "demonstration.jsonl", text_rows("demonstration"))
        with pytest.raises(DataError, match="TRL's GKD reads messages only"):
            export(recipe_of("distil", tmp_path), "trl")
        turns = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"},
                 {"role": "assistant", "content": "c"}]  # fmt: skip
        rows = [{"prompt": [{"role": "user", "content": "q"}], "completion": turns}]
        write_jsonl(tmp_path / "demonstration.jsonl", rows)
        with pytest.raises(DataError, match="an answer has several messages"):
            export(recipe_of("distil", tmp_path), "trl")

    def test_a_temperature_of_the_loss_is_named(self, tmp_path: Path) -> None:
        made = exported("distil", "trl", tmp_path, objective={"temperature": 2.0})
        assert any("`objective.temperature`" in line and "changes the loss" in line
                   for line in made.lost)  # fmt: skip


@pytest.mark.parametrize("system", ["verl", "openrlhf"])
def test_plain_texts_are_refused_where_only_messages_are_read(system: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "task.jsonl", text_rows("task"))
    with pytest.raises(DataError, match="messages only"):
        export(recipe_of("grpo", tmp_path), system)


def test_records_of_two_forms_are_refused(tmp_path: Path) -> None:
    rows = [*values_rows(tmp_path), *text_rows("demonstration")]
    write_jsonl(tmp_path / "demonstration.jsonl", rows)
    with pytest.raises(DataError, match="some records hold texts and others messages"):
        export(recipe_of("sft", tmp_path), "trl")


def values_rows(folder: Path) -> list[dict[str, Any]]:
    path = values_of("sft", folder)["data"]
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
