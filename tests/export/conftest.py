"""A server of this machine, and an environment without secrets of others."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from tests.cli.conftest import logs, run  # noqa: F401  # fixtures
from tests.export.receiver import Server


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FITDOCTOR_WEBHOOK_URL", "FITDOCTOR_WEBHOOK_HEADER"):
        monkeypatch.delenv(name, raising=False)
    # A proxy of the machine is not for its own addresses; where it were asked, these tests would fail.
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
