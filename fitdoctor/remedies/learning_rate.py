"""Advice on the learning rate and its schedule."""

from __future__ import annotations

from fitdoctor.finding import Change, Remedy


def lower_learning_rate(factor: float = 0.1, *, current: float | None = None) -> Remedy:
    """Multiply the learning rate by `factor` (< 1); `current` makes the code concrete."""
    value = f"{current * factor:.3g}" if current else f"{factor:g} * lr"
    return Remedy(
        title=f"lower the learning rate about {1 / factor:.2g}-fold",
        why="steps overshoot: the loss stays high or jumps because each step is too long for the curvature",
        change=Change("learning_rate", "multiply", factor),
        code={
            "pytorch": f"for group in optimizer.param_groups:  # before making a scheduler\n    group['lr'] = {value}",
            "lightning": f"torch.optim.AdamW(self.parameters(), lr={value})  # in configure_optimizers",
            "transformers": f"TrainingArguments(..., learning_rate={value})",
        },
        unless="the loss is just as flat at a rate 100 times lower: then labels, loss or data are at fault",
        confirm="the loss falls below this run's best within a tenth of the steps, and jitters less",
    )


def search_learning_rate() -> Remedy:
    """Run a range test, then train at a third to a tenth of the rate where the loss breaks away."""
    return Remedy(
        title="run a learning-rate range test and train at a third to a tenth of the rate where it diverges",
        why="one short ramp shows the stable edge for this model and batch size (Smith 2017)",
        code={
            "pytorch": (
                "for step, (x, y) in enumerate(loader):            # 100-300 steps, fresh weights\n"
                "    for g in optimizer.param_groups: g['lr'] = 1e-7 * 10 ** (8 * step / 200)\n"
                "    ...                                           # usual step; log loss against lr"
            ),
            "lightning": "lightning.pytorch.tuner.Tuner(trainer).lr_find(model)",
        },
        confirm="the chosen rate lies below the point where the smoothed loss turns up",
    )


def raise_learning_rate(factor: float = 3.0, *, current: float | None = None) -> Remedy:
    """Multiply the learning rate by `factor` (> 1)."""
    value = f"{current * factor:.3g}" if current else f"{factor:g} * lr"
    return Remedy(
        title=f"raise the learning rate about {factor:.2g}-fold, again while it helps",
        why="the loss falls steadily and almost noiselessly: longer steps would cover the same way sooner",
        change=Change("learning_rate", "multiply", factor),
        code={
            "pytorch": f"for group in optimizer.param_groups:  # before making a scheduler\n    group['lr'] = {value}",
            "transformers": f"TrainingArguments(..., learning_rate={value})",
        },
        unless="you fine-tune a pretrained model and validation is at its best: small rates are meant there",
        confirm="the loss of the first tenth of the steps falls about as far as this whole run did",
    )


def warm_up(steps: int | None = None) -> Remedy:
    """Ramp the learning rate up linearly over the first `steps` steps."""
    n = str(steps) if steps else "warmup_steps"
    return Remedy(
        title=f"warm the learning rate up linearly over the first {n} steps" if steps else "warm the learning rate up",
        why="early curvature is highest; a ramp lets the weights reach a region that tolerates the full rate",
        change=Change("warmup_steps", "set", steps) if steps else None,
        code={
            "pytorch": (
                f"warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, 1.0, total_iters={n})\n"
                f"scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, scheduler], [{n}])"
            ),
            "transformers": f"TrainingArguments(..., warmup_steps={n})",
        },
        unless="the loss is smooth from the first step on: then a warm-up only costs steps",
        confirm="no rise of the loss and no peak of the gradient norm in the first 5 % of the steps",
    )


def shorten_warm_up(steps: int | None = None) -> Remedy:
    """Make the warm-up shorter."""
    n = str(steps) if steps else "warmup_steps"
    return Remedy(
        title=f"shorten the warm-up to about {n} steps" if steps else "shorten the warm-up",
        why="the run spends much of its budget below the rate it was given",
        change=Change("warmup_steps", "set", steps) if steps else None,
        code={"transformers": f"TrainingArguments(..., warmup_steps={n})"},
        confirm="the peak rate is reached within the first tenth of the steps, with no early instability",
    )


def decay_learning_rate() -> Remedy:
    """Anneal the learning rate to about zero by the end of the run."""
    return Remedy(
        title="decay the learning rate to about zero over the run (cosine or linear)",
        why="at a constant rate the loss settles at a floor set by gradient noise times the rate",
        change=Change("schedule", "set", "cosine"),
        code={
            "pytorch": (
                "scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total_steps)\n"
                "# after each optimizer.step():\nscheduler.step()"
            ),
            "lightning": (
                "steps = self.trainer.estimated_stepping_batches\n"
                "scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=steps)\n"
                "return {'optimizer': opt, 'lr_scheduler': {'scheduler': scheduler, 'interval': 'step'}}"
            ),
            "transformers": "TrainingArguments(..., lr_scheduler_type='cosine')",
        },
        confirm="the loss drops while the rate falls; 5-10 % of the budget spent on an annealed branch shows it first",
    )


def average_weights() -> Remedy:
    """Average the weights over the last part of training."""
    return Remedy(
        title="average the weights (EMA) and evaluate the average",
        why="averaging removes most of the noise that the rate leaves in the weights, without a new schedule",
        change=Change("weight_averaging", "enable"),
        code={
            "pytorch": (
                "from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn\n"
                "ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))\n"
                "ema.update_parameters(model)    # after each optimizer.step(); evaluate ema"
            ),
        },
        unless="the model has BatchNorm and its statistics are not re-estimated for the average",
        confirm="the averaged model's validation loss is below and smoother than the raw one's",
    )


def stretch_schedule(factor: float = 2.0) -> Remedy:
    """Train longer with the whole schedule stretched, not with a tail at a tiny rate."""
    return Remedy(
        title=f"train about {factor:.2g} times as long, with the schedule stretched over the new length",
        why="the loss was still falling when the run ended",
        change=Change("epochs", "multiply", factor),
        code={
            "pytorch": "scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=new_total_steps)",
            "lightning": f"Trainer(max_epochs=int({factor:g} * max_epochs))",
            "transformers": f"TrainingArguments(..., num_train_epochs={factor:g} * num_train_epochs)",
        },
        unless="the rate had already been decayed to zero: appending epochs then adds nothing",
        confirm="the loss at the end lies below this run's, and is flat there",
    )


def step_scheduler_once(total: int | None = None, unit: str = "step") -> Remedy:
    """Give the scheduler the number of times that it is really called."""
    n = str(total) if total else "total_steps"
    return Remedy(
        title=f"match the scheduler's length to its calls: {n} {unit}s, stepped once per {unit}",
        why="a scheduler counts its own calls; with T_max in epochs and a call per batch it runs many times too fast",
        change=Change("schedule_length", "set", total) if total else None,
        code={
            "pytorch": (
                "total_steps = epochs * len(loader)\n"
                "scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total_steps)\n"
                "for x, y in loader:\n    ...; optimizer.step(); scheduler.step()    # once per optimizer step"
            ),
            "lightning": (
                "steps = self.trainer.estimated_stepping_batches\n"
                "sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=steps)\n"
                "return {'optimizer': opt, 'lr_scheduler': {'scheduler': sched, 'interval': 'step'}}"
            ),
            "transformers": "TrainingArguments(..., lr_scheduler_type='cosine')   # Trainer sets the length itself",
        },
        confirm="the logged learning rate reaches its lowest value at the last step, and not before",
    )
