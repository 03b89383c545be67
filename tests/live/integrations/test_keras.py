"""Keras on the torch backend, with the real framework (tests/conftest.py chooses the backend)."""

from __future__ import annotations

import itertools
import logging
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fitdoctor
import keras
import numpy as np
import pytest
import torch
from fitdoctor.errors import ConfigError
from fitdoctor.live.integrations.keras import FitdoctorCallback
from fitdoctor.live.monitor import Monitor
from fitdoctor.report import Report
from fitdoctor.run import Run
from fitdoctor.signals import (
    ACCURACY,
    ACTIVATION_RMS,
    BACKWARD_CALLS,
    EPOCH,
    GRAD_NORM,
    GRAD_NORM_CLIPPED,
    LOSS,
    LOSS_SCALE,
    LOSS_WEIGHT,
    LR,
    SKIPPED_STEPS,
    UPDATE_NORM,
    ZERO_GRAD_CALLS,
    Quantity,
)
from keras import layers
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

Arrays = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def data(rows: int, *, seed: int) -> Arrays:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 12)).astype("float32")
    return x, (x[:, :4] + 0.3 * random.normal(size=(rows, 4))).argmax(1)


TRAIN, VAL = data(640, seed=0), data(200, seed=1)
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy


class Shuffled(Sampler[int]):
    """An order for each epoch, the same in every training; Keras looks at a first batch before it begins."""

    def __init__(self) -> None:
        self.epochs = 0

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(self.epochs)).tolist()
        for i in order:
            self.epochs += i == order[-1]
            yield i

    def __len__(self) -> int:
        return len(TRAIN[1])


def loader(batch: int = 32, *, shuffle: bool = True) -> DataLoader[Any]:
    """Batches of the training data."""
    set_ = TensorDataset(torch.from_numpy(TRAIN[0]), torch.from_numpy(TRAIN[1]))
    return DataLoader(set_, batch, sampler=Shuffled() if shuffle else None)


def net(*, depth: int = 2, bias: float = 0.0, output: str | None = None) -> Any:
    keras.utils.set_random_seed(0)
    hidden = [
        layers.Dense(32, "relu", name=f"hidden{i}", bias_initializer=keras.initializers.Constant(bias))
        for i in range(depth)
    ]
    return keras.Sequential([keras.Input((12,)), *hidden, layers.Dense(4, output, name="out")])


def fit(
    model: Any,
    optimizer: Any,
    *,
    loss: Any = None,
    epochs: int = 4,
    batches: Any = None,
    others: tuple[Any, ...] = (),
    before: Callable[[], object] = lambda: None,
    compiled: bool = False,
    **options: Any,
) -> FitdoctorCallback:
    model.compile(optimizer, loss or CROSS_ENTROPY(from_logits=True), metrics=["accuracy"], jit_compile=compiled)
    before()
    watch = FitdoctorCallback(verbose=False, **{"record_every": 1, **options})
    model.fit(
        batches or loader(), shuffle=False, epochs=epochs, validation_data=VAL, callbacks=[watch, *others], verbose=0
    )
    assert not watch.off
    return watch


def sgd(rate: Any = 0.1, **options: Any) -> Any:
    return keras.optimizers.SGD(rate, **options)


def run_of(watch: FitdoctorCallback) -> Run:
    assert watch.monitor is not None
    return watch.monitor.run


def values(watch: FitdoctorCallback, quantity: Quantity, split: str = "train", layer: str = "") -> Any:
    series = run_of(watch).get(quantity, split, layer)
    assert series is not None, f"no {split} {quantity.name} of {layer!r}"
    return series.values


# --- the plain loop of the same program ---------------------------------------------------------------------


