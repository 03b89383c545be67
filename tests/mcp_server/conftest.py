"""Runs below a folder, and a secret beside it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from fitdoctor.config import Config
from fitdoctor.mcp_server.folders import folders
from fitdoctor.mcp_server.shelf import Shelf
from tests.cli.conftest import rows, run, write_log  # noqa: F401  # fixtures

SECRET = "secret-of-another"


def settled(path: Path) -> Path:
    """A log that was written an hour ago, so that its run does not count as going on."""
    before = time.time() - 3600
    os.utime(path, (before, before))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder ``runs``; beside it ``elsewhere``, with a log named like a secret."""
    for kind in ("healthy", "nan", "overfit", "short"):
        settled(write_log(tmp_path / "runs" / kind / "metrics.csv", rows(kind)))
    settled(write_log(tmp_path / "elsewhere" / f"{SECRET}.csv", rows("nan")))
    return tmp_path / "runs"


@pytest.fixture
def shelf(root: Path) -> Shelf:
    return Shelf(folders([root]), Config())
