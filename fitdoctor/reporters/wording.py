"""The sentences that every format for people uses, worded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from fitdoctor.finding import BY_HOOKS, Finding, Remedy
from fitdoctor.report import Diagnosis, Report
from fitdoctor.reporters.harmless import one_line
from fitdoctor.run import Fact, Span

FRAMEWORKS = {"pytorch": "PyTorch", "lightning": "Lightning", "transformers": "Hugging Face"}
"""Keys of `Remedy.code` and how to call them, in the order in which they are shown."""

_SHOWN_FACTS = {
    "optimizer": "{}",
    "batch_size": "batch size {}",
    "gradient_accumulation_steps": "{} accumulation steps",
    "weight_decay": "weight decay {}",
    "clip_norm": "clipped at {}",
    "classes": "{} classes",
}


def plural(count: int, noun: str) -> str:
    """``1 finding``, ``2 findings``, ``1,200 steps``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def step_unit(report: Report) -> str:
    """What a step counts: "step" or "epoch"."""
    return "epoch" if report.facts.get("step_unit") == "epoch" else "step"


def when(report: Report, step: int, *, of_all: bool = False) -> str:
    """A moment of the run: ``step 240 (epoch 2.4)``, or ``epoch 12`` where steps are epochs.

    Args:
        report: the report on the run.
        step: the moment.
        of_all: say how many steps there are in all, too: ``step 240 of 1,499 (epoch 2.4)``.
    """
    unit = step_unit(report)
    per_epoch = report.facts.get("steps_per_epoch")
    text = f"{unit} {step:,}"
    if of_all and report.steps is not None:
        text += f" of {report.steps.last:,}"
    if unit == "step" and isinstance(per_epoch, (int, float)) and per_epoch > 0:
        text += f" (epoch {step / per_epoch:.1f})"
    return text


def since(report: Report, span: Span) -> str:
    """When something was seen: ``since step 240 of 1,499``, ``at step 240 of 1,499``."""
    if report.source == "preflight":
        return "before the first step"
    first = when(report, span.first, of_all=True)
    if span.first == span.last:
        return f"at {first}"
    # A finding that lasts to the end, give or take a twentieth of the run, needs no second number.
    lasts = report.steps is None or span.last >= report.steps.last - 0.05 * (report.steps.last - report.steps.first)
    return f"since {first}" if lasts else f"from {first} to {when(report, span.last)}"


def headline(report: Report) -> tuple[str, str]:
    """The verdict in one sentence, in two parts: what the run is, and the reason."""
    judged = sum(o.status in ("found", "clean") for o in report.outcomes)
    kind = "probe" if report.source == "preflight" else "rule"
    if report.verdict == "sick":
        return "is sick", one_line(report.diagnoses[0].root.message) if report.diagnoses else ""
    if report.verdict == "healthy":
        return "looks healthy", f"{plural(judged, kind)} judged it and found nothing harmful"
    if report.steps is None:
        return "cannot be judged", "it holds no measurements"
    return "cannot be judged", "too little could be tried" if kind == "probe" else "too little was logged"


def standing(report: Report, finding: Finding) -> str:
    """How bad, how sure, since when."""
    return f"{finding.severity} · {finding.confidence} confidence · {since(report, finding.span)}"


def facts_line(report: Report) -> str:
    """What is known of the run beside its curves, in one line."""
    parts = []
    if report.steps is not None and report.source != "preflight":
        unit = step_unit(report)
        parts.append(f"{unit}s {report.steps.first:,} to {report.steps.last:,}")
    if schedule := report.facts.get("schedule"):
        parts.append(f"{schedule}" if "lr" in str(schedule).split() else f"lr {schedule}")
    elif (rate := report.facts.get("learning_rate")) is not None:
        parts.append(f"lr {_short(rate)}")
    shown = {key: report.facts[key] for key in _SHOWN_FACTS if key in report.facts}
    if shown.get("gradient_accumulation_steps") == 1:
        del shown["gradient_accumulation_steps"]
    parts += [_SHOWN_FACTS[key].format(_short(value)) for key, value in shown.items()]
    parts.append(report.source)
    return " · ".join(one_line(p) for p in parts if p)


