"""Advice on the optimizer's settings: second moments, epsilon, weight decay, batch size, groups, fine-tuning."""

from __future__ import annotations

from fitdoctor.finding import Change, Remedy


def shorten_second_moment(beta2: float = 0.95) -> Remedy:
    """Let Adam's second moment follow the gradient faster."""
    return Remedy(
        title=f"lower Adam's beta2 to {beta2:g}",
        why="a second moment that averages over 1 / (1 - beta2) steps lags behind a gradient that grows at once, and "
        "the step is too long by as much (Wortsman et al. 2023)",
        change=Change("beta2", "set", beta2),
        code={
            "pytorch": f"optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, {beta2:g}))",
            "transformers": f"TrainingArguments(..., adam_beta2={beta2:g})",
        },
        unless="batches are tiny: the second moment then needs a long memory to average their noise out",
        confirm="adam_surprise stays below 2.3 and the loss no longer jumps after it",
        kind="learning rate",
    )


def clip_updates() -> Remedy:
    """Divide a tensor's step by its surprise where that is above 1."""
    return Remedy(
        title="clip updates: divide a tensor's rate by its root mean square of gradient / sqrt(second moment) above 1",
        why="it shortens exactly the steps that the second moment has not caught up with; clipping the gradient cuts "
        "all tensors for the surprise of one (StableAdamW, Wortsman et al. 2023)",
        change=Change("update_clipping", "enable"),
        code={
            "pytorch": (
                "surprise = (p.grad.square() / state['exp_avg_sq'].clamp(min=eps**2)).mean().sqrt()\n"
                "rate = lr / max(1.0, surprise.item())      # per tensor, before its step"
            ),
            "transformers": "TrainingArguments(..., optim='stable_adamw')",
        },
        confirm="update_ratio no longer jumps with adam_surprise",
        kind="clipping",
    )


def lower_epsilon(eps: float = 1e-12) -> Remedy:
    """Lower Adam's epsilon below the gradients."""
    return Remedy(
        title=f"lower Adam's epsilon to {eps:g}, or undo what makes the loss so small",
        why="where epsilon exceeds the root of the second moment, Adam is SGD with the rate lr / epsilon, whose steps "
        "shrink with the gradient",
        change=Change("eps", "set", eps),
        code={
            "pytorch": f"optimizer = torch.optim.AdamW(model.parameters(), lr=lr, eps={eps:g})",
            "transformers": f"TrainingArguments(..., adam_epsilon={eps:g})",
        },
        unless="the states are in half precision, where a small epsilon is zero: keep them in float32 first",
        confirm="adam_tiny_fraction falls below one half and update_norm rises towards lr times sqrt(parameters)",
        kind="learning rate",
    )


def balance_layers() -> Remedy:
    """Give the layers rates, or initial weights, that let all of them move."""
    return Remedy(
        title="give the slow layers a parameter group with a higher rate, or an adaptive optimizer to all",
        why="one rate cannot fit layers whose relative updates differ a thousandfold: the slow ones stay as they were "
        "initialised",
        code={
            "pytorch": (
                "optimizer = torch.optim.AdamW([\n"
                "    {'params': slow.parameters(), 'lr': 10 * lr},\n"
                "    {'params': fast.parameters(), 'lr': lr}])"
            ),
        },
        unless="the slow layers are pretrained and are meant to stay",
        confirm="the medians of update_ratio over the layers lie within two decades",
        kind="learning rate",
    )


