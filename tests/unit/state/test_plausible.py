"""What a report may and may not make the controller believe, number by number."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.control import latency
from federation.control.problem import formulate
from federation.policy import documents
from federation.state import plausible
from federation.state.keys import CellCluster
from federation.state.world import World
from federation.wire import messages
from tests.builders import L4, L4_SPOT, a_cluster, a_model, a_policy, a_report, a_world, heard, replicas, some_demand

H100 = messages.PoolKey(product="NVIDIA-H100-80GB-HBM3")
"""Of which the catalogue of these tests says nothing."""


def pool(key: messages.PoolKey = L4, **fields: Any) -> messages.PoolReport:
    one = messages.PoolReport(key=key, vram_gib=24.0, allocatable=8, free=8)
    return msgspec.structs.replace(one, **fields)


def after(*reports: messages.Report, every_s: float = 10.0, world: World | None = None) -> World:
    """The world that heard these, one after the other."""
    world = world or a_world("fra", "iad", models=(a_model("chat"),), policies=(a_policy("chat"),))
    for number, report in enumerate(reports):
        world = heard(world, msgspec.structs.replace(report, seq=number + 1), now_s=1.0 + every_s * number)
    return world


def found(world: World, cluster: str = "fra") -> list[str]:
    """Types of what was found, but for the source of demand, which these reports do not have."""
    return [one.type for one in world.clusters[cluster].findings if one.type != "NoDemandSource"]


def believed(world: World) -> messages.Report:
    report = world.clusters["fra"].report
    assert report is not None
    return report


@pytest.mark.parametrize(
    ("told", "expected", "finding"),
    [
        pytest.param({"usd_per_device_hour": 0.0}, {"usd_per_device_hour": None}, "ImplausiblePrice", id="free"),
        pytest.param({"usd_per_device_hour": 1e308}, {"usd_per_device_hour": None}, "ImplausiblePrice", id="1e308"),
        pytest.param({"usd_per_device_hour": 0.01}, {"usd_per_device_hour": None}, "ImplausiblePrice", id="cheap"),
        pytest.param({"vram_gib": 1e308}, {"vram_gib": 0.0, "vram_known": False}, "ImplausibleMemory", id="vram-1e308"),
        pytest.param({"vram_gib": 0.0}, {"vram_gib": 0.0, "vram_known": False}, "ImplausibleMemory", id="vram-0"),
        pytest.param(
            {"vram_gib": 80.0}, {"vram_gib": 0.0, "vram_known": False}, "ImplausibleMemory", id="vram-80-of-24"
        ),
        pytest.param({"free": 9}, {"free": 8}, "ImplausibleDevices", id="more-free-than-there"),
        pytest.param(
            {"allocatable": 10**6, "free": 10**6}, {"allocatable": 0, "free": 0}, "ImplausibleDevices", id="1e6"
        ),
    ],
)
def test_what_cannot_be_true_is_left_out_and_told(told: dict[str, Any], expected: dict[str, Any], finding: str) -> None:
    """A million free devices at no price once drew every replica of a fleet."""
    other = pool(L4_SPOT, usd_per_device_hour=0.3)
    world = after(a_report("fra", pools=(pool(**told), other)))
    first, second = believed(world).pools
    assert {name: getattr(first, name) for name in expected} == expected
    assert second == other, "the rest of the report is believed"
    assert found(world) == [finding]


def test_the_last_good_value_stays_in_force() -> None:
    """One absurd report would take away what was known."""
    good = pool(H100, usd_per_device_hour=3.0, free=5)
    room = (messages.NodeRoom(devices=8, cpu_millis=1, memory_mib=1),)
    bad = pool(H100, usd_per_device_hour=0.0, allocatable=10**6, free=10**6, room=room)
    world = after(a_report("fra", pools=(good,)), a_report("fra", pools=(bad,)))
    (one,) = believed(world).pools
    assert (one.usd_per_device_hour, one.allocatable, one.free, one.room) == (3.0, 8, 5, None)
    assert found(after(a_report("fra", pools=(good,)), world=world)) == ["ImplausibleDevices", "ImplausiblePrice"]


def test_the_catalogue_may_say_that_devices_cost_nothing() -> None:
    """Whoever owns his devices could not say so."""
    world = a_world("fra")
    free = a_cluster("fra", usd=0.0)
    world = replace(world, documents=msgspec.structs.replace(world.documents, clusters=(free,)))
    world = after(a_report("fra", pools=(pool(usd_per_device_hour=0.0),)), world=world)
    assert believed(world).pools[0].usd_per_device_hour == 0.0 and found(world) == []


def test_a_node_that_cannot_be_is_left_out_of_the_room() -> None:
    """A replica of any size would find its place on a node that does not exist."""
    well = messages.NodeRoom(devices=8, cpu_millis=64_000, memory_mib=256_000)
    world = after(a_report("fra", pools=(pool(room=(well, msgspec.structs.replace(well, devices=5_000))),)))
    assert believed(world).pools[0].room == (well,)
    assert found(world) == ["ImplausibleDevices"]


def test_a_pool_that_is_named_twice_counts_once() -> None:
    """Devices would be counted double."""
    world = after(a_report("fra", pools=(pool(allocatable=8), pool(allocatable=7, free=7))))
    assert [one.allocatable for one in believed(world).pools] == [8]
    assert found(world) == ["ImplausiblePool"]


def test_a_price_that_jumps_waits_until_it_lasts() -> None:
    """A slip of the decimal point in a price feed would move every replica, and back."""
    at = [a_report("fra", pools=(pool(H100, usd_per_device_hour=usd),)) for usd in (3.0, 60.0, 60.0)]
    world = after(*at)
    assert believed(world).pools[0].usd_per_device_hour == 3.0
    assert found(world) == ["PriceDoubted"]
    lasted = after(*at, *[at[-1]] * 6)
    assert believed(lasted).pools[0].usd_per_device_hour == 60.0 and found(lasted) == []
    back = after(*at, at[0])
    assert believed(back).pools[0].usd_per_device_hour == 3.0 and found(back) == []


@pytest.mark.parametrize(
    ("rtt_ms", "is_believed"),
    [(0.0, False), (0.2, False), (30.0, False), (66.0, True), (95.0, True), (4_999.0, True), (1e308, False)],
)
def test_no_round_trip_is_faster_than_light(rtt_ms: float, is_believed: bool) -> None:
    """A member 6,500 km away that claims 0.2 ms would be sent the users of others."""
    peer = messages.PeerRtt(cluster="iad", rtt_ms_p50=rtt_ms, rtt_ms_p95=rtt_ms, samples=3)
    world = after(a_report("fra", peers=(peer,)))
    users = some_demand("chat", "Berlin", 1.0).cell
    pair, placed = CellCluster("Berlin", "iad"), replace(world, cells=world.cells.set("Berlin", users))
    assert (latency.between(placed, [pair])[pair].basis == "inferred") is is_believed
    assert found(world) == ([] if is_believed else ["ImplausibleRoundTrip"])


@pytest.mark.parametrize(("p50_ms", "p95_ms"), [(0.0, 9.0), (9.0, 0.0), (6_000.0, 9.0), (9.0, 6_000.0)])
def test_a_round_trip_has_bounds_where_nobody_knows_how_far_it_is(p50_ms: float, p95_ms: float) -> None:
    """A peer that left the catalogue a moment ago would be nearer than anyone."""
    peer = messages.PeerRtt(cluster="gone", rtt_ms_p50=p50_ms, rtt_ms_p95=p95_ms, samples=3)
    world = after(a_report("fra", peers=(peer,)))
    assert believed(world).peers == () and found(world) == ["ImplausibleRoundTrip"]


def test_the_last_good_round_trip_stays_and_a_peer_is_named_once() -> None:
    """One measurement by a clock that jumped would take away what was known of the way."""

    def told(*rtts_ms: float) -> messages.Report:
        peers = tuple(messages.PeerRtt(cluster="iad", rtt_ms_p50=rtt, rtt_ms_p95=rtt, samples=3) for rtt in rtts_ms)
        return a_report("fra", peers=peers)

    world = after(told(90.0), told(0.1))
    assert [one.rtt_ms_p50 for one in believed(world).peers] == [90.0]
    assert found(world) == ["ImplausibleRoundTrip"]
    assert [one.rtt_ms_p50 for one in believed(after(told(90.0, 100.0))).peers] == [90.0]


def test_a_round_trip_that_jumps_waits_until_it_lasts() -> None:
    """One bad window of measurements would move users to another continent."""

    def told(rtt_ms: float) -> messages.Report:
        return a_report("fra", peers=(messages.PeerRtt(cluster="iad", rtt_ms_p50=rtt_ms, rtt_ms_p95=4e3, samples=3),))

    world = after(told(90.0), told(2_000.0))
    assert believed(world).peers[0].rtt_ms_p50 == 90.0 and found(world) == ["RoundTripDoubted"]
    assert believed(after(told(90.0), *[told(2_000.0)] * 8)).peers[0].rtt_ms_p50 == 2_000.0
    assert believed(after(told(0.5), told(90.0))).peers[0].rtt_ms_p50 == 90.0, "what cannot be waits for nothing"


@pytest.mark.parametrize(
    ("ready", "expected"),
    [pytest.param(8, 8, id="all"), pytest.param(10**6, 64, id="million")],
)
def test_no_more_replicas_are_ready_than_devices_exist(ready: int, expected: int) -> None:
    """A million ready replicas would be sent everybody's requests and cost 900,003 USD an hour."""
    world = after(a_report("fra", replicas=(replicas("chat", ready, ready),)))
    assert believed(world).replicas[0].ready == expected
    world = after(a_report("fra"), a_report("fra", replicas=(replicas("chat", ready, ready),)))
    assert believed(world).replicas[0].ready == min(8, ready)


