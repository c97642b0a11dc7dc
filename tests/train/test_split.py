"""How GPUs are split: the period by hand, by a queue's law and by events; plans and refusals."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from transformers import LlamaConfig, Qwen3Config
from typer.testing import CliRunner, Result

from strop.cli.app import app
from strop.cli.estimate import SPLIT_HEADING, split_line
from strop.errors import UsageError
from strop.recipe.loading.load import load_recipe
from strop.recipe.train.methods import Recipe
from strop.train.preflight.cost.fleet import Answers, Fleet
from strop.train.preflight.cost.hardware import hardware
from strop.train.preflight.cost.measured import measured, slowed
from strop.train.preflight.cost.period import batch_seconds, generation, period, queued
from strop.train.preflight.cost.shape import shape_of
from strop.train.preflight.cost.split import Planner, Speeds, plan, planner
from strop.train.preflight.cost.workload import assumed_workload

SMALL = Qwen3Config(vocab_size=32_000, hidden_size=1024, intermediate_size=3072,
                    num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8,
                    head_dim=128, tie_word_embeddings=True)  # fmt: skip
LARGE = LlamaConfig(vocab_size=128_256, hidden_size=8192, intermediate_size=28_672,
                    num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8,
                    head_dim=128, tie_word_embeddings=False)  # fmt: skip


@pytest.mark.parametrize(
    ("generate", "update", "staleness", "seconds", "waits"),
    [(6.0, 4.0, 0, 11.0, (4 / 11, 6 / 11)), (6.0, 4.0, 1, 7.0, (0.0, 2 / 7)),
     (4.0, 6.0, 1, 7.0, (2 / 7, 0.0)), (5.0, 5.0, 3, 6.0, (0.0, 0.0))],
)  # fmt: skip
def test_the_period_by_hand(
    generate: float, update: float, staleness: int, seconds: float, waits: tuple[float, float]
) -> None:
    """With a second for the weights: one after the other, or the slower of both."""
    found = period(generate, update, staleness, sync=1.0)
    assert (found.seconds, found.generator_idle, found.trainer_idle) == pytest.approx(
        (seconds, *waits)
    )
    queue = queued([generate] * 4000, [update] * 4000, staleness, 1.0)
    assert (queue.seconds, queue.generator_idle, queue.trainer_idle) == pytest.approx(
        (seconds, *waits), abs=0.01
    )


@pytest.mark.parametrize("staleness", [0, 1, 2, 4, 9])
def test_a_bounded_queue_of_chance_times(staleness: int) -> None:
    """Two exponential servers with equal means m, of which one may be s jobs ahead, take
    m (s + 2) / (s + 1) a job (a birth-death chain of s + 2 states that are equally likely)."""
    rng = np.random.default_rng(7)
    generate, update = rng.exponential(5.0, (2, 40_000))
    found = queued(generate.tolist(), update.tolist(), staleness)
    assert found.seconds == pytest.approx(5.0 * (staleness + 2) / (staleness + 1), rel=0.02)
    assert found.trainer_idle == pytest.approx(1 / (staleness + 2), abs=0.02)


def test_the_first_batches_of_a_queue_by_hand() -> None:
    """With staleness 1, batch 2 waits for update 1, not for update 2: ends at 3, 8, 9 and 12."""
    found = queued([1.0, 5.0, 1.0, 3.0], [2.0, 0.0, 1.0, 0.0], 1)
    assert found.seconds == pytest.approx(max(6 + 0, 6 + 1 + 1, 7 + 3) / 4)


def test_filling_the_queue_is_not_part_of_a_step() -> None:
    """Three steps were measured, and a run has many: the first update waits for the first batch,
    no later one does. Where sampling takes 2 and 10 seconds in turns beside training that takes 6,
    updates are published at 8, 18, 24, 34, 40 and so on: every 8 seconds."""
    found = queued([4.0] * 3, [6.0] * 3, 1)
    assert (found.seconds, found.trainer_idle) == pytest.approx((6.0, 0.0))
    found = queued([2.0, 10.0], [6.0, 6.0], 1)
    assert (found.seconds, found.generator_idle) == pytest.approx((8.0, 0.25))
    assert queued([5.0], [5.0], 4).seconds == pytest.approx(5.0)


def events(
    rows: int, lengths: Callable[[], int], spent: Callable[[int], float], update: float,
    staleness: int, sync: float, engines: int = 2, batches: int = 24,
) -> float:  # fmt: skip
    """Seconds a step, by following every round of every engine, answer by answer."""
    left: list[dict[tuple[int, int], int]] = [{} for _ in range(engines)]
    missing = [rows * engines] * batches
    begun, version, busy_until = 0, 0, 0.0
    published, now = [0.0], 0.0
    queue = [(0.0, engine) for engine in range(engines)]
    training: float | None = None
    while version < batches:
        while begun < batches and begun - version <= staleness:
            for row in range(rows * engines):
                left[row % engines][begun, row] = lengths()
            begun += 1
        now, engine = heapq.heappop(queue)
        if training is None and missing[version] == 0:
            training = max(now, published[-1]) + update
        if training is not None and now >= training:
            version, busy_until, training = version + 1, training + sync, None
            published.append(busy_until)
        at_work = left[engine]
        waits = max(now, busy_until)
        ends = waits + (spent(len(at_work)) if at_work else 0.02)
        for answer in list(at_work):
            at_work[answer] -= 1
            if at_work[answer] == 0:
                del at_work[answer]
                missing[answer[0]] -= 1
        heapq.heappush(queue, (ends, engine))
    half = batches // 2
    return (published[-1] - published[half]) / (batches - half)


FLAT, STEEP, BOTH = (0.1, 0.0), (0.0, 0.01), (0.05, 0.002)
"""Seconds of a round, and of each of its rows: bound by the weights, by the rows, by either."""


def both_ways(cost: tuple[float, float], staleness: int, update: float) -> tuple[float, float]:
    """The period by the model and by events, for answers whose longest is three times the mean."""
    rng, longest, rows, sync = np.random.default_rng(3), 90, 40, 0.3
    base, each = cost

    def length() -> int:
        return max(1, round(longest * (1 - rng.random() ** 0.5)))

    def rounds(active: Any) -> Any:
        return np.maximum(base, each * active)

    seen = events(rows, length, lambda n: max(base, each * n), update, staleness, sync)
    generate = generation(
        lambda overlap: batch_seconds(rows, longest / 3, longest, rounds, overlap),
        update, staleness, sync,
    )  # fmt: skip
    return period(generate, update, staleness, sync).seconds, seen


BUNCHED = (STEEP, 1, 6.0)
"""Batches that share an engine: the second test from here."""


@pytest.mark.parametrize(
    ("cost", "staleness", "update"),
    [case for case in product((FLAT, STEEP, BOTH), (0, 1, 3), (1.0, 6.0, 20.0)) if case != BUNCHED],
)
def test_the_model_agrees_with_events(
    cost: tuple[float, float], staleness: int, update: float
) -> None:
    modelled, seen = both_ways(cost, staleness, update)
    assert modelled == pytest.approx(seen, rel=0.15)


@pytest.mark.parametrize("update", [6.0, 9.0, 12.0])
def test_two_batches_that_share_an_engine_bunch(update: float) -> None:
    """Known gap: with staleness 1, engines that are bound by rows give each of two batches half of
    their speed; both end together, and then the engines wait. The period is up to a quarter longer
    than modelled, and at most as long as of two batches that end together."""
    modelled, seen = both_ways(STEEP, 1, update)
    assert 0.74 * seen < modelled < seen
    assert seen < modelled + update / 2 + 0.1


def test_a_batch_by_hand() -> None:
    """Rounds of a second: a batch alone lasts as long as its longest answer; of rows that each take
    a second, the answers' tokens count, however many batches are on their way."""
    alone = batch_seconds(10, 20, 40, np.ones_like, 1.0)
    assert alone == pytest.approx(40)
    assert batch_seconds(10, 20, 40, np.ones_like, 4.0) == pytest.approx(10)
    for overlap in (1.0, 2.5, 4.0):
        assert batch_seconds(10, 20, 40, lambda n: n, overlap) == pytest.approx(200, rel=0.01)
    assert batch_seconds(10, 40, 40, lambda n: n, 1.0) == pytest.approx(400)


