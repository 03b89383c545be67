"""Log files to runs: `open_runs(path)` finds every run below a path, in any mixture of formats.

survey (which files) -> RunSource (what is read together) -> RawRun -> assemble -> Run
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from fitdoctor.errors import FitdoctorError, NoLogsFound, ReadError

if TYPE_CHECKING:
    from fitdoctor.readers.raw import RawRun
    from fitdoctor.readers.tags import Overrides
    from fitdoctor.readers.tensorboard import EventFiles
    from fitdoctor.readers.walk import Found, Survey
    from fitdoctor.run import Per, Run
    from fitdoctor.signals import Signal

Progress = Callable[[int, int, str], None]
"""Called with the number of sources done, their total, and the name of the one that comes next."""

_PLAIN_STEMS = re.compile(
    r"metrics?|results?|scalars?|summary|progress|history|logs?|training(_log)?|train(_log)?|trainer_state|output|out|"
    r"stdout|stderr|nohup|measurements|mlflow|events|data|run|trackio",
    re.IGNORECASE,
)
"""File names that say nothing: the run is named after the folder."""
_TOGETHER = 8
"""More logs than this in one folder are not several views of one training."""
_INSIDE = ("runs", "logs", "log", "tensorboard", "tb", "tb_logs", "tf_logs", "vis_data", "csv_logs", "summaries")
"""Folders in which a framework keeps another log of the run whose folder they lie in."""
_OF_THE_MONITOR = "fitdoctor"
"""The folder that `fitdoctor.attach` makes in a run's folder; as `fitdoctor.live.sinks.FOLDER`, which needs torch."""


