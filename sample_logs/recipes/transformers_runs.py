"""Runs of the Hugging Face Trainer, on models without pretrained weights; trainer_state.json is kept."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from recipes.shared import Data, Knobs, Pair, Sample, Truth, cnn, digits, measure, mlp, times


class Rows(Dataset):
    """Pairs as the dictionaries that the Trainer wants."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    def __len__(self) -> int:
        return len(self.pair[0])

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"inputs": self.pair[0][i], "labels": self.pair[1][i]}


class Wrapped(nn.Module):
    """A classifier that returns its own loss."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.body(inputs)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def train(folder: Path | None, body: nn.Module, data: Data, **arguments: object) -> Truth:
    """Train with the Trainer and keep its state file."""
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    truth = Truth(measure(body, data.train, F.cross_entropy)[0])

    class Watch(TrainerCallback):
        def on_evaluate(self, *_: object, **__: object) -> None:
            truth.val.append(measure(body, data.val, F.cross_entropy)[0])
            loss, score = measure(body, data.oracle, F.cross_entropy)
            truth.oracle.append(loss)
            truth.score.append(score)

    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            Wrapped(body),
            TrainingArguments(
                scratch,
                use_cpu=True,
                report_to=[],
                disable_tqdm=True,
                save_strategy="no",
                eval_strategy="epoch",
                dataloader_pin_memory=False,
                per_device_train_batch_size=32,
                per_device_eval_batch_size=300,
                **arguments,
            ),
            train_dataset=Rows(data.train),
            eval_dataset=Rows(data.val),
            compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
            callbacks=[Watch()],
        )
        trainer.train()
        if folder:
            trainer.state.save_to_json(str(folder / "trainer_state.json"))
    truth.train = measure(body, data.train, F.cross_entropy)[0]
    return truth


def hidden_nan(folder: Path | None, knobs: Knobs) -> Truth:
    """SGD at a rate that overflows; logging_nan_inf_filter is on by default."""
    torch.manual_seed(51)
    return train(
        folder,
        mlp([64, 96, 96, 96, 10]),
        digits(),
        num_train_epochs=times(knobs, 15),
        optim="sgd",
        learning_rate=6.0 * knobs.rate,
        max_grad_norm=0.0,
        logging_steps=5,
        lr_scheduler_type="linear",
        seed=1,
    )


def ordinary(folder: Path | None, knobs: Knobs) -> Truth:
    """Warm-up, cosine decay, AdamW, clipping at 1.0: what people run every day."""
    torch.manual_seed(52)
    return train(
        folder,
        cnn(dropout=0.2),
        digits(),
        num_train_epochs=times(knobs, 25),
        learning_rate=4e-3 * knobs.rate,
        warmup_steps=60,
        weight_decay=0.01,
        lr_scheduler_type="cosine",
        logging_steps=10,
        seed=2,
    )


SAMPLES = (
    Sample(
        name="hf_hidden_nan",
        format="trainer_state.json",
        how=("MLP on digits with the Hugging Face Trainer, SGD at 6.0, clipping off; its filter hides the NaN"),
        why="the logged loss is 0.0 after the overflow; a lower rate trains well",
        verdict="sick",
        train=hidden_nan,
        must_any=(("hidden-nonfinite", "nonfinite-loss"),),
        root=("hidden-nonfinite", "nonfinite-loss", "lr-too-high", "loss-divergence", "exploding-gradients"),
        must_not=("overfitting",),
        check="lower rate",
    ),
    Sample(
        name="hf_ordinary",
        format="trainer_state.json",
        how="CNN on digits with the Hugging Face Trainer, AdamW with warm-up, cosine decay and clipping at 1.0",
        why="an ordinary run",
        verdict="healthy",
        train=ordinary,
        must_not=("lr-too-low", "warmup-too-long", "overfitting"),
    ),
)
