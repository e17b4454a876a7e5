"""What an operator's word makes believed of what a cluster claims, and what it does not."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from federation.state.reduce import Confirmed, Reduced, waits
from federation.state.world import World
from federation.wire import messages
from tests.builders import L4, a_cluster, a_report, a_world, hear, heard, some_demand


def claiming(world: World, seq: int, *rows: messages.DemandSample, now_s: float) -> World:
    return heard(world, a_report("fra", seq=seq, demand=rows), now_s=now_s)


def a_launch(rps: float = 5_000.0, world: World | None = None) -> World:
    """A front door that counted 10 requests per second claims a launch besides."""
    berlin = some_demand("chat", "Berlin", 10)
    world = claiming(world or a_world("fra"), 1, berlin, now_s=1.0)
    return claiming(world, 2, berlin, some_demand("chat", "Warsaw", rps, country="PL"), now_s=100.0)


def confirmed(world: World, model: str = "", now_s: float = 105.0) -> Reduced:
    return hear(world, Confirmed(cluster="fra", model=model, reason="a launch in Poland", now_s=now_s))


def believed(world: World) -> dict[tuple[str, str], float]:
    return {key: one.requests_per_second for key, one in world.demand.items()}


def conditions(world: World) -> list[str]:
    return [one.type for one in world.clusters["fra"].findings]


def test_what_is_held_is_believed_at_once_and_stays() -> None:
    """The users of a launch would wait minutes for replicas, or for ever, whatever anybody says."""
    world = a_launch()
    assert conditions(world) == ["DemandDoubted"] and waits(world, "fra")
    reduced = confirmed(world)
    expected = {("chat", "Berlin"): 10.0, ("chat", "Warsaw"): 5_000.0}
    assert believed(reduced.world) == expected
    assert conditions(reduced.world) == [] and not waits(reduced.world, "fra")
    assert reduced.replan and reduced.reroute
    (note,) = reduced.notes
    assert (note.reason, note.object) == ("Confirmed", "cluster/fra")
    assert "5010 requests per second" in note.message and "a launch in Poland" in note.message
    berlin, warsaw = some_demand("chat", "Berlin", 10), some_demand("chat", "Warsaw", 5_000.0, country="PL")
    again = claiming(reduced.world, 3, berlin, warsaw, now_s=110.0)
    assert believed(again) == expected and conditions(again) == []


def test_what_is_claimed_later_is_held_against_what_was_confirmed() -> None:
    """One word would open a cluster to every lie that follows."""
    world = confirmed(a_launch()).world
    for seq in range(3, 200):
        world = claiming(world, seq, some_demand("chat", "Berlin", 1e6), now_s=100.0 + 10.0 * seq)
    assert believed(world) == {("chat", "Berlin"): pytest.approx(16 * 5_010.0)}
    assert conditions(world) == ["DemandDoubted"]


def test_one_models_users_can_be_confirmed_alone() -> None:
    """Who knows of one launch would have to vouch for all that a cluster claims."""
    rows = (
        some_demand("chat", "Berlin", 10),
        some_demand("chat", "Warsaw", 3_000.0, country="PL"),
        some_demand("code", "Warsaw", 9_000.0, country="PL"),
    )
    world = claiming(claiming(a_world("fra"), 1, rows[0], now_s=1.0), 2, *rows, now_s=100.0)
    assert not waits(world, "fra", "nope")
    reduced = confirmed(world, "chat")
    expected = {("chat", "Berlin"): 10.0, ("chat", "Warsaw"): 3_000.0}
    assert believed(reduced.world) == expected
    assert conditions(reduced.world) == ["DemandDoubted"] and waits(reduced.world, "fra", "code")
    assert not waits(reduced.world, "fra", "chat")
    again = claiming(reduced.world, 3, *rows, now_s=110.0)
    assert believed(again) == expected, "the other model's wait goes on"


def test_a_growth_that_was_followed_is_made_known() -> None:
    """The condition of a launch that everybody knows of would stand for a day."""
    berlin = some_demand("chat", "Berlin", 1_000.0)
    world = claiming(a_world("fra"), 1, some_demand("chat", "Berlin", 100.0), now_s=1.0)
    for seq in range(2, 30):
        world = claiming(world, seq, berlin, now_s=100.0 + 10.0 * seq)
    assert conditions(world) == ["DemandGrew"] and waits(world, "fra")
    world = confirmed(world, now_s=500.0).world
    assert conditions(claiming(world, 30, berlin, now_s=510.0)) == []


def test_a_price_and_a_round_trip_that_jumped_are_believed_with_the_next_report() -> None:
    """A spot price that really rose tenfold would cost a minute of it, though somebody knows."""
    pool = messages.PoolReport(key=messages.PoolKey(product="H100"), vram_gib=80, allocatable=8, free=8)

    def told(seq: int, usd: float, rtt_ms: float, now_s: float, world: World) -> World:
        peer = messages.PeerRtt(cluster="iad", rtt_ms_p50=rtt_ms, rtt_ms_p95=rtt_ms, samples=3)
        priced = msgspec.structs.replace(pool, usd_per_device_hour=usd)
        return heard(world, a_report("fra", seq=seq, pools=(priced,), peers=(peer,)), now_s=now_s)

    world = told(2, 60.0, 2_000.0, 10.0, told(1, 3.0, 90.0, 1.0, a_world("fra", "iad")))
    assert conditions(world) == ["PriceDoubted", "RoundTripDoubted"]
    assert all('isochrone confirm fra --reason "…"' in one.message for one in world.clusters["fra"].findings)
    reduced = confirmed(world, now_s=15.0)
    assert "60" in reduced.notes[0].message and "2000" in reduced.notes[0].message
    report = told(3, 60.0, 2_000.0, 20.0, reduced.world).clusters["fra"].report
    assert report is not None
    assert (report.pools[0].usd_per_device_hour, report.peers[0].rtt_ms_p50) == (60.0, 2_000.0)
    report = told(3, 700.0, 2_000.0, 20.0, reduced.world).clusters["fra"].report
    assert report is not None and report.pools[0].usd_per_device_hour == 3.0, "another price was not confirmed"


def test_where_nothing_waits_nothing_changes() -> None:
    """A word of last week would be kept for what a cluster claims next."""
    world = claiming(a_world("fra"), 1, some_demand("chat", "Berlin", 10), now_s=1.0)
    assert not waits(world, "fra")
    assert confirmed(world).world is world
    unknown = Confirmed(cluster="nope", model="", reason="x", now_s=1.0)
    assert hear(world, unknown).world is world
    silent = heard(
        a_world("fra"), a_report("fra", pools=(messages.PoolReport(key=L4, vram_gib=24, allocatable=8, free=8),))
    )
    assert not waits(silent, "fra")


def test_no_word_passes_what_is_declared() -> None:
    """What the catalogue says of a front door would be worth less than a slip of the keyboard."""
    world = a_world("fra")
    document = a_cluster("fra", max_requests_per_second=2_000.0)
    world = dataclasses.replace(world, documents=msgspec.structs.replace(world.documents, clusters=(document,)))
    world = confirmed(a_launch(world=world)).world
    assert sum(believed(world).values()) == pytest.approx(2_000.0)
    again = claiming(world, 3, some_demand("chat", "Warsaw", 5_000.0, country="PL"), now_s=110.0)
    assert conditions(again) == ["ImplausibleDemand"]
    assert not waits(again, "fra"), "its document is where that is said"


def test_at_the_bound_nothing_waits_whatever_the_last_bit_says() -> None:
    """A word would be taken, and told as heard, that changes nothing."""
    world = a_world("fra")
    document = a_cluster("fra", max_requests_per_second=77.3)
    world = dataclasses.replace(world, documents=msgspec.structs.replace(world.documents, clusters=(document,)))
    rows = [some_demand("chat", name, rps) for name, rps in (("A", 72.6), ("B", 279.4), ("C", 304.9))]
    world = claiming(claiming(world, 1, rows[0], now_s=1.0), 2, *rows, now_s=100.0)
    counted = [row.requests_per_second for row in confirmed(world).world.clusters["fra"].counted]
    assert sum(counted) == pytest.approx(77.3)
    assert sum(counted) < 77.3, "as it is added up"
    assert not waits(confirmed(world).world, "fra")
