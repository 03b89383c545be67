"""The tab in a real TensorBoard, as a reader meets it in Chromium."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.readers import open_runs
from tests.browser import Visit, keep, overflow

expect = pytest.importorskip("playwright.sync_api").expect
pytest.importorskip("tensorboard")

ROOT = Path(__file__).parents[2]
SAMPLES = ("exploding_gradients", "overfitting", "vanishing_gradients", "benign_spikes", "clipping_saturated")
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "\"quotes' & a=b%20#c?d",
    "ünïcode 漢字 🎉 \u202egnp",
    "two\nlines",
    "long " + "x" * 240,
)
STARTS = 120  # seconds that a busy machine may take to start TensorBoard


def fill(folder: Path, names: tuple[str, ...] = SAMPLES) -> None:
    """Sample logs, as old as if their trainings had ended long ago."""
    for name in names:
        shutil.copytree(ROOT / "sample_logs" / name, folder / name)
    for path in folder.rglob("*"):
        os.utime(path, (1.7e9, 1.7e9))


def table(steps: range, loss: float = 2.0) -> str:
    return "".join(f"{i},{loss / (1 + i)},{loss / (1 + i) + 0.1}\n" for i in steps)


def environment(folder: Path) -> dict[str, str]:
    """What lets TensorBoard find the plugin, also where fitdoctor is not installed but run from its folder."""
    found = importlib.metadata.entry_points(group="tensorboard_plugins")
    paths = [str(ROOT)]
    if not any(e.name == "fitdoctor" for e in found):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        about = folder / "fitdoctor-0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fitdoctor\nVersion: 0\n", "utf-8")
        entries = project["entry-points"]["tensorboard_plugins"].items()
        told = "\n".join(f"{key} = {value}" for key, value in entries)
        (about / "entry_points.txt").write_text(f"[tensorboard_plugins]\n{told}\n", "utf-8")
        paths.append(str(folder))
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}


@contextmanager
def tensorboard(folder: Path, *options: str) -> Iterator[str]:
    """A running TensorBoard; gives its address."""
    log = folder / "tensorboard.log"
    command = [sys.executable, "-m", "tensorboard.main", "--host", "127.0.0.1", "--port", "0", *options]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment(folder), cwd=folder)
    try:
        end = time.monotonic() + STARTS
        while not (ready := re.search(r"TensorBoard \S+ at (http://\S+?)/? \(", log.read_text("utf-8", "replace"))):
            assert process.poll() is None, log.read_text("utf-8", "replace")
            assert time.monotonic() < end, "TensorBoard does not start"
            time.sleep(0.1)
        yield ready[1]
        assert process.poll() is None, log.read_text("utf-8", "replace")
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some samples, runs with hostile names, and a link that leads out."""
    folder = tmp_path_factory.mktemp("tab")
    logs = folder / "logs"
    fill(logs / "samples")
    for name in HOSTILE:
        (logs / "hostile" / name).mkdir(parents=True)
        head = "step,train_loss,val_loss,<b>tag</b>\n"
        rows = "".join(f"{line},7\n" for line in table(range(40)).splitlines())
        (logs / "hostile" / name / "metrics.csv").write_text(head + rows, "utf-8")
        os.utime(logs / "hostile" / name / "metrics.csv", (1.7e9, 1.7e9))
    fill(folder / "elsewhere", ("tiny_val_set",))
    (logs / "link").symlink_to(folder / "elsewhere", target_is_directory=True)
    fill(logs / "refused", ("tiny_val_set",))
    (logs / "refused" / "tiny_val_set" / "hparams.yaml").symlink_to(folder / "elsewhere" / "secret.yaml")
    return logs


@pytest.fixture(scope="module")
def address(logs: Path) -> Iterator[str]:
    """TensorBoard on these logs, with its fast data server, as it comes."""
    with tensorboard(logs.parent, "--logdir", str(logs)) as address:
        yield address


def tab(page: Any) -> Any:
    """The inside of the tab."""
    return page.frame_locator("iframe[src*='name=fitdoctor']")


def title(page: Any, text: str | re.Pattern[str]) -> Any:
    return tab(page).get_by_role("heading", level=1, name=text)


