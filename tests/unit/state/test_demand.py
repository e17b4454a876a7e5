"""Who counts users, where these are, and for how long that is believed."""

from __future__ import annotations

import dataclasses
import random

import msgspec
import pytest

from federation.policy import documents
from federation.state import demand
from federation.state.keys import ModelCell
from federation.state.reduce import BrokerFound, BrokerLost, DocumentsAccepted, Heard, TimePassed
from federation.state.world import World
from federation.wire import messages
from tests.builders import a_cluster, a_report, a_world, hear, heard, some_demand, told

KEY = ModelCell(("chat", "Berlin"))


def rps(world: World, cell: str = "Berlin") -> float:
    one = world.demand.get(ModelCell(("chat", cell)))
    return 0.0 if one is None else one.requests_per_second


def counting(cluster: str, seq: int, *rows: messages.DemandSample) -> messages.Report:
    return a_report(cluster, seq=seq, demand=rows)


def test_a_front_door_cannot_take_away_what_another_counts() -> None:
    """One member that says 0 for every cell would leave all users of the others without replicas."""
    world = heard(a_world("fra", "iad"), counting("fra", 1, some_demand("chat", "Berlin", 30)), now_s=1.0)
    world = heard(world, counting("iad", 1, some_demand("chat", "Berlin", 0.0)), now_s=2.0)
    assert rps(world) == 30
    assert world.demand[KEY].reporter == "fra", "the front door stays the one that counted first"


def test_a_cell_that_its_front_door_names_no_more_is_gone_at_once() -> None:
    """Ghosts of one wrong report would take capacity from users for ever."""
    ghosts = tuple(some_demand("chat", f"ghost-{n}", 1.0) for n in range(15))
    berlin = some_demand("chat", "Berlin", 10)
    world = heard(a_world("fra"), counting("fra", 1, berlin, *ghosts), now_s=1.0)
    assert len(world.demand) == 16
    world = heard(world, counting("fra", 2, berlin), now_s=11.0)
    assert set(world.demand) == {KEY}
    assert set(world.claims) == {"Berlin"}


def test_a_count_that_nobody_repeats_stands_then_halves_then_ends() -> None:
    """Demand of a front door that is gone would hold replicas for ever; or vanish with the first silence."""
    world = heard(a_world("fra", "iad", "nrt"), *(a_report(n) for n in ("iad", "nrt")), now_s=1.0)
    world = heard(world, counting("fra", 1, some_demand("chat", "Berlin", 64)), now_s=1.0)
    timing = world.timing
    seen = {}
    seq, at_s = 1, 1.0
    while at_s < 1100.0:
        at_s += 10.0
        seq += 1
        world = heard(world, a_report("iad", seq=seq), a_report("nrt", seq=seq), now_s=at_s)
        world = told(world, TimePassed(now_s=at_s))
        seen[at_s] = rps(world)
    assert world.clusters["fra"].phase.value == "lost"
    stands_s = timing.count_stands_s
    assert {value for at_s, value in seen.items() if at_s < stands_s} == {64.0}
    halves = sorted(set(seen.values()), reverse=True)
    assert halves[:4] == [64.0, 32.0, 16.0, 8.0]
    assert seen[1091.0] == 0.0 and KEY not in world.demand
    assert world.clusters["fra"].counted == ()


def test_a_front_door_that_counts_nothing_is_one_that_says_nothing() -> None:
    """An agent whose file is missing after a restart would make all its users vanish."""
    world = heard(a_world("fra"), counting("fra", 1, some_demand("chat", "Berlin", 64)), now_s=1.0)
    for number in range(2, 20):
        world = told(heard(world, a_report("fra", seq=number), now_s=10.0 * number), TimePassed(now_s=10.0 * number))
    assert rps(world) == 64
    for number in range(20, 40):
        world = told(heard(world, a_report("fra", seq=number), now_s=10.0 * number), TimePassed(now_s=10.0 * number))
    assert 0 < rps(world) < 64
    world = heard(world, counting("fra", 40, some_demand("chat", "Berlin", 60)), now_s=401.0)
    assert rps(world) == 60 and world.clusters["fra"].count_weight == 1.0