def twin(model: Any) -> nn.Sequential:
    """The same model in torch, with the same weights."""
    modules: list[nn.Module] = []
    for layer in model.layers:
        linear = nn.Linear(*layer.kernel.shape)
        with torch.no_grad():
            linear.weight.copy_(layer.kernel.value.T)
            linear.bias.copy_(layer.bias.value)
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def plainly(model: nn.Sequential, rate: float, *, epochs: int = 4) -> tuple[Report, Run]:
    criterion, batches = nn.CrossEntropyLoss(), loader()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    x, y = (torch.from_numpy(a) for a in VAL)
    with fitdoctor.attach(model, optimizer, criterion, record_every=1) as monitor:
        for epoch in range(1, epochs + 1):
            for inputs, target in batches:
                optimizer.zero_grad()
                criterion(model(inputs), target).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                out = model(x)
                accuracy = (out.argmax(1) == y).float().mean()
                monitor.log(val_loss=criterion(out, y), val_accuracy=accuracy, epoch=epoch)
            model.train()
    return monitor.close(), monitor.run


def found(report: Report | None) -> set[tuple[str, str]]:
    assert report is not None
    # How long a step waited for data depends on the machine.
    return {(f.rule, str(f.severity)) for f in report.findings if f.rule != "input-bound"}


PROGRAMS: dict[str, tuple[dict[str, Any], float, str]] = {
    "healthy": ({}, 0.5, ""),
    "rate far too high": ({"depth": 3}, 50.0, "lr-too-high"),
    "units born dead": ({"bias": -20.0}, 0.1, "dead-relu"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_findings_are_those_of_the_plain_loop(name: str) -> None:
    shape, rate, rule = PROGRAMS[name]
    model = net(**shape)
    plain, run = plainly(twin(model), rate)
    watch = fit(model, sgd(rate))
    assert watch.report is not None
    harmful = [d.root.rule for d in watch.report.diagnoses if str(d.root.severity) != "note"]
    assert harmful[:1] == ([rule] if rule else [])
    assert found(watch.report) == found(plain)
    if name == "healthy":  # a diverging training tells the order of additions apart
        for quantity in (LOSS, GRAD_NORM, UPDATE_NORM, ACCURACY):
            theirs = run.get(quantity)
            assert theirs is not None
            assert values(watch, quantity) == pytest.approx(theirs.values, rel=1e-3)


# --- what is measured -----------------------------------------------------------------------------------------


def test_steps_epochs_losses_and_validation(tmp_path: Path) -> None:
    model = net()
    watch = fit(model, sgd(), logdir=tmp_path)
    run = run_of(watch)
    assert run.steps is not None
    assert (run.steps.first, run.steps.last) == (1, 80)
    epochs = run.get(EPOCH)
    assert epochs is not None
    assert (list(epochs.steps), list(epochs.values)) == ([20, 40, 60, 80], [1, 2, 3, 4])
    history = model.history.history
    assert values(watch, LOSS, "val") == pytest.approx(history["val_loss"])
    assert values(watch, ACCURACY, "val") == pytest.approx(history["val_accuracy"])
    by_epoch = values(watch, LOSS).reshape(4, 20).mean(1)  # Keras logs running means
    assert by_epoch == pytest.approx(history["loss"], rel=1e-4)
    assert len(values(watch, ACCURACY)) == 80
    assert set(values(watch, ZERO_GRAD_CALLS)) == set(values(watch, LOSS_WEIGHT)) == {1}
    facts = {k: run.facts[k] for k in ("planned_epochs", "planned_steps", "steps_per_epoch", "framework", "optimizer")}
    assert facts == {
        "planned_epochs": 4, "planned_steps": 80, "steps_per_epoch": 20, "framework": "keras", "optimizer": "SGD",
    }  # fmt: skip
    (logged,) = fitdoctor.open_runs(tmp_path)
    assert logged.steps == run.steps


def test_layers_have_their_names_in_keras() -> None:
    watch = fit(net(), sgd(), epochs=1)
    run = run_of(watch)
    assert set(run.layers(GRAD_NORM)) == {f"{n}/{w}" for n in ("hidden0", "hidden1", "out") for w in ("kernel", "bias")}
    assert list(run.layers(ACTIVATION_RMS)) == ["hidden0", "hidden1", "out"]
    assert str(run.facts["layers"]).startswith('[["hidden0","affine",12,32,"rectifier",""],["hidden1","affine",32,32,')


class Mixed(keras.Model):  # type: ignore[misc]
    """Layers in a list, a module of torch, normalisation, dropout."""

    def __init__(self) -> None:
        super().__init__(name="mixed")
        self.blocks = [layers.Dense(8, name=f"block{i}") for i in range(2)]
        self.norm = layers.BatchNormalization(name="norm")
        self.drop = layers.Dropout(0.2)
        self.inside = nn.Linear(8, 4)

    def call(self, x: Any, training: bool = False) -> Any:
        for block in self.blocks:
            x = keras.ops.tanh(block(x))
        return self.inside(self.drop(self.norm(x, training=training), training=training))


def test_a_subclassed_model_with_a_torch_module() -> None:
    keras.utils.set_random_seed(0)
    watch = fit(Mixed(), keras.optimizers.Adam(1e-2), epochs=2)
    run = run_of(watch)
    assert {"block0/kernel", "block1/bias", "norm/gamma"} < set(run.layers(GRAD_NORM))
    assert any(n.endswith("wrapper.weight") for n in run.layers(GRAD_NORM))
    assert list(run.layers(ACTIVATION_RMS))[:3] == ["block0", "block1", "norm"]
    assert (run.facts["dropout_layers"], run.facts["batch_norm_layers"]) == (1, 1)
    assert run.facts["trainable_tensors_not_in_optimizer"] == 0


def test_accumulated_batches_are_one_step() -> None:
    whole = fit(net(), sgd(), epochs=1, batches=loader(32, shuffle=False))
    parts = fit(net(), sgd(gradient_accumulation_steps=4), epochs=1, batches=loader(8, shuffle=False))
    assert run_of(parts).steps == run_of(whole).steps
    assert set(values(parts, BACKWARD_CALLS)) == {4}
    assert set(values(parts, LOSS_WEIGHT)) == {0.25}
    assert values(parts, LOSS) == pytest.approx(values(whole, LOSS), rel=1e-4)
    assert values(parts, GRAD_NORM) == pytest.approx(values(whole, GRAD_NORM), rel=1e-3)
    assert run_of(parts).facts["planned_steps"] == 20
    assert "accumulation-scaling" not in {rule for rule, _ in found(parts.report)}


def norms_without_callback(**options: Any) -> tuple[float, float]:
    """Norm of the first gradient before and after clipping, by Keras itself."""
    model, optimizer = net(), sgd(**options)
    x, y = next(iter(loader()))
    CROSS_ENTROPY(from_logits=True)(y, model(x)).backward()
    before = [v.value.grad for v in model.trainable_variables]
    both = before, optimizer._clip_gradients(before)
    return tuple(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in gs]))) for gs in both)  # type: ignore[return-value]


