"""Check a program that has three faults before its first step, mend them one by one, and check again.

python examples/preflight_broken_program.py
"""

from __future__ import annotations

import fitdoctor
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of raw sensor values, and which of three states they belong to."""
    torch.manual_seed(0)
    x = torch.randn(600, 10)
    y = (x @ torch.randn(10, 3)).argmax(1)
    return 300 + 80 * x, y


def check(*, softmax: bool, normalised: bool, shuffled: bool) -> fitdoctor.Report:
    """Preflight of one version of the program."""
    x, y = data()
    if normalised:
        x = (x - x[:400].mean(0)) / x[:400].std(0)
    if not shuffled:
        order = y[:400].argsort()
        x, y = torch.cat([x[:400][order], x[400:]]), torch.cat([y[:400][order], y[400:]])
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3), *([nn.Softmax(dim=1)] if softmax else []))
    return fitdoctor.preflight(
        model,
        nn.CrossEntropyLoss(),
        torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        DataLoader(TensorDataset(x[:400], y[:400]), batch_size=32, shuffle=shuffled),
        DataLoader(TensorDataset(x[400:], y[400:]), batch_size=100),
    )


def main() -> None:
    for name, faults in (
        ("as it was", {"softmax": True, "normalised": False, "shuffled": False}),
        ("without the softmax", {"softmax": False, "normalised": False, "shuffled": False}),
        ("with standardised inputs", {"softmax": False, "normalised": True, "shuffled": False}),
        ("with shuffled batches", {"softmax": False, "normalised": True, "shuffled": True}),
    ):
        report = check(**faults)
        print(f"{name}: {report.verdict}")
        for diagnosis in report.diagnoses:
            if diagnosis.root.severity != "note":
                print(f"    {diagnosis.root.severity} {diagnosis.root.rule}: {diagnosis.root.message}")
                print(f"        do: {diagnosis.root.remedies[0].title}")


if __name__ == "__main__":
    main()
