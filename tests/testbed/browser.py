"""A headless Chromium, driven over its DevTools protocol: what a page shows, says on its console and asks for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.testbed.build import find_chromium
from tests.testbed.processes import LeftoverProcess, Process

START_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 30.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
_KEYS = {
    "Enter": (13, "\r"),
    "Tab": (9, ""),
    "Escape": (27, ""),
    " ": (32, " "),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
}


class BrowserError(RuntimeError):
    """The browser refused a command, or the page's script failed."""


class Page:
    """One tab. `console_errors`: errors, uncaught exceptions, CSP violations; `request_urls`: every request."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.console_errors: list[str] = []
        self.request_urls: list[str] = []
        self._browser = browser
        self._session = session
        self._loaded = asyncio.Event()

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One DevTools command for this page. Raises: BrowserError."""
        return await self._browser.call(method, parameters, session=self._session)

    async def evaluate(self, script: str) -> Any:
        """The value of an expression, promises awaited. Raises: BrowserError with what the script threw."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(_describe(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def wait_for(self, script: str, *, timeout_s: float = 15.0) -> None:
        """Return once the expression is true. Raises: TimeoutError naming it and what the console said."""
        try:
            async with asyncio.timeout(timeout_s):
                while not await self.evaluate(f"Boolean({script})"):  # noqa: ASYNC110  a page has no event for it
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise TimeoutError(f"never true: {script}; console: {self.console_errors}") from None

    async def screenshot(self, path: Path, *, whole_page: bool = False) -> None:
        """What is on the screen, as PNG; with `whole_page` also what one would have to scroll to."""
        answer = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole_page)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))

    async def press(self, key: str) -> None:
        """Press and release a key: `Enter`, `Tab`, `Escape`, an arrow, or a character."""
        code, text = _KEYS.get(key, (ord(key[0].upper()), key))
        common = {"key": key, "windowsVirtualKeyCode": code, "nativeVirtualKeyCode": code}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def click(self, selector: str) -> None:
        """Click in the middle of the first element that matches. Raises: BrowserError when there is none."""
        x, y = await self.evaluate(
            f"""(() => {{
                const element = document.querySelector({json.dumps(selector)});
                element.scrollIntoView({{block: "nearest", inline: "nearest"}});
                const box = element.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        await self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def close(self) -> None:
        """Close the tab."""
        await self.call("Page.close")

    async def _open(self, url: str, *, width: int, height: int, dark: bool) -> None:
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        answer = await self.call("Page.navigate", url=url)
        if answer.get("errorText"):
            raise BrowserError(f"{url}: {answer['errorText']}")
        async with asyncio.timeout(CALL_TIMEOUT_S):
            await self._loaded.wait()

    def hear(self, method: str, parameters: dict[str, Any]) -> None:
        """Take note of one DevTools event."""
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Network.requestWillBeSent":
            self.request_urls.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.console_errors.append(_describe(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            said = (str(one.get("value", one.get("description", ""))) for one in parameters["args"])
            self.console_errors.append(" ".join(said))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            entry = parameters["entry"]
            self.console_errors.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}".rstrip())


def _describe(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details.get("text", "exception"))


class Browser:
    """One Chromium with a profile of its own: `async with Browser() as browser: page = await browser.open(url)`.

    Raises: build.Missing where there is no Chromium.
    """

    def __init__(self) -> None:
        program = find_chromium()
        self._directory = Path(tempfile.mkdtemp(prefix="isochrone-chromium-"))
        self._profile = self._directory / "profile"
        command = [str(program), *FLAGS, f"--user-data-dir={self._profile}", "about:blank"]
        environment = {**os.environ, "TMPDIR": str(self._directory)}  # it leaves a directory behind in /tmp else
        self._process = Process("chromium", command, log_file=self._directory / "chromium.log", environment=environment)
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession()
        self._listener: asyncio.Task[None] | None = None
        try:
            self._process.start()
            address = await self._address()
            self._socket = await self._client.ws_connect(address, max_msg_size=MAX_ANSWER_BYTES)
            self._listener = asyncio.create_task(self._listen(), name="chromium")
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def open(self, url: str, width: int = 1440, height: int = 900, *, dark: bool = False) -> Page:
        """A new tab that has loaded `url`."""
        # A context of its own: what one page stores, another does not find.
        context = await self.call("Target.createBrowserContext", {})
        target = await self.call(
            "Target.createTarget", {"url": "about:blank", "browserContextId": context["browserContextId"]}
        )
        attached = await self.call("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        await page._open(url, width=width, height=height, dark=dark)
        return page

    async def call(self, method: str, parameters: dict[str, Any], *, session: str = "") -> dict[str, Any]:
        """One DevTools command. Raises: BrowserError, TimeoutError."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(message)
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return dict(await answer)

    async def _address(self) -> str:
        """Chromium writes the port that it chose into its profile."""
        file = self._profile / "DevToolsActivePort"
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                self._process.check()
                lines = file.read_text().splitlines() if file.exists() else []
                if len(lines) == 2:
                    return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
                await asyncio.sleep(0.02)

    async def _listen(self) -> None:
        async for frame in self._socket:
            if frame.type is not aiohttp.WSMsgType.TEXT:
                break
            message = json.loads(frame.data)
            if "id" in message:
                answer = self._answers.pop(message["id"], None)
                if answer is None or answer.done():
                    continue
                if "error" in message:
                    answer.set_exception(BrowserError(message["error"]["message"]))
                else:
                    answer.set_result(message["result"])
            elif message.get("sessionId") in self._pages:
                self._pages[message["sessionId"]].hear(message["method"], message["params"])
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(BrowserError(f"the browser has gone; its log ends:\n{self._process.log_tail()}"))

    async def _close(self) -> None:
        if self._listener is not None:
            await self._socket.close()
            await self._listener
        await self._client.close()
        # Its helpers may take a moment to see that it has gone; they are killed with the group then.
        with contextlib.suppress(LeftoverProcess):
            await asyncio.to_thread(self._process.stop)
        shutil.rmtree(self._directory, ignore_errors=True)
