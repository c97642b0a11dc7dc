"""The kinds of bad rows are those that docs/data.md explains."""

from __future__ import annotations

import re

from strop.data.bad_rows import UNRENDERABLE
from strop.train.preflight.sources import TOO_LONG
from tests.support import ROOT

DATA = ROOT / "src/strop/data"
CODE = [*DATA.glob("*.py"), *DATA.glob("reading/*.py"), ROOT / "src/strop/evals/tasks/choice.py"]


def test_every_kind_is_explained_and_no_other() -> None:
    raised = {
        kind for file in CODE for kind in re.findall(r'kind="([a-z_0-9]+)"', file.read_text())
    }
    page = (ROOT / "docs/data.md").read_text().partition("## Bad rows")[2]
    rows = re.findall(r"^\| (`[^|]+) \|", page, flags=re.MULTILINE)
    explained = {kind for row in rows for kind in re.findall(r"`([a-z_0-9]+)`", row)}
    assert explained == raised | {UNRENDERABLE, TOO_LONG}
