"""The answers of the API: one struct each, from which the OpenAPI document is generated.

The map, the command line and scripts read the same views. Unknown values are null, never zero. Ages are in seconds of
the controller's clock at `at_s`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Phase = Literal["unknown", "ready", "unreachable", "lost"]
WorstState = Literal["ok", "degraded", "bad", "unknown"]
EventType = Literal["Normal", "Warning"]
LatencyBasis = Literal["measured", "inferred", "prior"]
"""The source of a round trip: measurements of this pair, of other pairs, or distance and public measurements."""

UnservedCode = Literal[
    "",
    "no-accelerator",
    "residency",
    "continent-cap",
    "no-path",
    "capacity",
    "max-replicas",
    "budget",
    "price",
    "warming",
    "on-the-way",
    "no-document",
    "no-policy",
    "not-routed",
]
"""The cause of unserved requests: the placement engine's codes, then `on-the-way` (shares still move there) and what is
missing before anything can be routed. Empty where nothing is unserved."""
Limit = Literal["max_replicas", "budget"]


class View(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Common to all answers. They are trees of plain values, by the hundred thousand: the collector of cycles, which
    holds every thread while it runs, need not visit them."""


class PoolView(View, frozen=True, kw_only=True):
    """One accelerator pool; counts are null until the agent has reported them."""

    name: str
    product: str
    mig_profile: str
    market: str
    vram_gib: float | None
    """Of one device; null where it is unknown."""
    allocatable: int | None
    free: int | None
    usd_per_device_hour: float
    verified: bool = True
    """Whether the vendor's own labels identify the product."""
    sharing: str = "none"
    largest_free: int | None = None
    """The most free devices on one node; null where the agent cannot tell."""


class GrowthView(View, frozen=True, kw_only=True):
    """Devices that an autoscaler could still add. They are not free, and no plan counts on them."""

    group: str
    source: str
    pool: str | None
    devices: int | None
    provisioning_s: float | None


class ConditionView(View, frozen=True, kw_only=True):
    """A condition of a cluster."""

    type: str
    object: str
    message: str


class ReplicasView(View, frozen=True, kw_only=True):
    """Replicas of one model in one pool: desired, ready, and the reason for them."""

    model: str
    pool: str
    desired: int
    ready: int | None
    reason: str


class AckView(View, frozen=True, kw_only=True):
    """The agent's last acknowledgement."""

    epoch: int
    generation: int
    ok: bool
    error: str
    age_s: float


class ObservedView(View, frozen=True, kw_only=True):
    """The answers of a cluster's replicas of one model, as its gateway and its engines report them.

    `latency_ms_p95` is from request to response at the cluster's gateway: service and queueing, without the way from
    the users. `running` and `waiting` are requests in the engines. Null is what nobody reports.
    """

    model: str
    requests_per_second: float | None
    error_share: float | None
    latency_ms_p95: float | None
    running: float | None
    waiting: float | None
    kv_cache_used: float | None


class GatewayView(View, frozen=True, kw_only=True):
    """One gateway: what it accepted last, by kind, and what it refused and why (a NACK); the last accepted version
    serves."""

    name: str
    cluster: str
    state: Literal["connected", "gone"]
    age_s: float
    """Time in this state."""
    accepted: dict[str, str]
    refused: dict[str, str]


class PriceView(View, frozen=True, kw_only=True):
    """What a device of a pool costs in USD per hour, and whose word it is: `agent`, `feed NAME` or `catalogue`.

    Null, and no source, where nobody says: then nothing is placed there. `age_s`: since a feed was read last.
    `offer`: the feed's row. `doubt`: what a feed says and is not believed.
    """

    cluster: str
    pool: str
    usd_per_device_hour: float | None
    source: str
    age_s: float | None
    catalogue_usd: float | None
    offer: str
    doubt: str
    losses_per_hour: float
    """On spot, how often a replica is expected to be taken back; 0 elsewhere."""
    replacement_chance: float
    """That another is granted when it is asked for."""
    seen_hours: float
    """Replica-hours that this expectation was learnt from, of this pool alone."""


class ForecastView(View, frozen=True, kw_only=True):
    """Demand so many minutes ahead: the expected, and what it stays below nine times in ten."""

    minutes: int
    rps: float
    rps_below: float


