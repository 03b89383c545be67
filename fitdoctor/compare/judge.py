"""`compare(before, after) -> Comparison`: the call, the sentence, and what speaks against reading more into it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fitdoctor.compare.clocks import choose_clock
from fitdoctor.compare.comparison import Call, Clock, Comparison, CurveChange, FactChange, FindingChange
from fitdoctor.compare.measures import MATTERS, compare_curve
from fitdoctor.compare.settings import changed_settings
from fitdoctor.compare.symptoms import changed_findings
from fitdoctor.compare.trials import Trace, find_trials
from fitdoctor.config import Config
from fitdoctor.diagnose import diagnose
from fitdoctor.errors import ConfigError
from fitdoctor.run import Run
from fitdoctor.signals import LOSS, METRICS, PERPLEXITY, PROBE_ACCURACY, PROBE_LOSS, QUANTITIES, SPLITS, Signal

SCALE_OF_LOSS = ("loss_function", "label_smoothing", "final_softmax")
"""Facts that change what a loss of 1 means; so does a softmax too many."""

UNITS: dict[Clock, str] = {"step": "step", "epoch": "epoch", "time": "second"}
"""What a clock counts."""

PREFERRED = tuple(
    Signal(quantity, split)
    for split in ("val", "test", "train")
    for quantity in (PROBE_LOSS, LOSS, *METRICS, PROBE_ACCURACY)
)
"""What decides, the first that all runs logged: held out before training data, the loss before what is counted."""


def compare(
    before: Run | Sequence[Run],
    after: Run | Sequence[Run],
    *,
    clock: Clock | None = None,
    metric: Signal | None = None,
    paired: bool = False,
    config: Config | None = None,
) -> Comparison:
    """Say what changed between two runs, or between two groups of runs, and whether it helped.

    Args:
        before: the run, or the runs that differ by their seed only, before a change.
        after: likewise after it.
        clock: align by "step", "epoch" or "time"; chosen from what the steps mean when left out.
        metric: the curve that decides; the held-out loss when left out, or the first other that means the same on
            both sides.
        paired: run i of both sides has the same seed and data order.
        config: how the runs are diagnosed.

    Raises:
        ConfigError: if a side is empty, or pairs are asked for and the sides differ in number.
    """
    a, b = ((side,) if isinstance(side, Run) else tuple(side) for side in (before, after))
    if not a or not b:
        raise ConfigError(f"a comparison needs a run on each side, got {len(a)} before and {len(b)} after")
    if paired and len(a) != len(b):
        raise ConfigError(f"pairs need as many runs before as after, got {len(a)} and {len(b)}")
    config = config or Config()
    if config.facts:
        a, b = (tuple(run.with_facts(**config.facts) for run in side) for side in (a, b))
    reports = [[diagnose(run, config=config) for run in side] for side in (a, b)]
    facts = changed_settings(a, b)
    findings = changed_findings(*reports)
    by = clock or choose_clock((*a, *b))
    comparable = loss_means_the_same(facts, findings)
    curves = _curves(a, b, by, paired=paired)
    decided = _deciding(curves, metric, comparable=comparable)
    ordered = tuple(sorted(curves, key=lambda c: c is not decided))
    loss = next((c for c in curves if c.signal == Signal(LOSS)), None)
    trace = Trace(a, b, loss, decided, findings)
    call: Call = "cannot tell" if decided is None else decided.call
    return Comparison(
        before=tuple(run.name for run in a),
        after=tuple(run.name for run in b),
        paired=paired,
        facts=facts,
        curves=ordered,
        decided_by=None if decided is None else decided.signal,
        findings=findings,
        trials=find_trials(reports[0], facts, trace),
        call=call,
        headline=_headline(decided),
        cautions=tuple(_cautions(a, b, decided, facts, comparable=comparable)),
    )


def find_signal(text: str) -> Signal:
    """The signal that ``val:accuracy``, ``accuracy:val`` or ``grad_norm`` names.

    Raises:
        ConfigError: if there is no such quantity or split.
    """
    parts = text.replace("/", ":").split(":")
    split = next((p for p in parts if p in SPLITS), "train")
    rest = [p for p in parts if p not in SPLITS]
    if len(rest) != 1 or rest[0] not in QUANTITIES or len(parts) > 2:
        raise ConfigError(
            f"metric {text!r}: expected QUANTITY[:SPLIT], such as accuracy:val; `fitdoctor signals` lists them"
        )
    return Signal(QUANTITIES[rest[0]], split)


def loss_means_the_same(facts: Sequence[FactChange], findings: Sequence[FindingChange]) -> bool:
    """Whether a loss of 1 means the same on both sides."""
    if any(f.key in SCALE_OF_LOSS for f in facts if f.before and f.after):
        return False
    if any(f.key == "label_smoothing" and (f.before or f.after) not in ((), (0,)) for f in facts):
        return False
    return all(f.state == "still there" for f in findings if f.rule == "double-softmax")


def _curves(before: Sequence[Run], after: Sequence[Run], clock: Clock, *, paired: bool) -> list[CurveChange]:
    wanted = [s for s in PREFERRED if all(run.get(s.quantity, s.split) is not None for run in (*before, *after))]
    found = (compare_curve(before, after, signal, clock, paired=paired) for signal in wanted)
    return [c for c in found if c is not None]


def _deciding(curves: Sequence[CurveChange], metric: Signal | None, *, comparable: bool) -> CurveChange | None:
    if metric is not None:
        return next((c for c in curves if c.signal == metric), None)
    scaled = (LOSS, PROBE_LOSS, PERPLEXITY)
    sound = [c for c in curves if comparable or c.signal.quantity not in scaled]
    return next(iter(sound), None)


def _headline(decided: CurveChange | None) -> str:
    if decided is None:
        return "no curve that all runs logged tells which side is better"
    name, final, tested = str(decided.signal), decided.final, decided.significance
    size = f"{number(mean(final.before))} before, {number(mean(final.after))} after"
    if decided.call in ("better", "worse"):
        return f"{name} is {decided.call}: {size} (p = {tested.p:.2g}, {runs(tested.before, tested.after)})"
    if decided.call == "same":
        return f"{name} is the same to within {MATTERS:.0%} of its range: {size}"
    if tested.method == "none":
        if decided.direction == "level":
            return f"{name} shows no difference beyond the noise of the curves: {size}; one run each"
        return f"{name} ended {decided.direction} in these two runs: {size}; other seeds are not tested"
    if not tested.possible:
        return (
            f"{name}: {size}; not significant by construction: "
            f"{runs(tested.before, tested.after)} cannot reach p < 0.05 (smallest {tested.smallest:.2g})"
        )
    return f"{name}: {size}; no difference can be called (p = {tested.p:.2g}, {runs(tested.before, tested.after)})"


def _cautions(
    before: Sequence[Run],
    after: Sequence[Run],
    decided: CurveChange | None,
    facts: Sequence[FactChange],
    *,
    comparable: bool,
) -> list[str]:
    out: list[str] = []
    if len(before) == len(after) == 1:
        out.append(
            "one seed: a difference below the seed noise cannot be called, and one run each does not show that noise; "
            "not significant by construction. Six pairs of runs can reach p < 0.05: "
            "`fitdoctor compare a1 a2 ... --against b1 b2 ... --paired`"
        )
    if not comparable:
        out.append("the loss does not mean the same on both sides (another loss function, smoothing or loss input)")
    turned = [
        f.key for f in facts if not f.environment and f.key not in ("length", "schedule") and f.before and f.after
    ]
    if "planned_epochs" in turned and "planned_steps" in turned:
        turned.remove("planned_steps")  # one budget, told twice
    if len(turned) > 1:
        out.append(f"{len(turned)} settings changed at once ({', '.join(turned)}): none can be credited alone")
    if not facts:
        out.append(
            "no logged setting differs: what was changed is not in the logs; it can be told with "
            "`--before KEY=VALUE --after KEY=VALUE`"
        )
    if decided is not None:
        lengths = [sorted(run.steps.last for run in side if run.steps) for side in (before, after)]
        short, long = sorted((lengths[0][-1], lengths[1][-1]))
        same_unit = len({run.step_unit for run in (*before, *after)}) == 1
        if same_unit and short > 0 and long > 1.05 * short:
            out.append(
                f"one side ran {long / short:.2g} times as long; compared over the common stretch, "
                f"{UNITS[decided.clock]} {decided.stretch[0]:,.6g} to {decided.stretch[1]:,.6g}"
            )
        if decided.signal.split == "train":
            out.append("decided by training data: it says nothing about generalisation")
        if decided.signal.split == "test":
            out.append("decided by test data: what is chosen by it is no longer measured by it")
        batch = next((f for f in facts if f.key == "batch_size" and f.before and f.after), None)
        if batch is not None and decided.clock == "step":
            out.append("the batch sizes differ, and the log does not tell epochs: equal steps are not equal data")
    return out


def number(value: float) -> str:
    """A value of a curve in four digits; "failed" for one that is not finite."""
    return f"{value:.4g}" if math.isfinite(value) else "failed"


def mean(values: Sequence[float]) -> float:
    """Mean over runs."""
    return sum(values) / len(values)


def runs(before: int, after: int) -> str:
    """``3 runs against 4``."""
    return f"{before} against {after} run{'s' if after > 1 else ''}"
