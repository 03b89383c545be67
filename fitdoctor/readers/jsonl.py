"""One JSON object a line, or a JSON list of objects: detectron2, mmengine, mmcv, fairseq and anyone's own.

Traps that this reader knows: mmengine's validation rows carry the epoch under ``step``; mmcv's ``iter`` starts
again with each epoch; rows of one step may be spread over several lines; a key such as ``mode`` or ``split``
says which data the numbers of its row belong to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from fitdoctor.errors import ReadError
from fitdoctor.readers.columns import Cells, is_epoch, is_step, is_wall_time, series_of
from fitdoctor.readers.csv_dialect import looks_like_metric
from fitdoctor.readers.decoding import decode, has_wide_characters, moment
from fitdoctor.readers.json_lines import lines_of, numbers_in, objects_of_list, parse
from fitdoctor.readers.raw import RawRun
from fitdoctor.readers.settings import flattened, settings_beside
from fitdoctor.run import Fact, Note

SOURCE = "jsonl"

_SPLIT_KEYS = ("mode", "split", "phase", "stage", "subset")
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "eval", "evaluation", "test", "dev"})
_PLAIN_STEMS = frozenset({"metrics", "scalars", "log", "logs", "history", "train", "training", "results", "progress"})
_SKIPPED = frozenset({".ipynb", ".geojson", ".lock"})
_OTHERS = frozenset({"wandb-summary.json", "wandb-metadata.json", "trainer_state.json"})
_KEY_NAMES = ("metric", "name", "key", "tag", "metric_name")
_LOOK = 1 << 16
_MOST_EARLY = 1000
"""Rows without any clock after which none is waited for."""


def recognise(path: Path, head: bytes) -> bool:
    """Whether the file holds rows of training metrics."""
    if path.suffix.lower() in _SKIPPED or head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
        return False
    if head.lstrip(b"\xef\xbb\xbf \t\r\n[")[:1] != b"{":
        return False
    if path.name in _OTHERS or b'"training_stats_scalar"' in head:
        return False
    rows = list(islice(_rows(iter(_more(path, head).splitlines(keepends=True)), []), 50))
    # One object alone is a summary or a configuration, unless the file says that it is a log of lines.
    return (len(rows) > 1 or path.suffix in (".jsonl", ".ndjson")) and _is_training_log(rows)


def _more(path: Path, head: bytes) -> bytes:
    """Enough of the file for several rows."""
    if len(head) >= 4096:
        try:
            with path.open("rb") as file:
                head = file.read(_LOOK)
        except OSError:
            return b""
    return decode(head).encode() if has_wide_characters(head) else head


def _is_training_log(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rows look like those of a training loop: several of them, with a clock and a number beside it."""
    timed = metrics = 0
    for row in rows:
        names = [tag for tag, _ in numbers_in(row)]
        clocks = [tag for tag in names if is_step(tag) or is_epoch(tag)]
        rest = [tag for tag in names if tag not in clocks and not is_wall_time(tag)]
        timed += bool(clocks and rest)
        metrics += any(looks_like_metric(tag) for tag in rest)
    if timed and timed * 2 >= len(rows):
        return metrics > 0 or timed >= 3
    return bool(metrics) and _speaks_of_loss(rows)


def _speaks_of_loss(rows: Sequence[Mapping[str, Any]]) -> bool:
    with_loss = sum(any("loss" in tag.lower() for tag, _ in numbers_in(row)) for row in rows)
    return with_loss >= 3 and with_loss * 2 >= len(rows)


def home(path: Path) -> Path:
    """The folder, for mmengine, which writes each log twice there; else the file itself."""
    return path.parent if path.parent.name == "vis_data" else path


def read(home: Path, files: Sequence[Path]) -> Iterator[RawRun]:
    """The run in each file; of mmengine's two equal files one."""
    if len(files) > 1:
        yield _run_of(max(files, key=lambda f: (_size(f), f.name == "scalars.json")))
        return
    for path in files:
        yield _run_of(path)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _rows(lines: Iterable[bytes], bad: list[int]) -> Iterator[Mapping[str, Any]]:
    """The objects in JSON lines, or in one JSON list.

    Args:
        lines: the lines of the file.
        bad: takes the numbers of the lines that are no JSON.
    """
    for i, line in enumerate(lines, 1):
        text = line.strip(b"\xef\xbb\xbf \t\r\n\0,") if i == 1 else line.strip(b" \t\r\n\0,")
        if i == 1 and text.startswith(b"["):
            yield from _listed(decode(b"".join((line, *lines))), bad)
            return
        if not text:
            continue
        try:
            row = parse(text)
        except ValueError:
            bad.append(i)
            continue
        if isinstance(row, Mapping):
            yield row


def _listed(text: str, bad: list[int]) -> Iterator[Mapping[str, Any]]:
    """The objects in a JSON list, which may be cut."""
    try:
        rows = parse(text)
    except ValueError:
        rows = objects_of_list(text)
        bad.append(text.count("\n") + 1)
    yield from (row for row in rows if isinstance(row, Mapping))


