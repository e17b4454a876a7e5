"""What the cluster's owner allows, whatever the controller wants: a file that the agent reads when it starts.

The owner's word is the last: a desired state beyond it is refused whole, with the reason, and what runs stays. A file
with a fault stops the agent before it does anything, with file:line:column: limits that are not understood must not
become no limits.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from agents.manifests.build import Destination
from federation.wire import messages
from federation.yamlkit.explain import Problem, explain, find, problem_at
from federation.yamlkit.source import START, YamlNode, YamlProblem, read

API_VERSION = "isochrone.dev/v1alpha1"
Namespace = Annotated[
    str, Meta(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", description="a namespace's name")
]
Repository = Annotated[
    str,
    Meta(
        max_length=255,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*[A-Za-z0-9]$",
        description="a registry or a part of one, as registry.example/team",
    ),
]
TaintKey = Annotated[str, Meta(min_length=1, max_length=317, description="a taint's key")]
SpotLabel = Annotated[
    str,
    Meta(
        max_length=381,
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?(=[A-Za-z0-9._-]*)?$",
        description="a node label, as example.com/spot or example.com/lifecycle=spot",
    ),
]
Port = Annotated[int, Meta(ge=1, le=65535)]


class _Base(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Unknown fields are refused: a limit with a typing error would else not limit."""


class ModelStore(_Base, frozen=True, kw_only=True):
    """Where replicas may fetch models from."""

    cidr: Annotated[str, Meta(max_length=50, description="an IP range in CIDR, as 10.0.0.0/8")]
    ports: Annotated[tuple[Port, ...], Meta(min_length=1, max_length=16)] = (443,)


class Resolver(_Base, frozen=True, kw_only=True):
    """Where replicas may ask for names, by UDP and TCP."""

    cidr: Annotated[str, Meta(max_length=50, description="an IP range in CIDR, as 10.96.0.10/32")]
    ports: Annotated[tuple[Port, ...], Meta(min_length=1, max_length=16)] = (53,)


class Limits(_Base, frozen=True, kw_only=True):
    """What may be done here. What is not named is not limited; but what `modelStore` does not name is shut."""

    namespaces: Annotated[tuple[Namespace, ...], Meta(min_length=1, max_length=64)] | None = None
    """Where models may run."""
    max_replicas: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    """Of all models together, bursts included."""
    accelerator_share: Annotated[float, Meta(ge=0, le=1, description="a share between 0 and 1")] | None = None
    """Of each pool's allocatable devices, rounded down."""
    registries: Annotated[tuple[Repository, ...], Meta(min_length=1, max_length=64)] | None = None
    """Where images may come from; an image that names no registry is held against its first part."""
    require_digest: bool = False
    """Only images that name their digest."""
    gateways: Annotated[tuple[Namespace, ...], Meta(max_length=16)] = ()
    """Namespaces that requests come from; without any, those with the label isochrone.dev/gateway=true."""
    model_store: Annotated[tuple[ModelStore, ...], Meta(max_length=32)] = ()
    dns: Annotated[tuple[Resolver, ...], Meta(max_length=16)] = ()
    """Besides the pods of kube-dns and of OpenShift, NodeLocal DNSCache and Cloud DNS of GKE."""
    tolerated_taints: Annotated[tuple[TaintKey, ...], Meta(max_length=32)] = ()
    """Of nodes that models may run on besides those of accelerators."""
    spot_labels: Annotated[tuple[SpotLabel, ...], Meta(max_length=32)] = ()
    """Of nodes that may be taken back, where the provider's own labels are none that the agent knows."""

    def resolvers(self) -> tuple[Destination, ...]:
        """`dns`, as manifests need it."""
        return tuple(Destination(cidr=one.cidr, ports=one.ports) for one in self.dns)

    def destinations(self) -> tuple[Destination, ...]:
        """`modelStore`, as manifests need it."""
        return tuple(Destination(cidr=one.cidr, ports=one.ports) for one in self.model_store)


class _Document(_Base, frozen=True, kw_only=True):
    api_version: Literal["isochrone.dev/v1alpha1"]
    kind: Literal["AgentLimits"]
    spec: Limits
    metadata: dict[str, Any] | None = None
    """As Helm and Kustomize write it: it limits nothing."""


NONE = Limits()


def parse(name: str, payload: bytes) -> Limits | Problem:
    """The limits in a file, or the first thing that is wrong with it."""
    try:
        nodes = read(payload)
    except YamlProblem as error:
        return problem_at(name, error.mark, error.message, error.expected, error.hint)
    nodes = tuple(one for one in nodes if not one.is_null)
    if len(nodes) != 1 or nodes[0].items is None:
        mark = nodes[1].mark if len(nodes) > 1 else START
        return problem_at(name, mark, f"{len(nodes)} documents", "one document of kind AgentLimits")
    node = nodes[0]
    try:
        document = msgspec.convert(node.plain(), _Document, strict=True)
    except msgspec.ValidationError as error:
        return explain(name, node, _Document, str(error))
    return next(_senseless(name, node, document.spec), document.spec)


