"""SET007 distributed-desync. Two processes that drift apart are in tests/live/test_ranks.py; here is what is said."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.finding import Confidence, Severity
from fitdoctor.run import Run
from fitdoctor.signals import RANK_DISAGREEMENT
from tests.rules.one_rule import cannot_judge, finding, findings, make_run, series

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

NAME = "distributed-desync"


def two_copies(sync: str, steps: int = 40) -> Run:
    """Two copies of a model, trained as two processes would: the spread of the norms of their weights."""
    torch.manual_seed(0)
    first, second = nn.Linear(8, 4), nn.Linear(8, 4)
    if sync != "never":
        second.load_state_dict(first.state_dict())
    spread = []
    for i in range(steps):
        losses = [nn.functional.mse_loss(m(torch.randn(16, 8)), torch.zeros(16, 4)) for m in (first, second)]
        for m, loss in zip((first, second), losses, strict=True):
            m.zero_grad()
            loss.backward()
        with torch.no_grad():
            pairs = list(zip(first.parameters(), second.parameters(), strict=True))
            for a, b in pairs:
                assert a.grad is not None
                assert b.grad is not None
                mean = (a.grad + b.grad) / 2
                together = sync == "always" or (sync == "until 20" and i < 20)
                a -= 0.05 * (mean if together else a.grad)
                b -= 0.05 * (mean if together else b.grad)
                if sync == "periodically" and i % 4 == 3:
                    a.copy_((a + b) / 2)
                    b.copy_(a)
        norms = [float(torch.cat([p.detach().flatten() for p in m.parameters()]).norm()) for m in (first, second)]
        spread.append((max(norms) - min(norms)) / max(norms))
    return make_run(series(RANK_DISAGREEMENT, spread))


def test_copies_that_stop_averaging_their_gradients() -> None:
    found = finding(NAME, two_copies("until 20"), Severity.ERROR)
    assert found.onset == 20
    assert found.confidence is Confidence.HIGH


def test_copies_that_never_began_equal() -> None:
    assert finding(NAME, two_copies("never")).could_be is not None


def test_copies_that_agree() -> None:
    assert findings(NAME, two_copies("always")) == []


def test_periodic_averaging_is_meant() -> None:
    assert findings(NAME, two_copies("periodically")) == []


def test_other_parts_of_the_model_on_each_process() -> None:
    found = finding(NAME, make_run(series(RANK_DISAGREEMENT, np.full(20, 0.3))), Severity.WARNING)
    assert found.confidence is Confidence.LOW
    assert found.could_be


@pytest.mark.parametrize(("spread", "found"), [(9e-7, False), (2e-6, True)])
def test_boundary_is_rounding(spread: float, found: bool) -> None:
    values = np.r_[np.zeros(10), np.full(3, spread)]
    assert bool(findings(NAME, make_run(series(RANK_DISAGREEMENT, values)))) is found
    cannot_judge(NAME, make_run(series(RANK_DISAGREEMENT, [0.1, 0.2])), "3 are needed")
