"""How right are the diagnoses on labelled real logs that fitdoctor had no part in?

Reads a folder of third-party runs with a ``labels.tsv`` (run, label, detail), diagnoses each as a user
would (`open_runs`, `diagnose`), and prints, separately for the problems the thresholds were calibrated on
and for those they were not:

- false alarms: runs labelled healthy with an error, or a warning, with a 95 % interval (Wilson);
- per label: how many are found as such, left open (the right cause among the causes named as possible, or
  "cannot judge"), called something else, or missed.

    python benchmarks/accuracy/corpus.py PATH_TO_CORPUS [--json out.json] [--show LABEL]
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

CALIBRATED = ("deepobs/cifar10_3c3d", "deepobs/mnist_vae", "fastmri")
"""Problems whose runs were looked at while thresholds were chosen; everything else is held out."""

NAMES = {"lr_too_high": "lr-too-high", "lr_too_low": "lr-too-low"}
EQUIVALENT = {
    "lr-too-high": {"lr-too-high"},
    "lr-too-low": {"lr-too-low", "undertrained"},
}


def judge(task: tuple[str, str]) -> dict[str, object]:
    """Diagnose one run folder and keep what the table needs."""
    import fitdoctor

    run_name, folder = task
    reports = [fitdoctor.diagnose(run) for run in fitdoctor.open_runs(folder)]
    findings = [f for r in reports for f in r.findings]
    nonfinite = any(f.rule == "nonfinite-loss" or "non-finite" in f.message for f in findings if f.severity.rank)
    return {
        "run": run_name,
        "verdicts": [r.verdict for r in reports],
        "roots": [d.root.rule for r in reports for d in r.diagnoses if d.root.severity.rank],
        "could_be": sorted({c for r in reports for d in r.diagnoses for c in d.could_be}),
        "errors": sorted({f.rule for f in findings if f.severity == "error"}),
        "warnings": sorted({f.rule for f in findings if f.severity == "warning"}),
        "notes": sorted({f.rule for f in findings if f.severity == "note"}),
        "crashed": sorted({f"{o.rule}: {o.why}" for r in reports for o in r.outcomes if o.status == "crashed"}),
        "nonfinite": nonfinite,
        "messages": [f"{d.root.rule}: {d.root.message}" for r in reports for d in r.diagnoses],
    }


def outcome(label: str, row: dict[str, object]) -> str:
    """found, left open, called something else, or missed."""
    name = NAMES[label]
    alarms = {*row["errors"], *row["warnings"]}  # type: ignore[misc]
    if alarms & EQUIVALENT[name]:
        return "found"
    if name in row["could_be"] or "cannot judge" in row["verdicts"]:  # type: ignore[operator]
        return "left open"
    return "other" if alarms else "missed"


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927)."""
    if n == 0:
        return (0.0, 1.0)
    z, p = 1.96, hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return (max(0.0, middle - half), min(1.0, middle + half))


def table(rows: list[dict[str, object]]) -> list[str]:
    """The printed lines for one half of the problems."""
    lines = []
    healthy = [r for r in rows if r["label"] == "healthy"]
    for kind in ("errors", "warnings"):
        hit = [r for r in healthy if r[kind]]
        low, high = wilson(len(hit), len(healthy))
        by_rule = Counter(name for r in hit for name in r[kind])  # type: ignore[attr-defined]
        lines.append(
            f"  healthy runs with {kind:8s} {len(hit):4d} of {len(healthy):4d}   95 % interval {low:.1%} to {high:.1%}"
            + (f"   {dict(by_rule)}" if by_rule else "")
        )
    verdicts = Counter(v for r in healthy for v in r["verdicts"])  # type: ignore[attr-defined]
    lines.append(f"  verdicts on healthy runs: {dict(verdicts)}")
    for label in NAMES:
        for nonfinite in (False, True):
            group = [r for r in rows if r["label"] == label and r["nonfinite"] is nonfinite]
            if not group:
                continue
            counts = Counter(outcome(label, r) for r in group)
            top = Counter(str(r["roots"][0]) if r["roots"] else "-" for r in group)  # type: ignore[index]
            what = "non-finite" if nonfinite else "finite"
            lines.append(
                f"  {label} ({what}), {len(group)} runs: "
                + ", ".join(f"{counts[k]} {k}" for k in ("found", "left open", "other", "missed"))
                + f"   roots {dict(top)}"
            )
    for name, label in (("lr-too-high", "lr_too_high"), ("lr-too-low", "lr_too_low")):
        called = [r for r in rows if name in {*r["errors"], *r["warnings"]} and r["label"] in ("healthy", *NAMES)]  # type: ignore[misc]
        right = sum(r["label"] == label for r in called)
        lines.append(f"  precision of {name} among labelled runs: {right} of {len(called)}")
    return lines


def main() -> None:
    """Diagnose every run of the corpus and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--show", default="", help="print the diagnoses of runs with this label")
    parser.add_argument("--half", choices=("both", "calibrated", "held-out"), default="both")
    args = parser.parse_args()
    with (args.corpus / "labels.tsv").open() as file:
        labels = {r["run"]: r["label"] for r in csv.DictReader(file, delimiter="\t")}
    halves: dict[str, list[dict[str, object]]] = defaultdict(list)
    chosen = []
    for run in sorted(labels):
        half = "calibrated" if any(key in run for key in CALIBRATED) else "held-out"
        if args.half in ("both", half) and (args.corpus / run).exists():
            chosen.append((run, str(args.corpus / run), half))
    with ProcessPoolExecutor() as pool:
        for (run, _, half), row in zip(chosen, pool.map(judge, [c[:2] for c in chosen], chunksize=8), strict=True):
            row["label"] = labels[run]
            halves[half].append(row)
    for half, rows in halves.items():
        print(f"{half}: {len(rows)} runs")
        print("\n".join(table(rows)))
        for row in rows:
            if row["crashed"]:
                print("  CRASHED", row["run"], row["crashed"])
            if args.show and row["label"] == args.show:
                print("   ", row["run"], row["verdicts"], row["messages"])
    if args.json:
        args.json.write_text(json.dumps(halves, indent=1))


if __name__ == "__main__":
    main()
