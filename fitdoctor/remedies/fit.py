"""Advice on too much fit, or too little."""

from __future__ import annotations

from typing import Literal

from fitdoctor.finding import Change, Remedy


def use_best_checkpoint(step: int | None = None, unit: str = "step") -> Remedy:
    """Use the checkpoint with the best validation result."""
    where = f" ({unit} {step})" if step is not None else ""
    return Remedy(
        title=f"use the checkpoint with the best validation result{where}",
        why="it costs nothing, and later weights generalise worse",
        change=Change("checkpoint", "set", step) if step is not None else Change("checkpoint", "set", "best"),
        code={
            "pytorch": "if val_loss < best:\n    best = val_loss\n    torch.save(model.state_dict(), 'best.pt')",
            "lightning": "ModelCheckpoint(monitor='val_loss', mode='min')",
            "transformers": "TrainingArguments(..., load_best_model_at_end=True, metric_for_best_model='eval_loss')",
        },
        confirm="the test result of that checkpoint is at least as good as the last one's",
        kind="free",
    )


def stop_early(patience: int | None = None) -> Remedy:
    """Stop when validation has not improved for a while."""
    n = patience or 10
    return Remedy(
        title=f"stop when validation has not improved for {n} evaluations",
        why="the rest of the budget makes it worse",
        change=Change("early_stopping_patience", "set", n),
        code={
            "pytorch": (
                "waited = 0 if val_loss < best else waited + 1\n"
                "best = min(best, val_loss)\n"
                f"stop = waited >= {n}            # leave the loop then"
            ),
            "lightning": f"EarlyStopping(monitor='val_loss', patience={n})",
            "transformers": f"EarlyStoppingCallback(early_stopping_patience={n})",
        },
        unless="the schedule has not annealed yet: the best results often come at its end",
        confirm="`fitdoctor analyze AFTER` shows that the run ends near its best checkpoint",
        kind="stopping",
    )


def more_data() -> Remedy:
    """Get more training data."""
    return Remedy(
        title="train on more data, twice as much if it can be had: label more, or use a related set",
        why="the model fits what does not generalise because the examples leave it free to",
        change=Change("n_train", "multiply", 2),
        unless="training accuracy is low as well: then it is underfitting",
        confirm="`fitdoctor compare BEFORE AFTER` shows that the validation loss keeps falling past the old best epoch",
        kind="data",
    )


def augment_data() -> Remedy:
    """Make more of the data there is."""
    return Remedy(
        title="augment the training data with changes that leave the label true: crops, flips, noise, dropped words",
        why="each epoch then shows other inputs; what stays is what the label depends on",
        change=Change("augmentation", "enable"),
        code={
            "pytorch": "x = x + 0.1 * x.std() * torch.randn_like(x)      # in training only; torchvision for images",
        },
        unless="training accuracy is low as well, or no change is known that leaves the label true",
        confirm="`fitdoctor compare BEFORE AFTER` shows that the validation loss rises less after its best, and "
        "ends lower",
        kind="data",
    )


def regularise(current: float | None = None) -> Remedy:
    """Decoupled weight decay, or L1 where few inputs matter.

    Args:
        current: weight decay of this run.
    """
    decay = f"{10 * current:.2g}" if current else "0.01"
    return Remedy(
        title=f"set a decoupled (L2) weight decay of {decay}; label smoothing has a similar effect",
        why="it makes fitting noise cost something",
        change=Change("weight_decay", "set", float(decay)),
        code={
            "pytorch": (
                "# AdamW, because plain Adam couples the decay with the scale of the gradient\n"
                f"optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay={decay})\n"
                "# L1 instead, where only a few of many inputs matter:\n"
                "loss = criterion(model(x), y) + 1e-4 * sum(p.abs().sum() for p in model.parameters())"
            ),
            "lightning": f"torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay={decay})",
            "transformers": f"TrainingArguments(..., weight_decay={decay})",
        },
        unless="the training loss is high too",
        confirm="`fitdoctor compare BEFORE AFTER` shows that the validation loss rises less after its best, while "
        "the training "
        "loss ends a little higher",
        kind="regularisation",
    )


def drop_out(share: float = 0.2) -> Remedy:
    """Dropout before the last layers."""
    return Remedy(
        title=f"put dropout of {share:g} before the last layers",
        why="units that are there only part of the time cannot rely on each other; noise in the labels is fitted later "
        "(Arpit et al. 2017)",
        change=Change("dropout", "set", share),
        code={"pytorch": f"model = nn.Sequential(body, nn.Dropout({share:g}), head)"},
        unless="the training loss is high too, or batch norm follows: its statistics change with dropout",
        confirm="`fitdoctor compare BEFORE AFTER` shows that the validation loss rises less after its best",
        kind="regularisation",
    )


def start_pretrained() -> Remedy:
    """Start from weights that have seen more data."""
    return Remedy(
        title="start from weights pretrained on a larger set of the same kind",
        why="they bring data that this set does not hold, and leave less to be learned from it",
        change=Change("pretrained", "enable"),
        code={
            "transformers": "AutoModelForSequenceClassification.from_pretrained(name, num_labels=classes)",
        },
        unless="nothing pretrained is near this kind of data",
        confirm="`fitdoctor compare BEFORE AFTER` shows that the validation loss starts lower and ends lower",
        kind="data",
    )


