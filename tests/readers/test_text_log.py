"""Text logs as people really print them: what must come out of each dialect, and what must not be claimed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitdoctor.errors import ReadError
from fitdoctor.readers import text_log
from fitdoctor.readers.raw import RawRun

nan, inf = math.nan, math.inf


def read_text(folder: Path, text: str | bytes, name: str = "run.log") -> RawRun:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    assert text_log.recognise(path, path.read_bytes()[:4096])
    (run,) = text_log.read(text_log.home(path), [path])
    return run


def table_of(run: RawRun) -> dict[str, tuple[list[float] | None, list[float]]]:
    """Tag -> (steps, or epochs where there are no steps; values)."""
    out = {}
    for s in run.series:
        clock = s.steps if s.steps is not None else s.epochs
        out[s.tag] = (None if clock is None else clock.tolist(), s.values.tolist())
    return out


DIALECTS: dict[str, tuple[str, dict[str, tuple[list[float], list[float]]], dict[str, Any]]] = {
    "one line an epoch": (
        """Using device: cuda
epoch 1/10 train_loss: 0.91 val acc 0.43
epoch 2/10 train_loss: 0.71 val acc 0.63
epoch 3/10 train_loss: 0.51 val acc 0.83
""",
        {"train_loss": ([1, 2, 3], [0.91, 0.71, 0.51]), "val acc": ([1, 2, 3], [0.43, 0.63, 0.83])},
        {"planned_epochs": 10},
    ),
    "step that starts again with each epoch": (
        """Epoch [1/3], Step [100/200], Loss: 2.3
Epoch [1/3], Step [200/200], Loss: 1.9
Epoch [2/3], Step [100/200], Loss: 1.5
Epoch [2/3], Step [200/200], Loss: 1.2
Test Accuracy of the model on the 10000 test images: 97.1 %
""",
        {"Loss": ([100, 200, 300, 400], [2.3, 1.9, 1.5, 1.2])},
        {"planned_epochs": 3, "steps_per_epoch": 200},
    ),
    "key=value": (
        """[INFO] step=100 loss=1.2 lr=1e-3
