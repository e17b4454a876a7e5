"""Read-only commands: get, describe, explain, routes, map."""

from __future__ import annotations

import difflib
from typing import Any

import click
import msgspec

from federation.aiokit.printable import one_line
from federation.api import views
from federation.cli import tables
from federation.cli.client import NOT_FOUND, Client, CliError, connect
from federation.cli.terminal import echo

OUTPUT = click.option(
    "-o", "--output", type=click.Choice(["table", "wide", "json", "yaml", "name"]), default="table", show_default=True
)


@click.command(
    epilog="""\b
Examples:
  isochrone get clusters
  isochrone get models -o wide
  isochrone get cell Berlin -o yaml
  isochrone get latency --cell Berlin -o wide
  isochrone get events -w
"""
)
@click.argument(
    "what", metavar="clusters|models|cells|placements|plans|policies|gateways|prices|latency|demand|engines|events"
)
@click.argument("name", required=False)
@OUTPUT
@click.option("-w", "--watch", is_flag=True, help="Keep running and print changes.")
@click.option("--no-headers", is_flag=True, help="Leave the header line out.")
@click.option("--cell", help="Of `latency`: from the users of this cell.")
@click.option("--cluster", help="Of `latency`: to this cluster.")
@click.pass_context
def get(
    ctx: click.Context,
    what: str,
    name: str | None,
    output: str,
    watch: bool,
    no_headers: bool,
    cell: str | None,
    cluster: str | None,
) -> None:
    """List things, or show one."""
    plural, kind = _kind(what)
    if (plural == "latency") != bool(cell or cluster) or (plural == "latency" and (name or watch)):
        raise click.UsageError("`get latency` goes with --cell, --cluster or both, and nothing else does")
    client = connect(ctx)
    items: list[Any] = (
        _one(client, plural, kind, name) if name else client.items(kind.path, kind.view, cell=cell, cluster=cluster)
    )
    _print(kind, items, output, headers=not no_headers, single=bool(name))
    if watch:
        _watch(client, plural, kind, name, items, output)


def _kind(what: str) -> tuple[str, tables.Kind]:
    found = tables.find(what)
    if found is None:
        close = difflib.get_close_matches(what, tables.KINDS, n=1)
        raise CliError(
            f"there is no kind of object {what!r}",
            f"did you mean {close[0]}?" if close else "one of " + ", ".join(tables.KINDS),
            exit_code=2,
        )
    return found


def _name_of(one: Any) -> str:
    if isinstance(one, views.PlacementView):
        return f"{one.model}/{one.cluster}/{one.pool}"
    if isinstance(one, views.DemandView):
        return f"{one.model}/{one.cell}"
    if isinstance(one, views.EngineView):
        return f"{one.model}/{one.cluster}"
    if isinstance(one, views.PlanView):
        return f"{one.epoch}.{one.generation}"
    return str(getattr(one, "name", None) or getattr(one, "id", ""))


def _one(client: Client, plural: str, kind: tables.Kind, name: str) -> list[Any]:
    items: list[Any] = client.items(kind.path, kind.view)
    found = [one for one in items if name in (_name_of(one), getattr(one, "model", None))]
    if not found:
        close = difflib.get_close_matches(name, [_name_of(one) for one in items], n=1)
        hint = f"did you mean {close[0]}?" if close else f"`isochrone get {plural}` lists what there is"
        raise CliError(f"{kind.singular} {name} not found (NotFound)", hint, exit_code=NOT_FOUND)
    return found


def _print(kind: tables.Kind, items: list[Any], output: str, *, headers: bool = True, single: bool = False) -> None:
    if output == "name":
        for one in items:
            echo(one_line(f"{kind.singular}/{_name_of(one)}"))
    elif output in ("json", "yaml"):
        echo(tables.document(items[0] if single and len(items) == 1 else items, output))
    else:
        echo(tables.table(kind, items, wide=output == "wide", headers=headers))


def _watch(client: Client, plural: str, kind: tables.Kind, name: str | None, items: list[Any], output: str) -> None:
    """Print rows that differ from the last printed ones; an age alone is no difference."""
    last = {_name_of(one): kind.row(one) | {"AGE": ""} for one in items}
    for event, data in client.stream():
        if plural == "events" and event == "event":
            fresh: list[Any] = [msgspec.json.decode(data, type=views.EventView)]
        elif event == "world" and plural in ("clusters", "models", "cells"):
            fresh = list(getattr(msgspec.json.decode(data, type=views.OverviewView), plural))
        elif event == "world" and plural != "events":
            fresh = client.items(kind.path, kind.view)
        else:
            continue
        for one in fresh:
            key, row = _name_of(one), kind.row(one) | {"AGE": ""}
            if last.get(key) != row and (name is None or name == key):
                _print(kind, [one], output, headers=False, single=True)
            last[key] = row


@click.command(
    epilog="""\b
Examples:
  isochrone describe cluster aws-eu-central-1
  isochrone describe model chat-8b
  isochrone describe plan 12
"""
)
@click.argument("what", metavar="cluster|model|cell|plan|policy|gateway")
@click.argument("name")
@click.pass_context
def describe(ctx: click.Context, what: str, name: str) -> None:
    """Everything about one thing, with its recent events."""
    plural, kind = _kind(what)
    client = connect(ctx)
    if plural == "plans":
        found: Any = client.get(f"/v1/plans/{name}", views.PlanView)
    else:
        found = _one(client, plural, kind, name)[0]
    echo(tables.document(found, "yaml", digits=3))
    subject = f"{kind.singular}/{_name_of(found)}"
    events = [one for one in client.items("/v1/events", views.EventView) if one.object == subject]
    echo("events:")
    for one in events[-10:]:
        echo(one_line(f"  {tables.moment(one.at_s)}  {one.type}  {one.reason}  {one.message}"))
    if not events:
        echo("  <none>")


