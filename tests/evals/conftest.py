"""What evals ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from strop.model import network
from strop.model.load import load_for_inference


@pytest.fixture(scope="session")
def policy(model_folder: Path) -> network.Policy:
    """The tiny model, to be asked only: one for all."""
    return load_for_inference(str(model_folder))
