"""Advice on what is logged, and resumed runs."""

from __future__ import annotations

from fitdoctor.finding import Change, Remedy


def log_nonfinite_values() -> Remedy:
    """Make the logger write nan instead of hiding it."""
    return Remedy(
        title="switch off the logger's nan filter, so that the log shows when the loss is not finite",
        why="a hidden nan costs the rest of the run, and the run looks like the best of all",
        change=Change("logging_nan_inf_filter", "disable"),
        code={"transformers": "TrainingArguments(..., logging_nan_inf_filter=False)"},
        confirm="the next log shows nan, or no zeros",
        kind="bug",
    )


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
        kind="bug",
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
        kind="bug",
    )


def map_tags() -> Remedy:
    """Tell fitdoctor what a tag means."""
    return Remedy(
        title="say what the tags mean: `fitdoctor analyze LOGDIR --map TAG=loss:train`",
        why="a value whose meaning is unknown is left out of every judgement",
        confirm="`fitdoctor signals LOGDIR` shows the tag beside its signal",
        kind="bug",
    )


def restore_whole_state() -> Remedy:
    """Restore optimizer, scheduler, scaler and sampler with the weights."""
    return Remedy(
        title="when resuming, restore optimizer, scheduler, loss scaler and data order with the weights",
        why="an optimizer that starts with empty moments takes full-size steps in unknown directions",
        change=Change("resume_state", "set", "whole"),
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
        kind="bug",
    )


def write_one_log_per_run() -> Remedy:
    """One folder per run."""
    return Remedy(
        title="write each run into its own folder, and give a resumed run its old step numbers",
        why="two runs in one log overwrite each other's steps; only the later value of a step can be used",
        code={"pytorch": "writer = SummaryWriter(logdir, purge_step=first_step_after_resume)"},
        kind="bug",
    )
