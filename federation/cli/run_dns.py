"""`isochrone dns`: PowerDNS's remote backend, beside PowerDNS, until a signal ends it."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

import click

from federation.adapters.pdns import DnsBackend, DnsSettings, InsecureDns
from federation.aiokit.tasks import together
from federation.cli.client import CliError, connect, listen_at
from federation.logs import configure
from federation.traffic.dns import Places, Zone, parse_places

LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


@click.command(
    epilog="""\b
Examples:
  isochrone dns --zone models.example --places places.csv --state /var/lib/isochrone/routes.json
\b
In pdns.conf:
  launch=remote
  remote-connection-string=http:url=http://127.0.0.1:8481/dns
  edns-subnet-processing=yes
"""
)
@click.option("--zone", required=True, help="The zone that models' names are in: MODEL.ZONE.")
@click.option("--name-server", help="The zone's name server (default: ns.ZONE).")
@click.option("--contact", help="Mailbox of the responsible person, with a dot for @ (default: hostmaster.ZONE).")
@click.option(
    "--places",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Where subnets are: lines prefix,country,latitude,longitude. Without it every answer is for anywhere.",
)
@click.option("--listen", default="127.0.0.1:8481", show_default=True, help="HOST:PORT for PowerDNS; loopback only.")
@click.option("--state", type=click.Path(dir_okay=False, path_type=Path), help="File that remembers the last routes.")
@click.option("--log-format", type=click.Choice(["auto", "json", "text"]), default="auto", show_default=True)
@click.pass_context
def dns(
    ctx: click.Context,
    zone: str,
    name_server: str | None,
    contact: str | None,
    places: Path | None,
    listen: str,
    state: Path | None,
    log_format: str,
) -> None:
    """Serve DNS answers to PowerDNS from the controller's routes; without the controller, from the last known ones."""
    configure(log_format)
    host, port = listen_at("--listen", listen, "127.0.0.1:8481")
    client = connect(ctx)
    name = zone.rstrip(".").lower()
    if len(name) > 200 or not re.fullmatch(rf"{LABEL}(\.{LABEL})*", name):
        raise click.UsageError(f"--zone {zone!r}: expected a DNS zone, as models.example")
    try:
        known = parse_places(places.read_text(encoding="utf-8")) if places is not None else Places()
    except ValueError as error:
        raise CliError(f"{places}: {error}", "correct the line", exit_code=2) from error
    settings = DnsSettings(
        zone=Zone(name=name, server=name_server or f"ns.{name}", contact=contact or f"hostmaster.{name}"),
        server=client.server,
        token=client.token,
        ca_file=ctx.obj.get("ca_file"),
        places=known,
        host=host,
        port=port,
        state_path=state,
    )
    asyncio.run(_run(DnsBackend(settings)))


async def _run(backend: DnsBackend) -> None:
    running = asyncio.current_task()
    assert running is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await backend.start()
    except (InsecureDns, OSError) as error:
        raise CliError(str(error), "give another --listen", exit_code=1) from error
    try:
        await together(follow=backend.follow(), check=backend.check())
    except asyncio.CancelledError:
        return
    finally:
        await backend.stop()
