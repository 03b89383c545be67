"""What looks odd and is healthy: each is a thing that careful people do on purpose."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.accuracy.ward.families import FAMILIES, Family
from benchmarks.accuracy.ward.recipe import Recipe

CHANGES: tuple[tuple[str, dict[str, object], tuple[str, ...]], ...] = (
    (
        "dropout, val better than train",
        {"dropout": 0.4, "epochs": 35},
        ("digits-mlp3", "clusters", "waves", "digits-cnn", "spirals", "textures", "shapes"),
    ),
    (
        "label smoothing",
        {"smoothing": 0.15},
        ("digits-cnn", "shapes", "clusters", "waves", "spirals", "textures", "sorting", "pairs"),
    ),
    ("mixup", {"mixup": 0.3, "epochs": 30}, ("digits-cnn", "shapes", "waves", "textures", "clusters")),
    (
        "warm restarts",
        {"schedule": "restarts", "warmup": 0.0},
        ("digits-cnn", "waves", "arm", "clusters", "friedman", "spirals", "checkerboard", "tally"),
    ),
    (
        "one cycle, high peak",
        {"schedule": "onecycle", "lr_times": 3, "warmup": 0.0},
        ("digits-cnn", "waves", "clusters"),
    ),
    (
        "full batch",
        {"batch": 100_000, "epochs": 250},
        ("friedman", "checkerboard", "arm", "digits-mlp3", "cancer", "clusters", "pictures"),
    ),
    (
        "large batch",
        {"batch": 256, "lr_times": 2, "epochs": 50},
        ("digits-mlp3", "shapes", "clusters", "pictures", "spirals", "tally", "waves"),
    ),
    (
        "tiny validation set",
        {"n_val": 20},
        ("digits-mlp3", "shapes", "waves", "checkerboard", "arm", "spirals", "clusters", "textures"),
    ),
    (
        "solved at once",
        {"lr_times": 2, "epochs": 40},
        ("digits-cnn", "recall", "sorting", "textures", "tally", "waves"),
    ),
    (
        "constant rate on purpose",
        {"schedule": "constant", "warmup": 0.0},
        ("digits-cnn", "waves", "clusters", "arm", "spirals", "pairs", "sorting"),
    ),
    (
        "stopped early by hand",
        {"stop_at": 0.5},
        ("digits-mlp3", "arm", "pictures", "recall", "shapes", "tally", "cancer", "checkerboard"),
    ),
    (
        "one outlier batch, recovered",
        {"outlier": 20, "outlier_every": 333, "clip": 1.0},
        ("digits-cnn", "shapes", "arm"),
    ),
    ("gentle clipping", {"clip": 5.0}, ("text", "recall", "sorting", "waves", "tally", "pairs", "arm")),
    (
        "resumed with its state",
        {"restart": "with-state"},
        ("digits-mlp3", "waves", "arm", "sorting", "tally", "spirals", "pictures", "recall"),
    ),
    ("small batches", {"batch": 6, "epochs": 8, "lr_times": 0.4}, ("digits-mlp3", "arm", "shapes", "spirals", "waves")),
    (
        "accumulation",
        {"accumulate": 4, "batch": 8},
        ("digits-mlp3", "waves", "clusters", "arm", "sorting", "textures", "pictures", "pairs"),
    ),
    ("frozen on purpose", {"frozen_on_purpose": 0.4, "pretrain": 300}, ("digits-mlp3", "shapes", "clusters")),
    (
        "fine-tuning, small rate",
        {"pretrain": 300, "epochs": 8, "lr_times": 0.1},
        ("clusters", "shapes", "waves", "sorting"),
    ),
    ("imbalance, weighted loss", {"imbalance": 0.7, "loss_weights": True}, ("digits-cnn", "waves", "clusters")),
    ("noise in the labels, small net", {"label_noise": 0.2, "width": 16, "epochs": 12}, ("clusters", "digits-mlp3")),
    ("leaky units", {"activation": "leaky"}, ("digits-mlp3", "shapes", "arm", "spirals", "cancer", "pictures")),
    ("weight decay", {"weight_decay": 1e-4}, ("digits-cnn", "waves", "shapes", "textures", "pictures", "arm")),
    ("beta2 of 0.95", {"beta2": 0.95}, ("digits-mlp3", "clusters", "sorting", "text", "tally", "pictures", "recall")),
    (
        "drop on plateau",
        {"schedule": "plateau", "warmup": 0.0},
        ("digits-mlp3", "arm", "shapes", "tally", "cancer", "recall"),
    ),
    ("bf16 with a large rate", {"bf16": True, "lr_times": 2}, ("checkerboard", "digits-mlp3")),
    ("twice as wide", {"width": 96}, ("digits-mlp3", "friedman", "waves", "clusters", "arm", "checkerboard", "recall")),
    ("smooth units", {"activation": "silu"}, ("spirals", "textures", "shapes", "waves", "arm", "pictures")),
    ("He's initialisation", {"initialisation": "kaiming"}, ("digits-mlp3", "cancer", "shapes", "arm", "clusters")),
    (
        "deep with skips and norms",
        {"depth": 9, "residual": True, "normalisation": "layer"},
        ("spirals", "digits-mlp3", "checkerboard", "arm"),
    ),
    ("light dropout", {"dropout": 0.1}, ("digits-mlp3", "textures", "shapes", "waves", "clusters", "sorting")),
    (
        "long warm-up",
        {"schedule": "linear", "warmup": 0.2, "lr_times": 1.5},
        ("spirals", "tally", "waves", "recall", "shapes"),
    ),
    (
        "one class in excess",
        {"imbalance": 0.6},
        ("digits-mlp3", "textures", "waves", "shapes"),
    ),
    ("half the examples", {"n_train": 400, "epochs": 30}, ("textures", "digits-cnn", "shapes", "waves")),
    (
        "double the batch and the rate",
        {"batch": 64, "lr_times": 2},
        ("textures", "pairs", "tally", "waves", "arm", "recall", "pictures"),
    ),
)
"""(what is odd, changes, families whose names begin so)."""


def odd_recipes() -> list[tuple[str, Family, Recipe]]:
    """Every odd recipe, its seed from its place in the list."""
    out = []
    for i, (what, changes, where) in enumerate(CHANGES):
        for family in FAMILIES:
            if family.name.startswith(where):
                rest = {k: v for k, v in changes.items() if k != "lr_times"}
                lr = family.base.lr * float(changes.get("lr_times", 1.0))
                out.append((what, family, replace(family.base, lr=lr, seed=500 + i, **rest)))
    return out
