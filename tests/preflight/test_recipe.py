"""Probes take steps as the training loop does: autocast, scaler, accumulation, clipping, and several processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fitdoctor import find_lr, preflight
from fitdoctor.errors import ConfigError
from fitdoctor.preflight import ranks
from fitdoctor.preflight.recipe import Recipe, recipe
from tests.preflight.programs import Program, mlp, state_hash
from torch import Tensor, nn

CPU = torch.device("cpu")


class Noting(nn.Module):
    """Notes in which precision it ran, where no guard looks."""

    seen: list[torch.dtype | None] = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Tensor:
        type(self).seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
        return self.net(x)


@pytest.mark.parametrize("amp", [torch.bfloat16, "bf16", "bfloat16", True])
def test_probes_and_ramps_run_in_the_precision_of_the_loop(amp: Any) -> None:
    Noting.seen.clear()
    program = Program(Noting())
    report = program.check("program-fails", "parameters-not-trained", "unused-parameters", amp=amp)
    assert {o.status for o in report.outcomes} == {"clean"}
    assert report.facts["autocast"] == "bfloat16"
    find_lr(program.model, program.criterion, program.optimizer, program.train_loader, amp=amp, steps=60, seeds=1,
            trials=0)  # fmt: skip
    assert set(Noting.seen) == {torch.bfloat16}


def test_without_autocast_nothing_changes_precision() -> None:
    Noting.seen.clear()
    Program(Noting()).check("program-fails")
    assert set(Noting.seen) == {None}


def scaled(scale: float) -> Program:
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    return Program(net, optimizer=optimizer, more={"scaler": torch.amp.GradScaler("cpu", init_scale=scale)})


@pytest.mark.parametrize("scale", [2.0**16, 2.0**120], ids=["usual", "overflows at first"])
def test_a_scaler_that_skips_its_first_steps_is_no_fault(scale: float) -> None:
    program = scaled(scale)
    before = state_hash(program.model, program.optimizer, *program.more.values())
    for name in ("program-fails", "parameters-not-trained", "unused-parameters", "poor-initialisation",
                 "one-batch-not-learned"):  # fmt: skip
        outcome = program.outcome(name)
        assert all(f.severity == "note" for f in outcome.findings), outcome.findings
    assert state_hash(program.model, program.optimizer, *program.more.values()) == before


def test_a_scaler_that_never_lets_a_step_through_cannot_be_judged() -> None:
    program = scaled(float("inf"))
    program.skips("parameters-not-trained", "scaler skips")


def test_gradients_to_look_at_are_those_of_the_loss_whatever_the_scaler() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(8, 10), torch.randint(0, 3, (8,))
    found = []
    for how in (Recipe(CPU), Recipe(CPU, scaler=torch.amp.GradScaler("cpu"))):
        net = mlp()
        how.look(nn.functional.cross_entropy(net(x), y), net.parameters())
        found.append([p.grad for p in net.parameters()])
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, rtol=1e-5)


def test_clipping_bounds_a_step_with_and_without_a_scaler() -> None:
    for scaler in (None, torch.amp.GradScaler("cpu")):
        net = mlp()
        how = Recipe(CPU, scaler=scaler, clip_norm=0.01)
        optimizer = torch.optim.SGD(net.parameters(), 1.0)
        before = torch.cat([p.detach().flatten() for p in net.parameters()])
        how.backward(net(torch.randn(8, 10)).square().sum() * 100)
        assert how.update(optimizer, net.parameters())
        after = torch.cat([p.detach().flatten() for p in net.parameters()])
        assert float((after - before).norm()) == pytest.approx(0.01, rel=1e-3)


def test_accumulation_and_clipping_are_facts_of_the_report() -> None:
    facts = Program(mlp()).check("program-fails", accumulate=4, clip_norm=1.0).facts
    assert facts["gradient_accumulation_steps"] == 4
    assert facts["clip_norm"] == 1.0


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"amp": "int8"}, "expected amp to be torch.float16"),
        ({"amp": torch.float32}, "expected amp to be torch.float16"),
        ({"accumulate": 0}, "expected accumulate of 1 or more, got 0"),
        ({"accumulate": True}, "expected accumulate of 1 or more, got True"),
        ({"clip_norm": -1}, "expected clip_norm above 0 or None, got -1"),
        ({"scaler": 3}, "expected scaler to be a torch GradScaler, got int"),
    ],
)
def test_arguments_are_checked(wrong: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        recipe("preflight", CPU, **wrong)
    program = Program(mlp())
    with pytest.raises(ConfigError, match=part):
        preflight(program.model, program.criterion, program.optimizer, program.train_loader, **wrong)


def test_a_compiled_model_is_looked_at_bare() -> None:
    net = mlp()
    wrapped = torch.compile(net, backend="eager")
    assert ranks.bare(wrapped) is net
    program = Program(net)
    program.model = wrapped
    program.sound("program-fails")
    program.sound("parameters-not-trained")


def test_sharded_parameters_are_refused() -> None:
    net = mlp()
    net[0].weight.device_mesh = "stands for a DTensor"  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="before it is sharded"):
        ranks.bare(net)


def test_a_process_that_is_alone_agrees_with_itself() -> None:
    assert ranks.world() == 1
    assert ranks.largest(2.5, CPU) == 2.5
    assert ranks.least(2.5, CPU) == 2.5
    assert ranks.gathered("a") == ["a"]
    assert float(ranks.mean(torch.tensor(3.0))) == 3.0


def test_two_processes_get_one_report_and_one_rate(tmp_path: Path) -> None:
    """Each process sees other examples, one of them a nan; both tell of it, and both find the same rate."""
    script = Path(__file__).with_name("ranks_script.py")
    workers = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    told = [json.loads(w.communicate(timeout=400)[0].strip().splitlines()[-1]) for w in workers]
    assert [w.returncode for w in workers] == [0, 0]
    assert told[0] == told[1]
    one = told[0]
    assert 1e-4 < one["suggestion"] < 10
    assert one["unchanged"] is True
    assert one["outcomes"]["defective-data"] == ["found", "1 of 100 train examples have nan or inf in their inputs"]
    assert one["outcomes"]["program-fails"] == ["clean", ""]
    assert one["outcomes"]["learning-rate-out-of-range"][0] in ("clean", "skipped", "found")
    assert "another process failed" in one["failure"] or "one process" in one["failure"]