[INFO] step=200 loss=1.1 lr=9e-4
[INFO] step=300 loss=nan lr=8e-4
[INFO] step=400 loss=-inf lr=7e-4
""",
        {"loss": ([100, 200, 300, 400], [1.2, 1.1, nan, -inf]), "lr": ([100, 200, 300, 400], [1e-3, 9e-4, 8e-4, 7e-4])},
        {},
    ),
    "keras 2, progress written over": (
        "Epoch 1/3\n"
        "  1/60 [..............................] - ETA: 1:02 - loss: 2.9 - accuracy: 0.1\r"
        " 30/60 [=============>................] - ETA: 5s - loss: 1.9 - accuracy: 0.3\r"
        "60/60 [==============================] - 5s 83ms/step - loss: 1.5 - accuracy: 0.5 - val_loss: 1.2 - val_accuracy: 0.6\n"
        "Epoch 2/3\n"
        " 1/60 [..............................] - ETA: 3s - loss: 1.1 - accuracy: 0.6\r"
        "60/60 [==============================] - 3s 53ms/step - loss: 1.0 - accuracy: 0.7 - val_loss: 0.9 - val_accuracy: 0.8\n"
        "Epoch 3/3\n"
        "60/60 [==============================] - 3s 50ms/step - loss: 0.8 - accuracy: 0.8 - val_loss: 0.85 - val_accuracy: 0.82\n",
        {
            "loss": ([1, 2, 3], [1.5, 1.0, 0.8]),
            "accuracy": ([1, 2, 3], [0.5, 0.7, 0.8]),
            "val_loss": ([1, 2, 3], [1.2, 0.9, 0.85]),
            "val_accuracy": ([1, 2, 3], [0.6, 0.8, 0.82]),
        },
        {"planned_epochs": 3, "steps_per_epoch": 60, "framework": "keras"},
    ),
    "keras 3": (
        "Epoch 1/9\n"
        "\x1b[1m 1/60\x1b[0m \x1b[37m━━━━━━━━━━━━━━━━━━━━\x1b[0m \x1b[1m12s\x1b[0m 211ms/step - accuracy: 0.06 - loss: 2.4\r"
        "\x1b[1m60/60\x1b[0m \x1b[32m━━━━━━━━━━━━━━━━━━━━\x1b[0m\x1b[37m\x1b[0m \x1b[1m1s\x1b[0m 3ms/step - accuracy: 0.5 - loss: 1.5 "
        "- val_accuracy: 0.6 - val_loss: 1.2\n"
        "Epoch 2/9\n"
        "\x1b[1m60/60\x1b[0m \x1b[32m━━━━━━━━━━━━━━━━━━━━\x1b[0m \x1b[1m0s\x1b[0m 2ms/step - accuracy: 0.7 - loss: 1.1 "
        "- val_accuracy: 0.75 - val_loss: 1.0\n"
        "Epoch 3/9\n"
        "\x1b[1m60/60\x1b[0m \x1b[32m━━━━━━━━━━━━━━━━━━━━\x1b[0m \x1b[1m0s\x1b[0m 2ms/step - accuracy: 0.8 - loss: 1.0 "
        "- val_accuracy: 0.76 - val_loss: 0.9\n"
        "Epoch 4/9\n"
        "\x1b[1m30/60\x1b[0m \x1b[32m━━━━━━━━━━\x1b[0m \x1b[1m0s\x1b[0m 2ms/step - accuracy: 0.85 - loss: 0.95\r",
        {
            "loss": ([1, 2, 3, 4], [1.5, 1.1, 1.0, 0.95]),
            "val_loss": ([1, 2, 3], [1.2, 1.0, 0.9]),
            "accuracy": ([1, 2, 3, 4], [0.5, 0.7, 0.8, 0.85]),
        },
        {"planned_epochs": 9, "steps_per_epoch": 60},
    ),
    "keras verbose=2": (
        "Epoch 1/20\n60/60 - 2s - loss: 1.5 - accuracy: 0.5 - 2s/epoch - 33ms/step\n"
        "Epoch 2/20\n60/60 - 1s - loss: 1.2 - accuracy: 0.6 - 1s/epoch - 20ms/step\n"
        "Epoch 3/20\n60/60 - 1s - loss: 1.1 - accuracy: 0.65 - 1s/epoch - 20ms/step\n",
        {"loss": ([1, 2, 3], [1.5, 1.2, 1.1]), "accuracy": ([1, 2, 3], [0.5, 0.6, 0.65])},
        {"planned_epochs": 20, "steps_per_epoch": 60},
    ),
    "nanoGPT": (
        """tokens per iteration will be: 16,384
number of parameters: 10.65M
step 0: train loss 4.2, val loss 4.3
iter 0: loss 4.25, time 30292.06ms, mfu -100.00%
iter 10: loss 3.25, time 200.00ms, mfu 3.00%
iter 20: loss 2.75, time 210.00ms, mfu 3.10%
step 20: train loss 2.5, val loss 2.6
saving checkpoint to out-shakespeare-char
""",
        {
            "train loss": ([0, 20], [4.2, 2.5]),
            "val loss": ([0, 20], [4.3, 2.6]),
            "loss": ([0, 10, 20], [4.25, 3.25, 2.75]),
            "time": ([0, 10, 20], [30.29206, 0.2, 0.21]),
        },
        {},
    ),
    "markdown table": (
        """| epoch | train loss | val loss | lr |
|-------|------------|----------|----|
| 1 | 0.9 | 1.0 | 1e-3 |
| 2 | 0.8 | 0.95 | 1e-3 |
| 3 | 0.7 | nan | 1e-4 |
""",
        {"train loss": ([1, 2, 3], [0.9, 0.8, 0.7]), "val loss": ([1, 2, 3], [1.0, 0.95, nan])},
        {},
    ),
    "box table": (
        """┏━━━━━━━┳━━━━━━━━┳━━━━━━━━━━┓
