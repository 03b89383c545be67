"""Advice on the learning rate and its schedule."""

from __future__ import annotations

import math
from typing import Literal

from fitdoctor.finding import Change, Remedy

Decay = Literal["cosine", "step", "plateau"]


def lower_learning_rate(factor: float = 0.1, *, current: float | None = None) -> Remedy:
    """Multiply the learning rate by `factor` (< 1); `current` makes the code concrete."""
    value = _times(factor, current)
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
        confirm="`fitdoctor compare BEFORE AFTER` shows that the training loss ends lower and jitters less",
        kind="learning rate",
    )


def search_learning_rate() -> Remedy:
    """Run a range test, then train at a third to a tenth of the rate where the loss breaks away."""
    return Remedy(
        title="run a learning-rate range test and train at a third to a tenth of the rate where it diverges",
        why="one short ramp shows the stable edge for this model and batch size (Smith 2017)",
        code={
            "pytorch": (
                "import fitdoctor\n"
                "# up to 3 ramps of 200 steps, from the weights as they are; everything is put back afterwards\n"
                "print(fitdoctor.find_lr(model, criterion, optimizer, loader))"
            ),
            "lightning": "lightning.pytorch.tuner.Tuner(trainer).lr_find(model)",
        },
        confirm="`fitdoctor compare BEFORE AFTER` shows that the training loss ends lower",
        kind="learning rate",
    )


def start_from_published_rate(
    optimizer: str = "", *, batch_size: int | None = None, pretrained: bool = False
) -> Remedy:
    """The rate that papers start from with this optimizer, scaled to the batch size.

    Args:
        optimizer: name of the optimizer; SGD or one of Adam's family.
        batch_size: samples per optimizer step.
        pretrained: the weights are fine-tuned.
    """
    adaptive = "sgd" not in optimizer.lower()
    # SGD with momentum: 0.1 at a batch of 256, linear in the batch (Goyal et al. 2017). Adam: 1e-3 (Kingma & Ba 2015),
    # at a batch of 128 as in its experiments, square root of the batch (Malladi et al. 2022). Fine-tuning with AdamW:
    # 2e-5 (Devlin et al. 2019).
    if adaptive:
        rate = 2e-5 if pretrained else 1e-3 * math.sqrt((batch_size or 128) / 128)
        law = "the square root of the batch size"
    else:
        rate = (0.001 if pretrained else 0.1) * (batch_size or 256) / 256
        law = "the batch size"
    value = f"{rate:.2g}"
    what = "fine-tuning" if pretrained else "training from scratch"
    return Remedy(
        title=f"start from the rate that papers use: about {value} for {optimizer or 'Adam'} and {what}",
        why=f"published rates lie within a factor of ten of the best for most models, and scale with {law}",
        change=Change("learning_rate", "set", float(value)),
        code={
            "pytorch": f"for group in optimizer.param_groups:  # before making a scheduler\n    group['lr'] = {value}",
            "lightning": f"torch.optim.AdamW(self.parameters(), lr={value})  # in configure_optimizers",
            "transformers": f"TrainingArguments(..., learning_rate={value})",
        },
        unless="the paper of your architecture names another: take that one, scaled to your batch size",
        confirm="`fitdoctor compare BEFORE AFTER` shows that the training loss ends lower",
        kind="learning rate",
    )


def raise_learning_rate(factor: float = 3.0, *, current: float | None = None) -> Remedy:
    """Multiply the learning rate by `factor` (> 1)."""
    value = _times(factor, current)
    return Remedy(
        title=f"raise the learning rate about {factor:.2g}-fold, again while it helps",
        why="the loss falls steadily and almost noiselessly: longer steps would cover the same way sooner",
        change=Change("learning_rate", "multiply", factor),
        code={
            "pytorch": f"for group in optimizer.param_groups:  # before making a scheduler\n    group['lr'] = {value}",
            "lightning": f"torch.optim.AdamW(self.parameters(), lr={value})  # in configure_optimizers",
            "transformers": f"TrainingArguments(..., learning_rate={value})",
        },
        unless="you fine-tune a pretrained model and validation is at its best: small rates are meant there",
        confirm="`fitdoctor compare BEFORE AFTER` shows that the final loss of this run is reached in a fraction of "
        "its steps",
        kind="learning rate",
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
            "lightning": (
                f"warmup = torch.optim.lr_scheduler.LinearLR(opt, 1e-3, 1.0, total_iters={n})\n"
                "return {'optimizer': opt, 'lr_scheduler': {'scheduler': warmup, 'interval': 'step'}}"
            ),
            "transformers": f"TrainingArguments(..., warmup_steps={n})",
        },
        unless="the loss is smooth from the first step on: then a warm-up only costs steps",
        confirm="`fitdoctor compare BEFORE AFTER` shows that the loss does not rise in the first 5 % of the steps",
        kind="learning rate",
    )


