"""`isochrone frontier`: the curve of cost against round trip, as a table with bars, and the policies' position on
it."""

from __future__ import annotations

import sys

import click

from federation.api import views
from federation.cli import tables
from federation.cli.client import connect
from federation.cli.terminal import echo

BAR = 28
"""Characters of the longest bar."""


@click.command(
    epilog="""\b
Examples:
  isochrone frontier
  isochrone frontier chat-8b
  isochrone frontier -o json
"""
)
@click.argument("model", required=False)
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@click.pass_context
def frontier(ctx: click.Context, model: str | None, output: str) -> None:
    """The lowest cost for each mean round trip, of the fleet or of one MODEL with all other models fixed.

    Each line is a plan: the price of a millisecond of 1,000 requests (latencyUsdPer1000PerMs) for which it is optimal,
    its cost, and its round trip. Unless the fleet is very large, the plans have fractional replicas; the last line
    gives the plan in force, in whole replicas.
    """
    client = connect(ctx)
    while True:
        view = client.get("/v1/frontier", views.FrontierView, model=model)
        if sys.stderr.isatty():
            click.echo(f"\r{len(view.points)} of {view.wanted} points, {view.seconds:.0f} s ", err=True, nl=False)
        if view.is_done:
            break
    if sys.stderr.isatty():
        click.echo("\r\033[K", err=True, nl=False)
    echo(tables.document(view, output) if output != "table" else text(view))


def text(view: views.FrontierView) -> str:
    """The curve, the cheapest first, and a line where policies stand."""
    rows = [(one, "") for one in view.points]
    if view.on_curve is not None:
        rows.append((view.on_curve, "  <- policy stands here"))
    rows.sort(key=lambda row: (-row[0].rtt_ms_mean, row[0].usd_per_hour))
    most = max((one.rtt_ms_mean for one, _ in rows), default=0.0) or 1.0
    lines = [f"{'USD/H':>10} {'RTT':>8} {'EXCESS':>8} {'USD/1000/MS':>12} {'GAP':>7}"]
    for one, mark in rows:
        bar = "#" * max(1, round(BAR * one.rtt_ms_mean / most))
        lines.append(
            f"{one.usd_per_hour:>10.2f} {tables.milliseconds(one.rtt_ms_mean):>8} "
            f"{tables.milliseconds(one.excess_ms_mean):>8} {one.usd_per_1000_per_ms:>12.2g} {100 * one.gap:>6.2f}%  "
            f"{bar}{mark}"
        )
    if view.planned is not None:
        lines.append(
            f"plan {view.epoch}.{view.generation}, in whole replicas: {view.planned.usd_per_hour:.2f} USD/h at "
            f"{tables.milliseconds(view.planned.rtt_ms_mean)}"
        )
    lines.append(f"{view.says} ({len(view.points)} points in {view.seconds:.1f} s)")
    return "\n".join(lines)
