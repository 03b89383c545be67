"""Advice on bugs in the program and in its data."""

from __future__ import annotations

from fitdoctor.finding import Change, Remedy


def overfit_one_batch() -> Remedy:
    """Overfit one small batch: the test that separates bugs from tuning."""
    return Remedy(
        title="overfit one batch of 8-32 examples, without dropout, augmentation or weight decay",
        why="a model that cannot memorise one batch has a bug (loss, labels, frozen or detached parts), "
        "not a tuning problem",
        code={
            "pytorch": (
                "x, y = next(iter(loader))\n"
                "for _ in range(200):\n"
                "    optimizer.zero_grad()\n"
                "    loss = criterion(model(x), y)\n"
                "    loss.backward()\n"
                "    optimizer.step()\n"
                "print(loss.item())     # should be near zero"
            ),
            "lightning": "Trainer(overfit_batches=1, max_epochs=200)",
        },
        confirm="the loss falls to near zero; if it does not, the fault is in code or data",
        kind="bug",
    )


def check_updates() -> Remedy:
    """Check that the optimizer owns the model's parameters and that a step moves them."""
    return Remedy(
        title="check that the optimizer holds this model's parameters and that a step moves them",
        why="a model re-created, moved or wrapped after the optimizer was made trains tensors that nobody uses",
        code={
            "pytorch": (
                "owned = {id(p) for g in optimizer.param_groups for p in g['params']}\n"
                "print([n for n, p in model.named_parameters() if p.requires_grad and id(p) not in owned])\n"
                "before = [p.detach().clone() for p in model.parameters()]\n"
                "...                                        # one usual step\n"
                "print(sum(bool((a != b).any()) for a, b in zip(before, model.parameters())), 'tensors moved')"
            ),
        },
        confirm="every trainable tensor is owned and moves; the validation loss changes between evaluations",
        kind="bug",
    )


def check_labels() -> Remedy:
    """Check that inputs and labels belong together and that the loss gets what it expects."""
    return Remedy(
        title="check that inputs and labels belong together, and what the loss is given",
        why="shuffled or shifted labels and a wrong loss input keep any model at chance",
        change=Change("labels", "set", "matched"),
        code={"pytorch": "x, y = next(iter(loader)); print(x.shape, x.mean(), x.std(), y.shape, y.dtype, y.unique())"},
        confirm="a linear model or nearest neighbours beats chance on the same batches",
        kind="bug",
    )


def shuffle_batches() -> Remedy:
    """Shuffle anew in every epoch."""
    return Remedy(
        title="shuffle the training data anew in every epoch",
        why="the same batches in the same order repeat the same gradient noise; order becomes something to learn",
        change=Change("shuffle", "enable"),
        code={
            "pytorch": (
                "loader = DataLoader(dataset, batch_size=64, shuffle=True)\n"
                "sampler.set_epoch(epoch)      # with a DistributedSampler, before every epoch"
            ),
            "lightning": "DataLoader(dataset, shuffle=True)   # the Trainer calls set_epoch itself",
        },
        unless="the order is meant: curricula, time series with state, buckets by length",
        confirm="the loss of batch i in one epoch no longer predicts that of batch i in the next",
        kind="data",
    )


def pass_raw_logits() -> Remedy:
    """Remove the softmax before the cross-entropy."""
    return Remedy(
        title="remove the softmax at the end of the model: CrossEntropyLoss takes raw logits",
        why="it applies log-softmax itself; fed with probabilities it cannot tell 0.9 from certain, and gradients fade",
        change=Change("loss_input", "set", "logits"),
        code={
            "pytorch": "loss = nn.CrossEntropyLoss()(self.head(x), y)       # softmax only for display",
            "lightning": "loss = F.cross_entropy(self.head(x), y)",
        },
        unless="the floor comes from label smoothing or soft targets",
        confirm="the training loss falls below the old floor within the first epoch",
        kind="bug",
    )
