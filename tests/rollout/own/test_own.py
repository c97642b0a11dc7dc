"""Classes in TRL's `environment_factory` form, each episode in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from strop.errors import DataError, WorldError
from strop.recipe.train.environment import OwnEnvironmentRecipe
from strop.rollout.environment import FaultError, Said
from strop.rollout.environments import way_of
from strop.rollout.own.toolbox import OwnToolbox, OwnToolboxes
from strop.rollout.play import Player
from strop.rollout.tools.toolbox import ToolEnvironment, ToolResult
from strop.text.tools import Call
from strop.types import Origin, Task
from tests.support.agents import speaker
from tests.support.episodes import ScriptedEngine, asked
from tests.support.templates import PLAIN

FILE = Path(__file__).parent / "worlds.py"
TASK = Task("What is 2 + 3?", {"answer": 5, "level": 1}, Origin("tasks.jsonl", 1))


def recipe(name: str, **settings: Any) -> OwnEnvironmentRecipe:
    return OwnEnvironmentRecipe.model_validate({"file": str(FILE), "class": name, **settings})


@pytest.fixture(scope="module")
def calculators() -> Iterator[OwnToolboxes]:
    made = OwnToolboxes(recipe("Calculator", call_seconds=0.5, retries=1))
    yield made
    asyncio.run(made.close())


@contextlib.asynccontextmanager
async def begun(boxes: OwnToolboxes, task: Task = TASK) -> AsyncIterator[OwnToolbox]:
    box = boxes.make("0")
    try:
        await box.begin(task)
        yield box
    finally:
        await box.close()


def call(name: str, **arguments: Any) -> Call:
    return Call(name, arguments)


def test_a_class_without_tools_is_one_turn(tokenizer: Any) -> None:
    """As in TRL: its text is read, the answer ends the episode, and its reward counts."""
    given = recipe("Greeted")
    way = way_of(given)
    assert (list(way.tools or ()), way.rewards) == ([], True)
    plain = speaker(tokenizer, PLAIN)
    prompts: list[str] = []

    def say(prompt: str, request: Any) -> str:
        prompts.append(prompt)
        return "Hello."

    player = Player(ScriptedEngine(plain, say), way.play(plain, 512), given)
    try:
        ((_, episode),) = player.generate(asked(plain, [[{"role": "user", "content": "Go."}]]))
    finally:
        player.close()
    assert "Go. Say hello." in prompts[0]
    assert (episode.finish, episode.reward, len(episode.turns)) == ("stop", 0.75, 1)


def test_public_methods_are_tools_by_their_schemas(calculators: OwnToolboxes) -> None:
    functions = {tool["function"]["name"]: tool["function"] for tool in calculators.tools or ()}
    assert sorted(functions) == ["add", "hang", "later", "leave", "over", "picture", "told"]
    assert functions["add"]["description"] == "Add two numbers."
    assert functions["add"]["parameters"] == {
        "type": "object",
        "properties": {
            "a": {"type": "number", "description": "The first number."},
            "b": {"type": "number", "description": "The second number."},
        },
        "required": ["a", "b"],
    }
    assert functions["later"]["parameters"]["properties"]["way"]["enum"] == ["up", "down"]
    assert calculators.rewards
    assert calculators.bounds is None


def test_an_episode(calculators: OwnToolboxes) -> None:
    async def played() -> tuple[Any, ...]:
        box = calculators.make("0")
        said = await box.begin(TASK)
        results = await asyncio.gather(
            box.call(call("add", a=2, b=3)), box.call(call("later", word="hm")),
            box.call(call("told")),
        )  # fmt: skip
        reward = await box.reward()
        await box.close()
        return said, results, reward

    said, results, reward = asyncio.run(played())
    assert said == " hello: ['level', 'prompt']"  # `answer` has a name of its own
    assert [r.text for r in results] == ["5", "hm Way.UP", "['add', 'later']"]
    assert not any(r.error for r in results)
    assert reward == 1.0


def test_instances_share_nothing(calculators: OwnToolboxes) -> None:
    async def played() -> tuple[str, float | None]:
        async with begun(calculators) as one, begun(calculators) as other:
            await one.call(call("add", a=2, b=3))
            return (await other.call(call("told"))).text, await other.reward()

    assert asyncio.run(played()) == ("[]", 0.0)


ERRORS = [
    (call("over"), ToolResult("{'error': 'Game over.'}", "raised")),
    (call("add", a=1), ToolResult(
        str({"error": "missing a required argument: 'b'"}), "arguments")),
    (call("picture", with_text=True), ToolResult("a hill")),
    (call("picture", with_text=False), ToolResult(
        "{'error': \"picture: a result has parts that are no text: ['image', 'text']\"}",
        "garbled")),
    (call("hang"), ToolResult("{'error': 'hang: no answer within 0.5 s'}", "hung")),
    (call("leave"), ToolResult("{'error': 'leave: its process ended'}", "crashed")),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "told"), ERRORS, ids=lambda value: getattr(value, "name", ""))
def test_what_the_policy_brings_about_is_told_and_the_episode_goes_on(
    calculators: OwnToolboxes, asked: Call, told: ToolResult
) -> None:
    async def played() -> tuple[ToolResult, str, float | None]:
        async with begun(calculators) as box:
            await box.call(call("add", a=2, b=3))
            result = await box.call(asked)
            return result, (await box.call(call("told"))).text, await box.reward()

    assert asyncio.run(played()) == (told, "['add']", 1.0)


@pytest.mark.parametrize("name", ["reset", "get_reward", "_private", "helper", "multiply"])
def test_what_is_no_tool_is_not_called(calculators: OwnToolboxes, name: str) -> None:
    async def played() -> ToolResult:
        async with begun(calculators) as box:
            return await box.call(call(name))

    result = asyncio.run(played())
    assert result.error == "unknown"
    assert "add, hang, later" in result.text


def test_a_call_that_is_called_off_does_not_answer_the_next(calculators: OwnToolboxes) -> None:
    async def played() -> ToolResult:
        async with begun(calculators) as box:
            await box.call(call("add", a=2, b=3))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await box.call(call("hang"))
            return await box.call(call("told"))

    assert asyncio.run(played()).text == "['add']"


def test_draws_are_those_of_the_first_process_and_a_repeated_call_draws_anew() -> None:
    async def played() -> list[tuple[str | None, str, list[ToolResult]]]:
        episodes = []
        for number in (0, 1, 2, 3, 4, 0):
            box = boxes.make(str(number))
            said = await box.begin(TASK)
            rolls = [await box.call(call("roll")) for _ in range(6)]
            episodes.append((said, (await box.call(call("look"))).text, rolls))
            await box.close()
        await boxes.close()
        return episodes

    boxes = OwnToolboxes(recipe("Dice", retries=20))
    episodes = asyncio.run(played())
    assert all(said == looked for said, looked, _ in episodes)  # in whatever process it is by then
    assert len({said for said, _, _ in episodes}) == 5
    assert episodes[5][0] == episodes[0][0], "an episode's key decides what its environment draws"
    rolled = [int(roll.text) for _, _, rolls in episodes[:5] for roll in rolls]
    assert len(set(rolled)) == 30  # and none of them fell off the table for good
    assert all(number % 3 for number in rolled)


async def three_steps(boxes: OwnToolboxes, episodes: int, at_once: int) -> list[Any]:
    """Rewards of episodes of three steps, or the fault."""
    places = asyncio.Semaphore(at_once)

    async def one(number: int) -> Any:
        async with places:
            box = boxes.make(str(number))
            try:
                await box.begin(TASK)
                results = [await box.call(call("step")) for _ in range(3)]
                return await box.reward(), [r.error for r in results]
            except FaultError as fault:
                return fault
            finally:
                await box.close()

    try:
        return await asyncio.gather(*(one(number) for number in range(episodes)))
    finally:
        await boxes.close()


@pytest.mark.parametrize(
    "episodes", [12, pytest.param(500, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_injected_faults_lose_no_episode_and_cost_none_its_reward(episodes: int) -> None:
    """A call fails with 0.2 whatever the draws, each way with 1/15. Six tries fail alike with
    3 * 15^-6, so that among 1,500 calls of 500 episodes one is told so with 4e-4."""
    boxes = OwnToolboxes(recipe("Faulty", call_seconds=1.0, retries=5))
    ended = asyncio.run(three_steps(boxes, episodes, at_once=8))
    assert ended == [(1.0, ["", "", ""])] * episodes


@pytest.mark.parametrize(
    ("prompt", "said"),
    [("begin", r"beginning an episode failed 2 times: .*worlds.py:\d+: reset raised OSError: the"),
     ("end", "get_reward failed 2 times: get_reward raised ValueError: get_reward returned nan")],
)  # fmt: skip
def test_a_world_that_cannot_begin_or_say_its_reward_is_at_fault(prompt: str, said: str) -> None:
    async def played() -> None:
        try:
            async with begun(boxes, Task(prompt, {}, Origin("tasks.jsonl", 1))) as box:
                assert (await box.call(call("nothing"))).text == ""
                await box.reward()
        finally:
            await boxes.close()

    boxes = OwnToolboxes(recipe("Cursed", retries=1))
    retried = said.replace("2", "4") if prompt == "begin" else said
    with pytest.raises(FaultError, match=retried):
        asyncio.run(played())


def alive(pid: int) -> bool:
    """Whether a process is there that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int]) -> bool:
    until = time.monotonic() + 20
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.01)
    return not any(alive(pid) for pid in pids)


