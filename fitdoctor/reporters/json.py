"""Report -> JSON, whose form docs/report.schema.json describes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fitdoctor.report import Report, json_pieces


def stream(reports: Iterable[Report], *, fitdoctor: str = "") -> Iterator[str]:
    """The JSON in pieces, one per report.

    Args:
        reports: what to write.
        fitdoctor: version that writes it.
    """
    return json_pieces(reports, fitdoctor=fitdoctor)


def render(reports: Iterable[Report], *, fitdoctor: str = "") -> str:
    """The whole JSON document."""
    return "".join(stream(reports, fitdoctor=fitdoctor))
