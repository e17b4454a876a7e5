"""`isochrone agent`: the agent of one cluster, until a signal ends it. What runs in the cluster goes on."""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
import sys
from importlib import metadata
from pathlib import Path

import click
import structlog

from agents.app import Agent, AgentSettings
from agents.demand import DemandFile
from agents.kube import KubeBackend, KubeSettings
from agents.probe import Probe
from federation.aiokit.broker import BrokerAddress
from federation.aiokit.clock import Clock

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(epilog="\b\nExamples:\n  isochrone agent kubernetes --cluster fra-1 --broker mqtt://127.0.0.1:1883\n")
def agent() -> None:
    """The agent of a cluster."""


@agent.command(
    epilog="""\b
Examples:
  isochrone agent kubernetes --cluster fra-1 --broker mqtt://127.0.0.1:1883 --kubeconfig ~/.kube/config
  isochrone agent kubernetes --cluster fra-1 --broker mqtts://broker.example:8883 \\
      --broker-ca ca.crt --broker-cert agent.crt --broker-key agent.key
"""
)
@click.option("--cluster", required=True, envvar="ISOCHRONE_CLUSTER", help="Name of the cluster in the catalogue.")
@click.option("--broker", required=True, envvar="ISOCHRONE_BROKER", help="mqtt:// or mqtts:// URL.")
@click.option(
    "--broker-ca", type=FILE, envvar="ISOCHRONE_BROKER_CA", help="Authorities that the broker is verified by, PEM."
)
@click.option("--broker-cert", type=FILE, envvar="ISOCHRONE_BROKER_CERT", help="Our certificate, PEM.")
@click.option("--broker-key", type=FILE, envvar="ISOCHRONE_BROKER_KEY", help="Its private key, PEM.")
@click.option(
    "--kubeconfig",
    type=FILE,
    envvar="KUBECONFIG",
    help="How to reach the cluster; without it the pod's service account.",
)
@click.option("--namespace", default="isochrone-models", show_default=True, help="Where models are deployed.")
@click.option(
    "--interval", type=click.FloatRange(0.2, 3600), default=10.0, show_default=True, help="Seconds between reports."
)
@click.option("--state", type=click.Path(dir_okay=False, path_type=Path), help="File that remembers what was accepted.")
@click.option("--probe-listen", help="HOST:PORT that peers may measure the round trip to.")
@click.option("--probe-advertise", default="", help="What peers are told instead, as the load balancer's HOST:PORT.")
@click.option(
    "--demand",
    type=click.Path(dir_okay=False, path_type=Path),
    help="YAML list of what the front door counted; read at every report.",
)
def kubernetes(
    cluster: str,
    broker: str,
    broker_ca: Path | None,
    broker_cert: Path | None,
    broker_key: Path | None,
    kubeconfig: Path | None,
    namespace: str,
    interval: float,
    state: Path | None,
    probe_listen: str | None,
    probe_advertise: str,
    demand: Path | None,
) -> None:
    """Report a Kubernetes cluster and carry out what the controller wants there."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
    try:
        address = BrokerAddress.parse(broker, ca_file=broker_ca, cert_file=broker_cert, key_file=broker_key)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    clock = Clock()
    backend = KubeBackend(
        KubeSettings(kubeconfig=kubeconfig, namespace=namespace),
        probe=Probe(clock=clock, listen=_listen(probe_listen), advertise=probe_advertise),
        demand=DemandFile(demand),
    )
    settings = AgentSettings(
        cluster=cluster,
        address=address,
        interval_s=interval,
        state_path=state,
        version=metadata.version("isochrone"),
    )
    rng = random.Random(secrets.randbits(64))
    asyncio.run(_run(Agent(settings, backend, clock=clock, rng=rng)))


def _listen(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise click.UsageError(f"--probe-listen {text!r}: expected HOST:PORT, as 0.0.0.0:9480")
    return host.strip("[]"), int(port)


async def _run(agent: Agent) -> None:
    running = asyncio.current_task()
    assert running is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await agent.run()
    except asyncio.CancelledError:
        return