def test_nothing_decays_while_the_controller_is_deaf_or_brakes() -> None:
    """A long outage of the broker would end with no users in mind."""
    names = ("fra", "iad", "nrt")
    world = heard(a_world(*names), *(counting(n, 1, some_demand("chat", n, 10)) for n in names), now_s=1.0)
    deaf = told(world, BrokerLost(now_s=2.0), TimePassed(now_s=5000.0))
    assert deaf.demand == world.demand
    braked = told(world, TimePassed(now_s=45.0), TimePassed(now_s=5000.0))
    assert braked.braked
    assert {key: one.requests_per_second for key, one in braked.demand.items()} == {("chat", n): 10.0 for n in names}


def test_users_who_come_in_elsewhere_are_not_counted_twice() -> None:
    """With a front door lost and its users at another, replicas for both would be started."""
    world = heard(a_world("fra", "iad"), counting("fra", 1, some_demand("chat", "Berlin", 30)), now_s=1.0)
    world = heard(world, counting("iad", 1, some_demand("chat", "NY", 20)), now_s=1.0)
    world = heard(world, counting("iad", 2, some_demand("chat", "NY", 20)), now_s=41.0)
    world = told(world, TimePassed(now_s=42.0))
    came = counting("iad", 3, some_demand("chat", "NY", 20), some_demand("chat", "Berlin", 30))
    world = heard(world, came, now_s=51.0)
    assert rps(world) == 30
    assert world.demand[KEY].reporter == "iad"


def test_who_claims_a_silent_doors_users_for_a_moment_does_not_take_them_along() -> None:
    """One member that counts a lost region's users once, and then nobody, would have their replicas stopped."""
    world = heard(a_world("fra", "iad"), counting("fra", 1, some_demand("chat", "Berlin", 30)), now_s=1.0)
    world = heard(world, counting("iad", 1, some_demand("chat", "NY", 20)), now_s=1.0)
    world = told(heard(world, counting("iad", 2, some_demand("chat", "NY", 20)), now_s=41.0), TimePassed(now_s=42.0))
    came = tuple(some_demand("chat", name, rps) for name, rps in (("NY", 20), ("Berlin", 30)))
    world = heard(world, counting("iad", 3, *came), now_s=51.0)
    fewer = heard(world, counting("iad", 4, came[0], some_demand("chat", "Berlin", 10)), now_s=61.0)
    gone = heard(world, counting("iad", 4, came[0]), now_s=61.0)
    assert (rps(world), rps(fewer), rps(gone)) == (30, 30, 30)
    back = heard(fewer, counting("fra", 2, some_demand("chat", "Berlin", 20)), now_s=71.0)
    assert rps(back) == 30, "who is heard again counts for itself"


def test_memory_of_a_front_door_is_as_old_as_it_is() -> None:
    """After a restart of the controller a door that closed hours ago would count as if it had just spoken."""
    old = messages.Report(
        cluster="fra",
        boot_id="boot-0001",
        seq=1,
        interval_s=10.0,
        clock_s=1_000.0,
        demand=(some_demand("chat", "Berlin", 10),),
    )
    world = told(a_world("fra", "iad"), Heard(message=old, now_s=1.0, wall_s=1_000.0 + 7200.0, retained=True))
    assert rps(world) == 10, "it may speak any moment"
    world = heard(heard(world, a_report("iad"), now_s=2.0), a_report("iad", seq=2), now_s=40.0)
    world = told(world, TimePassed(now_s=45.0))
    assert rps(world) == 0


def test_nothing_decays_before_anybody_could_speak() -> None:
    """After a night without a controller the first instant of the next would find no users at all."""
    old = counting("fra", 1, some_demand("chat", "Berlin", 10))
    old = msgspec.structs.replace(old, clock_s=1_000.0)
    world = told(a_world("fra", "iad"), Heard(message=old, now_s=1.0, wall_s=1_000.0 + 7200.0, retained=True))
    assert rps(told(world, TimePassed(now_s=5.0))) == 10