_HOOKS = "only fitdoctor.attach measures what they need"


def skipped_by_reason(reports: Iterable[Report]) -> list[tuple[str, list[str]]]:
    """Why rules could not judge, the commonest reason first, each with the names of the rules.

    All that only hooks can measure is one reason: who reads a log has not forgotten to log thirty things.
    """
    groups: dict[str, list[str]] = {}
    for report in reports:
        for outcome in report.outcomes:
            if outcome.status == "skipped":
                why = _HOOKS if outcome.why.endswith(BY_HOOKS) else one_line(outcome.why)
                names = groups.setdefault(why, [])
                if outcome.rule not in names:
                    names.append(outcome.rule)
    return sorted(groups.items(), key=lambda item: -len(item[1]))


def ignored_by_reason(report: Report) -> list[tuple[str, list[str]]]:
    """Why rules were switched off, each reason with the names of the rules."""
    groups: dict[str, list[str]] = {}
    for rule, why in report.ignored.items():
        groups.setdefault(one_line(why), []).append(rule)
    return list(groups.items())


def to_log(report: Report) -> list[tuple[str, list[str]]]:
    """What kept the run from a verdict: reasons of the vital rules, each with the rules it kept out."""
    vital = {o.rule for o in report.outcomes if o.vital and o.status == "skipped"}
    return [(why, names) for why, names in skipped_by_reason([report]) if vital & set(names)]


def summary(counts: Counter[str], reasons: Sequence[tuple[str, list[str]]]) -> str:
    """The closing line: ``2 findings, 31 clean, 9 skipped (no grad_norm logged), 0 crashed``."""
    skipped = f"{counts['skipped']:,} skipped"
    if reasons:
        more = f", and {plural(len(reasons) - 1, 'other reason')}" if len(reasons) > 1 else ""
        skipped += f" ({reasons[0][0]}{more})"
    return (
        f"{plural(counts['findings'], 'finding')}, {counts['clean']:,} clean, {skipped}, {counts['crashed']:,} crashed"
    )


def codes_to_show(code: dict[str, str], framework: str, *, everything: bool) -> list[tuple[str, str]]:
    """The code of a remedy as (framework, lines): that of the run's own framework where it is known.

    Args:
        code: framework -> lines.
        framework: what the run was made with, "" when unknown.
        everything: show all frameworks anyway.
    """
    framework = {"huggingface": "transformers", "hf": "transformers", "torch": "pytorch"}.get(framework, framework)
    if framework in code and not everything:
        return [(_framework(framework), code[framework])]
    if framework and not everything:
        code = {"pytorch": code["pytorch"]} if "pytorch" in code else code
    order = [*FRAMEWORKS, *(key for key in code if key not in FRAMEWORKS)]
    shown: list[tuple[str, str]] = []
    for key in order:
        if key in code and all(code[key] != lines for _, lines in shown):
            shown.append((_framework(key), code[key]))
    return shown


def onset(report: Report, finding: Finding) -> str:
    """``, step 240`` for a finding that began after the first step, "" for one that holds from the start."""
    begins = report.steps is None or finding.onset > report.steps.first
    return f", {when(report, finding.onset)}" if begins else ""


def title(remedy: Remedy) -> str:
    """The title of a remedy as the beginning of a sentence; names of code keep their case."""
    text = one_line(remedy.title)
    first = text.partition(" ")[0]
    return text if any(c in first for c in "_.(`=") else text[:1].upper() + text[1:]


def severity_first(diagnoses: Sequence[Diagnosis]) -> tuple[list[Diagnosis], list[Diagnosis]]:
    """The diagnoses that make a run sick, and the mere notes."""
    harmful = [d for d in diagnoses if d.root.severity.rank > 0]
    return harmful, [d for d in diagnoses if d.root.severity.rank == 0]


def _framework(key: str) -> str:
    return FRAMEWORKS.get(key, one_line(key))


def _short(value: Fact) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