┃ Epoch ┃ loss   ┃ val acc  ┃
┡━━━━━━━╇━━━━━━━━╇━━━━━━━━━━┩
│ 0     │ 0.9    │ 51.0%    │
│ 1     │ 0.8    │ 61.0%    │
│ 2     │ 0.75   │ 66.0%    │
└───────┴────────┴──────────┘
""",
        {"loss": ([0, 1, 2], [0.9, 0.8, 0.75]), "val acc": ([0, 1, 2], [0.51, 0.61, 0.66])},
        {},
    ),
    "fastai": (
        """epoch     train_loss  valid_loss  accuracy  time
0         0.509       0.45        0.80      00:12
1         0.409       0.40        0.85      00:11
2         0.309       0.42        0.84      00:11
""",
        {"train_loss": ([0, 1, 2], [0.509, 0.409, 0.309]), "valid_loss": ([0, 1, 2], [0.45, 0.40, 0.42])},
        {},
    ),
    "YOLO": (
        """
      Epoch    GPU_mem   box_loss   cls_loss   dfl_loss  Instances       Size
      1/100      2.5G      1.169      2.345      1.234         24        640: 100%|██████████| 8/8 [00:03<00:00,  2.5it/s]
                 Class     Images  Instances      Box(P          R      mAP50  mAP50-95): 100%|██████████| 1/1 [00:00<00:00,  3.1it/s]
                   all        128        929       0.64      0.537      0.605      0.446
      Epoch    GPU_mem   box_loss   cls_loss   dfl_loss  Instances       Size
      2/100      2.5G      1.069      2.045      1.134         24        640: 100%|██████████| 8/8 [00:03<00:00,  2.5it/s]
                 Class     Images  Instances      Box(P          R      mAP50  mAP50-95): 100%|██████████| 1/1 [00:00<00:00,  3.1it/s]
                   all        128        929       0.66      0.547      0.615      0.456
      Epoch    GPU_mem   box_loss   cls_loss   dfl_loss  Instances       Size
      3/100      2.5G      1.009      1.945      1.104         24        640: 100%|██████████| 8/8 [00:03<00:00,  2.5it/s]
                 Class     Images  Instances      Box(P          R      mAP50  mAP50-95): 100%|██████████| 1/1 [00:00<00:00,  3.1it/s]
                   all        128        929       0.67      0.557      0.625      0.466
                person         61        254       0.77      0.657      0.725      0.566
""",
        {
            "box_loss": ([1, 2, 3], [1.169, 1.069, 1.009]),
            "mAP50": ([1, 2, 3], [0.605, 0.615, 0.625]),
            "mAP50-95": ([1, 2, 3], [0.446, 0.456, 0.466]),
        },
        {},
    ),
    "fairseq": (
        """2020-01-01 10:00:00 | INFO | train_inner | epoch 001:    100 / 300 loss=10.5, ppl=1500, wps=2000, num_updates=100, lr=1e-05
2020-01-01 10:01:00 | INFO | train_inner | epoch 001:    200 / 300 loss=9.5, ppl=800, wps=2000, num_updates=200, lr=2e-05
2020-01-01 10:02:00 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 8.5 | ppl 360 | num_updates 300
2020-01-01 10:02:01 | INFO | train | epoch 001 | loss 10.0 | ppl 1000 | num_updates 300 | lr 3e-05
2020-01-01 10:03:00 | INFO | train_inner | epoch 002:    100 / 300 loss=8.4, ppl=300, wps=2000, num_updates=400, lr=4e-05
2020-01-01 10:05:00 | INFO | valid | epoch 002 | valid on 'valid' subset | loss 7.5 | ppl 180 | num_updates 600
2020-01-01 10:05:01 | INFO | train | epoch 002 | loss 8.0 | ppl 250 | num_updates 600 | lr 6e-05
""",
        {
            "loss": ([100, 200, 400], [10.5, 9.5, 8.4]),
            "valid loss": ([300, 600], [8.5, 7.5]),
            "train loss": ([300, 600], [10.0, 8.0]),
            "lr": ([100, 200, 300, 400, 600], [1e-5, 2e-5, 3e-5, 4e-5, 6e-5]),
        },
        {},
    ),
    "transformers printing dicts": (
        """{'loss': 2.2013, 'grad_norm': 0.84, 'learning_rate': 5e-05, 'epoch': 0.25}
{'loss': 2.1013, 'grad_norm': 0.74, 'learning_rate': 4e-05, 'epoch': 0.5}
{'loss': 2.0013, 'grad_norm': 0.94, 'learning_rate': 3e-05, 'epoch': 0.75}
{'eval_loss': 1.9, 'eval_runtime': 1.2, 'epoch': 1.0}
{'train_runtime': 16.7, 'train_loss': 2.1, 'epoch': 1.0}
""",
        {"loss": ([0.25, 0.5, 0.75], [2.2013, 2.1013, 2.0013]), "grad_norm": ([0.25, 0.5, 0.75], [0.84, 0.74, 0.94])},
        {},
    ),
    "mmdetection": (
        """2021-01-01 10:00:00,123 - mmdet - INFO - Epoch [1][50/100]	lr: 1.978e-03, eta: 14:32:33, time: 0.6, memory: 3902, loss: 2.3
