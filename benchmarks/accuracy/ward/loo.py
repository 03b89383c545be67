"""Leave one family out: which values of the rules' options other families would choose, and what they are worth.

For every family that may be looked at, the values of options are chosen on the other families and scored on it. An
option whose other value gains points where it was chosen and loses them on the family left out only fits its families;
what all options chosen so are worth together, on families that had no say, is what tuning can be trusted to give.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import click
from benchmarks.accuracy.ward.arms import Said, package_hash
from benchmarks.accuracy.ward.options import (
    MULTIPLES,
    Examined,
    Number,
    Setting,
    crashed,
    defaults,
    folder_of,
    kept,
    settings,
)
from benchmarks.accuracy.ward.plan import Case, cases
from benchmarks.accuracy.ward.recipe import Recipe
from benchmarks.accuracy.ward.score import Scored
from benchmarks.accuracy.ward.store import Store, digest
from benchmarks.accuracy.ward.table import table
from benchmarks.accuracy.ward.truth import truth

POINTS = {"": 0.0, "warning": -2.0, "error": -4.0}
"""What the worst severity of a sound run counts; a clearly sick run whose first root is right counts 1. A false alarm
costs more than a fault that is missed, since there are more sound runs in the world than sick ones."""


@dataclass
class Judged:
    """A run that is clearly sick or healthy, with what the rules say of it.

    Attributes:
        family: the family it is of.
        sick: whether it is clearly sick.
        right: rules that name what harms it.
        run: what the rules say.
    """

    family: str
    sick: bool
    right: frozenset[str]
    run: Examined
    _known: dict[frozenset[Setting], tuple[str, str]] = field(default_factory=dict)

    def told(self, chosen: Iterable[Setting] = ()) -> tuple[str, str]:
        """Root and worst severity with these settings."""
        those = frozenset(s for s in chosen if s in self.run.changed)
        if those not in self._known:
            self._known[those] = self.run.told(those)
        return self._known[those]

    def points(self, chosen: Iterable[Setting] = ()) -> float:
        """1 for a sick run whose first root is right, `POINTS` for an alarm on a sound one."""
        root, worst = self.told(chosen)
        return float(root in self.right) if self.sick else POINTS[worst]


Gains = dict[Setting, dict[str, float]]
"""Setting -> family -> points gained against the defaults, where they are not 0."""


def gains(runs: Sequence[Judged]) -> Gains:
    """What every setting changes, alone."""
    found: Gains = defaultdict(lambda: defaultdict(float))
    for run in runs:
        for setting in run.run.changed:
            if gained := run.points([setting]) - run.points():
                found[setting][run.family] += gained
    return found


def chosen_one(options: Sequence[Setting], gained: Gains, left_out: str) -> Setting | None:
    """The setting of one option that gains most on the other families; None where the default is as good."""

    def elsewhere(setting: Setting) -> float:
        return sum(points for family, points in gained.get(setting, {}).items() if family != left_out)

    best = min(options, key=lambda s: (-elsewhere(s), _distance(s)))
    return best if elsewhere(best) > 0 else None


def chosen_together(runs: Sequence[Judged]) -> list[Setting]:
    """Settings of several rules, added one by one as long as one of them gains points on these runs.

    At most one per rule: a rule is not judged anew with two of its options changed. Only settings that gain alone are
    tried.
    """
    alone = {s: sum(of.values()) for s, of in gains(runs).items()}
    left = sorted((s for s, points in alone.items() if points > 0), key=lambda s: (-alone[s], _distance(s), s))
    touched = {s: [run for run in runs if s in run.run.changed] for s in left}
    chosen: list[Setting] = []
    while left:

        def gain(setting: Setting) -> float:
            return sum(run.points([*chosen, setting]) - run.points(chosen) for run in touched[setting])

        best = max(left, key=gain)  # the first of equals
        if gain(best) <= 0:
            break
        chosen.append(best)
        left = [s for s in left if s.rule != best.rule]
    return chosen


def _distance(setting: Setting) -> float:
    return max(setting.multiple, 1 / setting.multiple)


@dataclass(frozen=True)
class Tuned:
    """What became of one option.

    Attributes:
        rule, option, default: the option.
        elsewhere: multiple -> points gained on all families together.
        picked: per family left out for which another value was chosen, points gained on the others and on it.
    """

    rule: str
    option: str
    default: Number
    elsewhere: dict[float, float]
    picked: list[tuple[float, float]]

    @property
    def inside(self) -> float:
        """Points gained where the values were chosen, on average."""
        return fmean(there for there, _ in self.picked) if self.picked else 0.0

    @property
    def outside(self) -> float:
        """Points gained on the families left out, together."""
        return sum(out for _, out in self.picked)

    @property
    def effect(self) -> float:
        """The largest change that any of its values makes."""
        return max(map(abs, self.elsewhere.values()), default=0.0)

    @property
    def flat(self) -> bool:
        """Whether the neighbours of the default do as well as the default."""
        return not any(points for multiple, points in self.elsewhere.items() if 0.6 < multiple < 1.7)

    @property
    def reading(self) -> str:
        """What that means, in words."""
        if self.picked:
            if self.outside < 0:
                return "another value fits its families only"
            return "another value holds elsewhere" if self.outside > 0 else "nothing gained elsewhere"
        return "flat around the default" if self.flat else "the default is best"


def tuned(runs: Sequence[Judged]) -> list[Tuned]:
    """Every option of the rules that had what they need in any of the runs."""
    gained, families = gains(runs), sorted({run.family for run in runs})
    applied = set().union(*(run.run.findings for run in runs))
    by_option: dict[tuple[str, str], list[Setting]] = defaultdict(list)
    known = defaults()
    for setting in _settings():
        if setting.rule in applied:
            by_option[setting.rule, setting.option].append(setting)
    found = []
    for (rule, option), those in by_option.items():
        picked = []
        for family in families:
            if (best := chosen_one(those, gained, family)) is not None:
                out = gained[best].get(family, 0.0)
                picked.append((sum(gained[best].values()) - out, out))
        whole = {s.multiple: sum(gained.get(s, {}).values()) for s in those}
        found.append(Tuned(rule, option, known[rule, option], whole, picked))
    return found


def _settings() -> list[Setting]:
    from fitdoctor import catalogue

    return [setting for rule in catalogue.rules() for setting in settings(rule)]


@dataclass
class Tally:
    """Counts over runs.

    Attributes:
        root, sick: clearly sick runs whose first root is right, and all of them.
        errors, alarms, sound: sound runs with an error, with a warning or an error, and all of them.
        points: by the objective.
        moved: options with another value than the default, per family left out or at all.
    """

    root: int = 0
    sick: int = 0
    errors: int = 0
    alarms: int = 0
    sound: int = 0
    points: float = 0.0
    moved: list[int] = field(default_factory=list)

    def add(self, runs: Iterable[Judged], chosen: Sequence[Setting] = ()) -> None:
        """Count runs, judged with these settings."""
        self.moved.append(len(chosen))
        for run in runs:
            root, worst = run.told(chosen)
            self.sick += run.sick
            self.root += run.sick and root in run.right
            self.sound += not run.sick
            self.alarms += not run.sick and worst != ""
            self.errors += not run.sick and worst == "error"
            self.points += run.points(chosen)


def tallies(runs: Sequence[Judged]) -> dict[str, Tally]:
    """The frozen defaults, options chosen without the family that is judged, and options chosen on the runs judged."""
    frozen, nested, fitted = Tally(), Tally(), Tally()
    frozen.add(runs)
    for family in sorted({run.family for run in runs}):
        nested.add(
            [run for run in runs if run.family == family],
            chosen_together([run for run in runs if run.family != family]),
        )
    fitted.add(runs, chosen_together(runs))
    return {"frozen defaults": frozen, "chosen without the family": nested, "chosen on the same runs": fitted}


INTRODUCTION = """What other values of the options would give, on {families} families that may be looked at: {sick}
clearly sick runs and {sound} sound ones. Every number that a rule takes was set to half, 0.7, 1.4 and twice its default
(of a share, its odds). A sick run whose first root is right counts 1, a sound run with a warning {warning:g}, with an
error {error:g}.

