"""Every key that is written is one that the system's own definitions have.

`argument_names.json` lists the names of arguments in LLaMA-Factory, axolotl, verl and OpenRLHF with
the version and commit that they were read from. Those of transformers' Trainer are the installed
ones; TRL's own classes are asked in `tests/oracle`.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import TrainingArguments

from strop.advise.elsewhere import llamafactory, openrlhf, verl
from strop.advise.elsewhere.table import EXPORTERS, export
from strop.recipe.loading.load import flat
from strop.recipe.train.methods import METHODS
from tests.support.elsewhere import chat_rows, exported, recipe_of
from tests.support.runs import write_jsonl

NAMES: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "argument_names.json").read_text()
)
TRAINER = {field.name for field in fields(TrainingArguments)} | {"warmup_ratio"}
"""transformers 4 and 5 up to 5.8, which LLaMA-Factory runs with, have `warmup_ratio`."""

MODEL = {
    "path": "org/model", "revision": "v1", "dtype": "bfloat16",
    "gradient_checkpointing": True, "quantize": "nf4",
    "lora": {"rank": 4, "rslora": True, "dropout": 0.1},
}  # fmt: skip


def full(method: str, system: str, folder: Path) -> Any:
    more: dict[str, Any] = {"model": MODEL, "run": {"epochs": 2, "batch_size": 4, "save_every": 2}}
    if METHODS[method].records == "task":
        more["rollout"] = {"group_size": 4, "overlong_buffer": 20,
                           "mismatch": {"level": "token"}}  # fmt: skip
    else:
        held_out = write_jsonl(folder / "held_out.jsonl", chat_rows(METHODS[method].records))
        more["eval"] = {"data": str(held_out)}
    if (method, system) == ("kto", "axolotl"):
        more.pop("eval")
    return exported(method, system, folder, **more)


def test_every_source_is_named() -> None:
    for said in NAMES.values():
        assert re.fullmatch(r"[0-9a-f]{40}", said["commit"])
        assert "version" in said["source"]


@pytest.mark.parametrize("method", sorted(llamafactory.STAGE))
def test_llamafactory(method: str, tmp_path: Path) -> None:
    written = yaml.safe_load(full(method, "llamafactory", tmp_path).files["config.yaml"])
    unknown = set(written) - set(NAMES["llamafactory"]["names"]) - TRAINER
    assert not unknown


@pytest.mark.parametrize("method", sorted(EXPORTERS["axolotl"].methods))
def test_axolotl(method: str, tmp_path: Path) -> None:
    said = NAMES["axolotl"]
    written = yaml.safe_load(full(method, "axolotl", tmp_path).files["config.yaml"])
    assert not set(written) - set(said["names"])
    assert not set(written.get("trl", {})) - set(said["trl"])
    for source in written["datasets"]:
        assert not set(source) - set(said["datasets"])
        if isinstance(source.get("type"), dict):
            assert not set(source["type"]) - set(said["datasets"])


ADDED = (
    "reward_model.reward_kwargs.overlong_buffer_cfg",
    "reward_model.reward_kwargs.max_resp_len",
)
"""Arguments of verl's reward manager `dapo`, which its own scripts add with `+`."""


@pytest.mark.parametrize("method", verl.HAS)
def test_verl(method: str, tmp_path: Path) -> None:
    said = NAMES["verl"]["sft_trainer_engine" if method == "sft" else "ppo_trainer"]
    written = yaml.safe_load(full(method, "verl", tmp_path).files["run.yaml"])
    written.pop("defaults")
    for key in flat(written):
        plain = re.sub(r"\.\d+$", "", key)
        known = any(name == plain or name.startswith(f"{plain}.") for name in said)
        assert known or key.startswith(ADDED), key


@pytest.mark.parametrize("method", sorted(openrlhf.MODULE))
def test_openrlhf(method: str, tmp_path: Path) -> None:
    text = full(method, "openrlhf", tmp_path).files["run.sh"]
    (module,) = re.findall(r"openrlhf\.cli\.(\w+)", text)
    flags = re.findall(r"^  --(\S+)", text, flags=re.M)
    assert len(flags) > 20
    assert not set(flags) - set(NAMES["openrlhf"]["modules"][module])


def test_unsloth_s_training_arguments_are_transformers_or_trls(tmp_path: Path) -> None:
    made = export(recipe_of("sft", tmp_path), "unsloth")
    training = yaml.safe_load(made.files["config.yaml"])["training"]
    own = {"max_length", "packing", "completion_only_loss", "assistant_only_loss"}
    assert not set(training) - TRAINER - own
