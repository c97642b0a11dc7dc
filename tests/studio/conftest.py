"""A studio over a folder that has something for every page."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from strop.studio.app import studio_app
from strop.studio.root import Root
from strop.studio.site import Site
from tests.support.studio import TOKEN, write_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_root(tmp_path / "root")


@pytest.fixture
def client(root: Path) -> TestClient:
    return asks(root)


def asks(root: Path) -> TestClient:
    """Somebody with a browser on this machine, who knows the token."""
    headers = {"X-Strop-Token": TOKEN, "Accept": "text/html"}
    return TestClient(
        studio_app(Site(Root(root), TOKEN)), base_url="http://127.0.0.1:8760", headers=headers
    )
