"""Log files to runs: `open_runs(path)` finds every run below a path, in any mixture of formats.

survey (which files) -> RunSource (what is read together) -> RawRun -> assemble -> Run
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from fitdoctor.errors import FitdoctorError, NoLogsFound, ReadError
from fitdoctor.readers.grouping import apart, one_training, with_logs_inside
from fitdoctor.readers.naming import name_of, named, named_above, nothing_found, unique

if TYPE_CHECKING:
    from fitdoctor.readers.raw import RawRun
    from fitdoctor.readers.remote import Origin
    from fitdoctor.readers.tags import Overrides
    from fitdoctor.readers.tensorboard import EventFiles
    from fitdoctor.readers.walk import Found, Survey
    from fitdoctor.run import Per, Run
    from fitdoctor.signals import Signal

Progress = Callable[[int, int, str], None]
"""Called with the number of sources done, their total, and the name of the one that comes next."""


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
        origin: where its files come from, if they are remote.
    """

    name: str
    path: Path
    source: str
    parts: tuple[Found, ...]
    subruns: Mapping[Path, Path]
    overrides: Overrides = ()
    names: Mapping[str, str] = field(default_factory=dict)
    failure: str = ""
    origin: Origin | None = None

    @property
    def where(self) -> str:
        """The path, or the URL that it stands for."""
        return str(self.path) if self.origin is None else self.origin.url_of(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are read."""
        return tuple(f for part in self.parts for f in part.files)

    @property
    def single(self) -> bool:
        """Whether it is known, without reading, to hold exactly one run."""
        homes = {part.home for part in self.parts if part.home not in self.subruns}
        return bool(self.failure) or (len(homes) <= 1 and all(part.module == "tensorboard" for part in self.parts))

    def fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        """Name, size and time of change of every file; a different one means that there is more to read."""
        if self.origin is not None:
            return self.origin.fingerprint()
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
        runs = named(runs, self)
        return runs if self.origin is None else [self.origin.told_of(run) for run in runs]

    def moved(self) -> RunSource:
        """The source as it stands on this machine; one with an origin may have been found on another."""
        if self.origin is None or (origin := self.origin.moved()).root == self.origin.root:
            return self
        old, new = self.origin.root, origin.root

        def here(path: Path) -> Path:
            return new / path.relative_to(old)

        return replace(
            self,
            path=here(self.path),
            parts=tuple(replace(p, home=here(p.home), files=tuple(map(here, p.files))) for p in self.parts),
            subruns={here(a): here(b) for a, b in self.subruns.items()},
            names={str(here(Path(path))): name for path, name in self.names.items()},
            origin=origin,
        )

    def raw_runs(self, through: EventFiles | None = None) -> list[RawRun]:
        """What the readers find, sub-runs merged into their runs."""
        if self.origin is None:
            return self._raw_runs(through)
        try:
            self.origin.fetch()
            return self._raw_runs(through)
        except ReadError as error:
            return [_unread(self.path, self.source, f"not read: {error}")]
        finally:
            self.origin.release()

    def _raw_runs(self, through: EventFiles | None) -> list[RawRun]:
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
    keep: bool = True,
) -> Iterator[Run]:
    """Read every run below a path, one after the other, in natural order of their names.

    Args:
        path: a log file, a run's folder, or a folder of many; or the URL of one, such as ``s3://bucket/logs``.
        tags: tag or glob -> ``quantity``, ``quantity:split``, ``quantity:split:layer`` or ``ignore``.
        match: glob that a run's name must match.
        progress: called before each source is read.
        keep: whether files fetched from a URL stay in the user's cache folder.

    Yields:
        The runs. A log that could not be read comes as a run without series whose note says why.

    Raises:
        ReadError: if the path does not exist, or the URL cannot be listed.
        NoLogsFound: if nothing below it is a training log.
        ConfigError: if `tags` names a quantity that does not exist.
    """
    sources = find_runs(path, tags=tags, keep=keep)
    if match != "*":
        sources = [s for s in sources if not s.single or fnmatchcase(s.name, match)]
    used: set[str] = set()
    remote = any(source.origin is not None for source in sources)
    through = None if remote else read_ahead(sources)
    for done, source in enumerate(_fetched(sources) if remote else sources):
        if progress is not None:
            progress(done, len(sources), source.name)
        for run in source.load(through):
            name = unique(run.name, used)
            if fnmatchcase(name, match):
                yield run if name == run.name else replace(run, name=name)
    if progress is not None:
        progress(len(sources), len(sources), "")


def _fetched(sources: Sequence[RunSource]) -> Iterator[RunSource]:
    from fitdoctor.readers.remote import in_turn

    return in_turn(sources)


def read_ahead(sources: Sequence[RunSource]) -> EventFiles | None:
    """What reads the event files of these sources faster than one by one, if they are loaded in this order."""
    from fitdoctor.readers.tensorboard import ReadAhead, in_order

    parts = [part for source in sources for part in source.parts if part.module == "tensorboard"]
    return ReadAhead(path for part in parts for path in in_order(part.files)) if len(parts) > 1 else None


def find_runs(
    path: str | Path, *, tags: Mapping[str, str] | None = None, links: bool = True, keep: bool = True
) -> list[RunSource]:
    """Find the logs below a path without reading them.

    Args:
        path: a log file, a run's folder, or a folder of many; or the URL of one.
        tags: what the user says about tags, as in `open_runs`.
        links: follow symbolic links that lead out of the path.
        keep: as in `open_runs`.

    Raises:
        ReadError: if the path does not exist, or the URL cannot be listed.
        NoLogsFound: if nothing below it is a training log.
        ConfigError: if `tags` names a quantity that does not exist.
    """
    from fitdoctor.readers.tags import parse_overrides
    from fitdoctor.readers.walk import survey

    overrides = parse_overrides(tags)
    if isinstance(path, str) and "://" in path:
        from fitdoctor.readers.urls import is_url, local_path

        if (local := local_path(path)) is not None:
            path = local
        elif is_url(path):
            return _find_remote(path, overrides, keep=keep)
    root = Path(path)
    seen = survey(root, links=links)
    if not seen.found:
        raise NoLogsFound(nothing_found(root, seen))
    return _sources(root, seen, overrides)


def _find_remote(url: str, overrides: Overrides, *, keep: bool) -> list[RunSource]:
    from fitdoctor.readers.remote import tree_at
    from fitdoctor.readers.walk import survey

    tree = tree_at(url, keep=keep)
    seen = survey(tree.root, tree=tree)
    if not seen.found:
        raise NoLogsFound(tree.origin.told(nothing_found(tree.root, seen)))
    return [replace(source, origin=tree.origin_of(source.parts)) for source in _sources(tree.root, seen, overrides)]


def _sources(root: Path, seen: Survey, overrides: Overrides) -> list[RunSource]:
    from fitdoctor.readers.subruns import parents_of
    from fitdoctor.readers.walk import natural, reader

    found = seen.found
    events = {f.home: f for f in found if f.module == "tensorboard"}
    subruns = parents_of(events)
    groups: dict[Path, list[Found]] = {}
    for f in found:
        groups.setdefault(subruns.get(f.home, f.home) if f.module == "tensorboard" else f.place, []).append(f)
    groups = with_logs_inside(groups, subruns)
    sources: list[RunSource] = []
    for place, parts in groups.items():
        together = [parts] if one_training(parts, subruns) else apart(parts, subruns)
        for several in together:
            first = several[0]
            single_file = len(several) == 1 and first.home != place
            name = name_of(root, first.home if single_file else place, place, alone=len(together) == 1)
            formats = ", ".join(dict.fromkeys(reader(p.module).SOURCE for p in several))
            own = {p.home: subruns[p.home] for p in several if p.home in subruns}
            elsewhere = {
                str(path): name_of(root, p.home, p.place, alone=True)
                for p in several
                if p.place != place and p.home not in own
                for path in (p.home, *p.files)
            }
            path = first.home if single_file else place
            sources.append(RunSource(name, path, formats, tuple(several), own, overrides, elsewhere))
    for path, why in seen.unreadable:
        name = name_of(root, path, path, alone=True)
        sources.append(RunSource(name, path, "unreadable", (), {}, overrides, failure=f"{path}: not read: {why}"))
    sources = named_above(root, sources)
    sources.sort(key=lambda s: natural(s.name))
    used: set[str] = set()
    names = [unique(s.name, used) for s in sources]
    return [s if s.name == name else replace(s, name=name) for s, name in zip(sources, names, strict=True)]


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
    names = [run.name for run in named([t.run for t in told], source)]
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
