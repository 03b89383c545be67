"""JSON lines: mmengine's real file, the shapes other libraries write, and dirt."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fitdoctor
import pytest
from fitdoctor.errors import ReadError
from fitdoctor.readers import jsonl
from fitdoctor.readers.raw import RawRun
from fitdoctor.signals import LOSS, LOSS_PART, SCORE
from hypothesis import given
from hypothesis import strategies as st

from .conftest import Reading, check, series

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(content: str | bytes | list[dict[str, Any]], name: str = "log.jsonl") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def table(run: RawRun) -> dict[str, tuple[list[int] | None, list[float]]]:
    return {s.tag: (None if s.steps is None else s.steps.tolist(), s.values.tolist()) for s in run.series}


def test_mmengine(reading: Reading, fixtures: Path) -> None:
    files = sorted((fixtures / "mmengine").rglob("*.json"))
    assert len(files) == 2  # the same log twice
    run = reading.run(jsonl, *files)
    assert (run.name, run.source) == ("20261122_223946", "mmengine")
    found = table(run)
    assert found["loss"][0] == [2, 4, 6, 8, 10, 12]
    assert found["loss"][1][0] == 1.3583936095237732
    assert found["val/accuracy"] == ([4, 8, 12], [0.359375, 0.453125, 0.5390625])  # step is the epoch there
    epochs = series(run, "val/accuracy").epochs
    assert epochs is not None
    assert epochs.tolist() == [1, 2, 3]


def test_mmcv(reading: Reading, write: Write) -> None:
    rows: list[dict[str, Any]] = [{"env_info": "linux", "config": "x = 1", "seed": 7}]
    for epoch in (1, 2):
        rows += [
            {"mode": "train", "epoch": epoch, "iter": i, "lr": 0.1, "loss": 3.0 - epoch - i / 100} for i in (50, 100)
        ]
        rows.append({"mode": "val", "epoch": epoch, "iter": 20, "lr": 0.1, "bbox_mAP": epoch / 10})
    run = reading.run(jsonl, write(rows, "20210101.log.json"))
    found = table(run)
    assert found["train/loss"] == ([50, 100, 150, 200], [1.5, 1.0, 0.5, 0.0])
    assert found["val/bbox_mAP"] == ([100, 200], [0.1, 0.2])
    assert run.params["seed"] == 7


def test_detectron2(reading: Reading, write: Write) -> None:
    rows = [{"iteration": i, "total_loss": 1 / (i + 1), "lr": 0.1, "data_time": 0.1} for i in (19, 39, 59)]
    rows[1]["bbox/AP"] = math.nan
    run = reading.run(jsonl, write(rows, "metrics.json"))
    assert run.source == "detectron2"
    assert table(run)["total_loss"] == ([19, 39, 59], [0.05, 0.025, 1 / 60])
    assert table(run)["bbox/AP"][0] == [39]


def test_detectron2_with_its_configuration(fixtures: Path) -> None:
    """The keys and the layout are those of detectron2's JSONWriter: sorted keys, evaluations in rows of their own."""
    (run,) = fitdoctor.open_runs(fixtures / "detectron2")
    assert (run.name, run.source, run.facts["framework"]) == ("detectron2", "detectron2", "detectron2")
    assert run.facts["learning_rate"] == 0.00025
    assert (run.facts["batch_size"], run.facts["planned_steps"], run.facts["warmup_steps"]) == (2, 600, 200)
    loss = run.get(LOSS)
    assert loss is not None
    assert loss.steps.tolist() == list(range(19, 600, 20))
    assert {"box_reg", "cls", "rpn_cls", "rpn_loc"} == set(run.layers(LOSS_PART))
    ap = run.layers(SCORE, "val")["bbox_ap"]
    assert ap.steps.tolist() == [199, 399, 599]
    assert any("medians of 20 iterations" in note.text for note in run.notes)


def test_fairseq_writes_numbers_as_strings(reading: Reading, write: Write) -> None:
    rows = [{"epoch": 1, "update": i / 300, "loss": f"{9 - i / 100}", "num_updates": f"{i}"} for i in (100, 200, 300)]
    rows.append({"epoch": 1, "valid_loss": "5.5", "valid_num_updates": "300"})
    found = table(reading.run(jsonl, write(rows)))
    assert found["loss"] == ([100, 200, 300], [8.0, 7.0, 6.0])
    assert found["valid_loss"] == ([300], [5.5])


