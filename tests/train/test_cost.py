"""What a run takes: the parts by hand, the same without weights as with them, and mistakes."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from rich.console import Console
from transformers import LlamaConfig, Qwen3Config
from typer.testing import CliRunner, Result

from strop.cli.app import app
from strop.cli.show import Progress
from strop.errors import UsageError
from strop.model.activations import kept_by_a_token, tokens_at_once
from strop.model.load import load_config, load_policy
from strop.model.network import Policy
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.methods import Recipe
from strop.recipe.train.model import LoraRecipe, ModelRecipe
from strop.recipe.train.rollout import RolloutRecipe
from strop.tracking.remaining import Remaining, spoken
from strop.train.preflight.cost.duration import duration_of
from strop.train.preflight.cost.estimate import estimate
from strop.train.preflight.cost.hardware import Range, hardware
from strop.train.preflight.cost.memory import critic_of, memory_of
from strop.train.preflight.cost.shape import shape_of
from strop.train.preflight.cost.workload import (
    Workload,
    answer_lengths,
    assumed_workload,
)
from strop.types import StepRecord

LLAMA = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
         "num_hidden_layers": 32, "num_attention_heads": 32, "head_dim": 128,
         "tie_word_embeddings": False}  # fmt: skip
WORK = Workload(steps=10, step_tokens=4096, supervised=2000, longest=512)


def recipe(tmp_path: Path, model: str = "MODEL", **changes: Any) -> Recipe:
    """A recipe of DPO; `changes` are keys in dotted form with `__` for the dot."""
    told: dict[str, Any] = {
        "method": "dpo", "output": str(tmp_path / "run"), "model": {"path": model},
        "data": "d.jsonl", "optim": {"learning_rate": 1e-6}, "run": {"steps": 10, "batch_size": 8},
    }  # fmt: skip
    for name, value in changes.items():
        head, _, rest = name.partition("__")
        told[head] = {**told.get(head, {}), rest: value} if rest else value
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(told))
    return load_recipe(path)


def test_a_shape_is_counted_without_weights(policy: Policy, model_folder: Path) -> None:
    shape = shape_of(load_config(str(model_folder)))
    assert shape.parameters == sum(p.numel() for p in policy.model.parameters())
    adapted = load_policy(ModelRecipe(path=str(model_folder), lora=LoraRecipe(rank=3)))
    assert 3 * shape.lora_width == sum(p.numel() for p in adapted.trainable())


def test_the_shape_of_a_known_model() -> None:
    shape = shape_of(LlamaConfig(**LLAMA))
    assert shape.parameters == 6_738_415_616, "LLaMA-2-7B"
    assert shape.linear == 32 * (4 * 4096**2 + 3 * 4096 * 11008)


@pytest.mark.parametrize("adapter", [None, LoraRecipe(rank=2)])
@pytest.mark.parametrize("again", [False, True])
def test_a_forward_keeps_the_same_without_weights(
    model_folder: Path, tmp_path: Path, adapter: LoraRecipe | None, again: bool
) -> None:
    given = ModelRecipe(path=str(model_folder), lora=adapter, gradient_checkpointing=again)
    network = load_policy(given)
    made = recipe(tmp_path, str(model_folder)).model_copy(update={"model": given})
    config = load_config(str(model_folder))
    memory = memory_of(made, config, shape_of(config), WORK, "cpu")
    assert memory.kept == kept_by_a_token(network)
    assert memory.tokens == max(512, min(4096, tokens_at_once(network)))


def test_parts_by_hand(tmp_path: Path) -> None:
    config = Qwen3Config(vocab_size=1000, hidden_size=64, intermediate_size=128,
                         num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                         head_dim=16, tie_word_embeddings=True)  # fmt: skip
    shape = shape_of(config)
    full = memory_of(recipe(tmp_path), config, shape, WORK, "cpu").parts
    count = shape.parameters
    assert full["weights"] == full["gradients"] == 4 * count
    assert full["moments"] == 8 * count
    assert full["head gradients"] == 4 * 64_000
    eight = recipe(tmp_path, optim={"learning_rate": 1e-6, "optimizer": "adamw_8bit"})
    small = memory_of(eight, config, shape, WORK, "cpu").parts
    assert small["moments"] == round(2 * (1 + 4 / 256) * (count - 64_000)) + 8 * 64_000
    assert {**small, "moments": 8 * count} == full
    assert "reference" not in full, "of records it is computed once, before the first step"
    made = recipe(tmp_path, model__lora={"rank": 4}, model__quantize="nf4", model__path="M")
    low = memory_of(made, config, shape, WORK, "cpu").parts
    assert low["adapter"] == low["gradients"] == 4 * 4 * shape.lora_width
    assert low["weights"] == pytest.approx(
        (0.5 + 1 / 64 + 4 / 64 / 256) * shape.linear + 4 * (count - shape.linear), abs=1
    )


@pytest.mark.parametrize(
    ("words", "supervised", "tied", "logits", "matrices"),
    [(1000, 2000, True, 2_000_000, 1), (1000, 2000, False, 2_000_000, 0),
     (8000, 4000, True, 2**24, 2), (8000, 4000, False, 2**24, 2), (300_000, 60, True, 0, 3)],
)  # fmt: skip
def test_what_the_head_holds_by_hand(
    tmp_path: Path, words: int, supervised: int, tied: bool, logits: int, matrices: int
) -> None:
    """One chunk: its logits, and the embedding's gradient to come. Several: while the second one's
    gradient is computed two matrices and the logits, or at their sum three without these, whichever
    is more. A frozen head has no gradient."""
    config = Qwen3Config(**{**SMALL, "vocab_size": words}, tie_word_embeddings=tied)
    work, shape = replace(WORK, supervised=supervised), shape_of(config)
    parts = memory_of(recipe(tmp_path), config, shape, work, "cuda").parts
    assert parts.get("logits", 0) == 4 * logits
    assert parts.get("head gradients", 0) == matrices * 4 * words * 64
    made = recipe(tmp_path, model__lora={"rank": 4})
    frozen = memory_of(made, config, shape, work, "cuda").parts
    assert frozen["logits"] == 4 * min(2**24, words * supervised)
    assert "head gradients" not in frozen


@pytest.mark.parametrize(
    ("model", "share"),
    [({"model__lora": {"rank": 4}}, 1.2),
     ({"model__lora": {"rank": 4}, "model__quantize": "nf4", "model__path": "M"}, 1.9)],
)  # fmt: skip
def test_gaps_with_an_adapter_are_a_share_of_the_activations_on_a_cpu(
    tmp_path: Path, model: dict[str, Any], share: float
) -> None:
    config = Qwen3Config(**SMALL)
    made, shape = recipe(tmp_path, **model), shape_of(config)
    memory = memory_of(made, config, shape, WORK, "cpu")
    assert memory.parts["activations"] == memory.tokens * memory.kept
    assert memory.parts["heap gaps"] == round(share * memory.tokens * memory.kept)
    assert "heap gaps" not in memory_of(made, config, shape, WORK, "cuda").parts


@pytest.mark.parametrize("tokens", [4096, 20])
def test_gaps_of_a_whole_model_are_what_gradients_and_sampling_displace(
    tmp_path: Path, tokens: int
) -> None:
    """At most all activations, which are fewer than the gradients where a forward reads little."""
    config = Qwen3Config(**SMALL, tie_word_embeddings=True)
    shape = shape_of(config)
    work = replace(WORK, step_tokens=tokens, longest=min(512, tokens))
    memory = memory_of(recipe(tmp_path), config, shape, work, "cpu")
    gradients = 4 * (BODY + 64_000)
    activations = memory.tokens * memory.kept
    assert (activations < gradients) == (tokens == 20)
    assert memory.parts["heap gaps"] == round(0.85 * min(activations, gradients))
    made = recipe(tmp_path, method="grpo", reward=[{"function": "repetition"}])
    samples = replace(work, answers=64, answer_tokens=100, sampled=3200)
    parts = memory_of(made, config, shape, samples, "cpu").parts
    keys, logits = 64 * 100 * 2 * 2 * 2 * 16 * 4, 4 * 4 * 64 * 1000
    assert parts["heap gaps"] == round(0.85 * (min(activations, gradients) + keys + logits))


@pytest.mark.parametrize(
    ("method", "objective", "copied"),
    [("grpo", {}, False), ("grpo", {"beta": 0.04}, True), ("rloo", {}, True),
     ("rloo", {"beta": 0.0}, False), ("online_dpo", {}, True), ("raft", {}, False)],
)  # fmt: skip
def test_a_reference_is_held_where_the_method_reads_one(
    tmp_path: Path, method: str, objective: dict[str, float], copied: bool
) -> None:
    """KL that the paper of a method has is there without being set."""
    config = Qwen3Config(vocab_size=1000, hidden_size=64, intermediate_size=128,
                         num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                         head_dim=16)  # fmt: skip
    made = recipe(tmp_path, method=method, objective=objective,
                  reward=[{"function": "repetition"}])  # fmt: skip
    shape = shape_of(config)
    parts = memory_of(made, config, shape, WORK, "cpu").parts
    assert parts.get("reference", 0) == (4 * shape.parameters if copied else 0)


SMALL = {"vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128,
         "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 16}  # fmt: skip
BODY = 64_000 + 2 * (64 * (64 + 32 + 32) + 64 * 64 + 3 * 64 * 128 + 2 * 64 + 2 * 16) + 64
"""Weights of `SMALL` without a head: embedding, two layers (queries, keys, values and output, three
of the MLP, two norms, two of queries and keys), the last norm."""


def ppo(tmp_path: Path, **changes: Any) -> Recipe:
    return recipe(tmp_path, method="ppo", reward=[{"function": "repetition"}],
                  **{"value": {"path": "MODEL", "learning_rate": 1e-5}, **changes})  # fmt: skip


@pytest.mark.parametrize("tied", [False, True])
def test_a_critic_is_held_beside_the_policy(tmp_path: Path, tied: bool) -> None:
    """Its weights and both moments in float32; gradients of one network at a time."""
    config = Qwen3Config(**SMALL, tie_word_embeddings=tied)
    made, shape = ppo(tmp_path), shape_of(config)
    assert shape.parameters == BODY + (0 if tied else 64_000)
    parts = memory_of(made, config, shape, WORK, "cpu").parts
    assert parts["critic"] == 4 * BODY
    assert parts["critic moments"] == 8 * BODY
    assert parts["gradients"] == 4 * shape.parameters, "the policy's learning is larger"
    alone = memory_of(made.model_copy(update={"value": None}), config, shape, WORK, "cpu")
    assert sum(parts.values()) - alone.total == 12 * BODY


def test_a_critic_with_an_adapter_of_another_model(tmp_path: Path) -> None:
    """bfloat16 weights that are frozen, and an adapter of float32 with its moments."""
    Qwen3Config(**{**SMALL, "hidden_size": 32}).save_pretrained(tmp_path / "critic")
    value = {"path": str(tmp_path / "critic"), "learning_rate": 1e-5, "lora": {"rank": 4}}
    made = ppo(tmp_path, value=value, model__dtype="bfloat16")
    config = Qwen3Config(**SMALL)
    parts = memory_of(made, config, shape_of(config), WORK, "cpu").parts
    body = 32_000 + 2 * (32 * (64 + 32 + 32) + 64 * 32 + 3 * 32 * 128 + 2 * 32 + 2 * 16) + 32
    width = 2 * ((32 + 64) + 2 * (32 + 32) + (64 + 32) + 3 * (32 + 128))
    assert parts["critic"] == 2 * body + 4 * 4 * width
    assert parts["critic moments"] == 8 * 4 * width


def test_a_critic_that_is_larger_than_its_policy_decides_the_peak(tmp_path: Path) -> None:
    Qwen3Config(**{**SMALL, "hidden_size": 512}).save_pretrained(tmp_path / "critic")
    value = {"path": str(tmp_path / "critic"), "learning_rate": 1e-5}
    made, config = ppo(tmp_path, value=value), Qwen3Config(**SMALL)
    parts = memory_of(made, config, shape_of(config), WORK, "cpu").parts
    assert parts["gradients"] == parts["critic"] > 4 * shape_of(config).parameters
    assert "logits" not in parts, "values have none"


def test_a_critic_and_passes_take_their_time(tmp_path: Path) -> None:
    """Of tokens that are few beside the weights: 6 operations a weight and pass for each network,
    and 2 for the values."""
    config, device = Qwen3Config(**SMALL, tie_word_embeddings=True), hardware("cpu-server")
    shape, few = shape_of(config), Workload(1, 64, 32, 1)
    head, body = shape.parameters, BODY - 64_000

    def operations(**changes: Any) -> float:
        made = ppo(tmp_path, **changes)
        memory = memory_of(made, config, shape, few, "cpu")
        critic = critic_of(made, config)
        assert critic is not None
        seconds = duration_of(made, shape, few, memory, device, critic).training.likely
        attention = (2 + 2 * 2 * ("objective" in changes)) * 12 * 2 * 64 * 0.5
        return seconds * device.tflops * 1e12 * 0.5 / 64 - attention

    assert operations() == pytest.approx(6 * head + 6 * body + 2 * body)
    again = operations(objective={"num_iterations": 3})
    assert again == pytest.approx(3 * (6 * head + 6 * body) + 2 * body)


LLAMA_FACTORY = {1024: 6, 2048: 7, 4096: 9, 8192: 12, 16384: 19, 32768: 32}
"""GB that LLaMA-Factory's wiki reports for QLoRA of LLaMA-2-7B at batch 1, by tokens."""
WHOLE_LOGITS = 2 + 4 + 4 + 2
"""Bytes of a logit where all are held at once, as there: bfloat16 and float32, with gradients."""


