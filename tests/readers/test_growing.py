"""A growing event file is read on from where the last look ended, and says the same as read whole."""

from __future__ import annotations

from pathlib import Path

import fitdoctor.readers.tensorboard.files as files
import numpy as np
import pytest
from fitdoctor.readers import find_runs
from fitdoctor.readers.tensorboard import Memory
from fitdoctor.run import Run

SAMPLE = Path(__file__).parents[2] / "sample_logs" / "benign_spikes"


def curves(run: Run) -> dict[str, tuple[list[int], list[float]]]:
    return {f"{s.signal} {s.per}": (s.steps.tolist(), np.round(s.values, 12).tolist()) for s in run.series}


def test_every_look_says_what_reading_it_whole_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = next(SAMPLE.glob("*tfevents*")).read_bytes()
    log = tmp_path / "events.out.tfevents.1760000000.trainer.1.0"
    memory = Memory()
    starts: list[int] = []
    new = files.EventFileTail.new
    monkeypatch.setattr(files.EventFileTail, "new", lambda tail: starts.append(tail.offset) or new(tail))
    for share in (0.2, 0.5, 0.501, 1.0):
        log.write_bytes(whole[: int(share * len(whole))])
        (source,) = find_runs(tmp_path)
        (grown,) = source.load(memory)
        begun_at = starts[-1]
        (afresh,) = source.load()
        assert curves(grown) == curves(afresh)
        assert [n.kind for n in grown.notes] == [n.kind for n in afresh.notes]
        assert (begun_at > 0) == (share > 0.2)


def test_a_file_replaced_by_a_shorter_one_is_read_from_its_beginning(tmp_path: Path) -> None:
    whole = next(SAMPLE.glob("*tfevents*")).read_bytes()
    log = tmp_path / "events.out.tfevents.1760000000.trainer.1.0"
    memory = Memory()
    for share in (1.0, 0.4, 0.7):
        log.write_bytes(whole[: int(share * len(whole))])
        (source,) = find_runs(tmp_path)
        assert curves(source.load(memory)[0]) == curves(source.load()[0])
