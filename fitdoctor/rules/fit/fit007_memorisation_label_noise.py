"""FIT007 memorisation-label-noise."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import check_labels, stop_early, use_best_checkpoint
from fitdoctor.remedies.fit import find_mislabelled
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import PROBE_ACCURACY
from fitdoctor.views.curves import place
from fitdoctor.views.generalisation import regress
from fitdoctor.views.steps import accuracies


@rule(
    "FIT007",
    "memorisation-label-noise",
    needs=[PROBE_ACCURACY],
    explains=["overfitting", "overconfidence-drift", "best-epoch", "plateau", "undertrained"],
    since="0.1.0",
)
def memorisation_label_noise(
    run: Run, *, behind: float = 0.05, fall: float = 0.05, errors: float = 3.0
) -> Iterator[Finding]:
    """The model first learned the rule, then the wrong labels among its training data.

    Why it matters:
        Networks fit what is regular first and the exceptions last. When many training labels are wrong, the
        second phase only memorises them, and what was learned in the first gets worse.

    How it is measured:
        Two phases, on a fixed batch of training data in eval mode (``probe_train``) and held-out accuracy. At the
        best held-out accuracy the model does worse on its own training examples than on held-out ones,
        by `behind` and `errors` standard errors: their labels are harder to predict than unseen ones. From there the
        accuracy on the training batch climbs above the held-out one, and held-out accuracy falls by more than `fall`
        and `errors` standard errors. Without the fixed batch it is not judged: dropout lowers a logged training
        accuracy in the same way.

    Options:
        behind: least lead of held-out accuracy at its best over accuracy on the training batch.
        fall: least fall of held-out accuracy from its best.
        errors: both in standard errors.

    When it is wrong:
        Held-out data that are easier than the training data lead as well. Label noise that is in the held-out labels
        too hides the lead; that stays overfitting.

    What to do:
        Use the best checkpoint, find the wrong labels (the training examples fitted last), correct or drop them.

    References:
        Arpit et al. 2017 (simple patterns first; noise is memorised late); Pleiss et al. 2020 (finding mislabelled
        examples); Maini et al. 2022 (rare examples are another thing). Thresholds are design values.
    """
    found = accuracies(run)
    if found is None:
        raise CannotJudge(
            "needs accuracy on a fixed training batch (probe_train) and held-out accuracy, 8 values of each"
        )
    train, val = found
    regressed = regress(val)
    if regressed is None:
        return
    top = val.shown(val.best)
    n_train, n_val = (run.facts.get(k) for k in ("n_probe_train", "n_val"))
    sampling = _sampling(top, n_val if isinstance(n_val, (int, float)) else None)
    around = np.abs(train.steps - regressed.best_step) <= max(1, (train.steps[-1] - train.steps[0]) // len(val))
    if not around.any():
        return
    then = train.shown(float(np.median(train.values[around])))
    error = math.hypot(sampling, _sampling(then, n_train if isinstance(n_train, (int, float)) else None), val.noise)
    if top - then < max(behind, errors * error):
        return
    dropped = regressed.rise
    if dropped < fall or regressed.errors < errors or dropped < errors * sampling:
        return
    last, held = train.shown(train.final), val.shown(val.final)
    if last < held + 0.5 * dropped:
        return
    yield Finding(
        message=f"{1 - then:.0%} of the training labels were wrong to a model that was then {top:.0%} right; "
        f"now {held:.0%}",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        span=Span(regressed.best_step, int(val.steps[-1])),
        evidence=(
            Evidence.of(
                val.series,
                f"best {top:.3g} at {place(run, regressed.best_step)}, {held:.3g} at the end",
                "staying at its best",
                marks=((regressed.best_step, "best"),),
            ),
            Evidence.of(train.series, f"{then:.3g} at that time, {last:.3g} at the end", f"no less than {top:.3g}"),
        ),
        remedies=(
            use_best_checkpoint(regressed.best_step, run.step_unit),
            find_mislabelled(),
            check_labels(),
            stop_early(max(5, len(val) // 10)),
        ),
        could_be=("an easier validation set",),
        settle_with="relabel 100 of the training examples whose loss fell last: many wrong ones settle it",
    )


def _sampling(p: float, n: float | None) -> float:
    """Standard error of an accuracy on n examples; where n is unknown, on 300."""
    inner = min(max(p, 0.01), 0.99)
    return math.sqrt(inner * (1 - inner) / (n if n and n >= 2 else 300))