@pytest.mark.parametrize(("tokens", "reported"), LLAMA_FACTORY.items())
def test_another_systems_table_follows_from_the_same_parts(
    tmp_path: Path, tokens: int, reported: int
) -> None:
    made = recipe(tmp_path, method="sft", model__quantize="nf4", model__dtype="bfloat16",
                  model__gradient_checkpointing=True, model__lora={"rank": 8},
                  run__micro_batch_tokens=tokens, text={"max_length": tokens})  # fmt: skip
    config = LlamaConfig(**LLAMA)
    work = Workload(steps=1, step_tokens=tokens, supervised=tokens, longest=tokens)
    parts = dict(memory_of(made, config, shape_of(config), work, "cuda").parts)
    parts["logits"] = WHOLE_LOGITS * tokens * config.vocab_size
    assert sum(parts.values()) / 2**30 == pytest.approx(reported, rel=0.1)


def test_what_lowers_memory_lowers_it(tmp_path: Path) -> None:
    config = Qwen3Config(vocab_size=8000, hidden_size=512, intermediate_size=1024,
                         num_hidden_layers=8, num_attention_heads=8,
                         num_key_value_heads=4, head_dim=64)  # fmt: skip
    result = estimate(recipe(tmp_path), WORK, hardware("a10g"), config)
    micro, again, eight, adapter, quantized = (one.memory_gib for one in result.changes)
    here = result.memory.total / 2**30
    assert micro <= here
    assert max(again, eight, adapter) < here
    assert quantized < min(again, adapter)
    assert result.fits


