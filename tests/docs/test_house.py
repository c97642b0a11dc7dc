"""The house stands: modules import downwards only, without cycles, at the top of the file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support import ROOT

SRC = ROOT / "src"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "types", "episodes"),
    ("files", "wire", "http", "hub", "secrets", "advantages", "stats"),
    ("recipe",),
    ("losses", "distributed", "text", "sandbox", "tracking"),
    ("data", "registry"),
    ("model",),
    ("engines",),
    ("judge",),
    ("rewards",),
    ("rollout",),
    ("evals",),
    ("curate", "train"),
    ("pipeline",),
    ("advise", "serve", "studio", "demo"),
    ("results", "api", "cli"),
)
"""DESIGN section 2: floor by floor, and on a floor in order; a room imports those before it."""

PLACE = {room: (floor, nth) for floor, rooms in enumerate(FLOORS) for nth, room in enumerate(rooms)}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_name(path): ast.parse(path.read_text())
    for path in SRC.rglob("*.py")
    if "files" not in path.parts and path.name != "__main__.py"
}


def room_of(module: str) -> str:
    """`"train"` of `"strop.train.loop.offline"`; nothing of `"strop"` itself."""
    return (module + ".").split(".")[1]


def imports_of(tree: ast.AST) -> list[tuple[str, int]]:
    """(strop module, line) of every import below a node."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(n if n in MODULES else node.module, node.lineno) for n in names]
    return [(name, line) for name, line in found if name.split(".")[0] == "strop"]


def upward(importer: str, imported: str) -> bool:
    """Whether an import goes to a room that does not stand below the importer's own."""
    above, below = room_of(importer), room_of(imported)
    return below not in ("", above) and PLACE[below] >= PLACE[above]


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m != "strop"))
def test_imports_go_down_or_stay_in_the_room(module: str) -> None:
    assert room_of(module) in PLACE, f"{module} stands on no floor: add its room to FLOORS"
    wrong = [
        f"line {line}: {imported}"
        for imported, line in imports_of(MODULES[module])
        if upward(module, imported)
    ]
    assert not wrong, f"{module} imports upwards: {wrong}"


def inner_order(room: str) -> dict[str, set[str]]:
    """What each child of a room (a file or a sub-room) imports of the other children."""
    children: dict[str, set[str]] = {}
    for module, tree in MODULES.items():
        if module.startswith(f"{room}."):
            own = module.removeprefix(f"{room}.").split(".")[0]
            found = {name for name, _ in imports_of(tree) if name.startswith(f"{room}.")}
            others = {name.removeprefix(f"{room}.").split(".")[0] for name in found}
            children.setdefault(own, set()).update(others - {own})
    return children


@pytest.mark.parametrize("room", sorted({m.rsplit(".", 1)[0] for m in MODULES if "." in m}))
def test_the_children_of_a_room_stand_in_an_order(room: str) -> None:
    """Files and sub-rooms of a room, each taken as one, import each other in one direction."""
    left = inner_order(room)
    while lowest := [child for child, others in left.items() if not others & left.keys()]:
        left = {child: others for child, others in left.items() if child not in lowest}
    assert not left, f"{room}: these import each other in a circle: {left}"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if not m.startswith("strop.cli")))
def test_no_imports_inside_functions(module: str) -> None:
    functions = [n for n in ast.walk(MODULES[module]) if isinstance(n, ast.FunctionDef)]
    hidden = [found for function in functions for found in imports_of(function)]
    assert not hidden


def test_the_rules_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert upward("strop.losses.policy", "strop.train.loop.updater")
    assert upward("strop.engines.local", "strop.rewards.exact")
    assert upward("strop.losses.policy", "strop.text.parse")  # on one floor, in order
    assert not upward("strop.train.loop.updater", "strop.losses.policy")
    hidden = ast.parse("def f():\n    from strop.train.loop.updater import Updater")
    assert imports_of(hidden) == [("strop.train.loop.updater", 2)]
    planted = ast.parse("from strop.train.monitor.journal import RunJournal")
    monkeypatch.setitem(MODULES, "strop.train.loop.updater", planted)
    assert "monitor" in inner_order("strop.train")["loop"]
    with pytest.raises(AssertionError, match="in a circle"):
        test_the_children_of_a_room_stand_in_an_order("strop.train")


def test_sizes() -> None:
    """No file over 500 lines, no function over 80 (loops 120), at most 6 positional parameters."""
    for name, tree in MODULES.items():
        last = max((getattr(node, "end_lineno", 0) or 0) for node in ast.walk(tree))
        assert last <= 500, f"{name} has {last} lines"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 80, f"{name}.{node.name} has {length} lines"
                if not name.startswith("strop.cli"):
                    positional = [a for a in node.args.args if a.arg not in ("self", "cls")]
                    assert len(positional) <= 6, f"{name}.{node.name} takes {len(positional)}"


MAP = (ROOT / "CONTRIBUTING.md").read_text()


def floors_drawn(text: str) -> tuple[tuple[str, ...], ...]:
    """The floors of the picture, lowest first: `    12  pipeline/    what it does`."""
    rows = re.findall(r"^    +(\d+)  ([a-z][a-z/* ]*?)  ", text, flags=re.M)
    return tuple(tuple(re.findall("[a-z]+", rooms)) for _, rooms in sorted(rows, key=floor_number))


def floor_number(row: tuple[str, str]) -> int:
    return int(row[0])


def paths_named(text: str) -> set[str]:
    """Paths in the text, from the repository or from `src/strop`, but those that are coming."""
    return set(re.findall(r"(?<![\w/.-])((?:[\w.-]+/)+(?:\w+\.\w+)?|\w+\.py)(?![\w/*`]*\*)", text))


def missing(text: str) -> set[str]:
    root = SRC.parent
    places = (root, root / "src/strop")
    return {p for p in paths_named(text) if not any((place / p).exists() for place in places)}


def test_the_map_shows_this_house() -> None:
    assert floors_drawn(MAP) == FLOORS
    drawn = {room for rooms in FLOORS for room in rooms if f"{room}*" in MAP or f"{room}/*" in MAP}
    built = {room_of(module) for module in MODULES} - {""}
    assert set(PLACE) - drawn <= built, "a room that is not there yet is marked with *"


def test_every_path_on_the_map_exists() -> None:
    assert {"train/methods/", "evals/jobs.py", "src/strop/files.py"} <= paths_named(MAP)
    assert not missing(MAP)


def test_the_checks_of_the_map_can_fail() -> None:
    assert missing("in `losses/preferences.py`, `evals/gate/`") == {"losses/preferences.py"}
    assert not missing("`rollout/environments.py`* and studio/* are coming")
    assert missing("a file in trains/ and model.py") == {"trains/", "model.py"}
    swapped = MAP.replace("curate/ train/ ", "train/ curate/ ")
    assert floors_drawn(swapped) != FLOORS == floors_drawn(MAP)
