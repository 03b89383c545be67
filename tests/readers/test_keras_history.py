"""Histories dumped as one JSON object of lists."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from fitdoctor.errors import ReadError
from fitdoctor.readers import keras_history
from hypothesis import given
from hypothesis import strategies as st

from .conftest import Reading, check, series


def test_keras(reading: Reading, fixtures: Path) -> None:
    run = reading.run(keras_history, fixtures / "keras/history.json")
    assert (run.name, run.source) == ("keras", "keras-history")
    loss = series(run, "val_loss")
    assert loss.steps is None
    assert loss.epochs is not None
    assert loss.epochs.tolist() == [0, 1, 2, 3]
    assert loss.values.tolist() == [1.4648768901824951, 1.4708986282348633, 1.469967007637024, 1.4595136642456055]


def dump(folder: Path, value: Any, name: str = "history.json") -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_nested_history_with_its_own_epochs(reading: Reading, tmp_path: Path) -> None:
    path = dump(
        tmp_path,
        {"epoch": [5, 6, 7], "params": {"epochs": 8}, "history": {"loss": [3, 2, math.nan], "acc": [1, None, 2]}},
    )
    run = reading.run(keras_history, path)
    loss, acc = series(run, "loss"), series(run, "acc")
    assert loss.epochs is not None
    assert acc.epochs is not None
    assert loss.epochs.tolist() == [5, 6, 7]
    assert math.isnan(loss.values[2])
    assert (acc.epochs.tolist(), acc.values.tolist()) == ([5, 7], [1, 2])


def test_boosting_results(reading: Reading, tmp_path: Path) -> None:
    run = reading.run(keras_history, dump(tmp_path, {"train": {"logloss": [3, 2]}, "valid": {"logloss": [4, 3]}}))
    assert [s.tag for s in run.series] == ["train/logloss", "valid/logloss"]


def test_a_loss_per_step_beside_one_per_epoch(reading: Reading, tmp_path: Path) -> None:
    run = reading.run(keras_history, dump(tmp_path, {"train_losses": list(range(12)), "val_losses": [3, 2, 1]}))
    train, val = series(run, "train_losses").steps, series(run, "val_losses").steps
    assert train is not None
    assert val is not None
    assert (train.tolist(), val.tolist()) == (list(range(1, 13)), [4, 8, 12])
    assert [n.kind for n in run.notes] == ["aligned"]


def test_lists_that_share_no_clock(reading: Reading, tmp_path: Path) -> None:
    run = reading.run(keras_history, dump(tmp_path, {"loss": [1, 2, 3, 4, 5], "val_loss": [1, 2, 3]}))
    assert [n.kind for n in run.notes] == ["ambiguous"]


@pytest.mark.parametrize(
    "value", [{"words": ["a", "b"]}, {"vocab": {"a": 1}}, {"loss": 0.5}, {"ids": [1, 2]}, [1, 2], "{"]
)
def test_not_claimed(reading: Reading, tmp_path: Path, value: Any) -> None:
    assert not reading.recognised(keras_history, dump(tmp_path, value))


def test_cut_file_says_what_to_do(tmp_path: Path, fixtures: Path) -> None:
    path = tmp_path / "history.json"
    path.write_bytes((fixtures / "keras/history.json").read_bytes()[:-10])
    with pytest.raises(ReadError, match="expected one JSON object of lists, got broken JSON"):
        list(keras_history.read(path, [path]))


@given(
    st.dictionaries(
        st.sampled_from(["loss", "acc", "epoch", "step"]),
        st.lists(st.floats() | st.none() | st.text(max_size=2), max_size=5),
    )
)
def test_arbitrary_lists(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
    path = dump(tmp_path_factory.getbasetemp(), value)
    keras_history.recognise(path, path.read_bytes())
    try:
        for run in keras_history.read(path, [path]):
            check(run)
    except ReadError:
        pass