@dataclass(frozen=True, slots=True)
class RunSource:
    """Logs that are read together, because they may tell of one training.

    Attributes:
        name: name of its run, unique below the opened path; of several runs, the start of their names.
        path: the folder or file.
        source: formats, such as "tensorboard" or "csv, tensorboard".
        parts: what each reader is given.
        subruns: folder of event files -> the run folder that it is a part of.
        overrides: what the user says about tags.
        names: path of a log that lies in a folder of its own -> name of its run, should it be another training.
        failure: why it cannot be read, where that is known before reading.
    """

    name: str
    path: Path
    source: str
    parts: tuple[Found, ...]
    subruns: Mapping[Path, Path]
    overrides: Overrides = ()
    names: Mapping[str, str] = field(default_factory=dict)
    failure: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are read."""
        return tuple(f for part in self.parts for f in part.files)

    @property
    def single(self) -> bool:
        """Whether it is known, without reading, to hold exactly one run."""
        return bool(self.failure) or all(part.module == "tensorboard" for part in self.parts)

    def fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        """Name, size and time of change of every file; a different one means that there is more to read."""
        out: list[tuple[str, int, int]] = []
        for path in self._watched():
            try:
                status = path.stat()
            except OSError:
                continue
            out.append((str(path), status.st_size, status.st_mtime_ns))
        return tuple(out)

    def _watched(self) -> Iterator[Path]:
        from fitdoctor.readers.walk import KINDS

        closed = {kind.module for kind in KINDS if kind.closed}
        for part in self.parts:
            if part.module in closed and part.home not in part.files and part.home.is_dir():
                for folder, _, names in os.walk(part.home):
                    yield from (Path(folder, name) for name in sorted(names))
            elif part.module == "tensorboard":
                yield from (
                    sorted(p for p in part.home.iterdir() if "tfevents" in p.name) if part.home.is_dir() else part.files
                )
            else:
                for file in part.files:
                    yield file
                    yield file.with_name(file.name + "-wal")  # an sqlite store that is being written

    def load(self, through: EventFiles | None = None) -> list[Run]:
        """Read and assemble; a log that cannot be read becomes an empty run whose note says why.

        Event files are read through what is given: a `fitdoctor.readers.tensorboard.Memory` reads on from where the
        last call ended, a `fitdoctor.readers.tensorboard.ReadAhead` reads those of several runs at a time.
        """
        from fitdoctor.readers.assemble import assemble
        from fitdoctor.readers.twins import without_twins

        runs = [assemble(raw, self.overrides) for raw in self.raw_runs(through)]
        if len(runs) > 1 and len(self.parts) > 1:
            runs = without_twins(runs)
        return _named(runs, self)

    def raw_runs(self, through: EventFiles | None = None) -> list[RawRun]:
        """What the readers find, sub-runs merged into their runs."""
        from fitdoctor.readers.subruns import merged

        out: list[RawRun] = []
        if self.failure:
            out.append(_unread(self.path, self.source, self.failure))
        whole: dict[Path, RawRun] = {}
        pieces: dict[Path, list[tuple[Path, RawRun]]] = {}
        for part in self.parts:
            found = self._read(part, through)
            parent = self.subruns.get(part.home) if part.module == "tensorboard" else None
            if parent is not None:
                pieces.setdefault(parent, []).extend((part.home, raw) for raw in found)
            elif part.module == "tensorboard":
                whole.update((part.home, raw) for raw in found)
            else:
                out += found
        for folder in dict.fromkeys([*whole, *pieces]):
            main = whole.get(folder)
            if folder in pieces:
                out += merged(main, folder, pieces[folder])
            elif main is not None:
                out.append(main)
        return out

    def _read(self, part: Found, through: EventFiles | None) -> list[RawRun]:
        from fitdoctor.readers.walk import reader

        module = reader(part.module)
        found: list[RawRun] = []
        try:
            # One by one: what was read before a damaged place still counts.
            by = (through,) if through is not None and part.module == "tensorboard" else ()
            found.extend(module.read(part.home, part.files, *by))
        except FitdoctorError as error:
            why = str(error)
        except Exception as error:  # a reader's own mistake must not cost the user all other runs
            why = f"{part.home}: the {module.SOURCE} reader failed: {type(error).__name__}: {error}"
        else:
            return found
        found.append(_unread(part.home, module.SOURCE, why))
        return found


def _unread(path: Path, source: str, why: str) -> RawRun:
    """A run without series that says why."""
    from fitdoctor.readers.raw import RawRun
    from fitdoctor.run import Note

    return RawRun(path.name, str(path), source, (), notes=(Note("ignored-file", why),))


def open_runs(
    path: str | Path,
    *,
    tags: Mapping[str, str] | None = None,
    match: str = "*",
    progress: Progress | None = None,
) -> Iterator[Run]:
    """Read every run below a path, one after the other, in natural order of their names.

    Args:
        path: a log file, a run's folder, or a folder of many.
        tags: tag or glob -> ``quantity``, ``quantity:split``, ``quantity:split:layer`` or ``ignore``.
        match: glob that a run's name must match.
        progress: called before each source is read.

    Yields:
        The runs. A log that could not be read comes as a run without series whose note says why.

    Raises:
        ReadError: if the path does not exist.
        NoLogsFound: if nothing below it is a training log.
        ConfigError: if `tags` names a quantity that does not exist.
    """
    sources = find_runs(path, tags=tags)
    if match != "*":
        sources = [s for s in sources if not s.single or fnmatchcase(s.name, match)]
    used: set[str] = set()
    through = read_ahead(sources)
    for done, source in enumerate(sources):
        if progress is not None:
            progress(done, len(sources), source.name)
        for run in source.load(through):
            name = unique(run.name, used)
            if fnmatchcase(name, match):
                yield run if name == run.name else replace(run, name=name)
    if progress is not None:
        progress(len(sources), len(sources), "")


def read_ahead(sources: Sequence[RunSource]) -> EventFiles | None:
    """What reads the event files of these sources faster than one by one, if they are loaded in this order."""
    from fitdoctor.readers.tensorboard import ReadAhead, in_order

    parts = [part for source in sources for part in source.parts if part.module == "tensorboard"]
    return ReadAhead(path for part in parts for path in in_order(part.files)) if len(parts) > 1 else None


def find_runs(path: str | Path, *, tags: Mapping[str, str] | None = None, links: bool = True) -> list[RunSource]:
    """Find the logs below a path without reading them.

    Args:
        path: a log file, a run's folder, or a folder of many.
        tags: what the user says about tags, as in `open_runs`.
        links: follow symbolic links that lead out of the path.

    Raises:
        ReadError: if the path does not exist.
        NoLogsFound: if nothing below it is a training log.
        ConfigError: if `tags` names a quantity that does not exist.
    """
    from fitdoctor.readers.tags import parse_overrides
    from fitdoctor.readers.walk import survey

    overrides = parse_overrides(tags)
    root = Path(path)
    seen = survey(root, links=links)
    if not seen.found:
        raise NoLogsFound(_nothing_found(root, seen))
    return _sources(root, seen, overrides)


def _sources(root: Path, seen: Survey, overrides: Overrides) -> list[RunSource]:
    from fitdoctor.readers.subruns import parents_of
    from fitdoctor.readers.walk import natural, reader

    found = seen.found
    events = {f.home: f for f in found if f.module == "tensorboard"}
    subruns = parents_of(events)
    groups: dict[Path, list[Found]] = {}
    for f in found:
        groups.setdefault(subruns.get(f.home, f.home) if f.module == "tensorboard" else f.place, []).append(f)
    groups = _with_logs_inside(groups, subruns)
    sources: list[RunSource] = []
    for place, parts in groups.items():
        together = [parts] if _one_training(parts, subruns) else _apart(parts, subruns)
        for several in together:
            first = several[0]
            single_file = len(several) == 1 and first.home != place
            name = _name_of(root, first.home if single_file else place, place, alone=len(together) == 1)
            formats = ", ".join(dict.fromkeys(reader(p.module).SOURCE for p in several))
            own = {p.home: subruns[p.home] for p in several if p.home in subruns}
            elsewhere = {
                str(path): _name_of(root, p.home, p.place, alone=True)
                for p in several
                if p.place != place and p.home not in own
                for path in (p.home, *p.files)
            }
            path = first.home if single_file else place
            sources.append(RunSource(name, path, formats, tuple(several), own, overrides, elsewhere))
    for path, why in seen.unreadable:
        name = _name_of(root, path, path, alone=True)
        sources.append(RunSource(name, path, "unreadable", (), {}, overrides, failure=f"{path}: not read: {why}"))
    sources = _named_above(root, sources)
    sources.sort(key=lambda s: natural(s.name))
    used: set[str] = set()
    names = [unique(s.name, used) for s in sources]
    return [s if s.name == name else replace(s, name=name) for s, name in zip(sources, names, strict=True)]


def _one_training(parts: Sequence[Found], subruns: Mapping[Path, Path]) -> bool:
    """Whether logs of one folder may be views of one training: of different readers, and few.

    Logs in folders inside it (`_INSIDE`) may be of one reader; the first part lies in the folder itself.
    """
    if len(parts) == 1:
        return True
    mains = [p for p in parts if p.home not in subruns or p.module != "tensorboard"]
    here = [p for p in mains if p.place == mains[0].place]
    return len({p.module for p in here}) == len(here) and len(mains) <= _TOGETHER


def _apart(parts: Sequence[Found], subruns: Mapping[Path, Path]) -> list[list[Found]]:
    """Logs of one folder, each a source of its own; event files stay with their sub-runs."""
    events = [p for p in parts if p.module == "tensorboard"]
    rest = [[p] for p in parts if p.module != "tensorboard"]
    return [events, *rest] if events else rest


def _with_logs_inside(groups: dict[Path, list[Found]], subruns: Mapping[Path, Path]) -> dict[Path, list[Found]]:
    """Add to a run's folder what a framework logged in a folder inside it (``OUT/runs/<date>``)."""
    inside: dict[Path, list[Path]] = {}
    for place in groups:
        for folder in (place, place.parent):
            if folder.name in _INSIDE and (above := folder.parent) in groups and above != place:
                inside.setdefault(above, []).append(place)
                break
    out = dict(groups)
    for above, places in inside.items():
        parts = [p for place in (above, *places) for p in out.get(place, [])]
        if above in out and len(places) <= _TOGETHER and _one_training(groups[above], subruns):
            for place in places:
                out.pop(place, None)
            out[above] = parts
    return out