def larger_batch(factor: int = 4, *, rate_factor: float | None = None) -> Remedy:
    """Average the gradient over more samples, by accumulation where memory is short."""
    return Remedy(
        title=f"make the batch about {factor} times as large (or accumulate), and tune the rate anew",
        why="below the noise scale the steps of a batch mostly cancel each other; a larger one takes about as many "
        "times fewer steps (McCandlish et al. 2018)",
        change=Change("batch_size", "multiply", factor),
        code={
            "pytorch": (
                "for i, (x, y) in enumerate(loader):\n"
                f"    (criterion(model(x), y) / {factor}).backward()\n"
                f"    if i % {factor} == {factor - 1}:\n"
                "        optimizer.step(); optimizer.zero_grad()"
            ),
            "lightning": f"Trainer(accumulate_grad_batches={factor})",
            "transformers": f"TrainingArguments(..., gradient_accumulation_steps={factor})",
        },
        unless="it is meant to improve generalisation: with retuned settings the batch size does not limit it",
        confirm="the loss per step falls faster, and about as fast per sample",
        kind="learning rate",
    )


def smaller_batch(factor: int = 4) -> Remedy:
    """Take more steps with fewer samples each."""
    return Remedy(
        title=f"make the batch about {factor} times smaller, and tune the rate anew",
        why="above the noise scale more samples hardly change the direction of a step: the same samples in smaller "
        "batches give more steps",
        change=Change("batch_size", "multiply", round(1 / factor, 4)),
        code={"transformers": f"TrainingArguments(..., per_device_train_batch_size=batch_size // {factor})"},
        unless="wall time counts, not samples, and the device is filled only by the large batch",
        confirm="the loss per sample falls faster",
        kind="learning rate",
    )


def fine_tune_gently(rate: float | None = None) -> Remedy:
    """A small rate with a warm-up, the new head first."""
    value = f"{rate:.2g}" if rate else "2e-5"
    return Remedy(
        title=f"fine-tune at a rate of about {value} with a warm-up over the first tenth, the new head first",
        why="the first long steps through an untrained head undo what pretraining had learned (Kumar et al. 2022)",
        change=Change("learning_rate", "set", float(value)),
        code={
            "pytorch": (
                "for p in backbone.parameters(): p.requires_grad_(False)    # one epoch for the head alone\n"
                "...\n"
                "for p in backbone.parameters(): p.requires_grad_(True)\n"
                "optimizer = torch.optim.AdamW([\n"
                f"    {{'params': backbone.parameters(), 'lr': {value}}},\n"
                f"    {{'params': head.parameters(), 'lr': 10 * {value}}}])"
            ),
            "transformers": f"TrainingArguments(..., learning_rate={value}, warmup_ratio=0.1)",
        },
        unless="the target domain is far from the one of pretraining and the data are many",
        confirm="validation never falls below its level before fine-tuning",
        kind="learning rate",
    )


def lower_weight_decay(current: float | None = None, *, usual: float = 0.01) -> Remedy:
    """The usual decay or a tenth of the run's, whichever is less; none on norms and biases.

    Args:
        current: weight decay of this run.
        usual: what the optimizer is used with: 0.01 for decoupled decay (torch's AdamW), 1e-4 where it is part of the
            gradient (He et al. 2016).
    """
    less = float(f"{min(0.1 * current, usual):.2g}") if current else None
    value = f"{less:g}" if less else "0.1 * weight_decay"
    return Remedy(
        title=f"lower the weight decay to {value}, and leave norms and biases out of it"
        if less
        else "lower the weight decay tenfold, and leave norms and biases out of it",
        why="the decay shrinks the weights faster than the gradient rebuilds them",
        change=Change("weight_decay", "set", less) if less else Change("weight_decay", "multiply", 0.1),
        code={
            "pytorch": (
                "matrices = [p for p in model.parameters() if p.ndim > 1]\n"
                "vectors = [p for p in model.parameters() if p.ndim <= 1]\n"
                f"optimizer = torch.optim.AdamW([{{'params': matrices, 'weight_decay': {value}}},\n"
                "    {'params': vectors, 'weight_decay': 0.0}], lr=lr)"
            ),
            "transformers": f"TrainingArguments(..., weight_decay={value})",
        },
        confirm="the training loss falls below this run's floor and validation does not get worse",
        kind="regularisation",
    )
