"""What the passes without gradients say: the validation loss and accuracy of a program that tells them nobody.

Passes over the data that are trained on are told apart, where the program shows that they are: by the data set of the
`DataLoader` that the batches come from, or by a variable of the calling function whose value is the name of a split.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fitdoctor.live.program.objective import Call

_TRAIN = frozenset({"train", "training"})
_VAL = frozenset({"val", "valid", "validation", "eval", "evaluation", "dev"})
_TEST = frozenset({"test", "testing"})
_MOST_FRAMES = 12
_MOST_ROWS = 4096  # of a batch whose accuracy is looked at


class Loaders:
    """Which data set the batches come from.

    Attributes:
        trained_on: identities of data sets of which batches were trained on.
    """

    def __init__(self) -> None:
        self.trained_on: set[int] = set()
        self._opened: int | None = None
        self._fresh = False

    def opened(self, loader: Any) -> None:
        """A DataLoader begins an epoch."""
        self._opened, self._fresh = id(getattr(loader, "dataset", loader)), True

    def note_training(self) -> None:
        """A training batch: of the loader opened last, unless that was read by an evaluation."""
        if self._fresh and self._opened is not None:
            self.trained_on.add(self._opened)
        self._opened, self._fresh = None, False

    def of_evaluation(self) -> int | None:
        """The data set of a batch that is evaluated, None where it is not known."""
        self._fresh = False
        return self._opened


def said_split() -> str:
    """The split that a calling function names in a variable ("train", "val" or "test"), "" for none."""
    frame = sys._getframe(1)
    for _ in range(_MOST_FRAMES):
        if frame.f_back is None:
            return ""
        frame = frame.f_back
        if _foreign(frame.f_code.co_filename) or frame.f_code.co_name == "<module>":
            continue  # a global variable says nothing of this call
        said = {split for value in frame.f_locals.values() if (split := split_of(value))}
        if len(said) == 1:
            return said.pop()
    return ""


def _foreign(file: str) -> bool:
    return "site-packages" in file or "fitdoctor" in file


def split_of(value: object) -> str:
    """The split that a string names, "" for none.

    Example:
        >>> split_of("Valid"), split_of("resnet")
        ('val', '')
    """
    word = value.lower() if isinstance(value, str) and len(value) <= 10 else ""
    return next((s for s, words in (("train", _TRAIN), ("val", _VAL), ("test", _TEST)) if word in words), "")


@dataclass(slots=True)
class _Sums:
    """Losses and right answers of the batches of one data set in one evaluation, on the device."""

    batches: int = 0
    loss: Tensor | float = 0.0
    examples: Tensor | float = 0.0
    right: Tensor | float = 0.0
    answers: Tensor | float = 0.0

    def plus(self, other: _Sums) -> _Sums:
        """Both together."""
        with torch.no_grad():
            return _Sums(
                self.batches + other.batches,
                self.loss + other.loss,
                self.examples + other.examples,
                self.right + other.right,
                self.answers + other.answers,
            )


Key = tuple[str, int | None]
"""Split that the program names, data set."""


class Validation:
    """Collects the evaluations of one training.

    Args:
        loaders: where batches come from.

    Attributes:
        passes: evaluation passes of the model.
        left_out: batches that were of training data, or of a second held-out data set.
    """

    def __init__(self, loaders: Loaders) -> None:
        self.passes = self.left_out = 0
        self._loaders = loaders
        self._key: Key | None = None  # of the pass under way
        self._pending: tuple[Key, _Sums, bool] | None = None  # its loss so far, and whether it has gradients
        self._sums: dict[Key, _Sums] = {}
        self._doubtful: dict[Key, _Sums] = {}  # with gradients: training in eval mode, unless no backward follows
        self._chosen: Key | None = None

    def begin(self) -> None:
        """The model is about to run for an evaluation, so it seems."""
        self._keep()
        self.passes += not torch.is_grad_enabled()
        self._key = said_split(), self._loaders.of_evaluation()

    def take(self, call: Call, *, exact: bool) -> None:
        """A loss of the pass under way; one for each pass: what comes next may be of a model that nobody follows.

        Args:
            call: what was called.
            exact: whether it is what is trained; another loss counts only until that is seen.
        """
        if self._key is None or (self._pending is not None and not exact):
            return
        with torch.no_grad():
            value, count = mean_and_count(call)
            sums = _Sums(1, value * count, count)
            if isinstance(call.criterion, nn.CrossEntropyLoss | nn.NLLLoss):
                sums.right, sums.answers = _answers(call)
        self._pending = self._key, sums, call.output.requires_grad
        if exact:
            self._key = None

    def _keep(self) -> None:
        """The pass is over: its loss counts."""
        pending, self._pending = self._pending, None
        if pending is not None:
            key, sums, doubtful = pending
            kept = self._doubtful if doubtful else self._sums
            kept[key] = kept.get(key, _Sums()).plus(sums)

    def forget(self) -> None:
        """What was taken with gradients was training after all: `backward` is called on it."""
        self._doubtful.clear()
        if self._pending is not None and self._pending[2]:
            self._pending = None

    def finish(self) -> dict[str, float]:
        """The evaluation is over: its results, under the names that `Monitor.log` takes."""
        self._keep()
        found = {**self._doubtful, **self._sums}
        self.passes += sum(s.batches for s in self._doubtful.values())
        self._sums, self._doubtful, self._key = {}, {}, None
        key = self._choose(found)
        self.left_out += sum(s.batches for k, s in found.items() if k != key)
        if key is None:
            return {}
        sums = found[key]
        if not float(sums.examples):
            return {}
        out = {"val_loss": float(sums.loss) / float(sums.examples)}
        if float(sums.answers):
            out["val_accuracy"] = float(sums.right) / float(sums.answers)
        return out

    def _choose(self, found: Iterable[Key]) -> Key | None:
        """The held-out data among what was evaluated: named so, or the same as before, or the first."""
        held_out = [k for k in found if k[0] != "train" and (k[0] or k[1] not in self._loaders.trained_on)]
        if not held_out:
            return None
        named = next((k for k in held_out if k[0] == "val"), None)
        key = named or (self._chosen if self._chosen in held_out else held_out[0])
        if named is None and self._chosen is not None and key != self._chosen:
            return None  # another data set than the one that is followed, evaluated by itself
        self._chosen = key
        return key


def mean_and_count(call: Call) -> tuple[Tensor, Tensor | int]:
    """The mean loss of a batch, whatever its reduction is, and over how many examples it is taken."""
    target = call.args[1] if len(call.args) > 1 else None
    first = next((a for a in call.args if isinstance(a, Tensor)), None)
    count: Tensor | int = len(first) if first is not None and first.ndim else 1
    ignored = getattr(call.criterion, "ignore_index", None)
    if isinstance(ignored, int) and isinstance(target, Tensor) and not target.is_floating_point():
        count = torch.ne(target, ignored).sum()
    value = call.output.detach().float()
    if getattr(call.criterion, "reduction", "mean") == "sum" and not value.ndim:
        return value / count, count
    return value.mean(), count


def _answers(call: Call) -> tuple[Tensor, Tensor]:
    """Right answers and all answers among (some of) the rows of a batch."""
    scores, target = call.args[0].detach(), call.args[1]
    if scores.ndim < 2 or target.is_floating_point():
        return torch.zeros(()), torch.zeros(())
    scores, target = scores.movedim(1, -1).reshape(-1, scores.shape[1]), target.reshape(-1)
    step = max(1, len(target) // _MOST_ROWS)
    scores, target = scores[::step], target[::step]
    counted = torch.ne(target, getattr(call.criterion, "ignore_index", -100))
    return (torch.eq(scores.argmax(1), target) & counted).sum(), counted.sum()
