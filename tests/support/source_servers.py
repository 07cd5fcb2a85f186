"""Fixtures: a web server and a hub with one dataset file each. A module that uses them has a fixture `body`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import hub_server, web_server
from tests.support.hub_server import HubServer
from tests.support.web_server import Answer, WebServer


@pytest.fixture
def web(body: bytes) -> Iterator[WebServer]:
    """Has the file as /data.jsonl."""
    with web_server.running() as server:
        server.answers["/data.jsonl"] = Answer(body=body)
        yield server


@pytest.fixture
def hub(body: bytes, tmp_path: Path) -> Iterator[HubServer]:
    """Has the file as train.jsonl of the datasets org/coach and org/private-coach."""
    with hub_server.running(tmp_path / "hub") as server:
        for name in ("coach", "private-coach"):
            folder = server.root / "datasets" / "org" / name
            folder.mkdir(parents=True)
            (folder / "train.jsonl").write_bytes(body)
        yield server
