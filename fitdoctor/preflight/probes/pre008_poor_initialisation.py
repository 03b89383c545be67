"""PRE008 poor-initialisation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import ERROR, HIGH, MEDIUM, WARNING, finding, seen, some
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies import check_initialisation, shorten_gradient_path
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from fitdoctor.preflight.bench import Bench
    from fitdoctor.preflight.layer_scan import Layer


@probe(
    "PRE008",
    "poor-initialisation",
    cost=Cost(passes=5),
    explains=[
        "wrong-initial-loss",
        "dead-units",
        "unused-parameters",
        "parameters-not-trained",
        "one-batch-not-learned",
        "input-ignored",
        "learning-rate-out-of-range",
        "labels-not-learned",
    ],
    since="0.1.0",
)
def poor_initialisation(
    bench: Bench, *, decades: float = 2.0, steady: float = 0.8, layers: int = 4, collapsed: float = 0.01
) -> Iterator[Finding]:
    """Signals grow or fade from layer to layer before the first step, or all units of a layer are the same.

    Why it matters:
        A constant factor per layer is a power of the depth: early layers get gradients that are thousands of times
        smaller than those of late ones, or outputs overflow. In the end the output no longer depends on the input.
        Units that begin with the same weights get the same gradient and stay the same: a layer of one unit.

    How it is measured:
        One pass of real inputs, with the backward pass. Of all layers with weights but the last, in the order in
        which they run: root mean square of output and of its gradient, on a line through their logarithms. Their
        change over the depth must stay below `decades` powers of ten, or go to and fro (rank correlation below
        `steady`); that takes `layers` of them. The last hidden layer must still differ from input to input, by
        `collapsed` of its size, unless it does not because nine tenths of what it gets are zero (see dead-units).
        Hidden layers whose units all have the same weights (zeros, a constant) are looked at again after three steps.

    Options:
        decades: powers of ten between first and last layer.
        steady: least rank correlation of size and depth.
        layers: fewest layers of which a change over the depth is judged.
        collapsed: spread over inputs relative to size, below which a layer ignores its input.

    When it is wrong:
        Layers that begin at zero on purpose are left out. Gradients that only shrink matter less under Adam.

    What to do:
        Initialise for the activation in use, normalise, add residual connections.

    References:
        Glorot and Bengio 2010; He et al. 2015. PyTorch's default for nn.Linear shrinks signals by 0.41 per
        ReLU layer: harmless in four layers, fatal in twenty.
    """
    from fitdoctor.preflight.layer_scan import decades as change_of
    from fitdoctor.preflight.layer_scan import scan

    alike = list(_alike(bench))
    yield from alike
    if alike:
        return
    batch = bench.batch(256)
    if len(batch) < 2:
        raise CannotJudge("batches of two examples or more are needed")
    found = [layer for layer in scan(bench, batch).layers[:-1] if layer.rms > 0]
    if len(found) < layers:
        lost = list(_collapsed(found, collapsed))
        yield from lost
        if lost:
            return
        raise CannotJudge(f"hidden layers with weights: {len(found)}; {layers} are needed to see signals fade or grow")
    for what, values, word in (
        ("activation_rms", [x.rms for x in found], "outputs"),
        ("activation_grad_rms", [x.grad_rms for x in found if x.grad_rms > 0], "gradients"),
    ):
        if len(values) < layers:
            continue
        change, order = change_of(values)
        if abs(change) < decades or abs(order) < steady:
            continue
        grows = "grow" if (change > 0) == (word == "outputs") else "shrink"
        where = "layers" if word == "outputs" else "layers on the way back"
        yield finding(
            f"{word} {grows} {10 ** abs(change):.2g}-fold over {len(values)} {where}",
            WARNING,
            HIGH if abs(change) > 2 * decades else MEDIUM,
            seen(
                what,
                f"{values[0]:.2g} in {found[0].name}, {values[-1]:.2g} in {found[-1].name}",
                f"within a factor of {10**decades:.0f}",
                points=tuple(enumerate(values)),
            ),
            remedies=[check_initialisation(), shorten_gradient_path()],
        )
        return
    yield from _collapsed(found, collapsed)


def _collapsed(found: list[Layer], least: float) -> Iterator[Finding]:
    """A finding where the first hidden layer differs from input to input, and the last hardly does."""
    if len(found) < 2 or not 0 < found[-1].input_spread < least < found[0].input_spread:
        return
    if float((found[-1].input == 0).float().mean()) > 0.9:  # dead units before it, whatever the size of the weights
        return
    spreads = [x.input_spread for x in found]
    yield finding(
        f"the last hidden layer differs between inputs by only {found[-1].input_spread:.1e} of its size",
        WARNING,
        MEDIUM,
        seen(
            "activation_input_spread",
            f"{spreads[-1]:.2g} in {found[-1].name}",
            f"{spreads[0]:.2g}, as in the first",
            points=tuple(enumerate(spreads)),
        ),
        remedies=[check_initialisation(), shorten_gradient_path()],
    )


def _alike(bench: Bench) -> Iterator[Finding]:
    """A finding where hidden layers have units that are equal, and still are after some steps."""
    import torch

    from fitdoctor.preflight.layer_scan import WEIGHTED, scan

    def equal() -> dict[str, torch.nn.Module]:
        found: dict[str, torch.nn.Module] = {}
        for name, module in bench.model.named_modules():
            if isinstance(module, WEIGHTED) and module.weight.requires_grad and len(module.weight) > 1:
                parts = [module.weight, *([module.bias] if module.bias is not None else [])]
                if all(bool((p == p[:1]).all()) for p in parts):
                    found[name] = module
        return found

    if not equal():
        return
    order = list(dict.fromkeys(layer.name for layer in scan(bench, bench.batch(64)).layers))
    with bench.mode(training=True):
        bench.fit(bench.batches(1)[:1], 3, bench.adam(1e-3))  # what begins at zero on purpose opens with these
    still = [name for name in order[:-1] if name in equal()]
    bench.rewind()
    if not still:
        return
    size = len(bench.model.get_submodule(still[0]).weight)  # type: ignore[arg-type]
    yield finding(
        f"the {size} units of {still[0]} have the same weights, and get the same gradients",
        ERROR,
        HIGH,
        seen("weight_norm", f"equal units after three steps in {some(still, 4)}", "units that differ", layer=still[0]),
        remedies=[check_initialisation()],
    )