def test_an_engines_round_by_hand() -> None:
    shape, device = shape_of(SMALL), hardware("h100")
    fleet = Fleet(shape, device, 2, Answers(64, 500.0, 2000.0, 200.0, 1600))
    slot = 2 * 28 * 8 * 128 * 2
    read = (2 * shape.parameters + 8 * slot * (200 + 1000)) / (3350e9 * 0.45)
    assert fleet.round(1, np.array([8.0])) == pytest.approx(read + 28 * 3e-5)
    faster = read / (2 * 0.95) + 28 * 3e-5
    assert fleet.round(2, np.array([8.0])) == pytest.approx(faster)
    fit = fleet.fit(1)
    assert fit == int((0.9 * 79.1 * 2**30 - 2 * shape.parameters) // (slot * 1200))
    full = fleet.round(1, np.array([float(fit)]))
    assert fleet.round(1, np.array([3.0 * fit])) == pytest.approx(3 * full)


def recipe(tmp_path: Path, **changes: Any) -> Recipe:
    told: dict[str, Any] = {
        "method": "grpo", "output": str(tmp_path / "run"), "data": "d.jsonl",
        "model": {"path": "MODEL", "dtype": "bfloat16"}, "text": {"max_length": 2200},
        "reward": [{"function": "repetition"}],
        "rollout": {"group_size": 8, "max_tokens": 2000},
        "optim": {"learning_rate": 1e-6},
        "run": {"steps": 100, "batch_size": 32, "micro_batch_tokens": 4400},
        **changes,
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in told.items() if value}))
    return load_recipe(path)


