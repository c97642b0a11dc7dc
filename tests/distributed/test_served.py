"""Several processes that sample from servers: the answers and weights of one process."""

from __future__ import annotations

import json
import os
import signal
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.distributed.world import ALONE, World
from strop.engines.served.shared import SharedEngine
from strop.errors import HttpError, RecipeError
from strop.recipe.loading.load import load_recipe
from strop.train.preflight.alike import expect_world
from strop.train.run import train
from strop.types import StepRecord
from tests.support.engine_processes import process
from tests.support.engine_servers import engine_server
from tests.support.gloo import Raised, in_processes
from tests.support.runs import final_weights, metrics, write_jsonl

STEPS = 3
ASYNC = "rollout.source={kind: async, max_staleness: "


def part(world: World, path: Path, options: Sequence[str], ends_after: int, resume: bool) -> Any:
    """A run, of which the first process is told to end after a step; its warnings."""

    def tell(record: StepRecord) -> None:
        if record.step == ends_after:
            os.kill(os.getpid(), signal.SIGTERM)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        train(load_recipe(path, list(options)), resume=resume, world=world, on_step=tell)
    return [str(one.message) for one in told if one.category is UserWarning]


def options_of(output: Path, url: str, *more: str) -> list[str]:
    """Three prompts a step over two processes: one asks for one of them."""
    sampling = f"rollout={{group_size: 4, max_tokens: 12, engine: {{kind: vllm, url: '{url}'}}}}"
    steps = [f"run.steps={STEPS}", "run.batch_size=3", "optim.learning_rate=1e-4"]
    return [f"output={output}", sampling, *steps, *more]


def expect_equal(run: Path, other: Path) -> None:
    """The same answers, the same log, the same weights to 1e-5."""
    said = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    also = [json.loads(line) for line in (other / "samples.jsonl").read_text().splitlines()]
    assert [(one["step"], one["completion"]) for one in said] == [
        (one["step"], one["completion"]) for one in also
    ]
    for row, same in zip(metrics(run), metrics(other), strict=True):
        assert row.keys() >= same.keys() - {"mismatch/logprob_difference"}
        for name in ("reward", "reward_std", "num_tokens", "entropy", "loss", "grad_norm"):
            assert row[name] == pytest.approx(same[name], rel=1e-3, abs=1e-5), name
    right = final_weights(other)
    for name, weight in final_weights(run).items():
        assert torch.allclose(weight, right[name], atol=1e-5), name


CUT = ("run.distributed.shard=full",)
ADAPTER = ("model.lora.rank=4", "rollout.parity_every=2")


@pytest.mark.parametrize(
    ("given", "cases"),
    [
        (ADAPTER, [(), (f"{ASYNC}0}}",)]),
        ((), [CUT]),
        pytest.param(ADAPTER, [CUT], marks=pytest.mark.slow),
        pytest.param(
            ("rollout.engine.sync=broadcast",), [(), (*CUT, f"{ASYNC}0}}")], marks=pytest.mark.slow
        ),
    ],
)
def test_two_processes_sample_and_learn_as_one(
    given: Sequence[str],
    cases: Sequence[Sequence[str]],
    recipes: dict[str, Path],
    model_folder: Path,
    tmp_path: Path,
) -> None:
    """By an adapter, by whole weights, by weights that are cut, and by a source that may be ahead
    of the trainer."""
    with process(model_folder) as url:
        alone = tmp_path / "alone"
        part(ALONE, recipes["grpo"], options_of(alone, url, *given), 0, False)
        for number, added in enumerate(cases):
            output = tmp_path / f"two-{number}"
            options = options_of(output, url, *given, *added)
            assert in_processes(2, part, recipes["grpo"], options, 0, False) == [[], []]
            expect_equal(output, alone)
            assert not (output / "engine").exists()
            checks = json.loads((output / "lineage.json").read_text())["self_check"]
            assert checks["sampler_mismatch"] < 1e-5
            assert checks["engine"]["servers"] == [url]


SERVED = "{{kind: vllm, url: '{url}'}}"
PLAYED = f"stop: {list('0123456789x=+ -nt')}, environment: {{user: {{turns: more}}, max_turns: 4}}"


