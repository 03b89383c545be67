"""What each command imports: nobody waits for a library that is not used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FRAMEWORKS = (
    "torch",
    "tensorboard",
    "tensorflow",
    "lightning",
    "transformers",
    "matplotlib",
    "wandb",
    "mlflow",
    "trackio",
    "mcp",
    "fsspec",
    "distributed",
)
NUMBERS = ("numpy", "scipy", "pandas")

RUN = """
import sys
from fitdoctor.cli import main
status = main(args=sys.argv[2:], standalone_mode=False)
loaded = [name for name in sys.argv[1].split(",") if name in sys.modules]
sys.exit("imported " + ", ".join(loaded) if loaded else 0)
"""


def loaded_by(arguments: list[str], unwanted: tuple[str, ...], before: str = "") -> str:
    """What a command imports of the unwanted modules, as a message; "" for nothing."""
    command = [sys.executable, "-c", before + RUN, ",".join(unwanted), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0 or done.stderr.startswith("imported "), done.stderr
    return done.stderr.strip()


@pytest.fixture
def log(tmp_path: Path) -> str:
    rows = "".join(f"{i},{2.0 / (1 + i)},{2.1 / (1 + i)}\n" for i in range(40))
    path = tmp_path / "metrics.csv"
    path.write_text("step,train_loss,val_loss\n" + rows, "utf-8")
    return str(path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["analyze", "--help"],
        ["compare", "--help"],
        ["sweep", "--help"],
        ["rule", "--help"],
        ["run", "--help"],
        ["signals", "--help"],
        ["watch", "--help"],
        ["preflight", "--help"],
        ["mcp", "--help"],
    ],
    ids=" ".join,
)
def test_help_and_version_load_nothing_heavy(arguments: list[str]):
    # standalone_mode=False lets --help return instead of exiting.
    assert loaded_by(arguments, (*NUMBERS, *FRAMEWORKS, "rich", "jinja2", "google.protobuf")) == ""


@pytest.mark.parametrize("format_", ["terminal", "json", "markdown", "html", "github", "sarif", "junit"])
def test_analyze_loads_no_framework(log: str, format_: str):
    assert loaded_by(["analyze", log, "--format", format_], (*FRAMEWORKS, "rich.markdown")) == ""


@pytest.mark.parametrize("format_", ["terminal", "json", "markdown"])
def test_compare_loads_no_framework(log: str, format_: str):
    assert loaded_by(["compare", log, log, "--format", format_], FRAMEWORKS) == ""


@pytest.mark.parametrize("format_", ["terminal", "json", "markdown"])
def test_sweep_loads_no_framework(tmp_path: Path, log: str, format_: str):
    for rate in ("0.1", "0.01", "0.001"):
        run = tmp_path / "sweep" / f"lr={rate}"
        run.mkdir(parents=True)
        (run / "metrics.csv").write_text(Path(log).read_text("utf-8"), "utf-8")
    assert loaded_by(["sweep", str(tmp_path / "sweep"), "--no-cache", "--format", format_], FRAMEWORKS) == ""


def test_watch_loads_no_framework(log: str):
    assert loaded_by(["watch", log, "--once"], FRAMEWORKS) == ""


@pytest.mark.parametrize(
    "arguments", [["rule"], ["rule", "overfitting"], ["rule", "PRE005"], ["rule", "--format", "causes"]], ids=" ".join
)
def test_rule_loads_no_framework(arguments: list[str]):
    assert loaded_by(arguments, FRAMEWORKS) == ""


def test_signals_loads_no_framework_and_its_vocabulary_no_numbers(log: str):
    assert loaded_by(["signals"], (*NUMBERS, *FRAMEWORKS)) == ""
    assert loaded_by(["signals", log], FRAMEWORKS) == ""


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, fitdoctor; sys.exit(str([m for m in ('numpy', 'torch', 'click') if m in sys.modules] or 0))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() in ("", "0")


def test_the_guard_sees_an_unwanted_import():
    assert loaded_by(["--version"], NUMBERS, before="import numpy\n") == "imported numpy"
