"""`fitdoctor compare`: paths, patterns, sides, formats and exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fitdoctor.cli import main
from fitdoctor.readers import open_runs
from tests.cli.conftest import rows, write_log


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two healthy runs of three seeds each in folders `a` and `b`, a run that overfits, and one that turns nan."""
    for side in "ab":
        for i in range(3):
            shifted = [(step, train - 0.001 * i, val - 0.001 * i) for step, train, val in rows("healthy")]
            write_log(tmp_path / side / f"seed{i}.csv", shifted)
    write_log(tmp_path / "overfit.csv", rows("overfit"))
    write_log(tmp_path / "nan.csv", rows("nan"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compare(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["compare", *arguments])


def document(*arguments: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(compare(*arguments, "--format", "json").stdout)
    return found


@pytest.mark.usefixtures("logs")
def test_two_runs_by_path() -> None:
    done = compare("a/seed0.csv", "overfit.csv")
    assert done.stdout.startswith("before  a/seed0.csv\nafter   overfit.csv\n")
    assert "one seed: a difference below the seed noise cannot be called" in " ".join(done.stdout.split())
    assert "overfitting" in done.stdout


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize(
    "arguments",
    [
        ("a", "b"),
        ("a/*.csv", "b/*.csv"),
        ("a/seed0.csv", "a/seed1.csv", "a/seed2.csv", "--against", "b/seed0.csv", "b/seed1.csv", "b/seed2.csv"),
        ("a", "--against", "b/seed0.csv", "--against", "b/seed1.csv", "b/seed2.csv"),
    ],
    ids=["folders", "patterns", "lists", "mixed"],
)
def test_several_runs_of_a_side(arguments: tuple[str, ...]) -> None:
    found = document(*arguments)
    assert (len(found["before"]), len(found["after"])) == (3, 3)  # type: ignore[arg-type]
    tested = found["curves"][0]["significance"]  # type: ignore[index]
    assert (tested["before"], tested["after"], tested["method"]) == (3, 3, "exchange of labels")
    assert tested["smallest"] == 0.1
    paired = document(*arguments, "--paired")
    assert paired["curves"][0]["significance"]["smallest"] == 0.25  # type: ignore[index]


def test_options_may_follow_the_second_side(logs: Path) -> None:
    done = compare("a/seed0.csv", "--against", "b/seed0.csv", "b/seed1.csv", "--format", "json", "--by", "step")
    assert len(json.loads(done.stdout)["after"]) == 2


def test_runs_of_a_store_by_the_pattern_of_their_names(logs: Path) -> None:
    names = [run.name for run in open_runs(logs / "a")]
    assert len(names) == 3
    found = document("a", f"{logs / 'b'}/seed[01]*")
    assert len(found["after"]) == 2  # type: ignore[arg-type]


@pytest.mark.usefixtures("logs")
def test_the_exit_status_tells_what_got_worse() -> None:
    assert compare("a/seed0.csv", "b/seed0.csv").exit_code == 0
    assert compare("a/seed0.csv", "nan.csv").exit_code == 1
    assert compare("a/seed0.csv", "nan.csv", "--fail-on", "never").exit_code == 0
    assert compare("a/seed0.csv", "nan.csv", "--exit-zero").exit_code == 0
    assert compare("nan.csv", "a/seed0.csv").exit_code == 0
    assert compare("a/seed0.csv", "overfit.csv", "--fail-on", "warning").exit_code == 1


def test_without_a_curve_in_common_the_status_is_3(logs: Path) -> None:
    (logs / "rates.csv").write_text("step,lr\n" + "".join(f"{i},0.1\n" for i in range(20)), "utf-8")
    done = compare("a/seed0.csv", "rates.csv")
    assert done.exit_code == 3
    assert "no curve that all runs logged" in " ".join(done.stdout.split())


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a",), "expected two paths, got 1"),
        (("a", "b", "nan.csv"), "--against"),
        (("a", "missing"), "no such file or folder"),
        (("a", "missing*"), "nothing fits that pattern"),
        (("a", "b", "--metric", "acuracy"), "QUANTITY[:SPLIT]"),
        (("a", "nan.csv", "--paired"), "as many runs"),
        (("a", "b", "--before", "lr"), "KEY=VALUE"),
    ],
)
def test_wrong_usage_is_told_with_status_2(arguments: tuple[str, ...], message: str) -> None:
    done = compare(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.usefixtures("logs")
def test_what_the_logs_do_not_tell_is_told_by_hand() -> None:
    found = document("a/seed0.csv", "b/seed0.csv", "--before", "dropout=0.5", "--after", "dropout=0")
    assert found["facts"] == [{"key": "dropout", "before": [0.5], "after": [0], "environment": False}]
    shown = compare("a/seed0.csv", "b/seed0.csv", "--after", "augmentation=true").stdout
    assert "augmentation: not logged -> True" in shown


def test_markdown_and_json_by_the_suffix(logs: Path) -> None:
    assert compare("overfit.csv", "a/seed0.csv", "-o", "out.md").stdout == ""
    text = (logs / "out.md").read_text("utf-8")
    assert text.startswith("## overfit.csv against a/seed0.csv")
    assert "| val loss |" in text
    assert "**Findings gone**" in text
    compare("overfit.csv", "a/seed0.csv", "-o", "out.json")
    found = json.loads((logs / "out.json").read_text("utf-8"))
    assert found["format_version"] == 1
    assert found["decided_by"] == {"quantity": "loss", "split": "val", "layer": ""}


def test_hostile_names_are_shown_as_text(logs: Path) -> None:
    hostile = logs / "\x1b[31mred|<b>.csv"
    write_log(hostile, rows("nan"))
    shown = compare(hostile.name, "a/seed0.csv").stdout
    assert "\x1b[31m" not in shown
    assert "<b>" not in compare(hostile.name, "a/seed0.csv", "--format", "markdown").stdout


@pytest.mark.usefixtures("logs")
def test_every_curve_is_shown_when_asked() -> None:
    plain, whole = (compare("nan.csv", "a/seed0.csv", *more).stdout for more in ((), ("--verbose",)))
    assert len(whole) >= len(plain)
    assert "train loss" in whole
