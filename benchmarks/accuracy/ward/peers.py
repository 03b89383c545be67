"""What installable peers say of the same runs, run as they are: runmedic, trainproof, finetune-doctor, gradsnitch.

Each reads the fullest log of a run that it has a reader for: training loss, learning rate and gradient norm of every
step, validation loss (and accuracy) of every epoch; a Hugging Face ``trainer_state.json`` for finetune-doctor, JSON
lines or CSV for the others. Their findings are counted under the rule of ours that says the same; what has no such
rule keeps its name.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from benchmarks.accuracy.ward.arms import Said
from benchmarks.accuracy.ward.training import Outcome

SAME: dict[str, str] = {
    # runmedic
    "non_finite": "nonfinite-loss",
    "divergence": "lr-too-high",
    "loss_spikes": "loss-spikes",
    "grad_spikes": "gradient-spikes",
    "no_learning": "no-learning",
    # trainproof
    "TP-NAN": "nonfinite-loss",
    "TP-NAN-GRAD": "nonfinite-loss",
    "TP-FLAT": "no-learning",
    "TP-DEAD-RUN": "no-learning",
    "TP-DIVERGE": "lr-too-high",
    "TP-GRAD-SPIKE": "gradient-spikes",
    "TP-OVERFIT": "overfitting",
    "TP-ZERO-GRAD": "no-parameter-updates",
    "TP-ZERO-LR": "no-parameter-updates",
    "TP-ZERO-LR-PARTIAL": "lr-decay-too-early",
    # finetune-doctor
    "loss_degenerate": "nonfinite-loss",
    "not_learning": "no-learning",
    "gradients": "exploding-gradients",
    "lr_schedule": "lr-decay-too-early",
    # gradsnitch
    "GS001": "nonfinite-loss",
    "GS002": "exploding-gradients",
    "GS003": "gradient-spikes",
    "GS004": "overfitting",
    "GS005": "lr-too-low",
    "GS006": "lr-too-high",
    "GS007": "vanishing-gradients",
    "GS008": "lr-too-high",
    "GS009": "lr-too-high",
    "GS010": "lr-decay-too-early",
}
"""Their name -> ours."""


def said(findings: list[tuple[str, str]]) -> Said:
    """Findings (name, severity), in the order of the peer's own report."""
    serious = [(SAME.get(name, name), severity) for name, severity in findings if severity in ("error", "warning")]
    return Said(
        "sick" if serious else "healthy",
        tuple((name, severity, "medium") for name, severity in dict.fromkeys(serious)),
        tuple(dict.fromkeys(serious)),
    )


def _rows(outcome: Outcome) -> list[dict[str, float]]:
    """One row per step, the epoch's values in its last."""
    rows = []
    for row in outcome.rows:
        if "lr" in row:
            rows.append({k: row[k] for k in ("step", "epoch", "train_loss", "lr", "grad_norm")})
        elif rows:
            rows[-1] |= {k: row[k] for k in ("val_loss", "val_acc", "train_acc") if k in row}
    return rows


def _jsonl(outcome: Outcome, folder: Path) -> Path:
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in _rows(outcome)), "utf-8")
    return path


def _csv(outcome: Outcome, folder: Path) -> Path:
    rows, path = _rows(outcome), folder / "metrics.csv"
    names = ["step", "train_loss", "lr", "grad_norm", "val_loss"]
    lines = [",".join(names)] + [",".join(str(row.get(name, "")) for name in names) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def _trainer_state(outcome: Outcome, folder: Path) -> Path:
    history: list[dict[str, float]] = []
    for row in _rows(outcome):
        history.append(
            {"step": row["step"] + 1, "epoch": row["epoch"], "loss": row["train_loss"], "learning_rate": row["lr"],
             "grad_norm": row["grad_norm"]}
        )  # fmt: skip
        if "val_loss" in row:
            history.append({"step": row["step"] + 1, "epoch": row["epoch"] + 1, "eval_loss": row["val_loss"]})
            if math.isfinite(row.get("val_acc", math.nan)):
                history[-1]["eval_accuracy"] = row["val_acc"]
    path = folder / "trainer_state.json"
    last = history[-1]
    state = {"log_history": history, "global_step": last["step"], "max_steps": last["step"], "epoch": last["epoch"]}
    path.write_text(json.dumps(state), "utf-8")
    return path


def _called(main: Callable[[], object], argv: list[str]) -> str:
    """What a command line prints, called in this process."""
    out, before = io.StringIO(), sys.argv
    sys.argv = argv
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.suppress(SystemExit),
        ):
            main()
    finally:
        sys.argv = before
    return out.getvalue()


def _runmedic(outcome: Outcome, folder: Path) -> list[tuple[str, str]]:
    from runmedic.cli import main

    answer = json.loads(_called(main, ["runmedic", "diagnose", str(_jsonl(outcome, folder)), "--json"]))
    words = {"critical": "error", "warning": "warning"}
    return [(f["check"], words.get(f["severity"], "note")) for run in answer for f in run["findings"]]


def _trainproof(outcome: Outcome, folder: Path) -> list[tuple[str, str]]:
    from trainproof.cli import main

    answer = json.loads(_called(main, ["trainproof", "doctor", str(_jsonl(outcome, folder)), "--json"]))
    words = {"FAIL": "error", "WARN": "warning"}
    return [(f["id"], words.get(f["level"], "note")) for one in answer["reports"] for f in one["findings"]]


def _finetune_doctor(outcome: Outcome, folder: Path) -> list[tuple[str, str]]:
    from finetune_doctor.cli import main

    path = str(_trainer_state(outcome, folder))
    answer = json.loads(_called(main, ["finetune-doctor", "diagnose", path, "-f", "json"]))
    words = {"critical": "error", "warning": "warning"}
    return [(f["check"], words.get(f["severity"].lower(), "note")) for f in answer["findings"]]


def _gradsnitch(outcome: Outcome, folder: Path) -> list[tuple[str, str]]:
    import gradsnitch

    return [(f.code, f.severity) for f in gradsnitch.lint_csv(str(_csv(outcome, folder)))]


PEERS: dict[str, Callable[[Outcome, Path], list[tuple[str, str]]]] = {
    "runmedic": _runmedic,
    "trainproof": _trainproof,
    "finetune-doctor": _finetune_doctor,
    "gradsnitch": _gradsnitch,
}


def ask(peer: str, outcome: Outcome) -> Said:
    """What a peer says of a run; a peer that fails says that it cannot judge."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), open(os.devnull, "w"):
        warnings.simplefilter("ignore")
        try:
            return said(PEERS[peer](outcome, Path(folder)))
        except Exception:  # another project's crash on a log is its answer
            return Said("cannot judge")
