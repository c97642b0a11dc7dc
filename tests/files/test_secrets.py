"""A secret is hidden however a server repeats it."""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

import pytest

from strop.errors import WorldError
from strop.secrets import HIDDEN, Secrets

KEY = 'a+b/c="d"= e\\f'


@pytest.mark.parametrize("repeated", [
    KEY, quote(KEY, safe=""), urlencode({"k": KEY})[2:], json.dumps(KEY)[1:-1],
])  # fmt: skip
def test_a_secret_is_hidden_in_every_writing(
    monkeypatch: pytest.MonkeyPatch, repeated: str
) -> None:
    monkeypatch.setenv("SERVICE_KEY", KEY)
    secrets = Secrets("a tool", WorldError)
    assert secrets.filled({"X-Key": "Bearer ${SERVICE_KEY}"}) == {"X-Key": f"Bearer {KEY}"}
    said = secrets.hidden(f"you sent <{repeated}>, which is wrong")
    assert said == f"you sent <{HIDDEN}>, which is wrong"


def test_what_is_short_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_KEY", "on")
    secrets = Secrets("a tool", WorldError)
    secrets.filled({"mode": "${SERVICE_KEY}"})
    assert secrets.hidden("it is on") == "it is on"


def test_a_header_that_http_cannot_carry_is_refused_without_telling_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ODD_KEY", "sésame-9000")
    with pytest.raises(WorldError, match="the header Authorization has characters") as found:
        Secrets("recipe.yaml", WorldError).headers({"Authorization": "Bearer ${ODD_KEY}"})
    assert "9000" not in str(found.value)
