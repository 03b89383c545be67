"""The Hugging Face Trainer's ``trainer_state.json``.

Every ``checkpoint-N`` folder holds the whole history up to step N, so the longest file of a run is the run.
The last row of a finished run is a summary: its ``train_loss`` is the average over the run and no point of
the curve.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fitdoctor.errors import ReadError
from fitdoctor.readers.columns import Cells, series_of
from fitdoctor.readers.decoding import decode, read_bytes
from fitdoctor.readers.json_lines import as_number, numbers_in, parse
from fitdoctor.readers.raw import RawRun
from fitdoctor.run import Fact, Note

SOURCE = "hf-trainer"

_CHECKPOINT = re.compile(r"checkpoint-\d+")
_SUMMARY = frozenset(
    {"train_loss", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos"}
)
_PROGRESS = frozenset(
    {"epoch", "global_step", "total_flos", "num_input_tokens_seen", "is_local_process_zero", "is_world_process_zero"}
)
_OBJECT = re.compile(r"\{[^{}]*\}")


def recognise(path: Path, head: bytes) -> bool:
    """Whether the file is a trainer_state.json, by its keys."""
    if head.lstrip()[:1] != b"{" or path.suffix in (".jsonl", ".ndjson"):
        return False
    if b'"log_history"' in head:
        return True
    return path.name == "trainer_state.json" and (b'"global_step"' in head or b'"best_metric"' in head)


def home(path: Path) -> Path:
    """The output folder, which holds the checkpoints."""
    folder = path.parent
    return folder.parent if _CHECKPOINT.fullmatch(folder.name) else folder


def read(home: Path, files: Sequence[Path]) -> Iterator[RawRun]:
    """The run whose checkpoints these files describe."""
    notes: list[Note] = []
    best: tuple[tuple[float, int, bool], Path, Mapping[str, Any], list[Mapping[str, Any]]] | None = None
    for path in sorted(files):
        state, history, said = _load(path)
        notes += said
        reached = max([as_number(state.get("global_step")) or 0.0, *(_step(row) for row in history)])
        # At the same step the copy in the output folder is the last one written: it has the summary row.
        rank = (reached, len(history), path.parent == home)
        if history and (best is None or rank > best[0]):
            best = rank, path, state, history
    if best is None:
        raise ReadError(
            f"{home}: expected trainer_state.json with rows in log_history, found none (files read: {len(files)}); "
            "set logging_steps so that the Trainer logs, or leave the folder out"
        )
    _, path, state, history = best
    cells = Cells()
    summary: dict[str, float] = {}
    for row in history:
        found = dict(numbers_in(row))
        if "train_loss" in found and "train_runtime" in found:
            summary = found
            found = {tag: value for tag, value in found.items() if tag not in _SUMMARY}
        if not found.keys() <= {"step", "epoch"}:
            cells.add(found.items())
    series, said_of_clock = series_of(cells.columns(), cells.height, str(path))
    yield RawRun(
        name=home.name,
        path=str(path),
        source=SOURCE,
        series=series,
        facts=_facts(state, history),
        params=_params(state),
        notes=(*notes, *said_of_clock),
        finished=_finished(state, summary),
    )


def _load(path: Path) -> tuple[Mapping[str, Any], list[Mapping[str, Any]], list[Note]]:
    """What stands in one file, as far as it can be read."""
    data = read_bytes(path)
    try:
        state = parse(data)
        notes: list[Note] = []
    except ValueError:
        # Cut while it was being written: the rows before the cut are whole objects.
        text = decode(data)
        _, _, rows = text.partition('"log_history"')
        state = {"log_history": [row for found in _OBJECT.findall(rows) if (row := _object(found)) is not None]}
        kept = len(state["log_history"])
        notes = [Note("truncated", f"{path}: the file is cut or damaged; {kept} rows could be read", amount=kept)]
    if not isinstance(state, Mapping):
        return {}, [], [Note("corrupt", f"{path}: holds no JSON object")]
    history = state.get("log_history")
    rows_found = [row for row in history if isinstance(row, Mapping)] if isinstance(history, list) else []
    return state, rows_found, notes


def _object(text: str) -> Mapping[str, Any] | None:
    try:
        found = parse(text)
    except ValueError:
        return None
    return found if isinstance(found, Mapping) and "step" in found else None


def _step(row: Mapping[str, Any]) -> float:
    return as_number(row.get("step")) or 0.0


def _facts(state: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> dict[str, Fact]:
    """What the state says about the plan of the run."""
    facts: dict[str, Fact] = {"framework": "transformers"}
    for key, fact in (("max_steps", "planned_steps"), ("train_batch_size", "batch_size")):
        value = as_number(state.get(key))
        if value is not None and np.isfinite(value) and value > 0:
            facts[fact] = int(value)
    epochs = as_number(state.get("num_train_epochs"))
    if epochs is not None and np.isfinite(epochs) and epochs > 0:
        facts["planned_epochs"] = int(epochs) if epochs == int(epochs) else epochs
    for row in reversed(history):
        epoch, step = as_number(row.get("epoch")), as_number(row.get("step"))
        if epoch and step and np.isfinite(step / epoch) and epoch >= 1:
            facts["steps_per_epoch"] = round(step / epoch)
            break
    return facts


def _params(state: Mapping[str, Any]) -> dict[str, object]:
    """The settings among the fields of the state; progress is none."""
    trial = state.get("trial_params")
    found = {**state, **(trial if isinstance(trial, Mapping) else {})}
    return {k: v for k, v in found.items() if isinstance(v, str | int | float) and k not in _PROGRESS and v != ""}


def _finished(state: Mapping[str, Any], summary: Mapping[str, float]) -> bool | None:
    """Whether the run reached its last planned step; early stopping leaves the summary row too."""
    if summary:
        return True
    step, most = as_number(state.get("global_step")), as_number(state.get("max_steps"))
    return None if step is None or not most or most < 0 else step >= most