2021-01-01 10:01:00,123 - mmdet - INFO - Epoch [1][100/100]	lr: 3.978e-03, eta: 14:31:33, time: 0.5, memory: 3902, loss: 2.0
2021-01-01 10:02:00,123 - mmdet - INFO - Epoch(val) [1][50]	bbox_mAP: 0.1000
2021-01-01 10:03:00,123 - mmdet - INFO - Epoch [2][50/100]	lr: 5.978e-03, eta: 14:30:33, time: 0.5, memory: 3902, loss: 1.8
2021-01-01 10:04:00,123 - mmdet - INFO - Epoch [2][100/100]	lr: 7.978e-03, eta: 14:29:33, time: 0.5, memory: 3902, loss: 1.7
2021-01-01 10:05:00,123 - mmdet - INFO - Epoch(val) [2][50]	bbox_mAP: 0.1500
""",
        {
            "loss": ([50, 100, 150, 200], [2.3, 2.0, 1.8, 1.7]),
            "val bbox_mAP": ([100, 200], [0.1, 0.15]),
            "time": ([50, 100, 150, 200], [0.6, 0.5, 0.5, 0.5]),
        },
        {},
    ),
    "mmengine": (
        """2023/01/01 10:00:00 - mmengine - INFO - Epoch(train)  [1][ 50/100]  lr: 1.0e-02  eta: 1:00:00  time: 0.5  loss: 2.3
2023/01/01 10:01:00 - mmengine - INFO - Epoch(train)  [1][100/100]  lr: 1.0e-02  eta: 0:59:00  time: 0.5  loss: 2.1
2023/01/01 10:01:10 - mmengine - INFO - Epoch(val) [1][10/25]    eta: 0:00:10  time: 0.1
2023/01/01 10:01:20 - mmengine - INFO - Epoch(val) [1][25/25]    accuracy/top1: 51.2  data_time: 0.01
2023/01/01 10:02:00 - mmengine - INFO - Epoch(train)  [2][ 50/100]  lr: 1.0e-02  eta: 0:58:00  time: 0.5  loss: 1.9
2023/01/01 10:03:00 - mmengine - INFO - Epoch(train)  [2][100/100]  lr: 1.0e-02  eta: 0:57:00  time: 0.5  loss: 1.8
2023/01/01 10:03:20 - mmengine - INFO - Epoch(val) [2][25/25]    accuracy/top1: 56.2  data_time: 0.01
""",
        {
            "train loss": ([50, 100, 150, 200], [2.3, 2.1, 1.9, 1.8]),
            "val accuracy/top1": ([100, 200], [51.2, 56.2]),
        },
        {},
    ),
    "detectron2": (
        """[07/01 12:00:00 d2.utils.events]:  eta: 1:02:03  iter: 19  total_loss: 1.234  loss_cls: 0.5  time: 0.3  lr: 0.0002  max_mem: 2000M
