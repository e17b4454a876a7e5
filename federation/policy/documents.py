"""The documents that platform teams write: Model, PlacementPolicy and Cluster.

These structs are the only schema: they decode the YAML, give the JSON Schema for editors and the reference, and are
what the controller works with. A field without effect does not exist. Fields are camelCase in documents and snake_case
here.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from federation.wire.messages import PoolKey, partition_name

API_VERSION = "isochrone.dev/v1alpha1"
FORCE_ANNOTATION = "isochrone.dev/force"
"""The annotation that allows a change that the guard refused: the digest from the refusal, and a reason."""
Preset = Literal["vllm", "triton", "torchserve", "tensorflow-serving", "nemo", "custom"]
Market = Literal["on-demand", "spot", "reserved"]
VerticalScaling = Literal["none", "off", "initial", "recreate"]
Tier = Literal["edge", "cloud"]
Domain = Literal["region", "zone", "provider"]

Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="a DNS label: lower-case letters, digits and '-'",
    ),
]
Country = Annotated[str, Meta(pattern=r"^[A-Z]{2}$", description="ISO 3166-1 alpha-2, as DE")]
Continent = Literal["AF", "AN", "AS", "EU", "NA", "OC", "SA"]
"""As GeoNames has them: North America is with Central America and the Caribbean. `configs/continents.yaml` says which
country is where."""
Jurisdiction = Annotated[
    str, Meta(pattern=r"^[A-Z][A-Z0-9-]{0,19}$", description="a legal area that clusters declare, as EU")
]
Product = Annotated[
    str,
    Meta(min_length=1, max_length=100, description="the value of the node label nvidia.com/gpu.product, as NVIDIA-L4"),
]
MigProfile = Annotated[
    str,
    Meta(
        pattern=r"^([1-7]g\.[0-9]+gb([.+-][a-z]{2,8}){0,3}|[a-z]{3}_nps[0-9])$",
        max_length=30,
        description="a MIG profile, as 1g.20gb or 1g.24gb+gfx; of AMD a compute and memory partition, as cpx_nps4",
    ),
]
Quantity = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
        max_length=20,
        description="a Kubernetes quantity, as 500m or 32Gi",
    ),
]
Positive = Annotated[float, Meta(gt=0, le=1e9)]
NonNegative = Annotated[float, Meta(ge=0, le=1e9)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class Base(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", gc=False):
    """Common to all parts of a document: camelCase in YAML, unknown fields refused.

    Documents are trees of plain values, so the cyclic garbage collector does not track them.
    """


IGNORED = Meta(description="accepted and ignored")


class Metadata(Base, frozen=True, kw_only=True):
    """The identity of a document. Only the name and the annotation that forces a change are read; other metadata of
    Kubernetes, Helm or Kustomize is accepted and ignored."""

    name: Name
    annotations: Annotated[
        dict[str, str],
        Meta(description=f"{FORCE_ANNOTATION}: the digest that a refusal told, then a reason"),
    ] = {}
    labels: Annotated[dict[str, str], IGNORED] = {}
    namespace: Annotated[str | None, IGNORED] = None
    generate_name: Annotated[str | None, IGNORED] = None
    creation_timestamp: Annotated[str | None, IGNORED] = None
    deletion_timestamp: Annotated[str | None, IGNORED] = None
    deletion_grace_period_seconds: Annotated[int | None, IGNORED] = None
    finalizers: Annotated[tuple[str, ...], IGNORED] = ()
    generation: Annotated[int | None, IGNORED] = None
    managed_fields: Annotated[tuple[dict[str, Any], ...], IGNORED] = ()
    owner_references: Annotated[tuple[dict[str, Any], ...], IGNORED] = ()
    resource_version: Annotated[str | None, IGNORED] = None
    self_link: Annotated[str | None, IGNORED] = None
    uid: Annotated[str | None, IGNORED] = None


# ---- Model


PORTS: dict[Preset, int] = {
    "vllm": 8000,
    "triton": 8000,
    "torchserve": 8080,
    "tensorflow-serving": 8501,
    "nemo": 8000,
    "custom": 8000,
}
"""The port that each runtime serves HTTP on by default."""
PORT_OPTIONS: dict[Preset, str] = {"vllm": "--port", "triton": "--http-port", "tensorflow-serving": "--rest_api_port"}
"""The argument that changes the port, by runtime."""


class Runtime(Base, frozen=True, kw_only=True):
    """The server of the model. A preset sets the port and the probes; args go to the container."""

    preset: Annotated[Preset, Meta(description="sets the port and the probes")]
    image: Annotated[str, Meta(min_length=1, max_length=500, description="container image, best with its digest")]
    args: Annotated[tuple[str, ...], Meta(max_length=64, description="arguments of the container")] = ()
    port: Annotated[
        Annotated[int, Meta(ge=1, le=65535)] | None,
        Meta(description="the port that requests go to; null: the port that args name, else the preset's"),
    ] = None

    @property
    def port_of_args(self) -> int | None:
        """The port in the arguments, if they name one: the last, as argument parsers take it."""
        option = PORT_OPTIONS.get(self.preset)
        said = [
            value
            for name, following in itertools.pairwise((*self.args, ""))
            for value in [name.partition("=")[2] if "=" in name else following]
            if name.partition("=")[0] == option
        ]
        return int(said[-1]) if said and said[-1].isdecimal() and 0 < int(said[-1]) < 2**16 else None

    @property
    def serves_on(self) -> int:
        """The port that requests go to."""
        return self.port or self.port_of_args or PORTS[self.preset]


class Resources(Base, frozen=True, kw_only=True):
    """CPU and memory of one replica; requests and limits are equal."""

    cpu: Quantity
    memory: Quantity


def _spell_profile(one: Accelerator | AcceleratorPool) -> None:
    """Rewrite a profile to the spelling that agents report."""
    if one.mig_profile is not None and one.mig_profile != (spelled := partition_name(one.mig_profile)):
        msgspec.structs.force_setattr(one, "mig_profile", spelled)


class Accelerator(Base, frozen=True, kw_only=True):
    """One way to run a replica: the devices it needs, and the requests per second that it then serves."""

    product: Product
    mig_profile: MigProfile | None = None
    count: Annotated[int, Meta(ge=1, le=64, description="devices per replica")] = 1
    min_vram_gib: Annotated[float, Meta(ge=0, le=10_000, description="VRAM that each device needs")] = msgspec.field(
        default=0.0, name="minVramGiB"
    )
    requests_per_second: Annotated[Positive, Meta(description="what one replica sustains within the objective")]

    def __post_init__(self) -> None:
        _spell_profile(self)

    def runs_on(self, product: str, mig_profile: str) -> bool:
        """Whether it is of these devices. Args: mig_profile: empty for whole devices."""
        return self.product == product and (self.mig_profile or "") == mig_profile


class Slo(Base, frozen=True, kw_only=True):
    """The latency objective."""

    p95_latency_ms: Annotated[
        float, Meta(gt=0, le=3_600_000, description="a request slower than this is late; network and service together")
    ] = msgspec.field(name="p95LatencyMs")


class ModelSpec(Base, frozen=True, kw_only=True):
    """The runtime of a model, the accelerators that fit it, and its latencies."""

    runtime: Runtime
    resources: Resources
    accelerators: Annotated[
        tuple[Accelerator, ...],
        Meta(min_length=1, max_length=64, description="the ways to run a replica: any one of them suffices"),
    ]
    slo: Slo
    service_latency_ms: Annotated[
        float, Meta(ge=0, le=3_600_000, description="p95 inside the replica, to the first token for text")
    ] = 0.0
    warmup_seconds: Annotated[float, Meta(ge=0, le=86_400, description="from start to ready")] = 0.0
    response_kib: Annotated[
        float, Meta(ge=0, le=1e9, description="size of a typical response, for the price of egress")
    ] = 0.0
    target_utilisation: Annotated[
        float, Meta(gt=0, le=1, description="fraction of requestsPerSecond that plans count on")
    ] = 0.8

    def accelerator_for(self, pool: PoolKey) -> Accelerator | None:
        """The entry that a replica in this pool runs by; None where the model does not name its devices. The loader
        refuses a model that names the same devices twice."""
        return next((one for one in self.accelerators if one.runs_on(pool.product, pool.mig_profile)), None)


class Model(Base, frozen=True, kw_only=True, tag_field="kind", tag="Model"):
    """An AI model to serve."""

    api_version: Literal["isochrone.dev/v1alpha1"]
    metadata: Metadata
    spec: ModelSpec


# ---- PlacementPolicy


class ModelSelector(Base, frozen=True, kw_only=True):
    """The models that a policy governs. A model obeys at most one policy."""

    match_names: Annotated[
        tuple[Name, ...], Meta(min_length=1, max_length=1000, description="the names of the selected models")
    ]


FARTHEST_MS = 300.0
"""The longest round trip over land and sea cables: half around the earth and back."""
DEFAULT_USD_PER_1000_PER_MS = 5e-4
"""Source: users who wait 100 to 400 ms longer make 0.2 to 0.6 % fewer requests (J. Brutlag, "Speed Matters for Google
    Web Search", 2009). That is 1.5e-5 to 2e-5 of a request's worth for each millisecond, or 3e-4 to 4e-4 USD at the
    default of `unservedRequestUsdPer1000`. Shops report five times as much (1 % of sales for 100 ms; G. Linden, "Make
    Data Useful", 2006). The default is at the cautious end."""
DISTANCE_PART = 0.1
"""The default price of distance over the longest round trip is at most this fraction of the worth of a late request."""
NEAREST_USD_PER_1000_PER_MS = 0.2
"""With `preference: nearest`: serving 1,000 requests costs 0.01 to 1 USD, so a few milliseconds outweigh any
accelerator and, for few users, a replica of their own."""
NEAREST_WORTH = 2.0
"""With `preference: nearest`, an unserved request costs more than a late one by at least this many `FARTHEST_MS`."""


class LatencyPoint(Base, frozen=True, kw_only=True):
    """A point of the curve of cost against latency."""

    ms: Annotated[float, Meta(ge=0, le=3_600_000, description="latency of a request: round trip and serviceLatencyMs")]
    usd_per_1000: Annotated[
        Annotated[float, Meta(ge=0, le=1e6)], Meta(description="price of 1,000 requests with this latency")
    ] = msgspec.field(name="usdPer1000")


class Objective(Base, frozen=True, kw_only=True):
    """Prices in US dollars, by which everything is decided that no rule decides."""

    late_request_usd_per_1000: Annotated[
        NonNegative, Meta(description="what 1,000 requests cost that are slower than the latency objective")
    ] = msgspec.field(default=0.5, name="lateRequestUsdPer1000")
    unserved_request_usd_per_1000: Annotated[
        NonNegative, Meta(description="what 1,000 requests cost that no cluster serves")
    ] = msgspec.field(default=20.0, name="unservedRequestUsdPer1000")
    latency_usd_per_1000_per_ms: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(
            description="what each millisecond of round trip of 1,000 requests is worth, within the latency objective "
            "too; 0: of two placements that cost the same the nearer is preferred, and nothing is paid for it. "
            "Default: 0.0005, or less where a round trip of 300 ms would then be worth more than a tenth of what an "
            "unserved request costs more than a late one"
        ),
    ] = msgspec.field(default=None, name="latencyUsdPer1000PerMs")
    latency_cost: Annotated[
        Annotated[tuple[LatencyPoint, ...], Meta(min_length=1, max_length=16)] | None,
        Meta(
            description="the same as a convex curve, in place of latencyUsdPer1000PerMs: points of rising ms, linear "
            "between them and beyond the last, constant before the first. Only latency beyond serviceLatencyMs is "
            "paid; late requests cost lateRequestUsdPer1000 on top"
        ),
    ] = None
    preference: Annotated[
        Literal["cost", "nearest"],
        Meta(
            description="cost: by the prices here. nearest: the nearest cluster with room, whatever it costs: a "
            "millisecond of 1,000 requests counts 0.2 USD, in place of latencyUsdPer1000PerMs and latencyCost, and "
            "nobody is turned away for it: an unserved request counts at least 120 USD per 1,000 more than a late one, "
            "so that in a shortage such models come first among those of the same priority"
        ),
    ] = "cost"
    move_usd: Annotated[NonNegative, Meta(description="charge for starting one replica, besides its warm-up")] = 0.0

    @property
    def usd_per_1000_per_ms(self) -> float:
        """The price of each millisecond of round trip of 1,000 requests, given or by default; `latency_cost` comes on
        top."""
        if self.preference == "nearest":
            return NEAREST_USD_PER_1000_PER_MS
        if self.latency_cost is not None:
            return 0.0
        if self.latency_usd_per_1000_per_ms is not None:
            return self.latency_usd_per_1000_per_ms
        worth = max(0.0, self.unserved_request_usd_per_1000 - self.late_request_usd_per_1000)
        return min(DEFAULT_USD_PER_1000_PER_MS, DISTANCE_PART * worth / FARTHEST_MS)

    @property
    def rises(self) -> tuple[tuple[float, float], ...]:
        """(ms, slope in USD per 1,000 and ms) of each segment of `latency_cost`, by where it begins."""
        points = self.latency_cost or ()
        return tuple(
            (one.ms, (other.usd_per_1000 - one.usd_per_1000) / (other.ms - one.ms))
            for one, other in itertools.pairwise(points)
        )

    @property
    def unserved_usd_per_1000(self) -> float:
        """The price of 1,000 unserved requests, high enough that distance never turns users away."""
        if self.preference != "nearest":
            return self.unserved_request_usd_per_1000
        far = NEAREST_WORTH * NEAREST_USD_PER_1000_PER_MS * FARTHEST_MS
        return max(self.unserved_request_usd_per_1000, self.late_request_usd_per_1000 + far)


class UsersIn(Base, frozen=True, kw_only=True):
    """Users by country; without a list, all users."""

    countries: Annotated[
        tuple[Country, ...], Meta(min_length=1, max_length=300, description="ISO 3166-1 alpha-2, as DE")
    ]


class ClustersIn(Base, frozen=True, kw_only=True):
    """Clusters that declare at least one of these jurisdictions."""

    jurisdictions: Annotated[
        tuple[Jurisdiction, ...],
        Meta(min_length=1, max_length=100, description="a cluster that declares any of these may serve"),
    ]


class ResidencyRule(Base, frozen=True, kw_only=True):
    """These users may be served in those clusters only; fails closed, in failover too."""

    users_in: UsersIn | None = None
    clusters_in: ClustersIn


class Pinned(Base, frozen=True, kw_only=True):
    """A least number of replicas in one cluster, whatever they cost there."""

    cluster: Name
    replicas: Annotated[int, Meta(ge=1, le=100_000, description="the least number there")]


class MaxPartPerDomain(Base, frozen=True, kw_only=True):
    """The most capacity of a model that one region, zone or provider holds, so that its loss takes no more.

    Where keeping it would leave users unserved, it is missed by as little as possible, and reported.
    """

    domain: Annotated[Domain, Meta(description="what can be lost at once")]
    percent: Annotated[float, Meta(gt=0, le=100, description="of what all replicas can serve")]


class Availability(Base, frozen=True, kw_only=True):
    """Floors and the most replicas, whatever the demand."""

    min_replicas: Annotated[
        int, Meta(ge=0, le=100_000, description="each selected model has at least so many replicas")
    ] = 0
    max_replicas: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)] | None,
        Meta(description="each selected model never has more, whatever its demand; null: no limit"),
    ] = None
    min_regions: Annotated[int, Meta(ge=0, le=1000, description="its replicas are in at least so many regions")] = 0
    survive: (
        Annotated[
            Domain,
            Meta(description="after the loss of any one of these, the rest can serve surviveFraction of all demand"),
        ]
        | None
    ) = None
    survive_fraction: Annotated[float, Meta(gt=0, le=1, description="fraction of all demand that survive protects")] = (
        1.0
    )
    survive_within_objective_percent: Annotated[
        float,
        Meta(
            ge=0,
            le=100,
            description="whatever survive names is lost, so much of all requests can still be served within the "
            "objective, of those that could be at all; 0: capacity alone is protected",
        ),
    ] = 0.0
    max_part_per_domain: MaxPartPerDomain | None = None
    target: Annotated[
        Annotated[float, Meta(gt=0, lt=100)] | None,
        Meta(
            description="percent of requests that are served over time though spot is taken back, as far as devices "
            "let it; null: what goes unserved is paid at its price"
        ),
    ] = None
    pinned: Annotated[
        tuple[Pinned, ...], Meta(max_length=1000, description="replicas that named clusters have in any case")
    ] = ()


