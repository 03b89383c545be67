"""What a notebook shows of a run, a finding and a report: complete, and no markup of anybody else's."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from fitdoctor import display
from fitdoctor.finding import Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.report import Diagnosis, Outcome, Report
from fitdoctor.run import Note, Run, Series, Span
from fitdoctor.signals import GRAD_NORM, LOSS, LR, Signal
from hypothesis import given
from hypothesis import strategies as st

HOSTILE = "<script>alert(1)</script>\"' onload=x & \u202e\x1b[31m \udcff"
VOID = {"br", "path", "line"}


class Checked(HTMLParser):
    """Fails on anything but the elements and attributes that display makes, and on what is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {
            "div", "b", "i", "bdi", "ul", "ol", "li", "pre", "span", "svg", "text", "path", "line", "br", "a",
        }  # fmt: skip
        assert not [name for name, _ in attrs if name.startswith("on") or name in ("href", "src")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def a_run(name: str = "lr 0.1") -> Run:
    steps = np.arange(100)
    series = [
        Series(Signal(LOSS), steps, 2 / (1 + steps)),
        Series(Signal(LOSS, "val"), steps[::10], np.r_[2 / (1 + steps[:90:10]), np.nan]),
        Series(Signal(LR), steps, np.full(100, 0.1)),
        *(Series(Signal(GRAD_NORM, layer=f"fc{i}"), steps, np.ones(100)) for i in range(3)),
    ]
    return Run(name, tuple(series), source="csv", notes=(Note("other", HOSTILE),), unmapped=(HOSTILE,))


def a_finding(text: str = "train loss rose 3x") -> Finding:
    points = (*((i, 1.0 + i) for i in range(50)), (50, math.inf))
    evidence = Evidence(Signal(LOSS, layer=text), Span(0, 50), text, text, points, ((20, text),))
    remedy = Remedy(text, code={"pytorch": f"lr = 0.1  # {text}"})
    return Finding(
        text, Severity.ERROR, Confidence.HIGH, Span(20, 50), (evidence,), (remedy,), rule="lr-too-high"
    )  # fmt: skip


def a_report(text: str = "train loss rose 3x") -> Report:
    finding = a_finding(text)
    outcome = Outcome("LRN001", "lr-too-high", "found", (finding,), vital=True)
    return Report(text, "", "csv", Span(0, 50), (outcome,), (Diagnosis(finding),), curves=finding.evidence)


def test_a_run_shows_its_losses_and_what_was_logged():
    page = Checked(a_run()._repr_html_())
    for words in ("lr 0.1", "steps 0-99", "csv", "train loss", "val loss", "lr", "grad_norm of 3 layers", "1 tags"):
        assert words in page.words.replace("step 0-99", "steps 0-99"), words


def test_a_finding_shows_evidence_and_remedies():
    page = Checked(a_finding()._repr_html_())
    for words in ("lr-too-high", "error", "high confidence", "from step 20", "train loss rose 3x", "lr = 0.1"):
        assert words in page.words, words


def test_a_report_shows_verdict_and_root():
    page = Checked(a_report()._repr_html_())
    for words in ("sick", "lr-too-high", "train loss rose 3x", "1 findings, 0 clean"):
        assert words in page.words, words


@pytest.mark.parametrize(
    "shown", [a_run(HOSTILE), a_finding(HOSTILE), a_report(HOSTILE)], ids=["run", "finding", "report"]
)
def test_hostile_text_is_shown_as_text(shown: Run | Finding | Report):
    page = Checked(shown._repr_html_())
    assert "<script>alert(1)</script>" in page.words
    assert not set(page.words) & set("\u202e\x1b\udcff")
    page.words.encode("utf-8")


@given(st.lists(st.tuples(st.integers(-(10**9), 10**9), st.floats()), max_size=60), st.text())
def test_any_curve_can_be_drawn(points: list[tuple[int, float]], label: str):
    points.sort(key=lambda p: p[0])
    page = Checked(display.chart([(label, points)], [(s, label) for s, _ in points[:2]]))
    assert "nan" not in display.chart([("a", [p for p in points if math.isfinite(p[1])])])
    assert bool(page.words) == bool(points)


def test_an_empty_run_says_so():
    assert "no measurements" in Checked(Run("r", ())._repr_html_()).words


class TestFigures:
    def test_a_run_is_plotted(self):
        pytest.importorskip("matplotlib")
        figure = a_run().plot("loss")
        (axis,) = figure.axes
        assert [line.get_label() for line in axis.get_lines()[:2]] == ["train loss", "val loss"]
        assert axis.get_yscale() == "log"
        assert figure._repr_png_().startswith(b"\x89PNG")
        assert a_run().plot("loss", log=False).axes[0].get_yscale() == "linear"

    def test_all_layers_of_a_quantity_are_plotted(self):
        pytest.importorskip("matplotlib")
        assert len(a_run().plot("grad_norm").axes[0].get_lines()) == 3

    def test_what_was_not_logged_cannot_be_plotted(self):
        with pytest.raises(ValueError, match=r"has no 'accuracy' to plot; it has loss, lr, grad_norm"):
            a_run().plot("accuracy")

    def test_a_report_is_plotted_with_its_marks(self):
        pytest.importorskip("matplotlib")
        report = a_report()
        rate = replace(report.curves[0], signal=Signal(LR), points=((0, 0.1), (50, 0.1)))
        figure = replace(report, curves=(*report.curves, rate)).plot()
        assert [a.get_ylabel() for a in figure.axes] == ["loss", "lr"]
        assert [t.get_text() for t in figure.axes[1].texts] == ["train loss rose 3x"]
        assert figure.get_suptitle() == "train loss rose 3x: sick: lr-too-high"

    def test_odd_names_and_values_are_plotted(self):
        pytest.importorskip("matplotlib")
        report = a_report(r"$\frac{1$ <b> _x^")
        assert report.plot()._repr_png_()
        assert Report("r", "", "", None, (), ()).plot()._repr_png_()
        values = [np.nan, np.inf, -np.inf, 1e300, -1e300]
        assert Run("r", (Series(Signal(LOSS), np.arange(5), values),)).plot()._repr_png_()

    def test_pyplot_is_left_alone(self):
        pytest.importorskip("matplotlib")
        import subprocess
        import sys

        code = (
            "import sys; from fitdoctor.figures import Panel, draw;"
            "draw([Panel('loss', [('a', [(0, 1.0), (1, 2.0)])])])._repr_png_();"
            "sys.exit('matplotlib.pyplot' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
