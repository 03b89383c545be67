"""One of two processes of a sick training, first by Lightning, then by the Hugging Face Trainer; prints what it saw."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from typing import Any

warnings.simplefilter("ignore")

import torch  # noqa: E402
from fitdoctor.live.integrations import lightning as by_lightning  # noqa: E402
from fitdoctor.live.integrations import transformers as by_transformers  # noqa: E402
from fitdoctor.live.integrations.guest import Guest  # noqa: E402
from fitdoctor.signals import LOSS, QUANTITIES  # noqa: E402
from lightning.pytorch import LightningModule, Trainer  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset, TensorDataset  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments  # noqa: E402
from transformers import Trainer as HFTrainer  # noqa: E402

SICK: dict[str, Any] = {"stop_on": ["lr-too-high"], "record_every": 1, "judge_every": 5, "verbose": False}


class Program(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=100.0)


class Counting(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 512

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        x = (i * 7 + torch.arange(8)) % 24
        return {"input_ids": x, "labels": x}


def seen(watch: Guest, steps: int) -> dict[str, Any]:
    monitor = watch.monitor
    assert monitor is not None
    loss = monitor.run.get(LOSS)
    assert loss is not None
    return {
        "off": watch.off,
        "steps": [monitor.step, steps],
        "first loss": float(loss.values[0]),
        "weight": monitor.last("loss_weight"),
        "facts": {k: monitor.run.facts.get(k) for k in ("world_size", "gradient_accumulation_steps")},
        "disagreement": monitor.last(QUANTITIES["rank_disagreement"].name) if monitor.leads else 0.0,
    }


def main(rank: str, port: str, folder: str) -> None:
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "NODE_RANK": "0", "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    logging.disable(logging.CRITICAL)
    torch.manual_seed(0)
    x = torch.randn(512, 8)
    watch = by_lightning.FitdoctorCallback(logdir=f"{folder}/lightning", **SICK)
    settings: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=20, accumulate_grad_batches=2, callbacks=[watch],
        enable_model_summary=False, **settings,
    )  # fmt: skip
    trainer.fit(Program(), DataLoader(TensorDataset(x, x[:, :3].argmax(1)), 16))
    told = {"lightning": seen(watch, trainer.global_step)}

    config = GPT2Config(vocab_size=24, n_embd=16, n_layer=1, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=0)
    other = by_transformers.FitdoctorCallback(**SICK)
    args = TrainingArguments(
        output_dir=f"{folder}/transformers", per_device_train_batch_size=8, gradient_accumulation_steps=2,
        max_steps=300, learning_rate=30.0, use_cpu=True, ddp_backend="gloo", report_to="none", save_strategy="no",
        logging_steps=1, disable_tqdm=True,
    )  # fmt: skip
    hf = HFTrainer(model=GPT2LMHeadModel(config), args=args, train_dataset=Counting(), callbacks=[other])
    hf.train()
    told["transformers"] = seen(other, hf.state.global_step)
    told["transformers"]["its own first loss"] = hf.state.log_history[0]["loss"]
    sys.stdout.write("\n" + json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