def test_nothing_is_left_of_an_episode_or_of_a_server() -> None:
    async def played() -> list[int]:
        box, other = boxes.make("0"), boxes.make("0")
        pids = [int(pid) for pid in str(await box.begin(TASK)).split()]
        pids += [int(pid) for pid in str(await other.begin(TASK)).split()]
        assert all(alive(pid) for pid in pids)
        waiting = asyncio.create_task(box.call(call("wait")))
        await asyncio.sleep(0.2)
        waiting.cancel()
        await box.close()
        assert await asyncio.to_thread(gone, pids[:2])
        assert all(alive(pid) for pid in pids[2:])
        await boxes.close()  # while an episode is still there
        return pids

    boxes = OwnToolboxes(recipe("Shouting"))
    assert gone(asyncio.run(played()))


async def nothing_is_left(boxes: OwnToolboxes) -> bool:
    """Whether no episode's process is there any more."""
    server = boxes._server._process.pid
    until = time.monotonic() + 20
    while _children(server) and time.monotonic() < until:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)  # a process that begins after the end has begun by then
    return not _children(server)


def test_a_call_of_a_turn_that_ended_by_a_fault_begins_no_process(tmp_path: Path) -> None:
    """It waits for its turn while the one before it fails."""
    task = Task("Go.", {"tries": str(tmp_path / "tries")}, Origin("tasks.jsonl", 1))

    async def played() -> bool:
        environment = ToolEnvironment(boxes.make("0"))
        await environment.reset(task)
        calls = (call("fail"), call("look"))
        with pytest.raises(FaultError, match="fail failed"):
            await environment.step(Said({"role": "assistant", "tool_calls": []}, "", calls))
        await environment.close()
        ended = await nothing_is_left(boxes)
        await boxes.close()
        return ended

    boxes = OwnToolboxes(recipe("Fickle", retries=1))
    assert asyncio.run(played())