class Budget(Base, frozen=True, kw_only=True):
    """The most that the selected models may cost together. Stronger than floors: what it leaves no room for is not
    placed."""

    max_usd_per_hour: Annotated[
        Annotated[float, Meta(gt=0, le=1e9)] | None,
        Meta(description="accelerators of all selected models together never cost more; null: no limit"),
    ] = None


class Spot(Base, frozen=True, kw_only=True):
    """How much of a model may run on devices that can be taken back."""

    max_fraction: Annotated[Fraction, Meta(description="of the replicas, at most this part runs on spot")] = 1.0
    min_on_demand_replicas: Annotated[
        int, Meta(ge=0, le=100_000, description="replicas on devices that cannot be taken away")
    ] = 0


class Disruption(Base, frozen=True, kw_only=True):
    """Hysteresis: how much better a plan must be, and how often replicas may move."""

    min_gain_percent: Annotated[
        float, Meta(ge=0, le=100, description="a voluntary change saves at least this part of the model's cost")
    ] = 5.0
    dwell_seconds: Annotated[float, Meta(ge=0, le=604_800, description="least time between two voluntary changes")] = (
        600.0
    )
    max_moves_per_hour: Annotated[
        int, Meta(ge=0, le=100_000, description="replicas that voluntary changes start within an hour")
    ] = 20


