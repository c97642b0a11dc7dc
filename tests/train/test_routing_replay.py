"""Runs of a mixture of experts that replay the sampler's routes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from strop.api import train as train_with
from strop.cli.app import app
from strop.engines.engine import Request
from strop.engines.local.engine import LocalEngine
from strop.engines.server.held import Held
from strop.errors import RecipeError, UsageError
from strop.recipe.loading.load import load_recipe
from strop.train.loop.micro_batches import split_tree
from strop.train.preflight.prepare import prepare
from strop.train.run import train
from strop.types import Branch, Completion, Tree
from tests.support.engine_servers import engine_server
from tests.support.experts import drawn_routes, save_mixture
from tests.support.runs import break_off, final_weights, metrics, same, write_recipes

REPLAY = ("rollout.routing_replay=true", "run.steps=4")


@pytest.fixture(scope="module")
def folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mixture(tmp_path_factory.mktemp("mixture"), tokenizer)


@pytest.fixture
def mixtures(folder: Path, tmp_path: Path) -> dict[str, Path]:
    """The small recipes, with a mixture of experts as the model."""
    return write_recipes(tmp_path, folder)


def checks(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "lineage.json").read_text())["self_check"]
    return found


def test_the_command_trains_and_tries(mixtures: dict[str, Path], tmp_path: Path) -> None:
    asked = ["train", str(mixtures["grpo"]), "--set", "rollout.routing_replay=true",
             "--set", "run.steps=2"]  # fmt: skip
    tried = CliRunner().invoke(app, [*asked, "--dry-run"])
    assert tried.exit_code == 0, tried.output
    run = Path(yaml.safe_load(mixtures["grpo"].read_text())["output"])
    assert not list(tmp_path.rglob("metrics.jsonl"))
    trained = CliRunner().invoke(app, asked)
    assert trained.exit_code == 0, trained.output
    rows = metrics(tmp_path / run)
    # the embedded engine samples from the trainer's own tensors, so they part by rounding alone
    assert [row["mismatch/rerouted"] for row in rows] == [0.0, 0.0]
    assert max(row["mismatch/logprob_difference"] for row in rows) < 1e-4
    assert rows[0]["kl"] == 0.0  # the reference took the same way
    found = checks(tmp_path / run)
    assert found["sampler_rerouted"] == 0.0
    assert found["sampler_mismatch"] == pytest.approx(
        found["sampler_mismatch_unreplayed"], abs=1e-6
    )


def test_an_adapter_learns_along_the_same_routes(mixtures: dict[str, Path]) -> None:
    options = ["model.lora={rank: 4}", "model.gradient_checkpointing=true", "run.steps=2"]
    run = train(load_recipe(mixtures["grpo"], [*REPLAY, *options]), force=True).parent
    rows = metrics(run)
    assert [row["mismatch/rerouted"] for row in rows] == [0.0, 0.0]
    assert max(row["mismatch/logprob_difference"] for row in rows) < 1e-4
    assert any(row["grad_norm"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("method", "more"),
    [("grpo", ()), ("grpo", ("model.lora={rank: 4}",)), ("gspo", ()), ("ppo", ())],
    ids=["grpo", "grpo-lora", "gspo", "ppo"],
)
def test_stopped_and_resumed_is_bit_identical(
    method: str, more: tuple[str, ...], mixtures: dict[str, Path]
) -> None:
    options = [*REPLAY, "objective.num_iterations=2", "objective.mini_batches=2", *more]
    whole = train(load_recipe(mixtures[method], [*options, "output=whole"]), force=True).parent
    recipe = load_recipe(mixtures[method], options)
    break_off(recipe, 3, force=True)  # a checkpoint stands at 2
    parts = train(recipe, resume=True, force=True).parent
    assert same(final_weights(whole), final_weights(parts))
    assert metrics(whole) == metrics(parts)


def test_later_updates_of_a_step_keep_to_the_routes_that_were_sampled(
    mixtures: dict[str, Path],
) -> None:
    """The weights move within a step, and the router's own choice with them."""
    options = ["objective.num_iterations=4", "optim.learning_rate=0.003", "run.steps=2"]
    run = train(load_recipe(mixtures["grpo"], [*REPLAY, *options]), force=True).parent
    rerouted = [row["mismatch/rerouted"] for row in metrics(run)]
    assert 0 < min(rerouted) < 0.5


