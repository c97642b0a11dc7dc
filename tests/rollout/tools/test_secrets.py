"""A secret is hidden however a server repeats it."""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

import pytest

from strop.rollout.tools.secrets import HIDDEN, Secrets

KEY = 'a+b/c="d"= e\\f'


@pytest.mark.parametrize("repeated", [
    KEY, quote(KEY, safe=""), urlencode({"k": KEY})[2:], json.dumps(KEY)[1:-1],
])  # fmt: skip
def test_a_secret_is_hidden_in_every_writing(
    monkeypatch: pytest.MonkeyPatch, repeated: str
) -> None:
    monkeypatch.setenv("SERVICE_KEY", KEY)
    secrets = Secrets("a tool")
    assert secrets.filled({"X-Key": "Bearer ${SERVICE_KEY}"}) == {"X-Key": f"Bearer {KEY}"}
    said = secrets.hidden(f"you sent <{repeated}>, which is wrong")
    assert said == f"you sent <{HIDDEN}>, which is wrong"


def test_what_is_short_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_KEY", "on")
    secrets = Secrets("a tool")
    secrets.filled({"mode": "${SERVICE_KEY}"})
    assert secrets.hidden("it is on") == "it is on"
