"""What `strop data build` makes of an export."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support.exports import Make, Outcome, made_of


@pytest.fixture
def make(tmp_path: Path) -> Make:
    numbers = count()

    def made(given: Any, **options: Any) -> Outcome:
        return made_of(tmp_path / str(next(numbers)), given, **options)

    return made