class DemandView(View, frozen=True, kw_only=True):
    """Requests per second of one model in one cell, who counts them, by what source, and how old that is.

    `sources`: `fra-1 (gateway)`, one for each front door: `file`, `gateway`, `prometheus` or `engines`. `is_spread`:
    the requests name no cell, so they are taken to be near the cluster.
    """

    model: str
    cell: str
    rps: float
    sources: tuple[str, ...]
    age_s: float
    is_decaying: bool
    is_spread: bool
    forecast: tuple[ForecastView, ...]
    """The cell's part of its region's; empty in the first hour of a controller."""


class EngineView(View, frozen=True, kw_only=True):
    """How busy the replicas of one model in one cluster are, by their engines. Null is what they do not say."""

    model: str
    cluster: str
    replicas: int
    requests_per_second: float | None
    input_tokens_per_second: float | None
    output_tokens_per_second: float | None
    running: float | None
    waiting: float | None
    kv_cache_used: float | None
    declared_rps: float | None
    """Of one replica, by the Model document; null where it runs on several accelerators."""
    learnt_rps: float | None
    """What plans count on."""
    age_s: float


class ClusterView(View, frozen=True, kw_only=True):
    """One cluster, with everything the map colours it by. `reason` says why it is in this phase or state."""

    name: str
    provider: str
    region: str
    zone: str
    tier: str
    city: str
    country: str
    lat: float
    lon: float
    jurisdictions: tuple[str, ...]
    phase: Phase
    cordoned: bool
    draining: bool
    worst_state: WorstState
    reason: str
    report_age_s: float | None
    accelerators: int | None
    """Allocatable devices; null until reported."""
    pools: tuple[PoolView, ...]
    replicas: tuple[ReplicasView, ...]
    ack: AckView | None
    gateways: tuple[GatewayView, ...] = ()
    observed: tuple[ObservedView, ...] = ()
    """Empty where nobody reports answers, and of a cluster that is not heard."""
    growth: tuple[GrowthView, ...] = ()
    conditions: tuple[ConditionView, ...] = ()


class NearView(View, frozen=True, kw_only=True):
    """How near users are served: round trips of served requests in ms, mean and 95th percentile.

    `excess_ms_mean` is how much farther requests go than to the nearest cluster that could serve them, full or not: one
    that takes load, has an accelerator that the model runs on, and that policy lets serve these users.
    """

    rtt_ms_mean: float
    rtt_ms_p95: float
    excess_ms_mean: float


class ModelView(View, frozen=True, kw_only=True):
    """One model over all clusters. `state` is the worst of objective met, floors held, demand served."""

    name: str
    runtime: str
    policy: str
    objective_ms: float
    service_ms: float
    """The time that a replica takes to answer: latency without the round trip."""
    demand_rps: float
    served_rps: float
    late_rps: float
    unserved_rps: float
    replicas_desired: int
    replicas_ready: int
    usd_per_hour: float
    near: NearView | None
    """By the shares in force; null while none of its users are served, or no plan has been made."""
    state: WorstState
    reasons: tuple[str, ...]


class RouteView(View, frozen=True, kw_only=True):
    """Share of a cell's requests that a cluster gets now; `target_share` is where it is stepping to."""

    cluster: str
    share: float
    target_share: float
    latency_ms: float
    excess_ms: float | None
    """Round trip beyond that to the nearest cluster that could serve these users; null before the first plan."""
    latency_source: str
    latency_basis: LatencyBasis = "prior"
    latency_age_s: float | None = None
    """Age of the newest measurement behind the figure; null without one."""
    latency_confidence: float | None = None
    """The probability that the true round trip is within 20 % of the estimate; null where it is unknown."""
    rtt_ms_p95: float | None = None
    """95th percentile of the round trips themselves, as they scatter; null where it is unknown."""
    within_objective: bool


class LatencyView(View, frozen=True, kw_only=True):
    """`GET /v1/latency?cell=&cluster=`: the round trip between the users of a cell and a cluster.

    `confidence`: the probability that the true median is within 20 % of `rtt_ms_p50`. `age_s`: of the newest
    measurement behind it; null without one.
    """

    cell: str
    cluster: str
    rtt_ms_p50: float
    rtt_ms_p95: float | None
    basis: LatencyBasis
    source: str
    confidence: float | None
    age_s: float | None


