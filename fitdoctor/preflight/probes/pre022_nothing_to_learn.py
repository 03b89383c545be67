"""PRE022 nothing-to-learn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import LOW, NOTE, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies import check_labels
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from fitdoctor.preflight.bench import Bench


@probe("PRE022", "nothing-to-learn", cost=Cost(examples=3_000), since="0.1.0", worth=1)
def nothing_to_learn(bench: Bench, *, examples: int = 2_000, sure: float = 2.0) -> Iterator[Finding]:
    """No plain model learns anything from the inputs.

    Why it matters:
        A linear model or nearest neighbours beat the most frequent answer on most tasks. Where neither does, labels
        may not belong to the inputs. Where one does well, it is the mark that the network has to pass.

    How it is measured:
        A linear model and five nearest neighbours, fitted on up to `examples` training examples and measured on
        validation examples (a third of the training sample without a val_loader). The better one must beat the
        constant answer by `sure` standard errors. The results are among the facts of the report.

    Options:
        examples: how many training examples are used.
        sure: standard errors by which a plain model must be better.

    When it is wrong:
        Hard perception tasks can be beyond both, so it is only noted, with low confidence.

    What to do:
        Check that labels and inputs belong together.

    References:
        Karpathy 2019 ("set up the end-to-end skeleton and get dumb baselines").
    """
    import numpy as np

    from fitdoctor.preflight.features import baselines, table

    train = bench.train.sample(examples)
    held = bench.sources["val"].sample(examples // 2) if "val" in bench.sources else None
    if held is None:
        cut = 2 * len(train) // 3
        order = np.random.default_rng(0).permutation(len(train)).tolist()
        train, held = train.rows(order[:cut]), train.rows(order[cut:])
    if len(train) < 40 or len(held) < 20:
        raise CannotJudge("40 training and 20 held-out examples are needed")
    x, projection = table(train)
    x_val, _ = table(held, projection)
    targets = []
    for part in (train, held):
        labels = bench.labels(part)
        y = labels if labels is not None else part.y
        if y is None or (labels is None and (y.ndim > 2 or not y.is_floating_point())):
            raise CannotJudge("the targets are neither one class nor a few values per example")
        targets.append(y.detach().cpu().numpy() if labels is not None else y.detach().cpu().double().numpy())
    if (
        targets[0].ndim == 1
        and np.issubdtype(targets[0].dtype, np.integer)
        and len(np.unique(targets[0])) > len(train) / 5
    ):
        raise CannotJudge("there are too many classes for the examples that were read")
    got = baselines(x, targets[0], x_val, targets[1])
    what = "accuracy" if got.classes else "share of variance"
    for name, value in (("constant", got.constant), ("linear", got.linear), ("nearest", got.nearest)):
        bench.facts[f"baseline_{name}"] = round(value, 4)
    error = (max(got.constant * (1 - got.constant), 0.25 / got.n) / got.n) ** 0.5 if got.classes else 1 / got.n**0.5
    if got.best - got.constant > sure * error:
        return
    yield finding(
        f"no plain model beats the constant answer: {what} {got.best:.2f}, constant {got.constant:.2f}",
        NOTE, LOW,
        seen("accuracy", f"linear {got.linear:.3f}, nearest neighbours {got.nearest:.3f}",
             f"above {got.constant:.3f} by {sure * error:.3f}", split="val"),
        remedies=[check_labels()], could_be=("a task beyond plain models",),
    )  # fmt: skip
