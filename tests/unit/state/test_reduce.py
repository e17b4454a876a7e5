"""Belief: what a message, a silence or a lost broker may and may not make the controller think."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from federation.state.keys import ModelCell
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
        pytest.param({"seq": 6}, "accepted", id="next"),
        pytest.param({"seq": 9, "boot_id": "boot-0002", "boot_order": 2**62}, "second", id="another-start"),
    ],
)
def test_knowledge_never_goes_backwards(second: dict[str, object], result: str) -> None:
    """A late or repeated report would bring back replicas and devices that are gone."""
    world = heard(a_world("fra"), a_report("fra", seq=5))
    assert hear(world, Heard(message=a_report("fra", **second), now_s=2.0)).result == result  # type: ignore[arg-type]


WILL = messages.Status(cluster="fra-1", boot_id="boot-0001", online=False)
GOODBYE = messages.Status(cluster="fra-1", boot_id="boot-0001", online=False, goodbye=True)


@pytest.mark.parametrize(
    ("ending", "at_s"),
    [
        pytest.param([Heard(message=WILL, now_s=2.0)], 2.1, id="its connection broke"),
        pytest.param([Heard(message=GOODBYE, now_s=2.0)], 2.1, id="it ended in order"),
        pytest.param([], 21.0, id="it fell silent"),
    ],
)
@pytest.mark.parametrize("boot_order", [0, 1, 2**62])
def test_another_start_is_heard_once_the_one_before_is_gone(ending: list[Heard], at_s: float, boot_order: int) -> None:
    """An agent whose clock was wrong once, or that lost its file, would be heard by nobody."""
    world = heard(a_world("fra-1", "iad-1"), a_report("fra-1", seq=900, boot_order=2**61), a_report("iad-1"))
    world = told(world, *ending)
    again = a_report("fra-1", seq=1, boot_id="boot-0002", boot_order=boot_order)
    reduced = hear(world, Heard(message=again, now_s=at_s))
    assert reduced.result == "accepted"
    assert phases(reduced.world)["fra-1"] == "ready"
    assert reduced.notes == ()
    late = hear(reduced.world, Heard(message=a_report("fra-1", seq=899), now_s=at_s + 60))
    assert late.result == "older", "what was on the way since before"


def test_a_forged_sequence_number_locks_no_agent_out() -> None:
    """One message with a number beyond all would take a cluster from its users until somebody restarts its agent."""
    world = heard(all_heard(), a_report("fra-1", seq=2**62), now_s=1.0)
    results = []
    for seq in range(2, 8):
        at_s = 10.0 * seq - 10.0
        world = heard(world, *(a_report(name, seq=seq) for name in CLUSTERS[1:]), now_s=at_s)
        reduced = hear(told(world, TimePassed(now_s=at_s)), Heard(message=a_report("fra-1", seq=seq), now_s=at_s))
        assert phases(reduced.world)["fra-1"] == "ready", "no user is moved meanwhile"
        results.append((reduced.result, [note.reason for note in reduced.notes]))
        world = reduced.world
    assert results == [("older", []), ("older", []), ("accepted", ["SequenceWentBack"]), *[("accepted", [])] * 3]


def test_what_was_late_on_its_way_is_no_sign_of_life() -> None:
    """A cluster that died would be sent requests for as long again."""
    world = heard(all_heard(), a_report("fra-1", seq=9), now_s=1.0)
    late = Heard(message=a_report("fra-1", seq=7), now_s=35.0)
    for event in (late, replace(late, now_s=36.0), replace(late, message=a_report("fra-1", seq=6), now_s=37.0)):
        reduced = hear(world, event)
        assert reduced.result == "older"
        world = reduced.world
    assert world.clusters["fra-1"].heard_s == 1.0


def test_of_two_agents_under_one_name_the_first_keeps_it_and_the_event_names_both() -> None:
    """They would throw each other out for ever, and both would carry out the plan."""

    def first(seq: int) -> messages.Report:
        return a_report("fra", seq=seq)

    def second(seq: int) -> messages.Report:
        return a_report("fra", seq=seq, boot_id="boot-0002")

    world, told_of = heard(a_world("fra", "iad"), first(1), now_s=0.0), []
    for turn in range(1, 6):
        for seconds, report in ((3, second(turn)), (10, first(turn + 1))):
            reduced = hear(world, Heard(message=report, now_s=10.0 * turn - 10 + seconds))
            world = reduced.world
            told_of += [note for note in reduced.notes if note.reason == "NameTaken"]
            assert world.clusters["fra"].report is not None
            assert world.clusters["fra"].report.boot_id == "boot-0001"
    (note,) = told_of
    assert "boot-0001" in note.message
    assert "boot-0002" in note.message
    assert world.clusters["fra"].disputed_with == "boot-0002"
    world = heard(world, second(9), now_s=53.0)
    last = heard(world, second(10), now_s=71.0)
    assert last.clusters["fra"].report.boot_id == "boot-0002", "the first has been silent for two reports"  # type: ignore[union-attr]
    back = heard(last, first(7), now_s=92.0)
    assert back.clusters["fra"].report.boot_id == "boot-0001", "and may come back as the second did"  # type: ignore[union-attr]


def test_no_clock_orders_anything_but_a_wrong_one_is_told() -> None:
    """An agent with a wrong clock would go unheard, or nobody would know why its certificates are not valid yet."""
    world = a_world("fra")
    at = 1_800_000_000.0
    skewed = hear(world, Heard(message=a_report("fra", clock_s=at + 7e9), now_s=1.0, wall_s=at))
    assert skewed.result == "accepted"
    assert [note.reason for note in skewed.notes] == ["ClusterReady", "ClockSkew"]
    same = hear(skewed.world, Heard(message=a_report("fra", seq=2, clock_s=at + 7e9), now_s=2.0, wall_s=at))
    assert same.notes == ()
    right = hear(same.world, Heard(message=a_report("fra", seq=3, clock_s=at), now_s=3.0, wall_s=at))
    assert [note.reason for note in right.notes] == ["ClockInStep"]


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
    dying = hear(all_heard(), Heard(message=will, now_s=3.0))
    assert dying.look_after_s == 0.5
    assert phases(dying.world)["fra-1"] == "ready", "others' wills may follow: then it was our connection"
    gone = told(dying.world, TimePassed(now_s=3.5))
    assert phases(gone)["fra-1"] == "unreachable"
    alive = heard(dying.world, a_report("fra-1", seq=2), now_s=3.3)
    assert phases(told(alive, TimePassed(now_s=3.5)))["fra-1"] == "ready"
    back = heard(gone, a_report("fra-1", seq=2), now_s=4.0)
    assert phases(back)["fra-1"] == "ready"
    stale_will = messages.Status(cluster="fra-1", boot_id="boot-0000", online=False)
    assert phases(told(back, Heard(message=stale_will, now_s=5.0)))["fra-1"] == "ready"
    assert phases(told(back, Heard(message=will, now_s=5.0, retained=True)))["fra-1"] == "ready"


def will(name: str, now_s: float) -> Heard:
    return Heard(message=messages.Status(cluster=name, boot_id="boot-0001", online=False), now_s=now_s)


def silence(world: World) -> World:
    return told(world, TimePassed(now_s=41.0))


def staggered_silence(world: World) -> World:
    """Last heard within one report interval of each other, so that ticks find them stale one after another."""
    for number, name in enumerate(CLUSTERS):
        world = heard(world, a_report(name, seq=2), now_s=2.0 * number)
    return told(world, TimePassed(now_s=39.0), TimePassed(now_s=41.0))


def wills(world: World) -> World:
    events: list[Heard | TimePassed] = [
        *(will(name, 3.0 + 0.1 * number) for number, name in enumerate(CLUSTERS)),
        TimePassed(now_s=3.5),
    ]
    return told(world, *sorted(events, key=lambda one: one.now_s))


def wills_of_a_slow_broker(world: World) -> World:
    """A broker notices by its keepalive, one connection after another."""
    return told(
        world,
        *(event for n, name in enumerate(CLUSTERS) for event in (will(name, 27.0 + n), TimePassed(now_s=27.5 + n))),
    )


@pytest.mark.parametrize("cause", [silence, staggered_silence, wills, wills_of_a_slow_broker])
def test_many_silent_at_once_brake_and_nothing_that_it_protects_changes(cause: Any) -> None:
    """A controller that is itself cut off would take every user off every cluster."""
    world = cause(all_heard())
    assert "It waits for fra-1" in world.braked
    routable = {name for name in CLUSTERS if world.is_routable(name)}
    assert routable == set(CLUSTERS)
    for number in range(20 * 60):
        world = told(world, TimePassed(now_s=50.0 + 5.0 * number))
        assert {name for name in CLUSTERS if world.is_routable(name)} == routable
        assert {world.phase_for_routing(name) for name in CLUSTERS} == {Phase.READY}
        assert Phase.LOST not in {state.phase for state in world.clusters.values()}
    now_s = 50.0 + 5.0 * 20 * 60
    for number, name in enumerate(CLUSTERS):
        assert world.braked
        world = heard(world, a_report(name, seq=9, boot_id="boot-0002"), now_s=now_s + 5.0 * number)
        world = told(world, TimePassed(now_s=now_s + 5.0 * number))
        assert all(world.is_routable(one) for one in CLUSTERS), "those on their way back are not taken for lost"
    assert world.braked == ""
    assert all(state.losses_s == () for state in world.clusters.values())


def test_what_stays_away_after_the_brake_is_lost_from_then_on() -> None:
    """The brake would hold for ever for one cluster that died in the outage, or hand its users over twice."""
    world = silence(all_heard())
    back = heard(world, *(a_report(name, seq=2) for name in CLUSTERS[1:]), now_s=100.0)
    back = told(back, TimePassed(now_s=101.0))
    assert back.braked, "one is missing: it may be on its way"
    assert back.is_routable("fra-1")
    heard_on = heard(back, *(a_report(name, seq=3) for name in CLUSTERS[1:]), now_s=141.0)
    after = told(heard_on, TimePassed(now_s=141.5))
    assert after.braked == ""
    assert not after.is_routable("fra-1")
    assert after.clusters["fra-1"].since_s == 141.5, "its toleration begins when the brake ends"


def a_large_fleet() -> tuple[World, list[str]]:
    names = [f"fra-{number:03}" for number in range(200)]
    return heard(a_world(*names), *(a_report(name) for name in names)), names


def test_a_storm_of_wills_takes_nobody_for_lost() -> None:
    """All connections of a large fleet break together; the first to be told would lose its users for it."""
    world, names = a_large_fleet()
    for number, name in enumerate(names):  # four seconds, looked at every tenth
        world = told(world, will(name, 3.0 + 0.02 * number))
        if number % 5 == 0 and number:
            world = told(world, TimePassed(now_s=3.0 + 0.02 * number))
    world = told(world, TimePassed(now_s=8.0))
    assert world.braked
    assert {state.phase for state in world.clusters.values()} == {Phase.READY}


def test_a_region_that_breaks_off_is_believed_when_no_more_wills_come() -> None:
    """Users of a lost region would wait for the whole stale time, as its wills were many."""
    world, names = a_large_fleet()
    world = told(world, *(will(name, 3.0 + 0.01 * number) for number, name in enumerate(names[:20])))
    assert phases(told(world, TimePassed(now_s=3.5)))[names[0]] == "ready", "more may follow"
    gone = told(world, TimePassed(now_s=3.7))
    assert not gone.braked
    assert {name for name, phase in phases(gone).items() if phase == "unreachable"} == set(names[:20])
    assert phases(gone)[names[20]] == "ready"


def test_wills_that_trickle_on_are_believed_after_a_while() -> None:
    """One bad network after another would keep users on clusters that are gone."""
    world, names = a_large_fleet()
    for number, name in enumerate(names[:60]):
        world = told(world, will(name, 3.0 + 0.1 * number))
    assert phases(told(world, TimePassed(now_s=9.0)))[names[0]] == "unreachable"


def test_who_was_heard_is_not_silent_because_nobody_has_read_it_yet() -> None:
    """A controller that is behind would take the clusters of which it has not read the reports yet for dead."""
    world = all_heard()
    late = told(world, TimePassed(now_s=41.0, waiting=dict.fromkeys(CLUSTERS, 39.0)))
    assert not late.braked
    assert {phases(late)[name] for name in CLUSTERS} == {"ready"}
    assert all(state.report is world.clusters[name].report for name, state in late.clusters.items())


def test_a_will_that_is_read_late_does_not_end_who_was_heard_since() -> None:
    """A cluster that came back would be taken off the map by the message of its earlier connection."""
    world = heard(all_heard(), a_report("fra-1", seq=2), now_s=6.0)
    assert told(world, will("fra-1", 5.0)) is world


@pytest.mark.parametrize("first_missed", CLUSTERS[:2])
def test_who_is_missed_first_keeps_its_users_until_it_can_be_heard_again(first_missed: str) -> None:
    """A controller that was deaf for a moment would move a cluster's users as it hears the others before that one."""
    others = [name for name in CLUSTERS if name != first_missed]
    world = heard(all_heard(), *(a_report(name, seq=2) for name in others), now_s=5.0)
    world = told(world, TimePassed(now_s=41.0))
    assert world.braked
    assert [name for name, phase in phases(world).items() if phase == "unreachable"] == [first_missed]
    world = told(world, BrokerLost(now_s=42.0), BrokerFound(now_s=43.0))
    world = heard(world, *(a_report(name, seq=3) for name in others), now_s=44.0)
    world = told(world, TimePassed(now_s=45.0))
    assert world.is_routable(first_missed)
    world = told(heard(world, a_report(first_missed, seq=2), now_s=52.0), TimePassed(now_s=55.0))
    assert world.braked == ""
    assert world.is_routable(first_missed)