class Failover(Base, frozen=True, kw_only=True):
    """How long a silent cluster's replicas are counted, although its traffic moves away at once; and how far away other
    clusters may help."""

    toleration_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="silence after which a cluster's replicas are replaced at the latest: before that as soon as "
            "its users have lost more than starting them elsewhere costs",
        ),
    ] = 300.0
    max_other_continents_percent: Annotated[
        float,
        Meta(
            ge=0,
            le=100,
            description="of each continent's requests, at most so much is served on other continents, in failover too",
        ),
    ] = 100.0


HeaderName = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="an HTTP header in lower case, as x-session-id")
]


Zone = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=200,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        description="a DNS zone, as models.example",
    ),
]


class DnsRecords(Base, frozen=True, kw_only=True):
    """Names that ExternalDNS publishes from each cluster: MODEL.ZONE, with the cluster's front door."""

    zone: Zone
    provider: Annotated[
        Literal["aws", "any"], Meta(description="aws: Route 53's routing policies; any: plain records, without weights")
    ] = "any"
    routing: Annotated[
        Literal["weighted", "geoproximity", "geolocation"],
        Meta(description="Route 53: by the clusters' shares, by distance, or by the users' country"),
    ] = "weighted"


class Traffic(Base, frozen=True, kw_only=True):
    """How fast shares move, when a shift stops or goes back, and what gateways are configured with."""

    step_percent: Annotated[
        float, Meta(gt=0, le=100, description="of a cell's requests, the part that moves in one step")
    ] = 20.0
    step_seconds: Annotated[float, Meta(gt=0, le=3600, description="time between two steps")] = 15.0
    drain_seconds: Annotated[
        float, Meta(ge=0, le=3600, description="time without new requests before a replica that leaves is stopped")
    ] = 10.0
    max_error_percent: Annotated[
        float, Meta(gt=0, le=100, description="a receiving cluster that fails more than this is given no more")
    ] = 5.0
    max_latency_ms: (
        Annotated[
            float, Meta(gt=0, le=3_600_000, description="the same for its p95 at its own gateway; null: the objective")
        ]
        | None
    ) = None
    retry_seconds: Annotated[
        float, Meta(gt=0, le=86_400, description="until a receiver that degraded is tried again; doubles each time")
    ] = 300.0
    spill_percent: Annotated[
        float, Meta(ge=0, le=1000, description="of its capacity that a cluster takes beyond what the plan sends it")
    ] = 50.0
    session_header: Annotated[
        HeaderName | None, Meta(description="requests with the same value stay on the same replica; null: spread")
    ] = None
    dns_ttl_seconds: Annotated[
        int, Meta(ge=1, le=86_400, description="how long resolvers and edge functions keep an answer")
    ] = 30
    dns: Annotated[DnsRecords | None, Meta(description="DNSEndpoint objects for ExternalDNS; null: none")] = None
    remote_backends: Annotated[
        Literal["ServiceImport", "Service"],
        Meta(description="how HTTPRoutes name other clusters: by the multi-cluster Services API, or by their address"),
    ] = "ServiceImport"