BY_SIZES = Speeds()


def model_of(made: Recipe, config: Any, speeds: Speeds = BY_SIZES, name: str = "h100") -> Planner:
    return planner(made, assumed_workload(made), hardware(name), speeds, config)


@pytest.mark.parametrize("gpus", [2, 7, 16, 64, 1024])
def test_a_plan_is_one_that_engines_permit(tmp_path: Path, gpus: int) -> None:
    model = model_of(recipe(tmp_path), SMALL)
    turn, synchronous, ahead = plan(model, gpus, 2)
    assert (turn.generating, turn.training, turn.times) == (gpus, gpus, 1.0)
    assert turn.period.seconds == pytest.approx(turn.generate + turn.update + turn.sync)
    for one in (synchronous, ahead):
        assert one.generating + one.training == gpus
        assert one.generating % one.tensor == 0
        assert one.tensor in (1, 2, 4, 8)
        assert one.generating % 8 == 0 or gpus <= 16
        assert one.times == pytest.approx(turn.period.seconds / one.period.seconds)
        hours = 100 * one.period.seconds / 3600
        assert one.dollars == pytest.approx(hours * gpus * model.device.price.likely)
    assert ahead.period.seconds < synchronous.period.seconds
    waits = synchronous.period.generator_idle + synchronous.period.trainer_idle
    assert waits == pytest.approx(1, abs=0.05), "one of both always waits"


@pytest.mark.parametrize(
    ("dollars", "said"),
    [(0.00421, "0.00421"), (0.4, "0.4"), (12.34, "12.3"), (99.6, "99.6"), (12_345.6, "12,346")],
)
def test_a_tiny_run_does_not_cost_nothing(tmp_path: Path, dollars: float, said: str) -> None:
    first, *_ = plan(model_of(recipe(tmp_path), SMALL), 2, 1)
    line = split_line(replace(first, dollars=dollars))
    assert line.split()[-1] == said
    assert len(line) == len(SPLIT_HEADING)


def test_every_other_split_is_slower(tmp_path: Path) -> None:
    """Of all splits of 16 GPUs, each worked out by the formula."""
    model = model_of(recipe(tmp_path), SMALL)
    best = plan(model, 16, 1)[-1]
    every = []
    for tensor in (1, 2, 4, 8):
        for generating in range(tensor, 16, tensor):
            update = model.update(16 - generating)
            generate = generation(
                lambda overlap, g=generating, t=tensor: model.batch(g, t, overlap),
                update, 1, model.sync(),
            )  # fmt: skip
            every.append(max(generate, update) + model.sync())
    assert best.period.seconds == pytest.approx(min(every))
    assert sorted(every)[1] > best.period.seconds


def test_training_that_is_divided_sends_its_gradients(tmp_path: Path) -> None:
    model = model_of(recipe(tmp_path), SMALL)
    count = shape_of(SMALL).parameters
    alone = model.update(1)
    assert model.update(4) - alone / 4 == pytest.approx(2 * 4 * count * 3 / 4 / 50e9)
    assert model.sync() == pytest.approx(2 * count / 50e9)
    adapted = recipe(tmp_path, model={"path": "M", "dtype": "bfloat16", "lora": {"rank": 4}})
    width = shape_of(SMALL).lora_width
    assert model_of(adapted, SMALL).sync() == pytest.approx(4 * 4 * width / 50e9)


