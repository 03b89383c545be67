"""LOG001 restart-discontinuity where hooks saw the resumed training begin."""

from __future__ import annotations

from pathlib import Path

import pytest
from fitdoctor.finding import Severity
from fitdoctor.readers import open_runs
from fitdoctor.run import Run
from tests.hooked import batches, digits, ordinary_step
from tests.rules.books import healthy, net
from tests.rules.one_rule import finding, findings

torch = pytest.importorskip("torch")
import fitdoctor  # noqa: E402
from torch import nn  # noqa: E402

NAME = "restart-discontinuity"


def two_parts(folder: Path, restore: str, make: object = None) -> Run:
    """Train, stop, and go on in the same log folder with the weights and what `restore` names; read the log."""
    state: dict[str, object] = {}
    for part in range(2):
        torch.manual_seed(0)
        model, criterion = net(), nn.CrossEntropyLoss()
        optimizer = make(model) if callable(make) else torch.optim.Adam(model.parameters(), lr=0.02)
        plan = torch.optim.lr_scheduler.StepLR(optimizer, 40, 0.1)
        if part:
            model.load_state_dict(state["model"])
            if "optimizer" in restore:
                optimizer.load_state_dict(state["optimizer"])
            if "scheduler" in restore:
                plan.load_state_dict(state["plan"])
        options = {"logdir": folder, "record_every": 2, "judge_every": 10**9, "tier": "light", "scheduler": plan}
        with fitdoctor.attach(model, optimizer, criterion, **options):
            for epoch in batches(digits()[0], 20, 1, seed=part):
                for x, y in epoch:
                    ordinary_step(model, criterion, optimizer, x, y)
                    plan.step()
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "plan": plan.state_dict()}
    (run,) = open_runs(folder)
    return run


def test_everything_restored(tmp_path: Path) -> None:
    run = two_parts(tmp_path, "optimizer scheduler")
    assert run.facts["optimizer_state_restored"] is True or run.facts["optimizer_state_restored"] == "True"
    assert findings(NAME, run) == []


def test_moments_and_schedule_forgotten(tmp_path: Path) -> None:
    found = finding(NAME, two_parts(tmp_path, ""), Severity.WARNING)
    assert found.message.startswith("run was resumed at step 61 without the optimizer's moments and the scheduler's")
    assert any(str(e.signal) == "lr" for e in found.evidence)


def test_the_moments_alone_forgotten(tmp_path: Path) -> None:
    found = finding(NAME, two_parts(tmp_path, "scheduler"))
    assert "without the optimizer's moments" in found.message
    assert "schedule" not in found.message


def test_an_optimizer_without_moments_has_nothing_to_restore(tmp_path: Path) -> None:
    run = two_parts(tmp_path, "optimizer scheduler", lambda model: torch.optim.SGD(model.parameters(), lr=0.1))
    assert "optimizer_state_restored" not in run.facts
    assert findings(NAME, run) == []


@pytest.mark.parametrize(("resumed", "found"), [(3, False), (4, True)])
def test_boundary_is_a_twentieth_of_the_run(resumed: int, found: bool) -> None:
    """Before that it is another run in the same folder."""
    run = healthy().with_facts(resumed_at=resumed, optimizer_state_restored=False)
    assert bool(findings(NAME, run)) is found
