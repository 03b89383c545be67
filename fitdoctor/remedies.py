"""Advice, each piece worded once. Rules choose among these and order them best first.

Order of evidence: bug fixes, data, normalisation and initialisation, learning rate and schedule,
clipping, regularisation, capacity (the tuning playbook of Godbole et al. 2023 puts a lower learning
rate last among the cures of instability; Karpathy's recipe of 2019 puts data first among those of
overfitting).
"""

from __future__ import annotations

from fitdoctor.finding import Change, Remedy

# --- learning rate and schedule --------------------------------------------------------------------


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


# --- stability --------------------------------------------------------------------------------------


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
        confirm="p99 over median of the pre-clip norm falls below 10, and the final loss is no worse",
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
        confirm="per-layer gradient norms of the first 10 steps lie within two decades of each other",
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
    )


def inspect_batches() -> Remedy:
    """Look at the batches at which it happened."""
    return Remedy(
        title="look at the batches at those steps: labels, lengths, outliers, corrupt samples",
        why="isolated jumps with recovery usually come from a few samples",
        confirm="the same samples raise the loss again with other weights",
    )


# --- bugs and checks -------------------------------------------------------------------------------


def overfit_one_batch() -> Remedy:
    """Overfit one small batch: the test that separates bugs from tuning."""
    return Remedy(
        title="overfit one batch of 8-32 examples, without dropout, augmentation or weight decay",
        why="a model that cannot memorise one batch has a bug (loss, labels, frozen or detached parts), "
        "not a tuning problem",
        code={
            "pytorch": (
                "x, y = next(iter(loader))\n"
                "for _ in range(200):\n"
                "    optimizer.zero_grad(); loss = criterion(model(x), y); loss.backward(); optimizer.step()\n"
                "print(loss.item())     # should be near zero"
            ),
            "lightning": "Trainer(overfit_batches=1, max_epochs=200)",
        },
        confirm="the loss falls to near zero; if it does not, the fault is in code or data",
    )


def check_updates() -> Remedy:
    """Check that the optimizer owns the model's parameters and that a step moves them."""
    return Remedy(
        title="check that the optimizer holds this model's parameters and that a step moves them",
        why="a model re-created, moved or wrapped after the optimizer was made trains tensors that nobody uses",
        code={
            "pytorch": (
                "owned = {id(p) for g in optimizer.param_groups for p in g['params']}\n"
                "print([n for n, p in model.named_parameters() if p.requires_grad and id(p) not in owned])\n"
                "before = [p.detach().clone() for p in model.parameters()]\n"
                "...                                        # one usual step\n"
                "print(sum(bool((a != b).any()) for a, b in zip(before, model.parameters())), 'tensors moved')"
            ),
        },
        confirm="every trainable tensor is owned and moves; the validation loss changes between evaluations",
    )


def check_labels() -> Remedy:
    """Check that inputs and labels belong together and that the loss gets what it expects."""
    return Remedy(
        title="check that inputs and labels belong together, and what the loss is given",
        why="shuffled or shifted labels and a wrong loss input keep any model at chance",
        code={"pytorch": "x, y = next(iter(loader)); print(x.shape, x.mean(), x.std(), y.shape, y.dtype, y.unique())"},
        confirm="a linear model or nearest neighbours beats chance on the same batches",
    )


# --- fit -------------------------------------------------------------------------------------------


def use_best_checkpoint(step: int | None = None, unit: str = "step") -> Remedy:
    """Use the checkpoint with the best validation result."""
    where = f" ({unit} {step})" if step is not None else ""
    return Remedy(
        title=f"use the checkpoint with the best validation result{where}",
        why="it costs nothing, and later weights generalise worse",
        change=Change("checkpoint", "set", step) if step is not None else Change("checkpoint", "set", "best"),
        code={
            "pytorch": "if val_loss < best:\n    best = val_loss; torch.save(model.state_dict(), 'best.pt')",
            "lightning": "ModelCheckpoint(monitor='val_loss', mode='min')",
            "transformers": "TrainingArguments(..., load_best_model_at_end=True, metric_for_best_model='eval_loss')",
        },
        confirm="the test result of that checkpoint is at least as good as the last one's",
    )


def stop_early(patience: int | None = None) -> Remedy:
    """Stop when validation has not improved for a while."""
    n = patience or 10
    return Remedy(
        title=f"stop when validation has not improved for {n} evaluations",
        why="the rest of the budget makes it worse",
        change=Change("early_stopping_patience", "set", n),
        code={
            "lightning": f"EarlyStopping(monitor='val_loss', patience={n})",
            "transformers": f"EarlyStoppingCallback(early_stopping_patience={n})",
        },
        unless="the schedule has not annealed yet: the best results often come at its end",
        confirm="the run ends near its best checkpoint",
    )


