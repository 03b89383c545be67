"""Which of the advised remedies fit a run, and in which order: `prescribe(finding, ...) -> Finding`.

A rule advises what helps against what it found. Whether a remedy suits this run depends on more than the rule has
looked at: clipping does not help where most steps would be clipped, a smaller model does not help where the training
data is not fitted. Such contra-indications are functions of the run (`contraindications`); a remedy that meets one is
taken out, and the finding says so. What is left gets its numbers from the run (`numbers`), and is put in the order of
evidence (`kinds`), behind what the run itself calls for (`indications`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from fitdoctor.finding import Finding, Remedy
from fitdoctor.prescribe.contraindications import CONTRAINDICATIONS
from fitdoctor.prescribe.indications import called_for
from fitdoctor.prescribe.kinds import ORDER, in_order, kind_of
from fitdoctor.prescribe.numbers import with_numbers
from fitdoctor.prescribe.patient import Patient
from fitdoctor.run import Run

__all__ = ["COMMAND", "ORDER", "in_order", "kind_of", "prescribe"]

COMMAND = "`fitdoctor compare BEFORE AFTER`"
CHECK = "`fitdoctor preflight` once more"


def prescribe(finding: Finding, run: Run, *, family: str = "", found: Collection[str] = ()) -> Finding:
    """The finding with the remedies that suit the run, the best first.

    Args:
        finding: what a rule found.
        run: the run that it was found in.
        family: family of the rule.
        found: names of all rules that found something in the run.
    """
    if not finding.remedies:
        return finding
    patient = Patient(run, finding.rule, frozenset(found), finding.onset)
    first = called_for(patient)
    ordered = [*first, *in_order([with_numbers(r, patient) for r in finding.remedies], family=family)]
    fitting, ruled_out, turned = [], [], set()
    for remedy in ordered:
        knob = remedy.change.knob if remedy.change is not None else remedy.title
        if knob in turned:
            continue  # what the run calls for turns it already
        reason = next((why for against in CONTRAINDICATIONS if (why := against(remedy, patient))), "")
        if reason:
            ruled_out.append(f"{remedy.title}: {reason}")
        else:
            fitting.append(_checkable(remedy, CHECK if run.source == "preflight" else COMMAND))
            turned |= {knob} if remedy in first else set()
    return replace(finding, remedies=tuple(fitting), ruled_out=tuple(ruled_out))


def _checkable(remedy: Remedy, command: str) -> Remedy:
    """The remedy with a command that shows whether it worked."""
    if not remedy.confirm or "`" in remedy.confirm:
        return remedy
    return replace(remedy, confirm=f"{remedy.confirm} ({command})")
