"""`isochrone demo`: a day of the world, with the map."""

from __future__ import annotations

import asyncio
import html
import logging
import re
import signal
import socket
import sys
import tempfile
import time
import webbrowser
from pathlib import Path

import click
import msgspec

from federation.aiokit import context, runtime
from federation.demo.pace import SimulatedTime
from federation.demo.run import DAY_S, Demo, Progress
from federation.demo.scoring import Summary
from federation.logs import configure
from federation.settings import Listen

DEFAULT_DAY_S = 600.0
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(click.ParamType[float]):
    """`60s`, `10m`, `1h`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value))
        seconds = float(match.group(1)) * UNITS[match.group(2) or "s"] if match else 0.0
        if not 10.0 <= seconds <= 86_400.0:
            self.fail(f"{value!r}: expected 10s to 24h, as 60s or 10m", param, ctx)
        return seconds


@click.command(
    epilog="""\b
Examples:
  isochrone demo                     a day in ten minutes or as long as its plans take, again and again, with the map
  isochrone demo --for 60s           the whole day as fast as its plans are made, then a summary
  isochrone demo --for 60s --json    the same, with the summary as one JSON line

The day waits for the controller: what takes it two seconds of processor time takes two seconds of the day, so a busy
machine shows the same day as an idle one, and takes longer.
"""
)
@click.option(
    "--for",
    "duration_s",
    type=Duration(),
    help="Live one day, in this time or as long as its plans take, then end with a summary.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON line.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8480,
    show_default=True,
    help="Port of the map; another one when it is taken.",
)
@click.option(
    "--open/--no-open",
    "open_browser",
    default=None,
    help="Open the map in the browser (default: at a terminal, without --json).",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of measurement noise and jitter.")
@click.option("--verbose", is_flag=True, help="Show the controller's and the agents' logs.")
def demo(
    duration_s: float | None, as_json: bool, port: int, open_browser: bool | None, seed: int, verbose: bool
) -> None:
    """Run the whole product on a simulated world of real places, prices and latencies."""
    configure("text" if verbose else "auto", level=logging.INFO if verbose else logging.ERROR)
    if open_browser is None:
        open_browser = sys.stdout.isatty() and not as_json
    try:
        simulated = SimulatedTime(speed=DAY_S / (duration_s or DEFAULT_DAY_S))
        with asyncio.Runner(loop_factory=simulated.loop) as runner:
            summaries = runner.run(_run(simulated, duration_s, port, open_browser, seed))
    except TimeoutError:
        raise click.ClickException(
            "no plan was served within four hours of the demo's time; --verbose says what the controller waits for"
        ) from None
    if summaries is None:
        return
    click.echo(msgspec.json.encode(summaries).decode() if as_json else _table(summaries))


async def _run(
    simulated: SimulatedTime, duration_s: float | None, port: int, open_browser: bool, seed: int
) -> dict[str, Summary] | None:
    click.echo("starting a controller, a broker and an agent for every cluster …", err=True)
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    demo = await Demo.start(simulated, seed=seed, listen=Listen(port=_port(port)))
    try:
        runtime.prefer_the_loop()
        context.write(context.Context(server=demo.controller.url, token=demo.controller.token))
        link = demo.controller.sign_in_url if sys.stderr.isatty() else demo.controller.url
        click.echo(f"map: {link}", err=True)
        if open_browser:
            await asyncio.to_thread(_open, demo.controller.sign_in_url)
        teller = _Teller()
        living = asyncio.ensure_future(demo.run(1.0 if duration_s else None, teller.tell))  # noqa: TID251 awaited below
        waiting = asyncio.ensure_future(stopping.wait())  # noqa: TID251 awaited below
        await asyncio.wait({living, waiting}, return_when=asyncio.FIRST_COMPLETED)
        teller.end()
        interrupted = not living.done()
        for task in (living, waiting):
            task.cancel()
        await asyncio.gather(living, waiting, return_exceptions=True)
        if interrupted:
            return None
        living.result()
    finally:
        await demo.stop()
    click.echo("replaying the day with the plans of other tools …", err=True)
    return demo.summaries()


def _port(wanted: int) -> int:
    """The wanted port; 0 (any) when it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted


def _open(link: str) -> None:
    """Open the link in the browser. Others can read its arguments, so it gets a private file that redirects."""
    with tempfile.NamedTemporaryFile("w", suffix=".html", prefix="isochrone-", delete=False) as page:
        page.write(f'<meta http-equiv="refresh" content="0; url={html.escape(link)}">')
    webbrowser.open(Path(page.name).as_uri())


class _Teller:
    """Narrates the day: one line that is overwritten at a terminal, a line a second elsewhere, and the story."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._told: tuple[str, ...] = ()
        self._next_s = 0.0

    def tell(self, progress: Progress) -> None:
        for event in progress.story:
            if event not in self._told:
                self._say(f"{_clock(progress.day_fraction)}  {event}", lasting=True)
        for event in self._told:
            if event not in progress.story:
                self._say(f"{_clock(progress.day_fraction)}  over: {event}", lasting=True)
        self._told = progress.story
        now_s = time.perf_counter()
        if now_s < self._next_s:
            return
        self._next_s = now_s + (0.2 if self._is_terminal else 2.0)
        within = progress.within_objective_share
        share = f"{100 * within:.1f} %" if within is not None else "unknown"
        self._say(
            f"{_clock(progress.day_fraction)}  {progress.usd_per_hour:8.2f} USD/h  {share} within objective  "
            f"{100 * progress.unserved_share:.2f} % unserved  plan {progress.generation}",
            lasting=False,
        )

    def _say(self, text: str, *, lasting: bool) -> None:
        if self._is_terminal:
            click.echo(f"\r\x1b[2K{text}", err=True, nl=lasting)
        else:
            click.echo(text, err=True)

    def end(self) -> None:
        if self._is_terminal:
            click.echo("", err=True)


def _clock(day_fraction: float) -> str:
    minutes = int(day_fraction % 1.0 * 1440)
    return f"{minutes // 60:02d}:{minutes % 60:02d} UTC"


def _table(summaries: dict[str, Summary]) -> str:
    rows = [f"{'':26}{'within objective':>16}{'USD per hour':>14}{'unserved':>10}{'round trip':>13}   worst cell"]
    for name, one in summaries.items():
        worst = f"{one.worst_cell.name} ({100 * one.worst_cell.within_objective_share:.1f} %)"
        rows.append(
            f"{name:26}{100 * one.within_objective_share:>14.2f} %{one.usd_per_hour:>14.2f}"
            f"{100 * one.unserved_share:>8.2f} %{one.rtt_ms_mean:>10.1f} ms   {worst}"
        )
    ours = summaries["ours"]
    rows += [
        "",
        f"The nearest cluster that could serve is {ours.nearest_rtt_ms_mean:.1f} ms away. Ours moved replicas between "
        f"clusters {ours.moves} times.",
        "Others know demand and prices exactly. They react as late as their published defaults say, or at once.",
    ]
    return "\n".join(rows)
