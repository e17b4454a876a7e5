"""How much of what a front door claims is believed, and how fast and how far that grows."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from federation.state import levels
from federation.state.reduce import BrokerFound, BrokerLost, DocumentsAccepted, Heard
from federation.state.world import Known, World
from tests.builders import a_cluster, a_report, a_world, heard, some_demand, told

DAY_S = levels.DAY_S


class Door:
    """One front door that claims what a test says, in a world that hears it."""

    def __init__(self, world: World, name: str = "fra") -> None:
        self.world, self.name, self.seq = world, name, 0

    def claims(self, *rows_rps: float, now_s: float) -> float:
        """What is believed of a claim, all together."""
        self.seq += 1
        rows = tuple(some_demand("chat", f"{self.name}-{n}", rps) for n, rps in enumerate(rows_rps))
        self.world = heard(self.world, a_report(self.name, seq=self.seq, demand=rows), now_s=now_s)
        return self.believed

    def lasts(self, *rows_rps: float, now_s: float, for_s: float, every_s: float = 10.0) -> list[float]:
        """What is believed from report to report while a claim lasts."""
        return [self.claims(*rows_rps, now_s=now_s + every_s * n) for n in range(1, 1 + round(for_s / every_s))]

    @property
    def believed(self) -> float:
        return sum(row.requests_per_second for row in self.world.clusters[self.name].counted)

    @property
    def conditions(self) -> dict[str, str]:
        return {one.type: one.message for one in self.world.clusters[self.name].findings}


def a_door(rps: float = 10.0) -> Door:
    """One that counted so much when the controller began."""
    door = Door(a_world("fra"))
    assert door.claims(rps, now_s=1.0) == rps
    return door


def remembering(known_rps: float, *names: str) -> World:
    """A controller's start that remembers what front doors counted an hour ago."""
    empty = a_world()
    known = {name: Known(rps=known_rps, peak_rps=known_rps, since_s=-3600.0) for name in names}
    catalogue = tuple(a_cluster(name) for name in sorted({"fra", "iad", *names}))
    given = msgspec.structs.replace(empty.documents, clusters=catalogue)
    return told(dataclasses.replace(empty, known=known), DocumentsAccepted(documents=given, now_s=0.0))


def test_a_small_door_may_have_twenty_requests_per_second_at_once() -> None:
    """The first users of a new product would wait a minute for each of their number."""
    door = a_door(1.0)
    assert door.claims(20.0, now_s=100.0) == 20.0
    door = a_door(1.0)
    assert door.claims(20.5, now_s=100.0) == 1.0


def test_users_who_come_little_by_little_are_believed_as_they_come() -> None:
    """A growth that doubles each minute would be held against what was counted an hour ago."""
    door = a_door(100.0)
    for minute in range(1, 5):
        claim = 100.0 * 2.0**minute
        assert set(door.lasts(claim, now_s=60.0 * minute, for_s=60.0)) == {claim}


def test_spikes_are_no_growth() -> None:
    """A lie that is told for a moment each minute would count as one that lasts."""
    door = a_door(100.0)
    for minute in range(1, 6):
        assert door.claims(1_000.0, now_s=100.0 * minute) == 100.0
        assert door.claims(100.0, now_s=100.0 * minute + 10.0) == 100.0


def test_each_step_of_a_growth_lasts_its_own_time() -> None:
    """A liar would have sixteen times his share seventy seconds after he began."""
    door = a_door()
    seen = door.lasts(160.0, now_s=100.0, for_s=200.0)
    assert seen[:6] == pytest.approx([10.0] * 6)
    assert seen[6:12] == pytest.approx([40.0] * 6)
    assert seen[12:] == pytest.approx([160.0] * 8)


