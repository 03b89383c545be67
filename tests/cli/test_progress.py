"""The progress bar: on a terminal only, on stderr only, out of the way of the report."""

from __future__ import annotations

import io
import sys

import pytest
from fitdoctor.cli import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0)
    monkeypatch.setattr(progress, "PACE", 0)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.usefixtures("impatient")
class TestImpatient:
    def test_it_shows_and_goes(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        with progress.Progress() as bar:
            bar.update(1, 4, "runs/[red]a\x1b[2J\nb")
            assert "25%" in screen.getvalue()
            assert "runs/[red]a b" in screen.getvalue(), "hostile names are text"
            bar.hide()
            shown = len(screen.getvalue())
            sys.stdout.write("the report\n")
            bar.update(2, 4, "c")
            assert "50%" in screen.getvalue()[shown:], "it comes back"
        assert capsys.readouterr().out == "the report\n"

    def test_it_is_off_without_a_terminal(self, monkeypatch: pytest.MonkeyPatch):
        file = io.StringIO()
        monkeypatch.setattr(sys, "stderr", file)
        with progress.Progress() as bar:
            bar.update(1, 4, "a")
        assert file.getvalue() == ""

    def test_it_can_be_off(self, monkeypatch: pytest.MonkeyPatch):
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        with progress.Progress(off=True) as bar:
            bar.update(1, 4, "a")
        assert screen.getvalue() == ""


def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress.Progress() as bar:
        bar.update(1, 4, "a")
    assert screen.getvalue() == ""
