"""An engine of the user's own, given to training and evals from a script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch

import strop
from strop.engines.engine import Request
from strop.engines.local.engine import LocalEngine
from strop.errors import RecipeError, UsageError
from strop.types import Completion
from tests.support.runs import metrics

Recipes = dict[str, Path]


class Counted(LocalEngine):
    """An engine with a model of its own that counts what it is asked."""

    asked = 0

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        self.asked += len(requests)
        return super().generate(requests)


class TestEngines:
    def test_an_engine_of_ones_own_samples_what_the_embedded_one_does(
        self, recipes: Recipes, model_folder: Path
    ) -> None:
        """It has a copy of the model: only what is published can make it sample the same."""
        options = {"eval": None, "run.steps": 3, "optim.learning_rate": 1e-2}
        plain = strop.train(recipes["grpo"], overrides={**options, "output": "runs/plain"})
        engine = Counted(str(model_folder))
        own = strop.train(
            recipes["grpo"], overrides={**options, "output": "runs/own"}, engine=engine
        )
        assert metrics(own.folder) == metrics(plain.folder)
        assert engine.version == 3  # before the self-check, and after every update but the last
        assert engine.asked >= 3 * 4 * 4
        assert own.lineage["self_check"]["engine"] == dict(engine.identity())
        assert "engine" not in plain.lineage["self_check"]

    def test_an_engine_that_never_takes_the_weights_is_seen(
        self, recipes: Recipes, model_folder: Path
    ) -> None:
        """The planted fault: the first step is the same, the second one samples old weights."""

        class Deaf(Counted):
            def publish(self, weights: Mapping[str, torch.Tensor]) -> int:
                return 0

        options = {"eval": None, "run.steps": 2, "optim.learning_rate": 1e-2}
        plain = strop.train(recipes["grpo"], overrides={**options, "output": "runs/plain"})
        own = strop.train(
            recipes["grpo"], overrides={**options, "output": "runs/own"},
            engine=Deaf(str(model_folder)),
        )  # fmt: skip
        first, second = zip(metrics(own.folder), metrics(plain.folder), strict=True)
        assert first[0] == first[1]
        difference = "mismatch/logprob_difference"
        assert second[0][difference] > 10 * second[1][difference]

    def test_mistakes(self, recipes: Recipes, model_folder: Path, tmp_path: Path) -> None:
        engine = Counted(str(model_folder))
        with pytest.raises(RecipeError, match="method sft samples nothing"):
            strop.train(recipes["sft"], engine=engine)
        suite = {"name": "own", "tasks": [{"name": "said", "data": "t.jsonl", "kind": "generate",
                                           "scores": [{"function": "exact_answer"}]}]}  # fmt: skip
        with pytest.raises(UsageError, match="an engine answers by itself"):
            strop.evaluate(suite, engine, output=tmp_path / "out", outputs="said.jsonl")
