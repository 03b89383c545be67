"""TensorBoard folders that are parts of the run above them.

SummaryWriter writes `add_scalars("loss", {"train": ..., "val": ...})` to ``RUN/loss_train`` and
``RUN/loss_val``, and `add_hparams` to ``RUN/<time>``. Keras and TF estimators write ``RUN/train`` and
``RUN/validation`` (``RUN/eval``). Each is a writer of its own and, to TensorBoard, a run of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fitdoctor.readers.raw import RawRun, RawSeries
from fitdoctor.readers.tags import interpret
from fitdoctor.readers.tags.words import SPLIT_OF, words_of
from fitdoctor.readers.walk import Found, read_head
from fitdoctor.run import Note

_TIME = re.compile(r"\d{9,11}\.\d+")


def split_folder(name: str) -> str:
    """The split that a folder's name stands for, or "": ``validation``, ``eval_holdout``, ``train``."""
    words = [w for w in words_of(name) if not w.isdigit()]
    if not words or len(words) > 3 or words[0] not in SPLIT_OF:
        return ""
    return SPLIT_OF[words[0]] if len(words) == 1 or words[0] == "eval" else ""


def parents_of(events: Mapping[Path, Found]) -> dict[Path, Path]:
    """Folder of event files -> the run folder that it is a part of.

    Args:
        events: all folders that hold event files.
    """
    by_parent: dict[Path, list[Path]] = {}
    for folder in events:
        by_parent.setdefault(folder.parent, []).append(folder)
    out: dict[Path, Path] = {}
    for parent, children in by_parent.items():
        splits = [c for c in children if split_folder(c.name)]
        kinds = {split_folder(c.name) for c in splits}
        whole = parent in events
        if (whole and kinds) or (len(kinds) > 1 and "train" in kinds):
            out.update((c, parent) for c in splits)
        if whole:
            for child in children:
                if child not in out and (_TIME.fullmatch(child.name) or _is_add_scalars(events[child], child.name)):
                    out[child] = parent
    return out


def _is_add_scalars(found: Found, name: str) -> bool:
    """Whether a folder is one line of `add_scalars`: its name is its first tag, an underscore and a key."""
    if "_" not in name:
        return False
    try:
        head = read_head(found.files[0])
    except OSError:
        return False
    for match in re.finditer(rb"\x0a([\x01-\x7f])", head):
        tag = head[match.end() : match.end() + match[1][0]]
        if len(tag) == match[1][0] and name.encode().startswith(tag.replace(b"/", b"_") + b"_"):
            return True
    return False


def merged(main: RawRun | None, folder: Path, parts: Sequence[tuple[Path, RawRun]]) -> list[RawRun]:
    """The run of a folder with its parts; parts that turn out to be something else stay runs.

    Args:
        main: what the folder itself logged, or None.
        folder: the run's folder.
        parts: sub-folder -> what it logged.
    """
    series: list[RawSeries] = list(main.series) if main else []
    params = dict(main.params) if main else {}
    notes: list[Note] = list(main.notes) if main else []
    finished = main.finished if main else None
    for where, part in parts:
        if _TIME.fullmatch(where.name):
            # The metrics of add_hparams are one last value each: a summary, no curve.
            series += [s for s in part.series if len(s.values) > 1]
        elif split_folder(where.name):
            series += [_of_split(s, where.name) for s in part.series]
        else:
            series += [_of_line(s, where.name) for s in part.series]
        params.update(part.params)
        notes += part.notes
        finished = part.finished if finished is None else finished
    if main is None:
        main = replace(parts[0][1], name=folder.name, path=str(folder))
    return [replace(main, series=tuple(series), params=params, notes=tuple(notes), finished=finished)]


def _of_split(series: RawSeries, name: str) -> RawSeries:
    """`epoch_loss` of the folder ``validation`` is `validation/epoch_loss`."""
    meaning = interpret(series.tag, series.statistic)
    if not isinstance(meaning, str) and meaning.split_named and meaning.signal.split != "train":
        return series
    return replace(series, tag=f"{name}/{series.tag}")


def _of_line(series: RawSeries, name: str) -> RawSeries:
    """`loss` of the folder ``loss_val`` is `loss/val`."""
    start = series.tag.replace("/", "_") + "_"
    key = name.removeprefix(start) if name.startswith(start) else name
    return replace(series, tag=f"{series.tag}/{key}")
