"""PRE004 parameters-not-trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import ERROR, HIGH, MEDIUM, NOTE, WARNING, finding, seen, some
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies import check_updates
from fitdoctor.remedies.before_run import own_all_parameters, register_layers, set_learning_rate
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fitdoctor.preflight.bench import Bench


@probe(
    "PRE004",
    "parameters-not-trained",
    cost=Cost(passes=3),
    explains=["one-batch-not-learned", "input-ignored", "learning-rate-out-of-range", "labels-not-learned"],
    since="0.1.0",
    worth=3,
    vital=True,
)
def parameters_not_trained(bench: Bench) -> Iterator[Finding]:
    """The optimizer does not hold parameters of the model, or its step does not move them.

    Why it matters:
        A layer that was added, replaced, moved or wrapped after the optimizer was made stays as it is, in silence.

    How it is measured:
        The trainable parameters of the model are compared with those of the optimizer by identity, so tied weights
        count once. Then three steps are taken; every parameter that had a gradient, above what rounding takes away,
        must have changed in at least one entry. Parameters that the loss depends on and that are kept in plain lists
        or attributes, where ``model.parameters()`` does not find them, are found in the graph of the loss.

    Options:
        None.

    When it is wrong:
        An optimizer over a part of the model trains just that part, perhaps on purpose: a warning with medium
        confidence unless it holds nothing of the model at all. Frozen parameters (requires_grad False) are no
        finding. A rate of 0 under a scheduler is the beginning of a warm-up.

    What to do:
        Make the optimizer last; freeze what is meant to stay.

    References:
        TrainCheck (2506.14813) and its collection of silent errors; PyTorch documentation, torch.optim.
    """
    owned = {id(p) for group in bench.optimizer.param_groups for p in group["params"]}
    trainable = bench.trainable
    if not trainable:
        hidden = list(_unregistered(bench, owned))
        yield from hidden
        if hidden:
            return
        yield finding(
            "the model has no trainable parameter",
            ERROR,
            HIGH,
            seen("parameters_without_grad", "every parameter has requires_grad False", "some to train"),
            remedies=[own_all_parameters()],
        )
        return
    yield from _unregistered(bench, owned)
    missing = [name for name, p in trainable.items() if id(p) not in owned]
    if missing:
        none = len(missing) == len(trainable)
        share = sum(trainable[n].numel() for n in missing) / sum(p.numel() for p in trainable.values())
        yield finding(
            f"the optimizer holds no parameter of this model ({len(missing)} tensors)"
            if none
            else f"{len(missing)} of {len(trainable)} tensors ({share:.0%} of the entries) are not in the optimizer",
            ERROR if none else WARNING,
            HIGH if none else MEDIUM,
            seen("parameters_without_grad", f"not in the optimizer: {some(missing, 5)}", "all trainable parameters"),
            remedies=[own_all_parameters()],
            could_be=() if none else ("only a part is meant to be trained",),
        )
    if len(missing) < len(trainable):
        yield from _unmoved(bench, {n: p for n, p in trainable.items() if id(p) in owned})


def _unregistered(bench: Bench, owned: set[int]) -> Iterator[Finding]:
    """Parameters that the loss depends on, kept where the model does not find them."""
    known = {id(p) for p in bench.model.parameters()}
    hidden = {path: p for path, p in _kept_aside(bench.model) if id(p) not in known | owned and p.requires_grad}
    if not hidden:
        return
    with bench.mode(training=True):
        used = _leaves(bench.run(bench.batch(1 << 30)).loss)
    names = [path for path, p in hidden.items() if id(p) in used]
    if not names:
        return
    size = sum(hidden[n].numel() for n in names)
    share = size / (size + sum(p.numel() for p in bench.trainable.values()))
    yield finding(
        f"{len(names)} tensors of the forward pass ({share:.0%} of the entries) are not registered in the model",
        ERROR,
        HIGH,
        seen("parameters_without_grad", f"kept in plain attributes: {some(names, 5)}", "all in model.parameters()"),
        remedies=[register_layers()],
    )


def _kept_aside(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters in plain lists, tuples, dicts and attributes of a model and its modules, with where they are."""
    import torch

    for home, module in model.named_modules():
        start = f"{home}." if home else ""
        own = {k: v for k, v in vars(module).items() if k not in ("_parameters", "_buffers", "_modules")}
        todo: list[tuple[str, object, int]] = [(start + key, value, 0) for key, value in own.items()]
        while todo:
            path, value, depth = todo.pop()
            if isinstance(value, torch.nn.Module):
                if value is not module:
                    yield from ((f"{path}.{name}", p) for name, p in value.named_parameters())
            elif isinstance(value, torch.Tensor):
                if value.is_leaf:
                    yield path, value
            elif depth < 3 and isinstance(value, list | tuple | dict) and len(value) < 1_000:
                items = value.items() if isinstance(value, dict) else enumerate(value)
                todo.extend((f"{path}[{key!r}]", item, depth + 1) for key, item in items)


