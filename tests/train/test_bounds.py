"""What model and data bound: positions, epochs shorter than a step, runs that have nothing left."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config
from typer.testing import CliRunner

from strop.cli.app import app
from strop.demo.world import solution, user
from strop.errors import DataError, OutputError, RecipeError
from strop.model.load import positions_of
from strop.recipe.loading.load import load_recipe
from strop.train.preflight.prepare import Prepared, prepare
from strop.train.preflight.prepared import PreparedOffline, PreparedOnline
from strop.train.run import train
from tests.support.runs import (
    EQUATIONS,
    WriteRows,
    break_off,
    final_weights,
    metrics,
    same,
    weights,
)

Prepare = Callable[..., Prepared]

POSITIONS = 40


@pytest.fixture(scope="module")
def short_model(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2, whose embeddings of positions end at 40: one more is an IndexError in torch."""
    folder = tmp_path_factory.mktemp("short")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=POSITIONS, n_embd=32, n_layer=2, n_head=2,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def checked(path: Path, *overrides: str, **options: Any) -> Prepared:
    options = {"resume": False, "overwrite": False, "force": True, **options}
    return prepare(load_recipe(path, overrides), **options)


class TestPositions:
    TOLD = "the model has 40 positions, so text.max_length is 40, not 2048: 1 records are dropped"

    @pytest.mark.parametrize(
        "method", ["cpt", "sft", "dpo", "kto", "reward_model", "grpo", "ppo", "online_dpo", "raft"]
    )
    def test_rows_beyond_them_are_dropped_or_cut_and_the_run_ends(
        self, method: str, recipes: dict[str, Path], short_model: Path, write_rows: WriteRows
    ) -> None:
        """A row of each kind that is far too long among short ones; every method trains."""
        long, asked = "1 2 3 4 5 6 7 8 9 " * 40, [{"role": "user", "content": "x ="}]
        said, asked_back, endless = (
            [{"role": "assistant", "content": text}] for text in ("7", "8 ", long)
        )
        pair = {"prompt": asked, "rejected": said, "margin": 1}
        thumb = {"prompt": asked, "completion": said}
        task = {"prompt": asked, "answer": "7"}
        rows: dict[str, list[dict[str, Any]]] = {
            "text": [{"text": long}, {"text": "x = 7"}],
            "sft": [{**thumb, "completion": endless}, thumb],
            "pairs": [{**pair, "chosen": endless}, {**pair, "chosen": asked_back}],
            "thumbs": [{**thumb, "completion": endless, "label": True}, {**thumb, "label": True},
                       {**thumb, "label": False}],
            "tasks": [{**task, "prompt": [{"role": "user", "content": long}]}, task],
        }  # fmt: skip
        for name, (first, *others) in rows.items():
            write_rows(f"{name}.jsonl", [first, *others * 8])
        options = [f"model.path={short_model}", "run.steps=2", "eval=null"]
        options += [f"value.path={short_model}"] if method == "ppo" else []
        with warnings.catch_warnings(record=True) as told:
            prepared = checked(recipes[method], *options)
        said_of = [str(warning.message) for warning in told]
        # documents are cut into pieces, and none is lost
        assert len(said_of) == (0 if method == "cpt" else 1)
        assert all(self.TOLD in text for text in said_of)
        assert prepared.checks["max_length"] == POSITIONS
        assert prepared.recipe.text.max_length == POSITIONS
        trees = prepared.rendered.trees if isinstance(prepared, PreparedOffline) else ()
        for tree in trees:
            longest = max(len(branch.ids) for branch in tree.branches)
            assert len(tree.trunk) + longest <= POSITIONS
        for prompt in prepared.tasks if isinstance(prepared, PreparedOnline) else ():
            assert len(prompt.prompt_ids) + 12 <= POSITIONS
        assert prepared.checks["dropped"] == (0 if method == "cpt" else 1)
        if method == "cpt":
            assert max(len(tree) for tree in trees) == POSITIONS, "a document is cut into pieces"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert train(load_recipe(recipes[method], options), force=True).is_dir()

    def test_a_limit_that_was_asked_for_is_said_to_be_too_high(
        self, recipes: dict[str, Path], short_model: Path
    ) -> None:
        options = [f"model.path={short_model}", "text={max_length: 41, overlong: cut}"]
        with pytest.warns(UserWarning, match="text.max_length is 40, not 41"):
            assert checked(recipes["sft"], *options).recipe.text.max_length == POSITIONS

    def test_a_limit_within_them_is_left_alone(
        self, recipes: dict[str, Path], short_model: Path
    ) -> None:
        options = [f"model.path={short_model}", "text={max_length: 39, overlong: cut}"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert checked(recipes["sft"], *options).recipe.text.max_length == 39

    def test_a_rollout_without_room_for_a_prompt_names_them(
        self, recipes: dict[str, Path], short_model: Path
    ) -> None:
        options = [f"model.path={short_model}", "rollout.max_tokens=40"]
        with pytest.raises(RecipeError, match="no room for a prompt in the 40 positions"):
            checked(recipes["grpo"], *options)

    def test_all_rows_beyond_them(
        self, recipes: dict[str, Path], short_model: Path, write_rows: WriteRows
    ) -> None:
        write_rows("sft.jsonl", [{"prompt": "Solve", "completion": "1 2 3 4 " * 30}])
        with pytest.raises(DataError, match=r"longer than 40 tokens\n.*the model's positions"):
            checked(recipes["sft"], f"model.path={short_model}", "eval=null")

    def test_the_critic_bounds_them_too(self, recipes: dict[str, Path], short_model: Path) -> None:
        prepared = checked(recipes["ppo"], f"value.path={short_model}")
        assert prepared.recipe.text.max_length == POSITIONS

    @pytest.mark.parametrize(
        ("rope", "most"),
        [
            ({"rope_type": "default", "rope_theta": 1e4}, 32768),
            # Qwen writes 32,768 or 131,072 for the same stretched model
            ({"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0,
              "original_max_position_embeddings": 32768}, 131072),
        ],
    )  # fmt: skip
    def test_stretched_positions_count(self, rope: dict[str, Any], most: int) -> None:
        config = Qwen3Config(max_position_embeddings=32768, rope_parameters=rope)
        assert positions_of(config) == most


class TestEpochs:
    @pytest.fixture
    def three(self, recipes: dict[str, Path], write_rows: WriteRows) -> Path:
        rows = [{"prompt": user(e), "completion": solution(e)} for e in EQUATIONS[:3]]
        write_rows("sft.jsonl", rows)
        return recipes["sft"]

    def test_a_step_holds_an_epoch_at_most(self, three: Path) -> None:
        """Three records, a batch of 64, five epochs: five steps of all three, once each."""
        options = ["run={epochs: 5, batch_size: 64}", "eval=null"]
        with pytest.warns(UserWarning, match="batch_size is 64, but there are 3 records"):
            rows = metrics(train(load_recipe(three, options)).parent)
        assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
        with pytest.warns(UserWarning, match="takes each of them once"):
            prepared = checked(three, *options, "output=other")
        assert all(sorted(prepared.mixture.draw(step).own) == [0, 1, 2] for step in range(5))

    def test_a_run_of_one_step_is_said(self, three: Path) -> None:
        options = ["run={epochs: 1, batch_size: 64}", "eval=null"]
        with pytest.warns(UserWarning, match="the whole run is one step of 3 records"):
            rows = metrics(train(load_recipe(three, options)).parent)
        assert [row["epoch"] for row in rows] == [1]

    def test_one_step_that_was_asked_for_is_not(self, three: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            prepared = checked(three, "run={steps: 1, batch_size: 3}", "eval=null")
            assert prepared.total_steps == 1
            assert checked(three, "run={epochs: 2, batch_size: 3}", "eval=null").total_steps == 2

    def test_steps_may_see_a_record_several_times(self, three: Path) -> None:
        """Who counts steps gets the batch that was asked for, and the epochs it is."""
        options = ["run={steps: 2, batch_size: 6}", "eval=null"]
        rows = metrics(train(load_recipe(three, options)).parent)
        assert [row["epoch"] for row in rows] == [2, 4]


class TestFinishedRuns:
    def test_more_steps_are_made(self, recipes: dict[str, Path]) -> None:
        """Killed in the middle of them, too: the run is then one to resume."""
        run = train(load_recipe(recipes["sft"])).parent
        before = final_weights(run)
        longer = load_recipe(recipes["sft"], ["run.steps=10"])

        break_off(longer, 9, force_resume=True)
        assert not (run / "final").exists()
        final = train(longer, resume=True)
        assert [row["step"] for row in metrics(run)] == list(range(1, 11))
        assert not same(before, weights(final))
        lineage = json.loads((run / "lineage.json").read_text())
        assert lineage["forced"] == [{"step": 6, "changes": ["run.steps: 6 -> 10"]}]
        assert lineage["final"]["step"] == 10

    @pytest.mark.parametrize("change", ["run.steps=6", "run.steps=4"])
    def test_no_more_steps_are_refused(self, change: str, recipes: dict[str, Path]) -> None:
        run = train(load_recipe(recipes["sft"])).parent
        other = load_recipe(recipes["sft"], ["optim.learning_rate=1e-5", change])
        with pytest.raises(OutputError, match="has made 6 steps and the recipe asks for"):
            train(other, force_resume=True)
        assert (run / "final").is_dir()

    def test_without_a_checkpoint_the_final_model_is_kept(self, recipes: dict[str, Path]) -> None:
        run = train(load_recipe(recipes["sft"])).parent
        for part in run.glob("checkpoint-*"):
            shutil.rmtree(part)
        (run / "latest").unlink()
        longer = load_recipe(recipes["sft"], ["run.steps=10"])
        with pytest.raises(OutputError, match="has no checkpoint left to resume from"):
            train(longer, force_resume=True)
        assert (run / "final").is_dir()

    def test_the_same_recipe_says_that_nothing_is_to_do(self, recipes: dict[str, Path]) -> None:
        command = ["train", str(recipes["sft"]), "--set", "eval=null"]
        first = CliRunner().invoke(app, command)
        assert "saved " in first.output, first.output
        for option in ("--resume", "--force-resume"):
            again = CliRunner().invoke(app, [*command, option])
            assert "nothing to do, the run is finished: " in again.output
            assert "saved" not in again.output


def test_a_bound_on_episodes_that_bounds_nothing_is_refused(recipes: dict[str, Path]) -> None:
    world = {"tools": [{"python": {}}], "max_episode_tokens": 64}
    more = [f"rollout.environment={json.dumps(world)}", "text.max_length=64"]
    with pytest.raises(RecipeError, match="max_episode_tokens 64 bounds nothing"):
        checked(recipes["grpo"], *more)