def test_256_answers_keep_no_more_than_256_gpus_busy(tmp_path: Path) -> None:
    speeds = Speeds(network=1e9)
    model = model_of(recipe(tmp_path), SMALL, speeds)
    assert model.update(300) == pytest.approx(model.update(256), rel=1e-3)
    assert model.update(256) == pytest.approx(model.update(1) / 256, rel=1e-3)


def log(folder: Path, times: Sequence[tuple[float, float]], **more: float) -> Path:
    """A run whose steps sampled and trained so many seconds, after a slow first one."""
    folder.mkdir(exist_ok=True)
    rows = [
        {"step": number, "sampling_time": sampling, "step_time": sampling + training,
         "num_tokens": 256 * 500.0, "completions/count": 256, "completions/max_length": 1500.0,
         **more}
        for number, (sampling, training) in enumerate([(90.0, 90.0), *times], 1)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_measured_run_is_its_own_plan(tmp_path: Path) -> None:
    """On one GPU for each side the plan has the run's seconds, whatever sizes say."""
    run = measured(log(tmp_path / "before", [(4.0, 6.0)] * 400))
    assert (run.sampling, run.training) == (256 * 500 / 4.0, 256 * 500 / 6.0)
    assert (run.mean_length, run.longest) == (500.0, 1500.0)
    model = model_of(recipe(tmp_path), SMALL, Speeds(network=1e9, measured=run))
    assert model.batch(1, 1, 1.0) == pytest.approx(4.0)
    _, synchronous, ahead = plan(model, 2, 1)
    assert synchronous.period.seconds == pytest.approx(10.0, rel=0.01)
    assert ahead.period.seconds == pytest.approx(6.0, rel=0.01)
    assert ahead.period.generator_idle == pytest.approx(1 / 3, abs=0.01)


def test_steps_that_vary_wait_for_each_other(tmp_path: Path) -> None:
    """Of sampling that takes 2 and 10 seconds in turns beside training that takes 6: the mean of
    max(2, 6) and max(10, 6) is 8, not 6."""
    run = measured(log(tmp_path / "before", [(2.0, 6.0), (10.0, 6.0)] * 400))
    model = model_of(recipe(tmp_path), SMALL, Speeds(network=1e9, measured=run))
    ahead = plan(model, 2, 1)[-1]
    assert ahead.update == pytest.approx(6.0, rel=0.01)
    scale = ahead.generate / 6.0
    assert ahead.period.seconds == pytest.approx((6.0 + max(6.0, 10.0 * scale)) / 2, rel=0.02)


def test_training_beside_sampling_takes_as_long_as_it_was_measured_to(tmp_path: Path) -> None:
    """In turn 6 seconds a step; beside sampling 9 less 1.5 of waiting. The last step has nothing
    beside it, and the first ones fill the queue."""
    alone = measured(log(tmp_path / "before", [(4.0, 6.0)] * 4))
    rows = [
        {"step_time": 9.0, "async/trainer_idle": 1.5, "async/drawn": drawn, "num_tokens": 128000.0}
        for drawn in (48, 64, 80, 96)
    ]
    idle = [rows[0] | {"step_time": 99.0}, *rows, rows[-1] | {"step_time": 6.0}]
    folder = tmp_path / "beside"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in idle))
    factor = slowed(folder, alone)
    assert factor == pytest.approx(7.5 / 6.0)
    speeds = Speeds(network=1e9, measured=alone, beside=factor)
    in_turn, apart, ahead = plan(model_of(recipe(tmp_path), SMALL, speeds), 2, 1)
    assert apart.update == pytest.approx(6.0, rel=0.01), "nothing is sampled beside it"
    assert in_turn.update < apart.update, "two GPUs train"
    assert ahead.period.seconds == pytest.approx(7.5, rel=0.01)


@pytest.mark.parametrize(
    ("rows", "said"),
    [([{"step_time": 1.0}] * 3, "did not sample while it trained"),
     ([{"step_time": 1.0, "async/trainer_idle": 0.0, "async/drawn": 8}] * 3, "too short")],
)  # fmt: skip
def test_a_run_that_does_not_say_how_it_is_beside_sampling_is_refused(
    tmp_path: Path, rows: list[dict[str, float]], said: str
) -> None:
    alone = measured(log(tmp_path / "before", [(4.0, 6.0)] * 4))
    with pytest.raises(UsageError, match="--measured-beside wants a training run"):
        slowed(tmp_path, alone)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UsageError, match=said):
        slowed(tmp_path, alone)


