"""Which remedies fit a run, and their order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.finding import Change, Confidence, Finding, Remedy, RemedyKind, Severity
from fitdoctor.prescribe import COMMAND, ORDER, in_order, kind_of, prescribe
from fitdoctor.remedies import (
    add_capacity,
    clip_gradients,
    decay_learning_rate,
    less_regularisation,
    lower_learning_rate,
    raise_learning_rate,
    regularise,
    shorten_warm_up,
    shrink_model,
    stop_early,
    warm_up,
)
from fitdoctor.remedies.activations import normalise_inputs, rescale_initialisation, shrink_last_layer
from fitdoctor.run import Run, Span
from fitdoctor.testing import make_run
from fitdoctor.views.inputs import input_scale
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies import runs

STEPS = np.arange(200)
FITTED = 2 * np.exp(-STEPS / 30) + 0.1
UNFITTED = np.linspace(2.3, 1.9, 200)


def finding(*remedies: Remedy, rule: str = "overfitting") -> Finding:
    return Finding("m", Severity.WARNING, Confidence.HIGH, Span(0, 9), remedies=remedies, rule=rule)


def ruled_out(remedy: Remedy, run: Run, *found: str, rule: str = "overfitting") -> str:
    """The reason against a remedy, or ""."""
    told = prescribe(finding(remedy, rule=rule), run, family="fit", found=found)
    assert bool(told.remedies) != bool(told.ruled_out)
    assert all(line.startswith(remedy.title) for line in told.ruled_out)
    return told.ruled_out[0].removeprefix(f"{remedy.title}: ") if told.ruled_out else ""


def of_kind(kind: RemedyKind, title: str = "") -> Remedy:
    return Remedy(title or kind, kind=kind)


# --- the order ----------------------------------------------------------------------------------------


def test_symptoms_are_treated_in_the_order_of_evidence() -> None:
    mixed = [of_kind(k) for k in ("capacity", "clipping", "learning rate", "bug", "stopping", "data", "free")]
    told = [r.kind for r in in_order(mixed, family="loss")]
    assert told == ["free", "bug", "data", "learning rate", "clipping", "capacity", "stopping"]


def test_what_undoes_a_measured_cause_leads() -> None:
    mixed = [of_kind("learning rate", "lower"), of_kind("bug"), of_kind("learning rate", "search"), of_kind("free")]
    assert [r.title for r in in_order(mixed, family="learning_rate")] == ["free", "lower", "search", "bug"]


def test_of_one_kind_the_rule_decides() -> None:
    assert [r.title for r in in_order([of_kind("bug", "b"), of_kind("bug", "a")], family="loss")] == ["b", "a"]


def test_a_kind_is_said_or_follows_from_the_knob() -> None:
    assert kind_of(Remedy("t", change=Change("clip_norm", "set", 1.0))) == "clipping"
    assert kind_of(Remedy("t", change=Change("clip_norm", "set", 1.0), kind="bug")) == "bug"
    assert kind_of(Remedy("t", change=Change("some_knob", "enable"))) == kind_of(Remedy("t")) == "bug"


@given(st.lists(st.sampled_from(ORDER), max_size=8), st.sampled_from(["loss", "setup", "learning_rate", ""]))
def test_ordering_keeps_every_remedy_and_changes_nothing_twice(kinds: list[RemedyKind], family: str) -> None:
    remedies = [of_kind(kind, str(i)) for i, kind in enumerate(kinds)]
    once = in_order(remedies, family=family)
    assert sorted(r.title for r in once) == sorted(r.title for r in remedies)
    if family == "loss":
        assert [ORDER.index(r.kind) for r in once] == sorted(ORDER.index(r.kind) for r in once)  # type: ignore[arg-type]
        assert in_order(once, family=family) == once


# --- contra-indications -------------------------------------------------------------------------------


def test_no_smaller_model_while_the_training_loss_is_high() -> None:
    assert "itself is high" in ruled_out(shrink_model(), make_run(train_loss=UNFITTED))
    assert ruled_out(shrink_model(), make_run(train_loss=FITTED)) == ""
    assert "double descent" in ruled_out(shrink_model(), make_run(train_loss=FITTED), "memorisation-label-noise")


def test_a_loss_with_a_floor_is_fitted_when_the_accuracy_is_high() -> None:
    smoothed = make_run(train_loss=np.linspace(2.3, 1.5, 200), train_accuracy=np.linspace(0.1, 0.99, 200))
    assert ruled_out(shrink_model(), smoothed) == ""
    poor = make_run(train_loss=UNFITTED, train_accuracy=np.linspace(0.1, 0.4, 200))
    assert ruled_out(regularise(), poor)


def test_no_regularisation_of_what_is_not_fitted() -> None:
    assert "itself is high" in ruled_out(regularise(), make_run(train_loss=UNFITTED))
    assert ruled_out(regularise(), make_run(train_loss=FITTED)) == ""
    assert ruled_out(less_regularisation(), make_run(train_loss=UNFITTED)) == ""
    lower = Remedy("t", change=Change("weight_decay", "multiply", 0.1))
    assert ruled_out(lower, make_run(train_loss=UNFITTED)) == ""


def test_no_larger_model_for_a_fault_of_the_program() -> None:
    assert ruled_out(add_capacity(), make_run(train_loss=UNFITTED), "underfitting") == ""
    assert "missing-zero-grad" in ruled_out(add_capacity(), make_run(train_loss=UNFITTED), "missing-zero-grad")


@pytest.mark.parametrize(("norm", "against"), [(0.5, True), (1.5, False), (0.99, True), (2.0, False)])
def test_no_clipping_of_most_steps(norm: float, against: bool) -> None:
    norms = np.where(STEPS % 5 == 0, 3.0, 1.0)  # a fifth above 1
    run = make_run(train_loss=FITTED, grad_norm=norms)
    assert bool(ruled_out(clip_gradients(norm), run)) is against
    if against:
        assert "100%" in ruled_out(clip_gradients(norm), run)


def test_clipping_is_not_ruled_out_by_norms_that_were_not_logged() -> None:
    assert ruled_out(clip_gradients(0.5), make_run(train_loss=FITTED)) == ""
    assert ruled_out(clip_gradients(), make_run(train_loss=FITTED, grad_norm=np.ones(200))) == ""


def test_no_lower_rate_for_an_oscillation_that_makes_progress() -> None:
    run = make_run(train_loss=FITTED)
    assert "keeps falling" in ruled_out(lower_learning_rate(), run, "edge-of-stability", "loss-spikes")
    assert ruled_out(lower_learning_rate(), run, "edge-of-stability", "lr-too-high") == ""
    assert ruled_out(raise_learning_rate(), run, "edge-of-stability") == ""
    assert ruled_out(lower_learning_rate(), run) == ""


def test_no_higher_rate_in_fine_tuning() -> None:
    assert "pretrained" in ruled_out(raise_learning_rate(), make_run(train_loss=FITTED, facts={"pretrained": True}))
    assert ruled_out(raise_learning_rate(), make_run(train_loss=FITTED, facts={"pretrained": False})) == ""


def test_no_warm_up_that_is_there() -> None:
    ramp = np.minimum(STEPS / 50, 1.0) * 0.1
    run = make_run(train_loss=FITTED, lr=ramp)
    assert "already warms up" in ruled_out(warm_up(20), run)
    assert ruled_out(warm_up(100), run) == ""
    assert ruled_out(shorten_warm_up(10), run, rule="warmup-too-long") == ""
    assert ruled_out(warm_up(20), make_run(train_loss=FITTED, lr=np.full(200, 0.1))) == ""


def test_no_decay_that_is_there() -> None:
    cosine = 0.05 * (1 + np.cos(np.pi * STEPS / 199))
    assert "already annealed" in ruled_out(decay_learning_rate("step"), make_run(train_loss=FITTED, lr=cosine))
    early = make_run(train_loss=FITTED, lr=cosine)
    assert ruled_out(decay_learning_rate("step"), early, "lr-decay-too-early") == ""
    assert ruled_out(decay_learning_rate(), make_run(train_loss=FITTED, lr=np.full(200, 0.1))) == ""


def test_no_stopping_before_the_rate_has_annealed() -> None:
    cosine = 0.05 * (1 + np.cos(np.pi * STEPS / 199))
    rising = np.concatenate([np.linspace(2, 0.5, 8), np.linspace(0.6, 1.5, 12)])
    assert "annealed" in ruled_out(stop_early(5), make_run(train_loss=FITTED, val_loss=rising, lr=cosine))
    late = np.concatenate([np.linspace(2, 0.5, 17), np.linspace(0.6, 0.8, 3)])
    assert ruled_out(stop_early(5), make_run(train_loss=FITTED, val_loss=late, lr=cosine)) == ""
    constant = np.full(200, 0.1)
    assert ruled_out(stop_early(5), make_run(train_loss=FITTED, val_loss=rising, lr=constant)) == ""


def test_batch_size_does_not_cure_overfitting_nor_accumulation_batch_norm() -> None:
    run = make_run(train_loss=FITTED)
    smaller = Remedy("t", change=Change("batch_size", "multiply", 0.25))
    assert "does not limit" in ruled_out(smaller, run)
    assert ruled_out(smaller, run, rule="batch-too-large") == ""
    more = Remedy("t", change=Change("gradient_accumulation_steps", "set", 4))
    assert "alone" in ruled_out(more, run, rule="batchnorm-tiny-batch")
    assert ruled_out(more, run, rule="out-of-memory") == ""


def test_nothing_is_advised_that_is_so_already() -> None:
    run = make_run(train_loss=FITTED, facts={"weight_decay": 0.01, "shuffle": True, "shared_examples": False})
    assert ruled_out(regularise(), run) == "weight_decay is 0.01 already"
    assert ruled_out(Remedy("t", change=Change("shuffle", "enable")), run) == "shuffle is on already"
    assert ruled_out(Remedy("t", change=Change("shared_examples", "disable")), run) == "shared_examples is off already"
    assert ruled_out(regularise(0.01), run) == ""


# --- in a report --------------------------------------------------------------------------------------


def test_a_remedy_names_the_command_that_shows_whether_it_worked() -> None:
    (remedy,) = prescribe(finding(Remedy("t", confirm="the loss falls")), make_run()).remedies
    assert remedy.confirm == f"the loss falls ({COMMAND})"
    (own,) = prescribe(finding(Remedy("t", confirm="`fitdoctor rule` shows it")), make_run()).remedies
    assert own.confirm == "`fitdoctor rule` shows it"
    (silent,) = prescribe(finding(Remedy("t")), make_run()).remedies
    assert silent.confirm == ""


def test_a_report_holds_what_was_ruled_out() -> None:
    norms = np.concatenate([np.ones(60), 10.0 ** np.linspace(0, 5, 140)])
    loss = np.concatenate([np.linspace(2, 1, 60), 10.0 ** np.linspace(0, 4, 140)])
    report = diagnose(make_run(train_loss=loss, grad_norm=norms))
    exploding = next(f for f in report.findings if f.rule == "exploding-gradients")
    assert any("would cut" in line for line in exploding.ruled_out)
    assert not any(r.change and r.change.knob == "clip_norm" for r in exploding.remedies)
    again = type(report).from_dict(report.to_dict())
    assert again == report


@settings(max_examples=40)
@given(runs())
def test_every_finding_of_any_run_is_treated_without_a_crash(run: Run) -> None:
    told = prescribe(finding(*EVERYTHING), run, family="fit", found=("edge-of-stability",))
    assert len(told.remedies) + len(told.ruled_out) == len(EVERYTHING)


EVERYTHING = (
    add_capacity(), clip_gradients(1.0), decay_learning_rate(), lower_learning_rate(), raise_learning_rate(),
    regularise(), shrink_model(), stop_early(), warm_up(10),
)  # fmt: skip


# --- numbers of the run -------------------------------------------------------------------------------


def given(remedy: Remedy, run: Run, onset: int = 0) -> Remedy:
    told = prescribe(replace(finding(remedy, rule="loss-divergence"), span=Span(onset, 199)), run, family="loss")
    assert told.remedies, told.ruled_out
    return told.remedies[0]


def test_a_rate_is_given_in_numbers() -> None:
    run = make_run(train_loss=FITTED, lr=np.full(200, 0.3))
    assert given(lower_learning_rate(0.1), run).code["pytorch"].endswith("= 0.03")
    assert given(raise_learning_rate(3.0), run).code["transformers"] == "TrainingArguments(..., learning_rate=0.9)"
    told = make_run(train_loss=FITTED, facts={"learning_rate": 0.02})
    assert given(lower_learning_rate(0.5), told).code["pytorch"].endswith("= 0.01")
    assert given(lower_learning_rate(0.1), make_run(train_loss=FITTED)) == lower_learning_rate(0.1)


def test_clipping_is_at_the_90th_percentile_of_the_norms_before() -> None:
    norms = np.concatenate([np.linspace(1, 2, 100), np.full(100, 50.0)])
    run = make_run(train_loss=FITTED, grad_norm=norms)
    told = prescribe(replace(finding(clip_gradients(), rule="loss-spikes"), span=Span(100, 199)), run, family="loss")
    assert not told.remedies
    assert told.ruled_out[0].startswith("clip the gradient norm at 1.9: it would cut 6")
    late = prescribe(replace(finding(clip_gradients(), rule="loss-spikes"), span=Span(5, 199)), run, family="loss")
    assert late.remedies[0].change == Change("clip_norm", "set", 50.0)


def test_warm_up_and_decay_know_the_length_of_the_run() -> None:
    run = make_run(train_loss=FITTED, facts={"planned_steps": 4000})
    assert given(warm_up(), run).change == Change("warmup_steps", "set", 200)
    assert "T_max=4000" in given(decay_learning_rate(), run).code["pytorch"]
    by_epoch = make_run(train_loss=FITTED, facts={"step_unit": "epoch"})
    assert given(warm_up(), by_epoch) == warm_up()
    going_on = make_run(train_loss=FITTED, finished=False)
    assert given(decay_learning_rate(), going_on) == decay_learning_rate()


# --- what the run calls for ---------------------------------------------------------------------------

LAYERS = '[["0","affine",20,48,"",""],["1","rectifier",0,0,"","0"],["2","affine",48,10,"","1"]]'


def scaled(inputs: float, *, hidden: float = 0.6, last: float = 0.6, **more: object) -> Run:
    """A run whose first layer shows inputs of a root mean square, with weights of a norm per unit."""
    layers = {
        "activation_rms": {"0": np.full(9, hidden * inputs), "2": np.ones(9)},
        "weight_norm": {"0.weight": np.full(9, hidden * 48**0.5), "2.weight": np.full(9, last * 10**0.5)},
    }
    return make_run(train_loss=UNFITTED[:9], layers=layers, facts={"layers": LAYERS}, **more)  # type: ignore[arg-type]


def first(rule: str, run: Run, *remedies: Remedy, found: tuple[str, ...] = (), onset: int = 0) -> Change | None:
    told = replace(finding(*remedies, rule=rule), span=Span(onset, 199))
    return prescribe(told, run, family="activations", found=(rule, *found)).remedies[0].change


@pytest.mark.parametrize(("inputs", "normalise"), [(1.0, False), (0.4, False), (60.0, True), (0.003, True)])
def test_inputs_that_are_off_scale_are_normalised_first_and_others_not_at_all(inputs: float, normalise: bool) -> None:
    for rule in ("saturated-activations", "lr-too-high", "poor-init-scale"):
        told = first(rule, scaled(inputs), normalise_inputs(), rescale_initialisation())
        assert told is not None
        assert (told.knob == "input_normalisation") is normalise
    assert bool(ruled_out(normalise_inputs(), scaled(inputs), rule="any")) is not normalise
    assert input_scale(scaled(inputs)) == pytest.approx(inputs)


def test_the_scale_of_inputs_is_that_of_what_they_add_to_the_biases() -> None:
    layers = {
        "activation_rms": {"0": [5.0] * 9},
        "weight_norm": {"0.weight": [48**0.5] * 9, "0.bias": [3.0 * 48**0.5] * 9},
    }
    shifted = make_run(train_loss=UNFITTED[:9], layers=layers, facts={"layers": LAYERS})
    assert input_scale(shifted) == pytest.approx(4.0)
    layers["weight_norm"]["0.bias"] = [4.9 * 48**0.5] * 9
    drowned = make_run(train_loss=UNFITTED[:9], layers=layers, facts={"layers": LAYERS})
    assert input_scale(drowned) is None
    assert input_scale(make_run(train_loss=UNFITTED)) is None
    assert input_scale(shifted.with_facts(resumed_at=100)) is None


def test_large_outputs_are_mended_where_they_come_from() -> None:
    shrink = shrink_last_layer(0.01)
    last = scaled(1.0, last=30.0, logit_std=np.full(9, 30.0))
    assert first("wrong-initial-loss", last, shrink, rescale_initialisation()) == Change(
        "output_gain", "multiply", 0.01
    )
    both = scaled(1.0, hidden=6.0, last=6.0, logit_std=np.full(9, 30.0))
    assert first("wrong-initial-loss", both, shrink) == Change("initialisation", "set", "kaiming")
    for rule in ("class-collapse", "exploding-gradients"):
        assert first(rule, scaled(1.0, hidden=0.02), lower_learning_rate()) == Change(
            "initialisation", "set", "kaiming"
        )
        assert first(rule, scaled(1.0), lower_learning_rate()) == lower_learning_rate().change
    dead = first("dead-relu", last, lower_learning_rate(), found=("wrong-initial-loss",), onset=5)
    assert dead == Change("output_gain", "multiply", 0.01)
    assert first("dead-relu", last, lower_learning_rate(), onset=5) == lower_learning_rate().change


def test_batches_of_another_size_are_looked_at_before_the_rate() -> None:
    run, lower = make_run(train_loss=UNFITTED), lower_learning_rate()
    assert first("lr-too-high", run, lower) == lower.change
    assert first("lr-too-high", run, lower, found=("outlying-batches",)) == Change("outlying_examples", "disable")


def test_a_decay_that_empties_the_layers_is_lowered() -> None:
    run = make_run(train_loss=UNFITTED, facts={"weight_decay": 2.0})
    change = Remedy("t", change=Change("normalisation", "set", "layer"))
    assert first("input-collapse", run, change, found=("weight-decay-too-high",)) == Change("weight_decay", "set", 0.01)
    assert first("input-collapse", run, change) == change.change


def test_a_rate_that_is_too_high_is_lowered_before_the_layers_are_changed() -> None:
    run = make_run(train_loss=UNFITTED)
    change = Remedy("t", change=Change("qk_norm", "enable"))
    rule = "attention-entropy-collapse"
    assert first(rule, run, change, found=("lr-too-high",), onset=50) == Change("learning_rate", "multiply", 0.1)
    assert first(rule, run, change, onset=50) == change.change
    assert first(rule, run, change, found=("lr-too-high",)) == change.change  # from the start: not by steps


@pytest.mark.parametrize(
    ("ratio", "factor"), [(1e-6, 1000.0), (2e-5, 100.0), (1e-4, None), (1e-3, None), (1e-2, None), (0.2, 0.01)]
)
def test_steps_of_an_unusual_length_are_mended_where_nothing_is_learned(ratio: float, factor: float | None) -> None:
    run = make_run(train_loss=UNFITTED, update_ratio=np.full(20, ratio))
    told = first("no-learning", run, Remedy("t", change=Change("labels", "set", "matched")))
    assert told == Change("labels", "set", "matched") if factor is None else Change("learning_rate", "multiply", factor)
    assert first("overfitting", run, Remedy("t", change=Change("n_train", "multiply", 2))) == Change(
        "n_train", "multiply", 2
    )


def test_the_regulariser_that_is_there_is_what_is_weakened() -> None:
    held = make_run(
        train_loss=np.linspace(2.3, 1.9, 200), train_probe_loss=np.linspace(2.3, 0.3, 20), facts={"dropout_layers": 2}
    )
    assert first("lr-too-low", held, raise_learning_rate(10.0)) == Change("dropout", "set", 0.0)
    slow = make_run(train_loss=UNFITTED, train_probe_loss=UNFITTED[::10] - 0.05, facts={"dropout_layers": 2})
    assert first("lr-too-low", slow, raise_learning_rate(10.0)) == Change("learning_rate", "multiply", 10.0)
    assert first("no-learning", slow, raise_learning_rate(10.0)) == Change("dropout", "set", 0.0)
    assert first("underfitting", held, less_regularisation()) == Change("dropout", "set", 0.0)
    without = held.with_facts(dropout_layers=0)
    assert first("lr-too-low", without, raise_learning_rate(10.0)) == Change("learning_rate", "multiply", 10.0)
    assert first("underfitting", without, less_regularisation()) == Change("augmentation", "disable")
    decayed = make_run(train_loss=UNFITTED, facts={"dropout_layers": 0, "weight_decay": 0.3})
    assert first("underfitting", decayed, less_regularisation()) == Change("weight_decay", "set", 0.01)
    none = make_run(train_loss=UNFITTED, facts={"dropout_layers": 0, "weight_decay": 0.0})
    assert "no dropout" in ruled_out(less_regularisation(), none, rule="underfitting")
    assert ruled_out(less_regularisation(), make_run(train_loss=UNFITTED), rule="underfitting") == ""


def test_a_bottleneck_of_classes_is_widened_by_as_much() -> None:
    narrow = LAYERS.replace("20,48", "20,2").replace("48,10", "2,10")
    run = make_run(train_loss=UNFITTED, facts={"layers": narrow, "classes": 10})
    assert first("underfitting", run, add_capacity()) == Change("width", "multiply", 8)
    assert first("lr-too-low", run, raise_learning_rate(10.0)) == Change("width", "multiply", 8)
    scores_of_others = run.with_facts(classes=30)
    assert first("lr-too-low", scores_of_others, raise_learning_rate(10.0)) == raise_learning_rate(10.0).change
    wide = run.with_facts(layers=LAYERS)
    assert first("lr-too-low", wide, raise_learning_rate(10.0)) == raise_learning_rate(10.0).change
    assert first("underfitting", run.with_facts(layers=LAYERS), add_capacity()) == Change("width", "multiply", 4)


def test_no_rate_mends_what_was_broken_before_the_first_step() -> None:
    loss = np.full(50, np.nan)
    assert "before the first" in ruled_out(
        lower_learning_rate(), make_run(train_loss=loss, per="step"), rule="nonfinite-loss"
    )
    loss[0] = 2.3
    assert ruled_out(lower_learning_rate(), make_run(train_loss=loss, per="step"), rule="nonfinite-loss") == ""


def test_short_steps_are_not_shortened() -> None:
    short = make_run(train_loss=FITTED, step_quality=np.full(20, 0.99))
    assert "short already" in ruled_out(lower_learning_rate(0.3), short, rule="gradient-clipping-saturated")
    assert ruled_out(lower_learning_rate(0.3), short, rule="dead-relu") == ""
    usual = make_run(train_loss=FITTED, step_quality=np.full(20, 0.6))
    assert ruled_out(lower_learning_rate(0.3), usual, rule="gradient-clipping-saturated") == ""
