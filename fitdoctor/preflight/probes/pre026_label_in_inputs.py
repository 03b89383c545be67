"""PRE026 label-in-inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import HIGH, MEDIUM, WARNING, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies.before_run import remove_leaking_features
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fitdoctor.preflight.bench import Bench


@probe("PRE026", "label-in-inputs", cost=Cost(examples=2_000), since="0.1.0", worth=2)
def label_in_inputs(bench: Bench, *, examples: int = 2_000, width: int = 4_096) -> Iterator[Finding]:
    """A single input feature tells the target exactly.

    Why it matters:
        A column that was made of the target (its copy, its code, what was recorded afterwards) is not there when the
        model is used. Training and validation look perfect, and the model is worthless.

    How it is measured:
        Among up to `examples` training examples. Classes: a feature that takes one value per class, another for each.
        Values: a feature of which the target is a linear function, up to rounding. Sequences and images are left
        alone where they have more than `width` values, and so is a target that is the input itself.

    Options:
        examples: how many training examples are looked at.
        width: most features per example.

    When it is wrong:
        A feature may decide the target and be known before it: a rule, not a task to learn.

    What to do:
        Take the column out of the inputs.

    References:
        Kapoor and Narayanan 2023, Leakage and the reproducibility crisis in machine-learning-based science.
    """
    import numpy as np

    sample = bench.train.sample(examples)
    x, y = sample.x, sample.y
    if x is None or y is None or len(x) < 40:
        raise CannotJudge("40 examples with one target each are needed")
    if y.numel() != len(y):
        raise CannotJudge("there are several targets per example")
    flat = x.detach().cpu().reshape(len(x), -1)
    if flat.shape[1] > width:
        raise CannotJudge(f"{flat.shape[1]:,} values per example are no table")
    features = flat.double().numpy()
    labels = bench.labels(sample)
    if labels is not None:
        told = _coded(features, labels.cpu().numpy())
        kind = "the class"
    else:
        target = y.detach().cpu().double().numpy().reshape(-1)
        told = [i for i, column in enumerate(features.T) if _linear(column, target)]
        kind = "the target"
    if not told:
        return
    n, classes = len(features), len(np.unique(features[:, told[0]]))
    yield finding(
        f"input feature {told[0]} alone tells {kind} of all of {n:,} examples",
        WARNING,
        HIGH if labels is None or classes > 2 else MEDIUM,
        seen("accuracy", f"features {', '.join(map(str, told[:5]))} of {features.shape[1]}", "no feature that does"),
        remedies=[remove_leaking_features()],
        could_be=("a feature that decides the target by a rule",),
    )


def _coded(features: NDArray[np.float64], labels: NDArray[np.int64]) -> list[int]:
    """Columns with exactly one value per class, each with two examples or more."""
    import numpy as np

    classes, sizes = np.unique(labels, return_counts=True)
    if len(classes) < 2 or sizes.min() < 2:
        return []
    found = []
    for i, column in enumerate(features.T):
        values = np.unique(column)
        if len(values) != len(classes):
            continue
        first = {c: column[labels == c][0] for c in classes}
        if len(set(first.values())) == len(classes) and all((column[labels == c] == v).all() for c, v in first.items()):
            found.append(i)
    return found


def _linear(column: NDArray[np.float64], target: NDArray[np.float64]) -> bool:
    """Whether the target is a linear function of a column, up to rounding to float32."""
    import numpy as np

    x, y = column - column.mean(), target - target.mean()
    spread, norm = float((x**2).sum()), float((y**2).sum())
    if not np.isfinite(spread + norm) or spread <= 0 or norm <= 0 or len(np.unique(target)) < 10:
        return False
    rest = y - x * float((x * y).sum()) / spread
    return float((rest**2).sum()) < 1e-10 * norm
