"""Report -> sheet: what a page shows of one run, worded, harmless and without repetition.

The HTML report and the TensorBoard tab draw the same sheets with the same script. All text passes
`fitdoctor.reporters.harmless` here and is only ever put into text nodes there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any
from zlib import crc32

from fitdoctor.finding import Evidence, Finding, Remedy
from fitdoctor.layer_maps import LayerMap
from fitdoctor.report import Diagnosis, Report
from fitdoctor.reporters import wording
from fitdoctor.reporters.chart import is_log
from fitdoctor.reporters.harmless import one_line, several_lines

LONGEST_NAME = 160
"""Characters of a run's name that are shown; a longer one is cut in the middle."""

SPARK = 32
"""Points of the small curve in the list of runs."""

Points = Sequence[tuple[int, float]]
Json = dict[str, Any]


def handle(name: str) -> str:
    """The name of a run as it is shown and as it stands in links; different for different runs.

    Example:
        >>> handle("lr 0.1/<b>"), handle("a\\n\\x1b[31mb")
        ('lr 0.1/<b>', 'a b #4f19e1f6')
    """
    shown = one_line(name, LONGEST_NAME)
    return shown if shown == name and shown else f"{shown} #{crc32(name.encode('utf-8', 'replace')):08x}".strip()


def row(report: Report) -> Json:
    """What the list of runs and their comparison say of a run."""
    root = report.diagnoses[0].root if report.diagnoses and report.verdict == "sick" else None
    train, val = _curve(report, "loss", "train"), _curve(report, "loss", "val")
    accuracy = _curve(report, "accuracy", "val") or _curve(report, "accuracy", "train")
    norms, rates = _curve(report, "grad_norm", "train"), _curve(report, "lr", "train")
    return {
        "run": handle(report.run),
        "verdict": report.verdict,
        "root": root.rule if root else "",
        "severity": str(root.severity) if root else "",
        "confidence": str(root.confidence) if root else "",
        "reason": wording.headline(report)[1],
        "onset": root.onset if root else None,
        "onset_words": wording.when(report, root.onset) if root else "",
        "remedy": wording.title(root.remedies[0]) if root and root.remedies else "",
        "findings": report.counts["findings"],
        "steps": report.steps.last if report.steps else None,
        "unit": wording.step_unit(report),
        "source": one_line(report.source),
        "train_loss": _json(train[-1][1]) if train else None,
        "val_loss": _json(_best(val, min)),
        "accuracy": _json(_best(accuracy, max)),
        "lr": _json(_best(rates, max)),
        "grad_norm": _json(_middle(norms)),
        "optimizer": _fact(report, "optimizer"),
        "batch_size": _fact(report, "batch_size"),
        "schedule": _fact(report, "schedule"),
        "spark": [_json(v) for v in _few([v for _, v in train or val])],
    }


def sheet(report: Report) -> Json:
    """Everything that a page shows of one run."""
    verdict, reason = wording.headline(report)
    harmful, notes = wording.severity_first(report.diagnoses)
    return {
        "row": row(report),
        "headline": [verdict, reason],
        "facts": wording.facts_line(report),
        "per_epoch": _per_epoch(report),
        "diagnoses": [_diagnosis(report, d) for d in harmful],
        "notes": [_finding(report, d.root) for d in notes],
        "panels": _panels(report, harmful[0].root if harmful else None),
        "layers": [_layers(m) for m in _telling_first(report.layers, harmful)],
        "missing": _groups(wording.to_log(report)),
        "skipped": _groups(wording.skipped_by_reason([report])),
        "ignored": _groups(wording.ignored_by_reason(report)),
        "crashed": [[o.rule, o.code, one_line(o.why)] for o in report.outcomes if o.status == "crashed"],
        "clean": [o.rule for o in report.outcomes if o.status == "clean"],
        "log": [one_line(n.text) for n in report.notes],
        "unmapped": [one_line(t) for t in report.unmapped],
        "path": one_line(report.path),
        "summary": wording.summary(Counter(report.counts), wording.skipped_by_reason([report])),
        "fitdoctor": one_line(report.fitdoctor),
    }