def test_a_cluster_that_comes_and_goes_does_not_hold_the_brake() -> None:
    """One bad network would freeze placement for good, once the brake is on."""
    world = silence(all_heard())
    seq, now_s = 2, 50.0
    flapping, gone, *rest = CLUSTERS
    while world.braked and now_s < 300.0:
        seq, now_s = seq + 1, now_s + 10.0
        speaks = [*rest, *([flapping] if seq % 4 == 0 else [])]
        world = told(heard(world, *(a_report(name, seq=seq) for name in speaks), now_s=now_s), TimePassed(now_s=now_s))
    assert now_s < 150.0
    assert not world.is_routable(gone)


def test_clusters_that_were_gone_before_neither_hold_the_brake_nor_weaken_it() -> None:
    """One second without a network would freeze placement for good, where two clusters were given up months ago; and
    where most were, users of the rest would be sent nowhere."""
    world = all_heard()
    left: tuple[str, ...] = CLUSTERS
    seq, now_s = 1, 0.0
    for gone in range(5):  # one after another, each long after the one before
        left = CLUSTERS[gone:]
        until_s = now_s + 600.0
        while now_s < until_s:
            seq, now_s = seq + 1, now_s + 10.0
            world = heard(world, *(a_report(name, seq=seq) for name in left), now_s=now_s)
            world = told(world, TimePassed(now_s=now_s))
        assert world.braked == ""
        cut = told(world, TimePassed(now_s=now_s + 41.0))
        assert f"It waits for {left[0]}" in cut.braked
        assert all(cut.is_routable(name) for name in left)
        assert not any(cut.is_routable(name) for name in CLUSTERS[:gone])
        back = heard(cut, *(a_report(name, seq=seq + 1) for name in left), now_s=now_s + 42.0)
        assert told(back, TimePassed(now_s=now_s + 43.0)).braked == ""