def _name_of(root: Path, home: Path, place: Path, alone: bool) -> str:
    """Name of a run below the root: its folder, and its file where the folder does not tell."""
    if home == root and home != place:
        return home.stem or home.name
    top, here = os.path.join(root, ""), os.fspath(place)  # pathlib's own way of this is felt with thousands of runs
    if here.startswith(top):
        folder = here[len(top) :].replace(os.sep, "/")
    else:
        folder = place.relative_to(root).as_posix() if place.is_relative_to(root) else place.resolve().name or "run"
    stem = home.stem if home != place else ""
    if stem and not (alone and (_PLAIN_STEMS.fullmatch(stem) or home.suffix == ".wandb")):
        return stem if folder == "." else f"{folder}/{stem}"
    return folder if folder != "." else (place.resolve().name or "run")


def _named_above(root: Path, sources: list[RunSource]) -> list[RunSource]:
    """The sources, logs of the monitor called after the folder above theirs unless another run has that name.

    A lone log at the top of the root is called after the folder that the root is; beside others it keeps its name.
    """
    short: dict[int, str] = {}
    for i, source in enumerate(sources):
        if source.path.name != _OF_THE_MONITOR or not source.single or source.failure:
            continue
        above = source.path.parent
        if above != root and root in above.parents:
            short[i] = above.relative_to(root).as_posix()
        elif len(sources) == 1:
            short[i] = above.resolve().name or source.name
    taken = {s.name for i, s in enumerate(sources) if i not in short}
    return [replace(s, name=short[i]) if short.get(i, s.name) not in taken else s for i, s in enumerate(sources)]


