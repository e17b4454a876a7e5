"""The outcome of a cycle: values that the store keeps, the API shows and the publisher sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec

from federation.policy.documents import Model, PlacementPolicy
from federation.state.keys import ClusterPool, ModelCell, PlacementKey
from federation.state.world import Known
from federation.wire.messages import PoolKey
from placement import Cost, Reached, Shortfall, Unserved, UnservedCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """A number of replicas of one model in one pool of one cluster, and the reason.

    `stop_reason`: for a lowered number, what serves instead or who ordered it.
    """

    model: str
    cluster: str
    pool: PoolKey
    replicas: int
    reason: str = ""
    stop_reason: str = ""

    @property
    def key(self) -> PlacementKey:
        """What identifies it."""
        return PlacementKey(self.model, self.cluster, self.pool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A desired count that a plan changed, and why."""

    model: str
    cluster: str
    pool: PoolKey
    before: int
    after: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """How near users are served: round trips of served requests in ms. `excess_ms_mean` is the mean distance beyond the
    nearest cluster that could serve them, full or not."""

    rtt_ms_mean: float
    rtt_ms_p95: float
    excess_ms_mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The memory of hysteresis, in Unix seconds of the controller's clock."""

    changed_s: Mapping[str, float] = field(default_factory=dict)
    """Model -> when its placement last changed by choice."""
    moved_s: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Model -> one entry per move by choice within the last hour."""


NO_COST = Cost(accelerators=0.0, egress=0.0, late=0.0, unserved=0.0, moves=0.0, proximity=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The replicas that a placement cycle decided on, and the engine's figures for them.

    `replicas` have counts above zero. `cost.total` is the objective of the engine; `bound_usd_per_hour` is a proven
    lower bound of it, and `gap` the part of the cost above the bound.
    """

    replicas: tuple[Replicas, ...] = ()
    summary: str = ""
    """Which models change and why, in one sentence."""
    moves: int = 0
    """Pairs of a start and a stop that lead to it."""
    cost: Cost = NO_COST
    near: Near | None = None
    """Of the users of all models, as planned; None where none are served."""
    near_by_model: Mapping[str, Near] = field(default_factory=dict)
    bound_usd_per_hour: float = 0.0
    gap: float = 0.0
    bound_is_loose: bool = False
    """The gap is more likely the bound's than the placement's: in a shortage, say."""
    unserved: tuple[Unserved, ...] = ()
    shortfalls: tuple[Shortfall, ...] = ()
    """Floors of policies that no placement can hold."""
    reached: tuple[Reached, ...] = ()
    """Limits that leave no room for one more replica."""

    def by_key(self) -> dict[PlacementKey, int]:
        """Counts, all above zero."""
        return {one.key: one.replicas for one in self.replicas}

    def limits_of(self, model: str, policy: str) -> tuple[Reached, ...]:
        """The reached limits of a model that `policy` governs: its maxReplicas, and the policy's budget."""
        return tuple(one for one in self.reached if one.subject == (policy if one.limit == "budget" else model))


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """A model whose newest document has not started yet, beside the last document that did (`settled`).

    The newest is tried at one (cluster, pool) first; all other replicas stay. `failed` are clusters in which it did not
    start; `refused` is the reason for giving it up, after which no agent gets it.
    """

    settled: Model
    newest: str
    """The version (see `desired.version`) that is tried or refused."""
    trial: ClusterPool | None = None
    failed: tuple[str, ...] = ()
    refused: str = ""

    def told(self, newest: Model, place: ClusterPool) -> Model:
        """The document for replicas at `place`: the settled runtime and resources, except where the newest is tried."""
        if place == self.trial and not self.refused:
            return newest
        spec = msgspec.structs.replace(
            newest.spec, runtime=self.settled.spec.runtime, resources=self.settled.spec.resources
        )
        return msgspec.structs.replace(newest, spec=spec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forced:
    """A harmful change that a person ordered nevertheless: it is carried out in steps.

    Args: object: the policy file. models: those whose placement it changes. withdrawn: the last documents of the models
        that it withdraws. policies: the policies that governed these, which name only withdrawn models; agents and
        users are served by both until the replicas are gone. replicas: of the fleet at the time of the order.
        unserved_rps: by model, as predicted. error_share: by model, of the worst cluster, at the time of the order.
        stopped: replicas so far. halted: the reason for a halt, or empty.
    """

    object: str
    actor: str
    reason: str
    at_s: float
    models: tuple[str, ...] = ()
    withdrawn: tuple[Model, ...] = ()
    policies: tuple[PlacementPolicy, ...] = ()
    replicas: int = 0
    unserved_rps: Mapping[str, float] = field(default_factory=dict)
    error_share: Mapping[str, float] = field(default_factory=dict)
    stopped: int = 0
    halted: str = ""

    def words(self, model: str) -> str:
        """Why a replica of `model` is stopped: the person, and the person's reason."""
        is_withdrawn = any(one.metadata.name == model for one in self.withdrawn)
        verb = "withdrawn" if is_withdrawn else "changed"
        return f"{verb} by {self.actor}: {self.reason}"

    @property
    def state(self) -> str:
        """The progress, for people."""
        return f"halted: {self.halted}" if self.halted else f"carried out in steps: {self.stopped} replicas stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One committed decision.

    `placement` is the goal, `desired` the counts that agents are told on the way there (make before break). A desired
    count of zero asks an agent to delete; replicas without an entry are left alone. `generation` grows by one with each
    commit, `epoch` with each start of a controller.
    """

    epoch: int = 0
    generation: int = 0
    at_s: float = 0.0
    trigger: str = ""
    summary: str = "nothing has been decided yet"
    placement: Placement = field(default_factory=Placement)
    desired: tuple[Replicas, ...] = ()
    changes: tuple[Change, ...] = ()
    moves: int = 0
    history: History = field(default_factory=History)
    generations: Mapping[str, int] = field(default_factory=dict)
    """Cluster -> generation of the newest change of its order."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Cluster -> digest of its order."""
    settled: Mapping[str, Model] = field(default_factory=dict)
    """Model -> the last document from which a replica became ready."""
    versions: Mapping[str, Versions] = field(default_factory=dict)
    """Models whose newest document is not settled."""
    forced: tuple[Forced, ...] = ()
    """Harmful changes that people ordered and that are not carried out yet."""
    known: Mapping[str, Known] = field(default_factory=dict)
    """Cluster -> the demand that its front door is known to count; `since_s` in Unix seconds of the controller's clock.
    """

    def without_orders(self) -> Plan:
        """A plan that is known to be outdated, without its goal and its orders: the running replicas are the better
        knowledge."""
        placement = replace(self.placement, replicas=())
        return replace(self, placement=placement, desired=(), changes=(), generations={}, digests={})

    def desired_by_key(self) -> dict[PlacementKey, int]:
        """Desired counts, including zeros."""
        return {one.key: one.replicas for one in self.desired}

    def stops_by_key(self) -> dict[PlacementKey, str]:
        """The reason for each lowered desired count."""
        return {one.key: one.stop_reason for one in self.desired if one.stop_reason}

    def target_by_key(self) -> dict[PlacementKey, int]:
        """The counts of the placement, all above zero."""
        return self.placement.by_key()

    def relied_on(self, routes: Routes) -> frozenset[str]:
        """Clusters with replicas of the plan, or with a share of the routes."""
        placed = {one.cluster for one in (*self.placement.replicas, *self.desired) if one.replicas > 0}
        return frozenset(placed | {share.cluster for route in routes.routes for share in route.now})


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The part of one cell's requests for one model that `cluster` gets."""

    cluster: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Shares of one (model, cell): `now` in force, `target` the goal of the steps. The remainder to 1 is unserved."""

    model: str
    cell: str
    now: tuple[Share, ...]
    target: tuple[Share, ...]
    unserved_reason: str = ""
    unserved_code: UnservedCode | None = None
    """None where all are served, and in tables of a version that stored none."""

    @property
    def key(self) -> ModelCell:
        """Whose requests it is for."""
        return ModelCell((self.model, self.cell))


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """The routing table. `version` grows with every change of a share in force."""

    version: int = 0
    at_s: float = 0.0
    routes: tuple[Route, ...] = ()

    def by_key(self) -> dict[ModelCell, Route]:
        """Every route."""
        return {route.key: route for route in self.routes}
