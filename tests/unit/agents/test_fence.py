"""Whether an agent obeys. Each row is a way in which a cluster could be told the wrong thing."""

from __future__ import annotations

import msgspec
import pytest

from agents.fence import AcceptedOrder, Code, judge, usable_devices
from federation.wire import messages
from tests.builders import L4


def workload(replicas: int = 2, devices: int = 1, model: str = "chat") -> messages.Workload:
    return messages.Workload(
        model=model, pool=L4, replicas=replicas, devices=devices, runtime="vllm", image="i:1", cpu="1", memory="1Gi"
    )


def desired(
    epoch: int = 2, generation: int = 5, *workloads: messages.Workload, cluster: str = "fra"
) -> messages.Desired:
    return messages.seal(
        messages.Desired(cluster=cluster, epoch=epoch, generation=generation, workloads=workloads or (workload(),))
    )


HELD = AcceptedOrder(epoch=2, generation=5, checksum=desired().checksum)


@pytest.mark.parametrize(
    ("message", "accepted", "devices", "code"),
    [
        (desired(), AcceptedOrder(), 8, Code.ACCEPT),
        (desired(2, 6), HELD, 8, Code.ACCEPT),
        (desired(3, 1), HELD, 8, Code.ACCEPT),
        (desired(), HELD, 8, Code.REPEAT),
        (desired(2, 4), HELD, 8, Code.STALE),
        (desired(1, 99), HELD, 8, Code.STALE),
        (desired(2, 5, workload(3)), HELD, 8, Code.CONFLICT),
        (desired(cluster="iad"), AcceptedOrder(), 8, Code.WRONG_CLUSTER),
        (msgspec.structs.replace(desired(), checksum=""), AcceptedOrder(), 8, Code.NOT_INTACT),
        (desired(2, 6, workload(9)), HELD, 8, Code.DOES_NOT_FIT),
        (desired(2, 6, workload(3, devices=4)), HELD, 8, Code.DOES_NOT_FIT),
        (desired(2, 6, workload(5), workload(5, model="other")), HELD, 8, Code.DOES_NOT_FIT),
        (desired(2, 6, workload(0)), HELD, 0, Code.ACCEPT),
    ],
)
def test_what_is_done_with_a_desired_state(
    message: messages.Desired, accepted: AcceptedOrder, devices: int, code: Code
) -> None:
    """An agent would carry out an order that is stale, damaged or meant for another cluster."""
    verdict = judge(message, cluster="fra", accepted=accepted, devices={L4: devices})
    assert verdict.code is code
    assert verdict.obey is (code in (Code.ACCEPT, Code.REPEAT))
    assert bool(verdict.reason) is not verdict.obey


def test_a_repeat_is_obeyed_though_its_devices_are_gone() -> None:
    """Refusing what already runs would stop nothing, and would be told as a fault for ever."""
    assert judge(desired(), cluster="fra", accepted=HELD, devices={}).code is Code.REPEAT


@pytest.mark.parametrize(
    ("allocatable", "free", "running", "usable"),
    [
        (8, 8, 0, 8),
        (8, 6, 2, 8),  # two are ours
        (8, 2, 2, 4),  # four are others'
        (2, 0, 5, 5),  # the pool shrank under what runs
    ],
)
def test_devices_of_others_are_not_ours_to_use(allocatable: int, free: int, running: int, usable: int) -> None:
    """An order would evict or starve pods of the cluster's other tenants."""
    pool = messages.PoolReport(key=L4, vram_gib=22, allocatable=allocatable, free=free)
    replicas = messages.ReplicaReport(model="chat", pool=L4, desired=running, ready=running, scheduled=running)
    assert usable_devices((pool,), (replicas,), desired()) == {L4: usable}
