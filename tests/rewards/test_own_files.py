"""A user's file is imported as if it were run, and whatever it does ends nothing but itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from strop.cli import stopped
from strop.errors import EndedBySignal, RewardError
from strop.recipe.train.reward import RewardComponent
from strop.rewards.compose import Reward
from strop.rewards.own.functions import called, own_names

NEIGHBOUR = "def length(text): return float(len(text))\n"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The places and modules that an import leaves behind are taken away."""
    places, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = places
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def files(folder: Path, **texts: str) -> Path:
    """A folder of Python files, and the one of them that is imported."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    return folder / "mine.py"


def test_a_neighbour_is_found_from_any_folder(tmp_path: Path) -> None:
    """At the top of the file, and within a function once the file is imported."""
    mine = files(
        tmp_path / "far", strop_beside=NEIGHBOUR, strop_later="n = 7\n",
        mine="from strop_beside import length\n\ndef later():\n    import strop_later\n"
        "    return strop_later.n\n",
    )  # fmt: skip
    found = own_names(mine)
    assert found["length"]("four") == 4.0
    assert found["later"]() == 7


def test_a_neighbours_name_hides_no_library_from_others(tmp_path: Path) -> None:
    """The file itself gets its neighbour, as when it is run; who imports later gets the library."""
    assert "wave" not in sys.modules
    mine = files(tmp_path / "far", wave="mine = True\n", mine="def f():\n    import wave\n")
    own_names(mine)
    import wave

    assert wave.__file__ is not None
    assert not wave.__file__.startswith(str(tmp_path))


def test_a_reward_imports_its_neighbour(tmp_path: Path) -> None:
    mine = files(
        tmp_path / "far", strop_beside=NEIGHBOUR,
        mine="from strop_beside import length\n"
        "def f(prompts, completions): return [length(c) for c in completions]\n",
    )  # fmt: skip
    reward = Reward([RewardComponent(function="f", file=str(mine))])
    (score,) = reward.judge(["p"], ["four"], {}).scores
    assert score.total == 4.0


def test_a_file_that_exits_is_told(tmp_path: Path) -> None:
    mine = files(tmp_path, mine="import sys\nsys.exit(3)\n")
    with pytest.raises(RewardError, match="cannot be imported: SystemExit: 3"):
        own_names(mine)


def test_a_reward_that_exits_is_a_fault_and_a_signal_is_none() -> None:
    def exits(completions: list[str]) -> list[float]:
        raise SystemExit(3)

    def stops(completions: list[str]) -> list[float]:
        stopped(15, None)

    (fault,) = called(exits, {"completions": ["a"]}, 1).faults
    assert (fault.kind, fault.error) == ("raised", "SystemExit: 3")
    with pytest.raises(EndedBySignal) as ended:
        called(stops, {"completions": ["a"]}, 1)
    assert ended.value.code == 143