[07/01 12:00:09 d2.utils.events]:  eta: 1:01:03  iter: 39  total_loss: 1.134  loss_cls: 0.4  time: 0.3  lr: 0.0004  max_mem: 2000M
[07/01 12:00:18 d2.utils.events]:  eta: 1:00:03  iter: 59  total_loss: 1.034  loss_cls: 0.3  time: 0.3  lr: 0.0006  max_mem: 2000M
""",
        {"total_loss": ([19, 39, 59], [1.234, 1.134, 1.034]), "max_mem": ([19, 39, 59], [2e9, 2e9, 2e9])},
        {},
    ),
    "Megatron": (
        """ iteration      100/  500000 | consumed samples:        25600 | elapsed time per iteration (ms): 500.0 | learning rate: 1.000E-05 | lm loss: 9.500000E+00 | loss scale: 1.0 | grad norm: 2.100 | number of skipped iterations:   0 | number of nan iterations:   0 |
 iteration      200/  500000 | consumed samples:        51200 | elapsed time per iteration (ms): 500.0 | learning rate: 2.000E-05 | lm loss: 8.500000E+00 | loss scale: 1.0 | grad norm: 1.100 | number of skipped iterations:   0 | number of nan iterations:   0 |
 iteration      300/  500000 | consumed samples:        76800 | elapsed time per iteration (ms): 500.0 | learning rate: 3.000E-05 | lm loss: 7.500000E+00 | loss scale: 1.0 | grad norm: 1.900 | number of skipped iterations:   0 | number of nan iterations:   0 |
""",
        {
            "lm loss": ([100, 200, 300], [9.5, 8.5, 7.5]),
            "grad norm": ([100, 200, 300], [2.1, 1.1, 1.9]),
            "learning rate": ([100, 200, 300], [1e-5, 2e-5, 3e-5]),
        },
        {"planned_steps": 500000},
    ),
    "PyTorch's MNIST example": (
        """Train Epoch: 1 [0/60000 (0%)]	Loss: 2.300000
Train Epoch: 1 [30000/60000 (50%)]	Loss: 0.500000

Test set: Average loss: 0.0480, Accuracy: 9843/10000 (98%)

Train Epoch: 2 [0/60000 (0%)]	Loss: 0.300000
Train Epoch: 2 [30000/60000 (50%)]	Loss: 0.200000

Test set: Average loss: 0.0380, Accuracy: 9870/10000 (99%)

""",
        {
            "Train Loss": ([0, 30000, 60000, 90000], [2.3, 0.5, 0.3, 0.2]),
            "Test Average loss": ([30000, 90000], [0.048, 0.038]),
            "Test Accuracy": ([30000, 90000], [0.9843, 0.987]),
        },
        {},
    ),
    "PyTorch's ImageNet example": (
        """Epoch: [0][  100/1000]	Time  0.5 ( 1.0)	Data  0.1 ( 0.2)	Loss 7.0e+00 (7.1e+00)	Acc@1   0.39 (  0.10)	Acc@5   1.56 (  0.50)
Epoch: [0][  600/1000]	Time  0.5 ( 1.0)	Data  0.1 ( 0.2)	Loss 6.0e+00 (6.1e+00)	Acc@1   1.39 (  0.10)	Acc@5   2.56 (  0.50)
Test: [ 0/98]	Time 0.5 (0.5)	Loss 5.0e+00 (5.1e+00)	Acc@1 4.0 (4.0)	Acc@5 9.0 (9.0)
Test: [50/98]	Time 0.5 (0.5)	Loss 5.0e+00 (5.1e+00)	Acc@1 5.0 (4.0)	Acc@5 9.0 (9.0)
 *   Acc@1 4.5 Acc@5 9.5
Epoch: [1][  100/1000]	Time  0.5 ( 1.0)	Data  0.1 ( 0.2)	Loss 5.0e+00 (5.1e+00)	Acc@1   5.39 (  0.10)	Acc@5   9.56 (  0.50)
Epoch: [1][  600/1000]	Time  0.5 ( 1.0)	Data  0.1 ( 0.2)	Loss 4.0e+00 (4.1e+00)	Acc@1   6.39 (  0.10)	Acc@5   9.96 (  0.50)
Test: [ 0/98]	Time 0.5 (0.5)	Loss 5.0e+00 (5.1e+00)	Acc@1 4.0 (4.0)	Acc@5 9.0 (9.0)
 *   Acc@1 8.5 Acc@5 15.5