class Rerouted(LocalEngine):
    """Says other routes than it took, once the check before step 1 is over."""

    asked = 0

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        self.asked += 1
        for number, made in super().generate(requests):
            if self.asked > 1:
                made = replace(made, routes=drawn_routes(number, len(made.ids) - 1))
            yield number, made


class Silent(LocalEngine):
    """Does not say its routes."""

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        for number, made in super().generate(requests):
            yield number, replace(made, routes=None, prompt_routes=None)


def given(kind: type[LocalEngine], folder: Path) -> LocalEngine:
    return kind(str(folder))


def test_planted_wrong_routes_are_seen_in_the_log(mixtures: dict[str, Path], folder: Path) -> None:
    recipe = load_recipe(mixtures["grpo"], [*REPLAY, "run.steps=1"])
    row = metrics(train_with(recipe, engine=given(Rerouted, folder), force=True).folder)[0]
    assert row["mismatch/rerouted"] > 0.3
    assert row["mismatch/logprob_difference"] > 0.1


def test_an_engine_without_routes_is_refused(mixtures: dict[str, Path], folder: Path) -> None:
    recipe = load_recipe(mixtures["grpo"], REPLAY)
    with pytest.raises(UsageError, match="does not say which experts") as found:
        train_with(recipe, engine=given(Silent, folder), force=True)
    assert "--enable-return-routed-experts" in str(found.value)


class TestServers:
    """`strop engine serve`, in a thread."""

    def test_a_run_follows_a_server(self, mixtures: dict[str, Path], folder: Path) -> None:
        def tell(held: Held) -> None:
            held.routes = True

        with engine_server(folder, alter=tell) as server:
            asked = f"rollout.engine={{kind: vllm, url: '{server.url}'}}"
            run = train(load_recipe(mixtures["grpo"], [*REPLAY, asked]), force=True).parent
        rows = metrics(run)
        assert max(row["mismatch/logprob_difference"] for row in rows) < 1e-4
        assert max(row["mismatch/rerouted"] for row in rows) < 0.001

    def test_that_does_not_say_its_routes_is_refused_in_a_dry_run(
        self, mixtures: dict[str, Path], folder: Path
    ) -> None:
        with engine_server(folder) as server:
            asked = f"rollout.engine={{kind: vllm, url: '{server.url}'}}"
            recipe = load_recipe(mixtures["grpo"], [*REPLAY, asked])
            with pytest.raises(UsageError, match="does not say which experts"):
                prepare(recipe, resume=False, overwrite=False, force=True, dry_run=True)

    def test_of_a_dense_model_does_not_start(self, model_folder: Path) -> None:
        asked = ["engine", "serve", str(model_folder), "--port", "0",
                 "--enable-return-routed-experts"]  # fmt: skip
        said = CliRunner().invoke(app, asked)
        assert "Qwen3ForCausalLM has no router" in str(said.exception)


def test_a_group_that_is_cut_keeps_its_routes() -> None:
    branches = [Branch((5, 6, 7), (True,) * 3, drawn_routes(n, 2)) for n in range(4)]
    whole = Tree((1, 2), tuple(branches), drawn_routes(9, 2))
    parts = [part for part, _ in split_tree(whole, [1] * 4, 8)]
    assert [part.routes for part in parts] == [whole.routes] * 2
    assert [branch for part in parts for branch in part.branches] == branches


def test_a_dense_model_is_refused_before_it_is_loaded(recipes: dict[str, Path]) -> None:
    recipe = load_recipe(recipes["grpo"], REPLAY)
    with pytest.raises(UsageError, match="Qwen3ForCausalLM has no router") as found:
        train(recipe)
    assert str(recipe.model.path) in str(found.value)
    assert not (Path(recipe.output) / "metrics.jsonl").exists()


@pytest.mark.parametrize("method", ["raft", "online_dpo"])
def test_a_method_without_ratios_is_refused(method: str, mixtures: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match="does not read it"):
        train(load_recipe(mixtures[method], REPLAY))
