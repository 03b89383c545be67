"""Ctrl-C in the middle of many runs: no traceback, status 130, and the next call goes on where this one was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RUNS = 320
LONG = "a-long-name-" * 20
"""So that the rows of all runs do not fit into a pipe, and the command waits for somebody to read them."""


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent in another way")
@pytest.mark.parametrize("engine", ["process", "dask"])
def test_an_interrupted_command_goes_on_where_it_was(engine: str, write: Callable[..., Path], tmp_path: Path) -> None:
    if engine == "dask":
        pytest.importorskip("distributed")
    first = write(f"{LONG}0/metrics.csv", sick=True)
    for i in range(1, RUNS):
        folder = tmp_path / "logs" / f"{LONG}{i}"
        folder.mkdir()
        shutil.copy2(first, folder / "metrics.csv")
    command = [sys.executable, "-m", "fitdoctor", "analyze", tmp_path / "logs", "--workers", "2", "--quiet"]
    command += ["--engine", engine]
    environment = {**os.environ, "FITDOCTOR_CACHE_DIR": str(tmp_path / "stored")}
    begun = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, start_new_session=True
    )
    assert begun.stdout is not None
    for _ in range(20):
        begun.stdout.readline()
    os.killpg(begun.pid, signal.SIGINT)  # to all processes of the terminal, as Ctrl-C is
    _, said = begun.communicate(timeout=300)
    assert (begun.returncode, said) == (130, b"Interrupted.\n")
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "stored").rglob("*.z")}
    assert 18 <= len(stored) < RUNS
    assert not list((tmp_path / "stored").rglob(".*"))

    done = subprocess.run(command, capture_output=True, env=environment, timeout=300)
    assert (done.returncode, done.stderr) == (1, b"")
    assert f"{RUNS} runs: {RUNS} sick" in done.stdout.decode()
    after = {path: path.stat() for path in (tmp_path / "stored").rglob("*.z")}
    assert len(after) == RUNS
    assert all(path in after for path in stored)
