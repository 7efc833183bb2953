"""A headless Chromium that opens a file from disk and keeps what went wrong on the way; shared by
tests of pages.

with opened(file) as page:
    page.tab.hover("td"); page.tab.screenshot(path=...)
assert page.complaints == [] and page.requests == []
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_running: list[Browser] = []


@dataclass(frozen=True, slots=True)
class Opened:
    """A page in the browser.

    tab:        Playwright's page complaints: errors and warnings of the console (what a content
                policy refused is one), and uncaught errors
    requests:   addresses that the page asked for, other than the file itself and data:
    """

    tab: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def opened(
    file: Path, width_px: int = 1280, height_px: int = 900, dark: bool = False
) -> Iterator[Opened]:
    """Open `file` from disk. The test is skipped where there is no Chromium."""
    with _browser_tab(width_px, height_px, dark) as tab:
        page = Opened(tab)
        own = file.resolve().as_uri()
        tab.on(
            "console",
            lambda said: (
                page.complaints.append(said.text) if said.type in ("error", "warning") else None
            ),
        )
        tab.on("pageerror", lambda error: page.complaints.append(str(error)))
        tab.on(
            "request",
            lambda asked: page.requests.append(asked.url) if _is_foreign(asked.url, own) else None,
        )
        tab.goto(own, wait_until="load")
        yield page


def _is_foreign(address: str, own: str) -> bool:
    return address.split("#")[0] != own and not address.startswith("data:")


@contextmanager
def _browser_tab(width_px: int, height_px: int, dark: bool) -> Iterator[Page]:
    viewport: ViewportSize = {"width": width_px, "height": height_px}
    with _browser() as browser:
        tab = browser.new_page(viewport=viewport, color_scheme="dark" if dark else "light")
        try:
            yield tab
        finally:
            tab.close()


@contextmanager
def _browser() -> Iterator[Browser]:
    """The browser; pages inside each other share one, for a thread can have only one Playwright."""
    if _running:
        yield _running[-1]
        return
    executable = next(filter(None, map(shutil.which, _NAMES)), None)
    if executable is None:
        pytest.skip(f"no browser: none of {', '.join(_NAMES)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_ARGUMENTS)
        _running.append(browser)
        try:
            yield browser
        finally:
            _running.remove(browser)
            browser.close()