All options chosen together, one after the other, one of each rule, as long as points are gained:
"""

OPTION_BY_OPTION = """Option by option, points gained against the default: by each value on all families; then, where
the other families would pick another value for a family left out, by the values picked, on the families that picked
them (mean) and on those left out (sum). What gains there and loses here only fits its families.
"""


# --- from the store, and to a page -------------------------------------------------------------------------------


def candidates(store: Store) -> list[Case]:
    """The trained cases of families that may be looked at; unseen ones are never touched."""
    return [
        case
        for case in cases()
        if not case.family.unseen
        and store.has(case.recipe, watched=True)
        and (case.twin is None or store.has(case.twin, watched=False))
    ]


def judged(which: Sequence[Case], store: Store, jobs: int) -> list[Judged]:
    """The clearly sick and the healthy runs among cases, each judged with every setting; kept on disk."""
    rows = [Scored(case, truth(case, store), Said("")) for case in which]
    rows = [row for row in rows if row.truth.healthy or row.truth.harm == "yes"]
    with ProcessPoolExecutor(jobs) as pool, click.progressbar(length=len(rows), label="options") as bar:
        asked = [pool.submit(_kept, store, row.case.recipe) for row in rows]
        for _ in as_completed(asked):
            bar.update(1)
    return [
        Judged(row.case.family.name, not row.truth.healthy, row.right, done.result())
        for row, done in zip(rows, asked, strict=True)
    ]


def _kept(store: Store, recipe: Recipe) -> Examined:
    return kept(store.root, recipe.key(), store.hooks(recipe))


def measure(store: Store, jobs: int) -> str:
    """Choose and score, and keep the section of docs/accuracy.md that says what came out."""
    runs = judged(candidates(store), store, jobs)
    text = section(tuned(runs), tallies(runs), runs)
    _page(store).write_text(text, "utf-8")
    bugs = [f"{s.rule} raised with {s.option} times {s.multiple}" for s in crashed(run.run for run in runs)]
    return "\n".join([text, *bugs])


def read(store: Store) -> str:
    """What `measure` found with the package as it is, or that it was not asked."""
    page = _page(store)
    return page.read_text("utf-8") if page.exists() else "Not measured (`python -m benchmarks.accuracy.ward loo`).\n"


def _page(store: Store) -> Path:
    """Where the section is kept: for as long as what judges, what is judged and what is true are the same."""
    deciding = ("families", "faults", "loo", "odd", "plan", "score", "truth")
    return folder_of(store.root) / f"{digest(Path(__file__).with_name(f'{name}.py') for name in deciding)}.md"


def section(options: Sequence[Tuned], results: dict[str, Tally], runs: Sequence[Judged], most: int = 10) -> str:
    """What came out, in Markdown: the totals, what kinds of options there are, and those with the largest effects."""
    families = len({run.family for run in runs})
    lines = [
        ["clearly sick: root cause named first", *(f"{t.root} of {t.sick}" for t in results.values())],
        ["sound: a warning or an error", *(f"{t.alarms} of {t.sound}" for t in results.values())],
        ["sound: an error", *(f"{t.errors} of {t.sound}" for t in results.values())],
        ["points", *(f"{t.points:g}" for t in results.values())],
        ["options moved", *(f"{fmean(t.moved):.2g}" for t in results.values())],
    ]
    effects = sorted(options, key=lambda o: (-o.effect, -len(o.picked), o.rule, o.option))[:most]
    rows = [
        [
            f"{o.rule}: {o.option}",
            f"{o.default:g}",
            *(f"{o.elsewhere[m]:+g}" if m in o.elsewhere else "" for m in MULTIPLES),
            f"{len(o.picked)} of {families}",
            f"{o.inside:+.3g}" if o.picked else "",
            f"{o.outside:+.3g}" if o.picked else "",
            o.reading,
        ]
        for o in effects
    ]
    head = ["option", "default", *(f"x{m:g}" for m in MULTIPLES), "picked", "gained there", "left out", "reading"]
    first = next(iter(results.values()))
    about = INTRODUCTION.format(
        families=families, sick=first.sick, sound=first.sound, warning=POINTS["warning"], error=POINTS["error"]
    )
    return "\n".join([about, table(["", *results], lines), OPTION_BY_OPTION, table(head, rows), _counts(options)])


def _counts(options: Sequence[Tuned]) -> str:
    """How many options are of which kind, and which only fit."""
    picked = [o for o in options if o.picked]
    fits = [f"{o.rule}: {o.option}" for o in picked if o.outside < 0]
    names = f" ({', '.join(fits)})" if fits else ""
    return (
        f"{len(options)} options of {len({o.rule for o in options})} rules (package `{package_hash()}`): "
        f"{sum(not o.effect for o in options)} change no outcome within half to twice their default, "
        f"{sum(o.flat for o in options)} none within 0.7 to 1.4 times. For {len(picked)} another value was picked at "
        f"least once: {sum(o.outside > 0 for o in picked)} gain on the families left out, "
        f"{sum(o.outside == 0 for o in picked)} neither gain nor lose, {len(fits)} lose{names}.\n"
    )