def test_no_more_replicas_are_ready_than_have_a_node() -> None:
    """A cluster could call ready what has no place."""
    one = messages.ReplicaReport(model="chat", pool=L4, desired=2, ready=7, scheduled=2)
    assert believed(after(a_report("fra", replicas=(one,)))).replicas[0].ready == 2
    surge = messages.ReplicaReport(model="chat", pool=L4, desired=3, ready=5, scheduled=5)
    world = after(a_report("fra", replicas=(surge,)))
    assert believed(world).replicas[0].ready == 5 and found(world) == [], "those that leave still answer"


def test_replicas_that_run_beyond_a_stale_count_of_pods_are_ready() -> None:
    """Between two looks at the cluster a replica that answers would lose its requests."""
    one = messages.ReplicaReport(model="chat", pool=L4, desired=3, ready=3, scheduled=2)
    assert believed(after(a_report("fra", replicas=(one,)))).replicas[0].ready == 3


def test_devices_are_used_once_and_as_many_as_a_replica_takes() -> None:
    """A cluster could call ready twice what its devices can run."""
    big = a_model("big")
    shape = msgspec.structs.replace(big.spec.accelerators[0], count=4)
    big = msgspec.structs.replace(big, spec=msgspec.structs.replace(big.spec, accelerators=(shape,)))
    world = heard(a_world("fra", models=(big, a_model("chat"))), a_report("fra"), now_s=0.5)
    claimed = (replicas("big", 8, 8), replicas("chat", 8, 8))
    report = believed(after(a_report("fra"), a_report("fra", replicas=claimed), world=world))
    assert [one.ready for one in report.replicas] == [2, 0]


