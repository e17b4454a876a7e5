"""Belief: what a message, a silence or a lost broker may and may not make the controller think."""

from __future__ import annotations

import pytest

from federation.state.phases import TABLE, Phase, Sign
from federation.state.reduce import BrokerFound, BrokerLost, CordonsSet, Heard, TimePassed
from federation.state.world import Cordon, World
from federation.wire import messages
from tests.builders import a_report, a_world, hear, heard, replicas, some_demand, told

CLUSTERS = ("fra-1", "fra-2", "fra-3", "iad-1", "iad-2", "nrt-1")


def all_heard(now_s: float = 0.0) -> World:
    return heard(a_world(*CLUSTERS), *(a_report(name) for name in CLUSTERS), now_s=now_s)


def phases(world: World) -> dict[str, str]:
    return {name: state.phase.value for name, state in world.clusters.items()}


def test_every_sign_has_a_place_in_the_phase_table() -> None:
    """A pair without an entry would end the controller's ingest with a KeyError."""
    possible = {(phase, sign) for phase in Phase for sign in Sign}
    impossible = {(Phase.UNKNOWN, Sign.TOLERATED), (Phase.READY, Sign.TOLERATED)}
    assert possible - set(TABLE) == impossible


def test_the_brokers_memory_is_not_a_sign_of_life() -> None:
    """A restarted controller would plan on clusters that died days ago."""
    world = told(a_world("fra"), Heard(message=a_report("fra"), now_s=1.0, retained=True))
    assert phases(world) == {"fra": "unknown"}
    assert world.clusters["fra"].report is not None, "what is remembered is still used, as memory"


@pytest.mark.parametrize(
    ("second", "result"),
    [
        pytest.param({"seq": 5}, "repeated", id="duplicate"),
        pytest.param({"seq": 4}, "older", id="reordered"),
        pytest.param({"seq": 9, "boot_id": "boot-0000", "boot_order": 0}, "older", id="an-earlier-start"),
        pytest.param({"seq": 6}, "accepted", id="next"),
        pytest.param({"seq": 1, "boot_id": "boot-0002", "boot_order": 2}, "accepted", id="a-later-start"),
    ],
)
def test_knowledge_never_goes_backwards(second: dict[str, object], result: str) -> None:
    """A late or repeated report would bring back replicas and devices that are gone."""
    world = heard(a_world("fra"), a_report("fra", seq=5, boot_order=1))
    fields = {"boot_order": 1, **second}
    assert hear(world, Heard(message=a_report("fra", **fields), now_s=2.0)).result == result  # type: ignore[arg-type]


def test_a_cluster_outside_the_catalogue_is_not_listened_to() -> None:
    """Anyone with a broker account could add a cluster and be sent workloads."""
    world = a_world("fra")
    reduced = hear(world, Heard(message=a_report("iad"), now_s=1.0))
    assert reduced.result == "not-in-catalogue"
    assert reduced.world is world


def test_silence_reroutes_first_and_replaces_later() -> None:
    """Users would wait five minutes for a dead cluster, or a short silence would move every replica."""
    world = heard(all_heard(), *(a_report(name, seq=2) for name in CLUSTERS[1:]), now_s=35.0)
    reduced = hear(world, TimePassed(now_s=41.0))
    assert phases(reduced.world)["fra-1"] == "unreachable"
    assert reduced.reroute
    assert not reduced.world.is_routable("fra-1")
    still = heard(reduced.world, *(a_report(name, seq=3) for name in CLUSTERS[1:]), now_s=340.0)
    assert phases(told(still, TimePassed(now_s=340.5)))["fra-1"] == "unreachable"
    assert phases(told(still, TimePassed(now_s=342.0)))["fra-1"] == "lost"


def test_a_last_will_shortens_detection_and_a_report_ends_it() -> None:
    """Detection would always take the whole stale time; or a will delivered late would keep a live cluster out."""
    will = messages.Status(cluster="fra-1", boot_id="boot-0001", online=False)
    gone = told(all_heard(), Heard(message=will, now_s=3.0))
    assert phases(gone)["fra-1"] == "unreachable"
    back = heard(gone, a_report("fra-1", seq=2), now_s=4.0)
    assert phases(back)["fra-1"] == "ready"
    stale_will = messages.Status(cluster="fra-1", boot_id="boot-0000", online=False)
    assert phases(told(back, Heard(message=stale_will, now_s=5.0)))["fra-1"] == "ready"
    assert phases(told(back, Heard(message=will, now_s=5.0, retained=True)))["fra-1"] == "ready"


