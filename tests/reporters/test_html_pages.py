"""The HTML report as a reader meets it: opened from a disk in Chromium, with pointer, keys and screen reader names."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fitdoctor.cli import main
from fitdoctor.layer_maps import LayerMap
from fitdoctor.report import Diagnosis, Report
from fitdoctor.reporters import html
from fitdoctor.run import Span
from fitdoctor.signals import ACTIVATION_DEAD_FRACTION, ACTIVATION_MEAN, GRAD_NORM, Quantity
from tests.browser import Visit, keep, overflow

expect = pytest.importorskip("playwright.sync_api").expect

SAMPLES = Path(__file__).parents[2] / "sample_logs"
SOME = ("exploding_gradients", "overfitting", "vanishing_gradients", "benign_spikes", "too_short", "lr_too_high_nan")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """The address of the report that the command line writes on some samples, and the same reports as JSON."""
    folder = tmp_path_factory.mktemp("report")
    for name in SOME:
        shutil.copytree(SAMPLES / name, folder / "logs" / name)
    for suffix in ("html", "json"):
        done = CliRunner().invoke(main, ["analyze", str(folder / "logs"), "-q", "-o", str(folder / f"report.{suffix}")])
        assert done.exit_code == 1, done.output
    reports = json.loads((folder / "report.json").read_text("utf-8"))["reports"]
    return (folder / "report.html").as_uri(), {r["run"]: r for r in reports}


# How many colours there are on a canvas, looking at every 97th pixel.
COLOURS = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const seen = new Set();
  for (let i = 0; i < data.length; i += 4 * 97) seen.add(data.slice(i, i + 4).join());
  return seen.size;
}"""
FOCUSED = "(document.activeElement.textContent || document.activeElement.ariaLabel || document.activeElement.id)"


def written(folder: Path, *reports: Report) -> str:
    path = folder / "page.html"
    path.write_text(html.render(reports), "utf-8")
    return path.as_uri()


def names(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("tbody th.run a").all_inner_texts()]


