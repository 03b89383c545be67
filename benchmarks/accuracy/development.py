"""How the rules do on the development runs, whose labels come from interventions.

The runs and their labels are made by ``devset.py``. They were looked at while rules were written, so the
numbers say how well the rules fit what they were developed on; ``corpus.py`` has the held-out numbers.

    python benchmarks/accuracy/devset.py                  # once, about fifteen minutes
    python benchmarks/accuracy/development.py [--show missed|alarm]
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from corpus import wilson

DEVSET = Path(__file__).parent / "cache" / "devset"


def judge(folder: str) -> dict[str, object]:
    """Diagnose one run and keep what the table needs."""
    import fitdoctor

    report = fitdoctor.diagnose(next(iter(fitdoctor.open_runs(folder))))
    serious = [d for d in report.diagnoses if d.root.severity != "note"]
    return {
        "verdict": report.verdict,
        "root": serious[0].root.rule if serious else "",
        "found": {f.rule for f in report.findings if f.severity != "note"},
        "noted": {f.rule for f in report.findings if f.severity == "note"},
        "could_be": {cause for d in report.diagnoses for cause in d.could_be},
        "message": "; ".join(f"{d.root.rule}: {d.root.message}" for d in serious),
    }


def outcome(labels: list[str], row: dict[str, object]) -> str:
    """What became of one run: sound, alarm; root, found, noted, open, missed."""
    if labels == ["healthy"]:
        return "alarm" if row["found"] else "sound"
    named = set(labels)
    if row["root"] in named:
        return "root"
    for name in ("found", "noted"):
        if named & row[name]:  # type: ignore[operator]
            return name
    if named & row["could_be"] or row["verdict"] == "cannot judge":  # type: ignore[operator]
        return "open"
    return "missed"


def main() -> None:
    """Score all development runs and print one line per label."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devset", type=Path, default=DEVSET)
    parser.add_argument("--show", default="", help="print the runs with this outcome, such as missed or alarm")
    args = parser.parse_args()
    with (args.devset / "labels.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    table: Counter[tuple[str, str, str]] = Counter()
    with ProcessPoolExecutor() as pool:
        for row, seen in zip(
            rows, pool.map(judge, [str(args.devset / r["run"]) for r in rows], chunksize=8), strict=True
        ):
            result = outcome(row["labels"].split("|"), seen)
            table[row["labels"], row["harmful"], result] += 1
            if result == args.show:
                print(f"{row['run']}  {row['labels']}  {row['detail'][:120]}\n    {seen['message'] or 'no alarm'}")
    for label, harmful in sorted({key[:2] for key in table}):
        counts = {kind: n for (a, b, kind), n in sorted(table.items()) if (a, b) == (label, harmful)}
        print(f"{label:45s} harmful: {harmful:10s} {counts}")
    alarms = sum(n for (_, _, kind), n in table.items() if kind == "alarm")
    healthy = alarms + sum(n for (_, _, kind), n in table.items() if kind == "sound")
    low, high = wilson(alarms, healthy)
    print(f"healthy runs with a warning or an error: {alarms} of {healthy}, 95 % interval {low:.1%} to {high:.1%}")


if __name__ == "__main__":
    main()
