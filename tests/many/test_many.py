"""Many runs: the same reports whether judged here, in workers, or before."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fitdoctor import many
from fitdoctor.config import Config
from fitdoctor.diagnose import diagnose
from fitdoctor.errors import ConfigError, NoLogsFound
from fitdoctor.many import ReportStore, diagnose_runs
from fitdoctor.many.crew import Crew
from fitdoctor.readers import find_runs, open_runs
from fitdoctor.report import to_json

Write = Callable[..., Path]


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that were read and judged in this process."""
    seen: list[str] = []
    judge = many.judge

    def watched(works: Any, *rest: Any) -> Iterator[Any]:
        for work, found in zip(works, judge(works, *rest), strict=True):
            seen.append(work.source.name)
            yield found

    monkeypatch.setattr(many, "judge", watched)
    return seen


def test_here_in_workers_and_stored_reports_are_the_same(logs: Path, store: ReportStore, judged: list[str]) -> None:
    plain = to_json(diagnose(run) for run in open_runs(logs))
    assert to_json(diagnose_runs(logs)) == plain
    assert len(judged) == 40
    assert to_json(diagnose_runs(logs, workers=2, store=store)) == plain
    assert len(judged) == 40  # the workers did it
    assert to_json(diagnose_runs(logs, workers=2, store=store)) == plain  # from the store
    assert len(judged) == 40
    assert [r["run"] for r in json.loads(plain)["reports"]] == [f"run{i}" for i in range(40)]
    assert {r["verdict"] for r in json.loads(plain)["reports"]} == {"sick", "healthy"}


def test_what_was_done_before_an_interruption_is_not_done_again(
    logs: Path, store: ReportStore, judged: list[str]
) -> None:
    begun = diagnose_runs(logs, store=store)
    for _ in range(10):
        next(begun)
    begun.close()  # as Ctrl-C does
    done = len(judged)
    assert 10 <= done < 40
    assert to_json(diagnose_runs(logs, store=store)) == to_json(diagnose_runs(logs))
    assert judged.count("run0") == 2
    assert judged.count("run39") == 2
    assert len(judged) == 40 + 40


def test_reports_that_are_stored_and_new_ones_come_in_order(
    logs: Path, write: Write, store: ReportStore, judged: list[str]
) -> None:
    assert len(list(diagnose_runs(logs, store=store))) == 40
    judged.clear()
    for i in (3, 4, 20, 39):
        write(f"run{i}/metrics.csv", sick=True, age=500, seed=i)
    reports = list(diagnose_runs(logs, store=store, workers=2))
    assert [r.run for r in reports] == [f"run{i}" for i in range(40)]
    assert [r.run for r in reports if r.verdict == "sick"] == [
        f"run{i}" for i in range(40) if i % 5 == 0 or i in (3, 4, 39)
    ]
    assert judged == []


def test_progress_counts_sources(logs: Path) -> None:
    told: list[tuple[int, int, str]] = []
    list(diagnose_runs(logs, progress=lambda *now: told.append(now)))
    assert told == [*((i, 40, f"run{i}") for i in range(40)), (40, 40, "")]


def test_a_run_is_found_by_the_number_that_tells_it_from_another(
    monkeypatch: pytest.MonkeyPatch, write: Write, tmp_path: Path
) -> None:
    for name in ("a/metrics.csv", "b/metrics.csv"):
        write(name, sick=name.startswith("b"))
    sources = find_runs(tmp_path / "logs")
    several = [replace(s, parts=s.parts) for s in sources]
    monkeypatch.setattr(many, "find_runs", lambda path, **_: [_named_alike(s) for s in several])
    assert [r.run for r in diagnose_runs(tmp_path)] == ["same", "same (2)"]
    (report,) = diagnose_runs(tmp_path, match="* (2)")
    assert (report.run, report.verdict) == ("same (2)", "sick")


def _named_alike(source: Any) -> Any:
    def load(through: object = None) -> list[Any]:
        return [replace(run, name="same") for run in source.load()]

    return SimpleNamespace(
        load=load,
        single=False,
        name=source.name,
        parts=source.parts,
        path=source.path,
        source=source.source,
        origin=None,
    )


def test_mistakes_of_the_user_are_errors(logs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no-such-rule"):
        list(diagnose_runs(logs, config=Config(select=("no-such-rule",))))
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoLogsFound):
        list(diagnose_runs(tmp_path / "empty"))


DEADLY = "__import__('os')._exit(3)"


def test_a_worker_that_dies_costs_only_the_run_that_killed_it(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources: list[Any] = find_runs(logs)
    sources[7] = SimpleNamespace(
        name="deadly",
        path=Path("deadly.csv"),
        source="csv",
        parts=(),
        single=True,
        load=partial(eval, DEADLY),
        origin=None,
        where="deadly.csv",
    )
    monkeypatch.setattr(many, "find_runs", lambda path, **_: sources)
    reports = list(diagnose_runs(logs, workers=2))
    assert [r.run for r in reports] == [*(f"run{i}" for i in range(7)), "deadly", *(f"run{i}" for i in range(8, 40))]
    dead = reports.pop(7)
    assert dead.verdict == "cannot judge"
    assert "ended without a word" in dead.notes[0].text
    assert all(report.verdict != "cannot judge" for report in reports)


def test_where_no_worker_can_be_started_the_work_is_done_here(
    logs: Path, monkeypatch: pytest.MonkeyPatch, judged: list[str]
) -> None:
    def refused(self: Crew) -> Any:
        raise OSError("no semaphores")

    monkeypatch.setattr(Crew, "_opened", refused)
    assert len(list(diagnose_runs(logs, workers=4))) == len(judged) == 40


def test_workers_are_started_only_where_it_pays(logs: Path, monkeypatch: pytest.MonkeyPatch, judged: list[str]) -> None:
    asked: list[int] = []
    monkeypatch.setattr(Crew, "started", lambda workers, job: asked.append(workers))
    monkeypatch.setattr(many, "cores", lambda: 8)
    monkeypatch.setattr(many, "_WORTHWHILE", 1e9)
    assert len(list(diagnose_runs(logs, workers=None))) == 40
    assert asked == []
    monkeypatch.setattr(many, "_WORTHWHILE", 0.0)
    assert len(list(diagnose_runs(logs, workers=None))) == 40
    assert asked == [8]
    assert len(list(diagnose_runs(logs))) == 40
    assert asked == [8]