@pytest.mark.parametrize("options", [{"global_clipnorm": 0.1}, {"clipnorm": 0.1}, {"clipvalue": 0.01}], ids=str)
def test_norms_before_and_after_clipping(options: dict[str, float]) -> None:
    watch = fit(net(), sgd(**options), epochs=1)
    before, after = norms_without_callback(**options)
    assert values(watch, GRAD_NORM)[0] == pytest.approx(before, rel=1e-4)
    assert values(watch, GRAD_NORM_CLIPPED)[0] == pytest.approx(after, rel=1e-4)
    assert run_of(watch).facts.get("clip_norm") == options.get("global_clipnorm")


def test_learning_rates() -> None:
    schedule = keras.optimizers.schedules.PolynomialDecay(0.1, 20, 0.0)
    scheduled = fit(net(), sgd(schedule), epochs=1)
    assert values(scheduled, LR) == pytest.approx(0.1 * (1 - np.arange(20) / 20), rel=1e-4)  # that of each step itself
    plateau = keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=10.0)
    lowered = fit(net(), sgd(), epochs=3, others=(plateau,))
    assert values(lowered, LR)[[0, 20, 39, 40]] == pytest.approx([0.1, 0.1, 0.1, 0.05])


def test_a_loss_scale_and_its_skipped_steps() -> None:
    model = net()
    batches = itertools.count(1)

    def overflow() -> None:
        kernel = model.layers[0].kernel.value
        kernel.register_hook(lambda g: g + float("inf") if next(batches) == 5 else g)

    optimizer = keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=1024)
    watch = fit(model, optimizer, epochs=1, before=overflow)
    run = run_of(watch)
    assert run.steps == fitdoctor.Span(1, 19)
    assert (values(watch, SKIPPED_STEPS)[-1], values(watch, LOSS_SCALE)[-1]) == (1, 512)
    assert 0 < values(watch, GRAD_NORM).max() < 10  # unscaled
    assert set(values(watch, BACKWARD_CALLS)) == set(values(watch, LOSS_WEIGHT)) == {1}
    assert watch.monitor is not None
    assert watch.monitor.first_nonfinite is None
    assert values(watch, LOSS).max() < 3