@pytest.mark.parametrize(
    ("before", "now", "nodes", "expected"),
    [
        pytest.param((pool(H100),), (), (), 8, id="devices of the report before"),
        pytest.param((), (pool(H100),), (), 8, id="devices that are offered"),
        pytest.param((), (), (8,), 8, id="devices of a node that is not well"),
        pytest.param((), (), (8, 1_000_000), 8, id="a node that cannot be"),
        pytest.param((), (), (4_096,) * 30, 100_000, id="nodes that are more than can be"),
        pytest.param((), (), (), 0, id="none"),
    ],
)
def test_which_devices_may_hold_ready_replicas(
    before: tuple[messages.PoolReport, ...],
    now: tuple[messages.PoolReport, ...],
    nodes: tuple[int, ...],
    expected: int,
) -> None:
    """A cluster could call ready what it has no device for; or what runs on a node that drains would not count."""
    ill = tuple(messages.NodeReport(name=f"n{i}", pool=H100, devices=n, ready=False) for i, n in enumerate(nodes))
    claimed = (replicas("chat", 10**6, 10**6, pool=H100),)
    world = after(a_report("fra", pools=before), a_report("fra", pools=now, nodes=ill, replicas=claimed))
    assert believed(world).replicas[0].ready == expected
    assert ("ImplausibleDevices" in found(world)) is (1_000_000 in nodes)


