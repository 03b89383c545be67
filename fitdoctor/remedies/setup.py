"""Advice on bookkeeping: modes, gradients, optimizers, schedulers and processes that are wired up wrongly."""

from __future__ import annotations

from collections.abc import Sequence

from fitdoctor.finding import Change, Remedy


def clear_gradients() -> Remedy:
    """Clear gradients once per optimizer step."""
    return Remedy(
        title="call optimizer.zero_grad() once per step, before backward",
        why="backward adds to what is in .grad; without clearing, each step follows the sum of all batches so far",
        change=Change("zero_grad", "enable"),
        code={
            "pytorch": (
                "optimizer.zero_grad(set_to_none=True)\n"
                "loss = criterion(model(x), y)\n"
                "loss.backward()\n"
                "optimizer.step()"
            ),
            "lightning": "opt = self.optimizers(); opt.zero_grad()     # only needed with manual optimization",
        },
        confirm="grad_leftover is 0 at every record, and the gradient norm no longer grows with the step",
        kind="bug",
    )


def clear_gradients_once(count: int | None = None) -> Remedy:
    """Clear gradients after the step, not before each accumulated batch."""
    n = count or "accumulate"
    return Remedy(
        title="clear gradients once per optimizer step, not before every accumulated batch",
        why="a zero_grad between the batches throws away what the earlier ones contributed",
        change=Change("zero_grad", "enable"),
        code={
            "pytorch": (
                f"(criterion(model(x), y) / {n}).backward()\n"
                f"if (i + 1) % {n} == 0:\n"
                "    optimizer.step()\n"
                "    optimizer.zero_grad()"
            ),
            "lightning": f"Trainer(accumulate_grad_batches={n})",
            "transformers": f"TrainingArguments(..., gradient_accumulation_steps={n})",
        },
        confirm="zero_grad_calls is 1 per step, and the gradient equals that of one large batch",
        kind="bug",
    )


def divide_accumulated_loss(count: int | None = None) -> Remedy:
    """Average over accumulated batches."""
    n = count or "accumulate"
    return Remedy(
        title=f"divide the loss by the number of accumulated batches{f', {count}' if count else ''}",
        why="the sum makes gradient, clipping and weight decay depend on how a batch is cut into pieces",
        change=Change("accumulated_loss", "set", "mean"),
        code={
            "pytorch": f"loss = criterion(model(x), y) / {n}\nloss.backward()",
            "lightning": f"Trainer(accumulate_grad_batches={n})     # divides by itself",
            "transformers": f"TrainingArguments(..., gradient_accumulation_steps={n})",
        },
        unless="the learning rate was chosen for the sum: then divide the loss and multiply the rate",
        confirm="the gradient norm does not depend on the number of accumulated batches",
        kind="bug",
    )


def connect_parameters(names: Sequence[str] = ()) -> Remedy:
    """Wire idle parameters into the loss, or take them out of the optimizer."""
    first = next((n for n in names if isinstance(n, str)), "head.weight") if not isinstance(names, str) else names
    return Remedy(
        title="connect these parameters to the loss, or freeze them and leave them out of the optimizer",
        why="a parameter without gradient keeps its first value; detach, no_grad, .item() and numpy cut the graph",
        change=Change("loss_graph", "set", "whole"),
        code={
            "pytorch": (
                "loss.backward()\n"
                "print([n for n, p in model.named_parameters() if p.requires_grad and p.grad is None])\n"
                f"model.get_parameter({first!r}).requires_grad_(False)     # where it is meant"
            ),
        },
        unless="they belong to a branch that is used rarely, such as an expert",
        confirm="the list is empty, or holds only what is meant to be idle",
        kind="bug",
    )


def train_all_parameters() -> Remedy:
    """Unfreeze what was frozen with requires_grad=False."""
    return Remedy(
        title="unfreeze the frozen layers and give them to the optimizer",
        why="frozen layers keep the values they have; where those are random, or made for another task, the layers "
        "behind them have nothing to learn from",
        change=Change("trainable_parameters", "set", "all"),
        code={
            "pytorch": (
                "print([n for n, p in model.named_parameters() if not p.requires_grad])\n"
                "model.requires_grad_(True)     # before the optimizer is made"
            ),
        },
        unless="they hold pretrained weights that are meant to stay: then unfreeze the last of them first",
        confirm="the training loss falls below the level that it came to rest at",
        kind="bug",
    )


