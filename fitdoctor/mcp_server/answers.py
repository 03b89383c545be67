"""Each question that an assistant may ask, answered as text of bounded length.

What is long comes in pages, and each page says how to get the next. Text of logs is made harmless and cut; numbers
that are not finite are the strings "NaN", "Infinity" and "-Infinity", as in a report.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, get_args

from fitdoctor.errors import ConfigError, FitdoctorError, ReadError
from fitdoctor.mcp_server.shelf import Judged, Shelf
from fitdoctor.reporters.harmless import one_line, several_lines

if TYPE_CHECKING:
    from fitdoctor.run import Run, Series

MOST_CHARACTERS = 20_000
"""Characters of one answer, give or take a row; some 5,000 tokens."""
MOST_ROWS = 100
MOST_POINTS = 500
MOST_SIDE = 16
"""Runs on one side of a comparison."""
PATIENCE = 20.0
"""Seconds after which a list is handed out as far as it has come."""
LONGEST = 300
"""Characters of one piece of text of a log."""

Verdict = Literal["any", "sick", "healthy", "cannot judge"]
Clock = Literal["auto", "step", "epoch", "time"]


def list_runs(
    shelf: Shelf, path: str = "", match: str = "*", verdict: Verdict = "any", cursor: str = "", limit: int = 50
) -> str:
    """A row per run, as JSON, and a cursor for the next page."""
    _within("limit", limit, 1, MOST_ROWS)
    if verdict not in get_args(Verdict):
        raise ConfigError(f"verdict: expected one of {', '.join(get_args(Verdict))}, got {one_line(verdict, 60)!r}")
    logs = shelf.logs(path)
    at, skip = _place(cursor)
    rows: list[dict[str, Any]] = []
    until = time.monotonic() + PATIENCE
    size = 0
    following = ""
    while at < len(logs) and not following:
        found = _rows(shelf, at, logs)[skip:]
        for i, row in enumerate(found):
            if len(rows) >= limit or size > MOST_CHARACTERS:
                following = f"{at}.{skip + i}"
                break
            if fnmatchcase(row["run"], match) and verdict in ("any", row["verdict"]):
                rows.append(row)
                size += len(json.dumps(row, ensure_ascii=False))
        at, skip = at + 1, 0
        if not following and at < len(logs) and (len(rows) >= limit or time.monotonic() > until):
            following = f"{at}.0"
    told: dict[str, Any] = {"runs": rows, "logs": len(logs), "next_cursor": following or None}
    if shelf.failures and not path:
        told["without_runs"] = [one_line(f, LONGEST) for f in shelf.failures]
    return _json(told)


def get_report(shelf: Shelf, run: str, offset: int = 0) -> str:
    """The report on a run, as Markdown."""
    from fitdoctor.reporters import markdown

    judged = shelf.find(run)
    head = "The run is still being written; rules that need its end were left out.\n\n" if judged.growing else ""
    return _page(head + markdown.render([judged.report]), offset)


def get_finding(shelf: Shelf, run: str, rule: str = "", number: int = 1, points: int = 60) -> str:
    """One finding with its evidence and remedies, as JSON; the root cause where no rule is named."""
    from fitdoctor import catalogue

    _within("points", points, 4, 200)
    report = shelf.find(run).report
    name = catalogue.find_entry(rule).name if rule else (report.diagnoses[0].root.rule if report.diagnoses else "")
    told = report.to_dict()
    found = [f for o in told["outcomes"] for f in o["findings"] if f["rule"] == name]
    if not found:
        raise ReadError(_why_no_finding(told, name))
    _within("number", number, 1, len(found))
    finding = found[number - 1]
    for evidence in finding["evidence"]:
        evidence["points"] = [[s, _number(float(v))] for s, v in _thinned(evidence["points"], points)]
    roots = [d["root"] for d in told["diagnoses"]]
    causes = [d["root"] for d in told["diagnoses"] if name in d["explains"]]
    head = {"run": told["run"], "number": number, "of": len(found), "root_cause": name in roots, "explained_by": causes}
    return _json({**head, **finding})


def get_series(
    shelf: Shelf, run: str, quantity: str = "", split: str = "train", layer: str = "", first: int | None = None,
    last: int | None = None, points: int = 100, offset: int = 0,
) -> str:  # fmt: skip
    """A logged series between two steps, thinned so that no spike is lost; without a quantity, what was logged."""
    from fitdoctor.run import thin

    _within("points", points, 4, MOST_POINTS)
    _within("offset", offset, 0, 10**9)
    judged = shelf.find(run)
    logged = shelf.run(judged)
    if not quantity:
        return _json({"run": _text(logged.name), **_inventory(logged, offset)})
    series = _the_series(logged, quantity, split, layer)
    part = series.between(
        series.span.first if first is None else _step(first), series.span.last if last is None else _step(last)
    )
    finite = part.finite.values
    told = thin(part, points)
    return _json(
        {
            "run": _text(logged.name),
            "signal": _text(str(part.signal)),
            "unit": part.signal.quantity.unit,
            "tag": _text(part.tag),
            "step_unit": logged.step_unit,
            "steps": [part.span.first, part.span.last] if len(part) else None,
            "points_in_log": len(part),
            "not_finite": len(part) - len(finite),
            "min": _number(float(finite.min())) if len(finite) else None,
            "max": _number(float(finite.max())) if len(finite) else None,
            "thinned": len(told) < len(part),
            "points": [[step, _number(value)] for step, value in told],
        }
    )


def explain_rule(rule: str = "", offset: int = 0) -> str:
    """The manual page of a rule or probe, or the list of all, as Markdown."""
    from fitdoctor import catalogue, manual

    if rule:
        return _page(manual.as_markdown([catalogue.find_entry(rule)]), offset)
    lines = ["| code | rule | what it finds |", "|---|---|---|"]
    lines += [f"| {entry.code} | {entry.name} | {entry.summary} |" for entry in catalogue.entries()]
    return _page("\n".join(lines) + "\n", offset)


def compare_runs(
    shelf: Shelf, before: Sequence[str], after: Sequence[str], metric: str = "", by: Clock = "auto", offset: int = 0
) -> str:
    """What changed between two sides of runs, and whether it helped, as Markdown."""
    from fitdoctor.compare import compare, markdown
    from fitdoctor.compare.judge import find_signal

    if by not in get_args(Clock):
        raise ConfigError(f"by: expected one of {', '.join(get_args(Clock))}, got {one_line(by, 60)!r}")
    for name, side in (("before", before), ("after", after)):
        if not 1 <= len(side) <= MOST_SIDE:
            raise ConfigError(f"{name}: expected 1 to {MOST_SIDE} runs, got {len(side)}; give names as list_runs does")
    runs = [[shelf.run(shelf.find(name)) for name in side] for side in (before, after)]
    found = compare(
        *runs,
        clock=None if by == "auto" else by,
        metric=find_signal(metric) if metric else None,
        config=shelf.config,
    )
    return _page(markdown.render(found), offset)


# --- pieces -------------------------------------------------------------------------------------------------


def _rows(shelf: Shelf, at: int, logs: Sequence[Any]) -> list[dict[str, Any]]:
    """A row for each run of a log; of one that may not or cannot be read, a row that says so."""
    log = logs[at]
    try:
        return [_row(judged) for judged in shelf.judged(log)]
    except FitdoctorError as error:
        return [{"run": _text(log.name), "verdict": "cannot judge", "message": one_line(str(error), LONGEST)}]


def _row(judged: Judged) -> dict[str, Any]:
    report = judged.report
    row: dict[str, Any] = {"run": _text(report.run), "verdict": report.verdict}
    if report.verdict == "sick" and report.diagnoses:
        root = report.diagnoses[0].root
        row |= {"root_cause": root.rule, "severity": root.severity.value, "message": _text(root.message)}
    if report.steps is not None:
        row["steps"] = [report.steps.first, report.steps.last]
    row["source"] = _text(report.source)
    if judged.growing:
        row["growing"] = True
    return row


def _why_no_finding(told: dict[str, Any], name: str) -> str:
    if not name:
        return f"expected a run with findings, got {_text(told['run'])!r}, which has none (verdict: {told['verdict']})"
    status = next(((o["status"], o["why"]) for o in told["outcomes"] if o["rule"] == name), ("not judged", ""))
    known = sorted({f["rule"] for o in told["outcomes"] for f in o["findings"]})
    why = f" ({one_line(status[1], LONGEST)})" if status[1] else ""
    return f"{name}: no finding of that rule, which was {status[0]}{why}; findings are of: {', '.join(known) or 'none'}"


def _inventory(run: Run, offset: int) -> dict[str, Any]:
    """What was logged, a page of it."""
    logged = [s for s in run.series if len(s)]
    rows: list[dict[str, Any]] = []
    size = 0
    for series in logged[offset : offset + MOST_ROWS]:
        rows.append(
            {
                "quantity": series.signal.quantity.name,
                "split": series.signal.split,
                "layer": _text(series.signal.layer),
                "per": series.per,
                "points": len(series),
                "steps": [series.span.first, series.span.last],
            }
        )
        size += len(str(rows[-1]))
        if size > MOST_CHARACTERS:
            break
    more = offset + len(rows)
    return {"series": rows, "of": len(logged), "next_offset": more if rows and more < len(logged) else None}


def _the_series(run: Run, quantity: str, split: str, layer: str) -> Series:
    from fitdoctor.signals import QUANTITIES

    series = run.get(QUANTITIES[quantity], split, layer) if quantity in QUANTITIES else None
    if series is not None and len(series):
        return series
    has = list(dict.fromkeys(str(s.signal) for s in run.series if len(s)))
    wanted = " ".join(part for part in (split, quantity, layer) if part)
    raise ReadError(
        f"expected a series that {one_line(run.name, 120)!r} holds, got {one_line(wanted, 120)!r}; it holds "
        f"{', '.join(_text(h) for h in has[:20]) or 'none'}{f' and {len(has) - 20} more' if len(has) > 20 else ''}; "
        "get_series without a quantity lists them"
    )


def _page(text: str, offset: int) -> str:
    """A part of a text, cut between lines, with a word on what is missing."""
    text = several_lines(text)
    _within("offset", offset, 0, max(0, len(text) - 1))
    part = text[offset : offset + MOST_CHARACTERS]
    end = offset + len(part)
    if end >= len(text):
        return part
    if (line := part.rfind("\n")) > MOST_CHARACTERS // 2:
        part = part[: line + 1]
        end = offset + line + 1
    return f"{part}\n[characters {offset} to {end} of {len(text)}; ask again with offset={end} for the rest]"


def _place(cursor: str) -> tuple[int, int]:
    """The log, and the run in it, at which a page begins."""
    if not cursor:
        return 0, 0
    log, dot, run = cursor.partition(".")
    if not (dot and log.isdecimal() and run.isdecimal() and log.isascii() and run.isascii() and len(cursor) < 30):
        raise ConfigError(f"cursor: expected next_cursor of the page before, got {one_line(cursor, 60)!r}")
    return int(log), int(run)


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ConfigError(f"{name}: expected a number from {least} to {most}, got {value}")


def _step(step: int) -> int:
    """A step that fits into 64 bits."""
    return max(-(2**62), min(2**62, step))


def _text(text: str) -> str:
    return one_line(text, LONGEST)


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return float(f"{value:.6g}")  # six digits draw the same picture for half the tokens
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _thinned(points: list[Any], most: int) -> list[Any]:
    """At most so many of the points, the smallest and the largest of equal stretches among them."""
    kept = {0, len(points) - 1} if points else set()
    stretches = max(1, (most - 2) // 2)
    if len(points) > most:
        for i in range(stretches):
            part = range(i * len(points) // stretches, (i + 1) * len(points) // stretches)
            # What is not finite ("NaN") is an extreme, too.
            keys = {k: math.inf if isinstance(points[k][1], str) else points[k][1] for k in part}
            kept |= {min(keys, key=keys.__getitem__), max(keys, key=keys.__getitem__)}
        return [points[k] for k in sorted(kept)]
    return points


def _json(data: Any) -> str:
    """JSON without escape sequences in its texts."""
    return _bounded(json.dumps(_harmless(data), ensure_ascii=False, allow_nan=False))


def _harmless(data: Any) -> Any:
    if isinstance(data, str):
        return several_lines(data)
    if isinstance(data, dict):
        return {several_lines(str(key)): _harmless(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_harmless(value) for value in data]
    return data


def _bounded(text: str) -> str:
    """The last guard: an answer that grew beyond all pages is refused, not sent."""
    if len(text) > 4 * MOST_CHARACTERS:
        raise ReadError(
            f"expected an answer of at most {4 * MOST_CHARACTERS} characters, got {len(text)}; "
            "ask for fewer points or a smaller limit"
        )
    return text
