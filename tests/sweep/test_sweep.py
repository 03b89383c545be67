"""Sweeps whose truth is known because they are made: what separates, the band, the winner."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.errors import ConfigError
from fitdoctor.readers.tags import facts_from_params
from fitdoctor.report import Report
from fitdoctor.run import Fact
from fitdoctor.sweep import Sweep, sweep
from fitdoctor.sweep.judge import MATTERS
from fitdoctor.testing import make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "sweep.schema.json").read_text("utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
RATES = tuple(10.0 ** (k / 2) for k in range(-8, 1))  # 1e-4 to 1, two a decade


def report(
    name: str,
    final: float = 0.2,
    *,
    verdict: str = "healthy",
    start: float = 2.3,
    diverged: bool = False,
    length: int = 100,
    params: Mapping[str, Fact] | None = None,
    seed: int = 0,
    noise: float = 0.0,
    finished: bool | None = True,
) -> Report:
    """A report on a run whose losses fall from `start` to `final`, with a verdict given by hand."""
    rng = np.random.default_rng(seed)
    curve = final + (start - final) * np.exp(-np.arange(length) / 12) + noise * rng.standard_normal(length)
    if diverged:
        curve[length // 4 :] = math.nan
    run = make_run(train_loss=curve, val_loss=curve[4::5], name=name, finished=finished)
    found = diagnose(run, rules=[])
    told = dict(params or {})
    made = replace(found, params=told, facts={**found.facts, **facts_from_params(told)})
    return _with_verdict(made, verdict)


def _with_verdict(made: Report, verdict: str) -> Report:
    """The report with one finding, or none, so that its verdict is the one wanted."""
    sick = diagnose(make_run(train_loss=[1.0, math.nan, math.nan] * 20, val_loss=[1.0] * 20))
    if verdict == "sick":
        return replace(made, outcomes=sick.outcomes, diagnoses=sick.diagnoses)
    well = tuple(replace(o, status="clean", findings=(), why="") for o in sick.outcomes)
    return replace(made, outcomes=well if verdict == "healthy" else (), diagnoses=())


def parabola(rate: float, best: float = 0.01) -> float:
    """A final loss that is lowest at `best`: 0.2, plus 0.15 a squared decade away from it."""
    return 0.2 + 0.15 * math.log10(rate / best) ** 2


def grid(seeds: int = 1, sigma: float = 0.0, **more: Fact) -> Iterator[Report]:
    """A grid of learning rates; those of 0.3 and more diverge."""
    rng = np.random.default_rng(5)
    for rate in RATES:
        for seed in range(seeds):
            final = parabola(rate) + sigma * float(rng.standard_normal())
            params = {"lr": rate, "seed": seed, **more}
            bad = rate > 0.3
            yield report(
                f"lr{rate:.3g}_s{seed}", final, diverged=bad, verdict="sick" if bad else "healthy", params=params
            )


def checked(found: Sweep) -> Sweep:
    """The same, after a look at its JSON form and its two texts."""
    from io import StringIO

    from fitdoctor.sweep import markdown, terminal
    from rich.console import Console

    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    VALIDATOR.validate(document)
    assert document.keys() == SCHEMA["properties"].keys()
    markdown.render(found)
    terminal.show(found, Console(file=StringIO(), width=100), verbose=True)
    return found


# --- the band ---------------------------------------------------------------------------------------


def test_the_band_holds_the_rates_that_lose_next_to_nothing() -> None:
    found = checked(sweep(grid()))
    (band,) = found.bands
    span = 2.3 - 0.2
    for rate in band.rates:
        inside = rate.rate < 0.3 and parabola(rate.rate) - 0.2 <= MATTERS * span
        assert rate.inside is inside, rate
    assert band.best == pytest.approx(0.01)
    assert band.low is not None
    assert band.high is not None
    assert (band.low.low, band.low.high) == (pytest.approx(1e-3), pytest.approx(10**-2.5, rel=1e-4))
    assert (band.high.low, band.high.high) == (pytest.approx(10**-1.5, rel=1e-4), pytest.approx(0.1))
    assert band.repeats == 0
    assert math.isnan(band.noise)


def test_diverged_runs_lose_everything() -> None:
    (band,) = sweep(grid()).bands
    assert [r.regret for r in band.rates if r.diverged] == [1.0, 1.0]
    assert [r.rate for r in band.rates if r.diverged] == pytest.approx([10**-0.5, 1.0])


def test_a_best_rate_at_the_end_of_the_grid_says_to_go_on() -> None:
    (band,) = sweep(r for r in grid() if float(r.params["lr"]) < 0.012).bands
    assert band.high is not None
    assert band.high.open
    assert band.high.high is None
    assert any("largest tried: extend the grid to 0.1" in line for line in band.advice)


def test_one_of_four_seeds_that_diverges_puts_a_rate_out_of_the_band() -> None:
    reports = list(grid(seeds=4, sigma=0.001))
    at = next(i for i, r in enumerate(reports) if r.params["lr"] == pytest.approx(0.01))
    bad = report(reports[at].run, diverged=True, verdict="sick", params=reports[at].params)
    (band,) = sweep([*reports[:at], bad, *reports[at + 1 :]]).bands
    lost = next(r for r in band.rates if r.rate == pytest.approx(0.01))
    assert lost.regret == pytest.approx(0.25, abs=0.02)
    assert not lost.inside
    assert lost.diverged == 1


def test_seeds_widen_the_ends() -> None:
    (still,), (noisy,) = sweep(grid(seeds=3, sigma=0.0)).bands, sweep(grid(seeds=3, sigma=0.05)).bands
    assert still.noise == pytest.approx(0.0, abs=1e-12)
    assert noisy.noise == pytest.approx(0.05, rel=0.5)
    assert noisy.repeats > 3

    def width(edge: object) -> float:
        low, high = edge.low, edge.high  # type: ignore[attr-defined]
        return math.inf if low is None or high is None else high / low

    assert width(noisy.low) >= width(still.low)
    assert width(noisy.high) >= width(still.high)
    assert width(noisy.low) * width(noisy.high) > width(still.low) * width(still.high)


def test_optimizers_have_bands_of_their_own() -> None:
    both = [
        report(f"{name}_{rate}", parabola(rate, best), params={"lr": rate, "optimizer": name})
        for name, best in (("adam", 1e-3), ("sgd", 1e-1))
        for rate in RATES
    ]
    bands = {b.group["optimizer"]: b.best for b in checked(sweep(both)).bands}
    assert bands == {"adam": pytest.approx(1e-3), "sgd": pytest.approx(1e-1)}


def test_a_random_search_is_read_in_bins() -> None:
    rng = np.random.default_rng(1)
    drawn = [
        report(f"r{i}", parabola(rate) + 0.3 * abs(wd), params={"lr": rate, "weight_decay": wd})
        for i, (rate, wd) in enumerate(zip(10 ** rng.uniform(-4, 0, 60), rng.uniform(0, 1, 60), strict=True))
    ]
    (band,) = checked(sweep(drawn)).bands
    assert band.binned
    assert band.pooled == ("weight_decay",)
    assert band.best is not None
    assert 0.003 < band.best < 0.03


def test_two_rates_make_no_band() -> None:
    (band,) = checked(sweep(report(f"lr={r}", params={"lr": r}) for r in (0.1, 0.01))).bands
    assert band.best is None
    assert "3 are needed" in band.why_not


# --- what separates ---------------------------------------------------------------------------------


def test_the_rate_separates_and_the_batch_size_does_not() -> None:
    reports = [
        report(f"{rate}-{bs}", diverged=rate > 0.05, verdict="sick" if rate > 0.05 else "healthy",
               params={"lr": rate, "batch_size": bs})
        for rate in RATES for bs in (16, 32, 64)
    ]  # fmt: skip
    found = checked(sweep(reports))
    first, second = found.separations
    assert (first.setting, first.finding, first.where) == ("learning_rate", "separates", "0.1 and above")
    assert first.rates == (1.0, 0.0)
    assert first.corrected < 0.001
    assert (second.setting, second.finding) == ("batch_size", "not shown")


def test_both_ends_can_be_sick() -> None:
    reports = [
        report(f"{rate}-{i}", verdict="sick" if not 1e-3 < rate < 0.05 else "healthy", params={"lr": rate, "depth": i})
        for rate in RATES
        for i in (1, 2)
    ]
    first = sweep(reports).separations[0]
    assert (first.setting, first.where) == ("learning_rate", "0.001 and below or 0.1 and above")


def test_few_runs_are_not_significant_by_construction() -> None:
    reports = [report(f"{o}", verdict=v, params={"optimizer": o}) for o, v in (("adam", "healthy"), ("sgd", "sick"))]
    (only,) = checked(sweep(reports)).separations
    assert only.finding == "not significant by construction"
    assert only.smallest >= 0.05


def test_seeds_are_no_independent_evidence() -> None:
    """Two configurations with ten seeds each are two trials, not twenty."""
    reports = [
        report(f"{o}{s}", verdict=v, params={"optimizer": o, "seed": s})
        for o, v in (("adam", "healthy"), ("sgd", "sick"))
        for s in range(10)
    ]
    (only,) = sweep(reports).separations
    assert only.configurations == 2
    assert only.finding == "not significant by construction"


def test_a_setting_that_only_goes_with_the_cause_is_explained_by_it() -> None:
    """Large batches were tried at high rates only: the rate made the runs sick."""
    rng = np.random.default_rng(2)
    reports = []
    for i in range(60):
        rate = float(rng.choice(RATES))
        bs = 256 if (rate > 0.05) == (rng.random() < 0.85) else 32
        sick = rate > 0.05
        reports.append(
            report(f"r{i}", verdict="sick" if sick else "healthy", params={"lr": rate, "batch_size": bs, "width": i})
        )
    found = {s.setting: s for s in sweep(reports).separations}
    assert found["learning_rate"].finding == "separates"
    assert found["batch_size"].finding == "explained by another"
    assert found["batch_size"].given == "learning_rate"


def test_settings_that_change_together_are_one() -> None:
    reports = [report(f"{w}", params={"width": w, "heads": w // 64, "lr": 0.1}) for w in (64, 128, 256)]
    (axis,) = sweep(reports).axes
    assert (axis.name, axis.also) == ("width", ("heads",))


def test_chance_findings_stay_at_their_level() -> None:
    """Verdicts thrown by a coin: over 60 sweeps of 4 settings, few find anything."""
    rng = np.random.default_rng(0)
    well, ill = report("a"), report("b", verdict="sick")
    false = 0
    for _ in range(60):
        reports = [
            replace(well if rng.random() < 0.5 else ill, run=f"r{i}",
                    params={k: float(rng.integers(0, 4)) for k in ("a1", "b1", "c1")} | {"w": str(rng.integers(0, 3))})
            for i in range(24)
        ]  # fmt: skip
        false += any(s.finding == "separates" for s in sweep(reports).separations)
    assert false <= 7  # 5 % of 60 is 3; 8 or more has a chance of 1 %


# --- the best run ----------------------------------------------------------------------------------


def test_a_clear_best_stands_out() -> None:
    reports = [
        report(f"{w}-{s}", 0.3 - 0.05 * i + 0.002 * ((s * 7) % 3 - 1), params={"width": w, "seed": s})
        for i, w in enumerate((16, 32, 64))
        for s in range(4)
    ]
    (winner,) = checked(sweep(reports)).winners
    assert winner.settings == {"width": 64}
    assert winner.finding == "stands out"
    assert winner.chance > 0.99
    assert winner.noise_of == "seeds"
    assert winner.freedom >= 3
    assert winner.p < 0.05


def test_the_best_of_equals_is_luck() -> None:
    """All configurations are equal: over many sweeps the chance told is small, and the corrected value is right."""
    rng = np.random.default_rng(3)
    stood_out, told, right = 0, [], []
    for _ in range(15):
        finals = 0.3 + 0.01 * rng.standard_normal((8, 3))
        reports = [
            report(f"{w}-{s}", float(finals[w, s]), params={"width": w, "seed": s}, length=40)
            for w in range(8) for s in range(3)
        ]  # fmt: skip
        found = sweep(reports)
        (winner,) = found.winners
        stood_out += winner.finding == "stands out"
        level = np.mean([t.value for t in found.trials])
        told.append(winner.value - level)
        right.append(winner.corrected - level)
    assert stood_out <= 1
    assert abs(np.mean(right)) < 0.5 * abs(np.mean(told))


def test_without_repeats_nothing_is_claimed() -> None:
    clear = [report(f"{w}", 0.3 - 0.1 * i, params={"width": w}, noise=0.002, seed=i) for i, w in enumerate((1, 2, 3))]
    (winner,) = checked(sweep(clear)).winners
    assert (winner.noise_of, winner.finding) == ("within runs", "cannot tell")
    assert math.isnan(winner.corrected)
    same = [report(f"{w}", 0.3, params={"width": w}, noise=0.05, seed=i) for i, w in enumerate((1, 2, 3))]
    (winner,) = sweep(same).winners
    assert (winner.noise_of, winner.finding) == ("within runs", "not alone")


# --- states, settings, objectives ---------------------------------------------------------------------


def test_unfinished_and_crashed_runs_are_told_and_not_ranked() -> None:
    reports = [
        *(report(f"lr={r}", params={"lr": r}) for r in (0.01, 0.02, 0.04, 0.08)),
        report("lr=0.001", 0.0, length=50, params={"lr": 0.001}, finished=None),
        report("lr=0.002", 0.0, length=50, params={"lr": 0.002}, finished=False),
    ]
    found = checked(sweep(reports))
    assert [t.state for t in found.trials] == ["finished"] * 4 + ["unfinished", "crashed"]
    assert found.bands[0].left_out == 2
    assert len(found.bands[0].rates) == 4
    assert sum("not ranked" in c for c in found.cautions) == 2


def test_shorter_runs_of_larger_batches_are_finished() -> None:
    reports = [
        report(f"{bs}-{r}", params={"lr": r, "batch_size": bs}, length=100 if bs == 16 else 50)
        for bs in (16, 32)
        for r in (0.01, 0.1)
    ]
    assert {t.state for t in sweep(reports).trials} == {"finished"}


def test_no_settings_no_sweep() -> None:
    found = checked(sweep(report(f"run_{i}") for i in range(3)))
    assert not found.axes
    assert any("have no setting that varies" in c for c in found.cautions)


def test_identifiers_and_seeds_are_no_settings() -> None:
    reports = [
        report(f"x{i}", params={"lr": r, "seed": i, "run_id": f"id{i}", "output_dir": f"o/{i}", "notes": f"n{i}"})
        for i, r in enumerate((0.1, 0.1, 0.01, 0.01))
    ]
    found = sweep(reports)
    assert [a.name for a in found.axes] == ["learning_rate"]
    assert found.seeds == ("seed",)
    assert found.identifiers == ("run_id",)


def test_numbers_in_words_are_numbers() -> None:
    found = sweep(report(f"x{i}", params={"lr": r}) for i, r in enumerate(("1e-2", "0.1", "1")))
    assert found.axes[0].values == (0.01, 0.1, 1)
    assert found.axes[0].kind == "number"


def test_a_metric_can_be_named() -> None:
    reports = list(grid())
    found = sweep(reports, metric="train loss")
    assert found.objective is not None
    assert found.objective.name == "train loss"
    with pytest.raises(ConfigError, match="no run has it"):
        sweep(reports, metric="bleu")
    curves = {"bleu": {r.run: tuple((i, float(i)) for i in range(5)) for r in reports}}
    with pytest.raises(ConfigError, match="--mode"):
        sweep(reports, metric="bleu", curves=curves)
    assert sweep(reports, metric="bleu", mode="max", curves=curves).objective is not None


def test_a_loss_is_passed_over_where_smoothing_varies() -> None:
    reports = [report(f"{s}", params={"label_smoothing": s}) for s in (0.0, 0.1)]
    assert sweep(reports).objective is None


def test_a_sick_winner_is_told() -> None:
    reports = [report(f"lr={r}", 0.1 + r, verdict="sick", params={"lr": r}) for r in (0.01, 0.02, 0.03)]
    reports = [replace(r, curves=r.curves, outcomes=_not_broken(r), diagnoses=r.diagnoses) for r in reports]
    assert any("is sick itself" in c for c in sweep(reports).cautions)


def _not_broken(made: Report) -> tuple[object, ...]:
    """The outcomes under another name than that of a run that diverged."""
    return tuple(replace(o, findings=tuple(replace(f, rule="overfitting") for f in o.findings)) for o in made.outcomes)  # type: ignore[return-value]


SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["adam", "sgd", "0.1", "", "x"])
)


@settings(max_examples=5, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(), min_size=1, max_size=12).map(lambda v: make_run(train_loss=v, val_loss=v)),
            st.text(max_size=12),
            st.dictionaries(st.sampled_from(["lr", "seed", "bs", "opt", "x", "run_id", "wd"]), SCALARS, max_size=5),
        ),
        max_size=8,
    )
)
def test_anything_can_be_read_as_a_sweep(made: list[tuple[object, str, dict[str, object]]]) -> None:
    reports = []
    for i, (run, name, params) in enumerate(made):
        told = {k: v for k, v in params.items() if v is not None}
        reports.append(replace(diagnose(run, rules=[]), run=f"{name}{i}", params=told))  # type: ignore[arg-type]
    found = checked(sweep(reports))
    assert len(found.trials) == len(reports)


def test_a_log_that_is_no_run_of_the_sweep_is_left_out() -> None:
    stray = diagnose(make_run(train_loss=np.ones(20), name="summary"), rules=[])
    found = checked(sweep([*grid(), stray]))
    assert len(found.trials) == len(RATES)
    assert any("left out" in c and "summary" in c for c in found.cautions)
    assert None not in found.axes[0].values


def test_what_the_monitor_measured_is_no_setting() -> None:
    """A step at which a run broke separates the sick from the healthy perfectly, and causes nothing."""
    reports = []
    for i, rate in enumerate(RATES):
        params: dict[str, Fact] = {"monitor": "fitdoctor 0.1.0", "learning_rate": rate, "momentum": 0.9}
        params |= {"nonfinite_step": i, "scheduler_steps": 10 * i} if rate > 0.3 else {"scheduler_steps": 400}
        reports.append(report(f"r{i}", diverged=rate > 0.3, verdict="sick" if rate > 0.3 else "healthy", params=params))
    assert [a.name for a in checked(sweep(reports)).axes] == ["learning_rate"]


def test_a_setting_that_only_some_runs_tell_is_left_out_and_told() -> None:
    reports = [
        report(f"{r}-{i}", params={"lr": r} | ({"nesterov": True} if i else {})) for r in RATES[:4] for i in range(2)
    ]
    found = checked(sweep(reports))
    assert [a.name for a in found.axes] == ["learning_rate"]
    assert any("told by some runs only" in c and "nesterov" in c for c in found.cautions)
