"""What a rule is: a pure function from a `Run` to findings, with an identity and a manual page.

    @rule("LOS001", "loss-divergence", needs=[LOSS], explains=["nonfinite-loss"], since="0.1.0")
    def loss_divergence(run: Run, *, rise: float = 0.2) -> Iterator[Finding]:
        '''The training loss ends far above its best value.

        Why it matters: ...
        How it is measured: ...
        Options: ...
        When it is wrong: ...
        What to do: ...
        References: ...
        '''

The options are the keyword-only parameters. The docstring is the manual page: `fitdoctor rule` and
docs/rules.md are made from it. A rule that cannot judge a run raises `CannotJudge` and says what is
missing; silence means that it looked and found nothing.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fitdoctor.errors import RuleError
from fitdoctor.finding import BY_HOOKS, Finding
from fitdoctor.run import Run
from fitdoctor.signals import OFTEN_LOGGED, Quantity, Signal

Check = Callable[..., Iterable[Finding]]
Need = Signal | tuple[Signal, ...]
Status = Literal["stable", "preview", "deprecated"]

SECTIONS = (
    "Why it matters",
    "How it is measured",
    "Options",
    "When it is wrong",
    "What to do",
    "References",
)


class CannotJudge(Exception):
    """Raised inside a rule when the run does not hold enough to judge it.

    The message completes the sentence "not judged: ..." and says what to log:
    ``"5 evaluations of val loss, 8 are needed"``.
    """


class Documented:
    """What a rule or a probe tells of itself: its function's options and docstring."""

    __slots__ = ()
    check: Callable[..., Iterable[Finding]]

    @property
    def options(self) -> dict[str, Any]:
        """Option names and their defaults."""
        parameters = inspect.signature(self.check).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}

    @property
    def manual(self) -> str:
        """The whole manual page."""
        return inspect.getdoc(self.check) or ""

    @property
    def summary(self) -> str:
        """First line of the manual page."""
        return self.manual.partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Rule(Documented):
    """A rule and everything a user may want to know about it.

    Attributes:
        code: three capitals for the family and three digits; never used twice.
        name: kebab-case name of the problem, never of the remedy.
        needs: signals that must be present; a tuple inside means that one of them suffices.
        explains: names of rules whose findings this one accounts for.
        since: version that introduced it.
        status: "stable", "preview" or "deprecated".
        live: False for a rule that needs the end of the run.
        vital: True when no run may be called healthy unless this rule could judge it.
        state: True when it describes how the whole run stands rather than an event with an onset; any cause
            in the run may explain a state, whenever it began.
        check: the function itself.
        family: name of the folder it lives in.
    """

    code: str
    name: str
    needs: tuple[Need, ...]
    explains: tuple[str, ...]
    since: str
    status: Status
    live: bool
    vital: bool
    state: bool
    check: Check
    family: str

    def __call__(self, run: Run, **options: object) -> Iterator[Finding]:
        """Run the check; `CannotJudge` passes through."""
        yield from self.check(run, **options)

    def missing(self, run: Run) -> str:
        """What the run lacks, as the reason of a skipped rule; "" when nothing is missing."""
        for need in self.needs:
            choices = need if isinstance(need, tuple) else (need,)
            if not any(_present(run, signal) for signal in choices):
                by_hooks = not any(signal.quantity in OFTEN_LOGGED for signal in choices) and "monitor" not in run.facts
                return f"no {wanted(need)} logged" + BY_HOOKS * by_hooks
        return ""


def wanted(need: Need) -> str:
    """A need in words: ``grad_norm``, ``val loss or test loss``, ``grad_norm by layer``.

    Example:
        >>> from fitdoctor.signals import GRAD_NORM
        >>> wanted(Signal(GRAD_NORM, layer="*")), wanted((Signal(GRAD_NORM), Signal(GRAD_NORM, layer="*")))
        ('grad_norm by layer', 'grad_norm')
    """
    choices = need if isinstance(need, tuple) else (need,)
    words: dict[str, None] = {}
    for signal in choices:
        whole = Signal(signal.quantity, signal.split)
        if signal.layer != "*":
            words[str(signal)] = None
        elif whole not in choices:
            words[f"{whole} by layer"] = None
    return " or ".join(words)


def _present(run: Run, signal: Signal) -> bool:
    if signal.layer == "*":
        return bool(run.layers(signal.quantity, signal.split))
    return run.get(signal.quantity, signal.split, signal.layer) is not None


def rule(
    code: str,
    name: str,
    *,
    needs: Sequence[Quantity | Signal | tuple[Quantity | Signal, ...]],
    explains: Sequence[str] = (),
    since: str,
    status: Status = "stable",
    live: bool = True,
    vital: bool = False,
    state: bool = False,
) -> Callable[[Check], Rule]:
    """Make a `Rule` of a function. Registers nothing; the catalogue finds it by its folder.

    Args:
        code: such as ``"LRN001"``.
        name: such as ``"lr-too-high"``.
        needs: a bare `Quantity` means the whole-model signal of the training split; a `Signal` with
            layer ``"*"`` means any layer; a tuple means one of its members.
        explains: names of rules whose findings this one accounts for.
        since: version that introduced it.
        status: life-cycle state.
        live: False when it needs the end of the run.
        vital: True when a run may not be called healthy without it.
        state: True when it describes the state of the whole run, which has no onset.

    Raises:
        RuleError: if code or name is malformed.
    """
    if not re.fullmatch(r"[A-Z]{3}\d{3}", code):
        raise RuleError(f"rule code {code!r}: expected three capitals and three digits, such as 'LRN001'")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise RuleError(f"rule {code} name {name!r}: expected kebab-case, such as 'lr-too-high'")

    def signal(item: Quantity | Signal) -> Signal:
        return item if isinstance(item, Signal) else Signal(item)

    wanted: tuple[Need, ...] = tuple(
        tuple(signal(i) for i in item) if isinstance(item, tuple) else signal(item) for item in needs
    )

    def make(check: Check) -> Rule:
        family = check.__module__.split(".")[-2] if check.__module__.count(".") >= 2 else "other"
        return Rule(code, name, wanted, tuple(explains), since, status, live, vital, state, check, family)

    return make


def sections(manual: str) -> Mapping[str, str]:
    """The sections of a manual page: title -> text, the unnamed first part under ""."""
    parts: dict[str, list[str]] = {"": []}
    current = ""
    for line in manual.splitlines():
        title, colon, rest = line.partition(":")
        if colon and title in SECTIONS:
            current = title
            parts[current] = [rest.strip()] if rest.strip() else []
        else:
            parts[current].append(line)
    return {title: inspect.cleandoc("\n".join(lines)) for title, lines in parts.items()}
