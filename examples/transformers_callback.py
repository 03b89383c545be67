"""The Hugging Face Trainer: one callback sees the true loss under accumulation, and the NaN that the Trainer hides.

python examples/transformers_callback.py
"""

import math

import torch
from fitdoctor.live.integrations.transformers import FitdoctorCallback
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments


class Counting(Dataset):
    """Sequences that count up."""

    def __init__(self, rows: int) -> None:
        self.x = (torch.arange(rows)[:, None] * 7 + torch.arange(12)) % 50

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict:
        return {"input_ids": self.x[i], "labels": self.x[i]}


class Breaks(Trainer):
    """Its loss is NaN from step 41 on."""

    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs) * (1.0 if self.state.global_step < 40 else math.nan)


def train(kind: type[Trainer]) -> tuple[Trainer, FitdoctorCallback]:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=12, bos_token_id=0, eos_token_id=0)
    watch = FitdoctorCallback(record_every=1)
    trainer = kind(
        model=GPT2LMHeadModel(config),
        args=TrainingArguments(
            output_dir=f"transformers_runs/{kind.__name__.lower()}",
            max_steps=60,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=4,
            learning_rate=3e-3,
            logging_steps=10,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=Counting(2048),
        callbacks=[watch],
    )
    trainer.train()
    return trainer, watch


trainer, watch = train(Trainer)
print("optimizer steps:", watch.monitor.step, "| backward calls per step:", watch.monitor.last("backward_calls"))
trainer, watch = train(Breaks)
logged = [row["loss"] for row in trainer.state.log_history if "loss" in row]
print("the Trainer logged", "no NaN:" if all(map(math.isfinite, logged)) else "NaN:", [round(x, 2) for x in logged])
print("fitdoctor:", watch.monitor.first_nonfinite)
