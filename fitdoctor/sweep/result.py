"""What a sweep says: a `Sweep`, and its JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fitdoctor.compare.comparison import plain
from fitdoctor.run import Fact

FORMAT_VERSION = 1
"""Version of the JSON form of a sweep. 1: first form (0.1.0)."""

State = Literal["finished", "diverged", "crashed", "unfinished", "no objective"]
At = Literal["final", "best"]
Finding = Literal[
    "separates", "explained by another", "not shown", "not significant by construction", "nothing to separate"
]
Chance = Literal["stands out", "not alone", "cannot tell"]
NoiseOf = Literal["seeds", "within runs", ""]


@dataclass(frozen=True, slots=True)
class Objective:
    """What the runs are ranked by.

    Attributes:
        name: the signal, such as "val loss", or a tag of the logs.
        better: whether lower or higher values are better.
        at: "final" (median of the last tenth of a curve, at least 3 points) or "best" (best smoothed value).
        why: why this one.
    """

    name: str
    better: Literal["lower", "higher"]
    at: At
    why: str


@dataclass(frozen=True, slots=True)
class Axis:
    """A setting that varies over the runs.

    Attributes:
        name: the setting.
        also: settings that change together with it in every run: their effects cannot be told apart.
        values: its distinct values in order; None for runs that do not tell it.
        kind: "number" or "word"; words have no order.
        source: where the values were read: "log" or "name".
    """

    name: str
    also: tuple[str, ...]
    values: tuple[Fact | None, ...]
    kind: Literal["number", "word"]
    source: Literal["log", "name"] = "log"


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of the sweep.

    Attributes:
        run: its name.
        settings: the varying settings, seeds included.
        state: "finished"; "diverged": its loss is not finite at the end; "crashed": the log says that it failed;
            "unfinished": shorter than its like; "no objective": finished without having logged it.
        verdict: of the report: "sick", "healthy" or "cannot judge".
        causes: the rules of its root causes, warnings and errors only.
        value: the objective, as it stands in the log; inf (-inf where more is better) when diverged, nan when unknown.
        noise: standard error of `value` that the scatter inside the curve explains; nan when unknown.
        start: the objective of the untrained model, as far as logged; nan when unknown.
        turned: share of its gain that the objective has lost again at the end; nan when unknown.
        steps: last step logged.
        due: the step that its like end at; 0 where they end at different ones.
    """

    run: str
    settings: Mapping[str, Fact | None]
    state: State
    verdict: str
    causes: tuple[str, ...]
    value: float
    noise: float
    start: float
    turned: float
    steps: int
    due: int


@dataclass(frozen=True, slots=True)
class Level:
    """The runs at one value of a setting, or in one range of its values.

    Attributes:
        label: the value or the range.
        runs, sick, healthy, not_judged, diverged: how many.
        causes: root causes with the number of runs, the most frequent first.
    """

    label: str
    runs: int
    sick: int
    healthy: int
    not_judged: int
    diverged: int
    causes: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Separation:
    """Whether one setting separates the sick runs from the healthy ones.

    Attributes:
        setting: the setting.
        also: settings that vary together with it.
        levels: its values with what became of the runs there.
        where: at which values runs are sick more often than elsewhere; "" where nothing is shown.
        rates: share of sick configurations there, and elsewhere.
        configurations: how many configurations were exchanged; seeds of one configuration count once.
        p: of the permutation test.
        corrected: p after Holm's correction for the number of settings tested.
        smallest: the smallest corrected p that this many configurations can reach.
        given: the setting of which the values were held fixed in a second test, "" for none.
        p_given: of that test; nan for none.
        finding: what may be said.
    """

    setting: str
    also: tuple[str, ...]
    levels: tuple[Level, ...]
    where: str
    rates: tuple[float, float]
    configurations: int
    p: float
    corrected: float
    smallest: float
    given: str
    p_given: float
    finding: Finding


@dataclass(frozen=True, slots=True)
class Rate:
    """The runs of a group at one learning rate.

    Attributes:
        rate: the learning rate; the geometric middle of a bin.
        runs: how many have a value, diverged ones included.
        diverged: how many of them diverged.
        level: mean of the objective over those that did not; nan without any.
        regret: mean share of the range that is lost against the best rate, each at most 1; 1 for a diverged run.
        inside: whether it belongs to the band.
    """

    rate: float
    runs: int
    diverged: int
    level: float
    regret: float
    inside: bool


