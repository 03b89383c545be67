"""PRE003 wrong-loss-input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import ERROR, HIGH, MEDIUM, NOTE, WARNING, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies import check_labels, pass_raw_logits
from fitdoctor.remedies.before_run import fit_output_to_targets, ignore_padding, match_shapes, raw_scores
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from fitdoctor.preflight.batches import Batch
    from fitdoctor.preflight.bench import Bench
    from fitdoctor.preflight.losses import LossCall


@probe(
    "PRE003",
    "wrong-loss-input",
    cost=Cost(passes=1),
    explains=[
        "wrong-initial-loss", "one-batch-not-learned", "input-ignored", "learning-rate-out-of-range",
        "labels-not-learned",
    ],
    since="0.1.0",
    worth=3,
    vital=True,
)  # fmt: skip
def wrong_loss_input(
    bench: Bench, *, rows: float = 0.99, unreachable: float = 0.01, padded: float = 0.05
) -> Iterator[Finding]:
    """The loss is given something else than it takes: probabilities, other shapes, targets it cannot reach.

    Why it matters:
        Torch computes a number all the same. The model then learns slowly, or the mean of all targets, or nothing.

    How it is measured:
        The call of the loss function is watched, whoever makes it: its input, its target, and the operation that
        made the input. Softmax rows in a cross-entropy, raw scores in a negative log-likelihood, a sigmoid before
        a loss with its own, shapes that are broadcast, a single class, and targets outside the range of the last
        activation are told apart exactly. So are targets that are padding: one class per position, the same value up
        to the end of sequences of different lengths, where the input is constant too, and not ignored by the loss.

    Options:
        rows: share of rows that must look like probabilities.
        unreachable: share of targets outside the range of the last activation.
        padded: share of the targets that are padding.

    When it is wrong:
        A log-softmax before a cross-entropy changes nothing and is only noted. Losses that are not made of torch's
        own functions are watched for broadcasting only.

    What to do:
        Give the loss raw scores, equal shapes, and targets that the last layer can reach.

    References:
        PyTorch documentation of the loss functions; Karpathy 2018, the most common neural net mistakes.
    """
    with bench.mode(training=True):
        batch = bench.batch(256)
        done = bench.run(batch)
    for shapes in done.spy.spread:
        yield _spread_shapes(*shapes)
        return
    if not done.spy.losses:
        raise CannotJudge("the loss calls no loss function of torch")
    for call in done.spy.losses:
        found = next(_judged(call, rows, unreachable), None) or _padding(batch, call, padded)
        if found is not None:
            yield found
            return


def _judged(call: LossCall, rows: float, unreachable: float) -> Iterator[Finding]:
    if call.name == "cross_entropy":
        yield from _cross_entropy(call, rows)
    elif call.name == "nll_loss":
        yield from _log_likelihood(call, rows)
    elif call.name in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):
        yield from _binary(call)
    else:
        yield from _regression(call, unreachable)


def _cross_entropy(call: LossCall, rows: float) -> Iterator[Finding]:
    from fitdoctor.preflight.losses import last_step, log_probability_rows, probability_rows

    if call.input.ndim > 1 and call.classes == 1:
        yield finding(
            "the cross-entropy sees a single class: its loss is always 0",
            ERROR, HIGH, seen("logit_std", f"outputs of shape {tuple(call.input.shape)}", "one column per class"),
            remedies=[raw_scores()],
        )  # fmt: skip
        return
    made_by = last_step(call.input)
    if probability_rows(call.input) >= rows and made_by != "logsoftmax":
        yield finding(
            "softmax before the cross-entropy, which applies its own: rows of its input sum to 1",
            ERROR, HIGH,
            seen("probability_rows", f"{probability_rows(call.input):.0%} of the rows sum to 1", "raw scores"),
            remedies=[pass_raw_logits()],
        )  # fmt: skip
    elif made_by == "logsoftmax" and log_probability_rows(call.input) >= rows:
        yield finding(
            "log_softmax before the cross-entropy, which applies its own: harmless, but needless",
            NOTE, HIGH, seen("probability_rows", "the input is made by log_softmax", "raw scores"),
            remedies=[pass_raw_logits()],
        )  # fmt: skip
    elif made_by in ("relu", "sigmoid", "tanh"):
        yield finding(
            f"{made_by} before the cross-entropy bounds the scores",
            WARNING, HIGH, seen("logit_std", f"the input is made by {made_by}", "raw scores of both signs"),
            remedies=[raw_scores()],
        )  # fmt: skip


def _padding(batch: Batch, call: LossCall, least: float) -> Finding | None:
    """A finding where the ends of padded sequences count as targets."""
    import torch

    x, y = batch.x, batch.y
    if call.name not in ("cross_entropy", "nll_loss") or x is None or y is None or call.target.is_floating_point():
        return None
    if y.ndim != 2 or x.shape[:2] != y.shape or len(y) < 4 or y.shape[1] < 2:
        return None
    pad = int(y[:, -1].mode().values)
    run = (y.flip(1) == pad).long().cumprod(1).sum(1)  # how many of the last targets of each example
    if pad == call.options.get("ignore_index", -100) or float((run > 0).float().mean()) < 0.5:
        return None
    place = torch.arange(y.shape[1], device=y.device)
    inside = place[None] > (y.shape[1] - run)[:, None]  # the first may be the end of the sequence, worth predicting
    if int(run.min()) == int(run.max()) or not bool(inside.any()) or float(inside.float().mean()) < least:
        return None
    values = x[inside].reshape(int(inside.sum()), -1)
    if not bool((values == values[:1]).all()):
        return None
    share = float(inside.float().mean())
    return finding(
        f"{share:.0%} of the targets are padding (class {pad} up to the end of a sequence), and count in the loss",
        WARNING,
        HIGH,
        seen(
            "loss", f"up to {int(run.max())} of {y.shape[1]} positions, input and target constant", "none, or ignored"
        ),
        remedies=[ignore_padding()],
    )


def _log_likelihood(call: LossCall, rows: float) -> Iterator[Finding]:
    from fitdoctor.preflight.losses import log_probability_rows, probability_rows

    if log_probability_rows(call.input) >= rows:
        return
    what = "probabilities" if probability_rows(call.input) >= rows else "raw scores"
    yield finding(
        f"the negative log-likelihood is given {what}, not log-probabilities",
        ERROR, HIGH,
        seen("probability_rows", f"exp of {log_probability_rows(call.input):.0%} of the rows sums to 1", "all rows"),
        remedies=[raw_scores()],
    )  # fmt: skip


def _binary(call: LossCall) -> Iterator[Finding]:
    from fitdoctor.preflight.losses import last_step

    low, high = float(call.target.min()), float(call.target.max())
    if low < 0 or high > 1:
        yield finding(
            f"targets of a binary loss run from {low:g} to {high:g}",
            ERROR, HIGH, seen("loss", f"targets from {low:g} to {high:g}", "0 to 1"), remedies=[check_labels()],
        )  # fmt: skip
        return
    made_by = last_step(call.input)
    if call.name.endswith("logits") and made_by in ("sigmoid", "softmax"):
        yield finding(
            f"{made_by} before a binary loss with logits, which applies its own sigmoid",
            ERROR, HIGH, seen("logit_std", f"the input is made by {made_by}", "raw scores"), remedies=[raw_scores()],
        )  # fmt: skip
    elif call.name.endswith("logits") and made_by == "relu":
        yield finding(
            "relu before a binary loss with logits: the probability can never fall below one half",
            ERROR, HIGH, seen("logit_std", "the input is made by relu", "raw scores"), remedies=[raw_scores()],
        )  # fmt: skip


def _regression(call: LossCall, unreachable: float) -> Iterator[Finding]:
    from fitdoctor.preflight.losses import last_step

    if call.input.shape != call.target.shape and call.input.numel() != 1 and call.target.numel() != 1:
        yield _spread_shapes(tuple(call.input.shape), tuple(call.target.shape))
        return
    made_by = last_step(call.input)
    bounds = {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0), "relu": (0.0, float("inf"))}
    low, high = bounds.get(made_by, (-float("inf"), float("inf")))
    outside = float(((call.target < low) | (call.target > high)).float().mean())
    if outside > unreachable:
        first, last = float(call.target.min()), float(call.target.max())
        yield finding(
            f"{outside:.0%} of the targets lie outside the range of the last activation ({made_by})",
            ERROR, HIGH if outside > 0.1 else MEDIUM,
            seen("loss", f"targets from {first:.3g} to {last:.3g}", f"{low:g} to {high:g}, what {made_by} can give"),
            remedies=[fit_output_to_targets()],
        )  # fmt: skip


def _spread_shapes(a: tuple[int, ...], b: tuple[int, ...]) -> Finding:
    return finding(
        f"output {list(a)} and target {list(b)} are broadcast: each output meets every target",
        ERROR, HIGH, seen("loss", f"shapes {list(a)} and {list(b)}", "equal shapes"), remedies=[match_shapes()],
    )  # fmt: skip
