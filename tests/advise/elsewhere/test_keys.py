"""No key of a recipe is dropped in silence: it changes a written file, or a line names it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from strop.advise.elsewhere.carried import Export
from strop.advise.elsewhere.table import EXPORTERS, export
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.methods import METHODS
from tests.support.elsewhere import changed, chat_rows, values_of
from tests.support.recipe_keys import recipe_keys
from tests.support.runs import write_jsonl

METHODS_TRIED = ("cpt", "sft", "dpo", "robust_dpo", "ipo", "discopop", "mpo", "simpo", "orpo",
                 "cpo", "kto", "reward_model", "grpo", "dapo", "gspo", "cispo", "sapo", "rloo",
                 "reinforce_pp", "ppo", "gkd")  # fmt: skip
"""Between them they have every key that some system has a method for."""

OTHERS: dict[str, Any] = {
    "seed": 7, "output": "elsewhere", "template_options": {"enable_thinking": False},
    "model.tokenizer": "org/tokenizer", "model.dtype": "bfloat16",
    "model.lora": {"rank": 4, "alpha": 12, "dropout": 0.1, "targets": ["q_proj"]},
    "model.router_aux_loss_coef": 0.01, "model.kernels": "liger",
    "model.revision": "v1", "value.revision": "v1",
    "model.gradient_checkpointing": True, "model.device": "cpu", "model.trust_remote_code": True,
    "text.max_length": 512, "text.overlong": "cut", "text.end_of_turn": ["<|im_end|>"],
    "text.date": "2026-03-04", "text.cache": "never",
    "optim.optimizer": "muon", "optim.learning_rate": 3e-6, "optim.schedule": "linear",
    "optim.warmup_ratio": 0.25, "optim.final_ratio": 0.1, "optim.weight_decay": 0.01,
    "optim.betas": [0.8, 0.99], "optim.max_grad_norm": 0.5,
    "run.epochs": 5, "run.batch_size": 2, "run.micro_batch_tokens": 2048, "run.save_every": 3,
    "run.skip_nonfinite": 0, "run.sinks": ["wandb"],
    "run.notify": [{"webhook": "http://127.0.0.1:9000"}], "run.compile": True,
    "run.distributed.shard": "full", "run.distributed.activation_checkpointing": True,
    "run.distributed.timeout": 60.0, "run.distributed.tensor": 2,
    "alarms.spike": {"threshold": 3.0}, "alarms.capability_regression": {"patience": 7},
    "objective.beta": 0.35, "objective.nll_weight": 0.3, "objective.label_smoothing": 0.25,
    "objective.divergence": "js", "objective.length_normalized": True, "objective.ld_alpha": 0.5,
    "objective.wpo": True, "objective.temperature": 0.2, "objective.gamma": 0.7,
    "objective.losses": {"dpo": 0.5, "bco_pair": 0.5}, "objective.desirable_weight": 1.5,
    "objective.undesirable_weight": 0.5, "objective.margin": "gap", "objective.centering": 0.01,
    "objective.entropy_weight": 0.01, "objective.num_iterations": 2, "objective.mini_batches": 2,
    "objective.epsilon_low": 0.15, "objective.epsilon_high": 0.35, "objective.dual_clip": 3.0,
    "objective.temperature_positive": 0.5, "objective.temperature_negative": 2.0,
    "objective.gae_lambda": 0.5, "objective.value_clip": 0.1,
    "objective.own_samples": 0.25, "teacher": "org/stronger",
    "alarms.teacher_divergence": {"threshold": 2.0},
    "rollout.group_size": 4, "rollout.temperature": 0.7, "rollout.max_tokens": 100,
    "rollout.stop": ["\n"], "rollout.include_stop_str_in_output": False,
    "rollout.skip_special_tokens": False, "rollout.resample": 3, "rollout.overlong_buffer": 20,
    "rollout.mismatch_limit": 0.2, "rollout.routing_replay": True,
    "rollout.engine": {"kind": "vllm", "url": "http://127.0.0.1:8000"},
    "rollout.parity_every": 10, "rollout.curriculum": {"floor": 0.2},
    "rollout.environment": {"user": {"turns": "follow_ups"}},
    "rollout.mismatch": {"level": "token", "bound": "mask", "cap": 3.0, "floor": 0.5},
    "probes.tasks": 10, "value.path": "org/other", "value.learning_rate": 1e-4,
}  # fmt: skip
"""Another value than the default for each key."""

ELSEWHERE = {
    "method": "which system has it is tested with the methods",
    "data": "its parts are tested with the rows",
    "eval": "tested below", "dev": "tested below", "reward": "tested below",
    "run.steps": "excludes run.epochs: tested below",
    "run.distributed": "tested by its parts",
    "run.distributed.replicas": "needs shard: tested below",
    "run.distributed.cpu_offload": "needs shard: tested below",
    "run.keep_checkpoints": "read with run.save_every: tested below",
    "model.quantize": "needs an adapter: tested below",
    "model.offload_activations": "needs checkpointing: tested below",
    "chat_template": "is a file: tested below",
    "objective.alpha": "needs its divergence: tested below",
    "objective.kl": "needs beta: tested below", "objective.kl_in": "needs beta: tested below",
    "objective.kl_weighted": "needs beta: tested below",
    "objective.refresh_every": "needs beta: tested below",
    "objective.penalty": "no system has dpop", "objective.loss": "no system has online_dpo",
    "objective.min_reward": "no system has raft",
    "objective.top_k": "of distil: tested below", "teacher.path": "tested below",
    "teacher.dtype": "tested below", "teacher.quantize": "tested below",
    "teacher.revision": "tested below", "teacher.trust_remote_code": "tested below",
    **{key: "tested as a whole" for key in recipe_keys() if key.startswith("teacher.engine")},
    **{f"teacher.{key}": "no system has such a teacher: refused, tested with the methods"
       for key in ("own", "prompt", "system", "recorded")},
    "objective.discount": "no system has on_policy_distil",
    "objective.teacher_weight": "no system has on_policy_distil",
    "objective.mix": "no system has minillm",
    "probes": "tested by its parts", "value": "tested by its parts", "rollout": "by its parts",
    "objective": "by its parts", "optim": "by its parts", "run": "by its parts",
    "model": "by its parts", "text": "by its parts", "alarms": "by its parts",
    "probes.completions": "a file, lost as the others", "probes.file": "lost as the others",
    "probes.accept": "lost as the others", "value.lora": "tested below", "model.path": "",
    "rollout.mask_truncated": "tested below", "rollout.source": "needs servers: tested below",
    **{f"rollout.engine.{key}": "tested as a whole"
       for key in ("kind", "url", "sync", "sleep", "folder", "seconds", "at_once", "limit",
                   "python", "arguments", "start_seconds")},
    **{key: "tested as a whole" for key in recipe_keys()
       if key.startswith(("rollout.environment.", "rollout.curriculum."))},
    **{f"rollout.source.{key}": "tested as a whole" for key in ("kind", "max_staleness", "order")},
}  # fmt: skip

TEACHER = {"path": "org/teacher"}

AT_ONCE: dict[str, tuple[str, dict[str, Any]]] = {
    "run.distributed.replicas": ("sft", {"run.distributed": {"shard": "hybrid", "replicas": 2}}),
    "run.distributed.cpu_offload": ("sft", {
        "run.distributed": {"shard": "full", "cpu_offload": True}}),
    "run.keep_checkpoints": ("sft", {"run.save_every": 2, "run.keep_checkpoints": 5}),
    "model.quantize": ("sft", {"model.lora": {}, "model.quantize": "nf4"}),
    "model.offload_activations": ("sft", {"model.gradient_checkpointing": True,
                                          "model.offload_activations": True}),
    "model.lora.rslora": ("sft", {"model.lora": {}, "model.lora.rslora": True}),
    "model.lora.dora": ("sft", {"model.lora": {}, "model.lora.dora": True}),
    "model.lora.experts": ("sft", {"model.lora": {}, "model.lora.experts": True}),
    "model.lora.dropout": ("sft", {"model.lora": {}, "model.lora.dropout": 0.5}),
    "objective.alpha": ("dpo", {"objective.divergence": "alpha", "objective.alpha": 0.3}),
    "objective.kl": ("grpo", {"objective.beta": 0.1, "objective.kl": "k1"}),
    "objective.kl_in": ("grpo", {"objective.beta": 0.1, "objective.kl_in": "reward"}),
    "objective.kl_weighted": ("grpo", {"objective.beta": 0.1, "objective.kl_weighted": True}),
    "objective.refresh_every": ("grpo", {"objective.beta": 0.1, "objective.refresh_every": 5}),
    "rollout.source": ("grpo", {
        "rollout.engine": {"kind": "vllm", "url": "http://127.0.0.1:8000"},
        "rollout.source": {"kind": "async", "max_staleness": 3}}),
    "rollout.mask_truncated": ("grpo", {"rollout.mask_truncated": True}),
    "value.lora": ("ppo", {"value.lora": {"rank": 3}}),
    "dev.suite": ("sft", {"dev": {"suite": "dev.yaml", "metric": "greedy/exact_answer"}}),
    "reward.0.clip": ("grpo", {"reward": [{"function": "exact_answer", "clip": [0.0, 0.5]}]}),
    "reward.0.normalize": ("grpo", {"reward": [{"function": "exact_answer", "normalize": True}]}),
    "reward.0.max_unscored": ("grpo", {"reward": [{"function": "exact_answer",
                                                   "max_unscored": 0.9}]}),
    "reward.0.weight": ("grpo", {"reward": [{"function": "exact_answer", "weight": 2.0}]}),
    "reward.0.optional": ("grpo", {"reward": [{"function": "exact_answer", "optional": True}]}),
    **{f"teacher.{key}": ("distil", {"teacher": TEACHER, f"teacher.{key}": value})
       for key, value in {
           "path": "org/stronger", "dtype": "bfloat16", "quantize": "nf4", "revision": "v7",
           "trust_remote_code": True,
           "engine": {"kind": "sglang", "url": "http://127.0.0.1:8000"}}.items()},
    "objective.divergence": ("distil", {"objective.divergence": "reverse_kl"}),
    "objective.temperature": ("distil", {"objective.temperature": 2.0}),
    "objective.top_k": ("distil", {"objective.top_k": 8}),
    "objective.beta": ("distil", {"objective.divergence": "generalized_js",
                                  "objective.beta": 0.3}),
    "reward.0.options": ("grpo", {"reward": [{"function": "exact_answer",
                                              "options": {"tag": "a"}}]}),
}  # fmt: skip
"""A method, and values that are only read together; the last of them is the key's own."""