def test_silence_is_counted_from_when_something_could_be_heard() -> None:
    """A broker that was down for an hour would take the users of all with it."""
    world = heard(a_world("fra"), counting("fra", 1, some_demand("chat", "Berlin", 64)), now_s=1.0)
    world = told(world, BrokerLost(now_s=2.0), BrokerFound(now_s=5_000.0), TimePassed(now_s=5_005.0))
    assert rps(world) == 64


def test_a_door_that_was_silent_under_the_brake_stands_from_its_end() -> None:
    """The users of the last to come back from a long cut would be gone with the brake."""
    names = ("fra", "iad", "nrt")
    world = heard(a_world(*names), *(counting(n, 1, some_demand("chat", n, 10)) for n in names), now_s=1.0)
    world = told(world, TimePassed(now_s=45.0), TimePassed(now_s=2_000.0))
    assert world.brake is not None
    now_s, seq = 2_000.0, 1
    while world.brake is not None:
        now_s, seq = now_s + 10.0, seq + 1
        back = [counting(n, seq, some_demand("chat", n, 10)) for n in names[1:]]
        world = told(heard(world, *back, now_s=now_s), TimePassed(now_s=now_s))
        assert now_s < 2_500.0
    assert world.clusters["fra"].phase.value == "unreachable"
    assert rps(told(world, TimePassed(now_s=now_s + 10.0)), "fra") == 10


# ---- where a cell is


def test_a_minority_cannot_move_a_cell_to_another_country() -> None:
    """One member could lift residency for all users of a city: it says Berlin is in the United States."""
    world = heard(a_world("fra", "iad", "par"), counting("fra", 1, some_demand("chat", "Berlin", 20)), now_s=1.0)
    world = heard(world, counting("par", 1, some_demand("chat", "Berlin", 10)), now_s=1.0)
    lie = counting("iad", 1, some_demand("chat", "Berlin", 30, country="US"), some_demand("chat", "NY", 5, at="iad"))
    reduced = hear(world, Heard(message=lie, now_s=2.0))
    assert reduced.world.cells["Berlin"].country == "DE"
    assert rps(reduced.world) == 30 and rps(reduced.world, "NY") == 5, "the rest of the report is believed"
    assert [(one.type, one.object) for one in reduced.world.clusters["iad"].findings] == [
        ("ImplausibleCell", "cell/Berlin")
    ]
    assert [one.reason for one in reduced.notes if one.reason == "ImplausibleCell"] == ["ImplausibleCell"]
    again = hear(reduced.world, Heard(message=counting("iad", 2, *lie.demand), now_s=12.0))
    assert not [one for one in again.notes if one.reason == "ImplausibleCell"], "told once"


@pytest.mark.parametrize("first", ["fra", "iad"])
def test_where_as_many_disagree_a_cell_is_in_one_of_their_countries(first: str) -> None:
    """Who comes first after a restart of the controller would lift residency, or keep a city's users from counting."""
    rows = {"fra": some_demand("chat", "Berlin", 30), "iad": some_demand("chat", "Berlin", 5, country="US", at="iad")}
    world = a_world("fra", "iad", "par")
    order = sorted(rows, key=lambda name: name != first)
    for seq in (1, 2):
        for name in order:
            world = heard(world, counting(name, seq, rows[name]), now_s=10.0 * seq)
    assert world.cells["Berlin"].country == "DE/US"
    assert rps(world) == 35, "users that are nowhere for certain are users"
    for name in order:
        (finding,) = world.clusters[name].findings
        assert (finding.type, finding.object) == ("CellDisputed", "cell/Berlin")
        assert "fra says DE, iad says US" in finding.message
    world = heard(world, counting("par", 1, some_demand("chat", "Berlin", 1)), now_s=25.0)
    assert world.cells["Berlin"].country == "DE", "a third decides"
    for name in order:
        world = heard(world, counting(name, 3, rows[name]), now_s=30.0)
    assert rps(world) == 31
    assert world.clusters["fra"].findings == ()
    assert [one.type for one in world.clusters["iad"].findings] == ["ImplausibleCell"]


def declaring(world: World, **cells: str) -> World:
    """The world once the catalogue says in which countries these cells are."""
    places = tuple(documents.CellPlace(name=name, country=country) for name, country in cells.items())
    first, *others = world.documents.clusters
    first = msgspec.structs.replace(first, spec=msgspec.structs.replace(first.spec, cells=places))
    given = msgspec.structs.replace(world.documents, clusters=(first, *others))
    return told(world, DocumentsAccepted(documents=given, now_s=1.0))


