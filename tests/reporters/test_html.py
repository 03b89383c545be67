"""The HTML report as a file: inert, small, and holding what the report says."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64decode, b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from fitdoctor.layer_maps import MOST_COLUMNS, MOST_ROWS, layer_maps
from fitdoctor.report import Diagnosis, Report
from fitdoctor.reporters import html
from fitdoctor.reporters.script import joined, static
from fitdoctor.reporters.sheet import handle, row, sheet
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import GRAD_NORM, LOSS, LR, UPDATE_RATIO, Signal
from hypothesis import given
from hypothesis import strategies as st

ANYTHING = st.text(alphabet=st.characters())


class Page(HTMLParser):
    """The elements of a page, and the text of its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._inside, data))

    def data(self) -> list[dict]:
        """The rows, with their unpacked sheets."""
        place = [i for i, (tag, a) in enumerate(self.tags) if a.get("class") == "run-data"]
        rows = [json.loads(text) for tag, text in self.texts if tag == "script" and text.startswith("{")]
        assert len(rows) == len(place)
        for r in rows:
            r["sheet"] = json.loads(gzip.decompress(b64decode(r.pop("packed"))))
        return rows


def test_the_data_are_the_rows_and_sheets_of_the_runs(sick: Report, healthy: Report, blind: Report):
    rows = Page(html.render([sick, healthy, blind])).data()
    assert [r["verdict"] for r in rows] == ["sick", "healthy", "cannot judge"]
    assert rows[0]["root"] == "lr-too-high"
    for r, report in zip(rows, (sick, healthy, blind), strict=True):
        assert r.pop("sheet") == json.loads(json.dumps(sheet(report)))
        assert r == json.loads(json.dumps(row(report)))


def test_only_the_script_and_the_style_in_it_may_run(sick: Report):
    text = html.render([sick])
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    style, script = static("style.css"), joined("page.js")

    def digest(part: str) -> str:
        return b64encode(sha256(part.encode()).digest()).decode()

    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest(style)}'",
        f"script-src 'sha256-{digest(script)}'",
        "img-src data:",
    ]
    assert f"<style>{style}</style>" in text
    assert f'<script type="module">{script}</script>' in text
    assert "</script" not in script
    assert "</style" not in style


def test_hostile_text_adds_no_element(hostile: Report, sick: Report):
    pages = Page(html.render([sick])), Page(html.render([hostile]))
    tags = [[tag for tag, _ in page.tags] for page in pages]
    assert tags[0] == tags[1]
    (found,) = pages[1].data()
    assert "<script>alert(1)</script>" in found["run"], "shown as it is"
    control = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

    def texts(data: object):
        if isinstance(data, str):
            yield data
        elif isinstance(data, dict):
            yield from (t for k, v in data.items() for t in (k, *texts(v)))
        elif isinstance(data, list):
            yield from (t for v in data for t in texts(v))

    assert not [t for t in texts(found) if control.search(t.replace("\n", ""))]


@given(ANYTHING, ANYTHING)
def test_handles_are_harmless_and_tell_runs_apart(a: str, b: str):
    one, two = handle(a), handle(b)
    assert one == " ".join(one.split())
    assert one.encode("utf-8")
    assert (one == two) == (a == b) or a.encode("utf-8", "replace") == b.encode("utf-8", "replace")


def test_one_run_stays_below_a_megabyte(sick: Report):
    """With the largest layer maps there can be, of every quantity that layers have in the hooks."""
    rng = np.random.default_rng(0)
    steps = np.arange(0, 100_000, 50)
    quantities = [GRAD_NORM, UPDATE_RATIO]
    series = [
        Series(Signal(q, layer=f"encoder.layers.{i}.attention.weight"), steps, rng.lognormal(size=len(steps)))
        for q in quantities
        for i in range(300)
    ]
    maps = layer_maps(Run("r", tuple(series)))
    assert [(len(m.layers), len(m.spans)) for m in maps] == [(MOST_ROWS, MOST_COLUMNS)] * 2
    assert len(html.render([replace(sick, layers=maps * 5)])) < 1_000_000  # ten quantities