@click.group(
    epilog="""\b
Examples:
  isochrone explain placement chat-8b -c aws-eu-central-1
  isochrone explain cell chat-8b Berlin
"""
)
def explain() -> None:
    """Why replicas and requests are where they are."""


@explain.command(
    epilog="""\b
Examples:
  isochrone explain placement chat-8b
  isochrone explain placement chat-8b -c aws-eu-central-1
  isochrone explain placement chat-8b --newest
"""
)
@click.argument("model")
@click.option("-c", "--cluster", help="Only this cluster.")
@click.option("--newest", is_flag=True, help="The newest solve, also where the plan in force has not adopted it.")
@OUTPUT
@click.pass_context
def placement(ctx: click.Context, model: str, cluster: str | None, newest: bool, output: str) -> None:
    """Why a model is where it is, and why it is not elsewhere."""
    of = "newest" if newest else "plan"
    view = connect(ctx).get(f"/v1/explain/placement/{model}", views.ExplanationView, cluster=cluster, of=of)
    if output in ("json", "yaml"):
        echo(tables.document(view, output))
        return
    plan = f"plan {view.epoch}.{view.generation}"
    echo(one_line(f"{view.model}: {view.summary} ({'newest solve' if newest else plan})"))
    if view.kept_because and newest:
        echo(one_line(f"  {plan} has not adopted this: {view.kept_because}"))
    elif view.kept_because:
        text = f"  the newest solve has another placement, which is not adopted: {view.kept_because} (--newest)"
        echo(one_line(text))
    echo("")
    for one in view.filters:
        removed = ", ".join(one.removed[:4]) + (f" and {len(one.removed) - 4} more" if len(one.removed) > 4 else "")
        echo(
            one_line(f"  {one.name:<12} {one.survivors:>4} clusters left" + (f"; removed {removed}" if removed else ""))
        )
    echo("")
    for verdict in view.clusters:
        echo(one_line(f"  {verdict.cluster:<26} {verdict.replicas:>4}  {verdict.code:<14} {verdict.reason}"))
        for term in verdict.terms:
            if abs(term.usd_per_hour) < 0.005:
                continue
            echo(f"  {'':<26}       {term.name:<14} {term.usd_per_hour:+.2f} USD/h")
    for reason in view.unserved:
        echo(one_line(f"  unserved: {reason}"))


@explain.command(
    epilog="""\b
Examples:
  isochrone explain cell chat-8b Berlin
  isochrone explain cell chat-8b Berlin -o json
"""
)
@click.argument("model")
@click.argument("cell")
@OUTPUT
@click.pass_context
def cell(ctx: click.Context, model: str, cell: str, output: str) -> None:
    """Why a cell's requests go where they go, and the cost of one more request in each cluster."""
    view = connect(ctx).get(f"/v1/explain/cell/{model}/{cell}", views.CellExplanationView)
    if output in ("json", "yaml"):
        echo(tables.document(view, output))
        return
    echo(one_line(f"{view.model} for {view.cell}: {view.summary} (plan {view.epoch}.{view.generation})") + "\n")
    for way in view.ways:
        echo(one_line(f"  {way.cluster:<26} {way.requests_per_second:>8.2f}/s  {way.code:<12} {way.reason}"))
        for term in way.terms:
            if term.usd_per_hour:
                echo(f"  {'':<26}   {term.name:<10} {term.usd_per_hour:+.2g} USD/h")
    for reason in view.unserved:
        echo(one_line(f"  unserved: {reason}"))


@click.command(
    epilog="""\b
Examples:
  isochrone routes --model chat-8b
  isochrone routes --model chat-8b --lat 52.5 --lon 13.4
"""
)
@click.option("--model", help="Only this model.")
@click.option("--lat", type=click.FloatRange(-90, 90), help="Degrees; with --lon: which cluster for a user there.")
@click.option("--lon", type=click.FloatRange(-180, 180))
@OUTPUT
@click.pass_context
def routes(ctx: click.Context, model: str | None, lat: float | None, lon: float | None, output: str) -> None:
    """Which cluster serves which users, by share."""
    client = connect(ctx)
    if (lat is None) != (lon is None) or (lat is not None and model is None):
        raise click.UsageError("--lat and --lon go together, and with --model")
    if lat is not None:
        nearest = client.get("/v1/routes", views.NearestRoute, model=model, lat=str(lat), lon=str(lon))
        if output in ("json", "yaml"):
            echo(tables.document(nearest, output))
            return
        echo(one_line(f"decided for {nearest.cell}, {nearest.cell_distance_km:g} km away"))
        for one in nearest.routes:
            echo(f"  {100 * one.share:5.1f} %  {one.cluster:<26} {one.latency_ms:.0f} ms ({one.latency_source})")
        return
    table = client.get("/v1/routes", views.RouteTable, model=model)
    if output in ("json", "yaml"):
        echo(tables.document(table, output))
        return
    for row in table.items:
        parts = ", ".join(f"{one.cluster} {100 * one.share:.0f} %" for one in row.routes) or "nobody"
        echo(one_line(f"{row.model:<18} {row.cell:<20} {row.rps:>9.2f}/s  {parts}"))


@click.command("map", epilog="\b\nExamples:\n  isochrone map\n")
@click.pass_context
def map_link(ctx: click.Context) -> None:
    """Print the link that opens the latency map already signed in."""
    client = connect(ctx)
    echo(f"{client.server}/signin?token={client.token}")