def test_the_catalogue_says_where_a_cell_is_whoever_says_otherwise() -> None:
    """Members that are hacked alike would move a city out of its jurisdiction by their number."""
    world = a_world("fra", "iad", "par")
    lie = some_demand("chat", "Berlin", 5, country="US", at="iad")
    before = heard(world, counting("iad", 1, lie), counting("par", 1, lie), now_s=1.0)
    assert before.cells["Berlin"].country == "US"
    world = declaring(before, Berlin="DE")
    assert world.cells["Berlin"].country == "DE", "with the document, not with the next report"
    world = heard(world, counting("iad", 2, lie), counting("par", 2, lie), now_s=11.0)
    assert rps(world) == 0
    (finding,) = world.clusters["par"].findings
    assert (finding.type, finding.object) == ("ImplausibleCell", "cell/Berlin")
    assert "in DE by the catalogue" in finding.message
    world = heard(world, counting("fra", 1, some_demand("chat", "Berlin", 30)), now_s=12.0)
    assert rps(world) == 30 and world.cells["Berlin"].country == "DE"
    world = heard(declaring(a_world("fra"), Berlin="DE"), counting("fra", 1, lie), now_s=1.0)
    assert rps(world) == 0, "nor does the first who counts there"


def test_a_report_names_a_cell_in_one_place() -> None:
    """A second row of another country would be counted by the verdict on the first."""
    berlin, elsewhere = some_demand("chat", "Berlin", 30), some_demand("code", "Berlin", 7, country="US")
    world = heard(a_world("fra"), counting("fra", 1, berlin, elsewhere), now_s=1.0)
    assert world.cells["Berlin"].country == "DE" and set(world.demand) == {KEY}
    (finding,) = world.clusters["fra"].findings
    assert (finding.type, finding.object) == ("ImplausibleCell", "cell/Berlin")
    assert "two places" in finding.message


def test_who_counts_nobody_of_a_cell_has_no_say_where_it_is() -> None:
    """A member could make every city disputed for nothing."""
    world = heard(a_world("fra", "iad"), counting("fra", 1, some_demand("chat", "Berlin", 30)), now_s=1.0)
    world = heard(world, counting("iad", 1, some_demand("chat", "Berlin", 0.0, country="US")), now_s=2.0)
    assert world.cells["Berlin"].country == "DE" and world.clusters["iad"].findings == ()
    assert world.clusters["iad"].counted == ()


def test_a_cell_that_moved_by_a_lie_is_put_right_by_the_majority() -> None:
    """Who comes first would decide for ever where a city is."""
    lie = counting("iad", 1, some_demand("chat", "Berlin", 1, country="US"))
    world = heard(a_world("fra", "iad", "par"), lie, now_s=1.0)
    assert world.cells["Berlin"].country == "US"
    world = heard(world, counting("iad", 2, some_demand("chat", "NY", 1)), now_s=11.0)
    world = heard(world, counting("fra", 1, some_demand("chat", "Berlin", 30)), now_s=12.0)
    assert world.cells["Berlin"].country == "DE"


def test_a_place_that_is_far_from_where_most_say_it_is_does_not_count() -> None:
    """A member could draw the users of a city to the other end of their country."""
    far = some_demand("chat", "Berlin", 9)
    far = msgspec.structs.replace(far, cell=msgspec.structs.replace(far.cell, lat=far.cell.lat + 4.0))
    world = heard(a_world("fra", "iad"), counting("fra", 1, some_demand("chat", "Berlin", 30)), now_s=1.0)
    world = heard(world, counting("iad", 1, far), now_s=2.0)
    assert rps(world) == 30
    assert [one.type for one in world.clusters["iad"].findings] == ["ImplausibleCell"]


