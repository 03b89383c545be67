"""The runs below TensorBoard's folders: found again and again, judged one by one in the background.

A run is judged when its files have changed since it was judged last (their names, sizes and times say so), those
that somebody looks at first. Nothing happens while nobody looks, and the thread rests after each run, so that
TensorBoard itself stays quick. What is kept of a run is its row and its packed sheet.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fitdoctor.errors import FitdoctorError
from fitdoctor.reporters.harmless import one_line
from fitdoctor.reporters.sheet import handle, row, sheet
from fitdoctor.tensorboard_plugin.places import Place

if TYPE_CHECKING:
    from fitdoctor.readers import RunSource
    from fitdoctor.readers.tensorboard import Memory

LOOK_EVERY = 4.0
"""Seconds between two walks over the folders, at least."""

LOOK_SHARE = 0.05
"""Share of the time that walks may take: a walk of two seconds comes every forty."""

GROWS = 60.0
"""Seconds since the last writing during which a run counts as still being written."""

PATIENCE = 10.0
"""A growing run is judged again after this many times what judging it took."""

ASKED = 60.0
"""Seconds after which a tab that has asked nothing is gone."""

REST = 0.5
"""Rest after a run is judged, as a share of what that took."""

State = tuple[tuple[tuple[str, int, int], ...], bool]
"""Name, size and time of change of the files of a run, and whether it is being written."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Shown:
    """A run as the tab shows it."""

    number: int
    version: int
    row: dict[str, Any]
    packed: bytes | None = None


@dataclass(slots=True)
class _Watched:
    """Logs that are read together, and what became of them."""

    place: Place
    source: RunSource
    state: State
    judged: State | None = None
    not_before: float = 0.0
    memory: Memory | None = None
    shown: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.place.run(self.source.name)


