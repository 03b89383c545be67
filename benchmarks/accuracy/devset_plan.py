"""Which runs the development set holds: learning rate grids, odd but healthy runs, faults."""

from __future__ import annotations

from dataclasses import replace

from devset_training import Recipe

ADAPTIVE = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
PLAIN = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 30.0)

CONFIGURATIONS = (
    Recipe("digits", "mlp2", "adam", 0, "constant", 40),
    Recipe("digits", "mlp3", "sgd", 0, "step", 60),
    Recipe("digits", "cnn", "momentum", 0, "cosine", 20),
    Recipe("digits", "cnn", "adamw", 0, "onecycle", 25),
    Recipe("digits", "res12", "adam", 0, "warmup-cosine", 30),
    Recipe("digits", "mlp4-bn", "sgd", 0, "constant", 40, batch=64, dropout=0.2),
    Recipe("digits", "linear", "adam", 0, "plateau", 80, batch=64),
    Recipe("wine", "mlp2", "momentum", 0, "constant", 100, batch=16),
    Recipe("cancer", "mlp3", "adam", 0, "exponential", 60),
    Recipe("diabetes", "mlp2", "sgd", 0, "cosine", 60),
    Recipe("diabetes", "linear", "adam", 0, "constant", 100),
    Recipe("friedman", "mlp3", "adam", 0, "step", 50),
    Recipe("friedman", "mlp5-tanh", "momentum", 0, "plateau", 60),
    Recipe("blobs", "mlp3", "adamw", 0, "linear", 30, weight_decay=0.1),
    Recipe("blobs", "mlp4-bn", "momentum", 0, "onecycle", 40),
    Recipe("spirals", "mlp5-tanh", "adam", 0, "constant", 60),
    Recipe("spirals", "mlp4", "sgd", 0, "warmup", 100),
    Recipe("moons", "mlp3", "momentum", 0, "exponential", 60),
    Recipe("adding", "gru", "adam", 0, "cosine", 16),
    Recipe("text", "gru", "adam", 0, "linear", 8),
    Recipe("text", "former1-pre", "adamw", 0, "warmup-cosine", 9),
)
"""Configurations that are trained over a whole grid of learning rates (`lr` is filled in)."""


def grid(recipe: Recipe) -> tuple[float, ...]:
    """Learning rates to try for an optimizer."""
    return ADAPTIVE if recipe.opt in ("adam", "adamw") else PLAIN


ODD: tuple[tuple[str, Recipe], ...] = (
    ("dropout", Recipe("digits", "mlp3", "adam", 1e-3, "constant", 60, width=96, dropout=0.5)),
    ("dropout", Recipe("cancer", "mlp3", "adam", 5e-4, "constant", 60, width=64, dropout=0.6)),
    ("dropout", Recipe("blobs", "mlp3", "adamw", 1e-3, "cosine", 50, width=128, dropout=0.5)),
    ("label smoothing", Recipe("digits", "cnn", "adam", 2e-3, "cosine", 40, smoothing=0.1)),
    ("label smoothing", Recipe("spirals", "mlp4", "adam", 1e-3, "constant", 80, smoothing=0.2)),
    ("warm restarts", Recipe("digits", "cnn", "momentum", 3e-2, "restarts", 40)),
    ("warm restarts", Recipe("friedman", "mlp3", "adam", 3e-3, "restarts", 60)),
    ("warm restarts", Recipe("moons", "mlp3", "sgd", 3e-1, "restarts", 60)),
    ("full batch", Recipe("digits", "mlp3-tanh", "sgd", 3e-1, "constant", 400, batch=10_000)),
    ("full batch", Recipe("blobs", "mlp3-tanh", "momentum", 5e-2, "constant", 300, batch=10_000)),
    ("tiny val", Recipe("digits", "cnn", "adam", 1e-3, "constant", 25, n_val=25)),
    ("tiny val", Recipe("wine", "mlp2", "momentum", 1e-2, "constant", 60, n_val=15, batch=16)),
    ("tiny val", Recipe("cancer", "linear", "adam", 3e-3, "constant", 60, n_val=20)),
    ("tiny val", Recipe("moons", "mlp3", "adam", 1e-3, "constant", 60, n_val=20)),
    ("fast", Recipe("cancer", "linear", "momentum", 3e-2, "constant", 40)),
    ("fast", Recipe("digits", "cnn", "adam", 8e-3, "cosine", 25, dropout=0.2)),
    ("one cycle, high peak", Recipe("digits", "mlp4-bn", "momentum", 0.4, "onecycle", 40)),
    ("one cycle, high peak", Recipe("spirals", "mlp4-bn", "sgd", 1.0, "onecycle", 60)),
    ("noise floor of the data", Recipe("diabetes", "mlp2", "adam", 1e-3, "cosine", 30, dropout=0.3)),
    ("noise floor of the data", Recipe("moons", "mlp2", "adam", 3e-3, "constant", 60)),
    ("noise floor of the data", Recipe("diabetes", "linear", "momentum", 3e-3, "constant", 60)),
    ("noisy labels, big data", Recipe("blobs", "linear", "adam", 3e-3, "constant", 50, label_noise=0.3)),
    ("fine-tuning", Recipe("blobs", "mlp3", "adam", 1e-4, "linear", 20, pretrain=300)),
    ("fine-tuning", Recipe("blobs", "mlp4-bn", "adamw", 2e-4, "constant", 15, pretrain=300, dropout=0.1)),
    ("stopped early by hand", Recipe("digits", "cnn", "adam", 2e-3, "constant", 60, stop_at=0.35)),
    ("stopped early by hand", Recipe("friedman", "mlp3", "momentum", 1e-2, "constant", 80, stop_at=0.4)),
    ("one outlier batch", Recipe("digits", "mlp3", "sgd", 0.1, "constant", 50, bad_batch_at=0.3, clip=1.0)),
    ("one outlier batch", Recipe("blobs", "mlp3", "adam", 1e-3, "cosine", 40, bad_batch_at=0.4)),
    ("gentle clipping", Recipe("adding", "rnn-tanh", "adam", 1e-3, "cosine", 25, clip=5.0)),
    ("gentle clipping", Recipe("text", "gru", "adam", 3e-3, "cosine", 8, clip=1.0)),
    ("resumed", Recipe("digits", "cnn", "adam", 2e-3, "cosine", 30, restart="with-state")),
    ("tiny batch", Recipe("digits", "mlp2", "sgd", 0.02, "cosine", 15, batch=4)),
    ("tiny batch", Recipe("friedman", "mlp2", "sgd", 0.01, "cosine", 20, batch=4)),
)
"""(what is odd, recipe). Whether the run really is healthy is measured like for all others."""