class TestOneRun:
    def test_the_verdict_comes_first_and_all_is_there(self, visit: Visit, sick: Report, tmp_path: Path):
        page = visit(written(tmp_path, sick))
        expect(page.get_by_role("heading", level=1)).to_have_text("lr-too-high: train loss rose 260x above its best.")
        assert page.title() == "runs/lr1 · fitdoctor"
        told = page.locator("main").inner_text()
        for text in (
            "error", "high confidence", "since step 120 of 230 (epoch 2.0)", "LRN001", "50 at the end",
            "below 0.19, its best", "a corrupted batch", "log the loss of every batch", "exploding-gradients",
            "Lower the learning rate 10-fold", "Every step overshoots.", "The loss was never below its start.",
            "Use another seed", "best epoch is 2 of 4", "SET001", "ZeroDivisionError: division by zero",
        ):  # fmt: skip
            assert text in told, text
        page.get_by_text("Not judged: 3 rules, and why").click()
        expect(page.locator("main")).to_contain_text("No grad_norm_clipped logged.")
        assert page.get_by_text("← All runs").count() == 0, "there are no others"

    def test_what_does_not_suit_the_run_is_folded_away(self, visit: Visit, sick: Report, tmp_path: Path):
        lead = sick.diagnoses[0]
        against = ("use a smaller model: the training loss itself is high",)
        told = replace(sick, diagnoses=(replace(lead, root=replace(lead.root, ruled_out=against)), *sick.diagnoses[1:]))
        page = visit(written(tmp_path, told))
        page.get_by_text("What does not suit this run: 1, and why").click()
        expect(page.locator("main")).to_contain_text("Use a smaller model: the training loss itself is high.")

    def test_code_is_copied_as_it_stands(self, visit: Visit, sick: Report, tmp_path: Path):
        page = visit(written(tmp_path, sick))
        page.get_by_role("button", name="Copy: PyTorch code of: Lower the learning rate 10-fold").click()
        page.get_by_text("Copied", exact=True).wait_for()
        # Pasted where we can read it: pages from a disk may not look into the clipboard.
        page.evaluate("document.querySelector('main').replaceChildren(document.createElement('textarea'))")
        page.locator("textarea").focus()
        page.keyboard.press("Control+V")
        assert page.locator("textarea").input_value() == "optimizer = SGD(model.parameters(), lr=0.01)"

    def test_curves_are_read_with_the_arrow_keys(self, visit: Visit, sick: Report, tmp_path: Path):
        page = visit(written(tmp_path, sick))
        plot = page.get_by_role("slider", name="loss over steps; arrow keys read the values")
        described = plot.get_attribute("aria-valuetext")
        assert "lowest 0.172" in described
        assert "1 values not finite" in described
        assert "onset at step 120" in described
        plot.focus()
        plot.press("Home")
        assert plot.get_attribute("aria-valuetext") == "step 0 (epoch 0.0), train loss 2"
        plot.press("ArrowRight")
        assert plot.get_attribute("aria-valuetext") == "step 10 (epoch 0.2), train loss 1.6"
        plot.press("End")
        assert plot.get_attribute("aria-valuetext") == "step 230 (epoch 3.8), train loss 50"

    def test_curves_are_read_with_the_pointer(self, visit: Visit, sick: Report, tmp_path: Path):
        page = visit(written(tmp_path, sick))
        plot = page.locator(".panels .plot").first
        box = plot.bounding_box()
        page.mouse.move(box["x"] + box["width"] - 15, box["y"] + 60)
        readout = page.locator(".panels .readout").first
        assert readout.inner_text().split("\n") == ["step 230 (epoch 3.8)", "train loss", "50"]
        shown = readout.bounding_box()
        assert box["x"] <= shown["x"]
        assert shown["x"] + shown["width"] < box["x"] + box["width"] - 15, "it hides what it tells of"
        page.mouse.move(5, 5)
        expect(readout).to_be_hidden()

    def test_values_stand_in_a_table_too(self, visit: Visit, sick: Report, tmp_path: Path):
        page = visit(written(tmp_path, sick))
        page.get_by_text("Values as a table").first.click()
        table = page.get_by_role("table", name="loss by step")
        expect(table.get_by_role("row")).to_have_count(1 + 24)
        assert table.get_by_role("row").nth(21).inner_text().split() == ["200", "nan"]

    def test_marks_and_what_is_not_finite_are_drawn(self, visit: Visit, sick: Report, tmp_path: Path):
        page = visit(written(tmp_path, sick))
        plot = page.locator(".panels .plot").first
        assert plot.locator("g.mark text").all_text_contents() == ["best", "onset"]
        assert plot.locator("g.bad text").all_text_contents() == ["×"]
        path = plot.locator("path.curve").get_attribute("d")
        assert path.count("M") == 2, "the curve is interrupted where the value is nan"

    def test_a_run_that_cannot_be_judged_says_what_to_log(self, visit: Visit, blind: Report, tmp_path: Path):
        page = visit(written(tmp_path, blind))
        title = "This run cannot be judged: too little was logged."
        expect(page.get_by_role("heading", level=1)).to_have_text(title)
        expect(page.locator("main")).to_contain_text("No val loss logged. Not judged for it: overfitting.")

    def test_the_best_remedies_come_first_and_the_others_on_demand(self, visit: Visit, sick: Report, tmp_path: Path):
        root = sick.diagnoses[0].root
        many = tuple(replace(root.remedies[0], title=f"thing {i}", code={}) for i in range(1, 8))
        page = visit(written(tmp_path, replace(sick, diagnoses=(Diagnosis(replace(root, remedies=many)),))))
        shown = page.locator("li.remedy h4")
        expect(shown).to_have_text([f"Thing {i}" for i in (1, 2, 3)])
        page.get_by_text("4 more things to try").click()
        expect(shown).to_have_text([f"Thing {i}" for i in range(1, 8)])
        number = "getComputedStyle(document.querySelectorAll('li.remedy')[6], '::before').content"
        assert page.evaluate(number) == "counter(remedy)"
        assert page.locator("ol.more").get_attribute("start") == "4"

    def test_axes_of_narrow_ranges_have_labels_that_differ(self, visit: Visit, sick: Report, tmp_path: Path):
        """Random guessing: the loss stays within a percent."""
        flat = replace(sick.curves[0], points=tuple((10 * i, 2.3025 + 1e-4 * (i % 3)) for i in range(101)), marks=())
        page = visit(written(tmp_path, replace(sick, curves=(flat,))))
        labels = page.locator(".panels .tick text").all_text_contents()
        assert len(labels) >= 2
        assert len(set(labels)) == len(labels)
        assert all(2.3024 < float(label) < 2.3028 for label in labels)
        plot = page.locator(".panels .plot").first.bounding_box()
        last = page.locator(".panels .step").last.bounding_box()
        assert last["x"] + last["width"] <= plot["x"] + plot["width"] + 1, "1,000 is not cut off"

    def test_hostile_text_is_text(self, visit: Visit, hostile: Report, sick: Report, tmp_path: Path):
        many = replace(hostile, run='"><img src=x onerror=alert(1)>')
        page = visit(written(tmp_path, hostile, sick, many))
        page.get_by_role("link", name="<img src=x onerror=alert(1)>").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("<script>alert(1)</script>")
        for fold in page.locator("summary").all():
            fold.click()
        assert page.locator("main img, main script, main b:has-text('y'), main iframe").count() == 0
        assert overflow(page) == 0