def switch_to_train_mode() -> Remedy:
    """Return to train mode after every evaluation."""
    return Remedy(
        title="call model.train() after every evaluation, and before the first step",
        why="in eval mode dropout is off, and batch norm uses running statistics that it no longer updates",
        change=Change("train_mode", "enable"),
        code={
            "pytorch": (
                "for epoch in range(epochs):\n"
                "    model.train()\n"
                "    ...                      # the epoch\n"
                "    model.eval()\n"
                "    ...                      # the evaluation"
            ),
        },
        unless="frozen statistics are meant, as in fine-tuning: then freeze batch norm alone",
        confirm="train_mode is 1 at every record",
        kind="bug",
    )


def switch_to_eval_mode() -> Remedy:
    """Evaluate in eval mode."""
    return Remedy(
        title="call model.eval() before the evaluation and model.train() after it",
        why="dropout adds noise to what is measured, and batch norm learns from validation data",
        change=Change("eval_mode", "enable"),
        code={
            "pytorch": (
                "model.eval()\nwith torch.no_grad():\n    ...                      # the evaluation\nmodel.train()"
            ),
        },
        unless="the noise is meant, as in Monte Carlo dropout",
        confirm="the same evaluation twice gives the same numbers",
        kind="bug",
    )


def replace_batch_norm() -> Remedy:
    """Normalise over something else than a tiny batch."""
    return Remedy(
        title="replace batch norm by group or layer norm, or give it a larger batch",
        why="means and variances of a few values are noise, and those that evaluation uses fit none of them",
        change=Change("normalisation", "set", "group"),
        code={
            "pytorch": (
                "norm = nn.GroupNorm(32, 256)                                    # instead of nn.BatchNorm2d(256)\n"
                "model = nn.SyncBatchNorm.convert_sync_batchnorm(model)          # with several processes"
            ),
            "lightning": "Trainer(sync_batchnorm=True)",
        },
        unless="batch norm is frozen; accumulating batches does not help, each is normalised alone",
        confirm="loss in train and in eval mode agree on the same batch",
        kind="initialisation",
    )


def synchronise_ranks() -> Remedy:
    """Start equal and step equally on all processes."""
    return Remedy(
        title="wrap the model in DistributedDataParallel before making the optimizer, and step through the wrapper",
        why="copies stay equal only if they start equal and apply the same averaged gradient",
        change=Change("gradient_averaging", "enable"),
        code={
            "pytorch": (
                "model = nn.parallel.DistributedDataParallel(model)\n"
                "optimizer = torch.optim.AdamW(model.parameters())\n"
                "loss = criterion(model(x), y)        # through the wrapper, not through model.module"
            ),
        },
        unless="processes are meant to train apart between averages (local SGD)",
        confirm="rank_disagreement is 0 at every record",
        kind="bug",
    )


def call_optimizer_step() -> Remedy:
    """Step the optimizer."""
    return Remedy(
        title="call optimizer.step() after backward, once per batch or per group of accumulated batches",
        why="backward only computes gradients; nothing but the optimizer's step changes a weight",
        change=Change("optimizer_step", "enable"),
        code={
            "pytorch": ("optimizer.zero_grad()\ncriterion(model(x), y).backward()\noptimizer.step()"),
            "lightning": "self.manual_backward(loss); self.optimizers().step()     # only with manual optimization",
        },
        unless="another optimizer, not given to the monitor, steps these parameters",
        confirm="update_norm is above 0 at every record",
        kind="bug",
    )


def own_parameters(names: str = "") -> Remedy:
    """Give the optimizer all trainable parameters."""
    first = names.partition(",")[0].strip() or "head.weight"
    return Remedy(
        title="give the optimizer these parameters, or freeze them with requires_grad_(False)",
        why="the optimizer does not hold them: gradients are computed for them and never used",
        change=Change("optimizer_parameters", "set", "trainable"),
        code={
            "pytorch": (
                "optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)\n"
                f"model.get_parameter({first!r}).requires_grad_(False)     # where it is meant"
            ),
        },
        unless="another optimizer, not given to the monitor, steps them",
        confirm="trainable_tensors_not_in_optimizer is 0",
        kind="bug",
    )


def match_loss_shapes() -> Remedy:
    """Give input and target of the loss one shape."""
    return Remedy(
        title="give the loss an input and a target of the same shape",
        why="shapes that differ are broadcast: each output is compared with every target, and fits their mean at best",
        change=Change("loss_shapes", "set", "equal"),
        code={
            "pytorch": (
                "output = model(x).squeeze(-1)        # [n, 1] -> [n], like y\n"
                "assert output.shape == y.shape, (output.shape, y.shape)\n"
                "loss = nn.MSELoss()(output, y)"
            ),
        },
        confirm="the loss falls below the variance of the target",
        kind="bug",
    )


