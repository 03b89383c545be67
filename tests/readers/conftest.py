"""What the tests of readers share: the fixtures' folder, and reading one file the way `open_runs` does."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from fitdoctor.readers.raw import RawRun, RawSeries

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder with real logs of all formats."""
    return FIXTURES


class Reading:
    """Reads files with one reader, as the walk over folders would."""

    def recognised(self, module: ModuleType, path: Path) -> bool:
        """Whether the reader wants the file."""
        with path.open("rb") as file:
            return bool(module.recognise(path, file.read(4096)))

    def runs(self, module: ModuleType, *paths: Path) -> list[RawRun]:
        """All runs in files that the reader recognises and reads together."""
        for path in paths:
            assert self.recognised(module, path), path
        homes = {module.home(path) for path in paths}
        assert len(homes) == 1, homes
        return list(module.read(homes.pop(), list(paths)))

    def run(self, module: ModuleType, *paths: Path) -> RawRun:
        """The only run in these files."""
        (run,) = self.runs(module, *paths)
        check(run)
        return run


@pytest.fixture
def reading() -> Reading:
    """Reads files with one reader."""
    return Reading()


def check(run: RawRun) -> None:
    """What every raw run promises: clocks as long as the values, real arrays, readable notes."""
    for s in run.series:
        assert s.values.dtype == "float64"
        assert s.values.ndim == 1
        for clock, kind in ((s.steps, "int64"), (s.epochs, "float64"), (s.wall_time, "float64")):
            assert clock is None or (clock.dtype == kind and len(clock) == len(s.values)), s.tag
    for note in run.notes:
        assert note.text
        assert "\n" not in note.text


def series(run: RawRun, tag: str) -> RawSeries:
    """The only series of this name."""
    (found,) = [s for s in run.series if s.tag == tag]
    return found