def test_a_large_model_does_not_fit_a_small_device_and_the_change_says_what_does(
    tmp_path: Path,
) -> None:
    result = estimate(recipe(tmp_path, model__dtype="bfloat16", model__path="M"), WORK,
                      hardware("rtx4090"), LlamaConfig(**LLAMA))  # fmt: skip
    assert not result.fits
    assert [one.fits for one in result.changes][-1]


def test_twice_the_tokens_take_twice_the_time(tmp_path: Path) -> None:
    config = Qwen3Config(vocab_size=8000, hidden_size=512, intermediate_size=1024,
                         num_hidden_layers=8, num_attention_heads=8,
                         num_key_value_heads=4, head_dim=64)  # fmt: skip
    made, shape, device = recipe(tmp_path), shape_of(config), hardware("h100")
    memory = memory_of(made, config, shape, WORK, "cuda")
    once = duration_of(made, shape, WORK, memory, device).total
    twice = Workload(steps=20, step_tokens=4096, supervised=2000, longest=512)
    assert duration_of(made, shape, twice, memory, device).total.likely == pytest.approx(
        2 * once.likely
    )
    assert once.low < once.likely < once.high


def test_sampling_is_bound_by_the_weights_that_are_read(tmp_path: Path) -> None:
    config = Qwen3Config(vocab_size=8000, hidden_size=512, intermediate_size=1024,
                         num_hidden_layers=8, num_attention_heads=8,
                         num_key_value_heads=4, head_dim=64)  # fmt: skip
    made = recipe(tmp_path, method="grpo", reward=[{"function": "length"}],
                  rollout={"max_tokens": 100})  # fmt: skip
    shape, device = shape_of(config), hardware("h100")
    work = assumed_workload(made)
    memory = memory_of(made, config, shape, work, "cuda")
    sampling = duration_of(made, shape, work, memory, device).sampling
    rounds = work.sampled / work.answers
    read = 4 * shape.parameters * rounds / (3350e9 * 0.45)
    launched = rounds * 8 * 6e-4
    assert sampling.likely == pytest.approx(read + launched, rel=0.01)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["estimate", *map(str, arguments)])