def remove_sigmoid() -> Remedy:
    """Give a loss with its own sigmoid raw scores."""
    return Remedy(
        title="remove the sigmoid at the end of the model: BCEWithLogitsLoss takes raw scores",
        why="it applies the sigmoid itself; of a value between 0 and 1 that leaves 0.5 to 0.73",
        change=Change("loss_input", "set", "logits"),
        code={"pytorch": "loss = nn.BCEWithLogitsLoss()(self.head(x), y)       # sigmoid only for display"},
        confirm="the loss falls below 0.31, the least that scores between 0 and 1 can reach",
        kind="bug",
    )


def pass_log_probabilities() -> Remedy:
    """Give NLLLoss log-probabilities, or use CrossEntropyLoss."""
    return Remedy(
        title="use CrossEntropyLoss, or put log_softmax before NLLLoss",
        why="NLLLoss takes log-probabilities; of raw scores it is minus the score of the label, without a lower end",
        change=Change("loss_input", "set", "log_probabilities"),
        code={
            "pytorch": (
                "loss = nn.CrossEntropyLoss()(scores, y)\n"
                "loss = nn.NLLLoss()(F.log_softmax(scores, dim=-1), y)     # the same"
            ),
        },
        confirm="the loss is positive and starts near ln(classes)",
        kind="bug",
    )


def use_bfloat16() -> Remedy:
    """Train in bfloat16, which has the range of float32."""
    return Remedy(
        title="train in bfloat16 autocast, without a gradient scaler",
        why="bfloat16 has the range of float32: nothing that float32 can hold overflows or underflows in it",
        change=Change("precision", "set", "bf16-mixed"),
        code={
            "pytorch": 'with torch.autocast("cuda", dtype=torch.bfloat16):\n    loss = criterion(model(x), y)',
            "lightning": 'Trainer(precision="bf16-mixed")',
            "transformers": "TrainingArguments(..., bf16=True)",
        },
        unless="the device has no bfloat16 (before NVIDIA's Ampere)",
        confirm="no step is skipped, and the loss falls",
        kind="bug",
    )


def scale_gradients() -> Remedy:
    """Scale the loss in float16."""
    return Remedy(
        title="scale the loss with a GradScaler, or train in bfloat16",
        why="gradients below 6e-8 are 0 in float16; multiplying the loss lifts them into its range",
        change=Change("gradient_scaler", "enable"),
        code={
            "pytorch": (
                'scaler = torch.amp.GradScaler("cuda")\n'
                "scaler.scale(loss).backward()\n"
                "scaler.step(optimizer); scaler.update()"
            ),
            "lightning": 'Trainer(precision="16-mixed")',
            "transformers": "TrainingArguments(..., fp16=True)",
        },
        confirm="activation_grad_rms times the loss scale stays above 2.4e-7 in every layer",
        kind="bug",
    )


def keep_master_weights() -> Remedy:
    """Keep weights in float32."""
    return Remedy(
        title="keep the weights in float32 and compute in bfloat16 autocast",
        why="bfloat16 has 8 bits of precision: a change below a 512th of a weight is rounded away, every time",
        change=Change("precision", "set", "bf16-mixed"),
        code={
            "pytorch": (
                'model.float()\nwith torch.autocast("cuda", dtype=torch.bfloat16):\n    loss = criterion(model(x), y)'
            ),
            "lightning": 'Trainer(precision="bf16-mixed")     # not "bf16-true"',
            "transformers": "TrainingArguments(..., bf16=True)     # with the model loaded in float32",
        },
        unless="the optimizer rounds stochastically or keeps what was rounded off (Kahan summation)",
        confirm="update_lost_fraction falls to about 0, and the loss falls further",
        kind="bug",
    )


def step_scheduler_after_optimizer() -> Remedy:
    """Call the scheduler after the optimizer."""
    return Remedy(
        title="call scheduler.step() after optimizer.step()",
        why="called before it, the scheduler's first value is skipped",
        change=Change("scheduler_order", "set", "after"),
        code={"pytorch": "optimizer.step()\nscheduler.step()"},
        confirm="the first logged learning rate is the first of the schedule",
        kind="learning rate",
    )


def step_scheduler_at_all() -> Remedy:
    """Call the scheduler."""
    return Remedy(
        title="call scheduler.step(): once per optimizer step or once per epoch, as its length was counted",
        why="a scheduler changes nothing until it is stepped",
        change=Change("scheduler_step", "enable"),
        code={"pytorch": "for epoch in range(epochs):\n    ...                      # the epoch\n    scheduler.step()"},
        confirm="scheduler_calls is above 0, and the learning rate follows its plan",
        kind="learning rate",
    )
