"""`fitdoctor watch`: each finding once, gone when it is gone, a summary at the end."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from fitdoctor.cli.follow import Follower
from fitdoctor.config import Config
from fitdoctor.reporters.page import Page
from rich.console import Console


def write(path: Path, values: list[float]) -> None:
    table = "".join(f"{i},{v}\n" for i, v in enumerate(values))
    path.write_text("step,train_loss\n" + table, "utf-8")


class Watched:
    """A log that grows between the looks of a follower."""

    def __init__(self, folder: Path, **config: object) -> None:
        self.log = folder / "log.csv"
        self.file = io.StringIO()
        self.follower = Follower(folder, Config(**config), None, Page(Console(file=self.file, width=200)))

    def look(self) -> str:
        """What the follower says at its next look, without the times of day."""
        before = len(self.file.getvalue())
        self.follower.look()
        said = re.sub(r"\n {10}", " ", self.file.getvalue()[before:])  # wrapped lines
        return re.sub(r"\d\d:\d\d:\d\d", "TIME", said)


FALLING = [2.0 * 0.97**i + 0.3 for i in range(60)]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_it_waits_for_a_log(watched: Watched):
    assert "no log yet, waiting for one below" in watched.look()
    assert watched.look() == "", "once is enough"


def test_a_finding_is_told_once_and_when_it_is_gone(watched: Watched):
    write(watched.log, FALLING)
    assert "nonfinite-loss" not in watched.look()
    write(watched.log, [*FALLING, float("nan"), float("nan")])
    told = watched.look()
    assert re.search(r"^TIME  \S+  ✗ error nonfinite-loss  .*  since step 60, seen at step 61$", told, re.M)
    write(watched.log, [*FALLING, float("nan"), float("nan"), float("nan")])
    assert "nonfinite-loss" not in watched.look()
    write(watched.log, FALLING * 2)
    assert re.search(r"^TIME  \S+  gone: nonfinite-loss  at step 119$", watched.look(), re.M)


def test_a_log_that_has_not_changed_is_not_read_again(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    write(watched.log, FALLING)
    watched.look()
    monkeypatch.setattr("fitdoctor.readers.RunSource.load", lambda source: pytest.fail("read again"))
    assert watched.look() == ""


def test_rules_that_need_the_end_wait_for_it(watched: Watched):
    write(watched.log, FALLING)
    watched.look()
    watched.follower.close(exit_zero=False)
    assert re.search(r"it judges finished runs only \(.*underfitting", watched.file.getvalue())


def test_a_new_run_is_announced(watched: Watched, tmp_path: Path):
    write(watched.log, FALLING)
    assert watched.look().count("TIME") == 1
    write(tmp_path / "second.csv", FALLING)
    assert re.search(r"^TIME  second ", watched.look(), re.M)


class TestCommand:
    def test_once_gives_summary_and_status(self, run, logs: Path):
        result = run("watch", logs, "--once")
        assert result.exit_code == 1
        assert "✗ error nonfinite-loss" in result.stdout
        assert "4 runs:" in result.stdout

    def test_stop_after(self, run, logs: Path):
        result = run("watch", logs / "healthy.csv", "--interval", 0.05, "--stop-after", 0.2)
        assert result.exit_code in (0, 3)

    def test_exit_zero_and_fail_on(self, run, logs: Path):
        assert run("watch", logs / "nan.csv", "--once", "--exit-zero").exit_code == 0
        assert run("watch", logs / "nan.csv", "--once", "--fail-on", "never").exit_code == 0

    def test_nothing_logged(self, run, tmp_path: Path):
        (tmp_path / "empty").mkdir()
        result = run("watch", "empty", "--once")
        assert result.exit_code == 2
        assert "waiting for one below empty" in result.stdout

    def test_ctrl_c_ends_with_the_summary(self, run, logs: Path, monkeypatch: pytest.MonkeyPatch):
        def interrupted(seconds: float) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("time.sleep", interrupted)
        result = run("watch", logs)
        assert result.exit_code == 1
        assert "4 runs:" in result.stdout

    def test_run_takes_a_glob(self, run, logs: Path):
        text = run("watch", logs, "--once", "--run", "nan").stdout
        assert "nonfinite-loss" in text
        assert "overfit" not in text
