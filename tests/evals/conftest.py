"""What evals ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from strop.model.load import load_for_inference
from strop.model.network import Policy


@pytest.fixture(scope="session")
def policy(model_folder: Path) -> Policy:
    """The tiny model, to be asked only: one for all."""
    return load_for_inference(str(model_folder))