def test_no_more_places_are_known_than_can_be_planned_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that makes up cells would fill the memory of the controller."""
    monkeypatch.setattr(demand, "MAX_CELLS", 3)
    cells = [some_demand("chat", f"cell-{n}", 1.0) for n in range(5)]
    world = heard(a_world("fra", "iad"), counting("fra", 1, *cells[:3]), now_s=1.0)
    world = heard(world, counting("iad", 1, *cells[2:]), now_s=2.0)
    assert set(world.cells) == {"cell-0", "cell-1", "cell-2"}
    (finding,) = world.clusters["iad"].findings
    assert finding.type == "ImplausibleCell" and "3 cells are known" in finding.message
    world = heard(world, counting("fra", 2, cells[0]), now_s=11.0)
    world = heard(world, counting("iad", 2, *cells[2:4]), now_s=12.0)
    assert set(world.cells) == {"cell-0", "cell-2", "cell-3"}, "of those that nobody counts none is kept then"


def test_places_that_are_a_little_apart_are_one() -> None:
    """Two front doors that name a city by its station and by its airport would not both be counted."""
    near = messages.DemandSample(
        model="chat",
        cell=messages.UserCell(name="Berlin", country="DE", lat=50.3, lon=8.8),
        requests_per_second=5.0,
    )
    world = heard(a_world("fra", "iad"), counting("fra", 1, some_demand("chat", "Berlin", 30)), now_s=1.0)
    assert rps(heard(world, counting("iad", 1, near), now_s=2.0)) == 35


# ---- how much


def test_a_jump_is_believed_step_by_step_as_it_lasts() -> None:
    """A member that lies for ten seconds would take all capacity; one whose users really came would wait for ever."""
    world = heard(a_world("fra"), counting("fra", 1, some_demand("chat", "Berlin", 10)), now_s=1.0)
    seen = []
    for number in range(2, 24):
        rows = (some_demand("chat", "Berlin", 10), some_demand("chat", "Crowd", 150))
        world = heard(world, counting("fra", number, *rows), now_s=100.0 + 10.0 * number)
        assert rps(world) == 10, "what does not jump is believed as it is"
        seen.append(rps(world) + rps(world, "Crowd"))
    assert seen[0] == pytest.approx(10.0)
    assert max(seen[:6]) == pytest.approx(10.0), "for a minute"
    assert seen[6] == pytest.approx(40.0)
    assert seen[-1] == pytest.approx(160.0)
    assert seen == sorted(seen)


def test_a_newcomer_does_not_outweigh_the_fleet_at_once() -> None:
    """A cluster that joins with 500 ghost cells would leave everybody's share at nothing."""
    world = heard(a_world("fra", "iad"), counting("fra", 1, some_demand("chat", "Berlin", 400)), now_s=1.0)
    world = heard(world, counting("fra", 2, some_demand("chat", "Berlin", 400)), now_s=100.0)
    ghosts = tuple(some_demand("chat", f"ghost-{n}", 1_000.0, at="iad") for n in range(500))
    world = heard(world, counting("iad", 1, *ghosts), now_s=101.0)
    others = sum(one.requests_per_second for one in world.demand.values()) - rps(world)
    assert others == pytest.approx(400.0), "as much as all others count"
    assert [one.type for one in world.clusters["iad"].findings] == ["DemandDoubted"]


def test_what_the_catalogue_declares_bounds_a_front_door() -> None:
    """An operator could not say what a front door can count at most."""
    world = a_world("fra")
    document = a_cluster("fra", max_requests_per_second=25.0)
    world = dataclasses.replace(world, documents=msgspec.structs.replace(world.documents, clusters=(document,)))
    rows = (some_demand("chat", "Berlin", 10), some_demand("chat", "Lyon", 90, country="FR"))
    world = heard(world, counting("fra", 1, *rows), now_s=1.0)
    assert (rps(world), rps(world, "Lyon")) == (10, 15)
    assert [one.type for one in world.clusters["fra"].findings] == ["ImplausibleDemand"]


def test_an_absurd_row_leaves_the_last_good_count() -> None:
    """1e308 requests per second once made every plan fail, for good."""
    world = heard(a_world("fra"), counting("fra", 1, some_demand("chat", "Berlin", 10)), now_s=1.0)
    world = heard(world, counting("fra", 2, some_demand("chat", "Berlin", 1e308)), now_s=2.0)
    assert rps(world) == 10
    assert [one.type for one in world.clusters["fra"].findings] == ["ImplausibleCell"]


