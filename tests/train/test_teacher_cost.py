"""What a teacher adds to an estimate: its weights by hand, and its forwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from strop.model.load import load_config
from strop.recipe.loading.load import load_recipe
from strop.train.preflight.cost.duration import Duration, duration_of
from strop.train.preflight.cost.hardware import hardware
from strop.train.preflight.cost.memory import memory_of
from strop.train.preflight.cost.shape import shape_of
from strop.train.preflight.cost.teacher import Teacher, teacher_of
from strop.train.preflight.cost.workload import Workload, workload_of
from strop.train.preflight.prepare import prepare

WORK = Workload(steps=10, step_tokens=4096, supervised=2000, longest=512)


def found(path: Path, *options: str) -> tuple[Teacher | None, dict[str, int], Duration]:
    """The teacher, the parts of the memory and the time of a recipe."""
    recipe = load_recipe(path, options)
    config = load_config(recipe.model.path)
    shape = shape_of(config)
    memory = memory_of(recipe, config, shape, WORK, "cpu")
    device = replace(hardware("cpu-laptop"), tflops=0.001)
    return (
        teacher_of(recipe, shape),
        dict(memory.parts),
        duration_of(recipe, shape, WORK, memory, device),
    )


def test_its_weights_in_its_own_precision_and_in_fewer_bits(
    recipes: dict[str, Path], tmp_path: Path
) -> None:
    teacher, parts, _ = found(recipes["distil"])
    model = AutoModelForCausalLM.from_pretrained(recipes["distil"].parent / "teacher")
    count = sum(p.numel() for p in model.parameters())
    assert teacher == Teacher(count, 4 * count, once=False)
    assert parts["teacher"] == 4 * count
    model.bfloat16().save_pretrained(tmp_path / "half")
    half, _, _ = found(recipes["distil"], f"teacher={tmp_path}/half")
    assert half is not None
    assert half.held == 2 * count
    folder = recipes["distil"].parent / "teacher"
    few, _, _ = found(recipes["distil"], f"teacher={{path: {folder}, quantize: nf4}}")
    assert few is not None
    assert few.held == round(0.52 * count)


def test_the_student_itself_is_copied_only_where_all_of_it_is_trained(
    recipes: dict[str, Path],
) -> None:
    start, current = ("teacher={own: start, system: a}", "teacher={own: current, system: a}")
    count = shape_of(load_config(load_recipe(recipes["distil"]).model.path)).parameters
    held = [
        found(recipes["distil"], *options)[1].get("teacher", 0)
        for options in ((start,), (current,), (start, "model.lora.rank=4"))
    ]
    assert held == [4 * count, 0, 0]


def test_servers_and_records_take_nothing_here(recipes: dict[str, Path]) -> None:
    folder = recipes["distil"].parent / "teacher"
    served = f"teacher={{path: {folder}, engine: {{kind: vllm, url: http://127.0.0.1:1}}}}"
    assert found(recipes["on_policy_distil"], served)[0] is None
    assert found(recipes["distil"], "teacher={recorded: a.safetensors}")[0] is None


def test_its_forwards_are_of_every_step_or_before_the_first(recipes: dict[str, Path]) -> None:
    teacher, _, each = found(recipes["distil"])
    _, _, kept = found(recipes["distil"], "objective.top_k=8")
    _, _, none = found(recipes["sft"])
    assert teacher is not None
    seconds = 2 * teacher.parameters * WORK.step_tokens / (0.001e12 * 0.5)
    assert each.training.likely - none.training.likely == pytest.approx(seconds)
    assert kept.training.likely == pytest.approx(none.training.likely)
    assert kept.once.likely == pytest.approx(10 * seconds)


def test_own_samples_of_gkd_are_counted(recipes: dict[str, Path]) -> None:
    recipe = load_recipe(recipes["gkd"], ["run.batch_size=8", "objective.own_samples=0.5"])
    work = workload_of(prepare(recipe, resume=False, overwrite=True, force=False))
    assert (work.answers, work.sampled) == (4, 4 * 6)