def _diagnosis(report: Report, diagnosis: Diagnosis) -> Json:
    return {
        **_finding(report, diagnosis.root),
        "could_be": [one_line(c) for c in diagnosis.could_be],
        "settle_with": one_line(diagnosis.settle_with),
        "ruled_out": [one_line(r) for r in diagnosis.root.ruled_out],
        "explains": [_finding(report, f) for f in diagnosis.explains],
    }


def _finding(report: Report, finding: Finding) -> Json:
    code = next((o.code for o in report.outcomes if o.rule == finding.rule), "")
    return {
        "rule": finding.rule,
        "code": code,
        "message": one_line(finding.message),
        "severity": str(finding.severity),
        "confidence": str(finding.confidence),
        "since": wording.since(report, finding.span),
        "evidence": [_evidence(e) for e in finding.evidence],
        "remedies": [_remedy(report, r) for r in finding.remedies],
    }


def _evidence(evidence: Evidence) -> Json:
    return {
        "label": one_line(str(evidence.signal)),
        "observed": one_line(evidence.observed),
        "expected": one_line(evidence.expected),
        "curves": [_line(evidence)] if evidence.points else [],
        "marks": _marks([evidence]),
        "log": is_log(evidence.points),
    }


def _remedy(report: Report, remedy: Remedy) -> Json:
    framework = str(report.facts.get("framework", "")).lower()
    return {
        "title": wording.title(remedy),
        "why": one_line(remedy.why),
        "unless": one_line(remedy.unless),
        "confirm": one_line(remedy.confirm),
        "codes": [
            [name, several_lines(text)]
            for name, text in wording.codes_to_show(dict(remedy.code), framework, everything=False)
        ],
    }


def _panels(report: Report, root: Finding | None) -> list[Json]:
    """The main curves, a panel per quantity under one axis of steps, with what the root cause marks in them."""
    order = ("loss", "accuracy", "top5_accuracy", "score", "error", "perplexity", "lr", "grad_norm")
    curves = sorted(
        (c for c in report.curves if c.points), key=lambda c: (*_place(c, order), _SPLITS.get(c.signal.split, 3))
    )
    marked = [*root.evidence, *_best_points(report)] if root else _best_points(report)
    marks = _marks(marked, _onset(report, root) if root else ())
    panels = []
    for quantity, group in groupby(curves, key=lambda c: c.signal.quantity):
        members = list(group)
        points = [p for c in members for p in c.points]
        panels.append(
            {
                "title": _TITLES.get(quantity.name, quantity.name.replace("_", " ")),
                "curves": _told_apart([_line(c) for c in members]),
                "marks": marks,
                "log": is_log(points) or (quantity.name == "grad_norm" and all(v > 0 for _, v in _finite(points))),
            }
        )
    return panels


_TITLES = {"lr": "learning rate", "grad_norm": "gradient norm", "top5_accuracy": "top-5 accuracy"}


_SPLITS = {"train": 0, "val": 1, "test": 2}
"""Order of the curves of a panel, as of their labels."""


def _place(curve: Evidence, order: Sequence[str]) -> tuple[int, str, int]:
    name = curve.signal.quantity.name
    return (order.index(name) if name in order else len(order), name, _SPLITS.get(curve.signal.split, len(_SPLITS)))


def _best_points(report: Report) -> list[Evidence]:
    """The best epoch, where a rule has named it."""
    return [e for f in report.findings if f.rule == "best-epoch" for e in f.evidence]


def _line(evidence: Evidence) -> Json:
    return {
        "label": one_line(str(evidence.signal)),
        "split": evidence.signal.split,
        "x": [step for step, _ in evidence.points],
        "y": [_json(value) for _, value in evidence.points],
    }