def test_no_call_begins_a_process_once_its_episode_is_over(tmp_path: Path) -> None:
    task = Task("Go.", {"tries": str(tmp_path / "tries")}, Origin("tasks.jsonl", 1))

    async def played() -> tuple[list[Any], bool]:
        box, late = boxes.make("0"), boxes.make("1")
        await box.begin(task)
        calling = [asyncio.create_task(box.call(call(name))) for name in ("wait", "look")]
        calling.append(asyncio.create_task(late.begin(task)))  # its process is on its way
        await asyncio.sleep(0)
        await late.close()
        await asyncio.sleep(0.2)
        await box.close()
        said = await asyncio.gather(*calling, return_exceptions=True)
        ended = await nothing_is_left(boxes)
        await boxes.close()
        return said, ended

    boxes = OwnToolboxes(recipe("Fickle", call_seconds=60.0, retries=1))
    said, ended = asyncio.run(played())
    assert [str(one) for one in said] == ["the episode is over"] * 3
    assert ended


def test_a_server_that_ended_is_started_again() -> None:
    async def played() -> tuple[str, float | None]:
        async with begun(boxes) as box:
            await box.call(call("add", a=2, b=3))
            os.kill(boxes._server._process.pid, 9)
            boxes._server._process.wait()
            told = (await box.call(call("told"))).text, await box.reward()
        await boxes.close()
        return told

    boxes = OwnToolboxes(recipe("Calculator"))
    assert asyncio.run(played()) == ("['add']", 1.0)


def test_a_file_that_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    broken = {
        "import nowhere_at_all\n": "cannot be imported: ModuleNotFoundError",
        "import os\nos._exit(1)\n": "the process that imports the file ended",
    }
    for text, said in broken.items():
        path = tmp_path / f"{len(text)}.py"
        path.write_text(text)
        with pytest.raises(WorldError, match=said):
            OwnToolboxes(OwnEnvironmentRecipe.model_validate({"file": str(path), "class": "A"}))


@pytest.mark.slow
def test_memory_does_not_grow_over_2000_episodes() -> None:
    def kept(pid: int) -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def played() -> list[tuple[int, int, int]]:
        seen = []
        for _ in range(20):
            for _ in range(100):
                async with begun(boxes) as box:
                    await box.call(call("step", n=1))
                    await box.call(call("step", n=2))
            pids = (os.getpid(), boxes._server._process.pid)
            files = len(os.listdir(f"/proc/{pids[1]}/fd"))
            seen.append((kept(pids[0]), kept(pids[1]), files))
        await boxes.close()
        return seen

    boxes = OwnToolboxes(recipe("Grown"))
    seen = asyncio.run(played())
    early, late = seen[1], seen[-1]
    assert late[0] - early[0] < 4 * 2**20  # what 1,800 episodes would keep is 1.8 GB
    assert late[1] - early[1] < 4 * 2**20
    assert late[2] <= early[2] + 2


