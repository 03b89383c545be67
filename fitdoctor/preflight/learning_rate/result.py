"""What `find_lr` returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fitdoctor.errors import ConfigError
from fitdoctor.preflight.learning_rate.reading import Ramp
from fitdoctor.preflight.learning_rate.schedule import Schedule, propose
from fitdoctor.preflight.learning_rate.trials import Trial


@dataclass(frozen=True, slots=True)
class LearningRates:
    """The rates at which a program trains well.

    Attributes:
        suggestion: the peak rate to train with, of the first parameter group.
        low: rate from which it learns at a fair pace.
        high: highest rate worth trying.
        edge: rate at which the loss breaks away in the ramp; None when it never did.
        spread: decades between the lowest and the highest edge of the ramps.
        ramps: the curves behind it.
        optimizer: class of the optimizer.
        current: the rate that the optimizer has now.
        ratios: rate of each parameter group relative to the first.
        batch_size: examples per step, 0 when unknown.
        trials: short trainings at rates around it, by rate; empty where none were made.
    """

    suggestion: float
    low: float
    high: float
    edge: float | None
    spread: float
    ramps: tuple[Ramp, ...]
    optimizer: str
    current: float
    ratios: tuple[float, ...]
    batch_size: int
    trials: tuple[Trial, ...] = ()

    def __float__(self) -> float:
        return self.suggestion

    def __str__(self) -> str:
        edge = "none reached" if self.edge is None else f"{self.edge:.2g}"
        n = len(self.ramps)
        text = (
            f"learning rate {self.suggestion:.2g} for {self.optimizer} "
            f"(worth trying: {self.low:.2g} to {self.high:.2g}; "
            f"stable edge {edge}; {n} ramp{'s' if n > 1 else ''}, which agree within a factor of {10**self.spread:.2g}"
            f"{f', and trials at {len(self.trials)} rates' if self.trials else ''})"
        )
        if len(self.ratios) > 1:
            text += "; by parameter group: " + ", ".join(f"{self.suggestion * r:.2g}" for r in self.ratios)
        return text

    def for_batch_size(self, batch_size: int) -> tuple[float, float]:
        """The rate for another number of examples per step, as an interval between two rules.

        Linear scaling holds for SGD below the critical batch size (Goyal et al. 2017), the square root is its
        counterpart for Adam (between 0.5 and 1 was found, McCandlish et al. 2018). Neither may pass the stable edge
        of a larger batch, which this ramp did not see: run it again with that batch to be sure.

        Args:
            batch_size: examples per step, accumulation included.

        Raises:
            ConfigError: if the present batch size is unknown, or the new one is none.
        """
        if not self.batch_size or batch_size < 1:
            raise ConfigError(f"expected batch sizes of 1 or more, got {self.batch_size} before and {batch_size} after")
        factor = batch_size / self.batch_size
        root, linear = sorted((self.suggestion * factor**0.5, self.suggestion * factor))
        return root, linear

    def for_fine_tuning(self) -> tuple[float, float]:
        """A range of rates for weights that are pretrained: a tenth to a third of the suggestion.

        What a ramp sees is how fast the loss falls, not what is forgotten on the way; fine-tuning is best far
        below the edge, with a warm-up (Mosbach et al. 2020, 2006.04884; Howard and Ruder 2018, 1801.06146).
        """
        return self.suggestion / 10, self.suggestion / 3

    def schedule(self, total_steps: int, *, kind: str = "cosine") -> Schedule:
        """A schedule for so many optimizer steps: warm-up, peak and decay, with its code.

        Args:
            total_steps: optimizer steps of the whole training.
            kind: "cosine" or "linear", the decay to zero.
        """
        return propose(self.suggestion, total_steps, self.optimizer, kind)

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the ramps with the interval; needs matplotlib (``pip install fitdoctor[plot]``).

        Args:
            path: where to save the picture; it is only returned when None.

        Returns:
            The matplotlib figure.
        """
        from fitdoctor.preflight.learning_rate.plot import draw

        return draw(self, path)