def test_devices_that_the_catalogue_declares_may_hold_ready_replicas() -> None:
    """After a restart of the device plugins of a whole cluster its replicas would not count."""
    claimed = (replicas("chat", 8, 9),)
    world = after(a_report("fra", pools=()), a_report("fra", pools=(), replicas=claimed))
    assert believed(world).replicas[0].ready == 8


def test_replicas_stay_ready_while_their_devices_are_not_seen() -> None:
    """A kubelet that restarts would take healthy replicas out of routing."""
    running = (messages.ReplicaReport(model="chat", pool=H100, desired=70, ready=70, scheduled=70),)
    before = a_report("fra", pools=(pool(H100, allocatable=70, free=0),), replicas=running)
    blind = a_report("fra", pools=(pool(H100, allocatable=0, free=0),), replicas=running)
    world = after(before, blind, blind, blind, a_report("fra", pools=(), replicas=running))
    assert believed(world).replicas[0].ready == 70 and found(world) == []


@pytest.mark.parametrize(
    ("declared", "ready", "expected"),
    [(8, 0, 16), (8, 20, 20), (500, 0, 1000), (0, 0, 64), (0, 40, 80), (0, 400, 800)],
)
def test_a_cluster_is_counted_on_for_what_is_declared_or_was_seen(declared: int, ready: int, expected: int) -> None:
    """A cluster that claims what nobody declared and nobody saw would draw all at once."""
    assert plausible.counted_on(declared, ready) == expected


def test_plans_count_on_no_more_devices_than_that() -> None:
    """The bound would be told and not kept."""
    claimed = (pool(allocatable=1_000, free=1_000), pool(H100, allocatable=1_000, free=1_000, usd_per_device_hour=1.0))
    world = after(a_report("fra", pools=claimed))
    assert found(world) == ["DevicesDoubted", "DevicesDoubted"]
    asked = formulate(world, target={}, desired={}, now_s=2.0)
    devices = {one.product: one.devices for one in asked.problem.pools if one.cluster == "fra"}
    assert (devices["NVIDIA-L4"], devices[H100.product]) == (16, 64)
    lied = after(a_report("fra", pools=claimed, replicas=(replicas("chat", 900, 900),)))
    asked = formulate(lied, target={}, desired={}, now_s=2.0)
    assert max(one.devices for one in asked.problem.pools if one.cluster == "fra") == 64, "nobody ordered those"


@given(
    st.builds(
        messages.PoolReport,
        key=st.sampled_from([L4, L4_SPOT, H100]),
        vram_gib=st.floats(0, allow_infinity=False),
        allocatable=st.integers(0, 10**6),
        free=st.integers(0, 10**6),
        usd_per_device_hour=st.none() | st.floats(0, allow_infinity=False),
    ),
    st.floats(0, allow_infinity=False),
    st.integers(0, 10**6),
)
def test_whatever_comes_what_is_believed_is_within_bounds(one: messages.PoolReport, rtt_ms: float, ready: int) -> None:
    """A number that nobody thought of would stop all planning."""
    peer = messages.PeerRtt(cluster="iad", rtt_ms_p50=rtt_ms, rtt_ms_p95=rtt_ms, samples=1)
    replica = messages.ReplicaReport(model="chat", pool=one.key, desired=10**6, ready=ready)
    report = believed(after(a_report("fra", pools=(one,), peers=(peer,), replicas=(replica,))))
    (pool,) = report.pools
    assert 0 <= pool.free <= pool.allocatable <= plausible.MOST_POOL_DEVICES
    assert pool.usd_per_device_hour is None or 0 < pool.usd_per_device_hour <= plausible.MOST_USD
    assert 0 <= pool.vram_gib <= plausible.MOST_VRAM_GIB
    assert all(0 < one.rtt_ms_p50 <= plausible.MOST_RTT_MS for one in report.peers)
    assert report.replicas[0].ready <= max(pool.allocatable, 64)
    assert math.isfinite(pool.vram_gib)


def test_a_catalogue_is_found_by_name() -> None:
    """Another cluster's declaration would be held against a report."""
    world = a_world("fra", "iad", "nrt")
    assert [document.metadata.name for n in ("fra", "iad", "nrt") if (document := plausible.document_of(world, n))] == [
        "fra",
        "iad",
        "nrt",
    ]
    assert plausible.document_of(world, "par") is None
    assert isinstance(plausible.document_of(world, "fra"), documents.Cluster)
