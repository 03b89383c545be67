"""`fitdoctor signals`: the vocabulary, and what the tags of a log were taken for."""

from __future__ import annotations

import json
from pathlib import Path

from fitdoctor.signals import QUANTITIES


def test_the_vocabulary(run):
    text = run("signals").stdout
    for name in QUANTITIES:
        assert f"\n{name} " in f"\n{text}"
    listed = json.loads(run("signals", "--format", "json").stdout)
    assert [q["name"] for q in listed] == list(QUANTITIES)
    assert all(q["doc"] for q in listed)


def test_a_log(run, tmp_path: Path):
    table = "step,train_loss,val_acc,blorp\n" + "".join(f"{i},{1 / (i + 1)},0.5,{i}\n" for i in range(20))
    (tmp_path / "log.csv").write_text(table, "utf-8")
    text = run("signals", "log.csv").stdout
    assert "train_loss  train loss    20 points, epochs 0 to 19" in text
    assert "val_acc     val accuracy" in text
    assert "1 left out\n    blorp  " in text
    (mapped,) = json.loads(run("signals", "log.csv", "--format", "json").stdout)
    assert [m["tag"] for m in mapped["mapped"]] == ["train_loss", "val_acc"]
    assert mapped["left_out"].keys() == {"blorp"}
    assert mapped["left_out"]["blorp"], "and why"


def test_map_is_seen(run, tmp_path: Path):
    (tmp_path / "log.csv").write_text("step,blorp\n" + "".join(f"{i},{i}\n" for i in range(20)), "utf-8")
    assert "blorp  val accuracy" in run("signals", "log.csv", "--map", "blorp=accuracy:val").stdout


def test_hostile_tags_are_text(run, tmp_path: Path):
    (tmp_path / "log.csv").write_text("step,loss,\x1b[31m[red]x[/red]\n" + "1,2,3\n2,3,4\n", "utf-8")
    text = run("signals", "log.csv").stdout
    assert "\x1b" not in text
    assert "[red]x[/red]" in text


def test_nothing_to_read(run, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert run("signals", "empty").exit_code == 2
    assert run("signals", "nowhere").exit_code == 2