def _leaves(loss: Tensor) -> set[int]:
    """Ids of the leaf tensors that a loss depends on."""
    found: set[int] = set()
    seen_nodes: set[object] = set()
    todo = [loss.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen_nodes:
            continue
        seen_nodes.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            found.add(id(variable))
        todo.extend(following for following, _ in node.next_functions)
    return found


def _pushes(p: Tensor, rate: float) -> bool:
    """Whether a parameter has a gradient; in full precision one that a step of this rate does not round away."""
    if p.grad is None or not bool(p.grad.any()):
        return False
    if p.dtype.itemsize < 4:
        return True
    return float(p.grad.abs().max()) * rate > 1e-6 * float(p.detach().abs().max())


def _unmoved(bench: Bench, owned: dict[str, object]) -> Iterator[Finding]:
    import torch

    from fitdoctor.preflight.recipe import PATIENCE

    rates = [float(g.get("lr", 1.0)) for g in bench.optimizer.param_groups]
    if not any(rates):
        if bench.scheduler is not None:
            raise CannotJudge("the learning rate is 0 before the scheduler's first step")
        yield finding(
            "the learning rate is 0: no step can move anything",
            ERROR,
            HIGH,
            seen("lr", "0 in every parameter group", "above 0"),
            remedies=[set_learning_rate()],
        )
        return
    still = {id(p) for g in bench.optimizer.param_groups if not float(g.get("lr", 1.0)) for p in g["params"]}
    weights = {n: p for n, p in bench.trainable.items() if n in owned and id(p) not in still}
    before = {n: p.detach().clone() for n, p in weights.items()}
    pushed: set[str] = set()
    with bench.mode(training=True):
        batches = bench.batches(1)
        taken = 0
        for _ in range(PATIENCE):
            done = bench.run(batches[0])
            if not torch.isfinite(done.loss):
                raise CannotJudge("the loss is not finite")
            bench.optimizer.zero_grad(set_to_none=True)
            bench.recipe.backward(done.loss)
            pushing = {n for n, p in weights.items() if _pushes(p, max(rates))}
            if bench.update(bench.optimizer, batches[0]):  # a scaler skips its first steps
                taken += 1
                pushed |= pushing
            if taken == 3:
                break
        else:
            raise CannotJudge(f"the gradient scaler skips {PATIENCE - taken} of {PATIENCE} steps")
    unmoved = [n for n in sorted(pushed) if torch.equal(before[n], weights[n].detach())]
    if not unmoved:
        return
    coarse = [n for n in unmoved if weights[n].dtype in (torch.float16, torch.bfloat16)]
    yield finding(
        f"{len(unmoved)} of {len(pushed)} tensors with a gradient do not move in three steps",
        ERROR if len(unmoved) == len(pushed) else WARNING if not coarse else NOTE,
        HIGH if not coarse else MEDIUM,
        seen("update_norm", f"unchanged: {some(unmoved, 5)}", "every entry with a gradient moves"),
        remedies=[check_updates()],
        could_be=(f"steps too small for {str(weights[coarse[0]].dtype)[6:]}",) if coarse else (),
    )