def test_json_has_every_key_that_others_call(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Solve {n}x = 6", "chosen": "x = 3", "rejected": "6"}) + "\n"
                for n in range(12))
    )  # fmt: skip
    recipe(tmp_path, str(model_folder))
    said = json.loads(invoke(tmp_path / "recipe.yaml", "--hardware", "h100", "--json").output)
    for key in ("memory_gib", "hours", "cost"):
        assert said[key].keys() == {"low", "likely", "high"}
        assert said[key]["low"] <= said[key]["likely"] <= said[key]["high"]
    assert said["assumptions"]
    assert not (tmp_path / "run").exists()
    text = invoke(tmp_path / "recipe.yaml", "--hardware", "h100").output
    assert "dollars" in text
    assert max(map(len, text.splitlines())) <= 150


def test_a_config_alone_is_enough(tmp_path: Path) -> None:
    folder = tmp_path / "seven"
    LlamaConfig(**LLAMA).save_pretrained(folder)
    recipe(tmp_path, str(folder), model__lora={"rank": 8}, model__dtype="bfloat16",
           model__path=str(folder))  # fmt: skip
    said = json.loads(invoke(tmp_path / "recipe.yaml", "--hardware", "a100-80", "--json").output)
    assert any("was not read" in line for line in said["assumptions"])
    assert said["parameters"] == 6_738_415_616


