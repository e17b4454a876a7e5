"""Settings of a controller: every figure with its unit and why it is what it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from federation.adapters.feeds import Source
from federation.adapters.xds import XdsListen
from federation.control.blast import BlastLimits
from federation.control.staged import Pace
from federation.state.scraped import Prometheus
from federation.state.world import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where the API is served. Beyond loopback it needs a certificate; the token is needed everywhere."""

    host: str = "127.0.0.1"
    """An address of this machine."""
    port: int = 8480
    """0 takes a free one."""
    cert_file: Path | None = None
    """Certificate chain, PEM."""
    key_file: Path | None = None
    """Its private key, PEM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeaconListen:
    """Where pages of these origins send what their users' browsers measured. Its certificate is the API's."""

    origins: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8482
    is_proxied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One controller. Durations are in seconds of its clock."""

    policies_dir: Path | None = None
    """The directory of policy files; None takes policies from the API alone."""
    take_over: bool = False
    """Go beyond the epoch of another controller, which is gone for good."""
    data_dir: Path | None = None
    """Where the database lies; None keeps it in memory (the demo)."""
    listen: Listen = field(default_factory=Listen)
    """Where API and map are served."""
    beacon: BeaconListen | None = None
    """None takes no beacons."""
    xds: XdsListen | None = None
    """Where gateways dial in; None serves none."""
    solver_url: str | None = None
    """dask://HOST:PORT, whose workers make the plans; None makes them in a process of the controller's."""
    broker_url: str | None = None
    """None starts the embedded broker."""
    broker_password_file: Path | None = None
    """The password of the URL's user."""
    broker_port: int = 0
    """Of the embedded broker; 0 takes a free one."""
    broker_ca_file: Path | None = None
    """Authorities that the broker is verified by, PEM."""
    broker_cert_file: Path | None = None
    """The controller's certificate for the broker, PEM."""
    broker_key_file: Path | None = None
    """Its private key, PEM."""
    knows_public_latency: bool = True
    """Begin with the round trips between public places that the product ships; the demo, whose truth they are, does
    not."""
    timing: Timing = field(default_factory=Timing)
    """How long the controller waits before it believes a silence or a return."""
    plan_period_s: float = 60.0
    """Placement is slow: demand and prices change over minutes, and a start costs minutes of warm-up."""
    plan_spacing_s: float = 5.0
    """Events may ask for a plan sooner, but not closer together than this."""
    steer_spacing_s: float = 0.2
    """Routing follows events at once, but a burst of them makes one routing."""
    blast: BlastLimits = field(default_factory=BlastLimits)
    """What a document or a deletion may do to users before a person has to force it."""
    pace: Pace = field(default_factory=Pace)
    """How fast what was forced is carried out, and when it halts."""
    price_feeds: tuple[Source, ...] = ()
    """In order of precedence."""
    price_period_s: float = 3_600.0
    """Between two readings of a price feed that is a URL; list prices change by the week, spot prices by the hour."""
    prometheus: Prometheus | None = None
    """Has the series of all clusters' gateways and engines; None asks none."""
    seed: int = 0
    """Of jitter and tie-breaks; the same seed and world give the same plans."""
