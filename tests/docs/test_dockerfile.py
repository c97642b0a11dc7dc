"""The Dockerfile copies what is there and takes its versions from where `make setup` does."""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch

import pytest

from tests.support import ROOT

TEXT = (ROOT / "Dockerfile").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
LEFT_OUT = (ROOT / ".dockerignore").read_text().split()


def instructions(text: str) -> list[tuple[str, str]]:
    """`[("FROM", "python:3.12 AS base"), ...]`, with continued lines joined."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1].strip()) for line in whole if line.strip()]


def of(kind: str, text: str = TEXT) -> list[str]:
    return [rest for name, rest in instructions(text) if name == kind]


def copied() -> list[str]:
    return [source for rest in of("COPY") for source in rest.split()[:-1]]


def is_sent(path: str) -> bool:
    """Whether docker sends a file to the build: the last line that fits decides."""
    sent = True
    for line in LEFT_OUT:
        pattern = line.removeprefix("!").removeprefix("**/")
        parts = path.split("/")
        anywhere = any(fnmatch(part, pattern) for part in parts)
        if anywhere if "**/" in line else fnmatch(parts[0], pattern):
            sent = line.startswith("!")
    return sent


def test_what_is_copied_is_there_and_is_sent() -> None:
    assert {"pyproject.toml", "Makefile", "src"} <= set(copied())
    for path in copied():
        assert (ROOT / path).exists(), path
        assert is_sent(path), path


@pytest.mark.parametrize(
    "path",
    [".venv/bin/python", ".git/HEAD", "build/soak/a", "dist/strop.whl", "runs/dpo/final",
     "src/strop.egg-info/PKG-INFO", "src/strop/__pycache__/a.pyc", "strop-demo/registry.db"],
)  # fmt: skip
def test_build_outputs_are_not_sent(path: str) -> None:
    assert not is_sent(path)


def test_the_source_is_sent() -> None:
    assert is_sent("src/strop/cli/app.py")
    assert is_sent("src/strop/demo/files/suite.yaml")


def test_versions_come_from_where_make_setup_takes_them() -> None:
    """No version of a Python package stands in the Dockerfile; its shell reads the Makefile's."""
    installs = " ".join(of("RUN"))
    assert not re.search(r"[a-z]==|[a-z]>=", installs)
    read = re.search(r"\$\((sed [^)]*Makefile)\)", installs)
    assert read is not None
    found = subprocess.check_output(["bash", "-c", read[1]], cwd=ROOT, text=True).strip()
    pinned = re.search(r"^TORCH := (\S+)$", MAKEFILE, flags=re.M)
    assert pinned is not None
    assert found == pinned[1] == "torch==" + found.removeprefix("torch==")
    assert installs.index("${torch}") < installs.index("--no-cache-dir .")
    assert MAKEFILE.index("--quiet $(TORCH)") < MAKEFILE.index("--editable '.[dev]'\n\ttouch")


def test_the_variants_are_stages_and_the_python_is_one_that_strop_takes() -> None:
    stages = [rest.rpartition(" AS ")[2] for rest in of("FROM")]
    assert stages == ["base", "cpu", "cuda", "final"]
    assert of("ARG") == ["VARIANT=cpu"]
    assert of("FROM")[-1].startswith("${VARIANT} ")
    version = re.search(r"python:3\.(\d+)", of("FROM")[0])
    assert version is not None
    assert int(version[1]) >= 11


def test_it_does_not_run_as_root() -> None:
    kinds = [kind for kind, _ in instructions(TEXT)]
    assert of("USER") == ["strop"]
    assert kinds.index("USER") > max(n for n, kind in enumerate(kinds) if kind == "RUN")
