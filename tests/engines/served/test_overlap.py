"""The embedded engine as a server: requests join those that decode."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request, Sampling
from strop.engines.local.engine import LocalEngine
from strop.engines.server.held import Held
from strop.model.adapters import add_lora
from strop.model.load import load_for_inference
from strop.recipe.train.model import LoraRecipe
from strop.types import Origin, Task
from tests.support.arrivals import expect_same

LONG, SHORT = 60, 4
IDS = (2, 40, 41, 42, 43, 3, *range(20, 34))


@pytest.fixture
def held(model_folder: Path) -> Iterator[Held]:
    """Without an end-of-sequence token, so that answers are as long as they may be."""
    held = Held(str(model_folder))
    held.engine._sampler.stop_ids = frozenset()
    yield held
    held.close()


def request(tokens: int, seed: int = 0, ids: tuple[int, ...] = IDS) -> Request:
    prompt = PromptedTask(Task("", {}, Origin("t", 0)), ids)
    return Request(prompt, Sampling(max_tokens=tokens), DrawKey(seed, "served"))


def finished(asked: dict[str, Future[Any]]) -> list[str]:
    """The names in the order in which answers came."""
    order: list[str] = []
    for name, future in asked.items():
        future.add_done_callback(lambda _, name=name: order.append(name))  # type: ignore[misc]
    for future in asked.values():
        future.result(60)
    return order


def test_a_later_short_request_is_answered_before_an_earlier_long_one(
    held: Held, model_folder: Path
) -> None:
    long = held.sample(request(LONG), None)
    short = held.sample(request(SHORT, seed=1, ids=(*IDS[:18], 50)), None)
    assert finished({"long": long, "short": short}) == ["short", "long"]
    engine = LocalEngine(str(model_folder))
    engine._sampler.stop_ids = frozenset()
    wanted = dict(engine.generate([request(LONG), request(SHORT, seed=1, ids=(*IDS[:18], 50))]))
    expect_same(long.result().what, wanted[0])
    expect_same(short.result().what, wanted[1])


def test_an_answer_says_the_name_that_its_weights_had(held: Held) -> None:
    """Also where they are called otherwise before it ends: that waits for it."""
    before = held.sample(request(LONG), None)
    called = held.call_weights("7")
    after = held.sample(request(SHORT), None)
    assert finished({"before": before, "called": called, "after": after}) == [
        "before", "called", "after",
    ]  # fmt: skip
    assert (before.result().version, after.result().version) == ("0", "7")


def test_scores_do_not_wait_and_new_weights_do(held: Held, model_folder: Path) -> None:
    long = held.sample(request(LONG), None)
    score = held.score(IDS, None)
    reload = held.reload(str(model_folder))
    late = held.sample(request(SHORT), None)
    order = finished({"long": long, "score": score, "reload": reload, "late": late})
    assert order == ["score", "long", "reload", "late"]


def test_nobody_waits_for_an_answer_that_was_called_off(held: Held) -> None:
    held.sample(request(LONG), None).cancel()
    others = [held.sample(request(LONG, seed=n), None) for n in (1, 2)]
    others[0].cancel()
    assert len(others[1].result(60).what.ids) == LONG
    assert len(held.sample(request(SHORT), None).result(60).what.ids) == SHORT


def test_adapters_take_turns(held: Held, model_folder: Path, tmp_path: Path) -> None:
    """A short answer of an adapter does not wait for a long one of the model alone, and is what
    that adapter says when nothing else is asked."""
    policy = load_for_inference(str(model_folder))
    torch.manual_seed(0)
    add_lora(policy.model, LoraRecipe(rank=2)).save_pretrained(tmp_path / "adapter")
    held.load_adapter("a", str(tmp_path / "adapter")).result(60)
    alone = held.sample(request(SHORT), "a").result(60).what
    long = held.sample(request(LONG), None)
    short = held.sample(request(SHORT), "a")
    assert finished({"long": long, "short": short}) == ["short", "long"]
    expect_same(short.result().what, alone)
