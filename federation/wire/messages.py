"""The messages between controller and agents: frozen, tagged, versioned, self-contained.

A message is full state, never a difference, so a lost, repeated or reordered message cannot corrupt the receiver's
beliefs. Unknown fields are ignored on decoding, so a newer peer is understood. This module imports nothing else of the
product: it is the only module that both sides share.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

MAX_MESSAGE_BYTES = 1024 * 1024
"""A larger payload is refused unread. 5,000 rows of demand fit in two thirds of it, and brokers accept it by
default."""
MAX_NODE_CPU_MILLIS = 10_000_000_000
MAX_NODE_MEMORY_MIB = 10_000_000_000
"""Of one node. A report with a higher value is refused whole, so an agent must count such a node as zero."""

Name = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
Market = Literal["on-demand", "spot", "reserved"]
Sharing = Literal["none", "time-slicing", "mps"]
VerticalScaling = Literal["none", "off", "initial", "recreate"]
Cause = Literal["", "starting", "image", "unschedulable", "crash", "quota", "config", "refused"]
"""The kind of cause why replicas are not ready: `starting` passes by itself; `config` is a missing secret, volume or
device; `refused` is a rejection by admission or the API server."""
NonNegative = Annotated[float, Meta(ge=0)]
MOST_ORDINAL = 2**53 - 1
"""The largest integer that every JSON reader represents exactly."""
Ordinal = Annotated[int, Meta(ge=0, le=MOST_ORDINAL)]
"""An epoch or a generation: it grows for as long as a federation lives."""
MOST_EPOCH = 2**52
"""No controller has a higher epoch: agents refuse it, and controllers ignore it."""
MOST_EPOCH_LEAP = 2**33
"""The largest step of an agent's epoch. A controller that is further ahead leads the agent there by several orders. A
forged epoch therefore locks nobody out: half a million of them exhaust the range, and `--take-over` goes beyond each.
"""
Count = Annotated[int, Meta(ge=0, le=1_000_000)]


# `gc=False`: messages are trees of plain values and there are hundreds of thousands of them. The collector of cycles,
# which holds every thread while it runs, need not visit them.


class WireError(ValueError):
    """A payload that is not a message of this protocol. It is counted and dropped; the sender is not forgotten for
    it."""


def partition_name(profile: str) -> str:
    """A profile in the spelling that resource names allow: `1g.6gb+me` becomes `1g.6gb.me`."""
    return profile.replace("+", ".")


class PoolKey(msgspec.Struct, frozen=True, order=True, kw_only=True, gc=False):
    """The kind of an accelerator pool of a cluster. `mig_profile` is empty for whole devices."""

    product: Annotated[str, Meta(min_length=1, max_length=100)]
    mig_profile: Annotated[str, Meta(max_length=30)] = ""
    market: Market = "on-demand"

    @property
    def text(self) -> str:
        """`NVIDIA-L4/spot`, `NVIDIA-H100-80GB-HBM3:1g.20gb/on-demand`: readable, and an identifier."""
        mig = f":{self.mig_profile}" if self.mig_profile else ""
        return f"{self.product}{mig}/{self.market}"


class ModelPool(NamedTuple):
    """The replicas of a model in one pool of a cluster."""

    model: str
    pool: PoolKey


class NodeRoom(msgspec.Struct, frozen=True, order=True, kw_only=True, gc=False):
    """Free resources on each of `nodes` equal nodes: the most that replicas on one node can use."""

    nodes: Annotated[int, Meta(ge=1, le=100_000)] = 1
    devices: Count
    cpu_millis: Annotated[int, Meta(ge=0, le=MAX_NODE_CPU_MILLIS)]
    memory_mib: Annotated[int, Meta(ge=0, le=MAX_NODE_MEMORY_MIB)]


class PoolReport(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One accelerator pool as the agent sees it. A price is null where the cluster does not know its own."""

    key: PoolKey
    vram_gib: NonNegative
    """GiB of one device; 0 with `vram_known` false."""
    allocatable: Count
    """Devices that ready, schedulable nodes offer."""
    free: Count
    """Allocatable devices that no pod requests."""
    leaving: Count = 0
    """Devices of nodes that are announced to leave, as by an interruption notice. They are not in `allocatable`;
    replicas on them still serve."""
    usd_per_device_hour: NonNegative | None = None
    vram_known: bool = True
    verified: bool = True
    """Whether the vendor's own labels identify the product; false with a PCI class or a bare resource only."""
    sharing: Sharing = "none"
    room: Annotated[tuple[NodeRoom, ...], Meta(max_length=512)] | None = None
    """Free resources node by node, with equal nodes merged; null where the agent cannot tell. See
    `replicas_that_fit`."""
    region: Annotated[str, Meta(max_length=63)] = ""
    zones: Annotated[tuple[str, ...], Meta(max_length=32)] = ()
    instance_types: Annotated[tuple[str, ...], Meta(max_length=32)] = ()
    taints: Annotated[tuple[str, ...], Meta(max_length=32)] = ()
    """Taints of the pool's nodes, as `key:effect`; the agent's replicas tolerate them."""


