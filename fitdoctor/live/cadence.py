"""How often the monitor measures: as often as its share of the wall time allows.

Steps are of four levels. At an idle step the monitor only counts. At a *tick* it notes what costs
almost nothing (loss, learning rate, times). At a *gradient* step it takes the norms of the gradients too,
and at a *record* everything: weights, updates and activations. Probes and diagnoses go by the clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

_LADDER = tuple(m * 10**e for e in range(7) for m in (1, 2, 5))
_ALWAYS = 3  # the first steps are recorded whatever it costs: only they show the initialisation
_PARTS = {"tick": 0.25, "gradient": 0.15, "record": 0.25, "flush": 0.1, "probe": 0.1, "judge": 0.1}
"""Shares of the budget; 0.05 is left for slips."""


class Level(IntEnum):
    """How much is measured around one step."""

    IDLE = 0
    TICK = 1
    GRADIENT = 2
    RECORD = 3

    @property
    def kind(self) -> str:
        """Under which name it is paid for."""
        return ("idle", "tick", "gradient", "record")[self]


@dataclass(slots=True)
class Cost:
    """What the monitor spent.

    Attributes:
        seconds: by kind of work ("tick", "gradient", "record", "flush", "probe", "judge").
        calls: how often each was done.
        wall: seconds since the monitor was attached, not counting the first steps.
        early: seconds spent on attaching and in the first steps, which no budget limits.
        early_wall: seconds that attaching and the first steps took in all.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_PARTS, 0.0))
    calls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_PARTS, 0))
    wall: float = 0.0
    early: float = 0.0
    early_wall: float = 0.0

    @property
    def total(self) -> float:
        """Seconds spent, the first steps left out."""
        return sum(self.seconds.values())

    @property
    def share(self) -> float:
        """Share of the wall time, the first steps left out; nan before anything was timed."""
        return self.total / self.wall if self.wall > 0 else float("nan")

    @property
    def share_of_all(self) -> float:
        """Share of the wall time since attaching, first steps included; nan before anything was timed."""
        wall = self.wall + self.early_wall
        return (self.total + self.early) / wall if wall > 0 else float("nan")

    def __str__(self) -> str:
        parts = ", ".join(f"{kind} {self.calls[kind]}x {s:.3f} s" for kind, s in self.seconds.items() if s)
        first = f"with the first {_ALWAYS} steps {self.share_of_all:.2%} of {self.wall + self.early_wall:.1f} s"
        return f"{self.share:.2%} of {self.wall:.1f} s ({parts or 'nothing'}); {first}"


@dataclass(slots=True)
class Cadence:
    """Decides which steps are ticks and records.

    Attributes:
        budget: share of the wall time that may be spent.
        record_every: fixed distance of records, or None to adapt it.
        ticks: steps between ticks.
        gradients: steps between gradient steps.
        records: steps between records.
        cost: what was spent.
    """

    budget: float
    record_every: int | None = None
    most: int = 1_000_000
    ticks: int = 1
    gradients: int = 2
    records: int = 5
    cost: Cost = field(default_factory=Cost)
    _steps: int = 0
    _step_time: float = 0.0
    _mean: dict[str, float] = field(default_factory=dict)
    _rough: set[str] = field(default_factory=set)  # kinds whose mean is of first calls, which set things up
    _alert: int = 0

    def spent(self, kind: str, seconds: float, *, calls: int = 1) -> None:
        """Note what a piece of work cost; for that of a step, after `stepped`."""
        early = self._steps <= _ALWAYS
        if early:
            self.cost.early += seconds
        else:
            self.cost.seconds[kind] += seconds
            self.cost.calls[kind] += calls
        if calls:
            old = None if kind in self._rough else self._mean.get(kind)
            # One call that the operating system interrupted says little about the next: it counts little where it
            # comes, and is forgotten soon where it came first. What was truly spent is held against the budget anyway.
            weight = 0.1 if old is not None and seconds > old else 0.5
            self._mean[kind] = seconds if old is None else old + weight * (min(seconds, 4 * old) - old)
            (self._rough.add if early else self._rough.discard)(kind)

    def stepped(self, seconds: float, wall: float) -> None:
        """Note a step of training.

        Args:
            seconds: from the end of the step before, our work at it included, to the optimizer's step.
            wall: since the same moment of the step before.
        """
        self._steps += 1
        self._alert -= self._alert > 0
        if self._steps <= _ALWAYS:
            self.cost.early_wall += wall
        else:
            self.cost.wall += wall
            # A mean that forgets slowly and takes no single pause (a validation pass) at its face value.
            seconds = min(seconds, 10 * self._step_time) if self._step_time else seconds
            self._step_time += (seconds - self._step_time) / min(self._steps - _ALWAYS, 50)

    @property
    def step_time(self) -> float:
        """Usual seconds per step; 0 before it is known."""
        return self._step_time

    def alert(self, steps: int = 20) -> None:
        """Record every one of the next steps: something is happening. Paid for afterwards."""
        if self._alert == 0 and self.cost.share < 2 * self.budget:
            self._alert = steps

    def adapt(self) -> None:
        """Choose the distances anew from what things cost."""
        if self.record_every:
            self.ticks, self.records = 1, self.record_every
            return
        self.ticks = self._distance(Level.TICK, self.ticks)
        self.gradients = max(self._distance(Level.GRADIENT, self.gradients), self.ticks)
        self.records = max(self._distance(Level.RECORD, self.records), self.gradients)

    def _distance(self, level: Level, now: int) -> int:
        kind = level.kind
        mean = self._mean.get(kind, self._guess(level))
        if mean is None or self._step_time <= 0:
            return now
        # What was overspent so far is saved later.
        allowed = _PARTS[kind] * self.budget
        spent = self.cost.seconds[kind] / self.cost.wall if self.cost.wall else 0.0
        allowed *= min(1.0, max(0.5, allowed / spent)) if spent > 0 else 1.0
        need = mean / (self._step_time * allowed)
        if now * 0.4 < need <= now:  # do not flicker between two rungs
            return now
        return min(next((rung for rung in _LADDER if rung >= need), self.most), self.most)

    def level(self, step: int) -> Level:
        """How much is measured around this step, counted from 1."""
        if self._steps < _ALWAYS or self._alert > 0:
            return Level.RECORD
        if self.record_every:
            return Level.TICK if step % self.record_every else Level.RECORD
        for level, distance in (
            (Level.RECORD, self.records),
            (Level.GRADIENT, self.gradients),
            (Level.TICK, self.ticks),
        ):
            if step % distance == 0 and self.may(level.kind, self._guess(level)):
                return level
        return Level.IDLE

    def _guess(self, level: Level) -> float | None:
        """What a level costs that was never tried: a part of a record, by what it does (none is far off)."""
        record = self._mean.get("record")
        return None if record is None else record / (20, 20, 5, 1)[level]

    def may(self, kind: str, expected: float | None = None) -> bool:
        """Whether a piece of work can be paid for: its part of the budget has saved up what it usually costs.

        Args:
            kind: of the work.
            expected: seconds that it may cost where it was never done; None for work that is tried at once.
        """
        mean = self._mean.get(kind, expected)
        if mean is None:
            return True
        return self.cost.seconds[kind] + mean <= _PARTS[kind] * self.budget * self.cost.wall
