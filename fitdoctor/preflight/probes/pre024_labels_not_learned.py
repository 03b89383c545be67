"""PRE024 labels-not-learned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import LOW, MEDIUM, NOTE, WARNING, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies import check_labels
from fitdoctor.remedies.before_run import remove_duplicates
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from torch import Tensor

    from fitdoctor.preflight.batches import Batch
    from fitdoctor.preflight.bench import Bench


@probe(
    "PRE024", "labels-not-learned", cost=Cost(passes=410, examples=1_500), needs=["val_loader"], since="0.1.0", worth=1
)
def labels_not_learned(
    bench: Bench, *, examples: int = 1_000, steps: int = 200, sure: float = 3.0
) -> Iterator[Finding]:
    """A short training on the true labels does no better on held-out examples than one on shuffled labels.

    Why it matters:
        Labels that were shuffled, shifted or joined to the wrong inputs can be memorised but not generalised. And a
        model trained on shuffled labels that still predicts held-out ones has seen them.

    How it is measured:
        Two trainings of `steps` steps with Adam at 1e-3 from the same weights: on the labels as they are, and on
        the same labels in random order. The held-out losses per example, in eval mode, must differ by `sure` standard
        errors. After shuffled labels, the loss must not be below that of the class shares (with one target per
        example); where it was so before any training, the weights knew the task, which is only noted.

    Options:
        examples: how many training examples are used; half as many are held out.
        steps: steps of each training.
        sure: standard errors by which true labels must be better.

    When it is wrong:
        A slow task learns nothing in so few steps: where the training loss on true labels has not fallen below that on
        shuffled ones either, nothing is said.

    What to do:
        Check the join of inputs and labels; look for validation examples among the training examples.

    References:
        Zhang et al. 2017, Understanding deep learning requires rethinking generalization; Ojala and Garriga 2010.
    """
    import torch

    train = bench.placed(bench.train.sample(examples))
    held = bench.placed(bench.sources["val"].sample(examples // 2))
    if train.y is None or len(train) < 64 or len(held) < 32:
        raise CannotJudge("64 training and 32 validation examples with one target each are needed")
    if train.own_target:
        raise CannotJudge("the inputs are their own targets: there are no labels")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).to(train.y.device)
    shuffled = train.with_target(train.y[order])
    before = _losses(bench, held)
    if before is None:
        raise CannotJudge("the loss is not one call of a loss function of torch")
    if _first_loss(bench, train) == _first_loss(bench, shuffled):
        raise CannotJudge("the loss does not depend on the target")
    true_train, true_held = _trained(bench, train, held, steps)
    random_train, random_held = _trained(bench, shuffled, held, steps)
    if not (torch.isfinite(true_held).all() and torch.isfinite(random_held).all()):
        raise CannotJudge("the loss becomes nan in the short training")
    gain = random_held - true_held
    error = float(gain.std()) / len(gain) ** 0.5 + 1e-12
    prior = _prior(bench, held, train)
    if len(prior) != len(random_held) or len(true_held) != len(random_held):
        raise CannotJudge("the loss has another number of values than the batch has examples")
    drop = prior - random_held
    single = train.y.numel() == len(train)  # the best constant of many targets is not that of each of them
    knew = float(before.mean()) < 0.9 * float(prior.mean())
    if single and float(drop.mean()) > sure * float(drop.std()) / len(drop) ** 0.5 + 0.05 * float(prior.mean()):
        yield finding(
            f"after training on shuffled labels the held-out loss is {float(random_held.mean()):.3g}, below chance",
            NOTE if knew else WARNING, LOW if knew else MEDIUM,
            seen("loss", f"{float(random_held.mean()):.3g}", f"{float(prior.mean()):.3g} or more", split="val"),
            remedies=[remove_duplicates()],
            could_be=("pretrained weights that know the task", "an evaluation that sees the labels"),
        )  # fmt: skip
        return
    if float(gain.mean()) >= sure * error:
        return
    if float(true_train.mean()) > 0.95 * float(random_train.mean()):
        memorised = float(true_train.mean()) < 0.5 * float(prior.mean())
        if not memorised:
            raise CannotJudge(f"{steps} steps are too few for this task to begin")
    yield finding(
        f"true labels do no better than shuffled ones on held-out examples: {float(true_held.mean()):.3g} and "
        f"{float(random_held.mean()):.3g}",
        WARNING if float(true_train.mean()) < 0.5 * float(prior.mean()) else NOTE,
        MEDIUM if float(true_train.mean()) < 0.5 * float(prior.mean()) else LOW,
        seen("loss", f"{float(true_held.mean()):.3g} after {steps} steps on true labels",
             f"below {float(random_held.mean()):.3g} by {sure * error:.2g}", split="val"),
        remedies=[check_labels()],
        could_be=("labels that do not belong to the inputs", "too few examples to generalise"),
    )  # fmt: skip


def _first_loss(bench: Bench, train: Batch) -> float:
    """The loss of some examples before any training, with the random numbers of the beginning."""
    import torch

    bench.rewind()
    with torch.no_grad(), bench.mode(training=True):
        return float(bench.run(train.rows(slice(0, 128))).loss)


def _trained(bench: Bench, train: Batch, held: Batch, steps: int) -> tuple[Tensor, Tensor]:
    """float[n] and float[m], losses per example on the training labels and held out, after a short training."""
    import torch

    bench.rewind()
    size = min(bench.train.batch_size or 32, 64, len(train) // 2)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1)).tolist()
    parts = [train.rows(order[i : i + size]) for i in range(0, len(train) - size + 1, size)]
    with bench.mode(training=True):
        bench.fit(parts, steps, bench.adam(1e-3))
    seen_loss, held_loss = _losses(bench, train), _losses(bench, held)
    bench.rewind()
    if seen_loss is None or held_loss is None:
        raise CannotJudge("the loss is not one call of a loss function of torch")
    return seen_loss, held_loss


def _losses(bench: Bench, batch: Batch) -> Tensor | None:
    import torch

    parts = []
    with torch.no_grad(), bench.mode(training=False):
        for i in range(0, len(batch), 256):
            call = bench.run(batch.rows(slice(i, i + 256))).call
            if call is None:
                return None
            parts.append(_by_example(call.per_example(), len(batch.rows(slice(i, i + 256)))))
    return torch.cat(parts)


def _by_example(losses: Tensor, n: int) -> Tensor:
    """float[n]: the mean over the positions of an example, where the loss was given all positions in a row."""
    if len(losses) == n or len(losses) % n:
        return losses
    return losses.reshape(n, -1).mean(1)


def _prior(bench: Bench, held: Batch, train: Batch) -> Tensor:
    """float[m], the loss of each held-out example under the best constant output of the training split."""
    import torch

    from fitdoctor.preflight.losses import best_constant

    with torch.no_grad(), bench.mode(training=False):
        one = bench.run(train.rows(slice(0, min(256, len(train))))).call
        two = bench.run(held.rows(slice(0, min(256, len(held))))).call
    if one is None or two is None:
        raise CannotJudge("the loss is not one call of a loss function of torch")
    targets = train.target if isinstance(train.target, torch.Tensor) else one.target
    best = best_constant(one, targets if targets.shape[1:] == one.target.shape[1:] else one.target)
    shape = [1, -1, *[1] * (two.input.ndim - 2)] if one.name in ("cross_entropy", "nll_loss") else None
    output = two.input.detach() * 0 + (best.reshape(shape) if shape and two.input.ndim > 1 else best)
    each = two.of(output, "none")
    losses = _by_example(each.reshape(len(each), -1).float().mean(1), min(256, len(held)))
    return torch.cat([losses, losses.mean().expand(max(0, len(held) - len(losses)))])