def more_data() -> Remedy:
    """Get more training data, or augment what there is."""
    return Remedy(
        title="train on more data, or augment what there is",
        why="the model fits what does not generalise because the examples leave it free to",
        change=Change("augmentation", "enable"),
        unless="training accuracy is low as well: then it is underfitting",
        confirm="validation loss keeps falling past the old best epoch",
    )


def regularise() -> Remedy:
    """Weight decay, dropout or label smoothing."""
    return Remedy(
        title="regularise: decoupled weight decay, dropout, or label smoothing",
        why="it makes fitting noise cost something",
        change=Change("weight_decay", "set", 0.01),
        code={
            "pytorch": (
                "# AdamW, because plain Adam couples the decay with the scale of the gradient\n"
                "optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)"
            ),
            "transformers": "TrainingArguments(..., weight_decay=0.01)",
        },
        unless="the training loss is high too",
        confirm="the validation loss no longer rises, while training loss ends a little higher",
    )


def pretrained_or_smaller() -> Remedy:
    """Start from pretrained weights, or use a smaller model."""
    return Remedy(
        title="start from pretrained weights, or use a smaller model",
        why="both leave less freedom to memorise",
        unless="training loss is not yet low, or label noise suggests double descent: then a smaller model can hurt",
        confirm="the gap between training and validation loss narrows at the same or better validation loss",
    )


def calibrate_outputs() -> Remedy:
    """Temperature scaling on the validation set."""
    return Remedy(
        title="scale the logits by one temperature fitted on the validation set, or use label smoothing",
        why="accuracy holds while the loss rises: the model grows overconfident in the examples it gets wrong "
        "(Guo et al. 2017)",
        change=Change("label_smoothing", "set", 0.1),
        code={
            "pytorch": "criterion = nn.CrossEntropyLoss(label_smoothing=0.1)",
            "transformers": "TrainingArguments(..., label_smoothing_factor=0.1)",
        },
        unless="only accuracy matters: then select the checkpoint by accuracy and ignore the loss",
        confirm="validation loss no longer rises, accuracy unchanged",
    )


def add_capacity() -> Remedy:
    """Give the model more capacity."""
    return Remedy(
        title="give the model more capacity (2-4 times the width)",
        why="it fits the training data no better than the validation data, and both poorly",
        change=Change("width", "multiply", 2),
        unless="one batch cannot be overfitted, or labels are suspect: then it is a bug",
        confirm="the training loss falls below this run's floor at a re-tuned learning rate",
    )


def less_regularisation() -> Remedy:
    """Remove regularisation, one kind at a time."""
    return Remedy(
        title="remove dropout, augmentation or weight decay, one at a time",
        why="regularisation that keeps the training loss high cannot help validation",
        change=Change("dropout", "set", 0.0),
        confirm="the training loss falls and the validation loss with it",
    )


def evaluate_more(n: int | None = None) -> Remedy:
    """Use a larger validation set or average several evaluations."""
    return Remedy(
        title=f"validate on about {n:,} examples, or average neighbouring evaluations"
        if n
        else "use a larger validation set",
        why="differences between epochs are smaller than the sampling error of the validation set",
        change=Change("n_val", "set", n) if n else None,
        confirm="the epoch-to-epoch scatter of the validation metric halves when n is four times as large",
    )


# --- gradients, numerics -----------------------------------------------------------------------------


def log_nonfinite_values() -> Remedy:
    """Make the logger write nan instead of hiding it."""
    return Remedy(
        title="switch off the logger's nan filter, so that the log shows when the loss is not finite",
        why="a hidden nan costs the rest of the run, and the run looks like the best of all",
        change=Change("logging_nan_inf_filter", "disable"),
        code={"transformers": "TrainingArguments(..., logging_nan_inf_filter=False)"},
        confirm="the next log shows nan, or no zeros",
    )


def shorten_gradient_path() -> Remedy:
    """Residual connections, normalisation, activations that do not saturate."""
    return Remedy(
        title="give the gradient a short path: residual connections, normalisation, ReLU-like activations",
        why="each saturating layer multiplies the gradient by less than one; early layers get next to nothing",
        code={
            "pytorch": (
                "def forward(self, x):\n"
                "    return x + self.block(self.norm(x))     # nn.LayerNorm or nn.BatchNorm before the block"
            ),
        },
        unless="the task is solved: small gradients are then what is expected",
        confirm="gradient norms of the first and last third lie within two decades, and early weights move",
    )