""",
        {
            "Loss": ([100, 600, 1100, 1600], [7.0, 6.0, 5.0, 4.0]),
            "Acc@1": ([100, 600, 1100, 1600], [0.39, 1.39, 5.39, 6.39]),
            "test Acc@1": ([600, 1600], [4.5, 8.5]),
        },
        {},
    ),
    "PyTorch's finetuning tutorial": (
        """Epoch 0/2
----------
train Loss: 0.65 Acc: 0.65
val Loss: 0.25 Acc: 0.90

Epoch 1/2
----------
train Loss: 0.45 Acc: 0.75
val Loss: 0.23 Acc: 0.91

Epoch 2/2
----------
train Loss: 0.35 Acc: 0.85
val Loss: 0.22 Acc: 0.92

Training complete in 1m 5s
Best val Acc: 0.92
""",
        {
            "train Loss": ([0, 1, 2], [0.65, 0.45, 0.35]),
            "val Acc": ([0, 1, 2], [0.90, 0.91, 0.92]),
        },
        {},
    ),
    "word language model example": (
        """| epoch   1 |   200/  600 batches | lr 20.00 | ms/batch 30.12 | loss  7.26 | ppl  1420.56
| epoch   1 |   400/  600 batches | lr 20.00 | ms/batch 29.12 | loss  6.26 | ppl   520.56
-----------------------------------------------------------------------------------------
| end of epoch   1 | time: 96.61s | valid loss  5.77 | valid ppl   320.72
-----------------------------------------------------------------------------------------
| epoch   2 |   200/  600 batches | lr 20.00 | ms/batch 29.12 | loss  5.86 | ppl   350.56
| epoch   2 |   400/  600 batches | lr 20.00 | ms/batch 29.12 | loss  5.76 | ppl   320.56
| end of epoch   2 | time: 95.61s | valid loss  5.57 | valid ppl   260.72
""",
        {
            "loss": ([200, 400, 800, 1000], [7.26, 6.26, 5.86, 5.76]),
            "valid loss": ([400, 1000], [5.77, 5.57]),
        },
        {},
    ),
    "llm.c": (
        """step    1/100 | loss 10.9 (+nanz)| norm 15.3 (+nanz)| lr 8.57e-07 | 2000.0 ms | 60.1% bf16 MFU | 262144 tok/s
step    2/100 | loss 10.5 (+1.2z)| norm 13.3 (+0.3z)| lr 1.71e-06 | 2001.0 ms | 60.2% bf16 MFU | 262144 tok/s
step    3/100 | loss 9.5 (+1.2z)| norm 11.3 (+0.3z)| lr 2.57e-06 | 2002.0 ms | 60.3% bf16 MFU | 262144 tok/s
""",
        {"loss": ([1, 2, 3], [10.9, 10.5, 9.5]), "norm": ([1, 2, 3], [15.3, 13.3, 11.3])},
        {"planned_steps": 100},
    ),
    "boosting": (
        "[0]\ttrain-logloss:0.69\teval-logloss:0.70\n[1]\ttrain-logloss:0.59\teval-logloss:0.61\n"
        "[2]\ttrain-logloss:0.49\teval-logloss:0.55\n",
        {"train-logloss": ([0, 1, 2], [0.69, 0.59, 0.49]), "eval-logloss": ([0, 1, 2], [0.70, 0.61, 0.55])},
        {},
    ),
    "tqdm over epochs, as Lightning draws it": (
        "Epoch 0:  50%|█████     | 8/16 [00:00<00:00, 45.2it/s, loss=0.9, v_num=0]\r"
        "Epoch 0: 100%|██████████| 16/16 [00:00<00:00, 45.2it/s, loss=0.8, v_num=0, val_loss=0.85]\n"
        "Epoch 1:  50%|█████     | 8/16 [00:00<00:00, 45.2it/s, loss=0.7, v_num=0, val_loss=0.85]\r"
        "Epoch 1: 100%|██████████| 16/16 [00:00<00:00, 45.2it/s, loss=0.6, v_num=0, val_loss=0.75]\n",
        {"loss": ([8, 16, 24, 32], [0.9, 0.8, 0.7, 0.6])},
        {},
    ),
    "tqdm over steps": (
        "  0%|          | 1/1000 [00:00<01:00, 16.6it/s, loss=2.5]\r  1%|          | 10/1000 [00:01<01:00, 16.6it/s, loss=2.1]\r"
        "100%|██████████| 1000/1000 [01:00<00:00, 16.6it/s, loss=0.51]\n",
        {"loss": ([1, 10, 1000], [2.5, 2.1, 0.51])},
        {"planned_steps": 1000},
    ),
    "two splits in a line, their names said once": (
        """Epoch 1: train loss=0.9, acc=0.5 | val loss=1.0, acc=0.4
