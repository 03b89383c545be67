"""Whether the best configuration of a sweep is better than noise, and how good it is without its luck.

The best of many is chosen for its luck as well as for its merit. How much luck there is in it depends on the noise
between seeds, which only repeated configurations show. Without repeats the scatter inside the curves is a lower
bound: what does not stand out of that is certainly no better, and nothing more can be said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fitdoctor.compare.significance import significance
from fitdoctor.run import FloatArray
from fitdoctor.sweep.result import Chance, NoiseOf, Trial, Winner
from fitdoctor.sweep.settings import Table, Value

DRAWS = 20_000
SURE = 0.95
NEAR = 6.0
"""Standard errors from the best within which configurations are contenders: of 1,000 equal ones all lie there."""

FEW_DRAWN = 400
"""More contenders than these are not simulated one by one; the worst of them cannot be the best."""


@dataclass(frozen=True, slots=True, eq=False)
class _Config:
    """A configuration with a result in every seed.

    Attributes:
        trials: its runs.
        values: float64[seeds], lower is better, finite.
    """

    trials: tuple[Trial, ...]
    values: FloatArray

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(self.values.mean())


def winners(trials: Sequence[Trial], table: Table, tasks: Sequence[str], flip: float) -> tuple[Winner, ...]:
    """The best configuration of each task.

    Args:
        trials: the runs.
        table: their settings.
        tasks: settings that change what a value of the objective means.
        flip: -1 where more is better, else 1.
    """
    groups: dict[tuple[Value, ...], list[Trial]] = {}
    for trial in trials:
        groups.setdefault(tuple(trial.settings[name] for name in tasks), []).append(trial)
    found = [
        _winner(dict(zip(tasks, key, strict=True)), own, table, flip)
        for key, own in sorted(groups.items(), key=lambda item: tuple(map(str, item[0])))
    ]
    return tuple(w for w in found if w is not None)


def _winner(group: Mapping[str, Value], trials: Sequence[Trial], table: Table, flip: float) -> Winner | None:
    names = [a.name for a in table.axes]
    configs = _configs(trials, names, flip)
    if not configs:
        return None
    configs.sort(key=lambda c: c.mean)
    best, second = configs[0], configs[1] if len(configs) > 1 else None
    sigma, noise_of, freedom = _noise(configs)
    chance, rivals, luck = _chances(configs, sigma, freedom)
    tested = None if second is None else significance(second.values.tolist(), best.values.tolist(), paired=False)
    return Winner(
        group=group,
        settings={name: best.trials[0].settings[name] for name in names},
        run=min(best.trials, key=lambda t: flip * t.value).run,
        seeds=len(best.values),
        value=flip * best.mean,
        second=math.nan if second is None else flip * second.mean,
        second_settings={} if second is None else {name: second.trials[0].settings[name] for name in names},
        configurations=len(configs),
        noise=sigma,
        noise_of=noise_of,
        freedom=freedom,
        chance=chance,
        rivals=rivals,
        corrected=flip * (best.mean + luck) if noise_of == "seeds" else math.nan,
        p=1.0 if tested is None else tested.p,
        smallest=1.0 if tested is None else tested.smallest,
        finding=_finding(noise_of, chance, len(configs)),
    )


def _configs(trials: Sequence[Trial], names: Sequence[str], flip: float) -> list[_Config]:
    """Configurations of which no seed diverged: one that diverges with one seed in five is not the best."""
    found: dict[tuple[Value, ...], list[Trial]] = {}
    for trial in trials:
        if not math.isnan(trial.value):
            found.setdefault(tuple(trial.settings[name] for name in names), []).append(trial)
    return [
        _Config(tuple(own), np.array([flip * t.value for t in own]))
        for own in found.values()
        if all(math.isfinite(t.value) for t in own)
    ]


def _noise(configs: Sequence[_Config]) -> tuple[float, NoiseOf, int]:
    """Standard deviation between seeds among the better half, else the scatter inside the curves of the best."""
    repeated = [c.values for c in configs if len(c.values) > 1]
    middle = float(np.median([c.mean for c in configs]))
    good = [v for v in repeated if float(v.mean()) <= middle] or repeated
    freedom = sum(len(v) - 1 for v in good)
    if freedom:
        return math.sqrt(sum(float(((v - v.mean()) ** 2).sum()) for v in good) / freedom), "seeds", freedom
    scatter = [t.noise for c in configs[:5] for t in c.trials if math.isfinite(t.noise)]
    return (float(np.median(scatter)), "within runs", 0) if scatter else (math.nan, "", 0)


def _chances(configs: Sequence[_Config], sigma: float, freedom: int) -> tuple[float, int, float]:
    """Probability that the first is the best, how many others could be, and how much of its value is luck.

    True means are drawn around the measured ones, which are first drawn together by the part of their spread that is
    noise (empirical Bayes), with the noise's own uncertainty (scaled inverse chi-square of its degrees of freedom).
    Luck: the winner's curse, by bootstrap: means with the spread that is no noise are taken for the truth, noise is
    added, and the best is picked again. docs/sweep.md tells how often the chances came true.
    """
    if not math.isfinite(sigma):
        return math.nan, 0, math.nan
    if len(configs) == 1:
        return 1.0, 0, 0.0
    from scipy.stats import t

    reach = NEAR * sigma * (float(t.ppf(0.975, freedom)) / 1.96 if freedom else 1.0)
    near = [c for c in configs if c.mean - configs[0].mean <= reach * _error(configs[0], c)][:FEW_DRAWN]
    means = np.array([c.mean for c in near])
    errors = np.array([1 / math.sqrt(len(c.values)) for c in near])
    generator = np.random.default_rng(0)
    draws = min(DRAWS, 4_000_000 // len(near))
    spread = np.full(draws, sigma)
    if freedom:
        spread = sigma * np.sqrt(freedom / generator.chisquare(freedom, draws))
    noise = generator.standard_normal((draws, len(near))) * errors * spread[:, None]
    centre = float(means.mean())
    kept = max(0.0, 1 - float(np.mean((sigma * errors) ** 2)) / float(means.var())) if means.var() > 0 else 0.0
    shrunk = centre + kept * (means - centre) + math.sqrt(max(kept, 1e-6)) * noise
    wins = np.bincount(np.argmin(shrunk, axis=1), minlength=len(near)) / draws
    chance = float(wins[0])
    order = np.sort(wins[1:])[::-1]
    needed = np.searchsorted(np.cumsum(order), SURE - chance) + 1 if chance < SURE else 0
    truth = centre + math.sqrt(kept) * (means - centre)
    seen = truth + noise
    picked = np.argmin(seen, axis=1)
    luck = float(np.mean(truth[picked] - seen[np.arange(draws), picked]))
    return chance, int(min(needed, len(near) - 1)), max(luck, 0.0)


def _error(first: _Config, second: _Config) -> float:
    return math.sqrt(1 / len(first.values) + 1 / len(second.values))


def _finding(noise_of: NoiseOf, chance: float, configs: int) -> Chance:
    if configs < 2 or not noise_of:
        return "cannot tell"
    if noise_of == "within runs":  # an upper bound: low means no, high means nothing
        return "not alone" if chance < SURE else "cannot tell"
    return "stands out" if chance >= SURE else "not alone"
