"""Every tier of the sandbox that this machine has."""

from __future__ import annotations

from typing import get_args

import pytest

from strop.sandbox import tiers
from tests.support.sandboxes import refusal


@pytest.fixture(scope="module", params=get_args(tiers.Tier))
def any_tier(request: pytest.FixtureRequest) -> str:
    if reason := refusal(request.param):
        pytest.skip(reason)
    return str(request.param)