class LogWatch:
    """What is known of the runs below some folders.

    Args:
        places: the folders.
        remote: what was given and cannot be read.
        clock: the time of day in seconds, by which files are told to be growing.
    """

    def __init__(
        self, places: Sequence[Place], remote: Sequence[str] = (), clock: Callable[[], float] = time.time
    ) -> None:
        self._places = tuple(places)
        self._remote = tuple(remote)
        self._clock = clock
        self._session = secrets.token_hex(8)  # tells a tab that versions begin anew
        self._lock = threading.Lock()  # held for moments only, never while files are read
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._version = 0
        self._shown: dict[str, _Shown] = {}
        self._gone: dict[str, int] = {}  # runs that are no more, and the version in which they went
        self._wanted: dict[str, None] = {}
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._trouble: list[str] = []
        self._looked = False
        self._asked = float("-inf")
        self._next_look = float("-inf")

    # --- what a tab asks -------------------------------------------------------------------------------------

    def rows(self, session: str = "", since: int = 0, most: int = 500, wanted: Iterable[int] = ()) -> dict[str, Any]:
        """What is new since a version: at most `most` rows, the oldest news first.

        Args:
            session: what the last answer said; versions of another session mean nothing.
            since: version of the last answer.
            most: rows in one answer.
            wanted: numbers of the runs on the screen, to be judged first.
        """
        self._attend()
        with self._lock:
            if session != self._session:
                since = 0
            numbers = set(wanted)
            if numbers:
                self._wanted.update((h, None) for h, s in self._shown.items() if s.number in numbers)
            news = sorted((s.version, h) for h, s in self._shown.items() if s.version > since)
            news += sorted((v, h) for h, v in self._gone.items() if v > since)
            news.sort()
            some = news[:most]
            return {
                "session": self._session,
                "version": some[-1][0] if len(news) > most else self._version,
                "more": len(news) > most,
                "rows": [self._told(version, run) for version, run in some],
                "looked": self._looked,
                "total": len(self._shown),
                "waiting": sum(1 for s in self._shown.values() if not s.row.get("verdict") and not s.row.get("failed")),
                "trouble": list(self._trouble),
                "places": [one_line(str(p.path)) for p in self._places],
            }

    def sheet(self, run: str) -> bytes | None:
        """The sheet of a run as gzip of JSON, or None if it has not been judged yet."""
        self._attend()
        with self._lock:
            found = self._shown.get(run)
            if found is None:
                return None
            self._wanted[run] = None
            return found.packed

    def _attend(self) -> None:
        """Somebody looks: keep the thread going."""
        with self._lock:
            self._asked = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="fitdoctor", daemon=True)
                self._thread.start()
        self._wake.set()

    # --- what the thread does --------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            try:
                rest = self._turn()
            except Exception:  # the tab must not end because of one odd moment
                _log.exception("fitdoctor: looking at the logs failed")
                rest = LOOK_EVERY
            self._wake.clear()
            if time.monotonic() - self._asked > ASKED:
                self._wake.wait()
            else:
                time.sleep(rest)

    def _turn(self) -> float:
        """Look if it is time, or judge one; how long to rest then, in seconds."""
        if time.monotonic() >= self._next_look:
            began = time.monotonic()
            self.look()
            spent = time.monotonic() - began
            self._next_look = time.monotonic() + max(LOOK_EVERY, spent / LOOK_SHARE)
        began = time.monotonic()
        if self.judge_next():
            return min(0.5, REST * (time.monotonic() - began))
        return 0.25

    def look(self) -> None:
        """Walk over the folders: which logs are there, which are new, gone or growing."""
        from fitdoctor.readers import find_runs

        found: dict[tuple[str, str], _Watched] = {}
        trouble = [f"{where} is not on this machine; fitdoctor reads local files only" for where in self._remote]
        for place in self._places:
            try:
                for source in find_runs(place.path, links=False):
                    found[place.name, source.name] = _Watched(place, source, self._state(source))
            except FitdoctorError as error:
                trouble.append(one_line(str(error)))
            except OSError as error:
                trouble.append(one_line(f"{place.path}: {error.strerror or error}"))
        for key, new in found.items():
            if (old := self._watched.get(key)) is not None:
                old.source, old.state = new.source, new.state
                found[key] = old
        with self._lock:
            for key in self._watched.keys() - found.keys():
                self._drop(self._watched[key].shown)
            self._watched = found
            self._trouble = trouble
            self._looked = True
            for watched in found.values():
                if watched.judged is None and not watched.shown and watched.source.single:
                    watched.shown = [self._put(handle(watched.name), {}, None)]

    def judge_next(self) -> bool:
        """Judge the run that is due, those first that somebody looks at; whether there was one."""
        with self._lock:
            wanted = set(self._wanted)
        now = time.monotonic()
        due = [w for w in self._watched.values() if w.state != w.judged and now >= w.not_before]
        if not due:
            return False
        # A run on the screen, then one that nobody has seen, then one that has grown.
        one = min(due, key=lambda w: (wanted.isdisjoint(w.shown), w.judged is not None))
        state = self._state(one.source)  # taken before reading: what is written meanwhile is read the next time
        self._judge(one, growing=state[1])
        one.judged = one.state = state
        one.not_before = time.monotonic() + PATIENCE * (time.monotonic() - now)
        return True

    def _state(self, source: RunSource) -> State:
        """What tells whether a run has to be judged again: its files, and whether they are being written."""
        prints = source.fingerprint()
        newest = max((changed for _, _, changed in prints), default=0) / 1e9
        return prints, self._clock() - newest < GROWS

    def _judge(self, watched: _Watched, growing: bool) -> None:
        made: list[tuple[str, dict[str, Any], bytes | None]] = []
        try:
            if (outside := watched.place.strays(watched.source)) is not None:
                raise FitdoctorError(f"{outside.name} leads out of the log folder and is not read")
            made = list(self._sheets(watched, growing))
        except FitdoctorError as error:
            made = [(handle(watched.name), {"failed": one_line(str(error))}, None)]
        except Exception as error:  # one odd log must not keep the others from being judged
            _log.exception("fitdoctor: judging %r failed", watched.name)
            made = [(handle(watched.name), {"failed": one_line(f"{type(error).__name__}: {error}")}, None)]
        with self._lock:
            self._drop([name for name in watched.shown if name not in {m[0] for m in made}])
            watched.shown = [self._put(*one) for one in made]
            for name in watched.shown:
                self._wanted.pop(name, None)

    def _sheets(self, watched: _Watched, growing: bool) -> Iterable[tuple[str, dict[str, Any], bytes]]:
        from dataclasses import replace

        from fitdoctor.config import Config
        from fitdoctor.diagnose import diagnose, while_running
        from fitdoctor.readers.tensorboard import Memory

        if growing and watched.judged is not None and watched.memory is None:
            watched.memory = Memory()  # from now on only what is new is read
        elif not growing:
            watched.memory = None
        for run in watched.source.load(watched.memory):
            config = while_running(Config()) if growing and not run.finished else Config()
            report = diagnose(run, config=config, layers=True)
            report = replace(report, run=watched.place.run(report.run), path=self._below(watched.place, report.path))
            brief = {**row(report), "growing": growing and not run.finished}
            text = json.dumps({**sheet(report), "row": brief}, ensure_ascii=False, allow_nan=False)
            yield handle(report.run), brief, gzip.compress(text.encode("utf-8", "replace"), 3)

    def _below(self, place: Place, path: str) -> str:
        """A path as it stands below its folder."""
        try:
            return os.path.relpath(path, place.path) if path else ""
        except ValueError:
            return path

    # --- both, with the lock held ----------------------------------------------------------------------------

    def _told(self, version: int, name: str) -> dict[str, Any]:
        found = self._shown.get(name)
        return (
            {"run": name, "gone": True} if found is None else {**found.row, "version": version, "number": found.number}
        )

    def _put(self, name: str, brief: dict[str, Any], packed: bytes | None) -> str:
        self._version += 1
        old = self._shown.get(name)
        self._gone.pop(name, None)
        number = old.number if old else self._version
        if packed is None and brief.get("failed") and old is not None:
            packed = old.packed  # the last that could be read says more than nothing
            brief = {**old.row, **brief}
        self._shown[name] = _Shown(number, self._version, {"verdict": "", **brief, "run": name}, packed)
        return name

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            if self._shown.pop(name, None) is not None:
                self._version += 1
                self._gone[name] = self._version