def test_nested_keys_lists_and_settings(reading: Reading, write: Write) -> None:
    rows: list[dict[str, Any]] = [{"config": {"lr": 0.1, "name": "x"}}]
    rows += [
        {"step": i, "train": {"loss": 0.5, "ok": True}, "lr": [0.1, 0.2], "hist": list(range(99))} for i in range(3)
    ]
    run = reading.run(jsonl, write(rows))
    assert table(run).keys() == {"train/loss", "lr/0", "lr/1"}
    assert run.params == {"config/lr": 0.1, "config/name": "x"}


def test_one_row_per_split_and_per_metric(reading: Reading, write: Write) -> None:
    rows = [{"epoch": e, "split": s, "loss": 0.5, "val_acc": 1} for e in (1, 2) for s in ("train", "val")]
    assert table(reading.run(jsonl, write(rows))).keys() == {"train/loss", "val/loss", "val_acc"}
    rows = [{"step": i, "name": n, "value": i / 2} for i in (1, 2) for n in ("loss", "acc")]
    assert table(reading.run(jsonl, write(rows)))["acc"] == ([1, 2], [0.5, 1.0])


def test_list_of_objects_in_one_file(reading: Reading, write: Write) -> None:
    text = json.dumps([{"step": i, "loss": i / 2} for i in range(4)], indent=2)
    assert table(reading.run(jsonl, write(text, "log.json")))["loss"] == ([0, 1, 2, 3], [0.0, 0.5, 1.0, 1.5])
    run = reading.run(jsonl, write(text[:-30], "log.json"))
    assert table(run)["loss"][0] == [0, 1, 2]
    assert [n.kind for n in run.notes] == ["truncated"]


def test_nan_literals_and_a_torn_line(reading: Reading, write: Write) -> None:
    text = '{"step": 1, "loss": NaN}\n{"step": 2, "loss": -Infinity}\nnot json\n{"step": 3, "loss": 0.5}\n'
    run = reading.run(jsonl, write(text))
    assert [repr(v) for v in table(run)["loss"][1]] == ["nan", "-inf", "0.5"]
    assert [(n.kind, n.amount) for n in run.notes] == [("corrupt", 1)]
    run = reading.run(jsonl, write('{"step": 1, "loss": 1}\n{"step": 2, "loss": 2}\n{"step": 3, "lo'))
    assert table(run)["loss"][0] == [1, 2]
    assert [n.kind for n in run.notes] == ["truncated"]


def test_times_as_text(reading: Reading, write: Write) -> None:
    rows = [{"timestamp": f"2024-05-01T12:00:0{i}+00:00", "step": i, "loss": 0.5} for i in range(3)]
    wall = series(reading.run(jsonl, write(rows)), "loss").wall_time
    assert wall is not None
    assert wall.tolist() == [1714564800, 1714564801, 1714564802]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("package.json", '{"name": "x", "version": "1.0"}'),
        ("metrics.json", '{\n  "train": {"loss": 0.5},\n  "step": 4\n}'),
        ("wandb-summary.json", '{"_step": 99, "loss": 0.5}'),
        ("config.json", '{"epochs": 5, "loss": "mse", "lr": 0.1}'),
        ("data.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n'),
        ("events.json", '[{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]'),
        ("numbers.json", "[1, 2, 3]"),
    ],
)
def test_not_claimed(reading: Reading, write: Write, name: str, text: str) -> None:
    assert not reading.recognised(jsonl, write(text, name))


def test_nothing_usable_says_what_to_do(write: Write) -> None:
    path = write("[]\n")
    with pytest.raises(ReadError, match="expected one JSON object a line"):
        list(jsonl.read(path, [path]))


def test_cut_anywhere(tmp_path: Path, fixtures: Path) -> None:
    data = (fixtures / "mmengine/20261122_223946/vis_data/scalars.json").read_bytes()
    path = tmp_path / "scalars.json"
    for end in range(0, len(data), 3):
        path.write_bytes(data[:end])
        try:
            (run,) = jsonl.read(path, [path])
        except ReadError:
            assert data[:end].count(b"\n") == 0
            continue
        check(run)
        rows = data[:end].count(b'"iter"')
        assert rows - 1 <= len(series(run, "loss").values) <= rows


rows_of = st.dictionaries(
    st.sampled_from(["step", "epoch", "iter", "loss", "mode", "value", "name", "timestamp"]),
    st.one_of(st.floats(), st.integers(), st.text(max_size=4), st.none(), st.lists(st.floats(), max_size=3)),
)


@given(st.lists(rows_of, max_size=6), st.binary(max_size=30))
def test_arbitrary_rows(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], rest: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary.jsonl"
    content = "\n".join(map(json.dumps, rows)).encode() + rest
    path.write_bytes(content)
    jsonl.recognise(path, content)
    try:
        for run in jsonl.read(path, [path]):
            check(run)
    except ReadError:
        pass