_overfit = (
    Recipe("digits", "mlp3", "adam", 1e-3, "constant", 100, width=256, n_train=100, label_noise=0.3),
    Recipe("digits", "cnn", "adam", 3e-3, "constant", 80, n_train=150, label_noise=0.2),
    Recipe("digits", "mlp4", "sgd", 0.1, "constant", 150, width=128, n_train=120, label_noise=0.2, batch=16),
    Recipe("blobs", "mlp3", "adam", 1e-3, "constant", 100, width=256, n_train=200),
    Recipe("blobs", "mlp4-bn", "momentum", 1e-2, "cosine", 80, width=128, n_train=150, label_noise=0.1),
    Recipe("blobs", "mlp3", "adamw", 2e-3, "constant", 60, width=256, n_train=400, label_noise=0.2),
    Recipe("moons", "mlp5", "adam", 3e-3, "constant", 150, width=128, n_train=60),
    Recipe("moons", "mlp4", "momentum", 3e-2, "constant", 200, width=128, n_train=80, label_noise=0.1),
    Recipe("friedman", "mlp4", "adam", 2e-3, "constant", 120, width=256, n_train=80),
    Recipe("friedman", "mlp3", "momentum", 2e-2, "step", 100, width=128, n_train=100),
    Recipe("diabetes", "mlp4", "adam", 1e-3, "constant", 100, width=256, n_train=150),
    Recipe("diabetes", "mlp3", "momentum", 1e-2, "constant", 120, width=128),
    Recipe("diabetes", "mlp3", "adamw", 1e-3, "cosine", 80, width=128),
    Recipe("cancer", "mlp4", "adam", 1e-3, "constant", 100, width=256, n_train=60, label_noise=0.15, batch=16),
    Recipe("text", "gru", "adam", 5e-3, "constant", 50, width=96, n_train=250),
    Recipe("spirals", "mlp4", "adam", 3e-3, "constant", 120, width=128, n_train=90, label_noise=0.1),
)

_base = Recipe("digits", "cnn", "adam", 2e-3, "constant", 40)
_deep = Recipe("digits", "res12", "momentum", 1e-2, "constant", 40)
_flat = Recipe("blobs", "mlp3", "adam", 1e-3, "constant", 40)
_line = Recipe("friedman", "mlp3", "adam", 3e-3, "constant", 50)
_rnn = Recipe("adding", "gru", "momentum", 1e-2, "constant", 12, clip=1.0)