def test_a_growth_is_told_with_how_often_what_was_known_it_is() -> None:
    """Nobody could tell a launch from a lie, nor know what to type."""
    door = a_door(100.0)
    door.claims(1_000.0, now_s=100.0)
    assert "10 times what was known" in door.conditions["DemandDoubted"]
    assert 'isochrone confirm fra --reason "…"' in door.conditions["DemandDoubted"]
    door.lasts(1_000.0, now_s=100.0, for_s=200.0)
    assert door.believed == pytest.approx(1_000.0)
    assert set(door.conditions) == {"DemandGrew"}
    assert "10 times what was known" in door.conditions["DemandGrew"]


@pytest.mark.parametrize(("known_rps", "most_rps"), [(10.0, 320.0), (100.0, 1_600.0)])
def test_a_lie_that_lasts_leads_no_further_than_the_days_factor(known_rps: float, most_rps: float) -> None:
    """A member that goes on lying would have everybody's capacity within minutes."""
    door = a_door(known_rps)
    door.lasts(1e6, now_s=100.0, for_s=600.0)
    assert door.believed == pytest.approx(most_rps)
    door.lasts(1e6, now_s=1_000.0, for_s=7 * DAY_S, every_s=1_000.0)
    assert door.believed == pytest.approx(most_rps), "however many days"
    assert "no more until" in door.conditions["DemandDoubted"]


def test_what_was_counted_for_a_day_is_known() -> None:
    """Users who came little by little would wait for a person for ever."""
    door = a_door(100.0)
    door.lasts(900.0, now_s=100.0, for_s=DAY_S, every_s=1_000.0)
    assert set(door.conditions) == {"DemandGrew"}
    door.lasts(900.0, now_s=100.0 + DAY_S, for_s=2_000.0, every_s=1_000.0)
    assert door.conditions == {}
    door.lasts(9_000.0, now_s=3_000.0 + DAY_S, for_s=600.0)
    assert door.believed == pytest.approx(9_000.0)


def test_a_night_does_not_make_the_morning_a_jump() -> None:
    """Who sleeps at night would find nobody to serve him by day."""
    door = a_door(1_000.0)
    for day in range(3):
        at_s = 100.0 + day * DAY_S
        door.lasts(5.0, now_s=at_s, for_s=DAY_S / 2, every_s=1_000.0)
        assert set(door.lasts(1_000.0, now_s=at_s + DAY_S / 2, for_s=DAY_S / 2, every_s=1_000.0)) == {1_000.0}
        assert door.conditions == {}


def test_the_users_of_a_door_that_failed_may_come_in_at_another() -> None:
    """The users of a lost region would be taken for a lie where they come in."""
    world = a_world("fra", "iad", "nrt")
    iad, nrt = Door(world, "iad"), Door(world, "nrt")
    iad.claims(5_000.0, now_s=1.0)
    nrt.world = iad.world
    nrt.claims(5_000.0, now_s=1.0)
    door = Door(nrt.world)
    door.claims(10.0, now_s=1.0)
    greedy = Door(door.world)
    greedy.seq = 1
    assert greedy.claims(2_600.0, now_s=100.0) == 10.0, "more waits"
    assert door.claims(2_500.0, now_s=100.0) == 2_500.0, "a quarter of what all others count: at once"
    door.lasts(1e6, now_s=100.0, for_s=1_000.0)
    assert door.believed == pytest.approx(10_010.0), "as much as all others count"


def test_two_who_lie_do_not_carry_each_other_up() -> None:
    """Two members in league would pass every bound by turns."""
    world = a_world("fra", "iad")
    one, other = Door(world), Door(world, "iad")
    one.claims(100.0, now_s=1.0)
    other.world = one.world
    other.claims(100.0, now_s=1.0)
    for n in range(200):
        one.world = other.world
        one.claims(1e6, now_s=100.0 + 20.0 * n)
        other.world = one.world
        other.claims(1e6, now_s=110.0 + 20.0 * n)
    assert (one.believed, other.believed) == pytest.approx((1_600.0, 1_600.0))


