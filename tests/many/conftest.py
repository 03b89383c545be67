"""Folders with small logs of which some are sick."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fitdoctor.many import ReportStore

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a log of 40 evaluations, long ago unless told otherwise."""

    def written(name: str, *, sick: bool = False, age: float = 1000, seed: int = 0) -> Path:
        noise = random.Random(seed)
        lines = ["step,train_loss,val_loss"]
        for i in range(40):
            falling = 0.3 + 2 * math.exp(-i / 10)
            train, val = falling + noise.gauss(0, 0.02), falling + 0.05 + noise.gauss(0, 0.02)
            lines.append(f"{10 * i},{math.nan if sick and i > 30 else train},{val}")
        path = tmp_path / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", "utf-8")
        then = time.time() - age
        os.utime(path, (then, then))
        return path

    return written


@pytest.fixture
def logs(write: Write, tmp_path: Path) -> Path:
    """Forty runs, every fifth of them sick."""
    for i in range(40):
        write(f"run{i}/metrics.csv", sick=i % 5 == 0, seed=i)
    return tmp_path / "logs"


@pytest.fixture
def store(tmp_path: Path) -> ReportStore:
    """A store in a folder that is not there yet."""
    return ReportStore(tmp_path / "stored" / "reports")
