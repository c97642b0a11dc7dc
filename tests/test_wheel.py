"""The wheel: nothing is left out of it, and it works outside of the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

import strop
from strop.demo.model import raw_model

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/strop"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def files() -> set[str]:
    """All files of the package by their path below it, without what Python caches."""
    found = (path for path in PACKAGE.rglob("*") if path.is_file())
    return {path.relative_to(PACKAGE).as_posix() for path in found if path.suffix != ".pyc"}


def test_the_version_is_read_from_one_place() -> None:
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "strop.__version__"}
    text = (PACKAGE / "__init__.py").read_text()
    assert text.count(f'__version__ = "{strop.__version__}"') == 1


def test_every_file_that_is_no_module_is_named_as_package_data() -> None:
    named = PROJECT["tool"]["setuptools"]["package-data"]["strop"]
    data = {file for file in files() if not file.endswith(".py")}
    assert {"py.typed", "demo/files/sft.yaml", "evals/gate/files/gate.html"} <= data
    assert not {file for file in data if not any(fnmatch(file, glob) for glob in named)}
    assert all(any(fnmatch(file, glob) for file in files()) for glob in named)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m build` makes of a copy, so that what an earlier build left is not in it, and
    without asking a registry for setuptools."""
    folder, copy = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    cached = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", copy / "src", ignore=cached)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, copy]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel; what strop depends on is read from ours."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    made = folder / "bin/python"
    install = [made, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    home = subprocess.run(
        [made, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    # a path of its own is searched last, and its own .pth files (our checkout) are not read
    (Path(home) / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return made


def run(python: Path, folder: Path, *args: object) -> str:
    """What the installed `strop` prints, run outside of the checkout."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    ran = subprocess.run(
        [python.with_name("strop"), *map(str, args)],
        capture_output=True, text=True, check=False, cwd=folder, env=environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
class TestInstalled:
    def test_the_wheel_holds_every_file(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
        held = {name.removeprefix("strop/") for name in names if name.startswith("strop/")}
        assert held == files()
        assert any(name.endswith("licenses/LICENSE") for name in names)
        assert not [name for name in names if name.split("/")[0] in ("tests", "benchmarks")]

    def test_it_says_what_it_is(self, python: Path, tmp_path: Path) -> None:
        assert run(python, tmp_path, "--version") == f"strop {strop.__version__}\n"
        where = "import strop; print(strop.__file__)"
        found = subprocess.run(
            [python, "-c", where], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        assert Path(found.stdout.strip()).is_relative_to(python.parents[1])

    def test_its_commands_work(self, python: Path, tmp_path: Path, tokenizer: Any) -> None:
        assert "Example: strop demo" in run(python, tmp_path, "demo", "--help")
        assert json.loads(run(python, tmp_path, "doctor", "--json"))["ok"] is True
        assert "wrote" in run(python, tmp_path, "demo", "--files-only", "--out", "demo")
        raw_model(tokenizer, seed=0, width=32).save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        run(python, tmp_path, "train", "demo/sft.yaml", "--set", "run.steps=1", "--set",
            "run.epochs=null", "--set", "eval=null", "--set", "dev=null")  # fmt: skip
        assert (tmp_path / "demo/runs/sft/final/model.safetensors").exists()

    def test_a_strictly_typed_script(self, python: Path, tmp_path: Path) -> None:
        """A user's script passes mypy --strict against the wheel, and a wrong one does not."""
        script = tmp_path / "script.py"
        good = (
            "import strop\n\n"
            'run = strop.train("sft.yaml", overrides={"run.steps": 1})\n'
            "loss: float = run.metrics['loss'].values[-1]\n"
            "passed: bool = strop.gate('a', 'b', margin=0.1).passed\n"
        )
        script.write_text(good + 'strop.train("sft.yaml", stpes=1)\n')
        command = [sys.executable, "-m", "mypy", "--strict", f"--python-executable={python}",
                   f"--cache-dir={tmp_path / 'cache'}", script]  # fmt: skip
        found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        errors = [line for line in found.stdout.splitlines() if ": error: " in line]
        wrong = 'script.py:6: error: Unexpected keyword argument "stpes" for "train"  [call-arg]'
        assert errors == [wrong], found.stdout + found.stderr
