"""The Trainer of Hugging Face Transformers, with the real framework."""

from __future__ import annotations

import copy
import logging
import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import fitdoctor
import numpy as np
import pytest
import torch
from fitdoctor.finding import Finding
from fitdoctor.live.monitor import Monitor
from fitdoctor.report import Report
from fitdoctor.run import Run
from fitdoctor.signals import (
    ACCURACY,
    BACKWARD_CALLS,
    EPOCH,
    EVAL_FORWARDS,
    GRAD_LEFTOVER,
    GRAD_NORM,
    GRAD_NORM_CLIPPED,
    LOSS,
    LOSS_WEIGHT,
    LR,
    TRAIN_MODE,
    Quantity,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what Transformers imports
    from fitdoctor.live.integrations.transformers import FitdoctorCallback
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        GPT2Config,
        GPT2LMHeadModel,
        Trainer,
        TrainingArguments,
    )

pytestmark = [
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator is found"),
    pytest.mark.filterwarnings("ignore:.*`torch.jit:DeprecationWarning"),
]
logging.getLogger("transformers").setLevel(logging.ERROR)


class Rows(Dataset[dict[str, Tensor]]):
    """Sequences that count up from a random token; their class is their first token modulo 3."""

    def __init__(self, rows: int = 256, seed: int = 0, *, to_continue: bool = False) -> None:
        first = torch.randint(0, 24, (rows, 1), generator=torch.Generator().manual_seed(seed))
        self.x = (first + torch.arange(8)) % 24
        self.y = self.x if to_continue else self.x[:, 0] % 3

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"input_ids": self.x[i], "attention_mask": torch.ones(8, dtype=torch.long), "labels": self.y[i]}


def bert(**more: Any) -> nn.Module:
    torch.manual_seed(0)
    shape = {"vocab_size": 24, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_labels": 3}
    config = BertConfig(**(shape | {"intermediate_size": 32, "hidden_dropout_prob": 0.0} | more))
    return BertForSequenceClassification(config)


def gpt() -> nn.Module:
    torch.manual_seed(0)
    shape = {"vocab_size": 24, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 8}
    return GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0, loss_type="ForCausalLM"))


def train(
    out: Path,
    model: nn.Module,
    watch: FitdoctorCallback | None = None,
    *,
    resume: str | None = None,
    trainer: type[Trainer] = Trainer,
    **settings: Any,
) -> tuple[FitdoctorCallback, Trainer]:
    watch = watch or FitdoctorCallback(record_every=1, verbose=False)
    to_continue = isinstance(model, GPT2LMHeadModel)
    given: dict[str, Any] = {"per_device_train_batch_size": 16, "num_train_epochs": 2, "learning_rate": 1e-3}
    given |= {"logging_steps": 1, "report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
    given |= {"eval_strategy": "steps", "eval_steps": 8, "per_device_eval_batch_size": 64}
    made = trainer(
        model=model,
        args=TrainingArguments(output_dir=str(out), **(given | settings)),
        train_dataset=Rows(to_continue=to_continue),
        eval_dataset=Rows(64, 1, to_continue=to_continue),
        compute_metrics=_accuracy,
        callbacks=[watch],
    )
    made.train(resume_from_checkpoint=resume)
    return watch, made


def _accuracy(prediction: Any) -> dict[str, float]:
    logits, labels = prediction
    return {"accuracy": float((np.argmax(logits, -1) == labels).mean())}


def run_of(watch: FitdoctorCallback) -> Run:
    assert watch.monitor is not None
    assert not watch.off
    return watch.monitor.run


def values(run: Run, quantity: Quantity, split: str = "train", layer: str = "") -> np.ndarray[Any, Any]:
    series = run.get(quantity, split, layer)
    assert series is not None, f"no {split} {quantity.name}"
    return np.asarray(series.values)


def told(trainer: Trainer, key: str) -> list[float]:
    """What the Trainer logs by itself."""
    return [float(row[key]) for row in trainer.state.log_history if key in row]


def found(report: Report | None) -> set[str]:
    assert report is not None
    return {f.rule for f in report.findings}


def test_steps_losses_norms_and_validation(tmp_path: Path) -> None:
    watch, trainer = train(tmp_path, bert(), save_strategy="steps", save_steps=16)
    run = run_of(watch)
    assert run.steps is not None
    assert (run.steps.first, run.steps.last) == (1, 32)
    assert values(run, LOSS) == pytest.approx(told(trainer, "loss"), rel=1e-4)
    assert values(run, GRAD_NORM) == pytest.approx(told(trainer, "grad_norm"), rel=1e-4)
    assert values(run, LR, layer="pg0") == pytest.approx(told(trainer, "learning_rate"), rel=1e-6)
    assert (values(run, GRAD_NORM_CLIPPED) < 1.001).all()
    val = run.get(LOSS, "val")
    assert val is not None
    assert list(val.steps) == [8, 16, 24, 32]
    assert val.values == pytest.approx(told(trainer, "eval_loss"))
    assert len(values(run, ACCURACY, "val")) == 4
    assert list(values(run, EVAL_FORWARDS)) == [1, 1, 1]
    assert (set(values(run, TRAIN_MODE)), set(values(run, GRAD_LEFTOVER))) == ({1}, {0})
    epochs = run.get(EPOCH)
    assert epochs is not None
    assert (list(epochs.steps), list(epochs.values)) == ([16, 32], [1, 2])
    keys = ("planned_epochs", "planned_steps", "steps_per_epoch", "n_train", "batch_size", "clip_norm", "framework")
    assert [run.facts.get(k) for k in keys] == [2, 32, 16, 256, 16, 1, "transformers"]
    # The Trainer's trainer_state.json and our log are one run.
    (logged,) = fitdoctor.open_runs(tmp_path)
    assert logged.name == tmp_path.name
    assert len({s.signal for s in logged.series}) == len(logged.series)
    assert logged.steps == run.steps


def test_training_is_what_it_was(tmp_path: Path) -> None:
    ours, bare = bert(hidden_dropout_prob=0.1), bert(hidden_dropout_prob=0.1)
    train(tmp_path, ours, num_train_epochs=1)
    train(tmp_path, bare, FitdoctorCallback(record_every=1000, tier="light", verbose=False), num_train_epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), bare.parameters(), strict=True))