class Autoscaling(Base, frozen=True, kw_only=True):
    """What a cluster may do by itself between two plans."""

    burst_replicas: Annotated[
        int, Meta(ge=0, le=1000, description="how many more than placed a busy cluster may start by itself")
    ] = 0
    vertical: Annotated[
        VerticalScaling,
        Meta(description="update mode of a VerticalPodAutoscaler for memory; off only recommends, none makes none"),
    ] = "none"


SelfHeal = Literal["on", "off"]


DemandForecast = Literal["off", "p50", "p75", "p90", "p95"]


class PlacementPolicySpec(Base, frozen=True, kw_only=True):
    """How the selected models are placed."""

    models: ModelSelector
    priority: Annotated[
        int, Meta(ge=-1000, le=1000, description="in a shortage, models of higher priority are served first")
    ] = 0
    objective: Objective = Objective()
    residency: Annotated[
        tuple[ResidencyRule, ...],
        Meta(max_length=1000, description="where users' requests may be served; each rule that names a user binds"),
    ] = ()
    availability: Availability = Availability()
    budget: Budget = Budget()
    spot: Spot = Spot()
    disruption: Disruption = Disruption()
    failover: Failover = Failover()
    traffic: Traffic = Traffic()
    autoscaling: Autoscaling = Autoscaling()
    demand_forecast: Annotated[
        DemandForecast,
        Meta(
            description="plan for the demand that is not exceeded with this probability once new replicas are ready, "
            "where that is more than the demand of now; off: for the demand of now"
        ),
    ] = "off"
    self_heal: Annotated[
        SelfHeal, Meta(description="whether agents put right what somebody changed by hand; off only tells it")
    ] = "on"