@pytest.mark.parametrize("more", [(), (f"{ASYNC}0}}",)], ids=["together", "by the first"])
def test_two_processes_play_episodes_as_one(
    more: Sequence[str], recipes: dict[str, Path], model_folder: Path, tmp_path: Path
) -> None:
    """Each plays those of its prompts with the servers; a user answers twice."""
    rows = [json.loads(line) for line in (recipes["grpo"].parent / "tasks.jsonl").open()]
    data = write_jsonl(
        tmp_path / "tasks.jsonl", [{**row, "more": ["3?", "x = 2?"]} for row in rows]
    )
    with process(model_folder) as url:
        engine = SERVED.format(url=url)
        rollout = f"rollout={{group_size: 4, max_tokens: 12, engine: {engine}, {PLAYED}}}"
        for name in ("alone", "two"):
            options = [*options_of(tmp_path / name, url), rollout, f"data={data}", *more]
            if name == "alone":
                part(ALONE, recipes["grpo"], options, 0, False)
            else:
                assert in_processes(2, part, recipes["grpo"], options, 0, False) == [[], []]
    expect_equal(tmp_path / "two", tmp_path / "alone")
    turns = [row["episode/turns"] for row in metrics(tmp_path / "two")]
    assert all(1.5 < mean < 3.0 for mean in turns), turns


def test_an_asynchronous_run_goes_on_with_other_numbers_and_loses_no_prompt(
    recipes: dict[str, Path], model_folder: Path, tmp_path: Path
) -> None:
    """Two processes, then one, then three; what is outstanding is kept by the first."""
    output = tmp_path / "run"
    with process(model_folder) as url:
        given = ["model.lora.rank=4", f"{ASYNC}2}}", "run.steps=9"]
        options = options_of(output, url, *given)
        for count, ends_after in ((2, 3), (1, 6), (3, 0)):
            resume = ends_after != 3
            first = in_processes(count, part, recipes["grpo"], options, ends_after, resume)[0]
            if ends_after:
                assert isinstance(first, Raised)
                assert (first.kind, first.exit_code) == ("StoppedBySignal", 143), first
    rows = metrics(output)
    assert [row["step"] for row in rows] == list(range(1, 10))
    for row in rows:
        assert row["async/learnt"] == 3 * row["step"]
        assert row["async/drawn"] == row["async/learnt"] + row["async/pending"]
        assert row["async/dropped"] == 0
        assert row["async/staleness_max"] <= 2
    assert max(row["async/staleness_max"] for row in rows) == 2
    last = json.loads((output / "checkpoint-9/trainer.json").read_text())["parts"]
    tickets = last["rollouts"]["tickets"]
    assert (tickets["drawn"], tickets["learnt"], tickets["outstanding"]) == (27, 27, [])


def test_what_a_process_gets_no_answer_to_is_asked_for_by_the_first(
    recipes: dict[str, Path], model_folder: Path, tmp_path: Path
) -> None:
    """The second process cannot reach the server at all; the samples are those of one process."""
    with engine_server(model_folder) as server:
        options = options_of(tmp_path / "alone", server.url)
        part(ALONE, recipes["grpo"], options, 0, False)
        options = options_of(tmp_path / "two", server.url)
        first, second = in_processes(2, _without_servers, recipes["grpo"], options)
    assert all("is left out until it answers again" in said for said in second)
    assert any("process 1 got no answer to" in said for said in first), first
    expect_equal(tmp_path / "two", tmp_path / "alone")


def test_servers_cannot_read_weights_that_are_cut(recipes: dict[str, Path]) -> None:
    given = ["rollout.engine={kind: vllm, url: 'http://127.0.0.1:9', sync: ipc}"]
    two: Any = type("Two", (), {"rank": 0, "size": 2})
    expect_world(load_recipe(recipes["grpo"], given), two)
    with pytest.raises(RecipeError, match="leaves no process all of them"):
        expect_world(load_recipe(recipes["grpo"], [*given, "run.distributed.shard=full"]), two)


def _without_servers(world: World, path: Path, options: Sequence[str]) -> Any:
    """As `part`; on all but the first process no server answers once the run has begun."""

    def unreachable(self: Any, request: Any, server: Any) -> Any:
        raise HttpError("no route to host", where=server.url)

    if world.rank:
        SharedEngine._sample = unreachable  # type: ignore[method-assign]
    return part(world, path, options, 0, False)
