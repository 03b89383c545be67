"""The steps of a Keras optimizer on the torch backend, which is no optimizer of torch and has no hooks.

optimizer.apply(gradients)         of every batch: unscaled, unless the loss scale drops them
    (adds them up; the rest only when enough batches have been)
    _clip_gradients(gradients)     begin_step: these are the gradients, and what it returns is what the step sees
    weight decay, update
end_step
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from fitdoctor.live.stepping import StepSource
from fitdoctor.live.taps import Tap


class KerasSteps(StepSource):
    """Follows the optimizer of a model.

    Args:
        model: the model, with its optimizer built.

    Attributes:
        accumulated: batches per step.
        by_batch: the optimizer's methods cannot be followed, as under ``jit_compile``: whoever makes this calls
            `begin_step` and `end_step` at each batch.
    """

    def __init__(self, model: Any) -> None:
        outer = model.optimizer
        self._inner = inner_optimizer(outer)
        super().__init__(type(self._inner).__name__, [v.value for v in model.trainable_variables])
        self.accumulated = int(self._inner.gradient_accumulation_steps or 1)
        self.by_batch = bool(model.jit_compile) or not hasattr(self._inner, "_clip_gradients")
        self._scaled = outer is not self._inner or bool(self._inner.loss_scale_factor)
        self._fixed = _settings(self._inner)
        self._moments = _Moments(self._inner, self._parameters)
        self.state = self._moments
        self._applied = self._open = self._cleared = self._over = False
        self._variables: list[Any] = []
        self._seen: dict[int, Tensor] = {}
        self._unclipped: dict[int, Tensor] = {}
        self._taps = (Tap("the gradients of the step", self._note), Tap("the optimizer's step", self._finish))
        self._methods: list[tuple[Any, str, Callable[..., Any]]] = []
        if not self.by_batch:
            self._replace(model, "zero_grad", self._zero_grad)
            self._replace(self._inner, "apply", self._apply)
            self._replace(self._inner, "_clip_gradients", self._clip)

    @property
    def steps(self) -> int:
        """Steps that the optimizer counts as done; read from its device."""
        return int(self._inner.iterations)

    @property
    def divides(self) -> float:
        """What gradients are divided by between the backward pass and the step."""
        return self.accumulated * float(self._inner.loss_scale_factor or 1)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """One group, with the learning rate of the step that was taken last."""
        return [{"params": self._parameters, "lr": self._rate(), **self._fixed}]

    def _rate(self) -> float | Tensor:
        rate = getattr(self._inner, "_learning_rate", None)
        if any(c.__name__ == "LearningRateSchedule" for c in type(rate).__mro__):
            done = self._inner._iterations.value
            rate = rate(done - 1 if self._over else done)  # type: ignore[misc]
        else:
            rate = self._inner.learning_rate
        value = getattr(rate, "value", rate)
        return value.detach() if isinstance(value, Tensor) and value.device.type != "cpu" else float(value)

    def gradient_of(self, parameter: Tensor) -> Tensor | None:
        """The gradient as the step saw it; None where that is not known."""
        if self.by_batch:
            return None if self._scaled or self.accumulated > 1 else parameter.grad
        return self._seen.get(id(parameter))

    def unclipped_gradient_of(self, parameter: Tensor) -> Tensor | None:
        """The gradient before it was clipped; None where nothing clips."""
        return self._unclipped.get(id(parameter))

    def batch_over(self) -> None:
        """A batch is over: where the loss scale dropped its gradients, they are gone."""
        if not self.by_batch and not self._applied:
            self.zero_grad()
        self._applied = False

    def begin_step(self) -> None:
        """A step is about to be taken."""
        self._over = False
        super().begin_step()

    def end_step(self) -> None:
        """The step is taken."""
        self._over = True
        self._moments.count += 1
        if self.by_batch:  # as the training step of Keras does for each batch
            self.zero_grad()
        super().end_step()

    def detach(self) -> None:
        """Give the model and the optimizer their own methods back."""
        for owner, name, ours in self._methods:
            if owner.__dict__.get(name) is ours:
                del owner.__dict__[name]
        self._methods.clear()

    # --- in place of methods --------------------------------------------------------------------------

    def _replace(self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        ours = make(getattr(owner, name))
        # Not by setattr, which Keras watches; saving and copying a model make it anew, without it.
        owner.__dict__[name] = ours
        self._methods.append((owner, name, ours))

    def _zero_grad(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def zero_grad(*args: Any, **kwargs: Any) -> Any:
            self._cleared = True
            return original(*args, **kwargs)

        return zero_grad

    def _apply(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def apply(grads: Any, trainable_variables: Any = None, **kwargs: Any) -> Any:
            self._applied, self._open = True, False
            known = self._inner._trainable_variables if trainable_variables is None else trainable_variables
            if isinstance(grads, Sequence) and isinstance(known, Sequence):
                self._variables = [v for g, v in zip(grads, known, strict=False) if g is not None]
            found = original(grads, trainable_variables, **kwargs)
            if self._open:
                self._taps[1]()
            return found

        return apply

    def _clip(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def clip_gradients(grads: Any) -> Any:
            clipped = original(grads)
            self._taps[0](grads, clipped)
            return clipped

        return clip_gradients

    def _note(self, before: Sequence[Any], after: Sequence[Any]) -> None:
        """The gradients of a step are there."""
        keys = [id(v.value) for v in self._variables if not getattr(v, "overwrite_with_gradient", False)]
        self._seen, self._unclipped = {}, {}
        if len(keys) == len(before) == len(after):
            self._seen = dict(zip(keys, after, strict=True))
            if any(a is not b for a, b in zip(before, after, strict=True)):
                self._unclipped = dict(zip(keys, before, strict=True))
        self._open = True
        self.begin_step()

    def _finish(self) -> None:
        self._open = False
        if self._cleared:
            self._cleared = False
            self.zero_grad()
        self.end_step()
        self._seen, self._unclipped = {}, {}


class _Moments(Mapping[Tensor, Any]):
    """Adam's second moments under the names of torch, empty before the first step.

    Attributes:
        count: steps that they average over.
    """

    def __init__(self, optimizer: Any, parameters: Sequence[Tensor]) -> None:
        self.count = int(optimizer.iterations)
        self._parameters = parameters
        moments = getattr(optimizer, "_velocities", ()) if "adam" in type(optimizer).__name__.lower() else ()
        known = getattr(optimizer, "_trainable_variables", ())
        pairs = zip(known, moments, strict=True) if len(known) == len(moments) else ()
        self._moments = {id(v.value): m.value for v, m in pairs if m is not None}

    def __getitem__(self, parameter: Tensor) -> dict[str, Any]:
        moment = self._moments.get(id(parameter))
        return {} if moment is None else {"exp_avg_sq": moment, "step": self.count}

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters) if self.count else 0


class KerasScale:
    """A `LossScaleOptimizer` in the place of a GradScaler.

    Args:
        optimizer: the optimizer, built.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer

    @property
    def _scale(self) -> Tensor:
        value: Tensor = self._optimizer.dynamic_scale.value
        return value.detach()

    def get_scale(self) -> float:
        """The scale; waits for its device."""
        return float(self._scale)

    def is_enabled(self) -> bool:
        """It is where it is used."""
        return True


def inner_optimizer(optimizer: Any) -> Any:
    """The optimizer that a loss scale is wrapped around."""
    while getattr(optimizer, "inner_optimizer", None) is not None:
        optimizer = optimizer.inner_optimizer
    return optimizer


def _settings(optimizer: Any) -> dict[str, Any]:
    names = {"momentum": "momentum", "epsilon": "eps", "weight_decay": "weight_decay"}
    found = {ours: getattr(optimizer, theirs, None) for theirs, ours in names.items()}
    settings: dict[str, Any] = {k: float(v) for k, v in found.items() if isinstance(v, int | float)}
    betas = [getattr(optimizer, name, None) for name in ("beta_1", "beta_2")]
    if all(isinstance(b, int | float) for b in betas):
        settings["betas"] = tuple(float(b) for b in betas if b is not None)
    return settings