class TestManyRuns:
    def test_each_run_has_its_root_cause(self, visit: Visit, judged: tuple[str, dict[str, Any]]):
        url, reports = judged
        page = visit(url)
        page.get_by_role("heading", level=1, name="4 of 6 runs are sick.").wait_for()
        shown = {r["run"]: r for r in map(cells, page.locator("tbody tr").all())}
        assert shown.keys() == reports.keys()
        for name, report in reports.items():
            assert shown[name]["verdict"] == report["verdict"]
            root = report["diagnoses"][0]["root"] if report["verdict"] == "sick" else ""
            assert shown[name]["root"].split("\n")[0] == root
            page.get_by_role("link", name=name, exact=True).click()
            if root:
                page.get_by_role("heading", level=1, name=f"{root}: ").wait_for()
            page.get_by_role("link", name="← All runs").click()

    def test_filter_and_sort(self, visit: Visit, judged: tuple[str, dict[str, Any]]):
        page = visit(judged[0])
        page.get_by_label("Filter").fill("GRADIENTS tensorboard")
        page.get_by_text("2 of 6 runs").wait_for()
        assert sorted(names(page)) == ["exploding_gradients", "vanishing_gradients"]
        page.get_by_label("Filter").fill("")
        page.get_by_role("status").get_by_text("6 runs", exact=True).wait_for()
        page.get_by_role("button", name="1 healthy").click()
        assert names(page) == ["benign_spikes"]
        page.get_by_role("button", name="1 healthy").click()
        page.get_by_label("Root cause").select_option("overfitting")
        assert names(page) == ["overfitting"]
        page.get_by_label("Root cause").select_option("")
        for text in ("Steps", "Steps ▲"):
            page.get_by_role("columnheader", name=text.split()[0]).get_by_role("button").click()
        steps = [int(t.split()[0].replace(",", "")) for t in page.locator("td.steps").all_inner_texts()]
        assert steps == sorted(steps, reverse=True)
        assert page.get_by_role("columnheader", name="Steps").get_attribute("aria-sort") == "descending"
        page.get_by_label("Filter").fill("no such thing")
        page.get_by_text("No run fits.").wait_for()
        page.get_by_role("button", name="Show all").click()
        assert len(names(page)) == 6

    def test_a_copied_link_restores_the_view(self, visit: Visit, judged: tuple[str, dict[str, Any]]):
        page = visit(judged[0])
        page.get_by_label("Filter").fill("gradients")
        page.get_by_text("2 of 6 runs").wait_for()
        page.get_by_role("link", name="vanishing_gradients").click()
        page.get_by_role("heading", level=1, name="vanishing-gradients: ").wait_for()
        again = visit(page.url)
        again.get_by_role("heading", level=1, name="vanishing-gradients: ").wait_for()
        again.get_by_role("link", name="← All runs").click()
        assert names(again) == names_of(page, "← All runs")
        page.go_back()
        page.get_by_role("heading", level=1, name="vanishing-gradients: ").wait_for()

    def test_epochs_are_not_drawn_over_steps(self, visit: Visit, sick: Report, healthy: Report, tmp_path: Path):
        runs = [replace(sick, run="a"), replace(sick, run="b"), replace(healthy, run="c")]
        page = visit(written(tmp_path, *runs) + "#view=compare&pick=a&pick=b&pick=c")
        expect(page.locator(".chart-title").first).to_contain_text("train loss by step")
        expect(page.locator(".legend").first).to_have_text("ab")
        expect(page.locator(".panels")).to_contain_text(
            "Not drawn, for want of a curve in common over the same unit: c"
        )
        assert page.locator("tr", has_text="40 epochs").count() == 1

    def test_chosen_runs_are_compared(self, visit: Visit, judged: tuple[str, dict[str, Any]]):
        url, reports = judged
        page = visit(url)
        assert page.get_by_role("button", name="Compare: choose two runs").is_disabled()
        for name in ("overfitting", "benign_spikes", "exploding_gradients"):
            page.get_by_role("checkbox", name=f"Compare {name}").check()
        page.get_by_role("button", name="Compare 3 runs").click()
        page.get_by_role("heading", level=1, name="3 runs side by side").wait_for()
        for reader in (page, visit(page.url)):
            table = reader.get_by_role("table", name="Chosen runs side by side")
            expect(table.get_by_role("row")).to_have_count(1 + 3)
            reader.get_by_role("slider", name="train loss over steps").wait_for()
            curves = reader.locator("figure.chart", has=reader.locator(".chart-title", has_text="train loss"))
            expect(curves.locator("path.curve")).to_have_count(3)
        table.get_by_role("columnheader", name="Steps").get_by_role("button").click()
        steps = [reports[n]["steps"][1] for n in names(reader)]
        assert steps == sorted(steps)

    def test_layers_by_step(self, visit: Visit, judged: tuple[str, dict[str, Any]]):
        page = visit(judged[0] + "#run=vanishing_gradients")
        heat = page.get_by_role("application", name="grad norm of 20 layers over steps")
        heat.wait_for()
        assert page.locator(".heat-labels span").all_inner_texts()[:2] == ["0.weight", "2.weight"]
        colours = page.locator(".heat canvas").evaluate(COLOURS)
        assert colours > 20, "nine decades of gradient norms have many colours"
        readout = page.locator(".heatmap .readout")
        heat.focus()
        heat.press("Home")
        assert readout.inner_text().startswith("0.weight · step 0 · ")
        heat.press("ArrowDown")
        assert readout.inner_text().startswith("2.weight · step 0 · ")
        box = heat.bounding_box()
        page.mouse.move(box["x"] + box["width"] - 3, box["y"] + box["height"] - 3)
        assert readout.inner_text().startswith("38.weight · step 1,100 · ")
        assert "Largest 0.784 in 38.weight at step 0" in page.locator("#fd-heat-summary").inner_text()
        page.locator(".heatmap").get_by_text("Values as a table").click()
        table = page.get_by_role("table", name="grad norm by layer")
        expect(table.get_by_role("row")).to_have_count(1 + 20)

    def test_colours_mean_the_same_in_every_run(self, visit: Visit, sick: Report, tmp_path: Path):
        """Shares run from 0 to 1, and zero is in the middle of what has both signs."""
        spans = (Span(0, 0), Span(10, 10))

        def shown(quantity: Quantity, *values: float | None) -> str:
            a_map = LayerMap(quantity, ("a", "b"), spans, (values[:2], values[2:]))
            page = visit(written(tmp_path, replace(sick, layers=(a_map,))))
            return " ".join(page.locator(".ramp-line").inner_text().split())

        assert shown(ACTIVATION_DEAD_FRACTION, 0.0, 0.0, 0.0, 0.25) == "0 1 fraction"
        assert shown(ACTIVATION_MEAN, -1.0, 0.5, 2.0, None) == "-2 2 not logged"
        assert shown(GRAD_NORM, 1.0, 100.0, 10.0, float("nan")) == "1 100 log scale not finite"

    def test_two_thousand_runs_come_in_pages(self, visit: Visit, sick: Report, healthy: Report, tmp_path: Path):
        many = [replace(sick if i % 4 else healthy, run=f"sweep/run {i}") for i in range(2000)]
        page = visit(written(tmp_path, *many))
        page.get_by_role("heading", level=1, name="1,500 of 2,000 runs are sick.").wait_for()
        assert len(names(page)) == 50
        assert names(page)[0] == "sweep/run 1"
        page.get_by_role("button", name="Next", exact=True).click()
        page.get_by_text("Page 2 of 40").wait_for()
        assert len(names(page)) == 50
        again = visit(page.url)
        again.get_by_text("Page 2 of 40").wait_for()
        page.get_by_role("button", name="Last", exact=True).click()
        assert names(page)[-1] == "sweep/run 1996"
        page.get_by_label("Filter").fill("run 1777")
        page.get_by_text("1 of 2,000 runs").wait_for()
        page.get_by_role("link", name="sweep/run 1777").click()
        page.get_by_role("heading", level=1, name="lr-too-high").wait_for()

    def test_keys_reach_everything(self, visit: Visit, judged: tuple[str, dict[str, Any]]):
        page = visit(judged[0])
        page.get_by_role("heading", level=1).wait_for()
        reached = []
        for _ in range(24):
            page.keyboard.press("Tab")
            name = page.evaluate(FOCUSED)
            ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert ring not in ("none", ""), f"no focus to be seen on {name}"
            reached.append(name)
        assert "4 sick" in reached
        assert "fd-q" in reached
        first = names(page)[0]
        assert first in reached
        page.get_by_role("link", name=first).focus()
        page.keyboard.press("Enter")
        page.get_by_role("link", name="← All runs").wait_for()
        assert page.evaluate("document.activeElement.tagName") == "H1", "a screen reader goes on from the new title"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [380, 1400])