class PlacementPolicy(Base, frozen=True, kw_only=True, tag_field="kind", tag="PlacementPolicy"):
    """How models are placed. A model that no policy selects is not placed: default deny."""

    api_version: Literal["isochrone.dev/v1alpha1"]
    metadata: Metadata
    spec: PlacementPolicySpec


# ---- Cluster (catalogue)


class Location(Base, frozen=True, kw_only=True):
    """Where a cluster is; degrees, WGS 84."""

    lat: Annotated[float, Meta(ge=-90, le=90, description="degrees north")]
    lon: Annotated[float, Meta(ge=-180, le=180, description="degrees east")]
    city: Annotated[str, Meta(max_length=100, description="shown on the map")] = ""
    country: Country


class AcceleratorPool(Base, frozen=True, kw_only=True):
    """A pool that the cluster is expected to have, and its price. Reports give the actual number of devices."""

    product: Product
    mig_profile: MigProfile | None = None
    vram_gib: Annotated[float, Meta(gt=0, le=10_000, description="memory of one device")] = msgspec.field(
        name="vramGiB"
    )
    market: Annotated[Market, Meta(description="spot can be taken back at any time")] = "on-demand"
    devices: Annotated[
        int, Meta(ge=0, le=1_000_000, description="as expected; plans count on at most twice as many")
    ] = 0
    usd_per_device_hour: Annotated[NonNegative, Meta(description="the price of one device")]
    losses_per_hour: Annotated[
        NonNegative | None,
        Meta(description="spot: how often a replica is taken back; left out: what is known of the provider"),
    ] = None
    replacement_chance: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="spot: that another is granted when it is asked for; left out: what is known of the provider"),
    ] = None

    def __post_init__(self) -> None:
        _spell_profile(self)

    @property
    def key(self) -> PoolKey:
        """The pool as reports name it."""
        return PoolKey(product=self.product, mig_profile=self.mig_profile or "", market=self.market)