def test_the_only_cluster_there_is_keeps_its_users() -> None:
    """Users of a fleet of one would be sent nowhere because its agent ended."""
    world = told(heard(a_world("fra"), a_report("fra")), TimePassed(now_s=41.0))
    assert world.braked
    assert world.is_routable("fra")


def test_a_controller_that_starts_cut_off_keeps_what_an_earlier_one_relied_on() -> None:
    """A restart in the middle of an outage would do what the brake had prevented until then."""
    world = replace(a_world(*CLUSTERS), relied_on=frozenset(CLUSTERS))
    world = told(world, TimePassed(now_s=41.0))
    assert world.braked
    assert all(world.is_routable(name) for name in CLUSTERS)


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


def test_demand_is_what_all_front_doors_count_and_not_said_is_not_zero() -> None:
    """One cluster could erase the users of others; users of a lost front door would vanish."""
    first = a_report("fra", demand=(some_demand("chat", "berlin", 5.0),))
    second = a_report("iad", demand=(some_demand("chat", "berlin", 7.0),))
    world = heard(heard(a_world("fra", "iad"), first, now_s=1.0), second, now_s=2.0)
    assert world.demand[ModelCell(("chat", "berlin"))].requests_per_second == 12.0
    world = heard(world, a_report("iad", seq=2), now_s=3.0)
    assert world.demand[ModelCell(("chat", "berlin"))].requests_per_second == 12.0, "not said is not zero"


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
    assert world.demand[ModelCell(("chat", "Berlin"))].requests_per_second == 10
    fresher = (some_demand("chat", "Berlin", 3),)
    world = heard(world, a_report("iad", demand=fresher), now_s=2.0)
    world = told(world, Heard(message=a_report("fra", seq=2, demand=counted), now_s=3.0, retained=True))
    assert world.demand[ModelCell(("chat", "Berlin"))].requests_per_second == 3, (
        "memory does not speak over what is heard"
    )