def test_what_is_declared_is_the_bound_instead() -> None:
    """An operator who says what a front door counts at most would have to confirm it besides."""
    world = a_world("fra")
    document = a_cluster("fra", max_requests_per_second=5_000.0)
    world = dataclasses.replace(world, documents=msgspec.structs.replace(world.documents, clusters=(document,)))
    door = Door(world)
    door.claims(10.0, now_s=1.0)
    door.lasts(1e6, now_s=100.0, for_s=600.0)
    assert door.believed == pytest.approx(5_000.0)
    assert set(door.conditions) == {"ImplausibleDemand"}


# ---- at a controller's start


def test_the_first_value_is_believed_where_nothing_is_remembered_up_to_what_can_be() -> None:
    """A new installation would serve twenty requests per second; or whatever anybody says."""
    door = Door(a_world("fra"))
    assert door.claims(30_000.0, now_s=1.0) == 30_000.0
    door = Door(a_world("fra"))
    assert door.claims(9e5, 9e5, now_s=1.0) == levels.MOST_RPS
    assert set(door.conditions) == {"ImplausibleDemand"}


@pytest.mark.parametrize("by_the_broker", [False, True])
def test_a_start_holds_the_first_value_against_what_is_remembered(by_the_broker: bool) -> None:
    """A member that lies would be believed at once by every controller that starts."""
    rows = (some_demand("chat", "Berlin", 1e6),)
    event = Heard(message=a_report("fra", demand=rows), now_s=1.0, retained=by_the_broker)
    door = Door(told(remembering(100.0, "fra"), event))
    assert door.believed == 1_600.0
    assert "DemandDoubted" in door.conditions
    door = Door(remembering(100.0, "fra"))
    assert door.claims(1_500.0, now_s=1.0) == 1_500.0, "who grew that day goes on as he was"
    assert set(door.conditions) == {"DemandGrew"}


def test_a_start_takes_who_is_not_remembered_for_a_newcomer() -> None:
    """A lie would only need a name that was not there before."""
    door = Door(remembering(100.0, "fra"), "iad")
    assert door.claims(1e6, now_s=1.0) == 100.0, "as much as all others count"


def test_a_connection_that_was_lost_is_no_start() -> None:
    """A newcomer would be believed whatever it says whenever the broker restarts."""
    world = heard(a_world("fra", "iad"), a_report("fra", demand=(some_demand("chat", "Berlin", 50),)), now_s=1.0)
    door = Door(told(world, BrokerLost(now_s=100.0), BrokerFound(now_s=110.0)), "iad")
    assert door.claims(1e6, now_s=111.0) == 50.0


def test_a_newcomers_first_level_is_what_was_believed_of_it() -> None:
    """A member would be known, for good, by the first thing that it claims."""
    world = heard(a_world("fra", "iad"), a_report("fra", demand=(some_demand("chat", "Berlin", 50),)), now_s=1.0)
    door = Door(world, "iad")
    door.lasts(1e6, now_s=100.0, for_s=1_000.0)
    assert door.believed == pytest.approx(800.0)


def test_a_claim_that_falls_back_is_believed_at_once() -> None:
    """After a spike of a moment a front door's real count would be held for a minute."""
    door = a_door(100.0)
    door.claims(1e6, now_s=100.0)
    assert door.claims(90.0, now_s=110.0) == 90.0
    assert door.conditions == {}


def test_a_message_that_counts_nothing_holds_nothing() -> None:
    """An agent that cannot read its counts would keep a condition of long ago."""
    door = a_door(100.0)
    door.claims(1e6, now_s=100.0)
    assert door.world.clusters["fra"].held
    door.world = heard(door.world, a_report("fra", seq=9), now_s=110.0)
    assert not door.world.clusters["fra"].held and door.conditions == {}


def test_memory_of_a_door_counts_for_what_others_may_count() -> None:
    """After a restart the first of two doors to speak would be alone in the world."""
    door = Door(remembering(1_000.0, "fra", "iad"))
    door.claims(10.0, now_s=1.0)
    assert door.claims(260.0, now_s=100.0) == 260.0, "a quarter of what the other was known to count, and ten"
