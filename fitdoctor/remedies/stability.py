"""Advice on gradients, initialisation and numerics."""

from __future__ import annotations

from fitdoctor.finding import Change, Remedy


def clip_gradients(max_norm: float | None = None) -> Remedy:
    """Clip the global gradient norm, at the 90th percentile of the norms observed."""
    n = f"{max_norm:.3g}" if max_norm else "p90_of_grad_norm"
    return Remedy(
        title=f"clip the gradient norm at {n}",
        why="rare large gradients make rare large steps; the 90th percentile of sound norms leaves the rest alone",
        change=Change("clip_norm", "set", float(f"{max_norm:.3g}")) if max_norm else None,
        code={
            "pytorch": f"torch.nn.utils.clip_grad_norm_(model.parameters(), {n})   # between backward() and step()",
            "lightning": f"Trainer(gradient_clip_val={n})",
            "transformers": f"TrainingArguments(..., max_grad_norm={n})",
        },
        unless="more than half of the steps would be clipped: then the learning rate is the cause",
        confirm="`fitdoctor compare BEFORE AFTER` shows that p99 of the norm stays below ten times its median, the "
        "loss no worse",
        kind="clipping",
    )


def raise_clip_norm(max_norm: float | None = None, *, current: float | None = None) -> Remedy:
    """Raise the clipping threshold to the 90th percentile of the norms observed, or lower the rate instead.

    Args:
        max_norm: that percentile.
        current: the threshold, where the norms before clipping are not known. Then 1 is advised, which most programs
            clip at (the default of Hugging Face's Trainer), or ten times as much as now.
    """
    if max_norm is None and current:
        max_norm = 1.0 if current < 0.3 else 10 * current
    n = f"{max_norm:.3g}" if max_norm else "p90_of_grad_norm"
    return Remedy(
        title=f"raise the clipping threshold to about {n}, or drop clipping and lower the learning rate",
        why="with most steps cut to the same length, the threshold sets the step size, the gradient only the direction",
        change=Change("clip_norm", "set", float(n)) if max_norm else None,
        code={
            "pytorch": f"torch.nn.utils.clip_grad_norm_(model.parameters(), {n})",
            "lightning": f"Trainer(gradient_clip_val={n})",
            "transformers": f"TrainingArguments(..., max_grad_norm={n})",
        },
        unless="you mean it: normalised steps with an adaptive optimizer train large models well",
        confirm="about one step in ten is clipped, and `fitdoctor compare BEFORE AFTER` shows a loss no higher",
        kind="clipping",
    )


def check_initialisation() -> Remedy:
    """Match the initialisation to the activation, add normalisation or residual connections."""
    return Remedy(
        title="match initialisation to the activation, and add normalisation or residual connections",
        why="the gradient grows or shrinks by a constant factor per layer; these set that factor to one",
        change=Change("initialisation", "set", "kaiming"),
        code={
            "pytorch": (
                "for m in model.modules():\n"
                "    if isinstance(m, (nn.Linear, nn.Conv2d)):\n"
                "        nn.init.kaiming_normal_(m.weight, nonlinearity='relu')   # xavier_normal_ for tanh\n"
                "        if m.bias is not None: nn.init.zeros_(m.bias)"
            ),
        },
        confirm="gradient norms by layer of the first 10 steps lie within two decades: `fitdoctor analyze AFTER`",
        kind="initialisation",
    )


def shorten_gradient_path() -> Remedy:
    """Residual connections, normalisation, activations that do not saturate."""
    return Remedy(
        title="give the gradient a short path: residual connections, normalisation, ReLU-like activations",
        why="each saturating layer multiplies the gradient by less than one; early layers get next to nothing",
        change=Change("residual_connections", "enable"),
        code={
            "pytorch": (
                "def forward(self, x):\n"
                "    return x + self.block(self.norm(x))     # nn.LayerNorm or nn.BatchNorm before the block"
            ),
        },
        unless="the task is solved: small gradients are then what is expected",
        confirm="`fitdoctor analyze AFTER` shows that gradient norms of the first and last third lie within two "
        "decades",
        kind="initialisation",
    )


def find_first_nonfinite() -> Remedy:
    """Locate the operation that produced the first nan or inf."""
    return Remedy(
        title="find the operation that produced the first non-finite value",
        why="the loss only shows that it happened; the operation says why (log 0, division by 0, overflow, bad input)",
        code={
            "pytorch": (
                "assert torch.isfinite(x).all() and torch.isfinite(y).all()     # the batch itself\n"
                "with torch.autograd.set_detect_anomaly(True):                  # on that step only: slow\n"
                "    loss = criterion(model(x), y); loss.backward()"
            ),
            "lightning": "Trainer(detect_anomaly=True)",
        },
        confirm="the trace names the forward operation; after the fix the same batch gives a finite loss",
        kind="bug",
    )


def inspect_batches() -> Remedy:
    """Look at the batches at which it happened."""
    return Remedy(
        title="look at the batches at those steps, and mend or remove outliers and corrupt samples",
        why="isolated jumps with recovery usually come from a few samples",
        change=Change("outlying_examples", "disable"),
        confirm="the same samples raise the loss again with other weights",
        kind="data",
    )
