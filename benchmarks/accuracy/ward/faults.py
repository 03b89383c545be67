"""What can be done to a training, each in five doses from negligible to extreme.

A fault is a change of the program, never of its log. `named` are the rules that name it: the fault itself, and what is
the same fault in other words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.accuracy.ward.families import Family
from benchmarks.accuracy.ward.recipe import Recipe

Truth = Literal["fit", "held out", "error", "best", "shift", "present"]
"""How the harm is measured: "fit" (final training loss and oracle loss, the smaller loss of the two), "held out"
(oracle loss), "error" (oracle errors, where losses are of different kinds), "best" (what the oracle loss lost since the
checkpoint with the best val loss), "shift" (by how much the
validation loss says something else than the oracle loss), "present" (being there is what counts)."""


@dataclass(frozen=True)
class Fault:
    """One way to spoil a training.

    Attributes:
        name: what it is called in the tables.
        named: rules that count as having named it.
        truth: how its harm is measured.
        fits: whether a family can have it.
        doses: five changes, weakest first.
        probed: probes of `fitdoctor.preflight` that count as having named it.
        bookkeeping: present whether or not it does harm: naming a harmless one is no false alarm.
        other_rate: factor of the learning rate that might mend it as well (another true name then), 0 for none.
        sound: changes that the sound twin has too; `shared`: those of the dose that it has.
    """

    name: str
    named: tuple[str, ...]
    truth: Truth
    fits: Callable[[Family], bool]
    doses: tuple[dict[str, object], ...]
    probed: tuple[str, ...] = ()
    bookkeeping: bool = True
    sound: dict[str, object] | None = None
    other_rate: float = 0.0
    shared: tuple[str, ...] = ()

    @property
    def graded(self) -> bool:
        """Whether the doses differ; where they do not, they are but other seeds."""
        return any(dose != self.doses[0] for dose in self.doses)

    @property
    def used(self) -> tuple[int, ...]:
        """The doses that are trained: fewer where it is a bug that is there or not."""
        if not self.graded:
            return (1, 2)
        return (1, 3, 5) if self.bookkeeping else (1, 2, 3, 4, 5)

    def recipes(self, family: Family, dose: int, seed: int) -> tuple[Recipe, Recipe]:
        """The sick recipe and its sound twin."""
        sick = self.doses[dose - 1]
        twin = (self.sound or {}) | {k: v for k, v in sick.items() if k in self.shared}
        return _applied(family, (self.sound or {}) | sick, seed), _applied(family, twin, seed)


def _applied(family: Family, changes: dict[str, object], seed: int) -> Recipe:
    changes = dict(changes)
    lr = family.base.lr * float(changes.pop("lr_times", 1.0))
    if "told" in changes:  # the share of the epochs that the scheduler was told of
        changes["schedule_epochs"] = max(round(float(changes.pop("told")) * family.base.epochs), 1)
    return replace(family.base, **(changes | {"lr": lr, "seed": seed}))


def _any(_: Family) -> bool:
    return True


def _kind(*kinds: str) -> Callable[[Family], bool]:
    return lambda family: family.kind in kinds


def _trait(*traits: str) -> Callable[[Family], bool]:
    return lambda family: bool(family.traits & set(traits))


def _perceptron(family: Family) -> bool:
    return family.base.arch.startswith("mlp")


def _vectors(family: Family) -> bool:
    return family.kind != "tokens"


def _ladder(field: str, *values: object, **more: object) -> tuple[dict[str, object], ...]:
    return tuple({field: value, **more} for value in values)


FAULTS: tuple[Fault, ...] = (
    Fault(
        "vanishing-gradients",
        ("vanishing-gradients", "saturated-activations", "poor-init-scale", "input-collapse"),
        "fit",
        _perceptron,
        _ladder("depth", 4, 7, 11, 16, 24, activation="sigmoid"),
        ("poor-initialisation", "dead-units"),
        bookkeeping=False,
        other_rate=3.0,
    ),
    Fault(
        "exploding-gradients",
        ("exploding-gradients", "poor-init-scale", "wrong-initial-loss"),
        "fit",
        _trait("plain"),
        _ladder("gain", 1.6, 2.5, 4, 7, 12),
        ("poor-initialisation", "wrong-initial-loss"),
        bookkeeping=False,
        other_rate=0.3,
    ),
    Fault(
        "exploding-gradients-in-time",
        ("exploding-gradients", "poor-init-scale", "lr-too-high", "gradient-spikes"),
        "fit",
        _trait("recurrent"),
        _ladder("gain", 1.5, 2, 3, 5, 8),
        ("poor-initialisation", "wrong-initial-loss"),
        bookkeeping=False,
        other_rate=0.3,
    ),
    Fault(
        "init-too-small",
        ("poor-init-scale", "vanishing-gradients", "input-collapse"),
        "fit",
        _trait("plain"),
        _ladder("gain", 0.7, 0.4, 0.2, 0.07, 0.01),
        ("poor-initialisation",),
        bookkeeping=False,
        other_rate=3.0,
    ),
    Fault(
        "dead-relu",
        ("dead-relu",),
        "fit",
        lambda f: {"plain", "relu"} <= f.traits,
        _ladder("bias_shift", 0.3, 0.7, 1.5, 3, 8),
        ("dead-units",),
        bookkeeping=False,
        other_rate=0.3,
    ),
    Fault(
        "saturated-activations",
        ("saturated-activations", "poor-init-scale", "wrong-initial-loss"),
        "fit",
        _trait("sigmoidal"),
        _ladder("gain", 3, 6, 12, 30, 100),
        ("poor-initialisation", "dead-units", "wrong-initial-loss"),
        bookkeeping=False,
        other_rate=3.0,
    ),
    Fault(
        "symmetric-init",
        ("symmetric-init",),
        "fit",
        _trait("plain"),
        _ladder("constant_init", 0.2, 0.4, 0.6, 0.8, 1.0),
        ("poor-initialisation", "one-batch-not-learned"),
        other_rate=3.0,
    ),
    Fault(
        "missing-nonlinearity",
        ("missing-nonlinearity",),
        "fit",
        lambda f: _perceptron(f) and "plain" in f.traits,
        _ladder("activation", "none", "none", "none", "none", "none"),
    ),
    Fault(
        "wrong-initial-loss",
        ("wrong-initial-loss", "poor-init-scale"),
        "fit",
        _kind("classes"),
        _ladder("output_gain", 5, 15, 40, 120, 400),
        ("wrong-initial-loss",),
        bookkeeping=False,
        other_rate=0.3,
    ),
    Fault(
        "missing-zero-grad", ("missing-zero-grad",), "fit", _any, _ladder("zero_every", 2, 4, 16, 64, 0), other_rate=0.3
    ),
    Fault(
        "accumulation-scaling",
        ("accumulation-scaling", "lr-too-high"),
        "fit",
        lambda f: f.base.opt in ("sgd", "momentum", "nesterov"),
        tuple({"accumulate": k, "batch": 32 // k, "undivided": True} for k in (2, 4, 8, 16, 32)),
        shared=("accumulate", "batch"),
    ),
    Fault(
        "frozen-parameters",
        ("frozen-or-unused-parameters", "optimizer-missing-params"),
        "fit",
        _any,
        _ladder("frozen", 0.1, 0.3, 0.5, 0.7, 1.0),
        ("unused-parameters", "parameters-not-trained"),
        other_rate=3.0,
    ),
    Fault(
        "optimizer-missing-params",
        ("optimizer-missing-params", "no-parameter-updates"),
        "fit",
        _any,
        _ladder("left_out", 0.1, 0.3, 0.5, 0.7, 1.0),
        ("parameters-not-trained", "unused-parameters"),
        other_rate=3.0,
    ),
    Fault(
        "no-parameter-updates",
        ("no-parameter-updates", "optimizer-missing-params"),
        "fit",
        _any,
        tuple({"wrong_parameters": True} for _ in range(5)),
        ("parameters-not-trained",),
    ),
    Fault(
        "eval-mode-in-training",
        ("eval-mode-in-training",),
        "held out",
        _trait("batchnorm"),
        _ladder("stays_eval", 0.1, 0.3, 0.6, 0.95, 1.0),
    ),
    Fault(
        "train-mode-in-eval",
        ("train-mode-in-eval",),
        "held out",
        _trait("batchnorm"),
        tuple({"never_eval": True, "dropout": d} for d in (0.1, 0.2, 0.3, 0.4, 0.5)),
        shared=("dropout",),
    ),
    Fault(
        "eval-without-no-grad", ("eval-without-no-grad",), "fit", _any, tuple({"grad_in_eval": True} for _ in range(5))
    ),
    Fault(
        "batchnorm-tiny-batch",
        ("batchnorm-tiny-batch", "batch-too-small"),
        "held out",
        _trait("batchnorm"),
        _ladder("batch", 12, 8, 5, 3, 2),
        ("examples-mixed", "evaluation-differs"),
        bookkeeping=False,
        other_rate=0.3,
    ),
    Fault(
        "double-softmax",
        ("double-softmax",),
        "error",
        _kind("classes", "tokens"),
        tuple({"loss_input": "softmax"} for _ in range(5)),
        ("wrong-loss-input",),
    ),
    Fault(
        "sigmoid-before-bce",
        ("double-softmax",),
        "error",
        _kind("yes-no"),
        tuple({"loss_input": "sigmoid"} for _ in range(5)),
        ("wrong-loss-input",),
    ),
    Fault(
        "nll-of-logits",
        ("double-softmax", "wrong-initial-loss", "loss-divergence"),
        "error",
        _kind("classes", "tokens"),
        tuple({"loss_input": "log-free"} for _ in range(5)),
        ("wrong-loss-input",),
    ),
    Fault(
        "loss-target-mismatch",
        ("loss-target-mismatch",),
        "fit",
        _kind("numbers"),
        tuple({"loss_input": "broadcast"} for _ in range(5)),
        ("wrong-loss-input", "program-fails"),
    ),
    Fault(
        "overfitting",
        ("overfitting", "memorisation-label-noise", "overconfidence-drift"),
        "best",
        lambda f: f.kind in ("classes", "yes-no", "numbers"),
        tuple(
            {"n_train": n, "width": 128, "epochs": e, "batch": 16}
            for n, e in ((600, 30), (300, 45), (160, 70), (90, 90), (50, 120))
        ),
        ("small-validation-set", "nothing-to-learn"),
        bookkeeping=False,
    ),
    Fault(
        "memorisation-label-noise",
        ("memorisation-label-noise", "overfitting", "overconfidence-drift"),
        "best",
        _kind("classes"),
        tuple({"label_noise": p, "width": 128, "epochs": 60} for p in (0.05, 0.1, 0.2, 0.35, 0.5)),
        ("labels-not-learned",),
        bookkeeping=False,
    ),
    Fault(
        "random-labels",
        ("no-learning", "memorisation-label-noise", "overfitting", "distribution-shift"),  # the val labels are true
        "held out",
        _kind("classes", "yes-no"),
        tuple({"random_labels": True} for _ in range(5)),
        ("labels-not-learned", "nothing-to-learn"),
    ),
    Fault(
        "too-small",
        ("underfitting", "layer-too-narrow"),
        "fit",
        lambda f: f.kind != "picture" and "attention" not in f.traits,
        _ladder("width", 24, 12, 6, 3, 2),
        bookkeeping=False,
        other_rate=3.0,
    ),
    Fault(
        "weight-decay-too-high",
        ("weight-decay-too-high", "underfitting"),
        "fit",
        _any,
        _ladder("weight_decay", 1e-3, 1e-2, 0.05, 0.3, 2.0),
        bookkeeping=False,
        other_rate=3.0,
    ),
    Fault(
        "dropout-too-high",
        ("underfitting",),
        "fit",
        _kind("classes"),
        _ladder("dropout", 0.2, 0.5, 0.75, 0.9, 0.97),
        bookkeeping=False,
        other_rate=3.0,
    ),
    Fault(
        "distribution-shift",
        ("distribution-shift",),
        "shift",
        lambda f: f.kind in ("classes", "yes-no", "numbers"),
        _ladder("val_shift", 0.2, 0.5, 1.0, 2.0, 4.0),
        ("train-val-shift",),
        bookkeeping=False,
    ),
    Fault(
        "repeated-batch-order",
        ("repeated-batch-order",),
        "held out",
        _vectors,
        tuple({"fixed_order": True} for _ in range(5)),
        ("unshuffled-data",),
    ),
    Fault(
        "sorted-labels",
        ("sorted-batches", "repeated-batch-order", "gradient-spikes", "loss-spikes"),
        "held out",
        _kind("classes"),
        _ladder("sorted_batches", 0.2, 0.4, 0.6, 0.8, 1.0),
        ("unshuffled-data",),
    ),
    Fault(
        "scheduler-per-batch",
        ("scheduler-misstepped", "lr-decay-too-early"),
        "fit",
        _any,
        tuple(
            {"schedule": s, "scheduler_every": "batch"}
            for s in ("exponential", "step", "cosine", "exponential", "step")
        ),
        sound={"schedule": "exponential", "warmup": 0.0},
        other_rate=3.0,
    ),
    Fault(
        "scheduler-told-wrong-length",
        ("scheduler-misstepped", "lr-decay-too-early"),
        "fit",
        lambda f: f.base.epochs >= 14,
        _ladder("told", 0.9, 0.7, 0.5, 0.35, 0.2),
        sound={"schedule": "cosine", "warmup": 0.0},
        other_rate=3.0,
    ),
    Fault(
        "lr-decay-too-early",
        ("lr-decay-too-early",),
        "fit",
        _any,
        _ladder("schedule", "early-0.5", "early-0.25", "early-0.12", "early-0.06", "early-0.03"),
        sound={"schedule": "constant", "warmup": 0.0},
        bookkeeping=False,
        other_rate=3.0,
    ),
    Fault(
        "warmup-too-long",
        ("warmup-too-long", "lr-too-low", "undertrained"),
        "fit",
        _any,
        _ladder("warmup", 0.3, 0.5, 0.8, 0.95, 3.0),
        sound={"schedule": "constant"},
        bookkeeping=False,
        other_rate=3.0,
    ),
    Fault(
        "gradient-clipping-saturated",
        ("gradient-clipping-saturated",),
        "fit",
        lambda f: f.base.opt in ("sgd", "momentum", "nesterov"),
        _ladder("clip", 1.0, 0.2, 0.05, 0.01, 0.002),
        other_rate=3.0,
    ),
    Fault(
        "adam-epsilon-dominated",
        ("adam-epsilon-dominated", "lr-too-low"),
        "fit",
        lambda f: f.base.opt in ("adam", "adamw"),
        _ladder("eps", 1e-5, 1e-3, 1e-2, 0.1, 1.0),
        other_rate=3.0,
    ),
    Fault(
        "low-precision-update-loss",
        ("low-precision-update-loss",),
        "fit",
        lambda f: _perceptron(f) or f.base.arch.startswith(("cnn", "conv1d", "auto")),
        tuple({"bf16": True, "lr_times": k} for k in (1.0, 0.5, 0.2, 0.1, 0.05)),
        shared=("lr_times",),
        other_rate=3.0,
    ),
    Fault(
        "bad-example",
        ("nonfinite-loss", "hidden-nonfinite"),
        "fit",
        _vectors,
        _ladder("bad_rows", 1, 2, 4, 16, 64),
        ("defective-data",),
    ),
    Fault(
        "outlier-batches",
        ("outlying-batches", "gradient-spikes", "loss-spikes"),
        "fit",
        _vectors,
        tuple({"outlier": k, "outlier_every": 37} for k in (3, 10, 30, 100, 1000)),
        bookkeeping=False,
        other_rate=0.3,
    ),
    Fault(
        "inputs-not-normalised",
        (
            "wrong-initial-loss",
            "poor-init-scale",
            "exploding-gradients",
            "lr-too-high",
            "saturated-activations",
            "dead-relu",
        ),
        "fit",
        lambda f: _vectors(f) and "batchnorm" not in f.traits and "skips" not in f.traits,
        _ladder("input_scale", 3, 10, 30, 100, 255),
        ("unnormalised-inputs", "wrong-initial-loss"),
        bookkeeping=False,
        other_rate=0.3,
    ),
    Fault(
        "finetune-lr-too-high",
        ("finetune-lr-too-high", "lr-too-high"),
        "held out",
        lambda f: f.name.startswith(("blobs", "clusters", "shapes", "waves", "sorting")),
        tuple({"lr_times": k} for k in (0.3, 1.0, 3.0, 10.0, 30.0)),
        sound={"pretrain": 300, "epochs": 10, "lr_times": 0.1},
        bookkeeping=False,
    ),
    Fault(
        "restart-without-state",
        ("restart-discontinuity",),
        "fit",
        lambda f: f.base.opt != "sgd",
        tuple({"restart": "no-state"} for _ in range(5)),
    ),
    Fault("retained-graph", ("retained-graph",), "present", _any, tuple({"keep_losses": True} for _ in range(5))),
)