def test_given_rates_scale_both_sides(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    work = assumed_workload(made)
    model = model_of(made, SMALL, Speeds(network=1e9, sampling=1000.0, training=4000.0))
    assert model.batch(1, 1, 1.0) == pytest.approx(work.sampled / 1000.0)
    assert model.update(1) == pytest.approx(work.sampled / 4000.0)


@pytest.mark.parametrize(
    ("changes", "config", "gpus", "name", "said"),
    [({"method": "sft", "reward": None, "rollout": None}, SMALL, 8, "h100", "samples nothing"),
     ({}, SMALL, 8, "cpu-server", "no GPU"), ({}, SMALL, 1, "h100", "from 2 on"),
     ({}, SMALL, 1025, "h100", "up to 1024"),
     ({"model": {"path": "M", "dtype": "float32"}}, LARGE, 8, "a10g", "do not hold an engine"),
     ({"model": {"path": "M", "dtype": "bfloat16", "gradient_checkpointing": True}}, LARGE, 8,
      "h100", "need 2")],
)  # fmt: skip
def test_what_cannot_be_split_is_refused(
    tmp_path: Path, changes: dict[str, Any], config: Any, gpus: int, name: str, said: str
) -> None:
    made = recipe(tmp_path, **changes)
    with pytest.raises(UsageError, match=said):
        plan(model_of(made, config, name=name), gpus, 1)


@pytest.mark.parametrize(
    ("rows", "said"),
    [([], "no step that sampled"), ([{"step": 1}, {"step": 2, "step_time": 1.0}], "no step that"),
     ([{"sampling_time": 1.0, "step_time": 2.0, "async/trainer_idle": 0.1}] * 3, "synchronous")],
)  # fmt: skip
def test_a_run_that_says_nothing_is_refused(
    tmp_path: Path, rows: list[dict[str, float]], said: str
) -> None:
    with pytest.raises(UsageError, match="this is empty"):
        measured(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UsageError) as caught:
        measured(tmp_path)
    assert said in str(caught.value)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["estimate", *map(str, arguments)])


@pytest.fixture
def told(tmp_path: Path) -> Path:
    SMALL.save_pretrained(tmp_path / "model")
    recipe(tmp_path, model={"path": str(tmp_path / "model"), "dtype": "bfloat16"})
    return tmp_path / "recipe.yaml"


def test_the_table_fits_a_terminal_and_says_what_is_best(told: Path) -> None:
    said = invoke(told, "--hardware", "h100", "--split", "--gpus", "8,64,1024").output
    lines = said.splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("assumed ") for line in lines) >= 6
    assert [line.split(":")[0] for line in lines if "GPUs: " in line] == [
        "8 GPUs", "64 GPUs", "1024 GPUs",
    ]  # fmt: skip
    table = lines[2:11]
    assert [int(line.split()[0]) for line in table] == [8] * 3 + [64] * 3 + [1024] * 3


def test_json_has_every_split(told: Path) -> None:
    said = json.loads(
        invoke(told, "--hardware", "h100", "--split", "--gpus", 64, "--max-staleness", 3, "--json")
        .output
    )  # fmt: skip
    assert [(one["placement"], one["max_staleness"]) for one in said["splits"]] == [
        ("in turn", 0), ("apart", 0), ("apart", 3),
    ]  # fmt: skip
    last = said["splits"][-1]
    assert last["generating"] + last["training"] == last["gpus"] == 64
    assert last["seconds"]["step"] == pytest.approx(
        max(last["seconds"]["generate"], last["seconds"]["update"]) + last["seconds"]["sync"]
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--gpus", 8], "--gpus says nothing without --split"), (["--split"], "needs --gpus"),
     (["--measured", "runs"], "--measured says nothing"), (["--split", "--gpus", "8;9"], "8;9"),
     (["--split", "--gpus", "1,8"], "2 to 1024"), (["--split", "--gpus", 8], "no GPU"),
     (["--split", "--gpus", 8, "--hardware", "h100", "--measured-beside", "runs"],
      "compared with a run in turn"),
     (["--max-staleness", 0], "--max-staleness says nothing"),
     (["--split", "--gpus", 8, "--hardware", "h100", "--measured", "nowhere"], "not there")],
)  # fmt: skip
def test_options_that_say_nothing_are_refused(told: Path, options: list[Any], said: str) -> None:
    result = invoke(told, *options)
    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)
