"""Whether the agent obeys an order: fencing as a pure function.

An agent obeys only an order that is for its cluster, is intact, is not older than the accepted one, and fits. It
deletes only workloads that the order names for deletion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import msgspec

from agents.manifests.names import is_name
from federation.wire import messages, quantity
from federation.wire.conditions import condition


class Code(Enum):
    """The verdict on an order."""

    ACCEPT = "accept"
    REPEAT = "repeat"
    """The accepted order again: it is carried out and acknowledged again, which changes nothing."""
    WRONG_CLUSTER = "wrong-cluster"
    NOT_INTACT = "not-intact"
    STALE = "stale"
    CONFLICT = "conflict"
    """The accepted (epoch, generation) with different content: two controllers believe that they lead."""
    DOES_NOT_FIT = "does-not-fit"
    OVER_LOCAL_LIMIT = "over-local-limit"
    """The order exceeds the limits of the cluster's owner."""
    NOT_VALID = "not-valid"
    """The order names something that no object can be built from, or an epoch that no controller has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedOrder:
    """The highest accepted order; zeros before the first."""

    epoch: int = 0
    generation: int = 0
    checksum: str = ""

    @property
    def fence(self) -> tuple[int, int]:
        """The (epoch, generation) that an order must reach."""
        return (self.epoch, self.generation)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderVerdict:
    """Whether to carry out an order, and the reason for a refusal."""

    code: Code
    reason: str = ""

    @property
    def obey(self) -> bool:
        """Whether to carry out the order."""
        return self.code in (Code.ACCEPT, Code.REPEAT)


def judge(
    desired: messages.Desired,
    *,
    cluster: str,
    accepted: AcceptedOrder,
    devices: Mapping[messages.PoolKey, int],
    beyond: Iterable[str] = (),
    no_place: str = "",
) -> OrderVerdict:
    """The verdict on an order.

    Args: devices: pool -> devices that exist and that no other pod takes. beyond: violations of the owner's limits.
        no_place: the workload whose replicas find no node, or empty.
    """
    if desired.cluster != cluster:
        return OrderVerdict(code=Code.WRONG_CLUSTER, reason=f"meant for {desired.cluster}")
    if not desired.checksum:
        return OrderVerdict(code=Code.NOT_INTACT, reason="the checksum does not match the content")
    if desired.epoch > min(accepted.epoch + messages.MOST_EPOCH_LEAP, messages.MOST_EPOCH):
        text = f"epoch {desired.epoch} is no controller's: {accepted.epoch} was accepted before"
        return OrderVerdict(code=Code.NOT_VALID, reason=text)
    fence = (desired.epoch, desired.generation)
    if fence < accepted.fence:
        held = f"{accepted.epoch}.{accepted.generation}"
        return OrderVerdict(code=Code.STALE, reason=f"{desired.epoch}.{desired.generation} is older than {held}")
    if fence == accepted.fence and accepted.checksum:
        if desired.checksum == accepted.checksum:
            return OrderVerdict(code=Code.REPEAT)
        return OrderVerdict(
            code=Code.CONFLICT, reason=f"{desired.epoch}.{desired.generation} came with another content"
        )
    unfit = next((one.model for one in desired.workloads if not is_name(one.model)), None)
    if unfit is not None:
        return OrderVerdict(code=Code.NOT_VALID, reason=f"model {unfit!r}: no object can be named so")
    over = "; ".join(beyond)
    if over:
        return OrderVerdict(code=Code.OVER_LOCAL_LIMIT, reason=over)
    for pool, wanted in sorted(_devices_wanted(desired).items()):
        if wanted > devices.get(pool, 0):
            text = f"{pool.text}: {wanted} devices wanted, {devices.get(pool, 0)} there"
            return OrderVerdict(code=Code.DOES_NOT_FIT, reason=text)
    if no_place:
        return OrderVerdict(code=Code.DOES_NOT_FIT, reason=no_place)
    return OrderVerdict(code=Code.ACCEPT)


def why_no_place(
    desired: messages.Desired, pools: tuple[messages.PoolReport, ...], replicas: tuple[messages.ReplicaReport, ...]
) -> str:
    """The workload that is to grow by more replicas than its nodes have room for; empty without one.

    Only growth is checked against the nodes. Replicas of an earlier order wait for their place, and a refusal would
    stop nothing. A replica of one device may take the place of another replica of the agent that is to stop.
    """
    rooms = {pool.key: pool.room for pool in pools}
    now = {one.key: one for one in replicas}
    for workload in desired.workloads:
        room = rooms.get(workload.pool)
        have = now.get(workload.key)
        told = max(have.desired, have.scheduled or 0) if have is not None else 0
        more = workload.replicas - told
        if room is None or more <= 0:
            continue
        fit = messages.replicas_that_fit(
            room,
            devices=workload.devices,
            cpu_millis=quantity.millis(workload.cpu) or 0,
            memory_mib=quantity.mib(workload.memory, up=True) or 0,
        )
        if workload.devices == 1:
            fit += sum((one.scheduled or 0) for one in replicas if one.pool == workload.pool and one is not have)
        if more > fit:
            where = f"{workload.devices} devices, {workload.cpu} CPU and {workload.memory} of one node"
            return f"{workload.model} on {workload.pool.text}: {more} more replicas of {where}; {fit} find a place"
    return ""


def _devices_wanted(desired: messages.Desired) -> dict[messages.PoolKey, int]:
    wanted: dict[messages.PoolKey, int] = {}
    for workload in desired.workloads:
        if workload.replicas:
            wanted[workload.pool] = wanted.get(workload.pool, 0) + workload.replicas * workload.devices
    return wanted


def usable_devices(
    pools: tuple[messages.PoolReport, ...], replicas: tuple[messages.ReplicaReport, ...], desired: messages.Desired
) -> dict[messages.PoolKey, int]:
    """Pool -> devices that no other pod takes. Devices of the agent's own replicas count as usable.

    A pool that has shrunk below its running replicas still counts their devices: a refusal would stop nothing.
    """
    per_replica = {one.key: one.devices for one in desired.workloads}
    ours: dict[messages.PoolKey, int] = {}
    for replica in replicas:
        holding = replica.scheduled if replica.scheduled is not None else replica.ready
        devices = holding * per_replica.get(replica.key, 1)
        ours[replica.pool] = ours.get(replica.pool, 0) + devices
    usable = {pool.key: min(pool.allocatable, pool.free + ours.get(pool.key, 0)) for pool in pools}
    return {key: max(usable.get(key, 0), ours.get(key, 0)) for key in usable.keys() | ours.keys()}


def explained(
    desired: messages.Desired,
    before: messages.Desired | None,
    replicas: tuple[messages.ReplicaReport, ...],
) -> tuple[messages.Desired, tuple[messages.Condition, ...]]:
    """The order without unexplained stops: a workload that is to lose ready replicas must give a reason.

    A workload without a reason keeps its count of `before`, or is left alone where that is not known. Where the reason
    is that its replicas were not ready, the ready ones stay. A condition reports each case. Replicas that somebody, or
    an autoscaler, added to the ordered ones need no reason to stop.

    Args: before: the order that is carried out at present. replicas: those of the cluster.
    """
    known = {one.key: one for one in before.workloads} if before is not None else {}
    ready = {one.key: one.ready for one in replicas}
    kept: list[messages.Workload] = []
    told: list[messages.Condition] = []
    for one in desired.workloads:
        key = one.key
        old = known.get(key)
        serving = min(ready.get(key, 0), old.replicas if old is not None else ready.get(key, 0))
        if one.replicas >= serving or one.stop_reason not in ("", messages.NOT_READY):
            kept.append(one)
            continue
        if one.stop_reason:
            kept.append(msgspec.structs.replace(one, replicas=serving))
            text = f"{one.replicas} replicas ordered, as the others were not ready: {serving} are ready here and stay"
        else:
            kept += [old] if old is not None else []
            text = f"{one.replicas} replicas ordered where {serving} are ready, and no reason given: none is stopped"
        told.append(condition("StopNotExplained", f"model/{one.model} on {one.pool.text}", text))
    if not told:
        return desired, ()
    return msgspec.structs.replace(desired, workloads=tuple(kept)), tuple(told)