class Growth(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Devices that an autoscaler could still add; never free, and never counted as present.

    `pool` is null where the devices of the node group are unknown.
    """

    group: Annotated[str, Meta(max_length=253)]
    source: Literal["cluster-autoscaler", "karpenter"]
    pool: PoolKey | None = None
    nodes: Count | None = None
    devices: Count | None = None
    provisioning_s: NonNegative | None = None
    """From the request for a node until it is ready, as observed on this group's nodes; null without an observation."""


class Condition(msgspec.Struct, frozen=True, order=True, kw_only=True, gc=False):
    """A finding about the cluster for people: `type` is listed in `wire/conditions.py`, `message` is a sentence."""

    type: Annotated[str, Meta(max_length=60)]
    object: Annotated[str, Meta(max_length=300)]
    """For example `node/gpu-1` or `nodepool/gpu-spot`."""
    message: Annotated[str, Meta(max_length=300)]


def replicas_that_fit(room: Iterable[NodeRoom], *, devices: int, cpu_millis: int, memory_mib: int) -> int:
    """The number of replicas with these needs that find a place. A replica never spans nodes."""
    return sum(
        one.nodes
        * min(
            one.devices // devices,
            one.cpu_millis // cpu_millis if cpu_millis else one.devices,
            one.memory_mib // memory_mib if memory_mib else one.devices,
        )
        for one in room
    )


class NodeReport(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A node with accelerators that is unhealthy or about to leave; healthy nodes appear in their pool's room."""

    name: Annotated[str, Meta(max_length=253)]
    pool: PoolKey
    devices: Count
    ready: bool
    reason: Annotated[str, Meta(max_length=300)] = ""


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Observed replicas of one model in one pool; `reason` says why the others are not ready."""

    model: Name
    pool: PoolKey
    desired: Count
    ready: Count
    scheduled: Count | None = None
    """Replicas with a node, which hold devices whether or not they are ready; null where the agent cannot tell."""
    reason: Annotated[str, Meta(max_length=300)] = ""
    cause: Cause = ""
    """The kind of `reason`, where replicas are missing and the agent can tell."""
    restarts: Count = 0
    """Container restarts, summed over the pods."""
    outdated: Count = 0
    """Ready replicas that were started from an earlier order: an update is in progress, or stuck."""

    @property
    def key(self) -> ModelPool:
        """The model and the pool."""
        return ModelPool(self.model, self.pool)


class PeerRtt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Round-trip time to another cluster's probe endpoint over the last window."""

    cluster: Name
    rtt_ms_p50: NonNegative
    rtt_ms_p95: NonNegative
    samples: Count


class UserCell(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Users of one place. `country` is ISO 3166-1 alpha-2; degrees, WGS 84."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    country: Annotated[str, Meta(pattern=r"^[A-Z]{2}$")]
    lat: Annotated[float, Meta(ge=-90, le=90)]
    lon: Annotated[float, Meta(ge=-180, le=180)]


class DemandSample(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Requests of one cell for one model, counted at this cluster's front door."""

    model: Name
    cell: UserCell
    requests_per_second: NonNegative


class ReplicaEndpoint(msgspec.Struct, frozen=True, order=True, kw_only=True, gc=False):
    """Where a ready replica of a model answers HTTP inside its cluster: an IP address and a port."""

    model: Name
    address: Annotated[str, Meta(min_length=2, max_length=45, pattern=r"^[0-9a-fA-F.:]+$")]
    port: Annotated[int, Meta(ge=1, le=65535)]


class ServedSample(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How this cluster's replicas of one model answered over the last window, measured by its own gateway.

    `latency_ms_p95` is from request to response at the gateway, over enough of the newest answers; null without
    requests, or with too few answers.
    """

    model: Name
    requests_per_second: NonNegative
    error_share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    latency_ms_p95: NonNegative | None = None


class CountedSample(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Users' requests for one model at this cluster's own gateway, refused ones too. `cell` is as they name it, empty
    where they name none; where that is, the controller knows."""

    model: Name
    cell: Annotated[str, Meta(max_length=100)] = ""
    requests_per_second: NonNegative


class EngineSample(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the engines of one model's replicas here say of themselves: sums over the `replicas` that answered.

    Null is what their engine does not tell, or cannot yet: rates take two readings. `kv_cache_used` is the mean.
    """

    model: Name
    replicas: Count
    requests_per_second: NonNegative | None = None
    """Answered in full."""
    input_tokens_per_second: NonNegative | None = None
    output_tokens_per_second: NonNegative | None = None
    running: NonNegative | None = None
    waiting: NonNegative | None = None
    kv_cache_used: Annotated[float, Meta(ge=0, le=1)] | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report", gc=False):
    """An agent's full knowledge of its cluster. Retained by the broker. Within one start (`boot_id`) the highest `seq`
    is the newest; another start takes over once the one in force is gone. No clock decides what is newer.

    `epoch` and `generation` are the highest that the agent accepted; 0 and 0 before the first.
    """

    version: Literal[1] = 1
    cluster: Name
    boot_id: Annotated[str, Meta(min_length=8, max_length=64)]
    seq: Annotated[int, Meta(ge=1)]
    boot_order: Annotated[int, Meta(ge=0)] = 0
    """The number of the agent's starts, as far as it remembers. It orders nothing."""
    interval_s: Annotated[float, Meta(gt=0, le=3600)]
    pools: Annotated[tuple[PoolReport, ...], Meta(max_length=512)] = ()
    nodes: Annotated[tuple[NodeReport, ...], Meta(max_length=5000)] = ()
    replicas: Annotated[tuple[ReplicaReport, ...], Meta(max_length=5000)] = ()
    peers: Annotated[tuple[PeerRtt, ...], Meta(max_length=5000)] = ()
    demand: Annotated[tuple[DemandSample, ...], Meta(max_length=5000)] = ()
    endpoints: Annotated[tuple[ReplicaEndpoint, ...], Meta(max_length=5000)] = ()
    """Ready replicas by address, sorted; empty where the agent cannot tell, which removes nothing."""
    served: Annotated[tuple[ServedSample, ...], Meta(max_length=1000)] = ()
    """How the replicas answered; empty where nobody measures, which is no fault."""
    counted: Annotated[tuple[CountedSample, ...], Meta(max_length=5000)] = ()
    """What the cluster's gateway counted of users' requests; used for models without rows in `demand`."""
    engines: Annotated[tuple[EngineSample, ...], Meta(max_length=1000)] = ()
    """The load of the replicas as their engines report it; empty where no engine can be read."""
    probe: Annotated[str, Meta(max_length=300)] = ""
    """`host:port` to which peers may open a TCP connection to measure the round trip; empty without one."""
    epoch: Ordinal = 0
    generation: Ordinal = 0
    kubernetes_version: Annotated[str, Meta(max_length=60)] = ""
    agent_version: Annotated[str, Meta(max_length=60)] = ""
    growth: Annotated[tuple[Growth, ...], Meta(max_length=512)] = ()
    conditions: Annotated[tuple[Condition, ...], Meta(max_length=64)] = ()
    clock_s: float | None = None
    """Unix seconds of the agent's clock at the report. It orders nothing; its skew is reported."""


NOT_READY = "it was not ready"
"""The stop reason of replicas that serve nobody. It stops none that the agent sees ready."""


class Workload(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The order for one model in one pool. `replicas: 0` asks for deletion; a workload that is not named is left
    alone."""

    model: Name
    pool: PoolKey
    replicas: Count
    devices: Annotated[int, Meta(ge=1, le=64)]
    """Devices per replica."""
    runtime: Annotated[str, Meta(min_length=1, max_length=40)]
    image: Annotated[str, Meta(min_length=1, max_length=500)]
    args: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    port: Annotated[int, Meta(ge=1, le=65535)] = 8000
    cpu: Annotated[str, Meta(max_length=20)]
    memory: Annotated[str, Meta(max_length=20)]
    min_vram_gib: NonNegative = 0.0
    warmup_s: NonNegative = 0.0
    burst_replicas: Annotated[int, Meta(ge=0, le=1000)] = 0
    """Replicas that the cluster may start by itself when it is busy, beyond `replicas`."""
    vertical_scaling: VerticalScaling = "none"
    """Update mode of a VerticalPodAutoscaler; `none` creates none."""
    self_heal: bool = True
    """Whether the agent repairs objects that somebody changed; otherwise it only reports them."""
    stop_reason: Annotated[str, Meta(max_length=300)] = ""
    """Required when replicas decrease: the replacement that was seen ready, the person who ordered it, or
    `NOT_READY`."""

    @property
    def key(self) -> ModelPool:
        """The model and the pool."""
        return ModelPool(self.model, self.pool)


class Desired(msgspec.Struct, frozen=True, kw_only=True, tag="desired", gc=False):
    """The part of a plan that concerns one cluster, fenced by (epoch, generation)."""

    version: Literal[1] = 1
    cluster: Name
    epoch: Annotated[int, Meta(ge=1)]
    generation: Annotated[int, Meta(ge=1)]
    workloads: tuple[Workload, ...] = ()
    checksum: str = ""
    """SHA-256 of the sent content, see `seal`; empty in a decoded message whose content differs from the sealed one."""


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag="ack", gc=False):
    """The agent's answer to a desired state: accepted and carried out, or refused with the reason (a NACK)."""

    version: Literal[1] = 1
    cluster: Name
    boot_id: str
    epoch: Ordinal
    generation: Ordinal
    checksum: str
    ok: bool
    error: Annotated[str, Meta(max_length=1000)] = ""
    accepted_epoch: Ordinal
    """With `accepted_generation`, the highest that the agent holds; after a fencing refusal higher than the sent
    one."""
    accepted_generation: Ordinal


class Status(msgspec.Struct, frozen=True, kw_only=True, tag="status", gc=False):
    """Birth and last will. A hint that shortens detection; the age of the last report is the truth."""

    version: Literal[1] = 1
    cluster: Name
    boot_id: str
    online: bool
    goodbye: bool = False
    """The agent ends in order, as for an upgrade: replicas go on, and its next start may take its place at once."""


class Session(msgspec.Struct, frozen=True, kw_only=True, tag="session", gc=False):
    """The start of a cluster's agent that is in force; sent while two speak under one name, and not retained."""

    version: Literal[1] = 1
    cluster: Name
    boot_id: str
    spread_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    """The period over which agents reconnect after a lost connection, so that a large fleet does not do so at once."""


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag="heartbeat", gc=False):
    """A controller's message to itself and to any other, by each of its subscriptions. A subscription without it is
    deaf.

    `uptime_s` since its start; of two controllers with one epoch the elder leads.
    """

    version: Literal[1] = 1
    controller: Annotated[str, Meta(min_length=8, max_length=64)]
    epoch: Ordinal
    uptime_s: NonNegative


class PeerEndpoint(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a peer's round trip can be measured: `host:port`."""

    cluster: Name
    probe: str


class Peers(msgspec.Struct, frozen=True, kw_only=True, tag="peers", gc=False):
    """Which clusters this agent should measure the round trip to."""

    version: Literal[1] = 1
    cluster: Name
    peers: Annotated[tuple[PeerEndpoint, ...], Meta(max_length=5000)] = ()


class BackendShare(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A cluster that serves part of a gateway's requests: `weight` in thousandths; its front door's IP and port."""

    cluster: Name
    weight: Annotated[int, Meta(ge=0, le=1000)]
    address: str = ""
    port: Annotated[int, Meta(ge=0, le=65535)] = 0


class DnsShare(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """DNS data of this cluster for the names of a model. `weight` (of Route 53's 255) is its share of all requests,
    relative to the largest share of any cluster.

    `countries` (ISO 3166-1 alpha-2) are those most of whose users it serves. `is_default`: users of unlisted countries
    come in here.
    """

    zone: str
    provider: Literal["aws", "any"]
    routing: Literal["weighted", "geoproximity", "geolocation"]
    ttl_s: Annotated[int, Meta(ge=1)]
    weight: Annotated[int, Meta(ge=0, le=255)]
    countries: tuple[str, ...] = ()
    is_default: bool = False


class ModelTraffic(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One model at this cluster's gateway. `port` is the port that replicas listen on."""

    model: Name
    port: Annotated[int, Meta(ge=1, le=65535)] = 8000
    backends: tuple[BackendShare, ...]
    remote: Literal["ServiceImport", "Service"] = "ServiceImport"
    dns: DnsShare | None = None


class Traffic(msgspec.Struct, frozen=True, kw_only=True, tag="traffic", gc=False):
    """Where this cluster's gateway sends requests, for standards that the agent supports. Full state."""

    version: Literal[1] = 1
    cluster: Name
    address: str
    port: Annotated[int, Meta(ge=1, le=65535)]
    lat: float
    lon: float
    models: tuple[ModelTraffic, ...] = ()


Message = Report | Desired | Ack | Status | Peers | Traffic | Session | Heartbeat
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_encoder = msgspec.json.Encoder(order="deterministic")


def encode(message: Message) -> bytes:
    """The message as JSON; equal messages give equal bytes."""
    return _encoder.encode(message)


def decode(payload: bytes) -> Message:
    """The message in `payload`.

    A desired state whose content differs from the sealed one has an empty checksum, so that it can be refused by name.

    Raises: WireError with the cause when the payload is too large, not JSON, of another version, or out of bounds.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise WireError(f"{len(payload)} bytes, more than {MAX_MESSAGE_BYTES}")
    try:
        message = _decoder.decode(payload)
        as_sealed = not isinstance(message, Desired) or message.checksum == _checksum(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(str(error)) from error
    if isinstance(message, Report) and not all(map(math.isfinite, _report_numbers(message))):
        raise WireError("a number is not finite")
    return message if as_sealed else msgspec.structs.replace(message, checksum="")


def _report_numbers(report: Report) -> Iterable[float]:
    for pool in report.pools:
        yield pool.vram_gib
        yield pool.usd_per_device_hour or 0.0
    for growth in report.growth:
        yield growth.provisioning_s or 0.0
    for peer in report.peers:
        yield peer.rtt_ms_p50
        yield peer.rtt_ms_p95
    for sample in report.demand:
        yield sample.requests_per_second
    for one in report.served:
        yield one.requests_per_second
        yield one.latency_ms_p95 or 0.0
    for count in report.counted:
        yield count.requests_per_second
    for engine in report.engines:
        yield engine.requests_per_second or 0.0
        yield engine.input_tokens_per_second or 0.0
        yield engine.output_tokens_per_second or 0.0
        yield engine.running or 0.0
        yield engine.waiting or 0.0


def seal(desired: Desired) -> Desired:
    """The same desired state with its checksum filled in."""
    return msgspec.structs.replace(desired, checksum=_checksum(encode(desired)))


def _checksum(payload: bytes) -> str:
    """Over the sent content, including fields that only a newer peer knows: otherwise its orders could not be
    verified."""
    sent = msgspec.json.decode(payload)
    sent["checksum"] = ""
    return hashlib.sha256(_encoder.encode(sent)).hexdigest()
