"""The server as an assistant meets it: over stdin and stdout, with the client of the `mcp` package."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fitdoctor.mcp_server.shelf import Shelf

pytest.importorskip("mcp.server.mcpserver")  # version 2 or newer

import anyio
from mcp import Client, ClientSession, MCPError, StdioServerParameters, stdio_client
from tests.mcp_server.conftest import SECRET

ROOT = Path(__file__).parents[2]
TOOLS = {"list_runs", "get_report", "get_finding", "get_series", "explain_rule", "compare_runs"}


@asynccontextmanager
async def asked(*folders: Path, first: str = "", log: Any = None, **environment: str) -> AsyncIterator[ClientSession]:
    """A client that has started `fitdoctor mcp` with these folders, after some code."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-c", f"{first}\nfrom fitdoctor.cli import main\nmain()", "mcp", *map(str, folders)],
        cwd=ROOT,
        env={**os.environ, "FITDOCTOR_CACHE_DIR": "", **environment},
    )
    with anyio.fail_after(240):
        async with stdio_client(server, errlog=log or sys.stderr) as streams, ClientSession(*streams) as session:
            await session.initialize()
            yield session


async def said(session: Any, tool: str, **arguments: object) -> tuple[bool, str]:
    """Whether a tool failed, and its text."""
    result = await session.call_tool(tool, arguments)
    assert {block.type for block in result.content} == {"text"}
    return bool(result.is_error), "".join(block.text for block in result.content)


def test_a_session_from_the_list_to_the_remedy(root: Path, tmp_path: Path):
    async def session() -> None:
        async with asked(root, FITDOCTOR_CACHE_DIR=str(tmp_path / "cache")) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert tools.keys() == TOOLS
            assert all(t.annotations.read_only_hint and t.description for t in tools.values())
            _, listed = await said(client, "list_runs", verdict="sick")
            assert [r["run"] for r in json.loads(listed)["runs"]] == ["nan", "overfit"]
            failed, report = await said(client, "get_report", run="overfit")
            assert not failed
            assert report.startswith("### ❌ `overfit` is sick")
            _, finding = await said(client, "get_finding", run="overfit")
            assert json.loads(finding)["rule"] == "overfitting"
            _, series = await said(client, "get_series", run="overfit", quantity="loss", split="val", points=30)
            assert 0 < len(json.loads(series)["points"]) <= 30
            _, compared = await said(client, "compare_runs", before=["overfit"], after=["healthy"])
            assert compared.startswith("## overfit against healthy")
            _, page = await said(client, "explain_rule", rule="overfitting")
            resource = await client.read_resource("fitdoctor://rules/overfitting")
            assert resource.contents[0].text == page
            listed_rules = await client.read_resource("fitdoctor://rules")
            assert "| FIT001 | overfitting |" in listed_rules.contents[0].text
        assert list((tmp_path / "cache").rglob("*.z")), "reports are kept"

    anyio.run(session)


def test_errors_reach_the_assistant_and_the_session_goes_on(root: Path):
    async def session() -> None:
        outside = root.parent / "elsewhere" / f"{SECRET}.csv"
        (root / "way-out").symlink_to(outside.parent)
        async with asked(root) as client:
            for run in ("../elsewhere", str(outside), f"way-out/{SECRET}.csv", "/etc/passwd", "a" * 100_000, "\x00"):
                for tool in ("get_report", "get_finding", "get_series"):
                    failed, text = await said(client, tool, run=run)
                    assert failed
                    assert "expected" in text
                    assert len(text) < 2000
                    assert "nonfinite" not in text
            for tool, arguments in (
                ("list_runs", {"limit": 10**9}),
                ("list_runs", {"limit": "many"}),
                ("list_runs", {"verdict": "ill"}),
                ("list_runs", {"path": "x" * 10**6}),
                ("list_runs", {"cursor": "'; DROP TABLE"}),
                ("get_series", {"run": "nan", "quantity": "loss", "points": -1}),
                ("get_report", {}),
                ("explain_rule", {"rule": "no-such-rule"}),
                ("explain_rule", {"rule": "x" * 10**6}),
                ("compare_runs", {"before": ["nan"] * 1000, "after": ["nan"]}),
                ("no_such_tool", {}),
            ):
                failed, text = await said(client, tool, **arguments)
                assert failed, (tool, arguments)
                assert len(text) < 2000
            for uri in ("fitdoctor://rules/no-such-rule", "fitdoctor://rules/..%2F..%2Fetc", "file:///etc/passwd"):
                with pytest.raises(MCPError):
                    await client.read_resource(uri)
            failed, _ = await said(client, "get_report", run="nan")
            assert not failed

    anyio.run(session)