def raise_clip_norm(max_norm: float | None = None) -> Remedy:
    """Raise the clipping threshold to the 90th percentile of the norms observed, or lower the rate instead."""
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
        confirm="about one step in ten is clipped, and the loss falls at least as fast",
    )


# --- schedule, data, setup ---------------------------------------------------------------------------


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


def shuffle_batches() -> Remedy:
    """Shuffle anew in every epoch."""
    return Remedy(
        title="shuffle the training data anew in every epoch",
        why="the same batches in the same order repeat the same gradient noise; order becomes something to learn",
        change=Change("shuffle", "enable"),
        code={
            "pytorch": (
                "loader = DataLoader(dataset, batch_size=64, shuffle=True)\n"
                "sampler.set_epoch(epoch)      # with a DistributedSampler, before every epoch"
            ),
            "lightning": "DataLoader(dataset, shuffle=True)   # the Trainer calls set_epoch itself",
        },
        unless="the order is meant: curricula, time series with state, buckets by length",
        confirm="the loss of batch i in one epoch no longer predicts that of batch i in the next",
    )


def pass_raw_logits() -> Remedy:
    """Remove the softmax before the cross-entropy."""
    return Remedy(
        title="remove the softmax at the end of the model: CrossEntropyLoss takes raw logits",
        why="it applies log-softmax itself; fed with probabilities it cannot tell 0.9 from certain, and gradients fade",
        change=Change("final_softmax", "disable"),
        code={
            "pytorch": "loss = nn.CrossEntropyLoss()(self.head(x), y)       # softmax only for display",
            "lightning": "loss = F.cross_entropy(self.head(x), y)",
        },
        unless="the floor comes from label smoothing or soft targets",
        confirm="the training loss falls below the old floor within the first epoch",
    )


# --- logging -----------------------------------------------------------------------------------------


def log_validation() -> Remedy:
    """Evaluate on held-out data at regular intervals."""
    return Remedy(
        title="evaluate on held-out data at least 10 times per run and log loss and metric",
        why="without it nothing can be said about overfitting, the best checkpoint or when to stop",
        change=Change("eval_strategy", "set", "epoch"),
        code={
            "pytorch": "model.eval()\nwith torch.no_grad():\n    writer.add_scalar('val/loss', evaluate(model), step)",
            "lightning": "def validation_step(self, batch, i): self.log('val_loss', self.loss(batch))",
            "transformers": "TrainingArguments(..., eval_strategy='epoch')",
        },
    )


def log_more_often(points: int = 100) -> Remedy:
    """Log more points."""
    return Remedy(
        title=f"log the training loss at least {points} times per run, and gradient norm and learning rate with it",
        why="trends need 8 points, spikes and early instability need per-step values",
        change=Change("logging_points", "set", points),
        code={
            "pytorch": "if step % max(1, total_steps // 1000) == 0: writer.add_scalar('train/loss', loss.item(), step)",
            "lightning": "Trainer(log_every_n_steps=10)",
            "transformers": "TrainingArguments(..., logging_steps=10)",
        },
    )


def map_tags() -> Remedy:
    """Tell fitdoctor what a tag means."""
    return Remedy(
        title="say what the tags mean: `fitdoctor analyze LOGDIR --map TAG=loss:train`",
        why="a value whose meaning is unknown is left out of every judgement",
        confirm="`fitdoctor signals LOGDIR` shows the tag beside its signal",
    )


def restore_whole_state() -> Remedy:
    """Restore optimizer, scheduler, scaler and sampler with the weights."""
    return Remedy(
        title="when resuming, restore optimizer, scheduler, loss scaler and data order with the weights",
        why="an optimizer that starts with empty moments takes full-size steps in unknown directions",
        code={
            "pytorch": (
                "torch.save({'model': model.state_dict(), 'opt': optimizer.state_dict(),\n"
                "            'sched': scheduler.state_dict(), 'step': step}, path)\n"
                "optimizer.load_state_dict(ckpt['opt']); scheduler.load_state_dict(ckpt['sched'])"
            ),
            "lightning": "trainer.fit(model, ckpt_path='last.ckpt')     # restores all of it",
            "transformers": "trainer.train(resume_from_checkpoint=True)",
        },
        confirm="loss, gradient norm and learning rate continue where they stopped",
    )


def write_one_log_per_run() -> Remedy:
    """One folder per run."""
    return Remedy(
        title="write each run into its own folder, and give a resumed run its old step numbers",
        why="two runs in one log overwrite each other's steps; only the later value of a step can be used",
        code={"pytorch": "writer = SummaryWriter(logdir, purge_step=first_step_after_resume)"},
    )