def test_many_silent_at_once_brake_and_keep_the_weights() -> None:
    """A controller that is itself cut off would move the whole world."""
    world = told(all_heard(), TimePassed(now_s=41.0))
    assert "6 of 6" in world.braked
    assert all(world.is_routable(name) for name in CLUSTERS)
    back = heard(world, *(a_report(name, seq=2) for name in CLUSTERS), now_s=42.0)
    assert told(back, TimePassed(now_s=43.0)).braked == ""


def test_a_region_that_is_lost_is_no_reason_to_brake() -> None:
    """Users of a lost region would wait for an operator."""
    names = tuple(f"fra-{n}" for n in range(4)) + tuple(f"iad-{n}" for n in range(12))
    world = heard(a_world(*names), *(a_report(name) for name in names))
    world = heard(world, *(a_report(name, seq=2) for name in names if name.startswith("iad")), now_s=30.0)
    assert told(world, TimePassed(now_s=41.0)).braked == ""


def test_an_operator_who_knows_better_releases_the_brake_by_cordoning() -> None:
    """A real loss of a third of the fleet would freeze placement for ever."""
    alive = CLUSTERS[3:]
    world = heard(all_heard(), *(a_report(name, seq=2) for name in alive), now_s=30.0)
    world = told(world, TimePassed(now_s=41.0))
    assert world.braked
    words = {name: Cordon(reason="burnt down", drain=False) for name in CLUSTERS[:3]}
    world = told(world, CordonsSet(cordons=words), TimePassed(now_s=42.0))
    assert world.braked == ""


def test_a_deaf_controller_takes_no_silence_for_an_answer() -> None:
    """A broker restart of a minute would look like the end of every cluster."""
    world = told(all_heard(), BrokerLost(now_s=5.0), TimePassed(now_s=500.0))
    assert set(phases(world).values()) == {"ready"}
    world = told(world, BrokerFound(now_s=501.0), TimePassed(now_s=540.0))
    assert set(phases(world).values()) == {"ready"}, "silence counts from when it could hear again"


def test_nothing_is_decided_before_everyone_was_heard_or_had_the_time() -> None:
    """A restarted controller would take the first report for the whole world."""
    world = a_world("fra", "iad")
    assert not world.is_settled(1.0)
    world = heard(world, a_report("fra"), now_s=2.0)
    assert not world.is_settled(2.0)
    assert heard(world, a_report("iad"), now_s=3.0).is_settled(3.0)
    assert world.is_settled(41.0)


def test_demand_is_the_freshest_count_and_outlives_its_reporter() -> None:
    """Users who change front doors would be counted twice; users of a lost one would vanish."""
    first = a_report("fra", demand=(some_demand("chat", "berlin", 5.0),))
    second = a_report("iad", demand=(some_demand("chat", "berlin", 7.0),))
    world = heard(heard(a_world("fra", "iad"), first, now_s=1.0), second, now_s=2.0)
    assert world.demand["chat", "berlin"].requests_per_second == 7.0
    world = heard(world, a_report("iad", seq=2), now_s=3.0)
    assert world.demand["chat", "berlin"].requests_per_second == 7.0, "not said is not zero"


def test_readiness_wakes_routing_and_devices_wake_placement() -> None:
    """A ready replica would wait for the next period before it gets a request."""
    world = heard(a_world("fra"), a_report("fra", replicas=(replicas("chat", 1, 0),)))
    ready = hear(world, Heard(message=a_report("fra", seq=2, replicas=(replicas("chat", 1, 1),)), now_s=1.0))
    assert (ready.reroute, ready.replan) == (True, False)
    fewer = hear(world, Heard(message=a_report("fra", seq=2, pools=()), now_s=1.0))
    assert fewer.replan
    same = hear(ready.world, Heard(message=a_report("fra", seq=3, replicas=(replicas("chat", 1, 1),)), now_s=2.0))
    assert (same.reroute, same.replan) == (False, False)


def test_users_behind_a_silent_front_door_are_remembered() -> None:
    """A restart of the controller during an outage would forget the users who need it most."""
    counted = (some_demand("chat", "Berlin", 10),)
    world = told(a_world("fra", "iad"), Heard(message=a_report("fra", demand=counted), now_s=1.0, retained=True))
    assert world.demand["chat", "Berlin"].requests_per_second == 10
    fresher = (some_demand("chat", "Berlin", 3),)
    world = heard(world, a_report("iad", demand=fresher), now_s=2.0)
    world = told(world, Heard(message=a_report("fra", seq=2, demand=counted), now_s=3.0, retained=True))
    assert world.demand["chat", "Berlin"].requests_per_second == 3, "memory does not speak over what is heard"
