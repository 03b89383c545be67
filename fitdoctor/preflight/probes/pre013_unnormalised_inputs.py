"""PRE013 unnormalised-inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import HIGH, MEDIUM, NOTE, WARNING, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies.before_run import normalise_data
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from torch import Tensor

    from fitdoctor.preflight.bench import Bench


@probe(
    "PRE013",
    "unnormalised-inputs",
    cost=Cost(passes=1, examples=256),
    explains=[
        "wrong-initial-loss",
        "poor-initialisation",
        "dead-units",
        "one-batch-not-learned",
        "input-ignored",
        "evaluation-differs",
        "learning-rate-out-of-range",
        "labels-not-learned",
    ],
    since="0.1.0",
    worth=3,
)
def unnormalised_inputs(
    bench: Bench, *, size: float = 10.0, offset: float = 3.0, spread: float = 100.0
) -> Iterator[Finding]:
    """What reaches the first layer is far from zero mean and unit spread.

    Why it matters:
        Initialisation and usual learning rates are made for inputs of unit size. Larger ones saturate or explode the
        first layers; features on different scales make one learning rate wrong for all but one of them.

    How it is measured:
        At the input of the first layer with weights, so that a model that normalises by itself is sound. Per feature
        or channel, constants left out: root mean square over `size`, or below its inverse; the median of |mean| over
        standard deviation above `offset`; standard deviations that differ `spread`-fold between dense features.

    Options:
        size: root mean square from which inputs are large.
        offset: |mean| over standard deviation of the median feature.
        spread: ratio of the largest to the smallest standard deviation (2nd to 98th percentile).

    When it is wrong:
        A normalisation right after the first layer makes the size harmless: a note then. Sparse features (nine
        in ten values zero), ids and one-hot inputs are left alone.

    What to do:
        Standardise with the statistics of the training split.

    References:
        LeCun et al. 1998, Efficient backprop.
    """
    from fitdoctor.preflight.layer_scan import scan

    layers = scan(bench, bench.batch(256)).layers
    if not layers:
        raise CannotJudge("the model has no linear or convolutional layer")
    first = layers[0]
    values = _by_feature(first.input.detach().double(), first.name, bench)
    # A constant feature keeps a deviation of rounding errors when examples are mixed or shifted.
    values = values[:, values.std(0) > 1e-5 * values.abs().amax(0).clamp_min(1e-30)]
    dense = values[:, (values == 0).double().mean(0) < 0.9]
    if dense.shape[1] == 0:
        return
    rms = float(dense.square().mean().sqrt())
    ratio = float((dense.mean(0).abs() / dense.std(0)).median())
    stds = dense.std(0)
    uneven = float(stds.quantile(0.98) / stds.quantile(0.02)) if dense.shape[1] > 1 else 1.0
    evidence = seen(
        "activation_rms",
        f"root mean square {rms:.3g}, |mean| over deviation {ratio:.2g}, deviations {uneven:.3g}-fold",
        f"about 1, below {offset:g}, below {spread:g}-fold",
        layer=f"the input of {first.name}",
    )
    if rms > size or rms < 1 / size**2:
        what = f"inputs of the first layer have a root mean square of {rms:.3g}"
    elif uneven > spread:
        what = f"standard deviations of input features differ {uneven:.3g}-fold"
    elif ratio > offset:
        what = f"the mean of input features is {ratio:.2g} standard deviations away from zero"
    else:
        return
    yield finding(
        what,
        NOTE if first.normed else WARNING,
        MEDIUM if first.normed else HIGH,
        evidence,
        remedies=[normalise_data()],
        could_be=("the normalisation behind the first layer takes care of it",) if first.normed else (),
    )


def _by_feature(x: Tensor, name: str, bench: Bench) -> Tensor:
    """float64[values, features]: the last dimension of a linear layer, the channels of a convolution."""
    import torch

    if isinstance(bench.model.get_submodule(name), torch.nn.Linear):
        return x.reshape(-1, x.shape[-1])
    channels = x.movedim(1, -1) if x.ndim > 2 else x
    return channels.reshape(-1, channels.shape[-1])
