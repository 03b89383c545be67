"""`--to TARGET`: what `analyze` and `watch` send, and how they end when that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fitdoctor.cli.follow import Follower
from fitdoctor.config import Config
from fitdoctor.errors import ConfigError
from fitdoctor.export import targets, webhook
from fitdoctor.export.targets import Alerts, Target, opened
from fitdoctor.reporters.page import Page
from rich.console import Console
from tests.cli.conftest import rows, write_log
from tests.export.receiver import Server, until


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "LONGEST_WAIT", 0.0)


class TestAnalyze:
    def test_all_runs_are_sent(self, run, logs: Path, server: Server):
        done = run("analyze", logs, "--to", server.url)
        assert done.exit_code == 1
        (said,) = server.said
        assert said["event"] == "report"
        assert {r["run"]: r["verdict"] for r in said["reports"]} == {
            "healthy": "healthy",
            "nan": "sick",
            "overfit": "sick",
            "short": "cannot judge",
        }
        assert said["text"].startswith("2 of 4 runs are sick\nnan is sick (nonfinite-loss): ")
        assert not any(r["curves"] or r["path"] for r in said["reports"])

    def test_nothing_is_sent_unasked(self, run, logs: Path, server: Server, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("FITDOCTOR_WEBHOOK_URL", server.url)
        run("analyze", logs)
        assert server.got == []
        run("analyze", logs, "--to", "webhook")
        assert len(server.got) == 1

    def test_many_runs_are_sent_a_few_at_a_time(self, run, logs: Path, server: Server, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(targets, "TOGETHER", 3)
        run("analyze", logs, "--to", server.url, "--send", "all")
        assert [[r["run"] for r in said["reports"]] for said in server.said] == [
            ["healthy", "nan", "overfit"],
            ["short"],
        ]
        assert all(r["curves"] for r in server.said[0]["reports"])

    def test_a_failure_costs_the_status_and_not_the_report(self, run, logs: Path, server: Server):
        server.answers = [(500, {}, "")]
        done = run("analyze", logs / "healthy.csv", "--to", server.url)
        assert done.exit_code == 2
        assert "looks healthy" in done.stdout
        assert "Error: not sent: webhook 127.0.0.1: expected an answer of status 2xx, got 500" in done.stderr
        assert "/hook" not in done.stderr

    def test_a_target_that_fails_is_tried_no_further(
        self, run, logs: Path, server: Server, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(targets, "TOGETHER", 1)
        server.answers = [(404, {}, "")]
        done = run("analyze", logs, "--to", server.url)
        assert (done.exit_code, len(server.got)) == (2, 1)
        assert done.stderr.count("not sent") == 1

    def test_a_wrong_target_is_told_before_anything_is_read(self, run, logs: Path):
        done = run("analyze", logs, "--to", "http://example.org/x")
        assert (done.exit_code, done.stdout) == (2, "")
        assert "expected https, got http" in done.stderr

    def test_a_tracker_takes_one_run(self, logs: Path, run, monkeypatch: pytest.MonkeyPatch):
        tracker = Tracker()
        monkeypatch.setattr(targets, "_opened", lambda *_: Target(tracker, one_run=True))
        done = run("analyze", logs, "--to", "mlflow:x")
        assert done.exit_code == 2
        assert "not sent: tracker: expected the findings of one run, got those of several; choose one" in done.stderr
        assert tracker.got == []
        assert run("analyze", logs, "--run", "nan", "--to", "mlflow:x").exit_code == 1
        assert tracker.got == ["nan: nonfinite-loss"]


class Tracker:
    name = "tracker"

    def __init__(self) -> None:
        self.got: list[str] = []

    def tell(self, run: str, diagnosis: Any) -> None:
        self.got.append(f"{run}: {diagnosis.root.rule}")

    def report(self, reports: Any, new: Any) -> None:
        self.got += [f"{r.run}: {', '.join(d.root.rule for d in new)}" for r in reports]


class TestWatch:
    def test_each_finding_is_sent_as_it_appears_and_the_reports_at_the_end(
        self, tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
    ):
        sound, sick = rows("healthy"), rows("nan")
        with opened([server.url]) as told:
            follower = Follower(tmp_path, Config(), None, Page(Console()), Alerts(told))
            write_log(tmp_path / "log.csv", sound[:35])
            follower.look()
            write_log(tmp_path / "log.csv", sick[:50])
            follower.look()
            until(lambda: len(server.got) == 1)
            write_log(tmp_path / "log.csv", sick)
            follower.look()
            assert follower.close(exit_zero=False) == 1
        first, last = server.said
        assert first["event"] == "finding"
        assert first["text"].splitlines()[0].endswith(": nonfinite-loss (error)")
        assert last["event"] == "report"
        assert [r["verdict"] for r in last["reports"]] == ["sick"]

    def test_from_the_command_line(self, run, logs: Path, server: Server):
        done = run("watch", logs, "--once", "--run", "nan", "--to", server.url)
        assert done.exit_code == 1
        assert [said["event"] for said in server.said] == ["finding", "report"]

    def test_what_did_not_arrive_is_told_at_the_end(self, run, logs: Path, server: Server):
        server.answers = [(410, {}, "")]
        done = run("watch", logs, "--once", "--to", server.url)
        assert done.exit_code == 2
        assert done.stderr.count("Error: not sent: webhook 127.0.0.1: ") == 1

    def test_a_tracker_takes_one_run(self, tmp_path: Path):
        from tests.export.receiver import finding, report

        tracker = Tracker()
        alerts = Alerts([Target(tracker, one_run=True)])
        alerts.look(report("a", finding("x")))
        alerts.look(report("b", finding("x")))
        (why,) = alerts.close([report("a"), report("b")])
        assert why.startswith("tracker: expected the findings of one run")
        assert tracker.got == ["a: x"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "slack",
        "mlflow",
        "mlflow:",
        "mlflow:a/b",
        "wandb:x",
        "wandb:a/b/c/d",
        "wandb:a//b",
        "trackio:p",
        "mailto:a@b",
    ],
)
def test_what_is_no_target(text: str):
    with pytest.raises(ConfigError, match=r"--to: expected https://\.\.\., webhook, wandb:"), opened([text]):
        pass
