"""Did the step help its own batch as much as the gradient promised?

For a small enough step the loss of the batch falls by the inner product of gradient and update. The ratio of
the actual to this predicted decrease is near 1 for a careful step, below 0.3 near the stability limit and 0
or less beyond it: a measure of the learning rate that needs no threshold on the rate itself (the gain ratio
of trust region methods; Vaswani et al. 2019 on the same batch).

The batch is run again after the step, in the mode and with the random numbers of its first pass.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fitdoctor.live.parameters import gradient
from fitdoctor.live.probes.guard import untouched
from fitdoctor.live.step import Batch, View
from fitdoctor.live.transport import Row
from fitdoctor.run import FloatArray
from fitdoctor.signals import STEP_QUALITY


class StepQuality:
    """Measures one step; made before its forward pass.

    Args:
        model: the model, in the state in which the batch is about to run.
        params: the parameters that the optimizer will change.
        device: device type of the model, "cpu" or "cuda".
    """

    def __init__(self, model: nn.Module, params: list[Tensor], device: torch.device) -> None:
        self._model = model
        self._params = params
        self._device = device
        self._random = torch.get_rng_state()
        self._device_random = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        self._buffers = [(b, b.detach().clone()) for b in model.buffers()]
        kind = device.type
        self._autocast = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        self._weights = [p.detach().clone() for p in params]

    def measure(
        self,
        row: Row,
        batch: Batch,
        view: View,
        criterion: nn.Module,
        loss: Tensor | float,
        clip_factor: Tensor | float,
    ) -> None:
        """Run the batch again after the step.

        Args:
            row: receives the ratio.
            batch: the batch of the step.
            view: how the loop passed the model's output on to the criterion, squeezed or flattened for example.
            criterion: the loss module.
            loss: its value before the step.
            clip_factor: what clipping multiplied the gradient with.
        """
        with torch.no_grad():
            promised = torch.zeros((), device=self._device)
            for p, before in zip(self._params, self._weights, strict=True):
                g = gradient(p.grad)
                if g is not None and g.shape == before.shape:
                    promised -= (g.float() * (p.detach() - before).float()).sum()
        with untouched(self._model), self._precision():
            torch.set_rng_state(self._random)
            if self._device_random is not None:
                torch.cuda.set_rng_state(self._device_random, self._device)
            for buffer, value in self._buffers:
                buffer.copy_(value)
            output = self._model(*batch.args, **batch.kwargs).contiguous().as_strided(*view)
            after = criterion(output, *batch.criterion_args[1:]).detach().float()
        first = torch.as_tensor(loss, dtype=torch.float32, device=self._device)
        factor = torch.as_tensor(clip_factor, dtype=torch.float32, device=self._device)
        row.add(_Ratio(), torch.stack([first.reshape(()) - after.reshape(()), promised / factor.reshape(())]))

    def _precision(self) -> AbstractContextManager[Any]:
        enabled, dtype = self._autocast
        return torch.autocast(self._device.type, dtype) if enabled else nullcontext()


class _Ratio:
    def __call__(self, row: Row, values: FloatArray) -> list[Any]:
        actual, promised = float(values[0]), float(values[1])
        if not promised > 0:  # momentum may carry a step uphill for its batch; nothing was promised then
            return []
        return [row.point(STEP_QUALITY, actual / promised)]