class Gateway(Base, frozen=True, kw_only=True):
    """A cluster's front door: the address for users and for other clusters' gateways."""

    address: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=253,
            pattern=r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:.]*)$",
            description="an IP address: endpoint discovery takes no names",
        ),
    ]
    port: Annotated[int, Meta(ge=1, le=65535, description="where it accepts requests")] = 443
    measure_url: Annotated[
        Annotated[str, Meta(max_length=500, pattern=r"^https?://[^\s/]+/\S*$")] | None,
        Meta(
            description="a small resource that browsers fetch to measure the way to this cluster, as "
            "https://fra-1.models.example/.well-known/isochrone; gateways that are told by xDS serve that path"
        ),
    ] = None


class CellPlace(Base, frozen=True, kw_only=True):
    """The country of a cell's users; no agent's report changes it."""

    name: Annotated[str, Meta(min_length=1, max_length=100, description="as front doors name it")]
    country: Country
    lat: Annotated[
        Annotated[float, Meta(ge=-90, le=90)] | None,
        Meta(description="of the users that a gateway counts by this name; left out with `lon`: as the cluster's"),
    ] = None
    lon: Annotated[Annotated[float, Meta(ge=-180, le=180)] | None, Meta(description="see `lat`")] = None


class ClusterSpec(Base, frozen=True, kw_only=True):
    """What the federation knows of a cluster before its agent reports."""

    provider: Name
    region: Name
    zone: Name | None = None
    tier: Annotated[Tier, Meta(description="shown beside the cluster; decides nothing")] = "cloud"
    location: Location
    jurisdictions: Annotated[
        tuple[Jurisdiction, ...], Meta(max_length=100, description="what residency rules may ask for, as EU")
    ] = ()
    egress_usd_per_gib: Annotated[NonNegative, Meta(description="price of what is sent to users from here")] = 0.0
    accelerators: Annotated[
        tuple[AcceleratorPool, ...], Meta(max_length=512, description="pools that it is expected to have, and prices")
    ] = ()
    max_requests_per_second: Annotated[
        Positive | None,
        Meta(description="the most that its front door can count: up to it growth is believed, and beyond it nothing"),
    ] = None
    cells: Annotated[
        tuple[CellPlace, ...],
        Meta(
            max_length=3500,
            description="countries of cells that come in here; for other cells the majority of front doors decides",
        ),
    ] = ()
    gateway: Annotated[
        Gateway | None, Meta(description="its front door; without one other clusters' gateways send nothing there")
    ] = None


class Cluster(Base, frozen=True, kw_only=True, tag_field="kind", tag="Cluster"):
    """A member cluster. An agent whose cluster no document names is ignored: default deny."""

    api_version: Literal["isochrone.dev/v1alpha1"]
    metadata: Metadata
    spec: ClusterSpec


Document = Model | PlacementPolicy | Cluster


class Documents(msgspec.Struct, frozen=True, kw_only=True):
    """All accepted documents, each kind sorted by name: one revision."""

    models: tuple[Model, ...] = ()
    policies: tuple[PlacementPolicy, ...] = ()
    clusters: tuple[Cluster, ...] = ()

    def policy_of(self, model: str) -> PlacementPolicy | None:
        """The policy that governs `model`, or None: then it is not placed."""
        return next((policy for policy in self.policies if model in policy.spec.models.match_names), None)

    def is_placed(self, model: str) -> bool:
        """Whether there is such a model and a policy that governs it."""
        return any(one.metadata.name == model for one in self.models) and self.policy_of(model) is not None