def test_a_loss_divided_by_the_number_of_items_is_whole_again(tmp_path: Path) -> None:
    """16 batches in windows of 5: the last window of an epoch has one."""
    watch, trainer = train(tmp_path, gpt(), gradient_accumulation_steps=5)
    run = run_of(watch)
    assert run.steps is not None
    assert run.steps.last == trainer.state.global_step == 8
    assert list(values(run, BACKWARD_CALLS)) == [5, 5, 5, 1] * 2
    assert values(run, LOSS) == pytest.approx(told(trainer, "loss"), rel=1e-4)
    assert values(run, LOSS)[0] == pytest.approx(math.log(24), rel=0.2)  # neither a fifth of it nor five times it
    assert values(run, GRAD_NORM) == pytest.approx(told(trainer, "grad_norm"), rel=1e-4)
    assert run.facts["gradient_accumulation_steps"] == 5
    assert "accumulation-scaling" not in found(watch.report)


def test_a_loss_that_the_trainer_should_divide_and_does_not(tmp_path: Path) -> None:
    """BertForSequenceClassification takes the number of items and ignores it: transformers issue 47688."""
    watch, trainer = train(tmp_path, bert(), gradient_accumulation_steps=2, max_grad_norm=0.0, optim="sgd")
    run = run_of(watch)
    assert values(run, LOSS)[0] == pytest.approx(math.log(3), rel=0.1)
    assert told(trainer, "loss")[0] == pytest.approx(2 * math.log(3), rel=0.1)
    assert set(values(run, LOSS_WEIGHT)) == {1}
    assert "accumulation-scaling" in found(watch.report)


class Weighted(Trainer):
    """As users write their own losses."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs.logits, labels, weight=torch.tensor([1.0, 2.0, 3.0]))
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize("how", ["label smoothing", "own loss", "checkpointed, in bfloat16"])
def test_losses_that_the_model_does_not_return(how: str, tmp_path: Path) -> None:
    kind = Weighted if how == "own loss" else Trainer
    more: dict[str, Any] = {"gradient_accumulation_steps": 3, "num_train_epochs": 1, "eval_strategy": "no"}
    if how == "label smoothing":
        more["label_smoothing_factor"] = 0.1
    if how == "checkpointed, in bfloat16":
        more |= {"activation_checkpointing": True, "bf16": True}
    watch, trainer = train(tmp_path, gpt() if "checkpointed" in how else bert(), trainer=kind, **more)
    run = run_of(watch)
    assert values(run, BACKWARD_CALLS)[0] == 3
    # Trainer divides by the batches of this window where the loss is its own, which a loss of the user's is not.
    times = 3 if how == "own loss" else 1
    assert values(run, LOSS)[:5] == pytest.approx(told(trainer, "loss")[:5], rel=1e-3 * times)
    assert run.facts.get("label_smoothing") == (0.1 if how == "label smoothing" else None)
    assert run.facts.get("autocast") == ("bfloat16" if "bfloat16" in how else None)


def test_a_loss_that_is_not_finite_is_seen_through_the_filter(tmp_path: Path) -> None:
    class Breaks(Trainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            broken = self.state.global_step >= 5 and self.model.training
            return loss * float("nan") if broken and isinstance(loss, Tensor) else loss

    watch, trainer = train(tmp_path, bert(), trainer=Breaks, max_steps=20, save_strategy="steps", save_steps=20)
    assert all(map(math.isfinite, told(trainer, "loss")))
    assert watch.monitor is not None
    first = watch.monitor.first_nonfinite
    assert first is not None
    assert first.step == 6
    assert "nonfinite-loss" in found(watch.report) | {d.root.rule for d in watch.report.diagnoses}  # type: ignore[union-attr]
    (logged,) = fitdoctor.open_runs(tmp_path)
    assert not np.isfinite(values(logged, LOSS)[6:]).any()


def plainly(model: nn.Module, lr: float) -> Report:
    """The Trainer's program as a plain loop, with batches in another order."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 96)
    with fitdoctor.attach(
        model, optimizer, scheduler=schedule, record_every=1, facts={"planned_steps": 96, "clip_norm": 1.0}
    ) as monitor:
        for _ in range(6):
            for batch in DataLoader(Rows(), 16, shuffle=True, generator=torch.Generator().manual_seed(1)):
                model(**batch).loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            model.eval()
            with torch.no_grad():
                (batch,) = DataLoader(Rows(64, 1), 64)
                out = model(**batch)
                monitor.log(val_loss=out.loss, val_accuracy=(out.logits.argmax(-1) == batch["labels"]).float().mean())
            model.train()
    return monitor.close()