def shorten_warm_up(steps: int | None = None) -> Remedy:
    """Make the warm-up shorter."""
    n = str(steps) if steps else "warmup_steps"
    return Remedy(
        title=f"shorten the warm-up to about {n} steps" if steps else "shorten the warm-up",
        why="the run spends much of its budget below the rate it was given",
        change=Change("warmup_steps", "set", steps) if steps else None,
        code={
            "pytorch": f"warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, 1.0, total_iters={n})",
            "transformers": f"TrainingArguments(..., warmup_steps={n})",
        },
        confirm="the peak rate is reached within the first tenth of the steps, and `fitdoctor analyze AFTER` finds no "
        "early instability",
        kind="learning rate",
    )


def decay_learning_rate(how: Decay = "cosine", *, total: int | None = None, evaluations: int | None = None) -> Remedy:
    """Anneal the learning rate to about zero by the end of the run.

    Args:
        how: "cosine", "step" (a tenth at a half and at three quarters) or "plateau" (a tenth when validation stalls).
        total: optimizer steps of the run.
        evaluations: validations in the run; the patience on a plateau is a tenth of them.
    """
    steps = str(total) if total else "total_steps"
    scheduler = {
        "cosine": f"torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max={steps})",
        "step": (
            f"torch.optim.lr_scheduler.MultiStepLR(optimizer, [{steps} // 2, 3 * {steps} // 4], gamma=0.1)"
            if total is None
            else f"torch.optim.lr_scheduler.MultiStepLR(optimizer, [{total // 2}, {3 * total // 4}], gamma=0.1)"
        ),
        "plateau": (
            "torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, "
            f"patience={max(3, (evaluations or 30) // 10)})"
        ),
    }[how]
    call = "# after each validation:\nscheduler.step(val_loss)" if how == "plateau" else (
        "# after each optimizer.step():\nscheduler.step()"
    )  # fmt: skip
    monitor = ", 'monitor': 'val_loss'" if how == "plateau" else ", 'interval': 'step'"
    words = {"cosine": "along a cosine", "step": "in two steps", "plateau": "when validation stalls"}[how]
    names = {"cosine": "cosine", "step": "multi-step", "plateau": "plateau"}
    kinds = {"cosine": "cosine", "step": "constant_with_warmup", "plateau": "reduce_lr_on_plateau"}
    code = {
        "pytorch": f"scheduler = {scheduler}\n{call}",
        "lightning": (
            ("steps = self.trainer.estimated_stepping_batches\n" if "total_steps" in scheduler else "")
            + f"scheduler = {scheduler.replace('optimizer', 'opt').replace('total_steps', 'steps')}\n"
            + f"return {{'optimizer': opt, 'lr_scheduler': {{'scheduler': scheduler{monitor}}}}}"
        ),
        "transformers": f"TrainingArguments(..., lr_scheduler_type={kinds[how]!r})",
    }
    if how == "step":
        del code["transformers"]  # it has no such schedule by name
    return Remedy(
        title=f"decay the learning rate to about zero over the run, {words}",
        why="at a constant rate the loss settles at a floor set by gradient noise times the rate",
        change=Change("schedule", "set", names[how]),
        code=code,
        unless="the rate was annealed already: then the floor is the model's or the data's",
        confirm="`fitdoctor compare BEFORE AFTER` shows that the loss drops while the rate falls; 5-10 % of the "
        "budget, spent on "
        "an annealed branch, show it first",
        kind="learning rate",
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
            "lightning": "StochasticWeightAveraging(swa_lrs=1e-3)      # a callback of the Trainer",
        },
        unless="the model has BatchNorm and its statistics are not re-estimated for the average",
        confirm="`fitdoctor compare BEFORE AFTER` shows that the average's validation loss is lower, and smoother",
        kind="learning rate",
    )


def stretch_schedule(factor: float = 2.0) -> Remedy:
    """Train longer with the whole schedule stretched, not with a tail at a tiny rate."""
    return Remedy(
        title=f"train about {factor:.2g} times as long, with the schedule stretched over the new length",
        why="the loss was still falling when the run ended",
        change=Change("epochs", "multiply", factor),
        code={
            "pytorch": (
                f"new_total_steps = round({factor:g} * total_steps)\n"
                "scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=new_total_steps)"
            ),
            "lightning": f"Trainer(max_epochs=int({factor:g} * max_epochs))",
            "transformers": f"TrainingArguments(..., num_train_epochs={factor:g} * num_train_epochs)",
        },
        unless="the rate had already been decayed to zero: appending epochs then adds nothing",
        confirm="`fitdoctor compare BEFORE AFTER` shows that the loss at its own end lies below this run's, and is "
        "flat there",
        kind="learning rate",
    )


def step_scheduler_once(total: int | None = None, unit: str = "step") -> Remedy:
    """Give the scheduler the number of times that it is really called."""
    n = str(total) if total else "total_steps"
    return Remedy(
        title=f"match the scheduler's length to its calls: {n} {unit}s, stepped once per {unit}",
        why="a scheduler counts its own calls; with T_max in epochs and a call per batch it runs many times too fast",
        change=Change("schedule_length", "set", total) if total else Change("scheduler_interval", "set", unit),
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
        confirm="the logged learning rate reaches its lowest value at the last step, and not before: "
        "`fitdoctor analyze AFTER` names the schedule that it sees",
        kind="bug",
    )


def _times(factor: float, current: float | None) -> str:
    return f"{current * factor:.3g}" if current else f"{factor:g} * lr"
