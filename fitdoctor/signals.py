"""The vocabulary: what can be measured in a training run, in which unit and at which moment.

This module is the contract between parties that never meet: the readers that map a logged tag to
a signal, the hooks that measure one, and the rules that judge it. A rule that needs the gradient
norm *before* clipping asks for `GRAD_NORM` and may rely on the definition below.

The moments of one training step, in order::

    batch = next(loader)                    # DATA_TIME ends
    loss = criterion(model(x), y)           # LOSS, ACCURACY of split "train"; ACTIVATION_*, LOGIT_*
    loss.backward()                         # GRAD_LEFTOVER, LOSS_WEIGHT as it begins; ACTIVATION_GRAD_RMS
    clip_grad_norm_(...)                    # GRAD_NORM is taken before, GRAD_NORM_CLIPPED after
    optimizer.step()                        # LR is the rate used by this step; UPDATE_NORM, ADAM_*, STEP_QUALITY,
                                            # PROBE_*, MEMORY after it
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
UPDATE_LOST_FRACTION = Quantity(
    "update_lost_fraction",
    "fraction",
    "Of the entries of parameters in float16 or bfloat16 whose gradient is not 0 (65,536 of each parameter at most), "
    "the share that is bit for bit what it was at the first record.",
)
LOSS_WEIGHT = Quantity(
    "loss_weight",
    "",
    "Factor between the criterion's value and what backward() was called on, loss scale divided out: 1, or 1 over the "
    "number of accumulated batches.",
)
ADAM_TINY_FRACTION = Quantity(
    "adam_tiny_fraction",
    "fraction",
    "Share of entries whose bias-corrected root of Adam's second moment is below ten times epsilon, after the step.",
)
ADAM_SURPRISE = Quantity(
    "adam_surprise",
    "",
    "Root mean square of gradient over the bias-corrected root of Adam's second moment, after the step; about 1 in "
    "steady state, large when the gradient has outgrown its history.",
)
NOISE_SCALE = Quantity(
    "noise_scale",
    "samples",
    "Gradient noise scale: trace of the per-sample gradient covariance over the squared gradient norm, from the "
    "gradients of two batch sizes, numerator and denominator averaged apart.",
)
STEP_QUALITY = Quantity(
    "step_quality",
    "",
    "Actual over predicted decrease of the loss of the same batch by one optimizer step, same random numbers; 1 for "
    "an infinitesimal step, 0 where the step no longer helps its own batch.",
)

# --- how the loop is driven -----------------------------------------------------------------------
# Calls are counted from one step of the (first) optimizer to the next, and belong to the step that ends the count.
BACKWARD_CALLS = Quantity("backward_calls", "calls", "Backward passes from the loss since the optimizer step before.")
STEP_CALLS = Quantity(
    "step_calls",
    "calls",
    'Steps of one of several optimizers (`layer` names it, "" is the first) since the step before of the first.',
)
ZERO_GRAD_CALLS = Quantity(
    "zero_grad_calls",
    "calls",
    "Calls of the first optimizer's zero_grad since its step before; the model's not counted.",
)
SCHEDULER_CALLS = Quantity(
    "scheduler_calls", "calls", "Steps of the learning rate scheduler since the optimizer step before."
)
GRAD_LEFTOVER = Quantity(
    "grad_leftover",
    "",
    "L2 norm of what a witness parameter's gradient held when a backward pass began, the smallest over the backward "
    "passes since the optimizer step before; 0 when it was cleared before any of them.",
)
PARAMETERS_WITHOUT_GRAD = Quantity(
    "parameters_without_grad", "tensors", "Trainable parameters of the optimizer without a gradient at its step."
)
TRAIN_MODE = Quantity(
    "train_mode",
    "fraction",
    "Share of the layers that behave differently in training (dropout, batch norm; the model itself where it has "
    'none) that are in train mode at the forward pass of a training step. `layer` "model" is the flag of the model '
    'itself, "dropout" and "batch_norm" are layers of that kind alone.',
)
EVAL_TRAIN_MODE = Quantity(
    "eval_train_mode",
    "fraction",
    "TRAIN_MODE at the first forward pass without gradients since the optimizer step before, for a model that is "
    "itself in train mode; 0 where the model is in eval mode.",
)
EVAL_FORWARDS = Quantity(
    "eval_forwards", "calls", "Forward passes without gradients since the optimizer step before, where there were any."
)
EVAL_GRAD_FORWARDS = Quantity(
    "eval_grad_forwards",
    "calls",
    "Forward passes in eval mode that built a graph on which no backward pass followed before the model was in train "
    "mode again, since the optimizer step before, where there were any.",
)
EVAL_GRAPHS_ALIVE = Quantity(
    "eval_graphs_alive",
    "graphs",
    "Most autograd graphs of such forward passes alive at once, beside that of the pass that runs.",
)
GRAPHS_ALIVE = Quantity(
    "graphs_alive",
    "graphs",
    "Autograd graphs of the losses of the last 256 earlier records that are still alive, at a record after the step.",
)
NORM_SAMPLES = Quantity(
    "norm_samples",
    "values",
    "Values per channel that a batch norm layer in train mode takes its mean over, on this process, in the first "
    "forward pass of a step; the fewest of all layers.",
)
RANK_DISAGREEMENT = Quantity(
    "rank_disagreement", "", "Relative spread over the processes of the norm of the weights that they should share."
)

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
WEIGHT_ROWS_ALIKE = Quantity(
    "weight_rows_alike",
    "fraction",
    "Share of sampled pairs of neighbouring rows (the weights of one unit each) of a parameter with two dimensions or "
    "more that are equal up to 1e-4 of their largest weight; after the first step and ever more rarely later.",
)
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
    "activation_zero_fraction",
    "fraction",
    "Share of the layer's outputs that are exactly or almost zero; as they come out of a ReLU where the program puts "
    "them through one that is no layer (dead, saturated: alike).",
)
ACTIVATION_SATURATED_FRACTION = Quantity(
    "activation_saturated_fraction",
    "fraction",
    "Share of the layer's outputs where the slope of its sigmoid or tanh is below 5 % of the largest.",
)
ACTIVATION_DEAD_FRACTION = Quantity(
    "activation_dead_fraction",
    "fraction",
    "Share of the layer's sampled units that were exactly zero on each of the last 1,000 or more sampled inputs.",
)
ACTIVATION_INPUT_SPREAD = Quantity(
    "activation_input_spread",
    "",
    "Standard deviation of a unit's output over the inputs of the batch, root mean square over units, relative to "
    "ACTIVATION_RMS; 0 when the layer ignores its input.",
)
ACTIVATION_GRAD_RMS = Quantity(
    "activation_grad_rms",
    "",
    "Root mean square over batch and units of the gradient of the batch's loss with respect to the layer's output, "
    "unscaled.",
)
ATTENTION_ENTROPY = Quantity(
    "attention_entropy",
    "",
    "Entropy of the shares that a query of an attention gives to its keys, over the logarithm of the number of keys "
    "that the mask lets it see: 1 is even, 0 is one key alone; mean over sampled queries (8), heads (16), inputs (4).",
)
ATTENTION_SHARP_FRACTION = Quantity(
    "attention_sharp_fraction",
    "fraction",
    "Share of the sampled heads of an attention, each over the queries of one input, with an ATTENTION_ENTROPY below "
    "0.1.",
)
ATTENTION_LOGIT_ABSMAX = Quantity(
    "attention_logit_absmax",
    "",
    "Largest absolute product of a sampled query with a key that it sees, scaled as before the softmax; where a fused "
    "kernel has kept both.",
)
LOGIT_MEAN = Quantity("logit_mean", "", "Mean of the criterion's input.")
LOGIT_STD = Quantity("logit_std", "", "Standard deviation of the criterion's input over batch and units.")
LOGIT_ABSMAX = Quantity("logit_absmax", "", "Largest absolute entry of the criterion's input.")
PROBABILITY_ROWS = Quantity(
    "probability_rows",
    "fraction",
    "Share of rows of the criterion's input that are non-negative and sum to 1: probabilities, not logits.",
)
LOG_PROBABILITY_ROWS = Quantity(
    "log_probability_rows",
    "fraction",
    "Share of rows of NLLLoss's input whose exponentials sum to 1: log-probabilities, which it takes.",
)
UNIT_INTERVAL_FRACTION = Quantity(
    "unit_interval_fraction",
    "fraction",
    "Share of the entries of the input of a loss that applies a sigmoid itself that lie between 0 and 1.",
)
TARGET_STD = Quantity(
    "target_std", "", "Standard deviation of the criterion's target over batch and units, where it is not of classes."
)
LARGEST_PREDICTED_SHARE = Quantity(
    "largest_predicted_share", "fraction", "Share of the batch's predictions that name the class predicted most often."
)

# --- fixed batches, evaluated now and then --------------------------------------------------------
PROBE_LOSS = Quantity(
    "probe_loss", "", "Loss of one fixed batch of the split, evaluated in eval mode after an optimizer step.", "lower"
)
PROBE_ACCURACY = Quantity(
    "probe_accuracy", "fraction", "Accuracy on one fixed batch of the split, evaluated in eval mode.", "higher"
)

# --- the machine and the clock --------------------------------------------------------------------
STEP_TIME = Quantity("step_time", "s", "Wall time of one training step.")
DATA_TIME = Quantity("data_time", "s", "Wall time that one training step waited for its batch.")
THROUGHPUT = Quantity("throughput", "1/s", "Samples, tokens or iterations per second.", "higher")
MEMORY = Quantity("memory", "byte", "Memory allocated on the device, or resident on the host.")
HOST_MEMORY = Quantity(
    "host_memory", "byte", "Memory resident on the host, of this process and its child processes (data loader workers)."
)
LIVE_TENSORS = Quantity(
    "live_tensors", "tensors", "Tensors alive in the process, or memory blocks in use on the device."
)
MONITOR_SHARE = Quantity("monitor_share", "fraction", "Share of the wall time that fitdoctor's own monitor used.")
EPOCH = Quantity("epoch", "epochs", "Epoch counter at that step; a clock, not a measurement.")

QUANTITIES: dict[str, Quantity] = {q.name: q for q in list(globals().values()) if isinstance(q, Quantity)}
"""All quantities by name."""

METRICS: tuple[Quantity, ...] = (ACCURACY, TOP5_ACCURACY, SCORE, ERROR, PERPLEXITY)
"""Quantities that measure how good the model is, other than the loss."""

SPLIT_QUANTITIES: frozenset[Quantity] = frozenset({LOSS, LOSS_PART, *METRICS, PROBE_LOSS, PROBE_ACCURACY})
"""Quantities that are logged once per data split."""

OFTEN_LOGGED: frozenset[Quantity] = frozenset(
    {LOSS, LOSS_PART, *METRICS, LR, MOMENTUM, WEIGHT_DECAY, GRAD_NORM, GRAD_NORM_CLIPPED, LOSS_SCALE, EPOCH}
    | {STEP_TIME, DATA_TIME, THROUGHPUT, MEMORY}
)
"""Quantities that people log themselves; the others are what fitdoctor's hooks are for."""
