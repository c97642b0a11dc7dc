"""Engines that give no tokens, the synchronous source, a folder as an engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.data.order import DataMixture, Part
from strop.engines.draws import DrawKey
from strop.engines.engine import (
    Engine,
    Request,
    Sampling,
)
from strop.engines.local.engine import LocalEngine
from strop.engines.openai import OpenAIEngine
from strop.engines.recorded import RecordedEngine
from strop.errors import UsageError
from strop.recipe.loading.load import load_recipe
from strop.rollout.collect import collect
from strop.rollout.source import SynchronousSource
from strop.types import (
    Completion,
    Judged,
    Rollout,
    Score,
)
from tests.support.asking import ask_all, tasks
from tests.support.runs import WriteRows
from tests.support.sampling import prompted

PROMPTS = [(9, 11, 12), (8,), (10, 13, 14, 15, 16), (17, 18)]
FREE = Sampling(temperature=1.0, max_tokens=8)
GREEDY = Sampling(temperature=0, max_tokens=8)


class TestWithoutTokens:
    """What an endpoint and recorded answers cannot do, and say so."""

    @pytest.fixture(params=["endpoint", "recorded"])
    def engine(self, request: Any, url: str, write_rows: WriteRows) -> Engine:
        if request.param == "endpoint":
            return OpenAIEngine(url, "mine")
        rows = [{"item": name, "completion": name.upper()} for name in ("b", "c")]
        return RecordedEngine(str(write_rows("said.jsonl", rows)))

    def test_they_answer(self, engine: Engine) -> None:
        found = dict(ask_all(engine, tasks("b", "c")))
        assert [found[n].said for n in (0, 1)] == ["B", "C"]

    def test_they_refuse_the_rest(self, engine: Engine) -> None:
        for refused in (engine.policy, lambda: engine.score([])):
            with pytest.raises(UsageError, match="likelihoods"):
                refused()
        with pytest.raises(UsageError, match="no weights"):
            engine.publish({})

    def test_their_answers_are_not_trained_on(self, engine: Engine) -> None:
        prompts = engine.prompted(tasks("b", "c"), FREE)
        with pytest.raises(UsageError, match="can be judged, but not trained on"):
            collect(
                prompts, engine, lambda rollouts: Judged((), ()), group_size=1, sampling=FREE,
                key=DrawKey(0, "training"),
            )  # fmt: skip


class Noted:
    """An engine that notes what happened, in order; answers are two tokens."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def publish(self, weights: Mapping[str, torch.Tensor]) -> int:
        self.events.append(("published", float(weights["w"])))
        return len(self.events)

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        first = requests[0]
        self.events.append((first.key.stream, first.key.step, first.sampling.temperature))
        for number, request in enumerate(requests):
            ids = (request.prompt.prompt_ids[0], request.key.index)
            yield number, Completion.one_turn(ids, "x", (-1.0, -1.0), "stop")


class ByIndex:
    def judge_rollouts(self, rollouts: Sequence[Rollout]) -> Judged:
        values = [float(c.ids[1]) for rollout in rollouts for c in rollout.completions]
        return Judged(tuple(Score(value, {"f": value}) for value in values), ())


class TestSynchronousSource:
    def source(self, recipes: dict[str, Path], weight: list[float]) -> SynchronousSource:
        recipe: Any = load_recipe(recipes["grpo"], ["rollout={group_size: 2, temperature: 0.7}"])
        engine: Any = Noted()
        reward: Any = ByIndex()
        return SynchronousSource(
            recipe, prompted([(n,) for n in range(10, 30)]),
            DataMixture([Part(False, 0, 20, 1.0)], 4, 0), engine, reward,
            publish=lambda: engine.publish({"w": torch.tensor(weight[-1])}),
        )  # fmt: skip

    def test_every_step_samples_with_the_weights_of_its_moment(
        self, recipes: dict[str, Path]
    ) -> None:
        weight = [0.0]
        source = self.source(recipes, weight)
        source.next(0, position=0)
        weight.append(1.0)
        source.next(1, position=1)
        weight.append(2.0)
        held = source.held_out(prompted([(5,)]), source.reward, samples=3, temperature=0.0)
        assert source.engine.events == [  # type: ignore[attr-defined]
            ("published", 0.0), ("training", 0, 0.7),
            ("published", 1.0), ("training", 1, 0.7),
            ("published", 2.0), ("held_out", 0, 0.0),
        ]  # fmt: skip
        assert [score.total for score in held.groups[0].scores] == [0.0, 1.0, 2.0]

    def test_the_tasks_are_those_of_the_position(self, recipes: dict[str, Path]) -> None:
        """A run that went back reads on, at another position than its step."""
        source = self.source(recipes, [0.0])
        gathered = source.next(2, position=3)
        expected = [10 + i for i in source.mixture.draw(3).own]
        assert [g.rollout.prompt_ids[0] for g in gathered.groups] == expected
        assert [task.prompt_ids[0] for task in source.tasks(3)] == expected

    def test_another_source_goes_on_the_same(self, recipes: dict[str, Path]) -> None:
        source, other = self.source(recipes, [0.0]), self.source(recipes, [0.0])
        source.next(0, position=0)
        other.load(source.state())
        assert other.next(1, position=1) == source.next(1, position=1)
        with pytest.raises(UsageError, match=r"rollouts that were under way \(pending\)"):
            other.load({"pending": [1]})


def test_a_folder_is_an_engine_that_renders(model_folder: Path) -> None:
    engine = LocalEngine(str(model_folder))
    (prompt,) = engine.prompted(tasks("2x = 6"), FREE)
    assert prompt.prompt_ids == tuple(engine.tokenizer()("2x = 6")["input_ids"])
    with pytest.raises(UsageError, match=r"t.jsonl:1: the longest prompt and its answer need"):
        engine.prompted(tasks("2x = 6"), Sampling(max_tokens=10**6))
