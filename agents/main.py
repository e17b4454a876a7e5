"""`isochrone agent`: the agent of one cluster, until a signal ends it. What runs in the cluster goes on."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import math
import random
import re
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import structlog

from agents import limits
from agents.app import Agent, AgentSettings
from agents.backend import Backend, BackendError
from agents.demand import DemandFile
from agents.kube.backend import KubeBackend, KubeSettings
from agents.limits import Limits
from agents.probe import Probe, address_of
from agents.simulated import SimulatedBackend
from federation.aiokit import confidential, descriptors
from federation.aiokit.address import host_port
from federation.aiokit.broker import BrokerAddress
from federation.aiokit.clock import Clock
from federation.aiokit.repeats import Repeats, StructlogRepeats
from federation.wire import messages

MARKETS: dict[str, messages.Market] = {"on-demand": "on-demand", "spot": "spot", "reserved": "reserved"}
POOL = rf"([A-Za-z0-9.-]+)(?::([A-Za-z0-9.+_-]+))?(?:/({'|'.join(MARKETS)}))?=([0-9]{{1,5}})"
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_LINK_OPTIONS = (
    click.option("--cluster", required=True, envvar="ISOCHRONE_CLUSTER", help="Name of the cluster in the catalogue."),
    click.option(
        "--broker",
        required=True,
        envvar="ISOCHRONE_BROKER",
        callback=confidential.no_password,
        help="mqtt://HOST:PORT or mqtts://USER@HOST:PORT.",
    ),
    click.option(
        "--broker-password-file",
        type=FILE,
        envvar="ISOCHRONE_BROKER_PASSWORD_FILE",
        help="File with the password of the broker's USER.",
    ),
    click.option(
        "--broker-ca", type=FILE, envvar="ISOCHRONE_BROKER_CA", help="Authorities that the broker is verified by, PEM."
    ),
    click.option("--broker-cert", type=FILE, envvar="ISOCHRONE_BROKER_CERT", help="Our certificate, PEM."),
    click.option("--broker-key", type=FILE, envvar="ISOCHRONE_BROKER_KEY", help="Its private key, PEM."),
    click.option(
        "--interval", type=click.FloatRange(0.2, 3600), default=10.0, show_default=True, help="Seconds between reports."
    ),
    click.option(
        "--state", type=click.Path(dir_okay=False, path_type=Path), help="File that remembers what was accepted."
    ),
    click.option(
        "--demand",
        type=click.Path(dir_okay=False, path_type=Path),
        help="YAML list of what the front door counted; read at every report.",
    ),
    click.option(
        "--gateway-admin",
        help="URL of this cluster's Envoy admin API, which counts users. Without it, port 9902 of the pods that are "
        "labelled isochrone.dev/gateway=true.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """What every agent is told, whatever its cluster is."""

    cluster: str
    broker: str
    broker_password_file: Path | None
    broker_ca: Path | None
    broker_cert: Path | None
    broker_key: Path | None
    interval: float
    state: Path | None
    demand: Path | None
    gateway_admin: str | None

    def run(self, connect: Callable[[], Awaitable[Backend]], clock: Clock, rng: random.Random) -> None:
        """Be the agent of what `connect` gives until a signal ends it. Raises: click.ClickException."""
        structlog.configure(
            processors=[
                StructlogRepeats(Repeats()),
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(),
            ],
            logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        )
        descriptors.raised()
        try:
            address = BrokerAddress.parse(
                self.broker,
                ca_file=self.broker_ca,
                cert_file=self.broker_cert,
                key_file=self.broker_key,
                password_file=self.broker_password_file,
            )
        except (ValueError, OSError) as error:
            raise click.ClickException(str(error)) from error
        settings = AgentSettings(
            cluster=self.cluster,
            address=address,
            interval_s=self.interval,
            state_path=self.state,
            version=metadata.version("isochrone"),
            gateway_admin=self.gateway_admin,
        )
        try:
            asyncio.run(_run(settings, connect, clock, rng))
        except BackendError as error:
            raise click.ClickException(str(error)) from error


def link_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options that become the first argument, a `LinkOptions`."""

    @functools.wraps(command)
    def gathered(**given: Any) -> None:
        ours = {field.name: given.pop(field.name) for field in dataclasses.fields(LinkOptions)}
        command(LinkOptions(**ours), **given)

    wrapped: Callable[..., None] = gathered
    for option in reversed(_LINK_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


@click.group(epilog="\b\nExamples:\n  isochrone agent kubernetes --cluster fra-1 --broker mqtt://127.0.0.1:1883\n")
def agent() -> None:
    """The agent of a cluster."""


@agent.command(
    epilog="""\b
Examples:
  isochrone agent kubernetes --cluster fra-1 --broker mqtt://127.0.0.1:1883 --kubeconfig ~/.kube/config
  isochrone agent kubernetes --cluster fra-1 --broker mqtts://broker.example:8883 \\
      --broker-ca ca.crt --broker-cert agent.crt --broker-key agent.key --limits limits.yaml
"""
)
@link_options
@click.option(
    "--kubeconfig",
    type=FILE,
    envvar="KUBECONFIG",
    help="How to reach the cluster; without it the pod's service account.",
)
@click.option("--namespace", default="isochrone-models", show_default=True, help="Where models are deployed.")
@click.option(
    "--limits",
    "limits_file",
    type=FILE,
    envvar="ISOCHRONE_LIMITS",
    help="What the cluster's owner allows, YAML; stronger than the controller.",
)
@click.option("--probe-listen", help="HOST:PORT that peers may measure the round trip to.")
@click.option("--probe-advertise", default="", help="What peers are told instead, as the load balancer's HOST:PORT.")
def kubernetes(
    link: LinkOptions,
    kubeconfig: Path | None,
    namespace: str,
    limits_file: Path | None,
    probe_listen: str | None,
    probe_advertise: str,
) -> None:
    """Report a Kubernetes cluster and carry out what the controller wants there."""
    clock, rng = Clock(), random.Random(secrets.randbits(64))
    settings = KubeSettings(kubeconfig=kubeconfig, namespace=namespace, limits=_limits(limits_file))
    probe = Probe(clock=clock, listen=_listen(probe_listen), advertise=_advertise(probe_advertise))
    demand = DemandFile(link.demand)

    async def connect() -> Backend:
        return await KubeBackend.connect(settings, probe=probe, demand=demand, clock=clock, rng=rng)

    link.run(connect, clock, rng)


def _limits(path: Path | None) -> Limits:
    if path is None:
        return limits.NONE
    try:
        found = limits.parse(path.name, path.read_bytes())
    except OSError as error:
        raise click.ClickException(f"{path}: {error}") from error
    if not isinstance(found, Limits):
        raise click.ClickException(found.text())
    return found


@agent.command(
    epilog="""\b
Examples:
  isochrone agent simulated --cluster fra-1 --broker mqtt://127.0.0.1:1883 --pool NVIDIA-L4=8
  isochrone agent simulated --cluster fra-1 --broker mqtt://127.0.0.1:1883 --at 50.1,8.7 \\
      --pool NVIDIA-L4=8 --pool NVIDIA-L4/spot=16 --demand demand.yaml
"""
)
@link_options
@click.option(
    "--pool",
    "pools",
    multiple=True,
    required=True,
    help="PRODUCT[:MIG-PROFILE][/MARKET]=DEVICES; the market is on-demand, spot or reserved.",
)
@click.option(
    "--vram-gib", type=click.FloatRange(min=1), default=24.0, show_default=True, help="Memory of each device, in GiB."
)
@click.option(
    "--at", metavar="LAT,LON", help="Where it is: round trips to others that say so follow from the distance."
)
@click.option(
    "--rtt-ms",
    type=click.FloatRange(min=0),
    help="Round trip to every other cluster. Without this and --at none is reported, and the controller estimates it.",
)
def simulated(link: LinkOptions, pools: tuple[str, ...], vram_gib: float, at: str | None, rtt_ms: float | None) -> None:
    """Stand in for a cluster, to try the product without one: devices and replicas that exist only here."""
    clock, rng = Clock(), random.Random(secrets.randbits(64))
    demand = DemandFile(link.demand)
    offered, place = tuple(_pool(text, vram_gib) for text in pools), _place(at)

    async def connect() -> Backend:
        return SimulatedBackend(
            pools=offered,
            clock=clock,
            rng=rng,
            rtt_ms=None if rtt_ms is None else lambda peer, chance: rtt_ms,
            at=place,
            demand=demand.read,
            told=demand.conditions,
            probe=f"{link.cluster}.simulated:1",
        )

    link.run(connect, clock, rng)


def _pool(text: str, vram_gib: float) -> messages.PoolReport:
    match = re.fullmatch(POOL, text)
    if match is None:
        raise click.UsageError(f"--pool {text!r}: expected PRODUCT[:MIG-PROFILE][/MARKET]=DEVICES, as NVIDIA-L4/spot=8")
    product, mig_profile, market, count = match.groups()
    key = messages.PoolKey(
        product=product, mig_profile=messages.partition_name(mig_profile or ""), market=MARKETS[market or "on-demand"]
    )
    return messages.PoolReport(key=key, vram_gib=vram_gib, allocatable=int(count), free=int(count))


def _place(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        lat, lon = (float(part) for part in text.split(","))
    except ValueError:
        lat = lon = math.nan
    if not (abs(lat) <= 90 and abs(lon) <= 180):
        raise click.UsageError(f"--at {text!r}: expected latitude and longitude in degrees, as 50.1,8.7")
    return lat, lon


def _listen(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    try:
        return host_port(text, "0.0.0.0:9480")
    except ValueError as error:
        raise click.UsageError(f"--probe-listen {error}") from error


def _advertise(text: str) -> str:
    if text and not address_of(text)[0]:
        raise click.UsageError(
            f"--probe-advertise {text!r}: expected the HOST:PORT where peers reach it, as probe.fra.example:9480"
        )
    return text


async def _run(
    settings: AgentSettings, connect: Callable[[], Awaitable[Backend]], clock: Clock, rng: random.Random
) -> None:
    running = asyncio.current_task()
    assert running is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await Agent(settings, await connect(), clock=clock, rng=rng).run()
    except asyncio.CancelledError:
        return