class _Counted:
    """Lines with their number and the last of them, which tells a cut file from a damaged one."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = next(self._lines)
        self.count += 1
        return line


def _run_of(path: Path) -> RawRun:
    bad: list[int] = []
    cells = Cells()
    params: dict[str, object] = {}
    style = _Style()
    early: list[Mapping[str, Any]] = []
    timed = False
    lines = _Counted(lines_of(path))
    for row in _rows(lines, bad):
        if not timed:
            if not any(map(_is_clock, row)) and len(early) < _MOST_EARLY:
                early.append(row)
                continue
            timed = True
            if any(map(_is_clock, row)):
                for about in early:  # mmcv writes its environment and configuration before the first step
                    params.update(flattened(about))
            else:
                _add(cells, style, early)
            early = []
        _add(cells, style, (row,))
    _add(cells, style, early)
    if not any(c for c in cells.columns() if not _is_clock(c.tag)):
        raise ReadError(
            f"{path}: expected one JSON object a line with a step or epoch and metrics, got none; "
            "check the file or leave it out"
        )
    series, notes = series_of(cells.columns(), cells.height, str(path))
    return RawRun(
        name=_name(path),
        path=str(path),
        source=style.source,
        series=series,
        facts=style.facts,
        params={**settings_beside(path.parent), **params} if path.stem in _PLAIN_STEMS else params,
        notes=(*_damage(path, lines.count, bad), *notes, *_smoothed(path, style.source)),
    )


def _smoothed(path: Path, source: str) -> list[Note]:
    if source != "detectron2":
        return []
    return [Note("other", f"{path}: detectron2 writes medians of 20 iterations: shorter spikes do not show in them")]


def _add(cells: Cells, style: _Style, rows: Iterable[Mapping[str, Any]]) -> None:
    for row in rows:
        numbers = dict(numbers_in(row))
        for tag, value in row.items():
            if type(value) is str and is_wall_time(tag) and (seconds := moment(value)) is not None:
                numbers[tag] = seconds
        cells.add(style.placed(row, numbers).items())


class _Style:
    """What kind of rows a file holds, learnt while reading them."""

    def __init__(self) -> None:
        self.source = SOURCE
        self.facts: dict[str, Fact] = {}
        self.last = ""
        self._iter: float | None = None
        self._epoch: float | None = None

    def placed(self, row: Mapping[str, Any], numbers: dict[str, float]) -> dict[str, float]:
        """The numbers of a row with their split in the tag and their clocks as everywhere else."""
        self.last = next((str(row[k]).lower() for k in _SPLIT_KEYS if isinstance(row.get(k), str)), "")
        if self.last not in _SPLITS:
            self.last = ""
        if {"iter", "epoch", "step"} <= numbers.keys():
            self.source, self.facts = "mmengine", {"framework": "mmengine"}
            self._iter, self._epoch = numbers["iter"], numbers["epoch"]
        elif self._iter is not None and "step" in numbers and "iter" not in numbers:
            # mmengine validates with step=epoch, or step=iter in an iteration-based loop.
            if numbers["step"] == self._epoch:
                numbers["epoch"] = numbers["step"]
                numbers["step"] = self._iter
            self.last = "val"
        elif {"iter", "epoch"} <= numbers.keys() and self.last and not self.last.startswith("train"):
            del numbers["iter"]  # mmcv counts the batches of the validation set here
        elif "iteration" in numbers and ("total_loss" in numbers or {"data_time", "time"} <= numbers.keys()):
            self.source, self.facts = "detectron2", {"framework": "detectron2"}
        if "value" in numbers:
            named = next((row[key] for key in _KEY_NAMES if isinstance(row.get(key), str)), None)
            if named is not None:
                numbers[named] = numbers.pop("value")
        if not self.last:
            return numbers
        return {
            tag if _is_clock(tag) or is_wall_time(tag) or _names_split(tag) else f"{self.last}/{tag}": value
            for tag, value in numbers.items()
        }


def _is_clock(tag: str) -> bool:
    return is_step(tag) or is_epoch(tag)


def _names_split(tag: str) -> bool:
    """Whether a tag says its split already, so that ``{"split": "val", "val_loss": 1}`` stays ``val_loss``."""
    return tag.lower().replace("-", "_").replace("/", "_").partition("_")[0] in _SPLITS


def _name(path: Path) -> str:
    folder = path.parent
    if folder.name == "vis_data":
        return folder.parent.name
    return folder.name if path.stem in _PLAIN_STEMS and folder.name else path.stem


def _damage(path: Path, count: int, bad: Sequence[int]) -> list[Note]:
    if not bad:
        return []
    if len(bad) == 1 and bad[0] >= count:
        return [Note("truncated", f"{path}: the last line ends within a row; it was left out", amount=1)]
    return [Note("corrupt", f"{path}: {len(bad)} lines, the first is {bad[0]}, are no JSON; left out", amount=len(bad))]