def shrink_model() -> Remedy:
    """Use a smaller model."""
    return Remedy(
        title="use a smaller model (half the width)",
        why="fewer parameters leave less freedom to memorise",
        change=Change("width", "multiply", 0.5),
        unless="training loss is not yet low, or label noise suggests double descent: then a smaller model can hurt",
        confirm="`fitdoctor compare BEFORE AFTER` shows that the gap narrows at the same or better validation loss",
        kind="capacity",
    )


def calibrate_outputs() -> Remedy:
    """Temperature scaling on the validation set."""
    return Remedy(
        title="scale the logits by one temperature fitted on the validation set, or use label smoothing",
        why="accuracy holds while the loss rises: the model grows overconfident in the examples it gets wrong "
        "(Guo et al. 2017)",
        change=Change("label_smoothing", "set", 0.1),
        code={
            "pytorch": "criterion = nn.CrossEntropyLoss(label_smoothing=0.1)",
            "transformers": "TrainingArguments(..., label_smoothing_factor=0.1)",
        },
        unless="only accuracy matters: then select the checkpoint by accuracy and ignore the loss",
        confirm="`fitdoctor compare BEFORE AFTER` shows that the validation loss rises less after its best, "
        "accuracy unchanged",
        kind="regularisation",
    )


def add_capacity(factor: int = 4) -> Remedy:
    """Give the model more capacity.

    Args:
        factor: of the width. What is left over costs time; what is missing cannot be learned.
    """
    return Remedy(
        title=f"give the model more capacity ({factor} times the width)",
        why="it fits the training data no better than the validation data, and both poorly",
        change=Change("width", "multiply", factor),
        unless="one batch cannot be overfitted, or labels are suspect: then it is a bug",
        confirm="`fitdoctor compare BEFORE AFTER` shows that the training loss falls below this run's floor, the "
        "rate tuned anew",
        kind="capacity",
    )


def less_regularisation(first: Literal["dropout", "augmentation"] = "dropout") -> Remedy:
    """Remove regularisation, one kind at a time.

    Args:
        first: the kind that goes first.
    """
    others = {"dropout": "augmentation and weight decay", "augmentation": "weight decay"}[first]
    return Remedy(
        title=f"remove regularisation, one kind at a time: first {first}, then {others}",
        why="regularisation that keeps the training loss high cannot help validation",
        change=Change("dropout", "set", 0.0) if first == "dropout" else Change("augmentation", "disable"),
        confirm="`fitdoctor compare BEFORE AFTER` shows that the training loss falls, and the validation loss with it",
        kind="regularisation",
    )


def evaluate_more(n: int | None = None) -> Remedy:
    """Use a larger validation set or average several evaluations."""
    return Remedy(
        title=f"validate on about {n:,} examples, or average neighbouring evaluations"
        if n
        else "use a larger validation set",
        why="differences between epochs are smaller than the sampling error of the validation set",
        change=Change("n_val", "set", n) if n else None,
        confirm="`fitdoctor analyze AFTER` shows that the validation metric scatters half as much with four times "
        "the examples",
        kind="data",
    )


def find_mislabelled() -> Remedy:
    """Look at the training examples that were fitted last."""
    return Remedy(
        title="look at the training examples with the highest loss at the best checkpoint, and correct their labels",
        why="what a model that generalises gets wrong on its own training data is hard or mislabelled",
        code={
            "pytorch": (
                "each = torch.nn.functional.cross_entropy(model(inputs), labels, reduction='none')\n"
                "print(each.topk(100).indices)      # with the weights of the best checkpoint"
            ),
        },
        unless="the examples are rare but right: then collect more of their kind",
        confirm="after correcting them, accuracy on the training data no longer lags behind validation early on",
        kind="data",
    )


def balance_classes() -> Remedy:
    """Weight or sample the classes evenly, and judge by recall per class."""
    return Remedy(
        title="weight the classes by their inverse frequency, start the output bias at their logs, report recall",
        why="the cheapest way to lower the loss on unbalanced data is to name the largest class",
        change=Change("class_weights", "enable"),
        code={
            "pytorch": (
                "counts = torch.bincount(labels).float()\n"
                "criterion = nn.CrossEntropyLoss(weight=counts.sum() / (len(counts) * counts))\n"
                "with torch.no_grad():\n"
                "    head.bias.copy_((counts / counts.sum()).log())"
            ),
        },
        unless="the classes are balanced: then look for the cause in rate, labels and initialisation",
        confirm="the largest predicted share falls towards the frequency of that class",
        kind="data",
    )


def split_again() -> Remedy:
    """Make sure that both sets are the same kind of data, prepared in the same way."""
    return Remedy(
        title="compare how both sets are prepared; then pool, shuffle and split them again",
        why="a gap that is there from the start is a difference of the data or of their preparation",
        change=Change("split", "set", "random"),
        code={
            "pytorch": (
                "for name, (x, y) in {'train': next(iter(train)), 'val': next(iter(val))}.items():\n"
                "    print(name, x.shape, x.dtype, x.mean(), x.std(), x.min(), x.max(), y.unique())\n"
                "pooled = torch.utils.data.ConcatDataset([train_set, val_set])\n"
                "train_set, val_set = torch.utils.data.random_split(pooled, [0.8, 0.2])"
            ),
        },
        unless="the shift is what you have to cope with (a later time, another site): then validate on that, and "
        "collect training data from it",
        confirm="with the new split the gap between training and validation loss is gone at half way",
        kind="data",
    )
