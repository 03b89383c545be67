"""`fitdoctor preflight MODULE:FUNCTION`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PROGRAM = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def parts(scale=1.0):
    torch.manual_seed(0)
    x = torch.randn(300, 10)
    y = (x @ torch.randn(10, 3)).argmax(1)
    x = 100 * (scale - 1) + scale * x
    model = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    train = DataLoader(TensorDataset(x[:200], y[:200]), 20, shuffle=True)
    return model, nn.CrossEntropyLoss(), optimizer, train, DataLoader(TensorDataset(x[200:], y[200:]), 50)


def build():
    return dict(zip(("model", "criterion", "optimizer", "train_loader", "val_loader"), parts()))


def raw():
    return parts(50.0)


def number():
    return 3


def misspelt():
    return {**build(), "val_loder": None}


constant = 3
"""
FEW = ("--select", "PRE001,PRE003,PRE004,PRE013,PRE014")


@pytest.fixture
def program(run, tmp_path: Path) -> Path:
    path = tmp_path / "program_of_a_user.py"
    path.write_text(PROGRAM, "utf-8")
    return path


def test_a_sound_program_exits_with_0(run, program: Path):
    result = run("preflight", f"{program}:build", *FEW)
    assert result.exit_code == 0, result.output
    assert "looks healthy" in result.stdout
    assert "5 clean" in result.stdout


def test_a_module_is_found_in_the_current_folder(run, program: Path):
    result = run("preflight", "program_of_a_user:raw", *FEW, "--fail-on", "warning")
    assert result.exit_code == 1
    assert "unnormalised-inputs" in result.stdout
    assert "before the first step" in result.stdout
    assert run("preflight", "program_of_a_user:raw", *FEW, "--fail-on", "warning", "--exit-zero").exit_code == 0


def test_json_and_files_by_suffix(run, program: Path, tmp_path: Path):
    (report,) = json.loads(run("preflight", f"{program}:raw", *FEW, "--format", "json").stdout)["reports"]
    assert report["verdict"] == "sick"
    assert report["diagnoses"][0]["root"] == "unnormalised-inputs"
    assert {o["status"] for o in report["outcomes"]} <= {"found", "clean", "skipped"}
    assert run("preflight", f"{program}:raw", *FEW, "-o", tmp_path / "report.html").exit_code == 0
    assert "unnormalised-inputs" in (tmp_path / "report.html").read_text("utf-8")


def test_a_budget_that_is_spent_leaves_a_program_unjudged(run, program: Path):
    result = run("preflight", f"{program}:build", "--budget", "0.000001")
    assert result.exit_code == 3
    assert "of the budget are left" in " ".join(result.stdout.split())


def test_a_config_file_leaves_probes_out(run, program: Path, tmp_path: Path):
    config = tmp_path / "fitdoctor.toml"
    config.write_text('[ignore]\nunnormalised-inputs = "on purpose"\n[rules.defective-data]\nexamples = 50\n', "utf-8")
    result = run("preflight", f"{program}:raw", *FEW, "--config", config, "--format", "json")
    (report,) = json.loads(result.stdout)["reports"]
    assert report["ignored"] == {"unnormalised-inputs": "on purpose"}


def test_the_same_config_file_serves_analyze(run, logs: Path, tmp_path: Path):
    config = tmp_path / "fitdoctor.toml"
    config.write_text('[ignore]\nunnormalised-inputs = "on purpose"\n[rules.defective-data]\nexamples = 50\n', "utf-8")
    assert run("analyze", logs / "healthy.csv", "--config", config).exit_code == 0


@pytest.mark.parametrize(
    ("factory", "part"),
    [
        ("program_of_a_user", "expected MODULE:FUNCTION"),
        ("no_such_module:build", "no module of that name"),
        ("missing.py:build", "no such file"),
        ("program_of_a_user:nothing", "has no function 'nothing'"),
        ("program_of_a_user:constant", "has no function 'constant'"),
        ("program_of_a_user:number", "expected a dict with model, criterion"),
        ("program_of_a_user:misspelt", "did you mean 'val_loader'?"),
    ],
)
def test_wrong_factories_are_told(run, program: Path, factory: str, part: str):
    result = run("preflight", factory)
    assert result.exit_code == 2
    assert part in " ".join(result.stderr.split())
