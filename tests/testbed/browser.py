"""A headless Chromium driven by Playwright: the machine's own program, so that no browser is downloaded."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from tests.testbed.build import find_chromium

TIMEOUT_MS = 30_000.0
FLAGS = ("--disable-gpu", "--disable-quic")
PHONE_PX = 600
"""Narrower pages are shown as a phone shows them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """One page and what was heard of it. `console_errors`: errors, uncaught exceptions and violations of the content
    security policy; `request_urls`: every request."""

    page: Page
    console_errors: list[str] = field(default_factory=list)
    request_urls: list[str] = field(default_factory=list)


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """One Chromium with a profile of its own. Raises: build.Missing where there is none."""
    program = find_chromium()
    expect.set_options(timeout=TIMEOUT_MS)
    # Chromium leaves a directory behind in the directory of temporary files.
    with tempfile.TemporaryDirectory(prefix="isochrone-chromium-", ignore_cleanup_errors=True) as scratch:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=program, args=FLAGS, env={**os.environ, "TMPDIR": scratch}
            )
            try:
                yield browser
            finally:
                await browser.close()


async def open_tab(browser: Browser, url: str, *, width: int = 1440, height: int = 900, dark: bool = False) -> Tab:
    """A tab that has loaded `url`. It shares no storage with any other."""
    context = await browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        is_mobile=width < PHONE_PX,
        has_touch=width < PHONE_PX,
    )
    context.set_default_timeout(TIMEOUT_MS)
    tab = Tab(page=await context.new_page())

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "assert"):
            tab.console_errors.append(f"{message.text} {message.location.get('url', '')}".rstrip())

    tab.page.on("console", hear)
    tab.page.on("pageerror", lambda error: tab.console_errors.append(str(error)))
    tab.page.on("request", lambda request: tab.request_urls.append(request.url))
    await tab.page.goto(url)
    return tab


async def go_to(page: Page, place: str) -> None:
    """Open what `place` names (`cluster/fra`; empty for nothing), as a link to it does."""
    await page.evaluate("place => { location.hash = place }", place)
