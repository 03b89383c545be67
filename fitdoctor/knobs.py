"""What a `Change` may turn: the closed vocabulary of knobs, with the operations and values that each takes.

A program that applies remedies reads this: ``KNOBS["learning_rate"].meaning`` says what to do to the training, and
`fault` says why a change is none that it defines. Knobs name the state that is wanted, not the way there: to enable
``zero_grad`` is to clear gradients once per step, whatever the loop did before.

* ``set`` gives the knob the value; ``multiply`` multiplies what the run had by it;
* ``enable`` and ``disable`` turn a switch on or off and have no value.

docs/changes.md is made from this module, and tests/test_knobs.py holds every remedy to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from fitdoctor.finding import Change, Operation, RemedyKind

SWITCH: tuple[Operation, ...] = ("enable", "disable")
SIZE: tuple[Operation, ...] = ("set", "multiply")
CHOICE: tuple[Operation, ...] = ("set",)


@dataclass(frozen=True, slots=True)
class Knob:
    """One setting of a training that a remedy may change.

    Attributes:
        kind: what kind of remedy turns it.
        ops: the operations that it takes.
        meaning: the state that the change asks for, precise enough to program.
        values: for a choice, the words it takes; `float` or `int` for a number; () for a switch.
        facts: the facts of a `Run` under which the setting shows, the first that is there; () for the knob's own name.
    """

    kind: RemedyKind
    ops: tuple[Operation, ...]
    meaning: str
    values: tuple[str, ...] | type[float] | type[int] = ()
    facts: tuple[str, ...] = ()


def _switch(kind: RemedyKind, meaning: str, *facts: str) -> Knob:
    return Knob(kind, SWITCH, meaning, facts=facts)


def _number(kind: RemedyKind, meaning: str, *facts: str, whole: bool = False) -> Knob:
    return Knob(kind, SIZE, meaning, int if whole else float, facts)


def _choice(kind: RemedyKind, values: tuple[str, ...], meaning: str, *facts: str) -> Knob:
    return Knob(kind, CHOICE, meaning, values, facts)


KNOBS: dict[str, Knob] = {
    # --- the loop -------------------------------------------------------------------------------------
    "zero_grad": _switch(
        "bug", "gradients are cleared exactly once per optimizer step, before its first backward pass and never between"
    ),
    "optimizer_step": _switch("bug", "optimizer.step() is called after the backward passes of every batch or group"),
    "train_mode": _switch("bug", "model.train() holds in every forward pass of training, also after an evaluation"),
    "eval_mode": _switch("bug", "model.eval() holds in every forward pass of an evaluation, model.train() after it"),
    "eval_no_grad": _switch("memory", "evaluations run under torch.no_grad()"),
    "accumulated_loss": _choice(
        "bug", ("mean",), "the loss of each of n accumulated batches is divided by n, so that gradients are averaged"
    ),
    "retained_loss": _choice(
        "memory", ("number",), "what is kept of a loss is loss.item() or a detached tensor, never one with its graph"
    ),
    "loss_graph": _choice(
        "bug", ("whole",), "every trainable parameter takes part in the loss, with no detach or no_grad on the way"
    ),
    "trainable_parameters": _choice(
        "bug", ("all",), "no parameter of the model is frozen (requires_grad=True), and the optimizer holds them all"
    ),
    "optimizer_parameters": _choice(
        "bug", ("trainable",), "the optimizer holds exactly the model's parameters that require gradients"
    ),
    "gradient_averaging": _switch("bug", "processes start equal and step with the average of their gradients (DDP)"),
    "gradient_scaler": _switch("bug", "the loss is scaled by a GradScaler while the forward pass is in float16"),
    "resume_state": _choice(
        "bug", ("whole",), "resuming restores optimizer, scheduler, scaler and data order with the weights"
    ),
    # --- the loss -------------------------------------------------------------------------------------
    "loss_input": _choice(
        "bug",
        ("logits", "log_probabilities"),
        "what the loss is given: raw scores (CrossEntropyLoss, BCEWithLogitsLoss) or their log-softmax (NLLLoss); "
        "an activation of the model before it is left out",
    ),
    "loss_shapes": _choice("bug", ("equal",), "the output is reshaped to the shape of the target, nothing broadcast"),
    "loss_reduction": _choice("bug", ("mean",), "the loss is the mean over the batch"),
    "label_smoothing": _number("regularisation", "share of the target spread over all classes"),
    "z_loss": _number("regularisation", "this times the squared logsumexp of the logits is added to the loss"),
    "ignored_padding": _switch("bug", "the loss leaves out positions that are padding (ignore_index, or a mask)"),
    "class_weights": _switch("data", "classes weigh in the loss by their inverse frequency"),
    # --- data -----------------------------------------------------------------------------------------
    "labels": _choice("bug", ("matched",), "every input is paired with its own label, read anew from the source"),
    "shuffle": _switch("data", "training examples come in a new random order in every epoch"),
    "drop_last": _switch("data", "the short last batch of a training epoch is left out"),
    "nonfinite_examples": _switch("data", "examples with nan or inf are part of the training data"),
    "outlying_examples": _switch("data", "examples far outside the range of the others are part of the training data"),
    "input_normalisation": _switch("data", "inputs are standardised with mean and deviation of the training split"),
    "target_normalisation": _switch(
        "data", "targets of a regression are standardised with mean and deviation of the training split"
    ),
    "leaking_features": _switch("data", "inputs hold features that are made of the target"),
    "augmentation": _switch("data", "training inputs are changed at random in ways that leave the label true"),
    "n_train": _number("data", "number of training examples", whole=True),
    "n_val": _number("data", "number of validation examples", whole=True),
    "split": _choice("data", ("random", "group"), "all labelled data is pooled and split anew, at random or by group"),
    "shared_examples": _switch("data", "examples that are in the training split may be in the validation split too"),
    "preprocessing": _choice("data", ("same",), "both splits are prepared by the same code with the same statistics"),
    "worker_seeds": _switch("data", "every loader worker draws its own random numbers"),
    "pretrained": _switch("data", "training starts from weights pretrained on other data"),
    "loader_workers": _number("data", "number of loader workers", whole=True),
    # --- the model ------------------------------------------------------------------------------------
    "initialisation": _choice(
        "initialisation",
        ("kaiming", "xavier", "default"),
        "weights of linear and convolutional layers are drawn anew at random with this scale, biases are 0; default: "
        "every layer as its framework draws it",
    ),
    "registered_layers": _switch(
        "bug", "every layer that the forward pass uses is an attribute of its module, or in a ModuleList or ModuleDict"
    ),
    "output_gain": _number("initialisation", "the initial weights of the last layer, as a multiple of what they were"),
    "activation": _choice(
        "initialisation", ("relu", "leaky_relu", "gelu"), "the activation between all hidden layers"
    ),
    "output_activation": _choice("bug", ("none",), "the activation after the last layer of a regression"),
    "normalisation": _choice(
        "initialisation", ("layer", "group"), "the normalisation in every block, in place of batch norm or of none"
    ),
    "residual_connections": _switch("initialisation", "a skip connection around every block whose shapes allow it"),
    "qk_norm": _switch("initialisation", "queries and keys of each attention head are normalised before their product"),
    "sigma_reparametrisation": _switch(
        "initialisation", "query and key weights are divided by their spectral norm and multiplied by a learned number"
    ),
    "dropout": _number("regularisation", "share of units dropped before the last layers"),
    "width": _number("capacity", "units of every hidden layer", whole=True),
    "depth": _number("capacity", "number of hidden layers", whole=True),
    # --- the optimizer --------------------------------------------------------------------------------
    "learning_rate": _number("learning rate", "peak learning rate of every parameter group"),
    "batch_size": _number("learning rate", "examples per optimizer step", whole=True),
    "beta2": _number("learning rate", "Adam's decay of the second moment"),
    "eps": _number("learning rate", "Adam's epsilon"),
    "weight_decay": _number("regularisation", "decoupled weight decay (AdamW)"),
    "l1": _number("regularisation", "this times the sum of absolute weights is added to the loss"),
    "clip_norm": _number("clipping", "global gradient norm above which the gradient is scaled down to it"),
    "update_clipping": _switch(
        "clipping", "the rate of a tensor is divided by the root mean square of gradient / sqrt(second moment) above 1"
    ),
    "weight_averaging": _switch("learning rate", "an exponential average of the weights is what is evaluated"),
    # --- the schedule ---------------------------------------------------------------------------------
    "warmup_steps": _number(
        "learning rate",
        "optimizer steps of a linear warm-up to the peak rate",
        "warmup_steps", "warmup_fraction", "warmup_epochs",
        whole=True,
    ),
    "schedule": _choice(
        "learning rate",
        ("cosine", "multi-step", "plateau"),
        "decay of the rate over the run: a cosine to 0; a tenth at 1/2 and at 3/4; a tenth when validation stalls",
    ),
    "schedule_length": _number(
        "learning rate",
        "length of the schedule in the unit of the run's steps, with one call of the scheduler for each",
        "planned_steps", "schedule",
        whole=True,
    ),
    "scheduler_interval": _choice(
        "learning rate", ("step", "epoch"), "scheduler.step() is called once per optimizer step, or once per epoch"
    ),
    "scheduler_step": _switch("learning rate", "scheduler.step() is called, in the unit that its length is counted in"),
    "scheduler_order": _choice("learning rate", ("after",), "scheduler.step() is called after optimizer.step()"),
    "epochs": _number(
        "learning rate",
        "passes over the training data, the schedule stretched over all of them",
        "planned_epochs", "planned_steps", "length",
    ),
    "early_stopping_patience": _number(
        "stopping", "evaluations without a better validation result after which training ends", whole=True
    ),
    "checkpoint": Knob(
        "free", CHOICE, "the weights to use: of this step of the run, or 'best': of the best validation", ("best",)
    ),
    # --- memory and precision -------------------------------------------------------------------------
    "micro_batch_size": _number(
        "memory", "examples per forward pass; as many are accumulated as keep the batch size per step",
        "micro_batch_size", "batch_size",
        whole=True,
    ),
    "gradient_accumulation_steps": _number(
        "memory", "forward passes that the examples of one optimizer step are cut into, each loss divided by it",
        whole=True,
    ),
    "precision": _choice("memory", ("bf16-mixed", "32"), "weights in float32, forward passes in this precision"),
    "activation_checkpointing": _switch("memory", "blocks keep their input and compute the rest again in backward"),
    "optimizer_sharding": _switch("memory", "the optimizer's state is shared out over the devices"),
    "checkpoint_device": _choice("memory", ("cpu",), "where torch.load puts what it reads"),
    "expandable_segments": _switch("memory", "PYTORCH_ALLOC_CONF=expandable_segments:True"),
    # --- the log --------------------------------------------------------------------------------------
    "logging_nan_inf_filter": _switch("bug", "the logger leaves out or replaces values that are not finite"),
    "logging_points": _number("bug", "values of the training loss in the log of the whole run", whole=True),
    "eval_strategy": _choice("bug", ("epoch",), "when an evaluation on held-out data is run and logged"),
}  # fmt: skip
"""Every knob that the remedies of fitdoctor turn, by name."""


def fault(change: Change) -> str:
    """Why a change is none that `KNOBS` defines, or "".

    Example:
        >>> fault(Change("learning_rate", "multiply", 0.1)), fault(Change("zero_grad", "set", "yes"))
        ('', "zero_grad takes enable or disable, got 'set'")
    """
    knob = KNOBS.get(change.knob)
    if knob is None:
        return f"{change.knob!r} is no knob"
    if change.op not in knob.ops:
        return f"{change.knob} takes {' or '.join(knob.ops)}, got {change.op!r}"
    value, number = change.value, isinstance(change.value, (int, float)) and not isinstance(change.value, bool)
    if knob.ops == SWITCH:
        return "" if value is None else f"{change.knob} is a switch and takes no value, got {value!r}"
    if change.knob == "checkpoint":
        return "" if value == "best" or (isinstance(value, int) and number) else f"expected 'best' or a step: {value!r}"
    if isinstance(knob.values, tuple):
        return "" if value in knob.values else f"{change.knob} takes {' or '.join(knob.values)}, got {value!r}"
    if not number:
        return f"{change.knob} takes a number, got {value!r}"
    whole = knob.values is int and change.op == "set"
    return f"{change.knob} takes a whole number, got {value!r}" if whole and not isinstance(value, int) else ""


def page() -> str:
    """docs/changes.md: the table of all knobs."""
    lines = [
        "# Changes that a program can apply",
        "",
        "Made from `fitdoctor/knobs.py` by `python -m fitdoctor rule --format changes > docs/changes.md`.",
        "",
        "Where a remedy can be applied by a program, the report has it as a `change` of three parts: `knob`, `op` and",
        "`value`. The knob names the state that is wanted; what the loop did before does not matter. `set` gives it",
        "the value, `multiply` multiplies what the run had by it, `enable` and `disable` turn a switch and have none.",
        "A remedy without a `change` (look at the labels, overfit one batch) needs a person.",
        "",
        '    {"knob": "zero_grad", "op": "enable", "value": null}',
        '    {"knob": "learning_rate", "op": "multiply", "value": 0.1}',
        '    {"knob": "loss_input", "op": "set", "value": "logits"}',
        "",
        "| knob | op | value | means |",
        "|---|---|---|---|",
    ]
    for name, knob in KNOBS.items():
        lines.append(f"| `{name}` | {', '.join(knob.ops)} | {_values(name, knob)} | {knob.meaning} |")
    return "\n".join(lines) + "\n"


def _values(name: str, knob: Knob) -> str:
    if name == "checkpoint":
        return "`best`, or a step"
    if isinstance(knob.values, tuple):
        return ", ".join(f"`{v}`" for v in knob.values) or "none"
    return "a whole number (a factor may be any)" if knob.values is int else "a number"
