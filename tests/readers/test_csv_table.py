"""CSV tables: real files of each writer, and the dirt that real files have."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fitdoctor.errors import ReadError
from fitdoctor.readers import csv_cells, csv_table
from fitdoctor.readers.raw import RawRun
from hypothesis import given
from hypothesis import strategies as st

from .conftest import FIXTURES, Reading, check, series

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(content: str | bytes, name: str = "log.csv") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def values(run: RawRun, tag: str) -> list[float]:
    return series(run, tag).values.tolist()  # type: ignore[no-any-return]


def test_lightning(reading: Reading, fixtures: Path) -> None:
    run = reading.run(csv_table, fixtures / "lightning_csv/lightning_logs/version_0/metrics.csv")
    assert (run.name, run.source, run.facts) == ("version_0", "lightning-csv", {"framework": "lightning"})
    assert [(s.tag, len(s.values)) for s in run.series] == [
        ("lr-AdamW", 3),
        ("train_loss_step", 12),
        ("val_acc", 3),
        ("val_loss", 3),
        ("train_acc", 3),
        ("train_loss_epoch", 3),
    ]
    lr = series(run, "lr-AdamW")
    assert lr.values.tolist() == [0.01, 0.009045084971874737, 0.0065450849718747366]
    assert lr.steps is not None
    assert lr.steps.tolist() == [0, 4, 8]
    assert lr.epochs is None  # those rows have no epoch
    loss = series(run, "val_loss")
    assert loss.values.tolist() == [1.013761043548584, 0.8979455828666687, 0.8243573307991028]
    assert loss.steps is not None
    assert loss.epochs is not None
    assert (loss.steps.tolist(), loss.epochs.tolist()) == ([3, 7, 11], [0, 1, 2])


def test_hparams_beside_the_log(reading: Reading, write: Write) -> None:
    write("batch_size: 32\noptim:\n  lr: 0.001\nmodel: !!python/object:my.Net\n  depth: 3\n", "v/hparams.yaml")
    run = reading.run(csv_table, write("epoch,step,loss\n0,0,1.0\n0,1,0.9\n", "v/metrics.csv"))
    assert run.params == {"batch_size": 32, "optim/lr": 0.001, "model/depth": 3}


def test_keras(reading: Reading, fixtures: Path) -> None:
    run = reading.run(csv_table, fixtures / "keras/training.log")
    assert (run.name, run.source) == ("keras", "keras-csv")
    assert values(run, "val_accuracy") == [0.1875, 0.1875, 0.125, 0.125]
    assert all(s.steps is None for s in run.series)
    epochs = series(run, "loss").epochs
    assert epochs is not None
    assert epochs.tolist() == [0, 1, 2, 3]


def test_ultralytics_and_timm(reading: Reading, fixtures: Path) -> None:
    yolo = reading.run(csv_table, fixtures / "ultralytics/cls/results.csv")
    assert (yolo.name, yolo.source) == ("cls", "ultralytics")
    assert values(yolo, "lr/pg2") == [0.000555667, 0.000930742, 0.00056678]
    timm = reading.run(csv_table, fixtures / "timm/summary.csv")
    assert (timm.name, timm.source) == ("timm", "timm")
    assert values(timm, "eval_top1")[-1] == 94.9999988079071


def test_padded_names_of_yolov5(reading: Reading, write: Write) -> None:
    text = "               epoch,      train/box_loss,   metrics/precision,    val/box_loss\n"
    text += "                   0,             0.11085,             0.01,             0.1\n"
    text += "                   1,             0.10085,             0.02,             0.09\n"
    run = reading.run(csv_table, write(text, "exp3/results.csv"))
    assert [s.tag for s in run.series] == ["train/box_loss", "metrics/precision", "val/box_loss"]
    assert values(run, "train/box_loss") == [0.11085, 0.10085]


ALGOPERF = """global_step,grad_norm,loss,train/loss,validation/loss,score,preemption_count
0,35.1,0.19,,,,
1,,,0.15,0.16,20.7,0.0
100,6.8,0.15,,,,
170,,,0.12,0.13,141.6,0.0
"""
ALGOPERF_EVAL = """global_step,preemption_count,score,train/loss,validation/loss,extra
1,0,20.7,0.15,0.16,5
170,0,141.6,0.12,0.13,6
"""


def test_algoperf_counts_no_row_twice(reading: Reading, write: Write) -> None:
    paths = [write(ALGOPERF, "t/measurements.csv"), write(ALGOPERF_EVAL, "t/eval_measurements.csv")]
    write('{"learning_rate": 0.001, "beta2": 0.99}', "t/hparams.json")
    run = reading.run(csv_table, *paths)
    assert (run.name, run.source) == ("t", "algoperf")
    assert values(run, "validation/loss") == [0.16, 0.13]
    assert values(run, "extra") == [5, 6]
    steps = series(run, "train/loss").steps
    assert steps is not None
    assert steps.tolist() == [1, 170]
    assert run.params == {"learning_rate": 0.001, "beta2": 0.99}


def test_algoperf_with_one_table_broken(reading: Reading, write: Write) -> None:
    whole, broken = write(ALGOPERF, "t/measurements.csv"), write(b"\0\1\2", "t/eval_measurements.csv")
    (run,) = csv_table.read(whole.parent, [whole, broken])
    assert values(run, "loss") == [0.19, 0.15]
    assert [n.kind for n in run.notes] == ["ignored-file"]


DIALECTS: dict[str, tuple[str, dict[str, list[float]]]] = {
    "; and decimal comma": ("epoch;loss;acc\n1;0,51;85,5%\n2;0,43;90%\n", {"loss": [0.51, 0.43], "acc": [0.855, 0.9]}),
    "tab": ("epoch\tloss\n1\t0.5\n2\t0.4\n", {"loss": [0.5, 0.4]}),
    "white space": (
        "epoch loss   val_loss\n1    0.5  0.6\n2    0.4  0.5\n",
        {"loss": [0.5, 0.4], "val_loss": [0.6, 0.5]},
    ),
    "numpy.savetxt": ("# seed 3\n# epoch loss\n1 0.5\n2 0.4\n", {"loss": [0.5, 0.4]}),
    "byte order mark": ("\ufeffepoch,loss\r\n1,0.5\r\n2,0.4\r\n", {"loss": [0.5, 0.4]}),
    "quoted": ('"epoch","loss, mean"\n"1","0.5"\n"2","0.4"\n', {"loss, mean": [0.5, 0.4]}),
    "pandas index": (",epoch,loss\n0,1,0.5\n1,2,0.4\n", {"loss": [0.5, 0.4]}),
    "title above": ("Run of Tuesday\n\nepoch,loss\n1,0.5\n2,0.4\n", {"loss": [0.5, 0.4]}),
    "comma within a cell": ("epoch,loss\n1,tensor(0.5, device='cuda:0')\n2,tensor(0.4)\n", {"loss": [0.4]}),
    "non-finite is data": (
        "step,loss\n1,nan\n2,inf\n3,-inf\n4,NaN\n",
        {"loss": [math.nan, math.inf, -math.inf, math.nan]},
    ),
    "missing is left out": (
        "step,loss,acc\n1,,0.1\n2,None,0.2\n3,null,0.3\n4,0.4,N/A\n",
        {"loss": [0.4], "acc": [0.1, 0.2, 0.3]},
    ),
    "a name twice": ("step,loss,loss\n1,0.5,5\n2,0.4,4\n", {"loss": [0.5, 0.4], "loss.1": [5, 4]}),
    "words": ("step,loss,optimizer\n1,0.5,adam\n2,0.4,adam\n", {"loss": [0.5, 0.4]}),
    "a row per split": (
        "epoch,phase,loss\n1,train,0.5\n1,val,0.6\n2,train,0.4\n2,val,0.55\n",
        {"train/loss": [0.5, 0.4], "val/loss": [0.6, 0.55]},
    ),
    "a row per metric": (
        "step,metric,value\n1,loss,0.5\n1,acc,0.1\n2,loss,0.4\n2,acc,0.2\n",
        {"loss": [0.5, 0.4], "acc": [0.1, 0.2]},
    ),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_dialects(reading: Reading, write: Write, name: str) -> None:
    text, expected = DIALECTS[name]
    run = reading.run(csv_table, write(text))
    found = {s.tag: s.values.tolist() for s in run.series}
    for tag, numbers in expected.items():
        assert found.pop(tag) == pytest.approx(numbers, rel=1e-15, abs=0, nan_ok=True)
    assert not found


def test_utf16_as_powershell_writes_it(reading: Reading, write: Write) -> None:
    run = reading.run(csv_table, write("\ufeffepoch,loss\r\n1,0.5\r\n2,0.4\r\n".encode("utf-16-le")))
    assert values(run, "loss") == [0.5, 0.4]


def test_no_clock_takes_the_row(reading: Reading, write: Write) -> None:
    run = reading.run(csv_table, write("train_loss,val_loss\n0.5,0.6\n0.4,0.5\n0.3,0.5\n"))
    steps = series(run, "val_loss").steps
    assert steps is not None
    assert steps.tolist() == [0, 1, 2]
    assert [n.kind for n in run.notes] == ["aligned"]


def test_batch_counter_that_starts_again(reading: Reading, write: Write) -> None:
    text = "epoch,batch,loss\n" + "".join(f"{e},{b},{e}.{b}\n" for e in range(3) for b in range(0, 100, 50))
    run = reading.run(csv_table, write(text))
    steps = series(run, "loss").steps
    assert steps is not None
    assert steps.tolist() == [0, 50, 51, 101, 102, 152]
    assert run.notes[0].kind == "aligned"


def test_a_restart_is_no_batch_counter(reading: Reading, write: Write) -> None:
    text = "epoch,step,loss\n0,0,5\n0,50,4\n1,100,3\n1,150,2\n0,50,4\n1,100,3\n1,150,2\n2,200,1\n"
    steps = series(reading.run(csv_table, write(text)), "loss").steps
    assert steps is not None
    assert steps.tolist() == [0, 50, 100, 150, 50, 100, 150, 200]


def test_rows_without_step_take_the_one_before(reading: Reading, write: Write) -> None:
    run = reading.run(csv_table, write("step,epoch,loss,val_loss\n10,0,5,\n20,0,4,\n,0,,6\n30,1,3,\n,1,,5\n"))
    steps = series(run, "val_loss").steps
    assert steps is not None
    assert steps.tolist() == [20, 30]


def test_wall_time_in_any_unit(reading: Reading, write: Write) -> None:
    for cells in (
        ("1714564800", "1714564801"),
        ("1714564800000", "1714564801000"),
        ("2024-05-01T12:00:00+00:00", "2024-05-01 12:00:01+00:00"),
    ):
        run = reading.run(
            csv_table, write("timestamp,step,loss\n" + "".join(f"{t},{i},0.5\n" for i, t in enumerate(cells)))
        )
        wall = series(run, "loss").wall_time
        assert wall is not None
        assert wall.tolist() == [1714564800, 1714564801]


def test_elapsed_time_is_no_wall_time(reading: Reading, write: Write) -> None:
    run = reading.run(csv_table, write("epoch,time,loss\n1,10.5,0.5\n2,20.5,0.4\n"))
    assert series(run, "loss").wall_time is None
    assert values(run, "time") == [10.5, 20.5]


def test_several_runs_in_one_table(reading: Reading, write: Write) -> None:
    text = "seed,epoch,loss\n" + "".join(f"{s},{e},{s}.{e}\n" for s in (1, 2) for e in range(4))
    runs = reading.runs(csv_table, write(text, "sweep.csv"))
    assert [(r.name, r.params) for r in runs] == [("sweep/seed=1", {"seed": "1"}), ("sweep/seed=2", {"seed": "2"})]
    assert values(runs[1], "loss") == [2.0, 2.1, 2.2, 2.3]


def test_a_setting_that_changes_is_no_run(reading: Reading, write: Write) -> None:
    text = "epoch,loss,model\n1,0.5,a\n2,0.4,a\n3,0.3,b\n4,0.2,b\n5,0.1,b\n6,0.1,b\n"
    assert values(reading.run(csv_table, write(text)), "loss") == [0.5, 0.4, 0.3, 0.2, 0.1, 0.1]


def test_weights_and_biases_export(reading: Reading, write: Write) -> None:
    text = '"Step","red-sun-1 - val_loss","red-sun-1 - val_loss__MIN","red-sun-1 - val_loss__MAX","blue-2 - val_loss"\n'
    text += "".join(f'"{i}","{i}.5","0","9","{i}.25"\n' for i in range(3))
    runs = reading.runs(csv_table, write(text))
    assert {r.name.split("/")[1]: values(r, "val_loss") for r in runs} == {
        "red-sun-1": [0.5, 1.5, 2.5],
        "blue-2": [0.25, 1.25, 2.25],
    }


def test_tensorboard_export_is_named_by_its_file(reading: Reading, write: Write) -> None:
    run = reading.run(
        csv_table, write("Wall time,Step,Value\n1714564800.5,0,0.5\n1714564801.5,10,0.4\n", "run-v1-tag-train_loss.csv")
    )
    assert values(run, "train_loss") == [0.5, 0.4]


def test_nan_between_evaluations_is_no_data(reading: Reading, write: Write) -> None:
    rows = [(i, 1 / i, 0.5 if i % 5 == 0 else math.nan, math.nan if i > 12 else 0.3) for i in range(1, 21)]
    run = reading.run(
        csv_table, write("epoch,loss,val_acc,gnorm\n" + "".join(f"{a},{b},{c},{d}\n" for a, b, c, d in rows))
    )
    val = series(run, "val_acc")
    assert val.epochs is not None
    assert (val.epochs.tolist(), val.values.tolist()) == ([5, 10, 15, 20], [0.5] * 4)
    assert np.isnan(series(run, "gnorm").values).sum() == 8  # this one broke
    assert [(n.kind, n.amount) for n in run.notes] == [("other", 16)]


def test_torn_last_row(reading: Reading, write: Write) -> None:
    run = reading.run(csv_table, write("step,loss,acc\n1,0.5123,0.1\n2,0.4123,0.2\n3,0.3"))
    assert values(run, "loss") == [0.5123, 0.4123]
    assert [n.kind for n in run.notes] == ["truncated"]


def test_torn_last_cell(reading: Reading, write: Write) -> None:
    rows = "".join(f"{i},{1 / (i + 3)!r}\n" for i in range(10))
    run = reading.run(csv_table, write(f"step,loss\n{rows}10,7.1"))  # of 7.1e-2: a false spike
    assert len(values(run, "loss")) == 10
    assert [n.kind for n in run.notes] == ["truncated"]


def test_last_row_without_newline_is_whole(reading: Reading, write: Write) -> None:
    run = reading.run(csv_table, write("epoch,loss\n1,0.5\n2,0.4\n3,0.3"))
    assert values(run, "loss") == [0.5, 0.4, 0.3]
    assert not run.notes


def test_header_again_after_a_restart(reading: Reading, write: Write) -> None:
    text = "epoch,loss\n1,0.5\n2,0.4\nepoch,loss,acc\n2,0.45,0.1\n3,0.3,0.2\n"
    run = reading.run(csv_table, write(text))
    assert values(run, "loss") == [0.5, 0.4, 0.45, 0.3]
    assert values(run, "acc") == [0.1, 0.2]
    assert [(n.kind, n.amount) for n in run.notes] == [("other", 1)]


def test_ragged_rows(reading: Reading, write: Write) -> None:
    run = reading.run(csv_table, write("step,loss,acc\n1,0.5,0.1\n2,0.4\n3,0.3,0.3,9,9\n4,0.2,0.4\n"))
    assert values(run, "acc") == [0.1, 0.4]
    assert [(n.kind, n.amount) for n in run.notes] == [("corrupt", 2)]


def test_one_bad_cell_does_not_cost_the_clock(reading: Reading, write: Write) -> None:
    text = "step,loss\n" + "".join(f"{'x' if i == 7 else i},{i}\n" for i in range(20))
    steps = series(reading.run(csv_table, write(text)), "loss").steps
    assert steps is not None
    assert steps.tolist() == [*range(7), 6, *range(8, 20)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("people.csv", "name,age\nAnn,31\nBob,32\n"),
        ("requirements.txt", "numpy==1.26\ntorch>=2\n"),
        ("iris.csv", "sepal_length,sepal_width,species\n5.1,3.5,setosa\n4.9,3.0,setosa\n4.7,3.2,setosa\n"),
        ("results.csv", "model,accuracy,loss\nresnet,0.9,0.3\nvit,0.92,0.2\nmlp,0.8,0.5\n"),
        ("recipe.csv", "step,description\n1,mix\n2,bake\n"),
        ("empty.csv", "epoch,loss\n"),
        ("code.txt", "import numpy, torch\nloss = 3, 4\n"),
        ("prose.txt", "Epoch by epoch, loss went down.\nIt was 0.5, then 0.4.\n"),
        ("numbers.csv", "1,2,3\n4,5,6\n7,8,9\n"),
        ("run.log", "epoch: 1, loss: 0.5\nepoch: 2, loss: 0.4\nepoch: 3, loss: 0.3\n"),
        ("prices.csv", "date,open,close\n2024-01-01,3.5,3.6\n2024-01-02,3.6,3.7\n"),
    ],
)
def test_not_claimed(reading: Reading, write: Write, name: str, text: str) -> None:
    assert not reading.recognised(csv_table, write(text, name))


def test_reading_what_is_no_table_says_what_to_do(write: Write) -> None:
    path = write("nothing here\n")
    with pytest.raises(ReadError, match="expected a header with a step, epoch or loss column"):
        list(csv_table.read(path, [path]))
    with pytest.raises(ReadError, match="expected a readable log file, got No such file"):
        list(csv_table.read(path, [path.with_name("gone.csv")]))


def test_wide_header_is_recognised(reading: Reading, write: Write) -> None:
    names = [f"grad_norm/layers.{i}.weight" for i in range(900)]
    text = ",".join(["step", *names]) + "\n" + "".join(",".join([str(i)] + ["0.5"] * 900) + "\n" for i in range(3))
    assert len(reading.run(csv_table, write(text)).series) == 900


def large(rows: int, newline: str = "\n") -> str:
    generator = random.Random(3)
    cells: list[str] = []
    for i in range(rows):
        loss = "nan" if i % 97 == 5 else "" if i % 13 == 1 else repr(generator.random())
        note = "None" if i % 5 else "inf"
        cells.append(f"{i},{i // 100},{loss},{note},{generator.random():.17g},adam")
    return newline.join(["step,epoch,loss,spiky,acc,phase", *cells, ""])


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_pandas_and_plain_python_agree(write: Write, newline: str) -> None:
    text = large(1000, newline)
    path = write(text)
    dialect = csv_table.sniff(text)
    assert dialect is not None
    slow = csv_cells.read_lines(text, dialect, str(path), frozenset({"phase"}))
    fast = csv_cells._read_fast(text.encode(), dialect, str(path), frozenset({"phase"}))
    assert fast is not None
    assert slow.words == fast.words
    mine, theirs = {c.tag: c for c in slow.columns}, {c.tag: c for c in fast.columns}
    assert mine.keys() == theirs.keys() == {"step", "epoch", "loss", "spiky", "acc"}
    for tag, column in mine.items():
        np.testing.assert_array_equal(column.rows, theirs[tag].rows, tag)
        np.testing.assert_allclose(column.values, theirs[tag].values, rtol=1e-15, err_msg=tag)


def test_large_files_are_read_by_pandas(write: Write, reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(large(25_000))
    assert path.stat().st_size > 1 << 20

    def refuse(*_: Any) -> None:
        raise AssertionError("a large clean file must not be read line by line")

    monkeypatch.setattr(csv_cells, "read_lines", refuse)
    assert len(values(reading.run(csv_table, path), "acc")) == 25_000


def test_large_ragged_file_is_still_read(write: Write, reading: Reading) -> None:
    text = large(25_000).replace("\n20000,200,", "\n20000,200,7,7,7,7,7,7,7,", 1)
    run = reading.run(csv_table, write(text))
    assert len(values(run, "acc")) == 24_999
    assert [n.kind for n in run.notes] == ["corrupt"]


SMALL = ["keras/training.log", "timm/summary.csv", "ultralytics/cls/results.csv"]
SMALL.append("lightning_csv/lightning_logs/version_0/metrics.csv")


@pytest.mark.parametrize("name", SMALL)
def test_cut_anywhere(tmp_path: Path, name: str) -> None:
    """Every value of a file that is cut stands in the whole file at the same place."""
    data = (FIXTURES / name).read_bytes()
    path = tmp_path / Path(name).name
    path.write_bytes(data)
    whole = {s.tag: s.values.tolist() for run in csv_table.read(path, [path]) for s in run.series}
    readable = 0
    for end in range(len(data)):
        path.write_bytes(data[:end])
        try:
            runs = list(csv_table.read(path, [path]))
        except ReadError:
            continue
        for run in runs:
            check(run)
            readable += 1
            for s in run.series:
                if s.tag in whole:  # the header itself may be cut
                    assert s.values.tolist()[:-1] == whole[s.tag][: max(0, len(s.values) - 1)]
    assert readable > len(data) / 3


@given(st.binary(max_size=300))
def test_arbitrary_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary.csv"
    for content in (data, b"step,loss\n" + data, b"epoch;loss;phase\n1;0,5;train\n" + data):
        path.write_bytes(content)
        csv_table.recognise(path, content)
        try:
            for run in csv_table.read(path, [path]):
                check(run)
        except ReadError:
            pass


cell = st.one_of(
    st.sampled_from(["", "nan", "inf", "None", "1e400", "-0", "0,5", "x", "train", '"', "#"]), st.floats().map(repr)
)


@given(st.lists(st.lists(cell, max_size=5), max_size=8), st.sampled_from([",", ";", "\t", " "]))
def test_arbitrary_tables(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], delimiter: str) -> None:
    path = tmp_path_factory.getbasetemp() / "tables.csv"
    header = delimiter.join(["epoch", "step", "loss", "split"])
    path.write_text("\n".join([header, delimiter.join("1234"), *map(delimiter.join, rows)]), encoding="utf-8")
    try:
        for run in csv_table.read(path, [path]):
            check(run)
    except ReadError:
        pass
