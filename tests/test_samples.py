"""Every sample log is diagnosed as its `expected.toml` says, from the file to the report."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from fitdoctor import Report, Severity, catalogue, diagnose, open_runs

SAMPLES = Path(__file__).parents[1] / "sample_logs"
FOLDERS = sorted(path.parent for path in SAMPLES.glob("*/expected.toml"))

each_sample = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)


def expectation(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "expected.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    """Reports by sample, made once, each from its own folder."""
    found = {}
    for folder in FOLDERS:
        runs = list(open_runs(folder))
        assert len(runs) == 1, f"{folder.name}: expected one run, got {[r.name for r in runs]}"
        found[folder.name] = diagnose(runs[0])
    return found


def alarms(report: Report) -> list[str]:
    """Rules with a warning or an error."""
    return [f.rule for f in report.findings if f.severity is not Severity.NOTE]


def told(report: Report) -> str:
    """What a failed test shows of a report."""
    lines = [f"{report.run}: {report.verdict}"]
    lines += [f"  {f.severity} {f.rule}: {f.message}" for f in report.findings]
    lines += [f"  skipped {o.rule}: {o.why}" for o in report.outcomes if o.status == "skipped" and o.vital]
    return "\n".join(lines)


@each_sample
def test_verdict(folder: Path, reports: dict[str, Report]) -> None:
    report = reports[folder.name]
    assert report.verdict == expectation(folder)["expect"]["verdict"], told(report)


@each_sample
def test_what_has_to_be_found(folder: Path, reports: dict[str, Report]) -> None:
    report, expect = reports[folder.name], expectation(folder)["expect"]
    found = {f.rule for f in report.findings}
    for rule in expect["must"]:
        assert rule in found, told(report)
    for choices in expect["must_any"]:
        assert found & set(choices), f"one of {choices}\n{told(report)}"


@each_sample
def test_what_must_not_be_alarmed(folder: Path, reports: dict[str, Report]) -> None:
    report, expect = reports[folder.name], expectation(folder)["expect"]
    assert not set(alarms(report)) & set(expect["must_not"]), told(report)


@each_sample
def test_root_cause(folder: Path, reports: dict[str, Report]) -> None:
    report, roots = reports[folder.name], expectation(folder)["expect"]["root"]
    if roots:
        assert report.diagnoses, told(report)
        assert report.diagnoses[0].root.rule in roots, told(report)


@each_sample
def test_nothing_crashes(folder: Path, reports: dict[str, Report]) -> None:
    crashed = [(o.rule, o.why) for o in reports[folder.name].outcomes if o.status == "crashed"]
    assert not crashed


@each_sample
def test_expectation_is_well_formed(folder: Path) -> None:
    document = expectation(folder)
    names = {rule.name for rule in catalogue.rules()}
    expect = document["expect"]
    mentioned = [*expect["must"], *expect["must_not"], *expect["root"], *(r for c in expect["must_any"] for r in c)]
    assert set(mentioned) <= names
    assert expect["verdict"] in ("sick", "healthy", "cannot judge")
    assert (expect["verdict"] == "sick") == bool(expect["must"] or expect["must_any"])
    assert {"how", "why", "format", "script", "seed"} <= set(document["made"])


def test_the_samples_cover_what_they_promise() -> None:
    documents = [expectation(folder) for folder in FOLDERS]
    healthy = [d for d in documents if d["expect"]["verdict"] == "healthy"]
    assert len(documents) >= 16
    assert len(healthy) >= 7
    assert len({d["made"]["format"] for d in documents}) >= 5
    assert sum(p.stat().st_size for folder in FOLDERS for p in folder.iterdir()) < 3_000_000


def test_all_samples_at_once() -> None:
    """Opened together, they are the same runs under the names of their folders."""
    names = {run.name.partition("/")[0] for run in open_runs(SAMPLES)}
    sweeps = {path.parent.name for path in SAMPLES.glob("*/truth.toml")}  # many runs each: tests/sweep
    assert names == {folder.name for folder in FOLDERS} | sweeps
