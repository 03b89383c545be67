"""What the rules say of a run when one of their options has another value.

Only the rule whose option changes is applied again; triage is done anew with what the other rules found.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from benchmarks.accuracy.ward.arms import package_hash
from benchmarks.accuracy.ward.store import digest
from fitdoctor import catalogue
from fitdoctor.finding import Finding
from fitdoctor.rule import CannotJudge, Rule
from fitdoctor.run import Run, Span
from fitdoctor.triage import triage

MULTIPLES = (0.5, 0.7, 1.4, 2.0)
"""What a default is multiplied by; of a share, its odds, which keeps it in (0, 1)."""

Number = int | float


@dataclass(frozen=True, order=True)
class Setting:
    """Another value of one option.

    Attributes:
        rule, option: whose, and which.
        multiple: of the default.
    """

    rule: str
    option: str
    multiple: float


def other_values(default: Number) -> dict[float, Number]:
    """Multiple -> value of an option with that default; values that are the default again are left out.

    Example:
        >>> {m: round(v, 3) for m, v in other_values(0.9).items()}
        {0.5: 0.818, 0.7: 0.863, 1.4: 0.926, 2.0: 0.947}
        >>> other_values(3)
        {0.5: 2, 1.4: 4, 2.0: 6}
    """

    def times(multiple: float) -> Number:
        if isinstance(default, int):
            return max(1, round(default * multiple))
        if 0 < default < 1:
            odds = multiple * default / (1 - default)
            return odds / (1 + odds)
        return default * multiple

    return {m: value for m in MULTIPLES if (value := times(m)) != default}


def settings(rule: Rule) -> dict[Setting, Number]:
    """Every other value of the numeric options of a rule."""
    return {
        Setting(rule.name, option, multiple): value
        for option, default in rule.options.items()
        if isinstance(default, int | float) and not isinstance(default, bool)
        for multiple, value in other_values(default).items()
    }


@dataclass
class Examined:
    """What triage looks at, of one run.

    Attributes:
        steps: first and last step.
        findings: rule -> what it finds with its defaults, for rules that have what they need.
        changed: setting -> what its rule finds with it, where that is something else.
        crashed: settings with which a rule raised.
    """

    steps: Span | None
    findings: dict[str, tuple[Finding, ...]]
    changed: dict[Setting, tuple[Finding, ...]] = field(default_factory=dict)
    crashed: set[Setting] = field(default_factory=set)

    def told(self, chosen: Iterable[Setting] = ()) -> tuple[str, str]:
        """First root with a warning or an error, and the worst severity of all findings; "" where there is none.

        Args:
            chosen: settings, at most one per rule.
        """
        found = self.findings | {s.rule: self.changed[s] for s in chosen if s in self.changed}
        findings = [f for those in found.values() for f in those]
        serious = {str(f.severity) for f in findings} - {"note"}
        if not serious:
            return "", ""
        explains, states = _relations()
        roots = (d.root for d in triage(findings, explains, self.steps, states))
        return next((r.rule for r in roots if r.severity != "note"), ""), min(serious)  # "error" < "warning"


def examine(folder: Path) -> Examined:
    """Judge a log folder with the defaults, and with every other value of every option, one at a time."""
    import fitdoctor

    run = next(iter(fitdoctor.open_runs(folder)))
    report = fitdoctor.diagnose(run)
    rules = [rule for rule in catalogue.rules() if not rule.missing(run)]
    outcomes = {o.rule: _bare(o.findings) for o in report.outcomes}
    found = Examined(report.steps, {rule.name: outcomes[rule.name] for rule in rules})
    with np.errstate(all="ignore"):
        for rule in rules:
            _vary(rule, run, found)
    return found


def _vary(rule: Rule, run: Run, found: Examined) -> None:
    """Apply a rule with each of its settings, and note what changes."""
    for setting, value in settings(rule).items():
        findings: tuple[Finding, ...] = ()
        try:
            findings = _bare(rule(run, **{setting.option: value}), rule.name)
        except CannotJudge:
            pass  # nothing found then
        except Exception:
            found.crashed.add(setting)  # nothing found either, as in `fitdoctor.diagnose`
        if findings != found.findings[rule.name]:
            found.changed[setting] = findings


def _bare(findings: Iterable[Finding], rule: str = "") -> tuple[Finding, ...]:
    """What triage needs of findings, which can be compared: the numbers in a message may hold the option itself."""
    return tuple(Finding("", f.severity, f.confidence, f.span, rule=rule or f.rule) for f in findings)


@cache
def _relations() -> tuple[Mapping[str, tuple[str, ...]], frozenset[str]]:
    """What explains what, and which rules describe states."""
    rules = catalogue.rules()
    return {r.name: r.explains for r in rules}, frozenset(r.name for r in rules if r.state)


def defaults() -> dict[tuple[str, str], Number]:
    """Rule and option -> default, of all options that `settings` varies."""
    return {(s.rule, s.option): rule.options[s.option] for rule in catalogue.rules() for s in settings(rule)}


def folder_of(root: Path) -> Path:
    """Where examined runs are kept, for as long as the package and this module are the same."""
    return root / "loo" / f"{package_hash()}-{digest([Path(__file__)])}"


def kept(root: Path, key: str, folder: Path) -> Examined:
    """An examined run, from disk where it is there.

    Args:
        root: of the store.
        key: of the run.
        folder: of its log.
    """
    path = folder_of(root) / f"{key}.pickle"
    if path.exists():
        found = pickle.loads(path.read_bytes())
        assert isinstance(found, Examined)
        return found
    found = examine(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(pickle.dumps(found))
    partial.rename(path)
    return found


def crashed(runs: Iterable[Examined]) -> Iterator[Setting]:
    """Settings with which a rule raised in any run, in order: bugs, to be looked at."""
    yield from sorted(set().union(*(run.crashed for run in runs)))