class CellDemandView(View, frozen=True, kw_only=True):
    """One model's users in one cell, counted at the front doors of `counted_by`.

    `age_s` is of the oldest of these counts; `is_decaying` when one is so old that less and less of it is believed.
    """

    model: str
    rps: float
    age_s: float
    is_decaying: bool
    counted_by: tuple[str, ...]
    unserved_rps: float
    code: UnservedCode
    reason: str
    """The code in a sentence."""
    routes: tuple[RouteView, ...]


class CellView(View, frozen=True, kw_only=True):
    """Users of one place."""

    name: str
    country: str
    lat: float
    lon: float
    demand: tuple[CellDemandView, ...]


class OverviewView(View, frozen=True, kw_only=True):
    """The whole world in one answer: what the map draws. `within_objective_share` is null while nothing is served."""

    at_s: float
    """Unix seconds of the controller's clock."""
    speed: float
    """Seconds of that clock per second of the machine's; 1 outside the demo."""
    epoch: int
    generation: int
    usd_per_hour: float
    demand_rps: float
    unserved_rps: float
    within_objective_share: float | None
    near: NearView | None
    """By the shares in force, of all models; null while nothing is served, or no plan has been made."""
    brake: str
    """Why moves are frozen; empty while the brake is released."""
    message: str
    """The sentence of the last cycle."""
    clusters: tuple[ClusterView, ...]
    models: tuple[ModelView, ...]
    cells: tuple[CellView, ...]


class IsochronesView(View, frozen=True, kw_only=True):
    """`GET /v1/isochrones/{model}`: the latency of a user anywhere, by a grid over the inhabited earth.

    Squares go row by row from the north west. `latency_ms` is the round trip to the best of `clusters`, those with
    ready replicas, and `service_ms`; `cluster` its index there; `basis` has a letter for each square: m, i or p for
    measured, inferred or prior. All three are empty while no replica is ready.
    """

    model: str
    epoch: int
    generation: int
    objective_ms: float
    service_ms: float
    west_deg: float
    north_deg: float
    step_deg: float
    columns: int
    rows: int
    clusters: tuple[str, ...]
    latency_ms: tuple[int, ...]
    cluster: tuple[int, ...]
    basis: str


class ReadyView(View, frozen=True, kw_only=True):
    """A cluster with ready replicas as a user at some place would have it; fields as of `RouteView`."""

    cluster: str
    latency_ms: float
    latency_source: str
    latency_basis: LatencyBasis
    latency_age_s: float | None
    latency_confidence: float | None
    rtt_ms_p95: float | None
    within_objective: bool


class PlaceView(View, frozen=True, kw_only=True):
    """`GET /v1/isochrones/{model}?lat=&lon=`: the ready replicas that are nearest to a place, the best first."""

    model: str
    lat: float
    lon: float
    objective_ms: float
    service_ms: float
    clusters: tuple[ReadyView, ...]


class PlacementView(View, frozen=True, kw_only=True):
    """One row of `get placements`."""

    model: str
    cluster: str
    region: str
    pool: str
    desired: int
    ready: int | None
    usd_per_hour: float
    reason: str


class MoveView(View, frozen=True, kw_only=True):
    """A change of one plan: replicas that start or stop, and why."""

    model: str
    cluster: str
    pool: str
    before: int
    after: int
    reason: str


class CostView(View, frozen=True, kw_only=True):
    """US dollars per hour, by cause. `proximity` is the price that policy puts on latency; nobody is paid for it.

    `risk` is expected: late requests and new starts after replicas are taken back.
    """

    accelerators: float
    egress: float
    late: float
    unserved: float
    moves: float
    proximity: float
    risk: float
    total: float


class PlannedUnservedView(View, frozen=True, kw_only=True):
    """The users of a model that a plan leaves unserved for one cause, in so many cells."""

    model: str
    code: UnservedCode
    requests_per_second: float
    cells: int


class ShortfallView(View, frozen=True, kw_only=True):
    """A rule of a policy that no placement can hold; `subject` is the cluster or the domain that it is about."""

    model: str
    rule: str
    subject: str
    reason: str