@pytest.mark.parametrize(("lr", "sick"), [(3e-3, False), (10.0, True)])
def test_the_root_cause_is_that_of_the_plain_loop(lr: float, sick: bool, tmp_path: Path) -> None:
    plain = plainly(bert(), lr)
    watch, _ = train(tmp_path, bert(), num_train_epochs=6, learning_rate=lr, eval_strategy="epoch")
    assert watch.report is not None
    assert watch.report.verdict == plain.verdict == ("sick" if sick else "healthy")
    if sick:
        assert watch.report.diagnoses[0].root.rule == plain.diagnoses[0].root.rule == "lr-too-high"


def test_resuming_keeps_the_steps_and_the_run(tmp_path: Path) -> None:
    train(tmp_path, bert(), num_train_epochs=1, save_strategy="steps", save_steps=8)
    watch, trainer = train(
        tmp_path,
        bert(),
        resume=str(tmp_path / "checkpoint-8"),
        save_strategy="steps",
        save_steps=8,
        load_best_model_at_end=True,
    )
    run = run_of(watch)
    assert run.steps is not None
    assert (run.steps.first, run.steps.last) == (9, 32)
    assert (run.facts["resumed_at"], run.facts["planned_steps"]) == (8, 32)
    (logged,) = fitdoctor.open_runs(tmp_path)
    assert logged.steps is not None
    assert (logged.steps.first, logged.steps.last) == (1, 32)
    assert watch.report is not None
    assert trainer.state.best_model_checkpoint is not None


def test_stopping_is_the_trainers_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told_of: list[Finding] = []
    watch = FitdoctorCallback(
        stop_on=("lr-too-high", "nonfinite-loss"), on_finding=told_of.append, judge_every=10, record_every=1
    )
    watch, trainer = train(tmp_path, bert(), watch, learning_rate=10.0, num_train_epochs=20, eval_strategy="no")
    assert trainer.state.global_step < 320
    assert trainer.state.log_history[-1]["step"] == trainer.state.global_step  # it ended as trainings end
    assert {f.rule for f in told_of} & {"lr-too-high", "nonfinite-loss"}
    out = capsys.readouterr().out
    assert out.count(f"fitdoctor: {tmp_path.name}, {trainer.state.global_step} steps: sick: ") == 1


def test_copies_and_pickles_leave_the_monitor_behind(tmp_path: Path) -> None:
    watch, trainer = train(tmp_path, bert(), max_steps=2)
    assert copy.deepcopy(watch).monitor is None
    assert pickle.loads(pickle.dumps(watch)).monitor is None
    assert trainer.model is not None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in trainer.model.modules())
    trainer.evaluate()  # after the end
    assert not watch.off


def test_what_fails_in_the_adapter_is_told_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Monitor, *args: object, **kwargs: object) -> None:
        raise RuntimeError("of ours")

    monkeypatch.setattr(Monitor, "log", fail)
    with caplog.at_level(logging.ERROR, "fitdoctor"):
        watch, trainer = train(tmp_path, bert(), max_steps=20)
    assert trainer.state.global_step == 20
    assert watch.off
    assert ["of ours" in str(r.exc_info) for r in caplog.records] == [True]
    assert trainer.model is not None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in trainer.model.modules())
