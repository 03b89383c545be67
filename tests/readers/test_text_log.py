"""Text logs as people really print them: what must come out of each dialect, and what must not be claimed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fitdoctor.errors import ReadError
from fitdoctor.readers import text_log
from fitdoctor.readers.raw import RawRun
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import Reading, check, series

nan, inf = math.nan, math.inf


def table_of(run: RawRun) -> dict[str, tuple[list[float] | None, list[float]]]:
    """Tag -> (steps, or epochs where there are no steps; values)."""
    out = {}
    for s in run.series:
        clock = s.steps if s.steps is not None else s.epochs
        out[s.tag] = (None if clock is None else clock.tolist(), s.values.tolist())
    return out


DIALECTS: dict[str, tuple[dict[str, tuple[list[float], list[float]]], dict[str, Any]]] = {
    "one_line_an_epoch": (
        {"train_loss": ([1, 2, 3], [0.91, 0.71, 0.51]), "val acc": ([1, 2, 3], [0.43, 0.63, 0.83])},
        {"planned_epochs": 10},
    ),
    "step_that_starts_again_with_each_epoch": (
        {"Loss": ([100, 200, 300, 400], [2.3, 1.9, 1.5, 1.2])},
        {"planned_epochs": 3, "steps_per_epoch": 200},
    ),
    "key_value": (
        {
            "loss": ([100, 200, 300, 400], [1.2, 1.1, nan, -inf]),
            "lr": ([100, 200, 300, 400], [0.001, 0.0009, 0.0008, 0.0007]),
        },
        {},
    ),
    "keras_2_progress_written_over": (
        {
            "loss": ([1, 2, 3], [1.5, 1.0, 0.8]),
            "accuracy": ([1, 2, 3], [0.5, 0.7, 0.8]),
            "val_loss": ([1, 2, 3], [1.2, 0.9, 0.85]),
            "val_accuracy": ([1, 2, 3], [0.6, 0.8, 0.82]),
        },
        {"planned_epochs": 3, "steps_per_epoch": 60, "framework": "keras"},
    ),
    "keras_3": (
        {
            "loss": ([1, 2, 3, 4], [1.5, 1.1, 1.0, 0.95]),
            "val_loss": ([1, 2, 3], [1.2, 1.0, 0.9]),
            "accuracy": ([1, 2, 3, 4], [0.5, 0.7, 0.8, 0.85]),
        },
        {"planned_epochs": 9, "steps_per_epoch": 60},
    ),
    "keras_verbose_2": (
        {"loss": ([1, 2, 3], [1.5, 1.2, 1.1]), "accuracy": ([1, 2, 3], [0.5, 0.6, 0.65])},
        {"planned_epochs": 20, "steps_per_epoch": 60},
    ),
    "nanogpt": (
        {
            "train loss": ([0, 20], [4.2, 2.5]),
            "val loss": ([0, 20], [4.3, 2.6]),
            "loss": ([0, 10, 20], [4.25, 3.25, 2.75]),
            "time": ([0, 10, 20], [30.29206, 0.2, 0.21]),
        },
        {},
    ),
    "markdown_table": (
        {"train loss": ([1, 2, 3], [0.9, 0.8, 0.7]), "val loss": ([1, 2, 3], [1.0, 0.95, nan])},
        {},
    ),
    "box_table": (
        {"loss": ([0, 1, 2], [0.9, 0.8, 0.75]), "val acc": ([0, 1, 2], [0.51, 0.61, 0.66])},
        {},
    ),
    "fastai": (
        {"train_loss": ([0, 1, 2], [0.509, 0.409, 0.309]), "valid_loss": ([0, 1, 2], [0.45, 0.4, 0.42])},
        {},
    ),
    "yolo": (
        {
            "box_loss": ([1, 2, 3], [1.169, 1.069, 1.009]),
            "mAP50": ([1, 2, 3], [0.605, 0.615, 0.625]),
            "mAP50-95": ([1, 2, 3], [0.446, 0.456, 0.466]),
        },
        {},
    ),
    "fairseq": (
        {
            "loss": ([100, 200, 400], [10.5, 9.5, 8.4]),
            "valid loss": ([300, 600], [8.5, 7.5]),
            "train loss": ([300, 600], [10.0, 8.0]),
            "lr": ([100, 200, 300, 400, 600], [1e-05, 2e-05, 3e-05, 4e-05, 6e-05]),
        },
        {},
    ),
    "transformers_printing_dicts": (
        {"loss": ([0.25, 0.5, 0.75], [2.2013, 2.1013, 2.0013]), "grad_norm": ([0.25, 0.5, 0.75], [0.84, 0.74, 0.94])},
        {},
    ),
    "mmdetection": (
        {
            "loss": ([50, 100, 150, 200], [2.3, 2.0, 1.8, 1.7]),
            "val bbox_mAP": ([100, 200], [0.1, 0.15]),
            "time": ([50, 100, 150, 200], [0.6, 0.5, 0.5, 0.5]),
        },
        {},
    ),
    "mmengine": (
        {"train loss": ([50, 100, 150, 200], [2.3, 2.1, 1.9, 1.8]), "val accuracy/top1": ([100, 200], [51.2, 56.2])},
        {},
    ),
    "detectron2": (
        {
            "total_loss": ([19, 39, 59], [1.234, 1.134, 1.034]),
            "max_mem": ([19, 39, 59], [2000000000.0, 2000000000.0, 2000000000.0]),
        },
        {},
    ),
    "megatron": (
        {
            "lm loss": ([100, 200, 300], [9.5, 8.5, 7.5]),
            "grad norm": ([100, 200, 300], [2.1, 1.1, 1.9]),
            "learning rate": ([100, 200, 300], [1e-05, 2e-05, 3e-05]),
        },
        {"planned_steps": 500000},
    ),
    "pytorch_s_mnist_example": (
        {
            "Train Loss": ([0, 30000, 60000, 90000], [2.3, 0.5, 0.3, 0.2]),
            "Test Average loss": ([30000, 90000], [0.048, 0.038]),
            "Test Accuracy": ([30000, 90000], [0.9843, 0.987]),
        },
        {},
    ),
    "pytorch_s_imagenet_example": (
        {
            "Loss": ([100, 600, 1100, 1600], [7.0, 6.0, 5.0, 4.0]),
            "Acc@1": ([100, 600, 1100, 1600], [0.39, 1.39, 5.39, 6.39]),
            "test Acc@1": ([600, 1600], [4.5, 8.5]),
        },
        {},
    ),
    "pytorch_s_finetuning_tutorial": (
        {"train Loss": ([0, 1, 2], [0.65, 0.45, 0.35]), "val Acc": ([0, 1, 2], [0.9, 0.91, 0.92])},
        {},
    ),
    "word_language_model_example": (
        {"loss": ([200, 400, 800, 1000], [7.26, 6.26, 5.86, 5.76]), "valid loss": ([400, 1000], [5.77, 5.57])},
        {},
    ),
    "llm_c": (
        {"loss": ([1, 2, 3], [10.9, 10.5, 9.5]), "norm": ([1, 2, 3], [15.3, 13.3, 11.3])},
        {"planned_steps": 100},
    ),
    "boosting": (
        {"train-logloss": ([0, 1, 2], [0.69, 0.59, 0.49]), "eval-logloss": ([0, 1, 2], [0.7, 0.61, 0.55])},
        {},
    ),
    "tqdm_over_epochs_as_lightning_draws_it": (
        {"loss": ([8, 16, 24, 32], [0.9, 0.8, 0.7, 0.6])},
        {},
    ),
    "tqdm_over_steps": (
        {"loss": ([1, 10, 1000], [2.5, 2.1, 0.51])},
        {"planned_steps": 1000},
    ),
    "two_splits_in_a_line_their_names_said_once": (
        {
            "train loss": ([1, 2, 3], [0.9, 0.7, 0.5]),
            "train acc": ([1, 2, 3], [0.5, 0.6, 0.7]),
            "val loss": ([1, 2, 3], [1.0, 0.9, 0.8]),
            "val acc": ([1, 2, 3], [0.4, 0.5, 0.6]),
        },
        {},
    ),
    "logging_s_prefix_percent_seconds": (
        {
            "Train Loss": ([1, 2, 3], [0.6931, 0.5931, 0.4931]),
            "Train Acc": ([1, 2, 3], [0.5, 0.6, 0.7]),
            "Time": ([1, 2, 3], [12.3, 12.1, 12.2]),
        },
        {},
    ),
    "modded_nanogpt": (
        {"val_loss": ([0, 125, 250], [10.8, 4.5, 4.1])},
        {"planned_steps": 5000},
    ),
    "all_ranks_print": (
        {"loss": ([1, 2, 3], [2.0, 1.5, 1.1])},
        {},
    ),
    "tensors_printed": (
        {"loss": ([0, 1, 2], [0.9, 0.8, nan])},
        {},
    ),
    "a_sentence": (
        {"Validation loss": ([1, 2, 3], [0.91, 0.71, 0.51])},
        {},
    ),
    # What follows was printed by the libraries themselves.
    "keras_3_15_verbose_1": (
        {
            "loss": ([1, 2, 3, 4], [0.5859, 0.5747, 0.5643, 0.5552]),
            "val_accuracy": ([1, 2, 3, 4], [0.7344, 0.7344, 0.7344, 0.7344]),
        },
        {"planned_epochs": 4, "steps_per_epoch": 6, "framework": "keras"},
    ),
    "keras_3_15_verbose_2": (
        {"val_loss": ([1, 2, 3, 4], [1.0082, 0.9888, 0.9701, 0.9519])},
        {"planned_epochs": 4, "steps_per_epoch": 6},
    ),
    "tqdm_and_logging": (
        {
            "train_loss": ([20, 40, 60], [1.0, 0.5, 0.3333]),
            "val_acc": ([20, 40, 60], [0.5, 0.6, 0.7]),
        },
        {"planned_epochs": 3},
    ),
    "rich_table": (
        {"Train loss": ([0, 1, 2, 3], [1.0, 0.5, 0.333, 0.25]), "Acc": ([0, 1, 2, 3], [0.6, 0.61, 0.62, 0.63])},
        {},
    ),
}
"""File in fixtures/text_logs -> tag -> (steps, or epochs where there are none; values), and the facts."""


@pytest.mark.parametrize("name", DIALECTS)
def test_dialect(reading: Reading, fixtures: Path, name: str) -> None:
    columns, facts = DIALECTS[name]
    run = reading.run(text_log, fixtures / "text_logs" / f"{name}.log")
    found = table_of(run)
    for tag, (clock, values) in columns.items():
        assert tag in found, f"{tag} not among {list(found)}"
        assert found[tag][0] == clock, tag
        np.testing.assert_allclose(found[tag][1], values, rtol=1e-12, err_msg=tag)
    assert {key: run.facts.get(key) for key in facts} == facts


FILTERED = [(2.5, 1.0), (2.25, 1.5), (0.0, 0.25), (0.0, nan), (0.0, inf)]


def write(folder: Path, text: str | bytes, name: str = "run.log") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


EPOCHS = "".join(f"epoch {i} train_loss {1 / i:.4f} val_loss {1.2 / i:.4f}\n" for i in range(1, 9))

NOT_LOGS = {
    "requirements.txt": "numpy==1.26\ntorch>=2.3\nscipy==1.11\n",
    "install.log": "Collecting numpy\n  Downloading numpy-1.26-cp311.whl (18.2 MB)\nSuccessfully installed numpy-1.26\n"
    * 5,
    "notes.txt": "The loss was 0.5 after 3 epochs. We then tried lr 0.1.\nIt diverged.\n",
    "debug.log": "".join(f"2024-01-01 10:00:{i:02d} DEBUG http.py:88 GET /step/{i} 200 in {i}ms\n" for i in range(30)),
    "words.txt": "\n".join(f"word{i} {i}" for i in range(50)),
    "access.log": "".join(f'10.0.0.{i} - - [01/Jan/2024] "GET /loss HTTP/1.1" 200 {i}12\n' for i in range(30)),
    "build.out": "".join(f"[{i}/20] Building CXX object src/{i}.o\n" for i in range(20)) + "0 errors, 3 warnings\n",
    "trace.err": "Traceback (most recent call last):\n  File 'train.py', line 3\nValueError: loss is nan\n" * 4,
    "numbers.txt": "".join(f"{i} {i * i}\n" for i in range(50)),
    "train.py": EPOCHS,
    "README.md": EPOCHS,
}


@pytest.mark.parametrize("name", NOT_LOGS)
def test_not_claimed(reading: Reading, tmp_path: Path, name: str) -> None:
    assert not reading.recognised(text_log, write(tmp_path, NOT_LOGS[name], name))


def test_the_terminal_of_a_wandb_run_is_left_to_its_own_reader(reading: Reading, tmp_path: Path) -> None:
    assert reading.recognised(text_log, write(tmp_path, EPOCHS, "files/output.log"))
    assert not reading.recognised(text_log, write(tmp_path, EPOCHS, "offline-run-1-a/files/output.log"))


def test_long_preamble_and_utf16(reading: Reading, tmp_path: Path) -> None:
    preamble = "".join(f"loading shard {i} of the data set\n" for i in range(500))
    run = reading.run(text_log, write(tmp_path, ("\ufeff" + preamble + EPOCHS).encode("utf-16-le")))
    assert len(series(run, "train_loss").values) == 8


def test_settings_before_training_and_remarks_during_it(reading: Reading, tmp_path: Path) -> None:
    text = "batch_size: 64\nlearning rate = 3e-4\nNumber of parameters: 11.2M\n"
    text += EPOCHS.replace("epoch 5", "saved checkpoint 3, best val_loss 0.1\nepoch 5")
    run = reading.run(text_log, write(tmp_path, text))
    assert run.params["batch_size"] == 64
    assert run.params["learning_rate"] == 3e-4
    assert sorted(s.tag for s in run.series) == ["train_loss", "val_loss"]


def test_what_argparse_printed(reading: Reading, fixtures: Path) -> None:
    run = reading.run(text_log, fixtures / "text_logs/tqdm_and_logging.log")
    assert run.params == {"batch_size": 32, "lr": 0.001, "epochs": 3, "optimizer": "adam"}


def test_the_trainers_filter_and_summary(reading: Reading, tmp_path: Path) -> None:
    rows = [f"{{'loss': {loss}, 'grad_norm': {norm}, 'epoch': {i / 4}}}" for i, (loss, norm) in enumerate(FILTERED)]
    rows.append("{'train_runtime': 16.7, 'train_loss': 2.1, 'epoch': 1.0}")
    run = reading.run(text_log, write(tmp_path, "\n".join(rows) + "\n"))
    assert {s.tag for s in run.series} == {"loss", "grad_norm"}
    assert series(run, "loss").values.tolist() == [2.5, 2.25, 0.0]
    assert [(n.kind, n.amount) for n in run.notes] == [("hidden-nonfinite", 2)]


def test_a_crash_is_told(reading: Reading, tmp_path: Path) -> None:
    crash = (
        'Traceback (most recent call last):\n  File "train.py", line 8, in <module>\nRuntimeError: CUDA out of memory\n'
    )
    run = reading.run(text_log, write(tmp_path, EPOCHS + crash))
    assert run.finished is False
    assert [n.text.rpartition(": ")[2] for n in run.notes] == ["CUDA out of memory"]


def test_times_become_wall_time(reading: Reading, tmp_path: Path) -> None:
    text = "".join(f"2024-05-01T12:00:0{i}+00:00 step {i} loss 0.5\n" for i in range(5))
    wall = series(reading.run(text_log, write(tmp_path, text)), "loss").wall_time
    assert wall is not None
    assert wall.tolist() == [1714564800 + i for i in range(5)]


def test_a_restart_keeps_the_order_of_the_file(reading: Reading, tmp_path: Path) -> None:
    text = "".join(f"step {i} loss {i}.5\n" for i in (100, 200, 300, 200, 300, 400))
    steps = series(reading.run(text_log, write(tmp_path, text)), "loss").steps
    assert steps is not None
    assert steps.tolist() == [100, 200, 300, 200, 300, 400]


def test_nothing_usable_says_what_to_do(tmp_path: Path) -> None:
    path = write(tmp_path, "hello\nworld 3\n")
    with pytest.raises(ReadError, match="expected lines with metrics that come back"):
        list(text_log.read(path, [path]))


@pytest.mark.parametrize("name", ["nanogpt", "keras_3", "yolo", "mmengine", "box_table"])
def test_cut_anywhere(tmp_path: Path, fixtures: Path, name: str) -> None:
    """What is read of a cut log stands in the whole log, but for the last number, which may be cut."""
    data = (fixtures / "text_logs" / f"{name}.log").read_bytes()
    path = tmp_path / "run.log"
    path.write_bytes(data)
    (whole,) = text_log.read(path, [path])
    known = {round(v, 9) for s in whole.series for v in s.values.tolist()}
    for end in range(0, len(data), 7):
        path.write_bytes(data[:end])
        try:
            (run,) = text_log.read(path, [path])
        except ReadError:
            continue
        check(run)
        strange = [v for s in run.series for v in s.values.tolist() if round(v, 9) not in known and not math.isnan(v)]
        assert len(strange) <= 2, strange


@given(st.binary(max_size=400))
def test_arbitrary_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    for content in (data, b"epoch 1 loss 0.5\n" + data + b"\nepoch 2 loss 0.4\n", b"| epoch | loss |\n" + data):
        path = write(folder, content, "arbitrary.log")
        text_log.recognise(path, content[:4096])
        try:
            for run in text_log.read(path, [path]):
                check(run)
        except ReadError:
            pass


piece = st.sampled_from(
    [
        "epoch",
        "step",
        "loss",
        "val",
        "Acc@1",
        "[",
        "]",
        "3/10",
        "1e400",
        "nan",
        "-inf",
        ":",
        "=",
        "|",
        ",",
        "(",
        ")",
        "7%",
        "100%|██|",
        "\t",
        "  ",
        "\r",
        "0.5",
        "12:30:01",
        "2024-01-01",
        "1,234",
        "99999999999999999999",
        "ETA:",
        "ms/step",
        "Test",
        "'",
        "of",
        "20ms",
    ]
)


@settings(max_examples=300)
@given(st.lists(st.lists(piece, max_size=14).map(" ".join), max_size=8))
def test_arbitrary_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = write(tmp_path_factory.getbasetemp(), "\n".join(lines), "lines.log")
    try:
        for run in text_log.read(path, [path]):
            check(run)
    except ReadError:
        pass
