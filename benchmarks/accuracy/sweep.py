"""Do the learning rates that `sweep` calls good agree with labels of whole grids that fitdoctor had no part in?

Reads the DeepOBS part of the corpus (three problems x three optimizers, 36 learning rates each), as one sweep, and
compares every band with the labels of its rates: `healthy` is within a factor of four of the best rate and keeps 95 %
of its result, `lr_too_high` and `lr_too_low` keep next to nothing, `unknown` is in between. The labels come from the
final test accuracy (from the loss where none is logged); the bands are made once from the default objective and once
from what the labels were made from.

    python benchmarks/accuracy/sweep.py PATH_TO_CORPUS
"""

from __future__ import annotations

import argparse
import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

from fitdoctor.many import diagnose_runs
from fitdoctor.report import Report
from fitdoctor.sweep import Band, Sweep, sweep

RUN = re.compile(r"(?P<problem>[^/]+)/(?P<optimizer>[a-z]+)_lr(?P<rate>[\d.e+-]+)_seed\d+")


def labelled(corpus: Path) -> dict[tuple[str, str], dict[float, str]]:
    """Problem and optimizer -> rate -> label; of several seeds at a rate the first, as the grid was run with it."""
    out: dict[tuple[str, str], dict[float, str]] = defaultdict(dict)
    with (corpus / "labels.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            match = RUN.fullmatch(row["run"].removeprefix("deepobs/"))
            if match is not None and row["run"].startswith("deepobs/") and row["run"].endswith("seed42"):
                out[match["problem"], match["optimizer"]][float(match["rate"])] = row["label"]
    return out


def nearest(rates: dict[float, str], rate: float) -> str:
    """The label of a rate, which the names of the runs round to three digits."""
    return rates[min(rates, key=lambda r: abs(r / rate - 1))]


def score(name: str, band: Band, labels: dict[float, str], total: Counter[str]) -> str:
    """One line on a band; its counts go into the total."""
    if band.best is None or band.low is None or band.high is None:
        total["no band"] += 1
        return f"  {name:35s} no band: {band.why_not}"
    inside = Counter(nearest(labels, r.rate) for r in band.rates if r.inside)
    healthy = sum(label == "healthy" for label in labels.values())
    below = [rate for rate, label in labels.items() if label == "lr_too_high" and rate < band.low.inside * 0.99]
    above = [rate for rate, label in labels.items() if label == "lr_too_low" and rate > band.high.inside * 1.01]
    total.update({f"inside {label}": n for label, n in inside.items()})
    total.update({"healthy": healthy, "bands": 1, "misplaced": len(below) + len(above)})
    total["best is healthy"] += nearest(labels, band.best) == "healthy"
    total["open"] += band.low.open + band.high.open
    text = ", ".join(f"{n} {label}" for label, n in inside.most_common())
    return (
        f"  {name:35s} {band.low.inside:.3g} to {band.high.inside:.3g}, best {band.best:.3g} "
        f"({nearest(labels, band.best)}): {text}; {inside['healthy']} of {healthy} healthy rates"
    )


def table(found: Sweep, labels: dict[tuple[str, str], dict[float, str]]) -> list[str]:
    """The lines on one sweep."""
    total: Counter[str] = Counter()
    lines = []
    for band in found.bands:
        problem = next((str(v) for k, v in band.group.items() if k.startswith("folder")), "")
        key = (problem, str(band.group["optimizer"]))
        lines.append(score("/".join(key), band, labels[key], total))
    sick = total["inside lr_too_high"] + total["inside lr_too_low"]
    rates = sum(n for key, n in total.items() if key.startswith("inside "))
    lines.append(
        f"  {total['bands']} bands with {rates} rates: {total['inside healthy']} healthy, {total['inside unknown']} "
        f"in between, {sick} labelled too high or too low; {total['inside healthy']} of {total['healthy']} healthy "
        f"rates are inside; best rate healthy in {total['best is healthy']} of {total['bands']}; "
        f"{total['misplaced']} rates on the wrong side; {total['open']} open ends"
    )
    return lines


def main() -> None:
    """Read the corpus as sweeps and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    args = parser.parse_args()
    labels = labelled(args.corpus)
    reports: list[Report] = list(diagnose_runs(args.corpus / "deepobs"))
    scored = [r for r in reports if any(str(c.signal) == "val accuracy" for c in r.curves)]
    others = [r for r in reports if r not in scored]
    for title, part, metric, at in (
        ("default: best smoothed val loss", reports, None, "best"),
        ("final val loss", reports, None, "final"),
        ("what the labels were made from: val accuracy", scored, "accuracy:val", "final"),
        ("what the labels were made from: val loss", others, None, "final"),
    ):
        found = sweep(part, metric=metric, at=at)  # type: ignore[arg-type]
        print(f"{title}: {len(part)} runs")
        if part is others:  # one problem: its folder does not vary
            for band in found.bands:
                band.group["folder 1"] = "mnist_vae"  # type: ignore[index]
        print("\n".join(table(found, labels)))
        for s in found.separations:
            print(f"    {s.setting}: {s.finding} {s.where} (corrected p {s.corrected:.2g})")


if __name__ == "__main__":
    main()