def _told_apart(lines: list[Json]) -> list[Json]:
    """Curves of one signal that was logged at two cadences, under labels that differ."""
    for line in lines:
        if any(len(other["x"]) > len(line["x"]) and other["label"] == line["label"] for other in lines):
            line["sparser"] = True
    return [
        {**line, "label": f"{line['label']}, logged less often"} if line.pop("sparser", False) else line
        for line in lines
    ]


def _marks(evidence: Sequence[Evidence], more: Iterable[tuple[int, str]] = ()) -> list[list[Any]]:
    """Steps and their labels; what is marked at one step has one label."""
    at: dict[int, list[str]] = {}
    marks = [*more, *(mark for e in evidence for mark in e.marks)]
    for step, label in sorted({(step, one_line(label, 40)) for step, label in marks}):
        at.setdefault(step, []).append(label)
    # "spent" beside "rate spent" says nothing more.
    return [[s, " · ".join(a for a in told if not any(a != b and a in b for b in told))] for s, told in at.items()]


def _onset(report: Report, root: Finding) -> list[tuple[int, str]]:
    """The onset of the root cause, where the rule marks nothing there and it is not the first step."""
    marked = any(step == root.onset for e in root.evidence for step, _ in e.marks)
    return [] if marked or report.steps is None or root.onset <= report.steps.first else [(root.onset, "onset")]


def _layers(m: LayerMap) -> Json:
    finite = [v for line in m.values for v in line if v is not None and math.isfinite(v)]
    return {
        "quantity": m.quantity.name,
        "title": m.quantity.name.replace("_", " "),
        "unit": m.quantity.unit,
        "doc": m.quantity.doc,
        "layers": [one_line(layer, LONGEST_NAME) for layer in m.layers],
        "spans": [[s.first, s.last] for s in m.spans],
        "values": [[_json(v) for v in line] for line in m.values],
        "log": bool(finite) and is_log([(0, abs(v)) for v in finite if v]) and min(finite) >= 0,
    }


def _telling_first(maps: Sequence[LayerMap], harmful: Sequence[Diagnosis]) -> list[LayerMap]:
    """The maps of what the root causes rest on, then the others."""
    named = [e.signal.quantity for d in harmful for e in d.root.evidence if e.signal.layer]
    return sorted(maps, key=lambda m: named.index(m.quantity) if m.quantity in named else len(named))


def _groups(groups: Sequence[tuple[str, list[str]]]) -> list[list[Any]]:
    return [[why, names] for why, names in groups]


def _curve(report: Report, quantity: str, split: str) -> Points:
    found = [c for c in report.curves if c.signal.quantity.name == quantity and c.signal.split == split and c.points]
    return max(found, key=lambda c: len(c.points)).points if found else ()


def _finite(points: Points) -> list[tuple[int, float]]:
    return [p for p in points if math.isfinite(p[1])]


def _best(points: Points, better: Callable[..., float | None]) -> float | None:
    return better((v for _, v in _finite(points)), default=None)


def _middle(points: Points) -> float | None:
    values = sorted(v for _, v in _finite(points))
    return values[len(values) // 2] if values else None


def _few(values: Sequence[float]) -> list[float]:
    """At most `SPARK` of the values, of each stretch the one farthest from the stretch's first; nan wins."""
    if len(values) <= SPARK:
        return list(values)
    out = []
    for i in range(SPARK):
        part = values[i * len(values) // SPARK : (i + 1) * len(values) // SPARK]
        bad = [v for v in part if not math.isfinite(v)]
        out.append(bad[0] if bad else max(part, key=lambda v: abs(v - part[0])))
    return out


def _fact(report: Report, key: str) -> Any:
    value = report.facts.get(key)
    return one_line(value) if isinstance(value, str) else _json(value)


def _per_epoch(report: Report) -> float | None:
    value = report.facts.get("steps_per_epoch")
    known = isinstance(value, (int, float)) and value > 0 and math.isfinite(value)
    return value if known and wording.step_unit(report) == "step" else None  # type: ignore[return-value]


def _json(value: Any) -> Any:
    """A number with as many digits as a picture shows; what is not finite as text."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return float(f"{value:.5g}")