def _named(runs: list[Run], source: RunSource) -> list[Run]:
    """The runs of one source with names that are unique among them."""
    if len(runs) == 1:
        return [replace(runs[0], name=source.name)]
    used: set[str] = set()
    last = source.name.rpartition("/")[2]
    out = []
    for run in runs:
        own = run.name.removeprefix(last).lstrip("/") or run.source
        name = source.names.get(run.path) or f"{source.name}/{own}"
        out.append(replace(run, name=unique(name, used)))
    return out


def unique(name: str, used: set[str]) -> str:
    """The name, with a number where it is taken."""
    candidate, n = name, 1
    while candidate in used:
        n += 1
        candidate = f"{name} ({n})"
    used.add(candidate)
    return candidate


def _nothing_found(root: Path, seen: Survey) -> str:
    looked = (
        "TensorBoard event files, CSV, JSON and JSON-lines logs, HF trainer_state.json, Keras histories, W&B, MLflow, "
        "DVCLive, ClearML and Trackio stores, text logs"
    )
    if root.is_file():
        return f"{root}: not a training log that fitdoctor reads; it knows {looked}"
    if not seen.files:
        return f"{root}: the folder is empty; expected {looked}"
    common = sorted(seen.suffixes.items(), key=lambda item: -item[1])[:3]
    kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in common)
    among = f"{_count(seen.files, 'file')} in {_count(seen.folders, 'folder')} ({kinds})"
    text = f"{root}: no training log among {among}; looked for {looked}"
    if seen.refused:
        nearest = ", ".join(str(path.relative_to(root)) for path in seen.refused)
        text += f"; nearest are {nearest}, which hold no table of a loss or metric over steps or epochs"
    if seen.unreadable:
        path, why = seen.unreadable[0]
        text += f"; {len(seen.unreadable)} could not be opened, first {path}: {why}"
    return text


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


# --- what became of the tags -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TagUse:
    """What one tag of a log was taken for.

    Attributes:
        run: name of the run.
        tag: as logged.
        signal: the signal, or None when the tag was left out.
        per: "step", "epoch" or "".
        points: how many points it has.
        why: why it was left out, or "".
    """

    run: str
    tag: str
    signal: Signal | None
    per: Per
    points: int
    why: str = ""


def describe(source: RunSource) -> list[TagUse]:
    """What each tag of a source was taken for: first the signals, then what was left out and why."""
    from fitdoctor.readers.assemble import assemble_in_full

    told = [assemble_in_full(raw, source.overrides) for raw in source.raw_runs()]
    names = [run.name for run in _named([t.run for t in told], source)]
    out: list[TagUse] = []
    for name, one in zip(names, told, strict=True):
        out += [TagUse(name, s.tag, s.signal, s.per, len(s)) for s in one.run.series]
        out += [
            TagUse(name, f"{x.tag} ({x.statistic})" if x.statistic else x.tag, None, "", x.points, x.why)
            for x in one.left_out
        ]
    return out


__all__ = [
    "NoLogsFound",
    "Progress",
    "ReadError",
    "RunSource",
    "TagUse",
    "describe",
    "find_runs",
    "open_runs",
    "read_ahead",
    "unique",
]
