"""`isochrone where`: the clusters where so many devices could be had now, at what price and with what risk."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

import click
from tabulate import tabulate

from federation.aiokit.printable import one_line
from federation.api import views
from federation.cli import tables
from federation.cli.client import NOT_FOUND, CliError, connect
from federation.cli.terminal import echo


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A pool: what it could give now, and why not all that is asked for. Prices are USD per hour of all of it."""

    cluster: str
    pool: str
    free: int
    on_one_node: bool | None
    grows_by: int
    usd_per_hour: float | None
    source: str
    losses_per_hour: float
    replacement_chance: float
    why_not: str


@click.command(
    epilog="""\b
Examples:
  isochrone where H100 --devices 8
  isochrone where NVIDIA-L4 --devices 2 --market spot
  isochrone where H100 --devices 8 --one-node -o json
"""
)
@click.argument("product")
@click.option("--devices", type=click.IntRange(1, 100_000), default=1, show_default=True, help="How many at once.")
@click.option("--market", type=click.Choice(["on-demand", "spot", "reserved"]), help="Only pools of this market.")
@click.option("--one-node", is_flag=True, help="All on one node, as a replica that spans them needs.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@click.pass_context
def where(ctx: click.Context, product: str, devices: int, market: str | None, one_node: bool, output: str) -> None:
    """Where devices of PRODUCT (or of whatever has its word in the name) could be had now, the cheapest first.

    Exit code 1: nowhere at once.
    """
    client = connect(ctx)
    clusters = client.items("/v1/clusters", views.ClusterView)
    prices = {(one.cluster, one.pool): one for one in client.items("/v1/prices", views.PriceView)}
    found = places(clusters, prices, product, devices, market, one_node)
    if not found:
        known = sorted({pool.product for one in clusters for pool in one.pools})
        close = difflib.get_close_matches(product, known, n=1, cutoff=0.3)
        hint = f"did you mean {close[0]}?" if close else "known are " + (", ".join(known) or "none yet")
        raise CliError(f"no cluster has a pool of {one_line(product)}", hint, exit_code=NOT_FOUND)
    if output == "table":
        echo(str(tabulate([_row(one) for one in found], headers="keys", tablefmt="plain", disable_numparse=True)))
    else:
        echo(tables.document([_plain(one) for one in found], output))
    if all(one.why_not for one in found):
        ctx.exit(1)


def places(
    clusters: Iterable[views.ClusterView],
    prices: dict[tuple[str, str], views.PriceView],
    product: str,
    devices: int,
    market: str | None,
    one_node: bool,
) -> list[Place]:
    """Every pool of the product: those that could give the devices now, the cheapest first, then the others."""
    words = set(product.lower().replace("_", "-").split("-"))
    found = []
    for cluster in clusters:
        for pool in cluster.pools:
            if words <= set(pool.product.lower().split("-")) and market in (None, pool.market):
                found.append(_place(cluster, pool, prices.get((cluster.name, pool.name)), devices, one_node))
    return sorted(found, key=lambda one: (bool(one.why_not), _usd(one), one.cluster, one.pool))


def _usd(one: Place) -> float:
    return one.usd_per_hour if one.usd_per_hour is not None else float("inf")


def _place(
    cluster: views.ClusterView, pool: views.PoolView, price: views.PriceView | None, devices: int, one_node: bool
) -> Place:
    usd = price.usd_per_device_hour if price is not None else None
    free = pool.free or 0
    grows = sum(one.devices or 0 for one in cluster.growth if one.pool == pool.name)
    on_one = None if pool.largest_free is None else pool.largest_free >= devices
    why_not = ""
    if cluster.phase != "ready":
        why_not = f"the cluster is {cluster.phase}"
    elif cluster.cordoned:
        why_not = "the cluster is cordoned"
    elif pool.free is None:
        why_not = "its agent has not reported it"
    elif free < devices:
        why_not = f"{free} of {pool.allocatable} are free"
        why_not += f"; an autoscaler could add {grows}" if grows else ""
    elif one_node and on_one is not True:
        why_not = f"no node has {devices} free" if on_one is False else "what is free node by node is not known"
    elif usd is None:
        why_not = "it has no price, so nothing is placed there"
    return Place(
        cluster=cluster.name,
        pool=pool.name,
        free=free,
        on_one_node=on_one,
        grows_by=grows,
        usd_per_hour=usd * devices if usd is not None else None,
        source=price.source if price is not None else "",
        losses_per_hour=price.losses_per_hour if price is not None else 0.0,
        replacement_chance=price.replacement_chance if price is not None else 1.0,
        why_not=why_not,
    )


def _row(one: Place) -> dict[str, str]:
    is_spot = one.pool.endswith("/spot")
    return {
        "CLUSTER": one_line(one.cluster),
        "POOL": one_line(one.pool),
        "FREE": str(one.free),
        "ONE NODE": tables.UNKNOWN if one.on_one_node is None else ("yes" if one.on_one_node else "no"),
        "USD/H": tables.UNKNOWN if one.usd_per_hour is None else f"{one.usd_per_hour:.2f}",
        "PRICE BY": one_line(one.source) or tables.UNKNOWN,
        "LOST/H": f"{one.losses_per_hour:.2f}" if is_spot else "0",
        "AGAIN": f"{100 * one.replacement_chance:.0f} %" if is_spot else tables.UNKNOWN,
        "NOT NOW BECAUSE": one_line(one.why_not),
    }


def _plain(one: Place) -> dict[str, object]:
    return {name: getattr(one, name) for name in Place.__slots__}