FAULTS: tuple[tuple[str, Recipe, Recipe | None], ...] = (
    *(("overfitting", r, None) for r in _overfit),
    ("no-learning", replace(_base, label_noise=1.0, lr=1e-4), None),
    ("no-learning", replace(_flat, wrong_params=True), _flat),
    ("no-learning", replace(_line, wrong_params=True), _line),
    ("no-learning", replace(_base, lr=0.0), _base),
    ("no-learning", replace(_flat, label_noise=1.0, arch="linear"), None),
    ("double-softmax", replace(_base, double_softmax=True), _base),
    ("double-softmax", replace(_flat, double_softmax=True), _flat),
    (
        "double-softmax",
        replace(_base, arch="mlp3", double_softmax=True, schedule="cosine"),
        replace(_base, arch="mlp3"),
    ),
    (
        "double-softmax",
        Recipe("spirals", "mlp4", "adam", 3e-3, "constant", 60, double_softmax=True),
        Recipe("spirals", "mlp4", "adam", 3e-3, "constant", 60),
    ),
    (
        "scheduler-misstepped",
        replace(_base, schedule="step", scheduler_every="batch", lr=1e-3),
        replace(_base, lr=1e-3),
    ),
    ("scheduler-misstepped", replace(_flat, schedule="exponential", scheduler_every="batch"), _flat),
    ("scheduler-misstepped", replace(_line, schedule="step", scheduler_every="batch"), _line),
    (
        "scheduler-misstepped",
        replace(_base, schedule="cosine", scheduler_every="batch"),
        replace(_base, schedule="cosine"),
    ),
    ("scheduler-misstepped", replace(_flat, schedule="tmax-short"), replace(_flat, schedule="cosine")),
    ("scheduler-misstepped", replace(_deep, schedule="cosine", schedule_epochs=24), replace(_deep, schedule="cosine")),
    ("lr-decay-too-early", replace(_base, schedule="early", lr=5e-4), replace(_base, schedule="cosine", lr=5e-4)),
    ("lr-decay-too-early", replace(_line, schedule="early"), replace(_line, schedule="cosine")),
    ("lr-decay-too-early", replace(_flat, schedule="early"), replace(_flat, schedule="cosine")),
    ("lr-decay-too-early", replace(_deep, schedule="early", lr=3e-3), replace(_deep, schedule="cosine", lr=3e-3)),
    ("repeated-batch-order", replace(_base, shuffled=False, lr=5e-4), None),
    ("repeated-batch-order", replace(_flat, shuffled=False), None),
    ("repeated-batch-order", Recipe("diabetes", "linear", "sgd", 3e-3, epochs=60, batch=8, shuffled=False), None),
    ("repeated-batch-order", Recipe("moons", "mlp3", "sgd", 0.05, epochs=60, batch=16, shuffled=False), None),
    ("vanishing-gradients", Recipe("digits", "mlp20-sigmoid", "sgd", 0.1, epochs=40), _deep),
    ("vanishing-gradients", Recipe("blobs", "mlp20-sigmoid", "momentum", 0.1, epochs=40), _flat),
    ("vanishing-gradients", Recipe("digits", "mlp30", "sgd", 0.1, epochs=40), _deep),
    ("vanishing-gradients", Recipe("friedman", "mlp16-sigmoid", "sgd", 0.1, epochs=40), _line),
    ("exploding-gradients", replace(_deep, arch="mlp12", gain=5.0, epochs=30), replace(_deep, epochs=30)),
    (
        "exploding-gradients",
        Recipe("adding", "rnn", "sgd", 0.1, epochs=15, gain=3.0),
        Recipe("adding", "rnn", "sgd", 0.1, epochs=15, gain=3.0, clip=1.0),
    ),
    ("exploding-gradients", Recipe("blobs", "mlp10", "momentum", 1e-2, epochs=30, gain=5.0), _flat),
    ("gradient-clipping-saturated", replace(_deep, clip=0.005), _deep),
    ("gradient-clipping-saturated", replace(_line, opt="sgd", lr=0.05, clip=0.01), replace(_line, opt="sgd", lr=0.05)),
    ("gradient-clipping-saturated", Recipe("blobs", "mlp3", "momentum", 3e-2, epochs=40, clip=0.005), _flat),
    ("nonfinite-loss", replace(_base, bad_batch_at=0.6), _base),
    ("nonfinite-loss", replace(_line, bad_batch_at=0.7), _line),
    ("restart-discontinuity", replace(_flat, lr=1e-2, restart="no-state"), replace(_flat, lr=1e-2)),
    ("restart-discontinuity", replace(_base, lr=1e-2, restart="no-state"), replace(_base, lr=1e-2)),
    (
        "underfitting",
        Recipe("spirals", "linear", "adam", 1e-2, epochs=80),
        Recipe("spirals", "mlp4", "adam", 3e-3, epochs=80),
    ),
    ("underfitting", replace(_line, arch="linear"), _line),
    ("underfitting", Recipe("blobs", "linear", "adam", 1e-2, "cosine", 60), _flat),
    ("underfitting", replace(_base, arch="mlp2", width=2), _base),
    (
        "warmup-missing-or-short",
        Recipe("text", "former4", "adam", 4e-3, "linear", 7),
        Recipe("text", "former4", "adam", 4e-3, "warmup-cosine", 7),
    ),
    (
        "warmup-missing-or-short",
        replace(_deep, opt="adam", lr=3e-2, schedule="linear"),
        replace(_deep, opt="adam", lr=3e-2, schedule="warmup-cosine"),
    ),
    ("missing-zero-grad", replace(_flat, opt="sgd", lr=0.1, keep_grads=True), replace(_flat, opt="sgd", lr=0.1)),
    ("missing-zero-grad", replace(_base, keep_grads=True), _base),
)
"""(what was done, recipe, the same without the fault or None where the oracle set decides)."""