def got(url: str | urllib.request.Request) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def test_each_run_has_its_verdict_and_root_cause(visit: Visit, address: str, logs: Path):
    page = visit(f"{address}/#fitdoctor")
    expect(title(page, re.compile(r"^4 of 10 runs are sick\.$"))).to_be_visible()
    inside = tab(page)
    inside.get_by_label("Filter").fill("samples/")
    expect(inside.get_by_text("5 of 11 runs")).to_be_visible()
    for run in open_runs(logs / "samples"):
        report = diagnose(run)
        line = inside.locator("tbody tr", has=inside.get_by_role("link", name=f"samples/{run.name}", exact=True))
        expect(line.locator("td.verdict .badge")).to_have_text(report.verdict)
        if report.verdict == "sick":
            expect(line.locator("td.root b")).to_have_text(report.diagnoses[0].root.rule)
    keep(page, "tab-runs-1400-light")


def test_a_run_opens_with_its_evidence_and_remedies(visit: Visit, address: str):
    page = visit(f"{address}/#fitdoctor")
    tab(page).get_by_role("link", name="samples/overfitting").click()
    expect(title(page, "overfitting: ")).to_be_visible()
    inside = tab(page)
    plot = inside.get_by_role("slider", name="loss over steps")
    expect(plot).to_have_attribute("aria-valuetext", re.compile("best at step"))
    inside.get_by_role("button", name=re.compile("^Copy: .* code of: Use the checkpoint")).click()
    expect(inside.get_by_text("Copied", exact=True)).to_be_visible()
    assert "monitor='val_loss'" in page.evaluate("navigator.clipboard.readText()")
    keep(page, "tab-run-1400-light")


def test_the_heat_map_draws_and_tells_its_values(visit: Visit, address: str):
    page = visit(f"{address}/#fitdoctor&p.fitdoctor.run=samples%2Fvanishing_gradients")
    heat = tab(page).get_by_role("application", name="grad norm of 20 layers over steps")
    heat.focus()
    heat.press("Home")
    expect(tab(page).locator(".heatmap .readout")).to_have_text(re.compile(r"^0\.weight · step 0 · \d"))
    seen = (
        tab(page)
        .locator(".heat canvas")
        .evaluate("c => new Set(c.getContext('2d').getImageData(0, 0, 1, c.height).data).size")
    )
    assert seen > 20


def test_a_copied_link_restores_the_view(visit: Visit, address: str):
    page = visit(f"{address}/#fitdoctor")
    inside = tab(page)
    inside.get_by_label("Filter").fill("gradients")
    expect(inside.get_by_text("2 of 11 runs")).to_be_visible()
    inside.get_by_role("link", name="samples/vanishing_gradients").click()
    expect(title(page, "vanishing-gradients: ")).to_be_visible()
    inside.get_by_role("button", name="Copy link: link to this view").click()
    expect(inside.get_by_text("Copied", exact=True)).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url
    again = visit(link)
    expect(title(again, "vanishing-gradients: ")).to_be_visible()
    tab(again).get_by_role("link", name="← All runs").click()
    expect(tab(again).get_by_text("2 of 11 runs")).to_be_visible()
    # Back and forth, also by way of another tab of TensorBoard's.
    page.go_back()
    expect(inside.get_by_text("2 of 11 runs")).to_be_visible()
    page.go_forward()
    expect(title(page, "vanishing-gradients: ")).to_be_visible()
    page.get_by_role("tab", name="Time Series").or_(page.get_by_text("Time Series")).first.click()
    page.wait_for_url("**/#timeseries*")
    page.go_back()
    expect(title(page, "vanishing-gradients: ")).to_be_visible()


def test_chosen_runs_are_compared_and_stay_in_the_link(visit: Visit, address: str):
    page = visit(f"{address}/#fitdoctor")
    for name in ("samples/overfitting", "samples/benign_spikes"):
        tab(page).get_by_role("checkbox", name=f"Compare {name}").check()
    tab(page).get_by_role("button", name="Compare 2 runs").click()
    expect(title(page, "2 runs side by side")).to_be_visible()
    for reader in (page, visit(page.url)):
        rows = tab(reader).get_by_role("table", name="Chosen runs side by side").get_by_role("row")
        expect(rows).to_have_count(3)
        expect(tab(reader).get_by_role("slider", name="train loss over steps")).to_be_visible()


def test_hostile_names_are_text_and_can_be_linked(visit: Visit, address: str):
    page = visit(f"{address}/#fitdoctor")
    tab(page).get_by_label("Filter").fill("hostile/")
    expect(tab(page).get_by_text("5 of 11 runs")).to_be_visible()
    links = tab(page).locator("tbody th.run a")
    shown = links.all_inner_texts()
    assert "hostile/<img src=x onerror=alert(1)>" in shown
    assert "hostile/\"quotes' & a=b%20#c?d" in shown
    assert not [name for name in shown if re.search("[\n\u202e]", name)]
    assert len(set(shown)) == len(HOSTILE)
    for name in shown:
        links.get_by_text(name, exact=True).click()
        expect(tab(page).locator("p.name bdi")).to_have_text(name)
        tab(page).get_by_text("About the log (1)").click()
        expect(tab(page).locator("code", has_text="<b>tag</b>")).to_be_visible()
        if name.startswith(('hostile/"', "hostile/two")):  # characters of addresses; a name that was made harmless
            again = visit(page.url)
            expect(tab(again).locator("p.name bdi")).to_have_text(name)
            again.close()
        tab(page).get_by_role("link", name="← All runs").click()
    assert tab(page).locator("main img").count() == 0


