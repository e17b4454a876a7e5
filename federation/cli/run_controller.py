"""`isochrone controller`: settings from options and environment, then one controller until a signal ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import click

from federation.adapters import executors
from federation.adapters.embedded_broker import BrokerDown
from federation.adapters.feeds import source_of
from federation.adapters.prometheus import settings_of
from federation.adapters.store import StoreError
from federation.adapters.xds import XdsListen
from federation.aiokit import confidential, context, runtime
from federation.aiokit.broker import InsecureAddress
from federation.api.server import InsecureListen
from federation.app import Controller
from federation.cli.client import link_to, listen_at
from federation.cli.terminal import echo
from federation.logs import configure
from federation.settings import BeaconListen, Listen, Settings
from federation.state.world import Timing

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command(
    epilog="""\b
Examples:
  isochrone controller --policies ./policies
  isochrone controller --policies ./policies --data /var/lib/isochrone --broker mqtt://127.0.0.1:1883
  isochrone controller --policies ./policies --price-feed aws=catalogs/v8/aws/vms.csv \
      --price-feed 'http://prometheus:9090/api/v1/query?query=node_gpu_hourly_cost'
  isochrone controller --policies ./policies --solver dask://127.0.0.1:8786
  isochrone controller --policies ./policies --listen 0.0.0.0:8480 --tls-cert tls.crt --tls-key tls.key \\
      --broker mqtts://broker.example:8883 --broker-ca ca.crt --broker-cert me.crt --broker-key me.key
