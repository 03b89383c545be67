"""Chromium for the tests of pages: Debian's, driven by Playwright, which downloads no browser of its own.

A test that gets a `visit` fails if any page of it logged an error, threw, or asked for anything beyond this machine.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LOCAL = re.compile(r"(file|data|blob|about):|https?://(127\.0\.0\.1|localhost)[:/]")
PATIENCE = 30_000  # ms; a busy machine is slow, and no test waits that long for what comes
SCREENSHOTS = Path(__file__).parents[1] / "build" / "screenshots"
# TensorBoard's own frontend says this; it is a warning and none of ours.
NOT_OURS = re.compile(r"Three\.js|TensorFlow|Lit is in dev mode")

Visit = Callable[..., Any]


def chromium() -> str | None:
    """Where Chromium is, installed with apt-get where that is possible; None where it is not."""
    names = ("chromium", "chromium-browser", "google-chrome")
    with (Path(tempfile.gettempdir()) / "fitdoctor-tests-chromium.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other test process may be at it
        if not any(map(shutil.which, names)) and shutil.which("apt-get") and os.geteuid() == 0:
            for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]):
                subprocess.run(command, capture_output=True, timeout=600, check=False)
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all tests."""
    playwright = pytest.importorskip("playwright.sync_api")
    if (path := chromium()) is None:
        pytest.skip("no Chromium, and no way to install it from here; `apt-get install chromium` gives one")
    playwright.expect.set_options(timeout=PATIENCE)
    with playwright.sync_playwright() as driver:
        chrome = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chrome
        chrome.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """``visit(url, width=1400, dark=False)`` opens a page; what went wrong on any of them is told at the end."""
    wrong: list[str] = []
    contexts: list[Any] = []

    def open_page(url: str, *, width: int = 1400, dark: bool = False, still: bool = True) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce" if still else "no-preference",
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        if url.startswith("http"):
            context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.on("console", lambda m: wrong.append(f"{m.type}: {m.text}") if serious(m) else None)
        page.on("pageerror", lambda e: wrong.append(f"uncaught: {e}"))
        page.on("dialog", lambda d: (wrong.append(f"a dialog: {d.message}"), d.dismiss()))
        page.on("request", lambda r: None if LOCAL.match(r.url) else wrong.append(f"asked for {r.url}"))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong, "\n".join(wrong)


def serious(message: Any) -> bool:
    """Whether a line on the console is a complaint."""
    return message.type in ("error", "warning") and not NOT_OURS.search(message.text)


def keep(page: Any, name: str) -> Path:
    """Keep a picture of the whole page as an artefact of the test."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=str(path), full_page=True)
    return path


def overflow(page: Any) -> int:
    """How many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