class LimitView(View, frozen=True, kw_only=True):
    """A limit that leaves no room for another replica. `subject` is the model, or the policy whose budget it is."""

    limit: Limit
    subject: str
    reason: str


class PlanView(View, frozen=True, kw_only=True):
    """One committed plan. `moves` counts pairs of a start and a stop.

    `bound_usd_per_hour` is a proven lower bound on the cost of any placement within the rules and the moves that policy
    allows at the time; `gap` is the fraction of the cost above it. `bound_is_loose`: the gap is more likely the bound's
    than the plan's. `limits`: models at their maxReplicas and policies at their budget, in sentences.
    """

    epoch: int
    generation: int
    at_s: float
    trigger: str
    summary: str
    cost: CostView
    near: NearView | None
    """As planned, of all models; null where nothing is served."""
    near_by_model: dict[str, NearView]
    bound_usd_per_hour: float
    gap: float
    bound_is_loose: bool
    moves: int
    changes: tuple[MoveView, ...]
    limits: tuple[str, ...]
    reached: tuple[LimitView, ...]
    """The same as `limits`, with their codes."""
    unserved: tuple[PlannedUnservedView, ...]
    shortfalls: tuple[ShortfallView, ...]


class EventView(View, frozen=True, kw_only=True):
    """An event: `reason` is listed in the reference, `message` is a sentence."""

    id: int
    at_s: float
    type: EventType
    reason: str
    object: str
    """`cluster/fra-1`, `model/chat-8b`, `policy/chat.yaml`, `plan/7.12`, `controller`."""
    message: str


class RouteTableRow(View, frozen=True, kw_only=True):
    """Shares of one model and cell, summing to 1 unless part is unserved."""

    model: str
    cell: str
    country: str
    lat: float
    lon: float
    rps: float
    unserved_share: float
    routes: tuple[RouteView, ...]


class RouteTable(View, frozen=True, kw_only=True):
    """`GET /v1/routes`: `version` grows with every change of any share."""

    version: int
    epoch: int
    generation: int
    items: tuple[RouteTableRow, ...]


class NearestRoute(View, frozen=True, kw_only=True):
    """`GET /v1/routes?model=&lat=&lon=`: the clusters that serve a user there, and the cell by which that was
    decided."""

    model: str
    lat: float
    lon: float
    cell: str
    cell_distance_km: float
    routes: tuple[RouteView, ...]


class ScoreTermView(View, frozen=True, kw_only=True):
    """One term of an explanation, in US dollars per hour."""

    name: str
    usd_per_hour: float


class ClusterVerdictView(View, frozen=True, kw_only=True):
    """Why a model is or is not in a cluster; `usd_per_hour_if_placed` is what forcing one replica there would add."""

    cluster: str
    replicas: int
    code: str
    reason: str
    usd_per_hour_if_placed: float | None
    terms: tuple[ScoreTermView, ...]


class FilterView(View, frozen=True, kw_only=True):
    """How many clusters a filter left."""

    name: str
    survivors: int
    removed: tuple[str, ...]


Explained = Literal["plan", "newest"]
"""The plan in force, or the newest solve, which the plan may not have adopted."""


class ExplanationView(View, frozen=True, kw_only=True):
    """`GET /v1/explain/placement/{model}`: survivors per filter, then a verdict per cluster.

    `of` says what is explained, `epoch` and `generation` the plan in force. `kept_because`: why the plan keeps the
    model's placement where the newest solve has another; empty where both are the same.
    """

    model: str
    epoch: int
    generation: int
    of: Explained = "plan"
    kept_because: str = ""
    summary: str
    filters: tuple[FilterView, ...]
    clusters: tuple[ClusterVerdictView, ...]
    unserved: tuple[str, ...]


class WayView(View, frozen=True, kw_only=True):
    """One cluster for one cell; `terms` and their sum are of one request per second."""

    cluster: str
    requests_per_second: float
    latency_ms: float | None
    code: str
    reason: str
    usd_per_hour: float | None
    terms: tuple[ScoreTermView, ...]


class CellExplanationView(View, frozen=True, kw_only=True):
    """`GET /v1/explain/cell/{model}/{cell}`: what a request would cost in each cluster; those that serve first."""

    model: str
    cell: str
    epoch: int
    generation: int
    summary: str
    ways: tuple[WayView, ...]
    unserved: tuple[str, ...]