"""
)
@click.option(
    "--policies",
    type=DIRECTORY,
    required=True,
    envvar="ISOCHRONE_POLICIES",
    help="Directory of policy files; read again when they change.",
)
@click.option(
    "--data",
    type=DIRECTORY,
    envvar="ISOCHRONE_DATA",
    default=Path("isochrone-data"),
    show_default=True,
    help="Where the database is kept.",
)
@click.option(
    "--listen",
    envvar="ISOCHRONE_LISTEN",
    default="127.0.0.1:8480",
    show_default=True,
    help="HOST:PORT of API and map. Beyond loopback it needs TLS.",
)
@click.option("--tls-cert", type=FILE, envvar="ISOCHRONE_TLS_CERT", help="Certificate chain of the API, PEM.")
@click.option("--tls-key", type=FILE, envvar="ISOCHRONE_TLS_KEY", help="Its private key, PEM.")
@click.option(
    "--token-file",
    type=FILE,
    envvar="ISOCHRONE_TOKEN_FILE",
    help="File with the API's bearer token. Default: a generated one.",
)
@click.option(
    "--xds-listen",
    envvar="ISOCHRONE_XDS_LISTEN",
    help="HOST:PORT of the xDS server for gateways (Envoy); default: none. Beyond loopback it needs mutual TLS.",
)
@click.option("--xds-cert", type=FILE, envvar="ISOCHRONE_XDS_CERT", help="Our certificate for gateways, PEM.")
@click.option("--xds-key", type=FILE, envvar="ISOCHRONE_XDS_KEY", help="Its private key, PEM.")
@click.option("--xds-ca", type=FILE, envvar="ISOCHRONE_XDS_CA", help="Authorities that gateways are verified by, PEM.")
@click.option(
    "--broker",
    envvar="ISOCHRONE_BROKER",
    callback=confidential.no_password,
    help="mqtt://HOST:PORT or mqtts://USER@HOST:PORT. Default: an embedded broker on loopback.",
)
@click.option(
    "--broker-password-file",
    type=FILE,
    envvar="ISOCHRONE_BROKER_PASSWORD_FILE",
    help="File with the password of the broker's USER.",
)
@click.option(
    "--broker-port", type=click.IntRange(0, 65535), default=1883, show_default=True, help="Port of the embedded broker."
)
@click.option(
    "--broker-ca", type=FILE, envvar="ISOCHRONE_BROKER_CA", help="Authorities that the broker is verified by, PEM."
)
@click.option("--broker-cert", type=FILE, envvar="ISOCHRONE_BROKER_CERT", help="Our certificate for the broker, PEM.")
@click.option("--broker-key", type=FILE, envvar="ISOCHRONE_BROKER_KEY", help="Its private key, PEM.")
@click.option(
    "--solver",
    envvar="ISOCHRONE_SOLVER",
    help="dask://HOST:PORT of a Dask scheduler whose workers, with this version installed, solve placements. Anybody "
    "who reaches it can run code there, so keep it private. Default: a process of the controller.",
)
@click.option(
    "--beacon-listen",
    envvar="ISOCHRONE_BEACON_LISTEN",
    help="HOST:PORT where browsers tell round trips that they measured. Beyond loopback it has the API's certificate.",
)
@click.option(
    "--beacon-origin",
    "beacon_origins",
    multiple=True,
    envvar="ISOCHRONE_BEACON_ORIGINS",
    help="Origin of pages that may do so, as https://chat.example.",
)
@click.option("--beacon-proxied", is_flag=True, help="A proxy of yours is in front: X-Forwarded-For says who asks.")
@click.option(
    "--price-feed",
    "price_feeds",
    multiple=True,
    envvar="ISOCHRONE_PRICE_FEEDS",
    help="[PROVIDER=]FILE or [PROVIDER=]URL with prices: SkyPilot's catalogue, Azure's or AWS's or Google's price API, "
    "AWS's spot price history, OpenCost, a Prometheus query, or this product's YAML. PROVIDER is of rows that name "
    "none. Given again, the first that has a price counts.",
)
@click.option(
    "--price-period",
    type=click.FloatRange(60, 604_800),
    default=3600.0,
    show_default=True,
    help="Seconds between readings of a price feed that is a URL. Files are read when they change.",
)
@click.option(
    "--prometheus",
    "prometheus_file",
    type=FILE,
    envvar="ISOCHRONE_PROMETHEUS",
    help="YAML: the url of a Prometheus that has the series of gateways and engines, and how they are labelled. It "
    "counts users where no front door's file and no agent's gateway does.",
)
@click.option(
    "--plan-period",
    type=click.FloatRange(1, 86_400),
    default=60.0,
    show_default=True,
    help="Seconds between placement plans.",
)
@click.option(
    "--report-interval",
    type=click.FloatRange(0.2, 3600),
    default=10.0,
    show_default=True,
    help="Seconds between the agents' reports; an agent without one for four intervals is silent.",
)
@click.option("--take-over", is_flag=True, help="Lead although agents obey another controller, which is gone for good.")
@click.option("--log-format", type=click.Choice(["auto", "json", "text"]), default="auto", show_default=True)
def controller(
    policies: Path,
    data: Path,
    listen: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    token_file: Path | None,
    xds_listen: str | None,
    xds_cert: Path | None,
    xds_key: Path | None,
    xds_ca: Path | None,
    broker: str | None,
    broker_password_file: Path | None,
    broker_port: int,
    broker_ca: Path | None,
    broker_cert: Path | None,
    broker_key: Path | None,
    solver: str | None,
    beacon_listen: str | None,
    beacon_origins: tuple[str, ...],
    beacon_proxied: bool,
    price_feeds: tuple[str, ...],
    price_period: float,
    prometheus_file: Path | None,
    plan_period: float,
    report_interval: float,
    take_over: bool,
    log_format: str,
) -> None:
    """Run the controller: receive reports, plan, publish, serve the API and the latency map."""
    configure(log_format)
    host, port = listen_at("--listen", listen, "127.0.0.1:8480")
    xds = None
    if xds_listen is not None:
        xds_host, xds_port = listen_at("--xds-listen", xds_listen, "127.0.0.1:18000")
        xds = XdsListen(host=xds_host, port=xds_port, cert_file=xds_cert, key_file=xds_key, ca_file=xds_ca)
    given = [name for name, file in (("cert", xds_cert), ("key", xds_key), ("ca", xds_ca)) if file is not None]
    if given and (xds is None or len(given) < 3):
        raise click.UsageError(
            f"--xds-{given[0]} goes with --xds-listen and all of --xds-cert, --xds-key, --xds-ca: gateways would be "
            "served in plain text, or not at all"
        )
    if solver is not None:
        try:
            executors.check(solver)
        except ValueError as error:
            raise click.UsageError(f"--solver: {error}") from error
    beacon = None
    if (beacon_listen is None) != (not beacon_origins):
        raise click.UsageError("--beacon-listen and --beacon-origin go together: who may send is named")
    if beacon_listen is not None:
        beacon_host, beacon_port = listen_at("--beacon-listen", beacon_listen, "127.0.0.1:8482")
        beacon = BeaconListen(host=beacon_host, port=beacon_port, origins=beacon_origins, is_proxied=beacon_proxied)
    try:
        sources = tuple(map(source_of, price_feeds))
    except ValueError as error:
        raise click.UsageError(f"--price-feed: {error}") from error
    if len({one.name for one in sources}) < len(sources):
        raise click.UsageError("--price-feed: two feeds have one name; give files of other names")
    try:
        scraped_from = settings_of(prometheus_file) if prometheus_file is not None else None
    except ValueError as error:
        raise click.UsageError(f"--prometheus: {error}") from error
    if not policies.is_dir():
        raise click.UsageError(
            f"--policies {str(policies)!r}: no such directory; make it, or start from configs/policies"
        )
    settings = Settings(
        policies_dir=policies,
        data_dir=data,
        take_over=take_over,
        listen=Listen(host=host, port=port, cert_file=tls_cert, key_file=tls_key),
        xds=xds,
        solver_url=solver,
        broker_url=broker,
        broker_password_file=broker_password_file,
        broker_port=broker_port,
        broker_ca_file=broker_ca,
        broker_cert_file=broker_cert,
        broker_key_file=broker_key,
        timing=Timing(report_interval_s=report_interval, tick_s=report_interval / 2, stale_after_s=4 * report_interval),
        beacon=beacon,
        price_feeds=sources,
        price_period_s=price_period,
        prometheus=scraped_from,
        plan_period_s=plan_period,
        plan_spacing_s=min(5.0, report_interval / 2),
    )
    token = token_file.read_text(encoding="utf-8").strip() if token_file else os.environ.get("ISOCHRONE_TOKEN")
    sys.exit(asyncio.run(_run(settings, token)))


async def _run(settings: Settings, token: str | None) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    try:
        controller = await Controller.start(settings, token=token)
    except (InsecureAddress, InsecureListen, BrokerDown, StoreError, OSError, ValueError) as error:
        echo(f"error: {error}", err=True)
        return 1
    runtime.prefer_the_loop()
    try:
        context.write(context.Context(server=controller.url, token=controller.token))
    except (OSError, RuntimeError) as error:
        hint = "give --token-file here and to commands, or ISOCHRONE_CONFIG, a file that can be written"
        echo(f"warning: how to reach this controller cannot be kept: {error}; {hint}", err=True)
    echo(f"map: {link_to(controller.url, controller.sign_in_url)}", err=True)
    await stopping.wait()
    await controller.stop()
    return 0