def test_training_is_what_it_was() -> None:
    def trained(**options: Any) -> list[np.ndarray[Any, Any]]:
        keras.utils.set_random_seed(0)
        model = Mixed()
        model.compile(keras.optimizers.Adam(1e-2), CROSS_ENTROPY(from_logits=True))
        model.fit(*TRAIN, epochs=2, verbose=0, validation_data=VAL, **options)
        assert not {"compute_loss", "zero_grad"} & model.__dict__.keys()
        assert not {"apply", "_clip_gradients"} & model.optimizer.__dict__.keys()
        return [np.array(w) for w in model.get_weights()]

    ours = trained(callbacks=[FitdoctorCallback(record_every=1, tier="deep", verbose=False)])
    assert all(np.array_equal(a, b) for a, b in zip(ours, trained(), strict=True))


# --- losses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "loss", "sick"),
    [
        ("softmax", CROSS_ENTROPY(), False),
        ("softmax", "sparse_categorical_crossentropy", False),
        (None, CROSS_ENTROPY(from_logits=True), False),
        ("softmax", CROSS_ENTROPY(from_logits=True), True),
        (None, CROSS_ENTROPY(), True),
    ],
)
def test_scores_and_probabilities_are_told_apart(output: str | None, loss: Any, sick: bool) -> None:
    watch = fit(net(output=output), sgd(), loss=loss, epochs=2)
    assert ("double-softmax" in {rule for rule, _ in found(watch.report)}) == sick


def test_a_regression_whose_shapes_keras_makes_agree() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((12,)), layers.Dense(16, "tanh"), layers.Dense(1)])
    model.compile(sgd(0.05), "mse")
    watch = FitdoctorCallback(record_every=1, verbose=False)
    model.fit(TRAIN[0], TRAIN[0][:, 0], epochs=3, callbacks=[watch], verbose=0)  # targets [n], outputs [n, 1]
    assert run_of(watch).facts["loss_function"] == "MSELoss"
    assert "loss-target-mismatch" not in {rule for rule, _ in found(watch.report)}


