"""Report -> SARIF 2.1.0, the exchange format of code scanning (OASIS standard of 2020)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from fitdoctor.finding import Evidence, Finding, Severity
from fitdoctor.report import Outcome, Report
from fitdoctor.reporters import wording
from fitdoctor.reporters.harmless import one_line

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}


def render(reports: Iterable[Report], *, fitdoctor: str = "", manuals: Mapping[str, str] | None = None) -> str:
    """The whole SARIF document.

    Args:
        reports: what to write.
        fitdoctor: version that writes it.
        manuals: rule code -> manual page, for the texts of the rules; reports do not hold them.
    """
    rules: dict[str, dict[str, Any]] = {}
    results: list[dict[str, Any]] = []
    notifications: list[dict[str, Any]] = []
    for report in reports:
        for outcome in report.outcomes:
            if outcome.code not in rules:
                rules[outcome.code] = _rule(outcome, (manuals or {}).get(outcome.code, ""))
            index = list(rules).index(outcome.code)
            results += [_result(report, outcome, finding, index) for finding in outcome.findings]
            if outcome.status in ("crashed", "skipped"):
                notifications.append(_notification(report, outcome, index))
    driver = {
        "name": "fitdoctor",
        "version": fitdoctor or "0",
        "rules": list(rules.values()),
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notifications}],
        "results": results,
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(outcome: Outcome, manual: str) -> dict[str, Any]:
    name = "".join(part.capitalize() for part in outcome.rule.split("-"))
    rule: dict[str, Any] = {"id": outcome.code, "name": name, "properties": {"rule": outcome.rule}}
    summary, _, rest = manual.partition("\n")
    rule["shortDescription"] = {"text": summary.strip() or outcome.rule}
    if rest.strip():
        rule["fullDescription"] = {"text": manual.strip()}
        rule["help"] = {"text": rest.strip()}
    return rule


def _result(report: Report, outcome: Outcome, finding: Finding, index: int) -> dict[str, Any]:
    identity = f"{outcome.code}\0{report.run}\0{finding.onset}".encode("utf-8", "replace")
    return {
        "ruleId": outcome.code,
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {"text": _message(report, finding)},
        "locations": [_location(report)],
        "partialFingerprints": {"fitdoctor/v1": hashlib.sha256(identity).hexdigest()},
        "properties": {
            "confidence": str(finding.confidence),
            "steps": [finding.span.first, finding.span.last],
            "run": one_line(report.run),
            "remedies": [one_line(r.title) for r in finding.remedies],
        },
    }


def _message(report: Report, finding: Finding) -> str:
    sentences = [f"{one_line(report.run)}: {one_line(finding.message)} ({wording.standing(report, finding)})."]
    sentences += [_seen(e) for e in finding.evidence[:1]]
    sentences += [f"What to do: {one_line(r.title)}." for r in finding.remedies[:1]]
    return _unlinked(" ".join(sentences))


def _unlinked(text: str) -> str:
    """In a SARIF message square brackets begin a link; a backslash takes that from them."""
    return re.sub(r"([\\\[\]])", r"\\\1", text)


def _seen(evidence: Evidence) -> str:
    expected = f", expected {one_line(evidence.expected)}" if evidence.expected else ""
    return f"{one_line(str(evidence.signal))}: {one_line(evidence.observed)}{expected}."


def _location(report: Report) -> dict[str, Any]:
    return {
        "physicalLocation": {"artifactLocation": {"uri": _uri(report.path or report.run or "run")}},
        "logicalLocations": [{"name": one_line(report.run) or "run", "kind": "module"}],
    }


def _uri(path: str) -> str:
    """A relative path as a relative URI reference, an absolute one as a file: URI; a URL as it is."""
    if _URL.match(path):
        return quote(path.encode("utf-8", "replace"), safe=":/@")
    text = quote(PurePath(path).as_posix().encode("utf-8", "replace"), safe="/")
    return f"file://{text}" if text.startswith("/") else text


def _notification(report: Report, outcome: Outcome, index: int) -> dict[str, Any]:
    crashed = outcome.status == "crashed"
    verb = "crashed" if crashed else "could not judge"
    return {
        "level": "error" if crashed else "note",
        "message": {"text": _unlinked(f"{outcome.rule} {verb} {one_line(report.run)}: {one_line(outcome.why)}")},
        "associatedRule": {"id": outcome.code, "index": index},
    }