def test_it_fits_narrow_and_wide_in_light_and_dark(
    visit: Visit, judged: tuple[str, dict[str, Any]], width: int, dark: bool
):
    scheme = "dark" if dark else "light"
    page = visit(judged[0], width=width, dark=dark)
    for name in ("", "exploding_gradients", "vanishing_gradients"):
        page.goto(f"{judged[0]}#run={name}" if name else judged[0])
        page.reload()
        page.get_by_role("heading", level=1).wait_for()
        assert overflow(page) == 0
        keep(page, f"report-{name or 'runs'}-{width}-{scheme}")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(22, 24, 28)" if dark else "rgb(255, 255, 255)")


def test_it_prints(visit: Visit, judged: tuple[str, dict[str, Any]]):
    page = visit(judged[0] + "#run=overfitting", dark=True)
    page.get_by_role("heading", level=1, name="overfitting").wait_for()
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.get_by_role("button", name="Copy").first.is_hidden()
    assert page.evaluate("matchMedia('print').matches && getComputedStyle(document.body).color") == "rgb(27, 31, 36)"
    expect(page.get_by_text("No grad_norm logged.").first).to_be_visible()
    assert page.get_by_text("Values as a table").first.is_hidden()
    # Charts are drawn anew for the paper, so that their labels are neither tiny nor cut.
    widths = """event => {
      window.dispatchEvent(new Event(event));
      return [...document.querySelectorAll(".panels svg")].map(node => node.viewBox.baseVal.width);
    }"""
    assert set(page.evaluate(widths, "beforeprint")) == {330}
    assert 330 not in page.evaluate(widths, "afterprint")
    assert page.pdf().startswith(b"%PDF")


def cells(line: Any) -> dict[str, str]:
    return {
        "run": line.locator("th.run").inner_text().strip(),
        "verdict": line.locator("td.verdict .badge").inner_text().strip(),
        "root": line.locator("td.root").inner_text().strip(),
    }


def names_of(page: Any, link: str) -> list[str]:
    page.get_by_role("link", name=link).click()
    return names(page)
