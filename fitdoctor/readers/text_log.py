"""Plain text logs: a line parser that learns the template of repeated lines.

No format is known by name. A number belongs to the words before it; ``epoch``, ``step`` and their like are
the clock; ``[3/10]`` says of how many; names that come back again and again are the curves, and names that
come once, before training starts, are settings.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fitdoctor.errors import ReadError
from fitdoctor.readers.columns import Cells, Column, is_epoch, is_step, series_of
from fitdoctor.readers.decoding import decode, moment
from fitdoctor.readers.json_lines import lines_of
from fitdoctor.readers.raw import RawRun
from fitdoctor.readers.text_line import Line, LineReader
from fitdoctor.readers.text_table import TableReader
from fitdoctor.readers.text_words import SPLITS, Role, Slot, is_metric, split_of
from fitdoctor.run import Fact, FloatArray, Note

SOURCE = "text"

_SUFFIXES = frozenset({".log", ".txt", ".out", ".err", ".stdout", ".stderr", ""})
_NOT_LOGS = frozenset({"requirements.txt", "license", "license.txt", "readme", "readme.txt", "makefile", "dockerfile"})
_PLAIN_STEMS = frozenset(
    {"log", "train", "training", "output", "stdout", "stderr", "logs", "train_log", "nohup", "out"}
)
_LOOK = 1 << 18
_ENOUGH = 3
"""Rows with a metric that make a text a training log: two points are no curve."""
_LONGEST_LINE = 4096
_RECENT = 200
"""Last lines that are kept, to see how the log ends."""
_SECTION = re.compile(r"\W*(?:(train|val|test|eval)\w*)\b[\w ]{0,20}\W*", re.IGNORECASE)
_KERAS = re.compile(r"\d+s\s|ETA:|[mu]?s/(?:step|sample|epoch)\b")
_CHOICE = re.compile(
    r"\b(optimizer|optim|lr_scheduler|scheduler|criterion|loss_fn|loss_function)['\"]?\s*[=:]\s*['\"]?([A-Za-z_]\w*)",
    re.IGNORECASE,
)
_TRACEBACK = "Traceback (most recent call last)"
_STEP, _EPOCH, _TIME, _POSITION, _TOTAL, _LEADING = "step", "epoch", "timestamp", "\0position", "\0total", "\0leading"


def recognise(path: Path, head: bytes) -> bool:
    """Whether the file is a text in which lines with metrics come back."""
    if path.suffix.lower() not in _SUFFIXES or path.name.lower() in _NOT_LOGS:
        return False
    if path.name == "output.log" and path.parent.name == "files" and "run-" in path.parent.parent.name:
        return False  # W&B's copy of the terminal, beside the .wandb file of the same run
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False
    if not any(digit in head for digit in b"0123456789") and len(head) < 4096:
        return False
    if len(head) >= 4096:
        try:
            with path.open("rb") as file:
                head = file.read(_LOOK)
        except OSError:
            return False
    log = _Log()
    for line in decode(head).split("\n"):
        log.take(line)
        if log.metric_rows >= _ENOUGH and log.repeats():
            return True
    return False


def home(path: Path) -> Path:
    """The file itself."""
    return path


def read(home: Path, files: Sequence[Path]) -> Iterator[RawRun]:
    """The run in each file."""
    for path in files:
        yield _run_of(path)


class _Log:
    """The table that the lines of a log add up to."""

    def __init__(self) -> None:
        self.cells = Cells()
        self.metric_rows = 0
        self.totals: dict[Role, Counter[float]] = {Role.EPOCH: Counter(), Role.STEP: Counter()}
        self.keras = False
        self.preamble = ""
        """What was printed before the first metric."""
        self.bare: set[int] = set()
        """Rows whose line named no epoch and no step."""
        self._seen: Counter[str] = Counter()
        self._first: dict[str, float] = {}
        self._moving: set[str] = set()
        self._lines = LineReader()
        self._tables = TableReader()
        self._epoch: float | None = None
        self._section = ""
        self._unfinished: dict[str, float] = {}

    def repeats(self) -> bool:
        """Whether some metric has been seen often enough to be a curve."""
        return any(count >= _ENOUGH and tag in self._moving for tag, count in self._seen.items())

    def take(self, text: str) -> None:
        """Read one line, or the several that a carriage return wrote over each other."""
        for part in text.replace("\b", "").split("\r"):
            if part and not part.isspace():
                self._take(part[:_LONGEST_LINE])

    def close(self) -> None:
        """Use the last state of a Keras epoch that never came to its end."""
        if self._unfinished:
            self._add(self._unfinished)
            self._unfinished = {}

    def _take(self, text: str) -> None:
        if not self.metric_rows and len(self.preamble) < _LOOK:
            self.preamble += text + "\n"
        if self._tables.open and (row := self._tables.row(text)) is not None:
            self._take_table_row(row)
            return
        line = self._lines.read(text)
        if line is None:
            if not self._tables.header(text) and (section := _SECTION.fullmatch(text)) is not None:
                self._section = "" if section[1].lower() == "train" else SPLITS.get(section[1].lower(), "val")
            return
        if not any(slot.role is Role.VALUE for slot in line.slots):
            self._tables.header(text)  # the numbers may be those of a progress bar behind the names
        if line.slots:
            self._take_slots(line, text)

    def _take_table_row(self, row: dict[str, float]) -> None:
        found = {_clock_name(tag): value for tag, value in row.items()}
        if _EPOCH in found:
            self._epoch = found[_EPOCH]
        elif self._epoch is not None:
            found[_EPOCH] = self._epoch
        if row:
            self._add(found)

    def _take_slots(self, line: Line, text: str) -> None:
        row: dict[str, float] = {}
        values: dict[str, float] = {}
        place: Slot | None = None
        for slot in line.slots:
            value = line.numbers[slot.index]
            total = None if slot.total is None else line.numbers[slot.total]
            if slot.role is Role.VALUE:
                values[slot.tag] = value / total if total and 0 <= value <= total and is_metric(slot.tag) else value
            elif slot.role is Role.POSITION:
                place = slot
            elif slot.role is Role.LEADING:
                row[_LEADING] = value
            else:
                row[_EPOCH if slot.role is Role.EPOCH else _STEP] = value
                if total is not None and total >= value:
                    self.totals[slot.role][total] += 1
        if "train_runtime" in values:
            values.pop("train_loss", None)  # the Hugging Face Trainer's summary: an average over the run
        if not values:
            self._take_clock(row, line)
            return
        if row.keys().isdisjoint((_EPOCH, _STEP, _LEADING)) and place is None:
            self.bare.add(self.cells.height)
        if _EPOCH in row:
            self._epoch = row[_EPOCH]
        elif self._epoch is not None:
            row[_EPOCH] = self._epoch
        if line.date and (seconds := moment(line.date)) is not None:
            row[_TIME] = seconds
        if place is not None:
            assert place.total is not None
            if self._take_place(row, values, line.numbers[place.index], line.numbers[place.total], place, text):
                return
        elif self._section and not row.keys() & {_STEP, _LEADING} and not any(map(split_of, values)):
            values = {f"{self._section} {tag}" if is_metric(tag) else tag: v for tag, v in values.items()}
        elif _STEP in row:
            self._section = ""
        self._add({**row, **values})

    def _take_clock(self, row: dict[str, float], line: Line) -> None:
        """A line that only says how far training is, such as "Epoch 3/10"."""
        if _EPOCH in row and len(line.shape) <= 40:
            self._epoch = row[_EPOCH]
            self._section = ""
        elif _STEP in row and len(line.shape) <= 20:
            self.cells.add(row.items())

    def _take_place(
        self, row: dict[str, float], values: dict[str, float], at: float, total: float, slot: Slot, text: str
    ) -> bool:
        """What "n/m" says of a row; whether the row has been dealt with."""
        splits = {split_of(tag) for tag in values if is_metric(tag)} or {split_of(slot.tag)}
        if slot.tag:
            splits = {split_of(slot.tag)}
        if len(splits) == 1 and splits <= {"val", "test"}:
            if at < total:
                self._section = splits.pop()
                return True  # one batch of an evaluation: the last one tells the result
            return False
        if _KERAS.search(text) and (at < total or "step" in text or not row.keys() & {_STEP}):
            if at < total:
                self._unfinished = {**row, **values}  # averages that still move; the last one counts
                return True
            self.keras = True
            self._unfinished = {}
        if _STEP not in row and 0 <= at <= total:
            row[_POSITION], row[_TOTAL] = at, total
        self._section = ""
        return False

    def _add(self, row: dict[str, float]) -> None:
        metrics = [tag for tag in row if is_metric(tag)]
        self._seen.update(metrics)
        self.metric_rows += bool(metrics)
        timed = not row.keys().isdisjoint((_EPOCH, _STEP, _POSITION, _LEADING))
        for tag in metrics:
            # The same message again and again, with no clock, is no curve: "ValueError: loss is nan".
            if tag not in self._moving and (timed or self._first.setdefault(tag, row[tag]) != row[tag] == row[tag]):
                self._moving.add(tag)
        self.cells.add(row.items())


def _clock_name(tag: str) -> str:
    return _EPOCH if is_epoch(tag) else _STEP if is_step(tag) else tag


def _run_of(path: Path) -> RawRun:
    log = _Log()
    recent: deque[str] = deque(maxlen=_RECENT)
    notes: list[Note] = []
    for raw in lines_of(path):
        line = decode(raw) if not recent else raw.decode("utf-8", errors="replace")
        before = log.cells.height
        log.take(line.removesuffix("\n"))
        if not line.endswith("\n") and log.cells.height > before and _looks_cut(line, recent):
            notes.append(Note("truncated", f"{path}: the last line has no end; its last number may be cut short"))
        recent.append(line)
    log.close()
    if not log.metric_rows:
        raise ReadError(
            f"{path}: expected lines with metrics that come back, such as 'epoch 1 loss 0.5', got none; "
            "check the file or leave it out"
        )
    curves, params, facts, per_epoch = _sorted_out(log)
    params.update((name.lower(), choice) for name, choice in reversed(_CHOICE.findall(log.preamble)))
    series, said = series_of(curves, log.cells.height, str(path), per_epoch)
    failed = any(_TRACEBACK in line for line in recent)
    if failed:
        last = next((line.strip() for line in reversed(recent) if line.strip()), "")
        notes.append(Note("other", f"{path}: the log ends with an exception: {last[:200]}"))
    return RawRun(
        name=path.parent.name if path.stem in _PLAIN_STEMS and path.parent.name else path.stem,
        path=str(path),
        source=SOURCE,
        series=series,
        facts=facts,
        params=params,
        notes=(*notes, *said),
        finished=False if failed else None,
    )


def _looks_cut(tail: str, lines: deque[str]) -> bool:
    """Whether the last line is shorter than the last full line of its beginning."""
    start = tail.strip()[:6]
    same = next((line for line in reversed(lines) if line.strip()[:6] == start), "")
    return len(tail.strip()) < len(same.strip())


def _sorted_out(log: _Log) -> tuple[list[Column], dict[str, object], dict[str, Fact], int | None]:
    """The curves, the settings, the facts, and the steps of an epoch where the log says them."""
    columns = {c.tag: c for c in log.cells.columns()}
    facts: dict[str, Fact] = {"framework": "keras"} if log.keras else {}
    place, total = columns.pop(_POSITION, None), columns.pop(_TOTAL, None)
    leading = columns.pop(_LEADING, None)
    per_epoch = None
    epoch, step = columns.get(_EPOCH), columns.get(_STEP)
    if step is None and place is not None and total is not None:
        size = int(np.median(total.values[np.isfinite(total.values)])) if np.isfinite(total.values).any() else 0
        if bool((place.values == total.values).all()) and epoch is not None:
            facts["steps_per_epoch"] = size  # only the ends of epochs were logged
        else:
            columns[_STEP] = step = Column(_STEP, place.rows, place.values)
            if epoch is not None:
                per_epoch = size
            else:
                facts["planned_steps"] = size
    if step is None and epoch is None and leading is not None and _never_falls(leading.values):
        columns[_STEP] = Column(_STEP, leading.rows, leading.values)
    for role, column in ((Role.EPOCH, epoch), (Role.STEP, step)):
        if log.totals[role] and column is not None:
            planned = int(log.totals[role].most_common(1)[0][0])
            if role is Role.STEP and epoch is not None and _falls(column.values):
                per_epoch = planned
                facts["steps_per_epoch"] = planned
                continue
            counted_from_0 = float(column.values.min()) == 0 and float(column.values.max()) == planned
            facts["planned_epochs" if role is Role.EPOCH else "planned_steps"] = planned + counted_from_0
    curves, params = _without_settings(list(columns.values()), log.bare)
    return curves, params, facts, per_epoch


def _never_falls(values: FloatArray) -> bool:
    """Whether no value is below the one before it; neighbours are compared, as inf - inf is no difference."""
    return bool((values[1:] >= values[:-1]).all())


def _falls(values: FloatArray) -> bool:
    """Whether some value is below the one before it."""
    return bool((values[1:] < values[:-1]).any())


def _without_settings(columns: Sequence[Column], bare: set[int]) -> tuple[list[Column], dict[str, object]]:
    """Tell the curves from the settings, which are printed once, before training starts, with no clock."""
    start = min((int(c.rows[0]) for c in columns if is_metric(c.tag) and len(c.rows) >= 2), default=0)
    curves: list[Column] = []
    params: dict[str, object] = {}
    for c in columns:
        early = np.array([row < start and row in bare for row in c.rows.tolist()], bool)
        if early.any() and c.tag not in (_EPOCH, _STEP, _TIME):
            value = float(c.values[early][0])
            params[c.tag.replace(" ", "_")] = int(value) if value.is_integer() else value
            c = Column(c.tag, c.rows[~early], c.values[~early])
        if c.tag in (_EPOCH, _STEP, _TIME) or len(c.rows) >= 2 or (len(c.rows) and is_metric(c.tag)):
            curves.append(c)
    return curves, params
