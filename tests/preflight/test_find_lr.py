"""`find_lr`: ramps read right, rates that train, schedules that run, and processes that agree."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fitdoctor import CannotJudge, find_lr
from fitdoctor.errors import ConfigError, FitdoctorError
from fitdoctor.preflight.bench import Bench
from fitdoctor.preflight.learning_rate import LearningRates
from fitdoctor.preflight.learning_rate.reading import Ramp, interval, read, smoothed
from fitdoctor.preflight.learning_rate.schedule import propose
from fitdoctor.preflight.learning_rate.trials import Trial, chosen, climb
from hypothesis import given
from hypothesis import strategies as st
from tests.preflight.programs import loader, loaders, mlp, vectors
from torch import nn


def made(noise: float = 0.05, edge: float = 1.0, fall: float = 1.0, seed: int = 0, lag: float = 0.0) -> Ramp:
    """A ramp that begins to fall at 1e-3 and breaks away at the edge."""
    rates = np.geomspace(1e-7, 10, 200)
    loss = 2 - fall / (1 + (1e-2 / rates) ** 1.5) + np.where(rates > edge, (rates / edge - 1) ** 2, 0)
    loss = loss + noise * np.random.default_rng(seed).normal(size=200)
    return Ramp(rates, np.minimum(loss, 50), True, lag)


def test_a_ramp_is_read() -> None:
    found = read(made())
    assert found is not None
    assert 0.005 < found.half < 0.05
    assert found.half < found.most < found.lowest < found.edge
    assert 0.8 < found.edge < 3
    assert found.reached


def test_readings_of_several_seeds_agree() -> None:
    readings = [r for s in range(5) if (r := read(made(seed=s))) is not None]
    told = interval(readings)
    assert len(readings) == 5
    assert told.spread < 0.3
    assert told.low < told.suggestion < told.high < told.edge
    assert told.suggestion <= told.edge / 3


def test_momentum_moves_what_is_seen_to_the_rates_that_caused_it() -> None:
    plain, late = read(made()), read(made(lag=9.0))
    assert plain is not None
    assert late is not None
    assert late.edge == pytest.approx(plain.edge * (1e8 ** (1 / 199)) ** -9, rel=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_is_no_fall(seed: int) -> None:
    assert read(made(fall=0.0, edge=1e9, noise=0.3, seed=seed)) is None


def test_a_ramp_that_never_breaks_away_has_no_edge() -> None:
    found = read(Ramp(made(edge=1e9).rates, made(edge=1e9).losses, False))
    assert found is not None
    assert not found.reached


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=2, max_size=120))
def test_any_curve_is_read_without_an_error(losses: list[float]) -> None:
    with np.errstate(all="ignore"):
        found = read(Ramp(np.geomspace(1e-7, 10, len(losses)), np.array(losses, np.float64), False))
    if found is not None:
        assert 0 < found.half <= 10
        assert 0 < found.edge <= 10


def test_smoothing_keeps_a_constant() -> None:
    assert smoothed(np.full(30, 2.5)) == pytest.approx(np.full(30, 2.5))


# --- on real programs -----------------------------------------------------------------------------------


def found_for(optimizer: Any, **more: Any) -> LearningRates:
    net = mlp()
    return find_lr(net, nn.CrossEntropyLoss(), optimizer(net), loaders()[0], **{"seeds": 2, **more})


def trained(lr: float, optimizer: Any, steps: int = 60) -> float:
    net = mlp()
    opt = optimizer(net)
    for group in opt.param_groups:
        group["lr"] = lr
    train, _ = loaders()
    losses: list[float] = []
    while len(losses) < steps:
        for x, y in train:
            loss = nn.functional.cross_entropy(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(float(loss.detach()))
    return float(np.mean(losses[-10:])) if math.isfinite(sum(losses)) else math.inf


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda n: torch.optim.SGD(n.parameters(), 1e-3),
        lambda n: torch.optim.SGD(n.parameters(), 1e-3, momentum=0.9),
        lambda n: torch.optim.AdamW(n.parameters(), 1e-5),
    ],
    ids=["sgd", "momentum", "adamw"],
)
def test_the_suggestion_trains_better_than_a_thirtieth_and_thirty_times_it(optimizer: Any) -> None:
    rates = found_for(optimizer)
    here = trained(rates.suggestion, optimizer)
    assert here < trained(rates.suggestion / 30, optimizer)
    assert here < trained(rates.suggestion * 30, optimizer)
    assert rates.low < rates.suggestion <= rates.high
    assert rates.edge is not None
    assert float(rates) == rates.suggestion


def test_the_same_program_gets_the_same_suggestion() -> None:
    def optimizer(net: nn.Module) -> Any:
        return torch.optim.Adam(net.parameters())

    torch.manual_seed(3)
    first = found_for(optimizer, seeds=1, trials=20)
    torch.manual_seed(3)
    assert found_for(optimizer, seeds=1, trials=20).suggestion == first.suggestion


def test_the_rate_that_the_optimizer_has_does_not_matter() -> None:
    torch.manual_seed(0)
    a = found_for(lambda n: torch.optim.SGD(n.parameters(), 1e-4), seeds=1, trials=20)
    torch.manual_seed(0)
    b = found_for(lambda n: torch.optim.SGD(n.parameters(), 0.0), seeds=1, trials=20)
    assert a.suggestion == b.suggestion


def test_parameter_groups_keep_their_ratios() -> None:
    def groups(net: Any) -> Any:
        return torch.optim.SGD([{"params": net[0].parameters()}, {"params": net[2].parameters(), "lr": 0.01}], 0.1)

    rates = found_for(groups, trials=0)
    assert rates.ratios == pytest.approx((1.0, 0.1))
    assert "by parameter group" in str(rates)


def test_accumulation_gives_the_rate_of_the_larger_batch() -> None:
    net, x, y = mlp(), *vectors(800)

    def rates(batch: int, accumulate: int) -> LearningRates:
        torch.manual_seed(0)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        return find_lr(
            net,
            nn.CrossEntropyLoss(),
            optimizer,
            loader(x, y, batch, drop_last=True),
            accumulate=accumulate,
            seeds=1,
            trials=20,
        )

    whole, pieces = rates(32, 1), rates(8, 4)
    assert pieces.batch_size == whole.batch_size == 32
    assert pieces.suggestion == pytest.approx(whole.suggestion, rel=1e-3)  # the same examples in the same order


def test_what_does_not_learn_cannot_be_judged() -> None:
    x, _ = vectors()
    y = torch.randint(0, 3, (len(x),))
    net = mlp()
    for p in net.parameters():
        p.requires_grad_(False)
    net[2].bias.requires_grad_(True)
    with pytest.raises(CannotJudge, match="falls clearly in no ramp"):
        find_lr(net, nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), 0.1), loader(x, y, 8), seeds=1, steps=60,
                highest=1e-4)  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"steps": 5}, "expected steps of 30 or more, got 5"),
        ({"seeds": 0}, "expected seeds of 1 or more"),
        ({"accumulate": 0}, "expected accumulate of 1 or more"),
        ({"lowest": 1.0, "highest": 0.1}, "expected 0 < lowest < highest"),
        ({"trials": 5}, "expected trials of 20 or more, or 0"),
    ],
)
def test_arguments_are_checked(wrong: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        found_for(lambda n: torch.optim.SGD(n.parameters(), 0.1), **wrong)


# --- trials -----------------------------------------------------------------------------------------------


def tried(*losses: float, start: float = 2.0) -> list[Trial]:
    """Trials a half step apart, around 0.01."""
    return [Trial(0.01 * 10 ** (i / 4), loss, start) for i, loss in enumerate(losses)]


def test_the_suggestion_lies_between_the_best_rate_and_the_lowest_that_does_as_well() -> None:
    trials = tried(1.5, 1.03, 1.0, 1.02, math.inf)
    low, suggestion, high = chosen(trials)
    assert suggestion == pytest.approx((trials[1].rate * trials[2].rate) ** 0.5)
    assert low == pytest.approx(trials[0].rate)  # a quarter of a decade below the lowest that is worth trying
    assert high == pytest.approx(trials[4].rate)


def test_rates_beyond_a_gap_are_not_worth_trying() -> None:
    trials = tried(1.0, 1.5, 1.01, 1.6)
    low, suggestion, high = chosen(trials)
    assert low < suggestion == trials[0].rate < high < trials[2].rate


def test_trials_that_learn_nothing_choose_nothing() -> None:
    assert chosen([]) is None
    assert chosen(tried(math.inf, math.inf)) is None
    assert chosen(tried(2.0, 2.1, 2.5)) is None


@given(st.lists(st.one_of(st.floats(-1e3, 1e3), st.just(math.inf)), min_size=1, max_size=9), st.floats(-1e3, 1e3))
def test_any_trials_give_an_ordered_interval_or_none(losses: list[float], start: float) -> None:
    trials = tried(*losses, start=start)
    found = chosen(trials)
    if found is not None:
        low, suggestion, high = found
        best = min((t for t in trials), key=lambda t: t.loss)
        assert low < suggestion <= best.rate * (1 + 1e-9)
        assert best.rate < high


def test_trials_climb_from_a_poor_start() -> None:
    """From a rate that is far too low the trials go up until the next one is worse."""
    net = mlp()
    bench = Bench(net, nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), 0.1), {"train": loaders()[0]})
    trials = climb(bench, 0.02, 40)
    losses = [t.loss for t in trials]
    place = losses.index(min(losses))
    assert 0 < place < len(trials) - 1
    assert [t.rate for t in trials] == sorted(t.rate for t in trials)
    assert trials[place].rate > 0.1
    assert {t.start for t in trials} == {trials[0].start}


def test_without_trials_the_ramps_decide() -> None:
    rates = found_for(lambda n: torch.optim.SGD(n.parameters(), 0.1), seeds=1, trials=0)
    assert rates.trials == ()
    assert rates.edge is not None
    assert rates.suggestion <= rates.edge / 3
    assert "trials" not in str(rates)


def result(**more: Any) -> LearningRates:
    given = {"suggestion": 0.01, "low": 1e-3, "high": 0.03, "edge": 0.1, "spread": 0.1, "ramps": (made(), made(seed=1)),
             "optimizer": "AdamW", "current": 1e-3, "ratios": (1.0,), "batch_size": 32}  # fmt: skip
    return LearningRates(**{**given, **more})


def test_advice_on_batch_size_and_fine_tuning() -> None:
    assert result().for_batch_size(128) == pytest.approx((0.02, 0.04))
    assert result().for_batch_size(8) == pytest.approx((0.0025, 0.005))
    assert result().for_fine_tuning() == pytest.approx((0.001, 0.01 / 3))
    with pytest.raises(ConfigError, match="expected batch sizes of 1 or more"):
        result(batch_size=0).for_batch_size(64)


def test_a_result_reads_as_a_sentence() -> None:
    text = str(result())
    assert text.startswith("learning rate 0.01 for AdamW (worth trying: 0.001 to 0.03; stable edge 0.1; 2 ramps")
    assert "none reached" in str(result(edge=None))


@pytest.mark.parametrize("kind", ["cosine", "linear"])
@pytest.mark.parametrize("total", [1, 10, 1_000])
def test_the_code_of_a_schedule_runs_and_is_the_schedule(kind: str, total: int) -> None:
    plan = result().schedule(total, kind=kind)
    net = mlp()
    optimizer = torch.optim.SGD([{"params": net[0].parameters()}, {"params": net[2].parameters(), "lr": 0.2}], 0.1)
    names: dict[str, Any] = {"optimizer": optimizer}
    exec(plan.code, names)
    seen = []
    for _ in range(total):
        seen.append([g["lr"] for g in optimizer.param_groups])
        optimizer.step()
        names["scheduler"].step()
    assert max(s[0] for s in seen) <= 0.01 * (1 + 1e-9)
    assert [s[0] for s in seen] == pytest.approx([plan.rate(i) for i in range(total)])
    assert all(s[1] == pytest.approx(2 * s[0]) for s in seen)


def test_a_schedule_warms_up_for_a_twentieth_and_ends_near_zero() -> None:
    plan = propose(0.1, 2_000, "SGD")
    assert plan.warm_up == 100
    assert plan.rate(plan.warm_up) == pytest.approx(0.1)
    assert plan.rate(1_999) < 1e-6
    assert propose(0.1, 2_000, "AdamW").warm_up == 200
    for wrong, part in (({"total": 0}, "expected 1 step"), ({"kind": "square"}, "expected kind")):
        with pytest.raises(ConfigError, match=part):
            propose(**{"peak": 0.1, "total": 10, "optimizer": "SGD", **wrong})


def test_the_plot_needs_matplotlib_and_shows_the_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as blocked:
        blocked.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(FitdoctorError, match=r"pip install 'fitdoctor\[plot\]'"):
            result().plot()
    pytest.importorskip("matplotlib")
    figure = result().plot(tmp_path / "ramp.png")
    assert (tmp_path / "ramp.png").stat().st_size > 5_000
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    labels = [t.get_text() for t in axes.get_legend().get_texts()]
    assert labels == ["worth trying: 0.001 to 0.03", "suggestion 0.01", "stable edge 0.1"]