Epoch 2: train loss=0.7, acc=0.6 | val loss=0.9, acc=0.5
Epoch 3: train loss=0.5, acc=0.7 | val loss=0.8, acc=0.6
""",
        {
            "train loss": ([1, 2, 3], [0.9, 0.7, 0.5]),
            "train acc": ([1, 2, 3], [0.5, 0.6, 0.7]),
            "val loss": ([1, 2, 3], [1.0, 0.9, 0.8]),
            "val acc": ([1, 2, 3], [0.4, 0.5, 0.6]),
        },
        {},
    ),
    "logging's prefix, percent, seconds": (
        """INFO:root:Epoch 1, Train Loss: 0.6931, Train Acc: 50.00%, Val Loss: 0.6900, LR: 0.001000, Time: 12.3s
INFO:root:Epoch 2, Train Loss: 0.5931, Train Acc: 60.00%, Val Loss: 0.5900, LR: 0.001000, Time: 12.1s
INFO:root:Epoch 3, Train Loss: 0.4931, Train Acc: 70.00%, Val Loss: 0.4900, LR: 0.000100, Time: 12.2s
""",
        {
            "Train Loss": ([1, 2, 3], [0.6931, 0.5931, 0.4931]),
            "Train Acc": ([1, 2, 3], [0.5, 0.6, 0.7]),
            "Time": ([1, 2, 3], [12.3, 12.1, 12.2]),
        },
        {},
    ),
    "modded nanoGPT": (
        """step:0/5000 val_loss:10.8 train_time:0ms step_avg:nanms
step:125/5000 val_loss:4.5 train_time:12345ms step_avg:50ms
step:250/5000 val_loss:4.1 train_time:24345ms step_avg:51ms
""",
        {"val_loss": ([0, 125, 250], [10.8, 4.5, 4.1])},
        {"planned_steps": 5000},
    ),
    "all ranks print": (
        """[rank0]: step 1 loss 2.0
[rank1]: step 1 loss 2.1
[rank0]: step 2 loss 1.5
[rank1]: step 2 loss 1.6
[rank1]: step 3 loss 1.2
[rank0]: step 3 loss 1.1
""",
        {"loss": ([1, 2, 3], [2.0, 1.5, 1.1])},
        {},
    ),
    "tensors printed": (
        "epoch=0 loss=tensor(0.9, device='cuda:0', grad_fn=<NllLossBackward0>)\n"
        "epoch=1 loss=tensor(0.8, device='cuda:0', grad_fn=<NllLossBackward0>)\n"
        "epoch=2 loss=tensor(nan, device='cuda:0', grad_fn=<NllLossBackward0>)\n",
        {"loss": ([0, 1, 2], [0.9, 0.8, nan])},
        {},
    ),
    "a sentence": (
        "Validation loss at epoch 1 is 0.91\nValidation loss at epoch 2 is 0.71\nValidation loss at epoch 3 is 0.51\n",
        {"Validation loss": ([1, 2, 3], [0.91, 0.71, 0.51])},
        {},
    ),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_dialect(tmp_path: Path, name: str) -> None:
    text, columns, facts = DIALECTS[name]
    run = read_text(tmp_path, text)
    found = table_of(run)
    for tag, (clock, values) in columns.items():
        assert tag in found, f"{tag} not among {list(found)}"
        assert found[tag][0] == clock, tag
        np.testing.assert_allclose(found[tag][1], values, rtol=1e-12, err_msg=tag)
    assert {key: run.facts.get(key) for key in facts} == facts
