"""What runs are called, and the words for a path without any."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fitdoctor.readers.grouping import OF_THE_MONITOR

if TYPE_CHECKING:
    from fitdoctor.readers import RunSource
    from fitdoctor.readers.walk import Survey
    from fitdoctor.run import Run

_PLAIN_STEMS = re.compile(
    r"metrics?|results?|scalars?|summary|progress|history|logs?|training(_log)?|train(_log)?|trainer_state|output|out|"
    r"stdout|stderr|nohup|measurements|mlflow|events|data|run|trackio",
    re.IGNORECASE,
)
"""File names that say nothing: the run is named after the folder."""
_NO_CURVES = {
    "wandb-summary.json": "the last values of a Weights & Biases run: its curves are in run-ID.wandb, one folder up",
    "dvc.yaml": "DVC's pipeline: the curves of DVCLive are tables below plots/metrics",
    "task.json": "the settings of a ClearML session: its curves are in metrics.jsonl beside it",
    "swanlab-metadata.json": "what SwanLab says of the machine: the curves are in the .swanlab file, one folder up",
}
"""Files that belong to a logger and hold no curve."""


def name_of(root: Path, home: Path, place: Path, alone: bool) -> str:
    """Name of a run below the root: its folder, and its file where the folder does not tell."""
    if home == root and home != place:
        return home.stem or home.name
    top, here = os.path.join(root, ""), os.fspath(place)  # pathlib's own way of this is felt with thousands of runs
    if here.startswith(top):
        folder = here[len(top) :].replace(os.sep, "/")
    else:
        folder = place.relative_to(root).as_posix() if place.is_relative_to(root) else place.resolve().name or "run"
    stem = home.stem if home != place else ""
    if stem and not (alone and (_PLAIN_STEMS.fullmatch(stem) or home.suffix in (".wandb", ".swanlab"))):
        return stem if folder == "." else f"{folder}/{stem}"
    return folder if folder != "." else (place.resolve().name or "run")


def named_above(root: Path, sources: list[RunSource]) -> list[RunSource]:
    """The sources, logs of the monitor called after the folder above theirs unless another run has that name.

    A lone log at the top of the root is called after the folder that the root is; beside others it keeps its name.
    """
    short: dict[int, str] = {}
    for i, source in enumerate(sources):
        if source.path.name != OF_THE_MONITOR or not source.single or source.failure:
            continue
        above = source.path.parent
        if above != root and root in above.parents:
            short[i] = above.relative_to(root).as_posix()
        elif len(sources) == 1:
            short[i] = above.resolve().name or source.name
    taken = {s.name for i, s in enumerate(sources) if i not in short}
    return [replace(s, name=short[i]) if short.get(i, s.name) not in taken else s for i, s in enumerate(sources)]


def named(runs: list[Run], source: RunSource) -> list[Run]:
    """The runs of one source with names that are unique among them."""
    if len(runs) == 1:
        return [replace(runs[0], name=source.name)]
    used: set[str] = set()
    last = source.name.rpartition("/")[2]
    out = []
    for run in runs:
        own = run.name.removeprefix(last).lstrip("/") or run.source
        name = source.names.get(run.path) or f"{source.name}/{own}"
        out.append(replace(run, name=unique(name, used)))
    return out


def unique(name: str, used: set[str]) -> str:
    """The name, with a number where it is taken."""
    candidate, n = name, 1
    while candidate in used:
        n += 1
        candidate = f"{name} ({n})"
    used.add(candidate)
    return candidate


def nothing_found(root: Path, seen: Survey) -> str:
    looked = (
        "TensorBoard event files, CSV, JSON and JSON-lines logs, HF trainer_state.json, Keras histories, W&B, MLflow, "
        "SwanLab, DVCLive, ClearML and Trackio stores, text logs"
    )
    if root.is_file():
        return f"{root}: not a training log that fitdoctor reads; it knows {looked}"
    if not seen.files:
        return f"{root}: the folder is empty; expected {looked}"
    common = sorted(seen.suffixes.items(), key=lambda item: -item[1])[:3]
    kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in common)
    among = f"{_count(seen.files, 'file')} in {_count(seen.folders, 'folder')} ({kinds})"
    text = f"{root}: no training log among {among}; looked for {looked}"
    if seen.refused:
        nearest = ", ".join(str(path.relative_to(root)) for path in seen.refused)
        text += f"; nearest are {nearest}, which hold no table of a loss or metric over steps or epochs"
        known = {path.name: _NO_CURVES[path.name] for path in seen.refused if path.name in _NO_CURVES}
        text += "".join(f"; {name} is {what}" for name, what in known.items())
    if seen.unreadable:
        path, why = seen.unreadable[0]
        text += f"; {len(seen.unreadable)} could not be opened, first {path}: {why}"
    return text


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
