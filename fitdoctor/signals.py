"""The vocabulary: what can be measured in a training run, in which unit and at which moment.

This module is the contract between parties that never meet: the readers that map a logged tag to
a signal, the hooks that measure one, and the rules that judge it. A rule that needs the gradient
norm *before* clipping asks for `GRAD_NORM` and may rely on the definition below.

The moments of one training step, in order::

    batch = next(loader)                    # DATA_TIME ends
    loss = criterion(model(x), y)           # LOSS, ACCURACY of split "train"; ACTIVATION_*
    loss.backward()
    clip_grad_norm_(...)                    # GRAD_NORM is taken before, GRAD_NORM_CLIPPED after
    optimizer.step()                        # LR is the rate used by this step; UPDATE_NORM after it
    scheduler.step()
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Better = Literal["lower", "higher", ""]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One thing that can be measured.

    Attributes:
        name: identifier used in tags, options and JSON, such as ``grad_norm``.
        unit: unit of the values, or "" for a pure number.
        doc: what exactly is measured, and at which moment.
        better: whether lower or higher values are better, "" where neither is.
    """

    name: str
    unit: str = field(compare=False)
    doc: str = field(compare=False)
    better: Better = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Signal:
    """A quantity of one data split and one part of the model.

    Attributes:
        quantity: what is measured.
        split: "train", "val" or "test"; quantities that know no split carry "train".
        layer: the layer, parameter group, or component the value belongs to
            (``encoder.0.weight``, ``pg1``, ``box``); "" is the whole model.

    Example:
        >>> str(Signal(LOSS, "val")), str(Signal(GRAD_NORM, layer="fc1"))
        ('val loss', 'grad_norm of fc1')
    """

    quantity: Quantity
    split: str = "train"
    layer: str = ""

    def __str__(self) -> str:
        text = f"{self.split} {self.quantity.name}" if self.quantity in SPLIT_QUANTITIES else self.quantity.name
        return f"{text} of {self.layer}" if self.layer else text


SPLITS = ("train", "val", "test")

# --- what the training is for -------------------------------------------------------------------
LOSS = Quantity(
    "loss",
    "",
    "The objective, averaged over the batch, the logging window or the epoch (`Series.per` says which "
    "where it is known), in whatever unit the criterion has; gradient accumulation divided out.",
    "lower",
)
LOSS_PART = Quantity("loss_part", "", "One named component of the objective (`layer` names it).", "lower")
ACCURACY = Quantity("accuracy", "fraction", "Share of correct top-1 predictions, 0 to 1.", "higher")
TOP5_ACCURACY = Quantity(
    "top5_accuracy", "fraction", "Share of labels among the five best predictions, 0 to 1.", "higher"
)
SCORE = Quantity(
    "score",
    "",
    "Any other metric where more is better: F1, AUC, mAP, BLEU, SSIM (`layer` names it).",
    "higher",
)
ERROR = Quantity(
    "error",
    "",
    "Any other metric where less is better: error rate, MAE, WER, FID (`layer` names it).",
    "lower",
)
PERPLEXITY = Quantity("perplexity", "", "exp of the mean token cross-entropy in nats.", "lower")

# --- the optimizer ------------------------------------------------------------------------------
LR = Quantity("lr", "", "Learning rate used by the optimizer's step (`layer` names the parameter group).")
MOMENTUM = Quantity("momentum", "", "Momentum, or Adam's beta1, used by the optimizer's step.")
WEIGHT_DECAY = Quantity("weight_decay", "", "Weight decay coefficient used by the optimizer's step.")
GRAD_NORM = Quantity(
    "grad_norm",
    "",
    "L2 norm of the gradient, unscaled, averaged over accumulation, before clipping where both exist.",
)
GRAD_NORM_CLIPPED = Quantity(
    "grad_norm_clipped", "", "L2 norm of the gradient after clipping, as the optimizer sees it."
)
WEIGHT_NORM = Quantity("weight_norm", "", "L2 norm of the parameters before the step.")
UPDATE_NORM = Quantity("update_norm", "", "L2 norm of the change that one optimizer step made to the parameters.")
UPDATE_RATIO = Quantity("update_ratio", "", "UPDATE_NORM over WEIGHT_NORM of the same parameters.")
LOSS_SCALE = Quantity("loss_scale", "", "Scale that GradScaler multiplies the loss with.")
SKIPPED_STEPS = Quantity("skipped_steps", "steps", "Optimizer steps skipped so far because of a gradient overflow.")

# --- distributions (histograms are reduced to these) ---------------------------------------------
GRAD_ABSMAX = Quantity("grad_absmax", "", "Largest absolute entry of the gradient.")
GRAD_MEDIAN = Quantity("grad_median", "", "Median entry of the gradient.")
GRAD_SPREAD = Quantity("grad_spread", "", "Distance of the 5th to the 95th percentile of the gradient's entries.")
GRAD_ZERO_FRACTION = Quantity(
    "grad_zero_fraction", "fraction", "Share of entries of the gradient that are exactly or almost zero."
)
WEIGHT_ABSMAX = Quantity("weight_absmax", "", "Largest absolute entry of the parameter.")
WEIGHT_MEAN = Quantity("weight_mean", "", "Mean entry of the parameter.")
WEIGHT_STD = Quantity("weight_std", "", "Standard deviation of the parameter's entries.")
WEIGHT_MEDIAN = Quantity("weight_median", "", "Median entry of the parameter.")
WEIGHT_SPREAD = Quantity("weight_spread", "", "Distance of the 5th to the 95th percentile of the parameter's entries.")
WEIGHT_ZERO_FRACTION = Quantity("weight_zero_fraction", "fraction", "Share of entries of the parameter at zero.")
ACTIVATION_MEAN = Quantity("activation_mean", "", "Mean output of the layer over batch and units.")
ACTIVATION_STD = Quantity("activation_std", "", "Standard deviation of the layer's output over batch and units.")
ACTIVATION_RMS = Quantity("activation_rms", "", "Root mean square of the layer's output over batch and units.")
ACTIVATION_ABSMAX = Quantity("activation_absmax", "", "Largest absolute output of the layer.")
ACTIVATION_MEDIAN = Quantity("activation_median", "", "Median output of the layer over batch and units.")
ACTIVATION_SPREAD = Quantity(
    "activation_spread", "", "Distance of the 5th to the 95th percentile of the layer's output."
)
ACTIVATION_ZERO_FRACTION = Quantity(
    "activation_zero_fraction", "fraction", "Share of the layer's outputs that are exactly or almost zero."
)

# --- the machine and the clock --------------------------------------------------------------------
STEP_TIME = Quantity("step_time", "s", "Wall time of one training step.")
DATA_TIME = Quantity("data_time", "s", "Wall time that one training step waited for its batch.")
THROUGHPUT = Quantity("throughput", "1/s", "Samples, tokens or iterations per second.", "higher")
MEMORY = Quantity("memory", "byte", "Memory allocated on the device, or resident on the host.")
EPOCH = Quantity("epoch", "epochs", "Epoch counter at that step; a clock, not a measurement.")

QUANTITIES: dict[str, Quantity] = {q.name: q for q in list(globals().values()) if isinstance(q, Quantity)}
"""All quantities by name."""

METRICS: tuple[Quantity, ...] = (ACCURACY, TOP5_ACCURACY, SCORE, ERROR, PERPLEXITY)
"""Quantities that measure how good the model is, other than the loss."""

SPLIT_QUANTITIES: frozenset[Quantity] = frozenset({LOSS, LOSS_PART, *METRICS})
"""Quantities that are logged once per data split."""
