"""Small logs of each verdict, far from any config file of ours."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fitdoctor.cli import main

Invoke = Callable[..., Result]


def write_log(path: Path, rows: Iterable[tuple[float, ...]]) -> Path:
    """A CSV log with a step, a training loss and a validation loss."""
    lines = ["step,train_loss,val_loss", *(",".join(map(str, row)) for row in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def rows(kind: str, count: int = 60) -> list[tuple[float, ...]]:
    """A healthy run; one whose loss turns nan at step 400; one that overfits; one that is too short."""
    noise = random.Random(0)
    out: list[tuple[float, ...]] = []
    for i in range(3 if kind == "short" else count):
        falling = 0.3 + 2 * math.exp(-i / 15)
        train, val = falling + noise.gauss(0, 0.02), falling + 0.05 + noise.gauss(0, 0.02)
        if kind == "nan" and i >= 40:
            train = val = math.nan
        if kind == "overfit":
            train, val = train - 0.25, val + max(0, i - 25) * 0.03
        out.append((10 * i, train, val))
    return out


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    for kind in ("healthy", "nan", "overfit", "short"):
        write_log(tmp_path / "logs" / f"{kind}.csv", rows(kind))
    return tmp_path / "logs"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs a command in an empty folder, outside of which no config file is looked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fitdoctor.config.find_config", lambda start: None)
    monkeypatch.setenv("COLUMNS", "80")

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)

    return invoke
