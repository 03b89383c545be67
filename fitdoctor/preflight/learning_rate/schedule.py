"""A schedule for a given number of steps: how long to warm up, how high to go, how to come down."""

from __future__ import annotations

from dataclasses import dataclass

from fitdoctor.errors import ConfigError

WARM_UP = 0.05
"""Share of the steps that warm up; the tuning playbook (Godbole et al. 2023) keeps it below a tenth."""

ADAPTIVE = 200
"""Steps that an optimizer with second moments warms up at least: 1 / (1 - beta2) is 1,000 for Adam, and its estimate
is useful after a fifth of that."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A proposal.

    Attributes:
        peak: highest rate.
        warm_up: steps from near zero to the peak.
        total: all steps.
        kind: "cosine" or "linear" decay to zero.
        code: ready code, for ``optimizer`` and a loop that calls ``scheduler.step()`` after each optimizer step.
    """

    peak: float
    warm_up: int
    total: int
    kind: str
    code: str

    def rate(self, step: int) -> float:
        """The rate of an optimizer step, counted from 0."""
        import math

        if step < self.warm_up:
            return self.peak * (step + 1) / self.warm_up
        done = min(1.0, (step - self.warm_up) / max(1, self.total - self.warm_up))
        return self.peak * (0.5 * (1 + math.cos(math.pi * done)) if self.kind == "cosine" else 1 - done)


def propose(peak: float, total: int, optimizer: str, kind: str = "cosine") -> Schedule:
    """A warm-up over a twentieth of the steps, and a decay to zero.

    Raises:
        ConfigError: if the number of steps or the kind makes no sense.
    """
    if total < 1:
        raise ConfigError(f"schedule: expected 1 step or more, got {total}")
    if kind not in ("cosine", "linear"):
        raise ConfigError(f"schedule: expected kind 'cosine' or 'linear', got {kind!r}")
    adaptive = "ada" in optimizer.lower()
    warm_up = round(WARM_UP * total)
    if adaptive:
        warm_up = max(warm_up, min(ADAPTIVE, total // 10))
    # Plain SGD at a rate well inside the stable range needs none in a short training.
    warm_up = max(1, warm_up)
    shape = "0.5 * (1 + math.cos(math.pi * done))" if kind == "cosine" else "1 - done"
    code = (
        "import math\n"
        "import torch\n"
        "\n"
        "for group in optimizer.param_groups:            # groups keep their ratios to the first\n"
        f"    group['lr'] *= {peak:.3g} / base_lr\n"
        f"warm_up, total = {warm_up}, {total}              # optimizer steps\n"
        "\n"
        "def factor(step):\n"
        "    if step < warm_up:\n"
        "        return (step + 1) / warm_up\n"
        "    done = min(1.0, (step - warm_up) / max(1, total - warm_up))\n"
        f"    return {shape}\n"
        "\n"
        "scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)\n"
        "# in the loop, once per optimizer step: optimizer.step(); scheduler.step()\n"
    )
    head = "base_lr = optimizer.param_groups[0]['lr']\n"
    code = code.replace("\nfor group", f"\n{head}for group")
    return Schedule(peak, warm_up, total, kind, code)