@pytest.mark.parametrize(
    ("more", "expected"),
    [({}, (30, 60)), ({"max_turns": 6}, (3 * 30, 6 * 60)),
     ({"max_turns": 6, "max_episode_tokens": 80}, (80, 80)), ({"max_turns": 1}, (30, 60))],
)  # fmt: skip
def test_an_episode_is_as_long_as_its_turns(
    more: dict[str, Any], expected: tuple[int, int]
) -> None:
    world = {"file": "e.py", "class": "E", **more} if more else None
    rollout = RolloutRecipe.model_validate(
        {"group_size": 4, "max_tokens": 60, "environment": world}
    )
    mean, longest, said = answer_lengths(rollout)
    assert (mean, longest) == expected
    assert ("max_turns" in said) == bool(more)


def test_another_hardware_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="h100"):
        hardware("gpu9000")
    table = tmp_path / "mine.toml"
    table.write_text('prices_of = "2026"\n[mine]\nname = "Mine"\nkind = "cpu"\n')
    with pytest.raises(UsageError, match="memory_gib"):
        hardware("mine", table)
    table.write_text("prices_of = \n")
    with pytest.raises(UsageError, match="TOML"):
        hardware("mine", tmp_path / "mine.toml")


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    table = tmp_path / "own.toml"
    table.write_text('prices_of = "2026"\n[mine]\nname = "Mine"\nkind = "cuda"\nmemory_gib = 10\n'
                     "tflops = 5\ngb_per_second = 100\nprice = [1, 2, 3]\n")  # fmt: skip
    assert hardware("mine", table).price == Range(1.0, 2.0, 3.0)
    assert hardware("mine", table).prices_of == "2026"
    with table.open("a") as file:
        file.write('prices_of = "2027"\n')
    assert hardware("mine", table).prices_of == "2027", "a row may have a date of its own"


