"""What a probe is: a small experiment on a training program that has not begun, with an identity and a manual page.

    @probe("PRE004", "parameters-not-trained", cost=Cost(passes=2), explains=["one-batch-not-learned"], since="0.1.0")
    def parameters_not_trained(bench: Bench) -> Iterator[Finding]:
        '''Parameters of the model that the optimizer does not hold, or that a step does not move. ...'''

A probe is to `preflight` what a rule is to `diagnose`: it yields findings, yields nothing when it has looked
and found nothing, or raises `CannotJudge` and says what is missing. It may run and even train the model: whatever
it changes is put back after it. Its docstring is its manual page, its options are its keyword-only parameters.

This module and the modules of the probes are read by `fitdoctor rule`, so torch is imported inside functions only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fitdoctor.errors import RuleError
from fitdoctor.finding import Finding
from fitdoctor.rule import Documented, Status

if TYPE_CHECKING:
    from fitdoctor.preflight.bench import Bench

Experiment = Callable[..., Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a probe costs at most.

    Attributes:
        passes: forward and backward passes of one batch.
        examples: examples read from the data.
    """

    passes: int = 0
    examples: int = 0

    def __str__(self) -> str:
        parts = [f"{self.passes:,} passes of a batch"] if self.passes else []
        parts += [f"{self.examples:,} examples read"] if self.examples else []
        return "at most " + " and ".join(parts) if parts else "nothing"


@dataclass(frozen=True, slots=True)
class Probe(Documented):
    """A probe and everything a user may want to know about it.

    Attributes:
        code: PRE and three digits; never used twice.
        name: kebab-case name of the problem, never of the remedy.
        cost: what it costs at most; a budget is spent by it.
        needs: what must be given beside model, criterion, optimizer and train_loader, by argument name.
        explains: names of probes whose findings this one accounts for.
        since: version that introduced it.
        status: "stable", "preview" or "deprecated".
        worth: 1 to 3: how often and how surely it finds a fault; a budget goes to the highest first.
        vital: True when no setup may be called healthy unless this probe could judge it.
        check: the function itself.
    """

    code: str
    name: str
    cost: Cost
    needs: tuple[str, ...]
    explains: tuple[str, ...]
    since: str
    status: Status
    worth: int
    vital: bool
    check: Experiment

    family = "preflight"
    live = True

    def __call__(self, bench: Bench, **options: object) -> Iterable[Finding]:
        """Run the experiment; `CannotJudge` passes through."""
        yield from self.check(bench, **options)


def probe(
    code: str,
    name: str,
    *,
    cost: Cost,
    needs: Sequence[str] = (),
    explains: Sequence[str] = (),
    since: str,
    status: Status = "stable",
    worth: int = 2,
    vital: bool = False,
) -> Callable[[Experiment], Probe]:
    """Make a `Probe` of a function. Registers nothing; the catalogue finds it by its folder.

    Args:
        code: such as ``"PRE004"``.
        name: such as ``"parameters-not-trained"``.
        cost: what it costs at most.
        needs: arguments of `preflight` that must be given.
        explains: names of probes whose findings this one accounts for.
        since: version that introduced it.
        status: life-cycle state.
        worth: 1 to 3, for the order in which a budget is spent.
        vital: True when a setup may not be called healthy without it.

    Raises:
        RuleError: if code or name is malformed.
    """
    if not re.fullmatch(r"PRE\d{3}", code):
        raise RuleError(f"probe code {code!r}: expected PRE and three digits, such as 'PRE004'")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise RuleError(f"probe {code} name {name!r}: expected kebab-case, such as 'parameters-not-trained'")

    def make(check: Experiment) -> Probe:
        return Probe(code, name, cost, tuple(needs), tuple(explains), since, status, worth, vital, check)

    return make
