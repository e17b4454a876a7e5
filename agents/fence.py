"""Whether to obey: fencing as a pure function.

An agent obeys only what is meant for its cluster, arrived whole, is not older than what it has accepted, and fits. It
deletes only what it is told to delete by name.
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
    """What is done with a desired state."""

    ACCEPT = "accept"
    REPEAT = "repeat"
    """The same as what was accepted: carried out again, which changes nothing, and acknowledged again."""
    WRONG_CLUSTER = "wrong-cluster"
    NOT_INTACT = "not-intact"
    STALE = "stale"
    CONFLICT = "conflict"
    """The accepted (epoch, generation) with another content: two who think they lead."""
    DOES_NOT_FIT = "does-not-fit"
    OVER_LOCAL_LIMIT = "over-local-limit"
    """Beyond what the cluster's owner allows."""
    NOT_VALID = "not-valid"
    """It names something that no object can be made of, or an epoch that no controller has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedOrder:
    """The highest that was accepted; zeros before the first."""

    epoch: int = 0
    generation: int = 0
    checksum: str = ""

    @property
    def fence(self) -> tuple[int, int]:
        """What a desired state must reach."""
        return (self.epoch, self.generation)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderVerdict:
    """What to do, and why not when it is refused."""

    code: Code
    reason: str = ""

    @property
    def obey(self) -> bool:
        """Whether to carry it out."""
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
    """What to do with a desired state.

    Args: devices: pool -> devices that are there and not taken by others. beyond: what the cluster's owner does
        not allow. no_place: what finds none, node by node.
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
    """Which workload is to grow by more replicas than find a place node by node, or nothing.

    Only growth is held against the nodes: what was told before waits for its place, and refusing it would stop nothing.
    Replicas of one device may take the places of others of ours that are to go.
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
    """Pool -> devices not taken by others. Our own replicas count as ours, whatever becomes of them.

    A pool that has shrunk below what runs there still takes what runs there: refusing that would stop nothing.
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
    """The order without what it does not explain: a workload that is to lose ready replicas names why.

    Without a reason such a workload stays as it was ordered `before`, or is left alone where that is not known. Where
    the reason is that its replicas were not ready, those that are ready here stay. Each is told. What somebody, or an
    autoscaler, added to what was ordered is no part of it and goes without a reason.

    Args: before: what is carried out now. replicas: what is there.
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