@pytest.mark.parametrize("width", [380, 1400])
def test_it_follows_the_dark_mode_of_tensorboard(visit: Visit, address: str, width: int):
    page = visit(f"{address}/#fitdoctor&p.fitdoctor.run=samples%2Fexploding_gradients", dark=True, width=width)
    expect(title(page, "lr-too-high: ")).to_be_visible()
    body = tab(page).locator("body")
    expect(body).to_have_css("background-color", "rgb(22, 24, 28)")
    frame = next(f for f in page.frames if "name=fitdoctor" in f.url)
    assert overflow(frame) == 0
    keep(page, f"tab-run-{width}-dark")
    page.evaluate("document.body.classList.remove('dark-mode')")
    expect(body).to_have_css("background-color", "rgb(255, 255, 255)")


def test_what_a_link_leads_to_is_not_shown(visit: Visit, address: str):
    page = visit(f"{address}/#fitdoctor")
    expect(title(page, "4 of 10 runs are sick.")).to_be_visible()
    assert "link/" not in tab(page).locator("tbody").inner_text()
    for path in (
        "../elsewhere/tiny_val_set",
        "link/tiny_val_set",
        "/etc/passwd",
        "samples/../../elsewhere/tiny_val_set",
    ):
        url = f"{address}/data/plugin/fitdoctor/run?run={urllib.parse.quote(path)}"
        assert got(url) == b"null"


def test_a_log_that_is_not_read_says_why(visit: Visit, address: str):
    page = visit(f"{address}/#fitdoctor")
    why = "hparams.yaml leads out of the log folder and is not read"
    line = tab(page).locator("tbody tr", has_text="refused/tiny_val_set")
    expect(line).to_contain_text(f"failed\n{why}", use_inner_text=True)
    line.get_by_role("link").click()
    expect(title(page, "This log could not be judged")).to_be_visible()
    expect(tab(page).locator("main")).to_contain_text(why)


def test_only_questions_are_answered(address: str):
    for method in ("POST", "PUT", "DELETE"):
        request = urllib.request.Request(f"{address}/data/plugin/fitdoctor/runs", method=method)
        with pytest.raises(urllib.error.HTTPError, match="405") as refused:
            got(request)
        refused.value.close()


def test_an_empty_folder_says_how_to_get_something_and_shows_what_comes(visit: Visit, tmp_path: Path):
    """With TensorBoard's older way of loading; a log appears and grows while somebody looks."""
    logs = tmp_path / "logs"
    logs.mkdir()
    with tensorboard(tmp_path, "--logdir", str(logs), "--load_fast=false") as address:
        assert json.loads(got(f"{address}/data/plugins_listing"))["fitdoctor"]["enabled"]
        page = visit(address)  # with nothing else to show, TensorBoard opens this tab
        expect(title(page, "No training log here yet")).to_be_visible()
        expect(tab(page).get_by_text("fitdoctor.attach(model, optimizer")).to_be_visible()
        expect(tab(page).locator("main")).to_contain_text(str(logs))
        keep(page, "tab-empty-1400-light")

        fill(logs, ("exploding_gradients",))
        grows = logs / "grows" / "metrics.csv"
        grows.parent.mkdir()
        grows.write_text("step,train_loss,val_loss\n" + table(range(50)), "utf-8")
        expect(title(page, re.compile("^1 of 2 runs is sick"))).to_be_visible()
        expect(tab(page).locator("tbody tr", has_text="exploding_gradients")).to_contain_text("lr-too-high")
        tab(page).get_by_role("link", name="grows", exact=True).click()
        expect(tab(page).get_by_text("still being written")).to_be_visible()
        expect(tab(page).locator("p.facts")).to_contain_text("0 to 49")
        tab(page).get_by_text("About the log").click()
        with grows.open("a", encoding="utf-8") as file:
            file.write(table(range(50, 80)))
        expect(tab(page).locator("p.facts")).to_contain_text("0 to 79")
        expect(tab(page).get_by_text("Format: csv.")).to_be_visible()  # what was unfolded stays so