def test_time_left_after_twenty_steps() -> None:
    """Evals every tenth step are part of it; the slow first step is not."""
    left, now = Remaining(), 100.0
    for step in range(1, 42):
        took = 50.0 if step == 1 else 2.0
        now += took + 5.0 * (step % 10 == 0)
        said = left.after(step, 100, now, took)
        assert (said is None) == (step < 21)
    assert said == pytest.approx(59 * (2.0 + 0.5))


def test_one_long_step_does_not_move_the_time_left_and_shorter_steps_do() -> None:
    left, now = Remaining(), 0.0
    for step, took in enumerate([4.0] * 20 + [400.0] + [4.0] * 9, 1):
        now += took
        said = left.after(step, 130, now, took)
    assert said == pytest.approx(100 * 4.0)
    for step in range(31, 51):
        now += 1.0
        said = left.after(step, 150, now, 1.0)
    assert said == pytest.approx(100 * 1.0), "the steps of long ago say nothing any more"


def test_the_time_left_stands_with_every_printed_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe, where no bar shows it: anew each time, and no longer after the last step."""
    clock = iter(range(100, 1000, 10))
    monkeypatch.setattr("strop.cli.show.time.monotonic", lambda: float(next(clock)))
    piped = StringIO()
    with Progress(False, Console(file=piped, width=200)) as progress:
        for step in range(1, 31):
            progress.step(StepRecord(step, 30, {"loss": 1.0, "step_time": 10.0}))
    lines = piped.getvalue().splitlines()
    assert "left" not in lines[19]
    assert lines[20] == "  step 21/30  loss 1  1 min 30 s left"
    assert lines[28].endswith("10 s left")
    assert lines[29] == "  step 30/30  loss 1"


def test_a_terminal_shows_the_time_left_in_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100, 10_000, 10))
    shown = StringIO()
    with Progress(False, Console(file=shown, force_terminal=True, width=120)) as progress:
        progress.start(SimpleNamespace(sources=[], checks={}, total_steps=40), 0)  # type: ignore[arg-type]
        assert progress.bar is not None
        monkeypatch.setattr("strop.cli.show.time.monotonic", lambda: float(next(clock)))
        for step in range(1, 31):
            progress.step(StepRecord(step, 40, {"loss": 1.0, "step_time": 10.0}))
        assert progress.bar.tasks[0].fields["left"] == "  1 min 40 s left"
        progress.bar.refresh()
    assert "1 min 40 s left" in shown.getvalue()


def test_seconds_in_words() -> None:
    assert [spoken(s) for s in (42.4, 185, 4320)] == ["42 s", "3 min 5 s", "1 h 12 min"]
