"""What fitdoctor says of a run: from the script's own log, from the monitor's, and before the first step."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from benchmarks.accuracy.ward.plan import Case
from benchmarks.accuracy.ward.store import Store, digest
from benchmarks.accuracy.ward.training import Program, epoch_order, forward, prepare
from torch import Tensor, nn
from torch.utils.data import Sampler

ARMS = ("logs", "hooks", "probes", "everything")
"""What is looked at: the script's own log; what the monitor recorded; the program before its first step; what somebody
reads who has the probes and the monitor (`together`)."""


@dataclass(frozen=True)
class Said:
    """One answer.

    Attributes:
        verdict: "sick", "healthy" or "cannot judge".
        roots: rule, severity and confidence of the diagnoses with a warning or an error, the most important first.
        found: rules with a warning or an error -> severity.
        could_be: causes that the first diagnosis names besides.
        change: knob, operation and value of the first remedy that a program can apply, or None.
    """

    verdict: str
    roots: tuple[tuple[str, str, str], ...] = ()
    found: tuple[tuple[str, str], ...] = ()
    could_be: tuple[str, ...] = ()
    change: tuple[str, str, object] | None = None

    @property
    def root(self) -> str:
        """The one cause that is named, "" for none."""
        return self.roots[0][0] if self.roots else ""

    @property
    def three(self) -> tuple[str, ...]:
        """The first three causes: roots, then what the first says it could be as well."""
        return tuple(dict.fromkeys([r[0] for r in self.roots] + list(self.could_be)))[:3]

    @property
    def worst(self) -> str:
        """The worst severity, "" for none."""
        return next((s for s in ("error", "warning") if any(s == f[1] for f in self.found)), "")


def summary(report: object) -> Said:
    """A report in the words of the ward."""
    from fitdoctor.report import Report

    assert isinstance(report, Report)
    serious = [d for d in report.diagnoses if d.root.severity != "note"]
    first = serious[0].root if serious else None
    change = next((r.change for r in first.remedies if r.change is not None), None) if first else None
    return Said(
        report.verdict,
        tuple((d.root.rule, str(d.root.severity), str(d.root.confidence)) for d in serious),
        tuple(dict.fromkeys((f.rule, str(f.severity)) for f in report.findings if f.severity != "note")),
        tuple(serious[0].could_be) if serious else (),
        (change.knob, change.op, change.value) if change else None,
    )


def judge(folder: Path, until: float = 1.0) -> Said:
    """Diagnose a log folder as ``fitdoctor analyze`` does.

    Args:
        folder: of the log.
        until: share of the run that is looked at, as somebody would who looks while it trains.
    """
    import fitdoctor

    run = next(iter(fitdoctor.open_runs(folder)))
    if until < 1 and run.steps is not None:
        run = run.until(int(run.steps.first + until * (run.steps.last - run.steps.first)))
    return summary(fitdoctor.diagnose(run))


def examine(program: Program) -> Said:
    """Let the probes look at a program that has not begun.

    Without a budget: one in seconds would make the answer depend on what else the machine does.
    """
    import fitdoctor
    from torch.utils.data import DataLoader, TensorDataset

    recipe = program.recipe
    batch = min(recipe.batch, len(program.train[0]))
    train = DataLoader(TensorDataset(*program.train), batch, sampler=_Order(program), drop_last=True)
    val = DataLoader(TensorDataset(*program.val), 128)

    def loss_of(net: nn.Module, pair: list[Tensor]) -> Tensor:
        return forward(program, *pair)[1] if net.training else program.loss_of(net(pair[0]), pair[1])

    report = fitdoctor.preflight(
        program.model,
        program.criterion,
        program.optimizer,
        train,
        val,
        scheduler=program.schedule.scheduler,
        accumulate=recipe.accumulate,
        clip_norm=recipe.clip or None,
        loss_of=loss_of,
    )
    return summary(report)


class _Order(Sampler[int]):
    """The examples in the order in which `training.train` takes them, a new one for every epoch."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.generator = torch.Generator().manual_seed(program.recipe.seed + 1)
        self.fixed = torch.randperm(len(program.train[0]), generator=self.generator)

    def __iter__(self) -> Iterator[int]:
        yield from epoch_order(self.program, self.generator, self.fixed).tolist()

    def __len__(self) -> int:
        return len(self.program.train[0])


def together(before: Said, during: Said) -> Said:
    """What somebody reads who asks the probes before a run and the monitor during it.

    An error of the probes comes first: nobody would have trained on. Then comes what the monitor names, since it has
    seen the run, and then warnings of the probes. Alarms of either count as alarms.

    Args:
        before: what the probes say.
        during: what is said of the monitor's log.
    """
    errors = tuple(root for root in before.roots if root[1] == "error")
    roots = tuple(dict.fromkeys((*errors, *during.roots, *before.roots)))
    first = during if during.roots and not errors else before
    found = tuple(dict.fromkeys((*before.found, *during.found)))
    verdict = "sick" if "sick" in (before.verdict, during.verdict) else during.verdict
    return Said(verdict, roots, found, first.could_be, first.change)


def say(case: Case, store: Store, arm: str) -> Said:
    """What one arm says of a case; kept on disk, for as long as the package and the run are the same."""
    if arm == "everything":
        return together(say(case, store, "probes"), say(case, store, "hooks"))
    kept = store.root / "said" / f"{package_hash()}" / f"{case.recipe.key()}-{arm}.json"
    if kept.exists():
        data = json.loads(kept.read_text("utf-8"))
        return Said(
            data["verdict"],
            tuple(map(tuple, data["roots"])),
            tuple(map(tuple, data["found"])),
            tuple(data["could_be"]),
            tuple(data["change"]) if data["change"] else None,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if arm == "probes":
            said = examine(prepare(case.recipe))
        else:
            said = judge(store.logs(case.recipe) if arm == "logs" else store.hooks(case.recipe))
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(asdict(said)), "utf-8")
    return said


@cache
def package_hash() -> str:
    """Twelve hex digits of everything that judges: what is frozen before a score counts."""
    import fitdoctor

    package = Path(fitdoctor.__file__).parent
    return digest(
        p for p in package.rglob("*.py") if "tensorboard_plugin" not in p.parts and "reporters" not in p.parts
    )
