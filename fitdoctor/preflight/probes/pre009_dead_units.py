"""PRE009 dead-units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import HIGH, MEDIUM, WARNING, finding, seen, some
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies import check_initialisation
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from torch import Tensor

    from fitdoctor.preflight.bench import Bench


@probe("PRE009", "dead-units", cost=Cost(passes=8, examples=2_000),
       explains=["one-batch-not-learned", "input-ignored", "labels-not-learned"], since="0.1.0")  # fmt: skip
def dead_units(bench: Bench, *, dead: float = 0.5, flat: float = 0.05, examples: int = 2_000) -> Iterator[Finding]:
    """Most units of a layer are zero, or saturated, on every input.

    Why it matters:
        A ReLU that is zero on every input, or a sigmoid that is always at its end, passes on no gradient: it stays so.

    How it is measured:
        Every call of relu, sigmoid and tanh in a forward pass over about `examples` examples is watched. A unit (or
        channel) is dead when it is zero for all of them and all places, saturated when for the median example its
        slope is below `flat` of the largest. More than `dead` of the units of a layer make a finding. The last
        activation before the loss is left out, and so are sigmoids whose output multiplies something (gates).

    Options:
        dead: share of the units of a layer.
        flat: slope relative to the largest below which sigmoid and tanh are saturated.
        examples: how many examples are looked at.

    When it is wrong:
        Gates are meant to saturate; a trained sparse model may have many dead units and be sound.

    What to do:
        Normalise the inputs, initialise for the activation, use an activation with a slope on both sides.

    References:
        Lu et al. 2019 (1903.06733): deep narrow ReLU nets are born dead.
    """
    import torch

    alive: list[Tensor] = []
    kinds: list[str] = []
    count = 0
    with torch.no_grad(), bench.mode(training=True, dropout=False):
        for batch in bench.batches(examples):
            calls = bench.run(batch, keep_activations=True).spy.activations
            calls = calls[:-1] if calls and calls[-1].kind != "relu" else calls
            measured = [_moving(call.kind, call.output, flat) for call in calls]
            if not alive:
                alive, kinds = measured, [c.kind for c in calls]
            elif len(measured) == len(alive) and all(a.shape == b.shape for a, b in zip(alive, measured, strict=True)):
                alive = [a + b for a, b in zip(alive, measured, strict=True)]
            else:
                raise CannotJudge("the activations differ from batch to batch")
            count += len(batch)
    if not alive:
        raise CannotJudge("no relu, sigmoid or tanh is called")
    if count < 128:
        raise CannotJudge(f"{count} examples in the training loader, 128 are needed")
    bad: list[tuple[float, int, str]] = []
    for i, (kind, share) in enumerate(zip(kinds, alive, strict=True)):
        if kind == "sigmoid" and len(share) < 8:
            continue
        still = float((share <= (0 if kind == "relu" else 0.5 * count)).float().mean())
        if still > dead and len(share) >= 8:
            bad.append((still, i, kind))
    if not bad:
        return
    worst, place, kind = max(bad)
    word = "zero" if kind == "relu" else "saturated"
    names = [f"{k} {i + 1} ({s:.0%})" for s, i, k in bad]
    yield finding(
        f"{worst:.0%} of the units of activation {place + 1} ({kind}) are {word} on all of {count:,} inputs",
        WARNING, HIGH if worst > 0.8 else MEDIUM,
        seen("activation_dead_fraction" if kind == "relu" else "activation_saturated_fraction",
             f"above {dead:.0%} in {some(names, 4)}", f"below {dead:.0%} in every layer"),
        remedies=[check_initialisation()],
        could_be=("gates that are meant to be closed",) if kind != "relu" else (),
    )  # fmt: skip


def _moving(kind: str, output: Tensor, flat: float) -> Tensor:
    """float[units], for how many examples a unit has a slope: channels for maps, the last dimension otherwise."""
    values = output.detach()
    values = values.flatten(2).movedim(1, -1) if values.ndim > 3 or (values.ndim == 3 and kind == "relu") else values
    if kind == "relu":
        live = values != 0
    elif kind == "tanh" or kind == "hardtanh":
        live = 1 - values.square() > flat
    else:
        live = 4 * values * (1 - values) > flat
    if live.ndim > 2:
        live = live.flatten(1, -2).any(1)
    return live.float().sum(0)
