"""The Hugging Face Trainer's state files, written by the Trainer itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from fitdoctor.errors import ReadError
from fitdoctor.readers import hf_trainer
from hypothesis import given
from hypothesis import strategies as st

from .conftest import Reading, check, series


def test_checkpoints_are_one_run(reading: Reading, fixtures: Path) -> None:
    files = sorted((fixtures / "hf_trainer").rglob("trainer_state.json"))
    assert len(files) == 4
    run = reading.run(hf_trainer, *files)
    assert (run.name, run.source, run.finished) == ("hf_trainer", "hf-trainer", True)
    assert run.path == str(fixtures / "hf_trainer" / "trainer_state.json")
    loss = series(run, "loss")
    assert loss.steps is not None
    assert loss.epochs is not None
    assert loss.steps.tolist() == list(range(1, 13))
    assert loss.epochs.tolist() == [0.25 * i for i in range(1, 13)]
    assert loss.values.tolist()[:3] == [2.2013192176818848, 2.194603443145752, 2.186771869659424]
    val = series(run, "eval_loss")
    assert val.steps is not None
    assert (val.steps.tolist(), val.values.tolist()) == (
        [4, 8, 12],
        [1.09786057472229, 1.0976728200912476, 1.0976026058197021],
    )
    assert dict(run.facts) == {
        "framework": "transformers",
        "planned_steps": 12,
        "batch_size": 8,
        "planned_epochs": 3,
        "steps_per_epoch": 4,
    }


def test_the_average_over_the_run_is_no_point(reading: Reading, fixtures: Path) -> None:
    run = reading.run(hf_trainer, fixtures / "hf_trainer/trainer_state.json")
    assert not {"train_loss", "train_runtime", "total_flos"} & {s.tag for s in run.series}


def test_only_the_last_checkpoint_counts(reading: Reading, fixtures: Path) -> None:
    files = [fixtures / f"hf_trainer/checkpoint-{n}/trainer_state.json" for n in (4, 8)]
    run = reading.run(hf_trainer, *files)
    assert len(series(run, "loss").values) == 8
    assert run.finished is False


def test_nan_hidden_by_the_filter(reading: Reading, fixtures: Path) -> None:
    run = reading.run(hf_trainer, fixtures / "hf_trainer_nan/trainer_state.json")
    loss = series(run, "loss")
    assert loss.steps is not None
    assert loss.steps.tolist() == [1, 2, 3, 4]  # the rows with 0.0 are no data
    assert [math.isnan(v) for v in series(run, "grad_norm").values] == [False] * 4 + [True] * 4
    (note,) = run.notes
    assert (note.kind, note.step, note.amount) == ("hidden-nonfinite", 5, 4)


def test_nan_shown(reading: Reading, fixtures: Path) -> None:
    run = reading.run(hf_trainer, fixtures / "hf_trainer_nan_nofilter/trainer_state.json")
    assert [math.isnan(v) for v in series(run, "loss").values] == [False] * 4 + [True] * 4
    assert not run.notes


def test_a_loss_of_zero_with_a_finite_gradient_is_data(reading: Reading, tmp_path: Path) -> None:
    path = tmp_path / "trainer_state.json"
    rows = [{"loss": 0.0, "grad_norm": 0.5, "step": i} for i in range(3)]
    path.write_text(json.dumps({"log_history": rows}))
    run = reading.run(hf_trainer, path)
    assert series(run, "loss").values.tolist() == [0.0, 0.0, 0.0]
    assert not run.notes


def test_configurations_are_not_claimed(reading: Reading, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"hidden_size": 8, "architectures": ["Bert"]}')
    assert not reading.recognised(hf_trainer, path)


def test_cut_anywhere(tmp_path: Path, fixtures: Path) -> None:
    """Whole rows before the cut are read, as they stand, and the cut is told."""
    data = (fixtures / "hf_trainer_nan_nofilter/trainer_state.json").read_bytes()
    path = tmp_path / "trainer_state.json"
    whole = [row["step"] for row in json.loads(data)["log_history"]]
    counts = set()
    for end in range(0, len(data), 5):
        path.write_bytes(data[:end])
        try:
            (run,) = hf_trainer.read(tmp_path, [path])
        except ReadError:
            assert data[:end].count(b'"step"') < 2
            continue
        check(run)
        steps = series(run, "grad_norm").steps
        assert steps is not None
        assert steps.tolist() == whole[: len(steps)]
        counts.add(len(steps))
        if data[:end].rstrip() != data.rstrip():
            assert [n.kind for n in run.notes] == ["truncated"]
    assert counts == set(range(1, 9))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["loss", "step", "epoch", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["log_history", "global_step", "max_steps", "num_train_epochs"]), json_values))
def test_arbitrary_states(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "trainer_state.json"
    path.write_text(json.dumps(state))
    try:
        for run in hf_trainer.read(path.parent, [path]):
            check(run)
    except ReadError:
        rows = state.get("log_history")
        assert not isinstance(rows, list) or not any(isinstance(row, dict) for row in rows)


@given(st.binary(max_size=200))
def test_arbitrary_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "trainer_state.json"
    for content in (data, b'{"log_history": [{"loss": 1.0, "step": 1}, ' + data):
        path.write_bytes(content)
        hf_trainer.recognise(path, content)
        try:
            for run in hf_trainer.read(path.parent, [path]):
                check(run)
        except ReadError:
            pass
