"""Nothing outside the folders is read, whatever is asked and whatever lies in them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fitdoctor.config import Config
from fitdoctor.errors import FitdoctorError, ReadError
from fitdoctor.mcp_server import answers
from fitdoctor.mcp_server.folders import folders, resolve
from fitdoctor.mcp_server.shelf import Shelf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.cli.conftest import rows, write_log
from tests.mcp_server.conftest import SECRET, settled


def everything(shelf: Shelf, asked: str) -> str:
    """All that can be got by one name, errors included."""
    said = []
    for ask in (answers.get_report, answers.get_finding, answers.get_series, answers.list_runs):
        try:
            said.append(ask(shelf, asked))
        except FitdoctorError as error:
            said.append(str(error))
    return "\n".join(said)


class TestPaths:
    @pytest.mark.parametrize(
        "asked",
        [
            "../elsewhere",
            "../elsewhere/{secret}.csv",
            "nan/../../elsewhere",
            "nan/../overfit",
            "..",
            "..\\elsewhere",
            "{out}",
            "{out}/{secret}.csv",
            "{root}/../elsewhere",
            "/",
            "/etc/passwd",
            "~",
            "",
            "\x00",
            "nan\x00/../../elsewhere",
            "nan/metrics.csv/../../../elsewhere",
            "a" * 5000,
            "file://{out}",
            "s3://bucket/x",
            "//{out}",
            "/proc/self/root{out}",
            "/dev/zero",
        ],
    )
    def test_what_leads_out_is_refused(self, shelf: Shelf, root: Path, asked: str):
        asked = asked.format(out=root.parent / "elsewhere", root=root, secret=SECRET)
        with pytest.raises(ReadError, match="expected"):
            resolve(asked, shelf.folders)
        if asked:
            assert "nonfinite-loss" not in everything(shelf, asked)

    @pytest.mark.parametrize("asked", ["nan", "nan/metrics.csv", "{root}/nan", "{root}", ".", "./nan", "nan/"])
    def test_what_lies_inside_is_found(self, shelf: Shelf, root: Path, asked: str):
        folder, path = resolve(asked.format(root=root), shelf.folders)
        assert folder == shelf.folders[0]
        assert path.is_relative_to(root.resolve())

    def test_what_exists_outside_cannot_be_told_from_what_does_not(self, shelf: Shelf, root: Path):
        def said(path: Path) -> str:
            with pytest.raises(ReadError) as caught:
                resolve(str(path), shelf.folders)
            return str(caught.value).replace(str(path), "PATH")

        assert said(root.parent / "elsewhere") == said(root.parent / "nothing") == said(root / "nothing")

    @given(st.text(max_size=40) | st.lists(st.sampled_from(["..", "nan", "elsewhere", "", ".", "/"])).map("/".join))
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_no_text_leads_out(self, shelf: Shelf, root: Path, text: str):
        try:
            _, path = resolve(text, shelf.folders)
        except ReadError:
            return
        assert path.is_relative_to(root.resolve())

    def test_several_folders_have_labels(self, root: Path, tmp_path: Path):
        settled(write_log(tmp_path / "more" / "runs" / "nan" / "metrics.csv", rows("healthy")))
        both = Shelf(folders([root, tmp_path / "more" / "runs", root]), Config())
        assert [f.label for f in both.folders] == ["runs", "runs (2)"]
        assert both.find("runs/nan").report.verdict == "sick"
        assert both.find("runs (2)/nan").report.verdict == "healthy"
        assert both.find(str(tmp_path / "more" / "runs" / "nan")).report.run == "runs (2)/nan"
        assert "runs (2)/nan" in answers.list_runs(both, "runs (2)")

    def test_a_folder_that_is_none(self, tmp_path: Path, root: Path):
        with pytest.raises(ReadError, match="expected a folder with runs, got nothing"):
            folders([tmp_path / "nowhere"])
        with pytest.raises(ReadError, match="expected a folder with runs, got a file"):
            folders([root / "nan" / "metrics.csv"])


class TestLinks:
    """A link in the folder could be put there by whoever made the logs."""

    def test_a_link_to_a_folder_outside(self, shelf: Shelf, root: Path):
        (root / "way-out").symlink_to(root.parent / "elsewhere")
        for asked in ("way-out", f"way-out/{SECRET}", f"way-out/{SECRET}.csv", str(root / "way-out"), ""):
            said = everything(shelf, asked) if asked else answers.list_runs(shelf)
            assert "way-out" not in said.replace(asked or "-", "")
            assert SECRET not in said.replace(asked or "-", "")

    def test_a_link_to_a_file_outside(self, shelf: Shelf, root: Path):
        (root / "linked").mkdir()
        (root / "linked" / "metrics.csv").symlink_to(root.parent / "elsewhere" / f"{SECRET}.csv")
        listed = json.loads(answers.list_runs(shelf))["runs"]
        assert {row["run"]: row["verdict"] for row in listed}.get("linked", "cannot judge") == "cannot judge"
        for asked in ("linked", "linked/metrics.csv", str(root / "linked" / "metrics.csv")):
            assert "nonfinite-loss" not in everything(shelf, asked)

    def test_a_log_that_became_a_link_since(self, shelf: Shelf, root: Path):
        assert len(shelf.logs()) == 4
        log = root / "healthy" / "metrics.csv"
        log.unlink()
        log.symlink_to(root.parent / "elsewhere" / f"{SECRET}.csv")
        with pytest.raises(ReadError, match="a link that leads out of the folder, so the run is not read"):
            shelf.find("healthy")
        rows_now = {row["run"]: row for row in json.loads(answers.list_runs(shelf))["runs"]}
        assert rows_now["healthy"]["verdict"] == "cannot judge"
        assert rows_now["nan"]["verdict"] == "sick", "one bad log does not hide the others"

    def test_settings_beside_a_log_that_are_a_link(self, shelf: Shelf, root: Path):
        (root / "nan" / "hparams.yaml").symlink_to("/etc/hostname")
        with pytest.raises(ReadError, match=r"hparams\.yaml is a link that leads out"):
            shelf.find("nan")

    def test_a_journal_beside_a_database_that_is_a_link(self, root: Path):
        import sqlite3

        (root / "trackio").mkdir()
        path = root / "trackio" / "p.db"
        with sqlite3.connect(path) as made:
            made.execute("CREATE TABLE metrics (id INTEGER, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)")
            values = [("2026-01-01T00:00:00", "a", i, json.dumps({"loss": 1.0 / (i + 1)})) for i in range(40)]
            made.executemany("INSERT INTO metrics (timestamp, run_name, step, metrics) VALUES (?, ?, ?, ?)", values)
        made.close()
        shelf = Shelf(folders([root]), Config())
        assert "trackio" in answers.list_runs(shelf, "trackio")
        path.with_name("p.db-wal").symlink_to(root.parent / "elsewhere" / "x")
        with pytest.raises(ReadError, match=r"p\.db-wal is a link that leads out"):
            shelf.judged(next(log for log in shelf.logs() if log.name.startswith("trackio")))

    def test_links_that_go_round(self, shelf: Shelf, root: Path):
        (root / "loop").symlink_to(root / "loop")
        (root / "up").symlink_to(root)
        assert len(json.loads(answers.list_runs(shelf))["runs"]) == 4
        with pytest.raises(ReadError):
            resolve("loop", shelf.folders)

    def test_the_folder_itself_may_be_given_by_a_link(self, root: Path, tmp_path: Path):
        (tmp_path / "short-cut").symlink_to(root)
        shelf = Shelf(folders([tmp_path / "short-cut"]), Config())
        assert shelf.find("nan").report.verdict == "sick"

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    def test_a_pipe_is_not_waited_for(self, shelf: Shelf, root: Path):
        (root / "piped").mkdir()
        os.mkfifo(root / "piped" / "metrics.csv")
        assert len(json.loads(answers.list_runs(shelf))["runs"]) == 4
