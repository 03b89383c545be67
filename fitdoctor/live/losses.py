"""Which number is the loss of a batch.

What the criterion returned; without one, what the model returned as its loss; where neither shows it, what `backward`
is called on, with the divisor that a framework put into it taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from fitdoctor.live.activations import first_tensor
from fitdoctor.live.ledger import Ledger
from fitdoctor.live.logits import take_logits
from fitdoctor.live.scaling import LossScale
from fitdoctor.live.step import Step
from fitdoctor.live.taps import Tap, listen
from fitdoctor.live.watched import Host, Watched
from fitdoctor.run import Fact


class Losses:
    """Takes the loss of each batch into its step.

    Args:
        watched: the parts of the training.
        ledger: the books of the loop.
        scale: the loss scale.
        facts: receives what is learned of the training.
        backward: hears when backward reaches the loss.

    Attributes:
        on_bad: called with a loss that is not finite, when it is seen.
        shown: whether the criterion or the model has shown the loss of the batch.
    """

    def __init__(
        self, watched: Watched, *, ledger: Ledger, scale: LossScale, facts: MutableMapping[str, Fact], backward: Tap
    ) -> None:
        self.on_bad: Callable[[float], None] = lambda value: None
        self.shown = False
        self._criterion = watched.criterion
        self._host = watched.host or Host()
        self._ledger, self._scale, self._facts, self._backward = ledger, scale, facts, backward

    def of_model(self, now: Step, output: object, kwargs: Mapping[str, Any], *, record: bool) -> None:
        """The model has run.

        Args:
            now: the step under way.
            output: what it returned.
            kwargs: what it was called with by name.
            record: whether everything is measured at this step, as in all that follow.
        """
        if self._criterion is not None:
            return
        loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
        if isinstance(loss, Tensor) and self._host.is_mean(kwargs, loss):
            self.shown = True
            self._take(now, loss, record=record)
        elif not self._host.hears_losses and (tensor := first_tensor(output)) is not None and tensor.requires_grad:
            listen(tensor, self._backward)

    def of_criterion(self, now: Step, loss: Tensor, args: Sequence[object], *, record: bool) -> None:
        """The criterion has run on these arguments."""
        self.shown = True
        self._take(now, loss, args, record=record)

    def look_at_inputs(self, now: Step, criterion: nn.Module, args: Sequence[object], *, record: bool) -> None:
        """What went into a criterion, whose result may be a part of the loss only."""
        if record and now.first_loss is None:
            classes = take_logits(now.row, criterion, args)
            if classes is not None:
                self._facts.setdefault("classes", classes)

    def of_backward(self, now: Step, loss: Tensor, divided_by: Tensor | float | None, *, record: bool) -> None:
        """`backward` is about to be called on this: the loss, where none was shown.

        Args:
            now: the step under way.
            loss: the objective over `divided_by`.
            divided_by: None where a framework divides and does not say by what: its share of the loss of the step.
            record: whether everything is measured at this step.
        """
        if self.shown or not loss.requires_grad:
            return
        if now.first_loss is None:
            now.summed, now.divided_by = divided_by is None, divided_by
        self._take(now, loss, times=self._scale.inverse() if divided_by is None else divided_by, record=record)

    def _take(
        self,
        now: Step,
        loss: Tensor,
        criterion_args: Sequence[object] = (),
        *,
        times: Tensor | float = 1.0,
        record: bool,
    ) -> None:
        if record and now.first_loss is None:
            self._ledger.note_loss(criterion_args, loss)
        bad = now.take(loss.detach(), times)
        if bad is not None:
            self.on_bad(bad)
        place = max(len(now.losses), len(now.loss_tensors)) - 1
        # What went backward before is over; what comes after it begins a backward pass of its own.
        first = now.since_forward == 0 or now.forwards == 0 or now.backwards >= len(now.firsts)
        now.since_forward += 1
        if first:
            now.firsts.append(place)
        if loss.requires_grad:  # one of several losses of a forward pass begins no backward pass of its own
            listen(loss, self._backward if first else Tap("a part of the loss", partial(now.note_share, place)))
