"""`fitdoctor analyze`: every option and every exit status."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
from fitdoctor import __version__
from fitdoctor.cli import main
from fitdoctor.errors import ReadError
from fitdoctor.run import Run


class TestExitStatus:
    @pytest.mark.parametrize(
        ("arguments", "status"),
        [
            (["logs/healthy.csv"], 0),
            (["logs/nan.csv"], 1),
            (["logs/nan.csv", "--fail-on", "never"], 0),
            (["logs/nan.csv", "--exit-zero"], 0),
            (["logs/short.csv"], 3),
            (["logs/short.csv", "--exit-zero"], 0),
            (["logs/short.csv", "logs/healthy.csv"], 0),
            (["logs"], 1),
            (["nowhere"], 2),
            (["nowhere", "--exit-zero"], 2),
            (["."], 1),
            (["logs", "--run", "nothing-fits"], 2),
            (["logs", "--format", "jsn"], 2),
            (["logs", "--select", "no-such-rule"], 2),
            (["logs", "--map", "train_loss"], 2),
            (["logs", "--map", "train_loss=lss"], 2),
            (["logs", "--fact", "clases=10"], 2),
            (["logs", "--config", "nowhere.toml"], 2),
            ([], 2),
        ],
        ids=lambda v: " ".join(v) if isinstance(v, list) else str(v),
    )
    def test_status(self, run, logs: Path, arguments: list[str], status: int):
        assert run("analyze", *arguments).exit_code == status

    def test_fail_on_note_counts_notes(self, run, logs: Path):
        assert run("analyze", logs / "short.csv", "--fail-on", "note").exit_code == 1  # too-few-points

    def test_an_empty_folder_says_what_was_looked_for(self, run, tmp_path: Path):
        (tmp_path / "empty").mkdir()
        result = run("analyze", "empty")
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "expected TensorBoard event files, CSV" in result.stderr

    def test_one_unreadable_path_does_not_stop_the_others(self, run, logs: Path, tmp_path: Path):
        (tmp_path / "empty").mkdir()
        result = run("analyze", "empty", logs / "healthy.csv")
        assert result.exit_code == 2
        assert "looks healthy" in result.stdout

    def test_a_log_of_which_nothing_can_be_read(self, run, logs: Path, monkeypatch: pytest.MonkeyPatch):
        from fitdoctor.readers import csv_table

        def broken(home: Path, files: object) -> list[object]:
            raise ReadError(f"{home}: expected a table, got porridge")

        monkeypatch.setattr(csv_table, "read", broken)
        result = run("analyze", logs / "healthy.csv")
        assert result.exit_code == 2
        assert "got porridge" in result.stdout

    def test_a_bug_of_ours_is_no_finding(self, run, logs: Path, monkeypatch: pytest.MonkeyPatch):
        def broken(run: Run, **_: object) -> None:
            raise ZeroDivisionError("oh")

        monkeypatch.setattr(import_module("fitdoctor.diagnose"), "diagnose", broken)
        result = run("analyze", logs)
        assert result.exit_code == 70
        assert "ZeroDivisionError" in result.stderr
        assert "please report it" in result.stderr

    def test_interrupted(self, run, logs: Path, monkeypatch: pytest.MonkeyPatch):
        def interrupted(run: Run, **_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(import_module("fitdoctor.diagnose"), "diagnose", interrupted)
        assert run("analyze", logs).exit_code == 130


class TestWhatIsRead:
    def test_several_paths_keep_their_runs_apart(self, run, logs: Path):
        result = run("analyze", "logs/healthy.csv", "logs", "--run", "healthy", "--format", "json")
        assert [r["run"] for r in json.loads(result.stdout)["reports"]] == ["logs/healthy.csv", "logs/healthy"]

    def test_run_takes_a_glob(self, run, logs: Path):
        reports = json.loads(run("analyze", logs, "--run", "[ho]*", "--format", "json").stdout)["reports"]
        assert [r["run"] for r in reports] == ["healthy", "overfit"]

    def test_map_says_what_a_tag_means(self, run, logs: Path):
        def reasons(*more: str) -> str:
            return run("analyze", logs / "healthy.csv", "--verbose", *more).stdout

        assert "no lr logged" in reasons()
        assert "no lr logged" not in reasons("--map", "val_loss=lr")

    def test_facts_reach_the_report(self, run, logs: Path):
        result = run(
            "analyze", logs / "healthy.csv", "--fact", "classes=10", "--fact", "optimizer=SGD", "--format", "json"
        )
        facts = json.loads(result.stdout)["reports"][0]["facts"]
        assert (facts["classes"], facts["optimizer"]) == (10, "SGD")

    def test_a_fact_with_a_misspelt_name_is_refused(self, run, logs: Path):
        assert "did you mean 'classes'?" in run("analyze", logs, "--fact", "clases=10").stderr


class TestWhichRules:
    def statuses(self, result) -> dict[str, str]:
        return {o["rule"]: o["status"] for o in json.loads(result.stdout)["reports"][0]["outcomes"]}

    def test_select_takes_names_codes_and_families(self, run, logs: Path):
        result = run(
            "analyze", logs / "nan.csv", "--select", "overfitting,NUM001", "--select", "DAT", "--format", "json"
        )
        data = {"repeated-batch-order", "outlying-batches", "sorted-batches"}
        assert {"overfitting", "nonfinite-loss"} | data == self.statuses(result).keys()

    def test_ignore_is_told(self, run, logs: Path):
        result = run("analyze", logs / "nan.csv", "--ignore", "nonfinite-loss", "--format", "json")
        assert "nonfinite-loss" not in self.statuses(result)
        assert json.loads(result.stdout)["reports"][0]["ignored"] == {"nonfinite-loss": "on the command line"}

    def test_a_misspelt_rule_names_the_nearest(self, run, logs: Path):
        assert "did you mean 'overfitting'?" in run("analyze", logs, "--select", "overfiting").stderr


class TestConfigFile:
    def test_it_is_read_and_the_command_line_wins(self, run, logs: Path, tmp_path: Path):
        (tmp_path / "own.toml").write_text('fail_on = "never"\nignore = ["nonfinite-loss"]', "utf-8")
        quiet = run("analyze", logs / "nan.csv", "--config", "own.toml", "--format", "json")
        assert quiet.exit_code == 0
        assert "nonfinite-loss" in json.loads(quiet.stdout)["reports"][0]["ignored"]
        loud = run(
            "analyze", logs / "nan.csv", "--config", "own.toml", "--fail-on", "error", "--select", "nonfinite-loss"
        )
        assert loud.exit_code == 1

    def test_options_of_rules_are_checked(self, run, logs: Path, tmp_path: Path):
        (tmp_path / "own.toml").write_text("[rules.overfitting]\npatients = 3", "utf-8")
        result = run("analyze", logs, "--config", "own.toml")
        assert result.exit_code == 2
        assert "rule overfitting has no option 'patients'; it takes" in result.stderr


class TestOutput:
    @pytest.mark.parametrize("format_", ["json", "sarif"])
    def test_json_formats(self, run, logs: Path, format_: str):
        document = json.loads(run("analyze", logs, "--format", format_).stdout)
        assert document.get("fitdoctor") == __version__ or document["version"] == "2.1.0"

    def test_sarif_explains_its_rules(self, run, logs: Path):
        document = json.loads(run("analyze", logs, "--format", "sarif").stdout)
        rules = document["runs"][0]["tool"]["driver"]["rules"]
        assert all("help" in r and len(r["shortDescription"]["text"]) > 20 for r in rules)

    def test_junit_fails_what_fail_on_says(self, run, logs: Path):
        def failures(*more: str) -> int:
            return len(
                ElementTree.fromstring(run("analyze", logs, "--format", "junit", *more).stdout).findall(".//failure")
            )

        assert failures("--fail-on", "never") == 0 < failures() <= failures("--fail-on", "note")

    def test_github_annotates(self, run, logs: Path):
        assert run("analyze", logs, "--format", "github").stdout.count("::error title=") == 2

    def test_markdown(self, run, logs: Path):
        assert run("analyze", logs, "--format", "markdown").stdout.startswith("### fitdoctor: 2 of 4 runs are sick")

    @pytest.mark.parametrize(
        ("name", "start"),
        [("r.json", "{"), ("r.md", "### "), ("r.sarif", "{"), ("r.xml", "<?xml"), ("r.txt", "diagnosis")],
    )
    def test_a_file_gets_the_format_of_its_suffix(self, run, logs: Path, tmp_path: Path, name: str, start: str):
        result = run("analyze", logs, "-o", name)
        assert result.exit_code == 1
        assert result.output == ""
        assert (tmp_path / name).read_text("utf-8").startswith(start)

    def test_a_file_that_cannot_be_written(self, run, logs: Path):
        result = run("analyze", logs, "-o", "nowhere/report.json")
        assert result.exit_code == 2
        assert "nowhere/report.json: No such file or directory" in result.stderr

    def test_full_limits_the_whole_reports(self, run, logs: Path):
        assert run("analyze", logs, "--full", 0).stdout.count("What to do") == 0
        assert run("analyze", logs, "--full", 1).stdout.count("What to do") == 1
        assert "1 more sick run not shown whole: --run NAME" in run("analyze", logs, "--full", 1).stdout
        assert run("analyze", logs).stdout.count("What to do") == 2

    def test_verbose_and_quiet(self, run, logs: Path):
        usual, verbose, quiet = (run("analyze", logs / "nan.csv", *m).stdout for m in ((), ("-v",), ("-q",)))
        assert len(quiet.splitlines()) < 6 < len(usual.splitlines()) < len(verbose.splitlines())

    def test_the_table_counts_root_causes(self, run, logs: Path):
        text = run("analyze", logs, "-q").stdout
        assert "4 runs: 2 sick, 1 healthy, 1 cannot be judged" in text
        assert "runs by root cause: nonfinite-loss 1, overfitting 1" in text or "overfitting in 1 run, nonf" in text


def test_version(run):
    assert run("--version").output.strip() == f"fitdoctor, version {__version__}"


def test_a_misspelt_command_names_the_nearest(run):
    result = run("analyse")
    assert result.exit_code == 2
    assert "analyze" in result.stderr


@pytest.mark.parametrize("command", ["analyze", "watch", "rule", "signals"])
def test_every_option_is_explained(command: str):
    options = [p for p in main.commands[command].params if isinstance(p, click.Option)]
    assert options
    assert [o.name for o in options if not o.help] == []