def test_the_file_is_the_same_each_time(sick: Report):
    assert html.render([sick]) == html.render([sick])


def test_pieces_come_with_their_reports(sick: Report, healthy: Report):
    taken = []

    def judged():
        for report in (sick, healthy):
            taken.append(report.run)
            yield report

    pieces = html.stream(judged())
    while "runs/lr1" not in next(pieces):
        pass
    assert taken == ["runs/lr1"]


def test_without_scripts_the_verdicts_can_be_read(sick: Report, healthy: Report):
    text = html.render([sick, healthy])
    inside = text[text.index("<noscript>") : text.index("</noscript>")]
    assert "runs/lr1 is sick (lr-too-high): train loss rose 260x above its best" in inside
    assert "runs/good looks healthy" in inside


class TestScript:
    def test_joined_modules_have_names_of_their_own(self):
        """They share one scope then, and so do not import anything."""
        for entry in ("page.js", "tab.js"):
            text = joined(entry)
            assert not re.search(r"^(import|export (?!async function render|function render))", text, re.MULTILINE)
            names = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", text, re.MULTILINE)
            assert sorted(names) == sorted(set(names))

    def test_every_module_stands_after_those_it_needs(self):
        text = joined("page.js")
        order = re.findall(r"^// --- (\w+\.js)$", text, re.MULTILINE)
        assert order[-1] == "page.js"
        for name in order:
            needed = re.findall(r'from "\./(\w+\.js)"', static(name))
            assert all(order.index(n) < order.index(name) for n in needed), name

    def test_no_module_makes_markup_of_text(self):
        """Text becomes text nodes and attribute values; nothing is ever parsed as HTML or run as code."""
        folder = files("fitdoctor.reporters").joinpath("static")
        for file in folder.iterdir():
            text = file.read_text("utf-8")
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|Function\(|srcdoc", text)
            assert "http:" not in text.replace("http://www.w3.org/2000/svg", ""), file.name

    @pytest.mark.parametrize("name", ["../script.py", "x/../style.css", "style.css/..", "..%2fx.py", "", "nothere.js"])
    def test_only_files_of_the_page_are_given_out(self, name: str):
        with pytest.raises(FileNotFoundError):
            static(name)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("name", ["ink", "quiet", "accent", "error", "warning", "note", "healthy", "unknown"])
@pytest.mark.parametrize("ground", ["paper", "raised"])
def test_text_stands_out_from_its_ground(name: str, ground: str):
    """WCAG 2.2, 1.4.3: a contrast of 4.5 to 1 at least, in light and in dark."""
    colours = dict(re.findall(r"--(\w+): light-dark\((#\w{6}, #\w{6})\)", static("style.css")))
    for text, paper in zip(colours[name].split(", "), colours[ground].split(", "), strict=True):
        light, dark = sorted((luminance(text), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


class TestSheet:
    def test_a_signal_at_two_cadences_has_two_labels(self, sick: Report):
        curve = sick.curves[0]
        twice = replace(sick, curves=(curve, replace(curve, points=curve.points[::5])))
        assert [c["label"] for c in sheet(twice)["panels"][0]["curves"]] == [
            "train loss",
            "train loss, logged less often",
        ]

    def test_the_marks_of_the_root_stand_in_every_panel(self, sick: Report):
        rate = replace(sick.curves[0], signal=Signal(LR), marks=())
        panels = sheet(replace(sick, curves=(*sick.curves, rate)))["panels"]
        assert [p["title"] for p in panels] == ["loss", "learning rate"]
        assert all(p["marks"] == [[110, "best"], [120, "onset"]] for p in panels)

    def test_the_onset_is_marked_where_the_rule_marks_nothing(self, sick: Report):
        root = sick.diagnoses[0].root
        bare = tuple(replace(e, marks=()) for e in root.evidence)

        def marks(onset: int, *more: tuple[int, str]) -> list[list[object]]:
            evidence = (replace(bare[0], marks=more), *bare[1:])
            told = replace(root, span=Span(onset, 230), evidence=evidence)
            return sheet(replace(sick, diagnoses=(Diagnosis(told),)))["panels"][0]["marks"]

        assert marks(120) == [[120, "onset"]]
        assert marks(120, (50, "best")) == [[50, "best"], [120, "onset"]]
        assert marks(0) == [], "from the first step on: there is nothing before it"
        assert marks(120, (120, "spent"), (120, "rate spent"), (120, "first nan")) == [[120, "first nan · rate spent"]]

    def test_it_is_json_whatever_was_logged(self, sick: Report):
        points = tuple((i, v) for i, v in enumerate([np.nan, np.inf, -np.inf, 1e308, -1e308, 0.0]))
        odd = replace(sick.curves[0], points=points)
        found = sheet(replace(sick, curves=(odd,), facts={"batch_size": float("inf"), "steps_per_epoch": float("nan")}))
        assert json.loads(json.dumps(found, allow_nan=False))["panels"][0]["curves"][0]["y"][:3] == [
            "NaN", "Infinity", "-Infinity",
        ]  # fmt: skip

    def test_a_healthy_run_names_no_root(self, healthy: Report):
        assert (row(healthy)["root"], row(healthy)["val_loss"]) == ("", 0.5)

    def test_the_layer_maps_of_the_evidence_come_first(self, sick: Report):
        steps = [0, 1]
        series = [Series(Signal(q, layer=x), steps, [1.0, 2.0]) for q in (GRAD_NORM, UPDATE_RATIO) for x in "ab"]
        maps = layer_maps(Run("r", tuple(series)))
        root = sick.diagnoses[0].root
        layered = replace(root.evidence[0], signal=Signal(UPDATE_RATIO, layer="a"))
        diagnosis = replace(sick.diagnoses[0], root=replace(root, evidence=(*root.evidence, layered)))
        found = sheet(replace(sick, layers=maps, diagnoses=(diagnosis,)))
        assert [m["quantity"] for m in found["layers"]] == ["update_ratio", "grad_norm"]


class TestLayerMaps:
    def run(self, **layers: list[float]) -> Run:
        return Run("r", tuple(Series(Signal(GRAD_NORM, layer=k), np.arange(len(v)), v) for k, v in layers.items()))

    def test_few_steps_keep_a_column_each(self):
        (m,) = layer_maps(self.run(a=[1.0, 2.0, 3.0], b=[4.0, np.nan]))
        assert m.layers == ("a", "b")
        assert [s.first for s in m.spans] == [0, 1, 2]
        assert repr(m.values) == "((1.0, 2.0, 3.0), (4.0, nan, None))"

    def test_one_layer_or_none_makes_no_map(self):
        assert layer_maps(self.run(a=[1.0])) == ()
        parts = [Series(Signal(q, layer=name), [0, 1], [1.0, 2.0]) for q in (LR,) for name in ("pg0", "pg1")]
        assert layer_maps(Run("r", (*parts, Series(Signal(LOSS), [0], [1.0])))) == ()

    @given(
        st.integers(1, 2 * MOST_COLUMNS), st.integers(2, 2 * MOST_ROWS), st.integers(0, 399), st.integers(0, 299),
        st.sampled_from([np.nan, np.inf, -np.inf, 9.0, -9.0]),
    )  # fmt: skip
    def test_no_spike_is_lost(self, steps: int, layers: int, at: int, which: int, spike: float):
        values = np.ones((layers, steps))
        values[which % layers, at % steps] = spike
        series = [Series(Signal(GRAD_NORM, layer=f"l{i}"), np.arange(steps) * 7, v) for i, v in enumerate(values)]
        (m,) = layer_maps(Run("r", tuple(series)))
        assert len(m.layers) <= MOST_ROWS
        assert len(m.spans) <= MOST_COLUMNS
        cells = [repr(v) for line in m.values for v in line]
        assert cells.count(repr(float(spike))) == 1
        assert set(cells) <= {repr(float(spike)), "1.0"}
        for before, after in zip(m.spans[:-1], m.spans[1:], strict=True):
            assert before.last < after.first
        assert (m.spans[0].first, m.spans[-1].last) == (0, (steps - 1) * 7)