def test_a_task_without_a_column_that_reset_needs_is_refused_before_the_run() -> None:
    boxes = OwnToolboxes(recipe("Asking"))
    try:
        boxes.expect(Task("Where?", {"city": "Bern"}, Origin("tasks.jsonl", 1)))
        with pytest.raises(
            DataError, match=r"tasks\.jsonl:2: `reset` of Asking reads the column `c"
        ):
            boxes.expect(Task("Where?", {"answer": "Bern"}, Origin("tasks.jsonl", 2)))
    finally:
        asyncio.run(boxes.close())


@pytest.mark.parametrize("module", ["strop.rollout.own.server", "strop.rollout.tools.worker"])
def test_a_file_that_never_ends_its_import_does_not_outlive_the_run(
    module: str, tmp_path: Path
) -> None:
    """Both kinds of process end when the run's end of their link closes, whatever they are at."""
    endless = tmp_path / "endless.py"
    endless.write_text("import subprocess\nsubprocess.Popen(['sleep', '600'])\nwhile True: pass\n")
    ours, theirs = socket.socketpair()
    served = module.endswith("server")
    process = subprocess.Popen(
        [sys.executable, "-m", module, *([str(theirs.fileno())] if served else []),
         str(endless), "name"],
        stdin=None if served else theirs, pass_fds=[theirs.fileno()] if served else [],
        stdout=subprocess.DEVNULL, start_new_session=not served,
    )  # fmt: skip
    theirs.close()
    try:
        until = time.monotonic() + 60
        while not _children(process.pid) and time.monotonic() < until:
            time.sleep(0.05)
        children = _children(process.pid)
        assert children
        ours.close()
        process.wait(timeout=60)
        assert all(not Path(f"/proc/{child}/cmdline").read_bytes() for child in children
                   if Path(f"/proc/{child}").exists())  # fmt: skip
    finally:
        process.kill()


def _children(pid: int) -> list[int]:
    said = Path(f"/proc/{pid}/task/{pid}/children")
    return list(map(int, said.read_text().split())) if said.exists() else []


@pytest.mark.parametrize(
    ("reward", "said"),
    [("'1.0'", "get_reward raised TypeError: get_reward returned the text '1.0', which is no"),
     ("b'1'", "which is no number"), ("[1]", "get_reward raised TypeError: float"),
     ("True", ""), ("2", "")],
)  # fmt: skip
def test_a_reward_is_a_number_and_no_text(reward: str, said: str, tmp_path: Path) -> None:
    """As of reward functions (docs/rewards.md)."""
    text = f"class World:\n    def reset(self): ...\n    def get_reward(self): return {reward}\n"
    (tmp_path / "world.py").write_text(text)
    boxes = OwnToolboxes(
        OwnEnvironmentRecipe.model_validate(
            {"file": str(tmp_path / "world.py"), "class": "World", "retries": 0}
        )
    )

    async def reward_of() -> float | None:
        try:
            async with begun(boxes) as box:
                return await box.reward()
        finally:
            await boxes.close()

    if said:
        with pytest.raises(FaultError, match=said):
            asyncio.run(reward_of())
    else:
        assert asyncio.run(reward_of()) == float(eval(reward))


BROKEN = """import random

{more}

class World:
    def __init__(self{needs}):
        {made}

    def {begin}(self): ...

    def get_reward(self{of}):
        return 1.0
"""


@pytest.mark.parametrize(
    ("broken", "name", "said"),
    [({"more": "import nowhere_at_all"}, "World", r"world.py:3: the file cannot be imported: Mod"),
     ({"more": "1 +"}, "World", r"world.py:3: the file cannot be imported: SyntaxError"),
     ({"more": "1 / 0"}, "World", r"world.py:3: the file cannot be .*\n  fix: mend this line"),
     ({}, "Wrld", r"world.py: the file has no class .*\n  fix: did you mean 'World'"),
     ({"needs": ", rows"}, "World", r"world.py:5: World needs arguments to be made: rows"),
     ({"made": "open('/nowhere/x')"}, "World", r"world.py:7: World\(\) raised FileNotFoundError"),
     ({"begin": "begin"}, "World", r"world.py:5: World has no method `reset`"),
     ({"of": ", task"}, "World", r"world.py:11: `get_reward` of World needs task")],
)  # fmt: skip
def test_each_refusal_names_the_line(
    broken: dict[str, str], name: str, said: str, tmp_path: Path
) -> None:
    whole = {"more": "", "needs": "", "made": "pass", "begin": "reset", "of": "", **broken}
    (tmp_path / "world.py").write_text(BROKEN.format(**whole))
    with pytest.raises(WorldError, match=said):
        OwnToolboxes(
            OwnEnvironmentRecipe.model_validate({"file": str(tmp_path / "world.py"), "class": name})
        )
