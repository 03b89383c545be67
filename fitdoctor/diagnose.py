"""`diagnose(run) -> Report`: the only caller of rules, for logs and for live runs alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import fitdoctor
from fitdoctor import catalogue
from fitdoctor.config import Config
from fitdoctor.errors import ConfigError
from fitdoctor.finding import Evidence
from fitdoctor.layer_maps import layer_maps
from fitdoctor.preflight.probe import Probe
from fitdoctor.prescribe import prescribe
from fitdoctor.report import Outcome, Report
from fitdoctor.rule import CannotJudge, Rule
from fitdoctor.run import Run
from fitdoctor.signals import GRAD_NORM, LOSS, LR, METRICS
from fitdoctor.triage import triage
from fitdoctor.views.schedules import recognise


def diagnose(
    run: Run, *, rules: Sequence[Rule] | None = None, config: Config | None = None, layers: bool = False
) -> Report:
    """Judge a run by the rules.

    Args:
        run: what the run logged.
        rules: the rules to apply; all of the catalogue when left out.
        config: what to select, ignore and override.
        layers: put what was logged per layer into the report, for drawing.

    Returns:
        The report. A rule that raises is reported as crashed; it never stops the others.

    Raises:
        ConfigError: if the config names a rule or an option that does not exist.
    """
    config = config or Config()
    known = tuple(rules) if rules is not None else catalogue.rules()
    chosen, ignored = choose(known, config)
    options = checked_options(known, config.options)
    if config.facts:
        run = run.with_facts(**config.facts)
    with np.errstate(all="ignore"):
        judged = [_apply(rule, run, options.get(rule.name, {})) for rule in chosen]
        outcomes = tuple(_prescribed(judged, chosen, run))
        facts = dict(run.facts)
        rate = run.get(LR) or next(iter(run.layers(LR).values()), None)
        if rate is not None and (schedule := recognise(rate)) is not None:
            facts["schedule"] = str(schedule)
    findings = [f for o in outcomes for f in o.findings]
    return Report(
        run=run.name,
        path=run.path,
        source=run.source,
        steps=run.steps,
        outcomes=outcomes,
        diagnoses=tuple(
            triage(findings, {r.name: r.explains for r in known}, run.steps, {r.name for r in known if r.state})
        ),
        facts=facts,
        notes=run.notes,
        curves=_curves(run),
        unmapped=run.unmapped,
        fitdoctor=fitdoctor.__version__,
        ignored=ignored,
        layers=layer_maps(run) if layers else (),
        params=run.params,
        finished=run.finished,
    )


def while_running(config: Config) -> Config:
    """The same settings without the rules that can only judge a finished run."""
    unripe = {r.name: "it judges finished runs only" for r in catalogue.rules() if not r.live}
    return replace(config, ignore={**unripe, **config.ignore})


def choose(known: Sequence[Rule], config: Config) -> tuple[list[Rule], dict[str, str]]:
    """The rules to run, and the ignored ones with their reasons.

    Raises:
        ConfigError: if a name fits no rule and no family.
    """

    def matching(name: str, *, selecting: bool = False) -> list[Rule]:
        wanted = name.lower()
        found = [r for r in known if wanted in (r.name, r.code.lower(), r.family, r.code[:3].lower())]
        if not found:
            if isinstance(catalogue.find_entry(name), Probe) and not selecting:  # that raises, and names the nearest
                return []  # it concerns `preflight`
            raise ConfigError(f"rule {name!r} is not among the rules of this diagnosis")
        return found

    chosen = {r.name for name in config.select for r in matching(name, selecting=True)} or {r.name for r in known}
    reasons = {r.name: why for name, why in config.ignore.items() for r in matching(name)}
    return [r for r in known if r.name in chosen and r.name not in reasons], reasons


def checked_options(known: Sequence[Rule], options: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, Any]]:
    """Options by rule name, checked against what the rules take.

    Raises:
        ConfigError: if a rule or an option is unknown, or a value has the wrong type.
    """
    by_name = {key: r for r in known for key in (r.name, r.code)}
    checked: dict[str, dict[str, Any]] = {}
    for name, values in options.items():
        rule = by_name.get(name) or catalogue.find_entry(name)
        if isinstance(rule, Probe):
            continue
        for option, value in values.items():
            if option not in rule.options:
                raise ConfigError(
                    f"rule {rule.name} has no option {option!r}; it takes {', '.join(rule.options) or 'none'}"
                )
            default = rule.options[option]
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            fits = (
                number
                if isinstance(default, (int, float)) and not isinstance(default, bool)
                else isinstance(value, type(default))
            )
            if not fits:
                raise ConfigError(
                    f"option {option} of rule {rule.name}: expected {type(default).__name__}, got {value!r}"
                )
        checked[rule.name] = dict(values)
    return checked


def _apply(rule: Rule, run: Run, options: Mapping[str, Any]) -> Outcome:
    def outcome(status: Any, **more: Any) -> Outcome:
        return Outcome(rule.code, rule.name, status, vital=rule.vital, **more)

    if missing := rule.missing(run):
        return outcome("skipped", why=missing)
    try:
        findings = tuple(replace(f, rule=rule.name) for f in rule(run, **options))
    except CannotJudge as reason:
        return outcome("skipped", why=str(reason))
    except Exception as error:
        return outcome("crashed", why=f"{type(error).__name__}: {error}")
    return outcome("found", findings=findings) if findings else outcome("clean")


def _prescribed(outcomes: Sequence[Outcome], rules: Sequence[Rule], run: Run) -> Iterator[Outcome]:
    """The outcomes with the remedies that suit the run, the best first."""
    found = frozenset(o.rule for o in outcomes if o.findings)
    for outcome, rule in zip(outcomes, rules, strict=True):
        findings = tuple(prescribe(f, run, family=rule.family, found=found) for f in outcome.findings)
        yield replace(outcome, findings=findings) if findings else outcome


def _curves(run: Run) -> tuple[Evidence, ...]:
    wanted = [s for s in run.series if not s.signal.layer and s.signal.quantity in (LOSS, *METRICS, LR, GRAD_NORM)]
    if run.get(LR) is None:  # logged per parameter group only: the first stands for all
        wanted += list(run.layers(LR).values())[:1]
    return tuple(Evidence.of(s, "") for s in wanted if len(s))