def test_an_absurd_row_of_which_nothing_is_known_or_declared_is_left_out() -> None:
    """A slip of one row would be a million requests per second."""
    rows = (some_demand("chat", "Berlin", 1e308), some_demand("chat", "Lyon", 10, country="FR"))
    world = heard(a_world("fra"), counting("fra", 1, *rows), now_s=1.0)
    assert (rps(world), rps(world, "Lyon")) == (0.0, 10.0)


def test_a_row_that_is_named_twice_counts_once() -> None:
    """Users would be counted by how often they are written down."""
    rows = (some_demand("chat", "Berlin", 10), some_demand("chat", "Berlin", 7))
    world = heard(a_world("fra"), counting("fra", 1, *rows), now_s=1.0)
    assert rps(world) == 10
    (finding,) = world.clusters["fra"].findings
    assert finding.type == "ImplausibleCell" and "named twice" in finding.message


def test_a_bound_that_falls_below_what_is_counted_is_shared_by_all_rows() -> None:
    """A lower bound would take all from one city, or from none."""
    world = a_world("fra")
    rows = (some_demand("chat", "Berlin", 60), some_demand("chat", "Lyon", 40), some_demand("chat", "Bonn", 5))
    world = heard(world, counting("fra", 1, *rows), now_s=1.0)
    document = a_cluster("fra", max_requests_per_second=45.0)
    world = dataclasses.replace(world, documents=msgspec.structs.replace(world.documents, clusters=(document,)))
    world = heard(world, counting("fra", 2, *rows), now_s=11.0)
    assert (rps(world), rps(world, "Lyon"), rps(world, "Bonn")) == (20.0, 20.0, 5.0)


def test_an_absurd_row_of_which_nothing_was_known_counts_as_what_is_declared() -> None:
    """After a restart of the controller the cluster's users would count as none, and what serves them would stop."""
    world = a_world("fra")
    document = a_cluster("fra", max_requests_per_second=80.0)
    world = dataclasses.replace(world, documents=msgspec.structs.replace(world.documents, clusters=(document,)))
    world = heard(world, counting("fra", 1, some_demand("chat", "Berlin", 1e9)), now_s=1.0)
    assert rps(world) == 80
    assert "ImplausibleCell" in [one.type for one in world.clusters["fra"].findings]


def test_a_cluster_that_leaves_the_catalogue_takes_its_counts_along() -> None:
    """Users that nobody can count any more would be planned for until the next restart."""
    world = heard(a_world("fra", "iad"), counting("iad", 1, some_demand("chat", "Berlin", 10)), now_s=1.0)
    left = msgspec.structs.replace(world.documents, clusters=(a_cluster("fra"),))
    world = told(world, DocumentsAccepted(documents=left, now_s=2.0))
    assert not world.demand and not world.claims


@pytest.mark.parametrize("seed", range(20))
def test_the_sum_is_always_that_of_what_is_counted(seed: int) -> None:
    """Users would be lost or doubled by an order of events that nobody thought of."""
    rng = random.Random(seed)
    names = ("fra", "iad", "nrt", "par")
    world = a_world(*names)
    now_s = 0.0
    for seq in range(1, 61):
        now_s += rng.choice((1.0, 5.0, 30.0))
        name = rng.choice(names)
        rows = tuple(
            some_demand("chat", cell, float(rng.randint(0, 4)))
            for cell in rng.sample(["Berlin", "Lyon", "NY", "Tokyo"], rng.randint(0, 4))
        )
        world = told(world, Heard(message=counting(name, seq, *rows), now_s=now_s), TimePassed(now_s=now_s))
        for one in world.demand.values():
            assert one.requests_per_second <= sum(count for _, count in one.counts) + 1e-9
            assert one.reporter in dict(one.counts)
        for (model, cell), one in world.demand.items():
            for door, count in one.counts:
                rows_of = {(row.model, row.cell.name): row for row in world.clusters[door].counted}
                assert count <= rows_of[model, cell].requests_per_second + 1e-9, "no more than it counted itself"
        assert set(world.claims) == {cell for _, cell in world.demand}
