"""MLflow tracking stores: sqlite databases and mlruns folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fitdoctor.readers.raw import RawRun

SOURCE = "mlflow"


def recognise(path: Path, head: bytes) -> bool:
    """Whether this file is one that `read` understands."""
    return False


def home(path: Path) -> Path:
    """The key that groups the files of one `read` call."""
    return path.parent


def read(home: Path, files: Sequence[Path]) -> Iterator[RawRun]:
    """The runs in these files."""
    yield from ()
