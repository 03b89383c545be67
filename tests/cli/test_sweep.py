"""The command `fitdoctor sweep`: what it reads, what it writes, with which status it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fitdoctor.cli import main


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["sweep", *map(str, args)])


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Five learning rates, of which the middle one is best; the configuration stands in the names only."""
    for k, final in enumerate((0.9, 0.4, 0.2, 0.4, 0.9)):
        folder = tmp_path / "runs" / f"lr={10.0**-k:g}"
        folder.mkdir(parents=True)
        rows = "".join(f"{i},{final + 2 * 0.9**i:.5f},{final + 2 * 0.9**i:.5f},{100 - 20 * final}\n" for i in range(60))
        (folder / "metrics.csv").write_text("step,train_loss,val_loss,my/points\n" + rows, "utf-8")
    return tmp_path / "runs"


def test_it_reads_settings_from_names_and_says_so(logs: Path) -> None:
    told = invoke(logs, "--no-cache")
    assert told.exit_code == 0, told.output
    assert "learning_rate is read off the names" in told.output
    assert "0.01 alone" in told.output


def test_json_and_markdown(logs: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep.json"
    assert invoke(logs, "--no-cache", "-o", out).exit_code == 0
    found = json.loads(out.read_text("utf-8"))
    assert found["bands"][0]["best"] == 0.01
    assert found["counts"]["runs"] == 5
    told = invoke(logs, "--no-cache", "--format", "markdown")
    assert "| 0.01 | 1 | 0 |" in told.output


def test_a_tag_that_nobody_knows_can_be_ranked_by_with_a_mode(logs: Path) -> None:
    told = invoke(logs, "--no-cache", "--metric", "my/points", "--mode", "max", "--format", "json")
    assert told.exit_code == 0, told.output
    found = json.loads(told.output)
    assert found["objective"]["better"] == "higher"
    assert {t["run"]: t["value"] for t in found["trials"]}["lr=0.01"] == 96.0
    wrong = invoke(logs, "--no-cache", "--metric", "my/pints", "--mode", "max")
    assert wrong.exit_code == 2
    assert "no run has it" in wrong.output


def test_runs_without_settings_end_with_3(logs: Path) -> None:
    told = invoke(logs / "lr=1", "--no-cache")
    assert told.exit_code == 3
    assert "no setting that varies" in told.output


def test_nothing_there_ends_with_2(tmp_path: Path) -> None:
    assert invoke(tmp_path).exit_code == 2
