"""Everything that decides a run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Recipe:
    """One training. The defaults of everything after `seed` are neither faults nor odd.

    Attributes:
        task, arch, opt: names in `tasks`, `nets.build`, `training.optimizer_of`.
        lr: peak learning rate.
        schedule: "constant", "step", "exponential", "cosine", "linear", "warmup", "onecycle", "restarts", "plateau".
        epochs, batch: budget and batch size.
        clip: largest gradient norm, 0 for none.
        n_train, n_val: how many examples to use, 0 for all.
        warmup: share of the run during which the rate rises.
        stop_at: share of the run after which somebody stops it.
        gain, output_gain, bias_shift, constant_init, activation, depth: mistakes in building the network.
        label_noise, random_labels, sorted_batches, fixed_order, bad_rows, outlier, outlier_every, input_scale,
            val_shift, imbalance: what is wrong with the data.
        zero_every (steps between two `zero_grad`, 0 for never), accumulate, undivided, frozen, left_out,
        wrong_parameters: mistakes around backward and step.
        stays_eval: share of the run, its last, in which the model was left in evaluation mode; never_eval,
            grad_in_eval: other mistakes around validation.
        loss_input: "", "softmax" or "sigmoid" (a second one), "log-free" (NLL of raw logits), "broadcast".
        scheduler_every: "" (as meant) or "batch"; schedule_epochs: length that the scheduler was told, 0 for the truth.
        restart: "", "no-state", "with-state": the optimizer is made anew in the middle.
        eps, beta2, bf16: numerics of the optimizer and of the parameters.
        pretrain: steps on other data before the run.
        keep_losses: the losses are collected as tensors.
        loss_weights: balance the classes in the loss; smoothing: of labels; mixup: its alpha.
        frozen_on_purpose: the first share of layers is not trained and not given to the optimizer.
        initialisation ("kaiming", "xavier"), normalisation ("layer"), residual, deliver_best (the checkpoint with the
            best validation loss is what counts): remedies.
    """

    task: str
    arch: str
    opt: str
    lr: float
    schedule: str = "constant"
    epochs: int = 30
    batch: int = 32
    seed: int = 0
    width: int = 48
    weight_decay: float = 0.0
    dropout: float = 0.0
    clip: float = 0.0
    warmup: float = 0.0
    n_train: int = 0
    n_val: int = 0
    stop_at: float = 1.0
    gain: float = 1.0
    output_gain: float = 1.0
    bias_shift: float = 0.0
    constant_init: float = 0.0
    activation: str = ""
    depth: int = 0
    label_noise: float = 0.0
    random_labels: bool = False
    sorted_batches: float = 0.0
    fixed_order: bool = False
    bad_rows: int = 0
    outlier: float = 0.0
    outlier_every: int = 0
    input_scale: float = 1.0
    val_shift: float = 0.0
    imbalance: float = 0.0
    zero_every: int = 1
    accumulate: int = 1
    undivided: bool = False
    frozen: float = 0.0
    left_out: float = 0.0
    wrong_parameters: bool = False
    stays_eval: float = 0.0
    never_eval: bool = False
    grad_in_eval: bool = False
    loss_input: str = ""
    scheduler_every: str = ""
    schedule_epochs: int = 0
    restart: str = ""
    eps: float = 0.0
    beta2: float = 0.0
    bf16: bool = False
    pretrain: int = 0
    keep_losses: bool = False
    loss_weights: bool = False
    smoothing: float = 0.0
    mixup: float = 0.0
    frozen_on_purpose: float = 0.0
    initialisation: str = ""
    normalisation: str = ""
    residual: bool = False
    deliver_best: bool = False

    def differences(self) -> dict[str, object]:
        """The fields that differ from their defaults, in order."""
        plain = Recipe(self.task, self.arch, self.opt, self.lr)
        return {k: v for k, v in asdict(self).items() if k in ("task", "arch", "opt", "lr") or v != getattr(plain, k)}

    def key(self) -> str:
        """Twelve hex digits that stand for the recipe; new fields with their defaults change nothing."""
        return hashlib.sha256(json.dumps(self.differences()).encode()).hexdigest()[:12]