class OwnStep(keras.Model):  # type: ignore[misc]
    """A training step that uses nothing of Keras but the optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = net()

    def call(self, x: Any) -> Any:
        return self.inside(x)

    def train_step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        if self.clears:
            self.zero_grad()
        loss = nn.functional.cross_entropy(self(x), y)
        loss.backward()
        weights = self.trainable_weights
        with torch.no_grad():
            self.optimizer.apply([w.value.grad for w in weights], weights)
        return {"loss": loss.detach()}


@pytest.mark.parametrize("clears", [True, False])
def test_a_training_step_of_the_users_own(clears: bool) -> None:
    model = OwnStep()
    model.clears = clears
    watch = fit(model, sgd(), epochs=1)
    truth = fit(net(), sgd(), epochs=1)
    if clears:
        assert values(watch, LOSS) == pytest.approx(values(truth, LOSS), rel=1e-3)
        assert values(watch, GRAD_NORM) == pytest.approx(values(truth, GRAD_NORM), rel=1e-3)
    assert ("missing-zero-grad" in {rule for rule, _ in found(watch.report)}) == (not clears)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_step_that_cannot_be_looked_into() -> None:
    """As under ``jit_compile``; compiling it here would take longer than all other tests of this file."""
    model = net()

    def make_step() -> None:
        def test(batch: Any) -> Any:
            with torch.no_grad():
                return model.test_step(batch[0])

        # Keras makes none where there is one.
        model.train_function, model.test_function = lambda batch: model.train_step(batch[0]), test

    watch = fit(model, sgd(), epochs=2, compiled=True, before=make_step)
    assert not run_of(watch).layers(ACTIVATION_RMS)
    truth = fit(net(), sgd(), epochs=2)
    assert run_of(watch).steps == run_of(truth).steps
    for quantity in (LOSS, GRAD_NORM, UPDATE_NORM, LR):
        assert values(watch, quantity) == pytest.approx(values(truth, quantity), rel=1e-3)
    assert len(values(watch, LOSS, "val")) == 2


# --- the course of a training ---------------------------------------------------------------------------------


def test_stopping_is_stop_training() -> None:
    model = net(depth=3)
    watch = fit(model, sgd(1e5), epochs=20, stop_on="nonfinite-loss", judge_every=1)
    assert model.stop_training
    assert watch.monitor is not None
    assert watch.monitor.step < 60
    assert "nonfinite-loss" in {rule for rule, _ in found(watch.report)}


def test_a_second_fit_goes_on(tmp_path: Path) -> None:
    model = net()
    watch = fit(model, sgd(), epochs=1)
    again = FitdoctorCallback(record_every=1, verbose=False, logdir=tmp_path)
    model.fit(loader(), shuffle=False, epochs=3, initial_epoch=1, callbacks=[again], verbose=0)
    run = run_of(again)
    assert run.steps is not None
    assert (run.steps.first, run.steps.last) == (21, 60)
    assert (run.facts["resumed_at"], run.facts["planned_steps"]) == (20, 60)
    model.fit(loader(), shuffle=False, epochs=1, callbacks=[watch], verbose=0)
    assert run_of(watch).steps == fitdoctor.Span(61, 80)


def test_restored_weights_bring_their_steps(tmp_path: Path) -> None:
    def interrupt(epoch: int, logs: Any) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    keep = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    model = net()
    with pytest.raises(KeyboardInterrupt):
        fit(model, sgd(), others=(keep, keras.callbacks.LambdaCallback(on_epoch_begin=interrupt)))
    resumed = fit(net(), sgd(), others=(keras.callbacks.BackupAndRestore(tmp_path / "backup"),))  # after ours
    assert run_of(resumed).steps == fitdoctor.Span(21, 80)
    assert run_of(resumed).facts["planned_steps"] == 80


def test_copies_made_during_training_are_plain() -> None:
    copies: list[Any] = []
    model = net()
    copy = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: copies.append(pickle.loads(pickle.dumps(model))))
    fit(model, sgd(), epochs=1, others=(copy,))
    assert not {"compute_loss", "zero_grad"} & copies[0].__dict__.keys()
    assert np.array_equal(copies[0].get_weights()[0], model.get_weights()[0])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in copies[0].layers)


def test_what_fails_in_the_adapter_is_told_once_and_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Monitor, *args: object, **kwargs: object) -> None:
        raise RuntimeError("of ours")

    monkeypatch.setattr(Monitor, "log", fail)
    model = net()
    model.compile(sgd(), CROSS_ENTROPY(from_logits=True))
    watch = FitdoctorCallback(verbose=False)
    with caplog.at_level(logging.ERROR, "fitdoctor"):
        model.fit(loader(), shuffle=False, epochs=3, callbacks=[watch], verbose=0)
    assert len(model.history.history["loss"]) == 3
    assert watch.off
    assert len(caplog.records) == 1
    assert not {"compute_loss", "zero_grad"} & model.__dict__.keys()
    assert not any(layer._forward_hooks for layer in model.layers)


def test_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(
        ConfigError, match=r"expected Keras on the torch backend, got 'jax'; set .* KERAS_BACKEND=torch"
    ):
        FitdoctorCallback()


def test_probes_are_functions() -> None:
    with pytest.raises(
        ConfigError, match="probe_val: expected a function of the model that returns its loss, got tuple"
    ):
        FitdoctorCallback(probe_val=VAL)
