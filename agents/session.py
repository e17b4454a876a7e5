"""Whether to obey: fencing as a pure function.

An agent obeys only what is meant for its cluster, arrived whole, is not older than what it has accepted, and fits. It
deletes only what it is told to delete by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from federation.wire import messages


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The highest that was accepted; zeros before the first."""

    epoch: int = 0
    generation: int = 0
    checksum: str = ""

    @property
    def fence(self) -> tuple[int, int]:
        """What a desired state must reach."""
        return (self.epoch, self.generation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do, and why not when it is refused."""

    code: Code
    reason: str = ""

    @property
    def obey(self) -> bool:
        """Whether to carry it out."""
        return self.code in (Code.ACCEPT, Code.REPEAT)


def judge(
    desired: messages.Desired, *, cluster: str, accepted: Accepted, devices: Mapping[messages.PoolKey, int]
) -> Verdict:
    """What to do with a desired state.

    Args: devices: pool -> devices that are there and not taken by others.
    """
    if desired.cluster != cluster:
        return Verdict(code=Code.WRONG_CLUSTER, reason=f"meant for {desired.cluster}")
    if not desired.checksum:
        return Verdict(code=Code.NOT_INTACT, reason="the checksum does not match the content")
    fence = (desired.epoch, desired.generation)
    if fence < accepted.fence:
        held = f"{accepted.epoch}.{accepted.generation}"
        return Verdict(code=Code.STALE, reason=f"{desired.epoch}.{desired.generation} is older than {held}")
    if fence == accepted.fence and accepted.checksum:
        if desired.checksum == accepted.checksum:
            return Verdict(code=Code.REPEAT)
        return Verdict(code=Code.CONFLICT, reason=f"{desired.epoch}.{desired.generation} came with another content")
    for pool, wanted in sorted(_devices_wanted(desired).items()):
        if wanted > devices.get(pool, 0):
            text = f"{pool.text}: {wanted} devices wanted, {devices.get(pool, 0)} there"
            return Verdict(code=Code.DOES_NOT_FIT, reason=text)
    return Verdict(code=Code.ACCEPT)


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
    per_replica = {(one.model, one.pool): one.devices for one in desired.workloads}
    ours: dict[messages.PoolKey, int] = {}
    for replica in replicas:
        holding = replica.scheduled if replica.scheduled is not None else replica.ready
        devices = holding * per_replica.get((replica.model, replica.pool), 1)
        ours[replica.pool] = ours.get(replica.pool, 0) + devices
    usable = {pool.key: min(pool.allocatable, pool.free + ours.get(pool.key, 0)) for pool in pools}
    return {key: max(usable.get(key, 0), ours.get(key, 0)) for key in usable.keys() | ours.keys()}