def _senseless(name: str, node: YamlNode, limits: Limits) -> Iterator[Problem]:
    given = [("modelStore", at, one.cidr) for at, one in enumerate(limits.model_store)]
    for field, number, cidr in (*given, *(("dns", at, one.cidr) for at, one in enumerate(limits.dns))):
        try:
            ipaddress.ip_network(cidr)
        except ValueError as error:
            mark, _ = find(node, ("spec", field, number, "cidr"))
            yield problem_at(name, mark, f"cidr is {cidr!r}: {error}", "an IP range in CIDR, as 10.0.0.0/8")


def is_from(image: str, registries: tuple[str, ...]) -> bool:
    """Whether an image's name lies in one of these, part by part: `a.example/team` is no part of `a.example/teams`."""
    parts = image.partition("@")[0].split("/")
    parts[-1] = parts[-1].partition(":")[0]
    return any(parts[: len(allowed)] == allowed for allowed in (one.split("/") for one in registries))


def violations(
    limits: Limits,
    desired: messages.Desired,
    *,
    namespace: str,
    pools: tuple[messages.PoolReport, ...],
    replicas: tuple[messages.ReplicaReport, ...],
) -> Iterator[str]:
    """Everything in a desired state that the owner does not allow, in sentences.

    What runs already is not held against the limits again: refusing it would stop nothing.
    """
    if limits.namespaces is not None and namespace not in limits.namespaces:
        yield f"namespace {namespace} is not one of {', '.join(limits.namespaces)}"
    wanted = [one for one in desired.workloads if one.replicas > 0]
    for workload in wanted:
        if limits.registries is not None and not is_from(workload.image, limits.registries):
            yield f"{workload.model}: image {workload.image} is from none of {', '.join(limits.registries)}"
        if limits.require_digest and "@sha256:" not in workload.image:
            yield f"{workload.model}: image {workload.image} names no digest"
    told = {one.key: one.desired for one in replicas}
    if limits.max_replicas is not None:
        total = total_replicas(desired, replicas)
        if total > limits.max_replicas and total > sum(told.values()):
            yield f"{total} replicas, the limit is {limits.max_replicas}"
    if limits.accelerator_share is not None:
        yield from _beyond_share(limits.accelerator_share, wanted, told, pools)


def total_replicas(desired: messages.Desired, replicas: tuple[messages.ReplicaReport, ...]) -> int:
    """All replicas here once `desired` is carried out: what it does not name stays."""
    named = {one.key for one in desired.workloads}
    rest = sum(one.desired for one in replicas if one.key not in named)
    return rest + sum(one.replicas for one in desired.workloads)


def _beyond_share(
    share: float,
    wanted: list[messages.Workload],
    told: Mapping[messages.ModelPool, int],
    pools: tuple[messages.PoolReport, ...],
) -> Iterator[str]:
    for pool in pools:
        here = [one for one in wanted if one.pool == pool.key]
        devices = sum(one.replicas * one.devices for one in here)
        now = sum(told.get(one.key, 0) * one.devices for one in here)
        most = int(share * pool.allocatable + 1e-9)
        if devices > max(most, now):
            yield f"{pool.key.text}: {devices} devices wanted, the limit is {most} ({share:.0%} of {pool.allocatable})"


def ceilings(
    limits: Limits, desired: messages.Desired, pools: tuple[messages.PoolReport, ...]
) -> dict[messages.ModelPool, int]:
    """(model, pool) -> the most replicas that a busy cluster may start by itself, so that no limit is passed."""
    spare = None if limits.max_replicas is None else limits.max_replicas - sum(w.replicas for w in desired.workloads)
    allocatable = {pool.key: pool.allocatable for pool in pools}
    share = 1.0 if limits.accelerator_share is None else limits.accelerator_share
    devices = {key: int(share * count + 1e-9) for key, count in allocatable.items()}
    for workload in desired.workloads:
        devices[workload.pool] = devices.get(workload.pool, 0) - workload.replicas * workload.devices
    found = {}
    for workload in desired.workloads:
        more = min(workload.burst_replicas, max(0, devices[workload.pool]) // workload.devices)
        more = more if spare is None else min(more, max(0, spare))
        devices[workload.pool] -= more * workload.devices
        spare = None if spare is None else spare - more
        found[workload.key] = workload.replicas + more
    return found
