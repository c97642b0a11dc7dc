"""A run that was broken off goes on: nothing is asked twice, and it ends as an unbroken one."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from strop.curate.synthetic.best_of import best_of, reject
from strop.curate.synthetic.critique import critique
from strop.curate.synthetic.engines import engine_for
from strop.curate.synthetic.generation import Generated, Target
from strop.curate.synthetic.reason import reason
from strop.curate.synthetic.self_instruct import self_instruct
from strop.errors import BudgetError, UnscoredError
from strop.files import sha256_hex
from strop.recipe.loading.load import load
from strop.recipe.synthetic import (
    BestOfRecipe,
    CritiqueRecipe,
    GenerateRecipe,
    ReasonRecipe,
    RejectRecipe,
    SelfInstructRecipe,
)
from strop.recipe.train.reward import RewardFile
from strop.rewards.compose import Reward
from tests.support.generated import known_reward, prompts_file, written
from tests.support.processes import Child
from tests.support.runs import Stop
from tests.support.servers import ChatServer, chat_server

ROWS = [{"prompt": f"What is {n} and {n + 1} and how do you know?"} for n in range(8)]


def reply(body: dict[str, Any]) -> str:
    """What a server says, a function of prompt and seed alone."""
    asked, seed = body["messages"][-1]["content"], body["seed"]
    name = sha256_hex(f"{seed} {asked}", 6)
    if "numbered from" in asked:
        return "\n".join(f"{n}. Tell {name} why {n} {sha256_hex(name * n, 9)}." for n in (7, 8))
    if "<revision>" in asked:
        return f"<revision>{name}</revision>"
    return f"<think>{name}</think> {int(name, 16) % 7}"


def score(text: str) -> float:
    return float(text.rsplit(" ", 1)[1])


REWARD = known_reward(score)

Make = Callable[[Any, Any, Any, Target], Generated]

KINDS: dict[str, tuple[type[GenerateRecipe], dict[str, Any], Make]] = {
    "best-of": (
        BestOfRecipe,
        {"samples": 3, "keep": "pair"},
        lambda read, engine, recipe, to: best_of(read, engine, REWARD, recipe, to),
    ),
    "reject": (
        RejectRecipe,
        {"samples": 3, "threshold": 4},
        lambda read, engine, recipe, to: reject(read, engine, REWARD, recipe, to),
    ),
    "reason": (
        ReasonRecipe,
        {"samples": 3, "threshold": 4, "first": "diverse"},
        lambda read, engine, recipe, to: reason(read, engine, REWARD, recipe, to),
    ),
    "critique": (CritiqueRecipe, {"rounds": 2}, critique),
    "self-instruct": (SelfInstructRecipe, {"count": 16}, self_instruct),
}  # type: ignore[dict-item]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server(reply) as running:
        yield running


def make(
    kind: str, folder: Path, read: list[Any], stop_after: int | None = None, **engine: Any
) -> Generated:
    """One run of a kind, broken off after so many answers."""
    recipe_class, given, run = KINDS[kind]
    recipe = load(recipe_class, {"at_once": 2, **given})

    def on_progress(done: int, total: int) -> None:
        if stop_after is not None and done >= stop_after:
            raise Stop

    folder.mkdir(exist_ok=True)
    to = Target(folder / "out.jsonl", on_progress=on_progress)
    return run(read, engine_for(recipe, to, **engine), recipe, to)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_an_endpoint_is_asked_nothing_twice(kind: str, server: ChatServer, tmp_path: Path) -> None:
    read = prompts_file(tmp_path, ROWS)
    asks = {"url": server.url, "model_name": "teacher"}
    for stop_after in (1, 5, 11):
        with pytest.raises(Stop):
            make(kind, tmp_path / "broken", read, stop_after, **asks)
        assert not (tmp_path / "broken" / "out.jsonl").exists()
    made = make(kind, tmp_path / "broken", read, **asks)
    times = Counter(json.dumps(body, sort_keys=True) for body in server.asked)
    assert set(times.values()) == {1}
    assert len(times) == made.cost.answers
    assert made.records >= 3
    unbroken = make(kind, tmp_path / "unbroken", read, **asks)
    assert len(server.asked) == 2 * len(times)
    assert files(tmp_path / "broken") == files(tmp_path / "unbroken")
    assert unbroken.cost.asked == unbroken.cost.answers
    assert {path.name for path in (tmp_path / "broken").iterdir()} == {
        name for name in ("out.jsonl", "out.manifest.json", "out.dropped.jsonl")
        if name != "out.dropped.jsonl" or made.dropped
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["best-of", "critique"])
def test_a_model_in_this_process_samples_nothing_twice(
    kind: str, tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, kind, (KINDS[kind][0], {**KINDS[kind][1], "keep_cut": True,
                        "sampling": {"max_tokens": 6}}, KINDS[kind][2]))  # fmt: skip
    monkeypatch.setattr("tests.support.generated.plain", lambda text: f"{text} {len(text)}")
    rows = [{"prompt": f"Solve {n}x + 1 = {n}"} for n in range(2, 6)]
    read = prompts_file(tmp_path, rows)
    with pytest.raises(Stop):
        make(kind, tmp_path / "broken", read, 4, model=str(model_folder))
    kept = sum(1 for _ in (tmp_path / "broken/.out.jsonl.partial/answers.jsonl").open())
    assert kept >= 4
    made = make(kind, tmp_path / "broken", read, model=str(model_folder))
    assert made.cost.asked == made.cost.answers - kept
    make(kind, tmp_path / "unbroken", read, model=str(model_folder))
    assert files(tmp_path / "broken") == files(tmp_path / "unbroken")


def test_a_cache_serves_later_runs_with_other_settings(server: ChatServer, tmp_path: Path) -> None:
    read = prompts_file(tmp_path, ROWS)
    asked = []
    for number, keep in enumerate(("pair", "best")):
        recipe = BestOfRecipe(samples=3, keep=keep)  # type: ignore[arg-type]
        to = Target(tmp_path / f"{number}.jsonl", cache=tmp_path / "cache")
        engine = engine_for(recipe, to, url=server.url, model_name="teacher")
        asked.append(best_of(read, engine, REWARD, recipe, to).cost.asked)
    assert asked == [24, 0]
    assert len(server.asked) == 24


def test_a_budget_ends_a_run_and_a_larger_one_goes_on(server: ChatServer, tmp_path: Path) -> None:
    read = prompts_file(tmp_path, ROWS)
    to = Target(tmp_path / "out.jsonl")
    for most in (10, 14):
        recipe = load(BestOfRecipe, {"samples": 3, "requests": {"most_requests": most}})
        engine = engine_for(recipe, to, url=server.url, model_name="teacher")
        if most == 10:
            with pytest.raises(BudgetError, match="budget of 10 requests is used up"):
                best_of(read, engine, REWARD, recipe, to)
        else:
            assert best_of(read, engine, REWARD, recipe, to).records > 0
    assert len(server.asked) == 24


@pytest.mark.filterwarnings("ignore:.*got no answer")
def test_a_server_that_goes_away_ends_the_run_and_a_refusal_does_not(tmp_path: Path) -> None:
    refused = {2: 400, 5: 422}

    def sometimes(body: dict[str, Any]) -> Any:
        number = int(body["messages"][-1]["content"].split()[2])
        return 503 if number == 7 and down.is_set() else refused.get(number, reply(body))

    down = threading.Event()
    down.set()
    read = prompts_file(tmp_path, ROWS)
    recipe = load(BestOfRecipe, {"samples": 2, "at_once": 3, "requests": {"retries": 0}})
    to = Target(tmp_path / "out.jsonl")
    with chat_server(sometimes) as server:
        asks = {"url": server.url, "model_name": "teacher"}
        with pytest.raises(UnscoredError, match=r"status 503[\s\S]*what was answered is kept"):
            best_of(read, engine_for(recipe, to, **asks), REWARD, recipe, to)
        down.clear()
        engine = engine_for(recipe, to, **asks)
        with pytest.warns(UserWarning, match="got no answer"):
            made = best_of(read, engine, REWARD, recipe, to)
    assert made.dropped == {"failed": 4}
    assert len(written(tmp_path)) == 6
    whole = [
        body for body in server.asked if body["messages"][-1]["content"].split()[2] not in "257"
    ]
    assert set(Counter(json.dumps(body, sort_keys=True) for body in whole).values()) == {1}


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """`kill -9`, by the command line: what was answered is not asked again."""
    goes_on = threading.Event()
    counted = threading.Lock()
    answered: list[str] = []

    def stalls(body: dict[str, Any]) -> str:
        with counted:
            stalled = len(answered) >= 7 and not goes_on.is_set()
            if not stalled:
                answered.append(json.dumps(body, sort_keys=True))
        if stalled:
            goes_on.wait(60)
        return reply(body)

    prompts_file(tmp_path, ROWS)
    (tmp_path / "rewards.py").write_text(
        "def last(prompts, completions, **columns):\n"
        "    return [float(c.split()[-1]) for c in completions]\n"
    )
    reward = {"reward": [{"function": "last", "file": "rewards.py"}]}
    (tmp_path / "reward.yaml").write_text(yaml.safe_dump(reward))
    with chat_server(stalls) as server:
        command = ["data", "generate", "best-of", "prompts.jsonl", "--url", server.url,
                   "--model-name", "teacher", "--reward", "reward.yaml", "--samples", 3,
                   "--set", "requests.at_once=2", "--output"]  # fmt: skip
        child = Child([*command, "out.jsonl"], tmp_path / "said", cwd=tmp_path)
        kept = tmp_path / ".out.jsonl.partial/requests"
        child.until(lambda: len(list(kept.glob("*.json"))) == 7)
        child.kill()
        goes_on.set()
        again = Child([*command, "out.jsonl"], tmp_path / "again", cwd=tmp_path)
        assert again.end() == 0, again.said
        assert set(Counter(answered).values()) == {1}
        assert len(answered) == 24
        assert "24 answers" in again.said
        recipe = BestOfRecipe(samples=3)
        to = Target(tmp_path / "whole.jsonl")
        engine = engine_for(recipe, to, url=server.url, model_name="teacher")
        judge = Reward(load(RewardFile, tmp_path / "reward.yaml").reward)
        best_of([tmp_path / "prompts.jsonl"], engine, judge, recipe, to)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not list(tmp_path.glob(".*"))