@dataclass(frozen=True, slots=True)
class Edge:
    """One end of a band.

    Attributes:
        inside: the last rate that belongs to the band.
        outside: the next rate, which does not; None where none was tried.
        low, high: between which rates the edge lies, the noise of seeds included where it is known; None when open.
    """

    inside: float
    outside: float | None
    low: float | None
    high: float | None

    @property
    def open(self) -> bool:
        """Whether no rate beyond it was tried."""
        return self.outside is None


@dataclass(frozen=True, slots=True)
class Band:
    """Learning rates that cost next to nothing against the best one, in one group of runs.

    Attributes:
        group: what the runs of the group have in common.
        rates: every rate tried.
        best: the best rate.
        low, high: the ends of the band around it.
        tolerance: regret up to which a rate belongs to the band, as a share of `range`.
        range: from the untrained objective to the best.
        noise: standard deviation over seeds, in units of the objective; nan without repeats.
        repeats: configurations with more than one seed.
        pooled: settings that vary freely inside the group; at each rate the best of them counts.
        binned: whether rates were put into bins, three a decade.
        left_out: runs without a value: crashed, unfinished, or without the objective.
        advice: what to try next.
        why_not: why there is no band; then `best`, `low` and `high` are None.
    """

    group: Mapping[str, Fact | None]
    rates: tuple[Rate, ...]
    best: float | None = None
    low: Edge | None = None
    high: Edge | None = None
    tolerance: float = float("nan")
    range: float = float("nan")
    noise: float = float("nan")
    repeats: int = 0
    pooled: tuple[str, ...] = ()
    binned: bool = False
    left_out: int = 0
    advice: tuple[str, ...] = ()
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Winner:
    """The best configuration, and whether it is better than noise.

    Attributes:
        group: the task, where the runs are of several.
        settings: the best configuration, without seeds.
        run: its best run.
        seeds: how many runs it has.
        value: its mean objective.
        second: the runner-up's mean objective; nan without one.
        second_settings: the runner-up.
        configurations: how many have a value.
        noise: standard deviation between seeds; without repeats that of the final level inside runs; nan if unknown.
        noise_of: "seeds", "within runs" or "".
        freedom: degrees of freedom of `noise`.
        chance: probability that it is truly the best, given the noise; an upper bound for "within runs".
        rivals: configurations that could as well be the best: together with it they hold 95 % of that probability.
        corrected: `value` without the luck of having been chosen; nan where the noise of seeds is unknown.
        p: exact permutation test against the runner-up; 1 where impossible.
        smallest: the smallest p that this many runs can reach.
        finding: "stands out", "not alone" (others may be as good), or "cannot tell".
    """

    group: Mapping[str, Fact | None]
    settings: Mapping[str, Fact | None]
    run: str
    seeds: int
    value: float
    second: float
    second_settings: Mapping[str, Fact | None]
    configurations: int
    noise: float
    noise_of: NoiseOf
    freedom: int
    chance: float
    rivals: int
    corrected: float
    p: float
    smallest: float
    finding: Chance


@dataclass(frozen=True, slots=True)
class Sweep:
    """Runs read as a sweep.

    Attributes:
        trials: every run.
        objective: what they are ranked by; None where nothing fits.
        axes: the settings that vary.
        seeds: settings that tell repeats apart, such as a seed.
        identifiers: settings that only name runs, and were left out.
        separations: per setting whether it separates the sick from the healthy, the surest first.
        bands: the learning rates that cost little, per group.
        winners: the best configuration of each task.
        cautions: what speaks against reading more into it.
    """

    trials: tuple[Trial, ...]
    objective: Objective | None
    axes: tuple[Axis, ...]
    seeds: tuple[str, ...] = ()
    identifiers: tuple[str, ...] = ()
    separations: tuple[Separation, ...] = ()
    bands: tuple[Band, ...] = ()
    winners: tuple[Winner, ...] = ()
    cautions: tuple[str, ...] = field(default=())

    @property
    def counts(self) -> Mapping[str, int]:
        """How many runs there are, by verdict and by state."""
        names = ("sick", "healthy", "cannot judge", "finished", "diverged", "crashed", "unfinished", "no objective")
        told = [t.verdict for t in self.trials] + [t.state for t in self.trials]
        return {"runs": len(self.trials), **{name: told.count(name) for name in names}}

    def to_dict(self) -> dict[str, Any]:
        """The sweep as plain Python data; numbers that are not finite are strings, as in a report."""
        return {"format_version": FORMAT_VERSION, "counts": dict(self.counts), **plain(self)}