def with_values(values: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    for key, value in more.items():
        values = changed(values, key, value)
    return values


def tried() -> Iterator[tuple[str, str, str]]:
    for system, having in EXPORTERS.items():
        for method in METHODS_TRIED:
            if method not in having.methods or (method, system) == ("kto", "axolotl"):
                continue
            for key in OTHERS:
                yield system, method, key


def base(method: str, folder: Path) -> dict[str, Any]:
    """Under `seed` every flip is alone; the group is one that every system takes."""
    values = values_of(method, folder)
    if METHODS[method].records == "task":
        values["rollout"] = {"group_size": 2}
    return values


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def has_key(method: str, key: str) -> bool:
    here: Any = METHODS[method].recipe
    for part in key.split("."):
        fields = getattr(here, "model_fields", {})
        if part not in fields:
            return False
        field = fields[part]
        kinds = (field.annotation, *get_args(field.annotation))
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        here = inner[0] if inner else None
    return True


def seen(before: Export, after: Export, key: str) -> bool:
    """Whether a file or a row differs, or the lines that name the key do."""
    files = before.files != after.files or before.rows != after.rows
    names = {line for line in before.lost if _names(line, key)}
    told = names != {line for line in after.lost if _names(line, key)}
    return files or told


def _names(line: str, key: str) -> bool:
    return f"`{key}`" in line or f"`{key}." in line


@pytest.mark.parametrize("system", EXPORTERS)
def test_every_key_is_carried_or_named(system: str, tmp_path: Path) -> None:
    flips = [(method, key) for name, method, key in tried() if name == system]
    befores: dict[str, Export] = {}
    count, dropped = 0, []
    for method, key in flips:
        if not has_key(method, key):
            continue
        values = base(method, tmp_path)
        if method not in befores:
            befores[method] = export(load_recipe(values), system)
        value = OTHERS[key]
        if _at(load_recipe(values).plain(), key) == value:
            continue
        after = export(load_recipe(changed(values, key, value)), system)
        if not seen(befores[method], after, key):
            dropped.append((method, key))
        count += 1
    assert count > 60
    assert not dropped


@pytest.mark.parametrize("system", EXPORTERS)
def test_the_commit_of_a_model_is_carried_where_a_system_can_say_it(
    system: str, tmp_path: Path
) -> None:
    values = changed(base("sft", tmp_path), "model.path", "org/model")
    made = export(load_recipe(changed(values, "model.revision", "v7")), system)
    carried = system not in ("verl", "openrlhf")
    assert carried == any("v7" in text for text in made.files.values())
    assert carried != any("`model.revision`" in line for line in made.lost)


@pytest.mark.parametrize("system", EXPORTERS)
@pytest.mark.parametrize("key", AT_ONCE)
def test_keys_that_are_read_together(system: str, key: str, tmp_path: Path) -> None:
    method, more = AT_ONCE[key]
    if method not in EXPORTERS[system].methods:
        pytest.skip(f"{system} has no {method}")
    values = base(method, tmp_path)
    *others, last = more
    before = with_values(values, {name: more[name] for name in others})
    after = changed(before, last, more[last])
    made = [export(load_recipe(one), system) for one in (before, after)]
    assert seen(*made, key)


def test_every_key_of_a_recipe_is_tried() -> None:
    """Alarms and the parts of data, of an adapter, of who is told and of held-out data stand for
    one another."""
    sections = ("alarms.", "data.", "eval.", "dev.", "reward.", "model.lora.", "value.lora.",
                "rollout.mismatch.", "run.notify.")  # fmt: skip
    left = {key for key in recipe_keys() if not key.startswith(sections)}
    assert left <= {*OTHERS, *ELSEWHERE}, left - {*OTHERS, *ELSEWHERE}


def test_the_check_sees_a_dropped_key(tmp_path: Path) -> None:
    made = export(load_recipe(base("sft", tmp_path)), "trl")
    assert not seen(made, made, "optim.learning_rate")


@pytest.mark.parametrize("system", ["trl", "axolotl", "llamafactory", "unsloth", "openrlhf"])
def test_held_out_records_are_written(system: str, tmp_path: Path) -> None:
    held_out = write_jsonl(tmp_path / "held_out.jsonl", chat_rows("preference")[:3])
    values = base("dpo", tmp_path) | {"eval": {"data": str(held_out), "every": 17}}
    made = export(load_recipe(values), system)
    assert len(made.rows["eval.jsonl"]) == 3
    assert any("17" in text for text in made.files.values())
    assert not any("`eval" in line for line in made.lost)


def test_held_out_tasks_are_named_as_lost(tmp_path: Path) -> None:
    held_out = write_jsonl(tmp_path / "held_out.jsonl", chat_rows("task"))
    values = base("grpo", tmp_path) | {"eval": {"data": str(held_out), "every": 17}}
    made = export(load_recipe(values), "trl")
    assert any("`eval.every`" in line for line in made.lost)


def test_a_template_of_ones_own_is_written(tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}{% endfor %}", encoding="utf-8")
    values = base("sft", tmp_path) | {"chat_template": str(template)}
    recipe = load_recipe(values)
    assert "chat_template.jinja" in export(recipe, "trl").files
    assert "m.content" in export(recipe, "axolotl").files["config.yaml"]
    assert any("`chat_template`" in line for line in export(recipe, "llamafactory").lost)


def test_steps_and_replay(tmp_path: Path) -> None:
    own = write_jsonl(tmp_path / "pairs.jsonl", chat_rows("preference"))
    replayed = write_jsonl(tmp_path / "sft.jsonl", chat_rows("demonstration"))
    values = base("dpo", tmp_path) | {
        "data": [{"path": str(own), "weight": 3}, {"path": str(replayed), "weight": 1}],
        "run": {"steps": 7, "batch_size": 4},
    }
    made = export(load_recipe(values), "trl")
    assert "max_steps: 7" in made.files["config.yaml"]
    assert len(made.rows["train.jsonl"]) == 8
    lines = "\n".join(made.lost)
    assert "`data.0.weight`" in lines
    assert "`data.1.path`" in lines
    assert "replay" in lines