def test_what_is_printed_by_mistake_does_not_reach_the_protocol(root: Path, tmp_path: Path):
    """A rule of somebody else that prints, by Python and past it, while it judges."""
    first = """
import os
from importlib import import_module
module = import_module("fitdoctor.diagnose")
judge = module.diagnose
def loud(*args, **options):
    print("printed by mistake", flush=True)
    os.write(1, b"written by mistake\\n")
    return judge(*args, **options)
module.diagnose = loud
"""

    async def session() -> None:
        with (tmp_path / "stderr").open("w") as log:
            async with asked(root, first=first, log=log) as client:
                failed, text = await said(client, "get_report", run="nan")
                assert not failed
                assert "by mistake" not in text
        told = (tmp_path / "stderr").read_text("utf-8")
        assert "printed by mistake" in told
        assert "written by mistake" in told

    anyio.run(session)


def test_a_long_question_does_not_hold_up_another(shelf: Shelf, monkeypatch: pytest.MonkeyPatch):
    from fitdoctor.mcp_server.server import make_server

    begun, free = threading.Event(), threading.Event()
    judged = Shelf.judged

    def slow(self: Shelf, log: Any) -> Any:
        begun.set()
        assert free.wait(60)
        return judged(self, log)

    monkeypatch.setattr(Shelf, "judged", slow)

    async def session() -> None:
        async with Client(make_server(shelf)) as client, anyio.create_task_group() as tasks:
            answer: list[tuple[bool, str]] = []

            async def ask() -> None:
                answer.append(await said(client, "get_report", run="nan"))

            tasks.start_soon(ask)
            with anyio.fail_after(60):
                await anyio.to_thread.run_sync(begun.wait)
                failed, page = await said(client, "explain_rule", rule="overfitting")
            assert (failed, page[:8], answer) == (False, "# FIT001", [])
            free.set()
        assert answer[0][0] is False

    anyio.run(session)


def test_a_bug_of_ours_is_no_end_and_tells_no_secrets(shelf: Shelf, monkeypatch: pytest.MonkeyPatch):
    from fitdoctor.mcp_server.server import make_server

    def broken(self: Shelf, log: Any) -> Any:
        raise RuntimeError("a-secret")

    monkeypatch.setattr(Shelf, "judged", broken)

    async def session() -> None:
        async with Client(make_server(shelf)) as client:
            failed, text = await said(client, "get_report", run="nan")
            assert failed
            assert "a-secret" not in text
            failed, _ = await said(client, "explain_rule")
            assert not failed

    anyio.run(session)


class TestCommand:
    def test_without_the_package(self, run, root: Path, monkeypatch: pytest.MonkeyPatch):
        for name in [n for n in sys.modules if n.partition(".")[0] == "mcp" or n == "fitdoctor.mcp_server.server"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "mcp", None)
        done = run("mcp", root)
        assert done.exit_code == 2
        assert "pip install 'fitdoctor[mcp]'" in done.stderr

    @pytest.mark.parametrize("arguments", [[], ["nowhere"], ["nan/metrics.csv"]])
    def test_wrong_usage(self, run, root: Path, arguments: list[str]):
        assert run("mcp", *[root / a for a in arguments]).exit_code == 2