class FrontierPointView(View, frozen=True, kw_only=True):
    """A plan on the curve: `usd_per_hour` is all that it costs but priced milliseconds and moves.

    `usd_per_1000_per_ms`: the price of a millisecond of 1,000 requests that gives it, as latencyUsdPer1000PerMs. `gap`
    is how far it is from its own bound at most.
    """

    usd_per_1000_per_ms: float
    usd_per_hour: float
    rtt_ms_mean: float
    excess_ms_mean: float
    unserved_rps: float
    gap: float


class FrontierView(View, frozen=True, kw_only=True):
    """`GET /v1/frontier`: the fewest dollars for each mean round trip, of the fleet or of one `model` (else empty).

    Ask again until `is_done`: there are `points` so far, of at most `wanted`, the cheapest first. `in_parts`: the plans
    of the curve are in parts of replicas. `on_curve` is where the policies in force stand by the same means, `planned`
    the newest plan in whole replicas; both are null until they are known, and where nobody is served.
    """

    model: str
    epoch: int
    generation: int
    is_done: bool
    wanted: int
    points: tuple[FrontierPointView, ...]
    in_parts: bool
    on_curve: FrontierPointView | None
    planned: FrontierPointView | None
    says: str
    """The position of the policies and the cost of a step to either side, in a sentence; empty until the curve is
    done."""
    seconds: float
    """Seconds spent so far."""


class LatencyChangeView(View, frozen=True, kw_only=True):
    """Mean latency of one cell's served users, before and after."""

    model: str
    cell: str
    before_ms: float | None
    after_ms: float | None


class RestartView(View, frozen=True, kw_only=True):
    """Replicas of a model that restart, in one cluster first and everywhere once one is ready there."""

    model: str
    replicas: int


class DiffView(View, frozen=True, kw_only=True):
    """`POST /v1/diff`: what would move, at what cost, and whose latency changes.

    `restarts` are replicas that restart in place: another image, arguments or resources. `refused` says why `apply`
    would require --force and a reason; empty if it would not.
    """

    changed: bool
    usd_per_hour_before: float
    usd_per_hour_after: float
    near_before: NearView | None
    near_after: NearView | None
    changes: tuple[MoveView, ...]
    latency: tuple[LatencyChangeView, ...]
    unserved_rps_before: float
    unserved_rps_after: float
    refused: tuple[str, ...] = ()
    restarts: tuple[RestartView, ...] = ()


class ProblemView(View, frozen=True, kw_only=True):
    """A problem in a policy file. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    message: str
    expected: str
    hint: str


class PolicyFileView(View, frozen=True, kw_only=True):
    """One policy file: its revision in force, and the problems of its newest content."""

    name: str
    revision: int
    accepted_at_s: float | None
    documents: tuple[str, ...]
    """`Model/chat-8b`, …"""
    problems: tuple[ProblemView, ...]
    warnings: tuple[ProblemView, ...] = ()
    """Parts of the revision in force that have less effect than they say."""
    carrying_out: str = ""
    """The progress of a forced change (`carried out in steps: …`, `halted: …`); empty without one."""


class AppliedView(View, frozen=True, kw_only=True):
    """`POST /v1/policies`: the change is durable when this is answered."""

    revision: int
    documents: tuple[str, ...]
    changed: bool
    warnings: tuple[ProblemView, ...] = ()
    """Parts of the file that have less effect than they say."""


class WithdrawnView(View, frozen=True, kw_only=True):
    """`DELETE /v1/policies/{name}`: no longer in force when this is answered."""

    name: str
    documents: tuple[str, ...]


class ErrorView(View, frozen=True, kw_only=True):
    """Every refusal: a constant code, the cause, and the next step."""

    code: str
    message: str
    hint: str
    problems: tuple[ProblemView, ...] = ()


class ReasonBody(View, frozen=True, kw_only=True):
    """The reason for an order, for the next engineer."""

    reason: Annotated[str, msgspec.Meta(min_length=1, pattern=r"\S")]


class Items(View, frozen=True, kw_only=True):
    """Lists are `{"items": [...]}`, as in Kubernetes."""

    items: tuple[object, ...]
