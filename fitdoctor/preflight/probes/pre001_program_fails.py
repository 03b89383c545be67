"""PRE001 program-fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import ERROR, HIGH, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies.before_run import make_it_run
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from fitdoctor.preflight.bench import Bench


@probe(
    "PRE001",
    "program-fails",
    cost=Cost(passes=1),
    explains=[
        "wrong-loss-input",
        "wrong-initial-loss",
        "parameters-not-trained",
        "unused-parameters",
        "one-batch-not-learned",
        "input-ignored",
        "learning-rate-out-of-range",
        "labels-not-learned",
    ],
    since="0.1.0",
    worth=3,
    vital=True,
)
def program_fails(bench: Bench) -> Iterator[Finding]:
    """One batch does not get through model, loss, backward pass and step.

    Why it matters:
        Nothing can be trained, and nothing else can be judged.

    How it is measured:
        The first batch runs forward and backward in train mode, and the optimizer takes a step. It fails when
        something is raised, when the loss is not a scalar, not finite, or has no graph.

    Options:
        None.

    When it is wrong:
        Programs whose loss is not ``criterion(model(x), y)`` fail here although they are sound: pass
        ``loss_of=lambda model, batch: ...``.

    What to do:
        Run the batch by hand; the message of the exception names the place.

    References:
        Karpathy 2019, A recipe for training neural networks.
    """
    import torch

    batch = bench.batch(1 << 30)
    with bench.mode(training=True):
        try:
            loss = bench.run(batch).loss
            if loss.requires_grad and loss.numel() == 1:
                bench.optimizer.zero_grad()
                bench.recipe.backward(loss)
                bench.update(bench.optimizer, batch)
        except CannotJudge:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            yield finding(
                f"one training batch raises {type(error).__name__}: {text.rstrip('.?!')}",
                ERROR,
                HIGH,
                seen("loss", f"{type(error).__name__}: {text[:300]}", _hint(text)),
                remedies=[make_it_run()],
            )
            return
    value = loss.detach()
    if value.numel() != 1:
        what, expected = f"the loss has shape {tuple(value.shape)}", "one number; reduction='none' needs a mean()"
    elif not torch.isfinite(value).all():
        what, expected = f"the loss of the first batch is {float(value)}", "a finite number"
    elif not loss.requires_grad and not bench.trainable:
        return  # what that means is said by the probe parameters-not-trained
    elif not loss.requires_grad:
        what, expected = "the loss has no graph: nothing can be learned from it", "a loss with requires_grad"
    else:
        return
    yield finding(what, ERROR, HIGH, seen("loss", what, expected), remedies=[make_it_run()])


def _hint(text: str) -> str:
    """What usually stands behind a message of torch."""
    for part, meaning in (
        ("out of bounds", "labels from 0 to the number of outputs - 1"),
        ("out of range", "token or class ids from 0 to the size of the table - 1"),
        ("between 0 and 1", "probabilities: a sigmoid before BCELoss, or BCEWithLogitsLoss"),
        ("expected scalar type", "inputs and targets of the type that the layer and the loss take"),
        ("not implemented for 'Int'", "targets of int64"),
        ("more than 1 value per channel", "batches of two examples or more for batch norm"),
        ("same device", "model and batch on one device"),
        ("cannot be multiplied", "as many input features as the first layer takes"),
    ):
        if part in text:
            return meaning
    return "a scalar loss"
