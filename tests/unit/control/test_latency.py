"""What a user is believed to wait, and where the figure comes from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from federation.control import latency
from federation.latency import public
from federation.state.keys import CellCluster
from federation.state.measured import Window
from federation.state.reduce import RoundTripsMeasured
from federation.state.world import World
from federation.wire import messages
from tests.builders import a_report, a_world, heard, renamed, some_demand, told


def measured(rtt_ms: float | None = None, *, by: str = "fra", samples: int = 20) -> World:
    """Users at Frankfurt; Frankfurt (or Ashburn) has measured the way between the two."""
    other = "iad" if by == "fra" else "fra"
    peers = (
        ()
        if rtt_ms is None
        else (messages.PeerRtt(cluster=other, rtt_ms_p50=rtt_ms, rtt_ms_p95=rtt_ms, samples=samples),)
    )
    reports = {"fra": a_report("fra", demand=(some_demand("chat", "Berlin", 10),)), "iad": a_report("iad")}
    reports[by] = renamed(reports[by], peers=peers)
    return heard(a_world("fra", "iad"), *reports.values())


def test_a_measured_round_trip_is_believed_over_distance() -> None:
    """Users would be sent over a detour that the agents have measured."""
    by_distance = latency.estimate(measured(), ["Berlin"])[CellCluster("Berlin", "iad")]
    by_agent = latency.estimate(measured(300.0), ["Berlin"])[CellCluster("Berlin", "iad")]
    assert by_distance.source.startswith("estimated over 65")
    assert by_distance.rtt_ms == pytest.approx(112.0, abs=0.1)
    assert 150.0 < by_agent.rtt_ms < 300.0
    assert by_agent.source.startswith("inferred over 65")
    assert by_agent.source.endswith("the nearest fra, 0 km from the users")


def test_a_measurement_of_the_other_side_serves_too() -> None:
    """A pair that only one side measures would be planned by distance."""
    assert latency.estimate(measured(300.0, by="iad"), ["Berlin"])[CellCluster("Berlin", "iad")].basis == "inferred"


def test_what_is_measured_makes_an_estimate_surer() -> None:
    """Nobody could tell which figures of the map to rely on, nor what to measure next."""
    pair = CellCluster("Berlin", "iad")
    by_distance, by_agent = (latency.between(one, [pair])[pair] for one in (measured(), measured(110.0)))
    assert by_distance.confidence is not None and by_agent.confidence is not None
    assert 0.2 < by_distance.confidence < by_agent.confidence - 0.1
    assert by_agent.confidence < 1.0
    assert by_agent.rtt_ms_p95 is not None and by_agent.rtt_ms_p95 >= by_agent.rtt_ms


def test_a_fleet_that_has_measured_nothing_knows_the_public_ways() -> None:
    """Its first plan would go by distance, where the ways of the world are known to be detours."""
    detour = """sites:
  - {name: a, lat: 50.2, lon: 8.6, ms: ""}
  - {name: b, lat: 39.1, lon: -77.4, ms: "300"}
  - {name: c, lat: 35.7, lon: 140.3, ms: "250 180"}
"""
    pair = CellCluster("Berlin", "iad")
    plain = latency.between(measured(), [pair])[pair]
    found = latency.between(replace(measured(), public=public.read([detour])), [pair])[pair]
    assert found.rtt_ms > 1.1 * plain.rtt_ms
    assert found.basis == "prior"


def peers(**rtts_ms: float) -> tuple[messages.PeerRtt, ...]:
    """As an agent tells them."""
    return tuple(
        messages.PeerRtt(cluster=name.replace("_", "-"), rtt_ms_p50=ms, rtt_ms_p95=1.3 * ms, samples=20)
        for name, ms in rtts_ms.items()
    )


def test_a_cluster_with_a_wrong_place_is_told_and_taken_to_be_elsewhere() -> None:
    """Users of another continent would be sent to it for as long as nobody reads its document."""
    names = ["fra", "fra-2", "par", "par-2", "iad", "iad-2", "nrt"]
    at_home = {"fra": "fra", "fra-2": "fra", "par": "fra", "par-2": "fra", "iad": "iad", "iad-2": "iad", "nrt": "iad"}
    reports = [
        renamed(
            a_report(name, demand=(some_demand("chat", "Berlin", 10),) if name == "fra" else ()),
            peers=peers(
                **{
                    other.replace("-", "_"): 9.0 if at_home[name] == at_home[other] else 95.0
                    for other in names
                    if other != name
                }
            ),
        )
        for name in names
    ]
    world = heard(a_world(*names), *reports)
    found = latency.doubts(world)
    assert set(found) == {"nrt"}
    assert found["nrt"][0].type == "PlaceDoubted"
    assert "faster than light in fibre" in found["nrt"][0].message and "correct `location`" in found["nrt"][0].message
    both = latency.between(world, [CellCluster("Berlin", "nrt"), CellCluster("Berlin", "iad")])
    assert both[CellCluster("Berlin", "nrt")].rtt_ms == pytest.approx(
        both[CellCluster("Berlin", "iad")].rtt_ms, rel=0.3
    )


@pytest.mark.parametrize("lie_ms", [70.0, 1_000.0])
def test_the_word_of_one_agent_against_all_others_does_not_count(lie_ms: float) -> None:
    """A broken agent would draw or repel the users of a continent, and nobody would know why."""
    names = ["fra", "par", "fra-2", "par-2", "nrt", "iad"]
    true = {
        name: {other: 240.0 if "nrt" in (name, other) else 20.0 for other in names if other != name} for name in names
    }
    for name in names:
        if name != "iad":
            true[name]["iad"] = true["iad"][name] = 170.0
    told = {name: {other: (lie_ms if name == "iad" else ms) for other, ms in row.items()} for name, row in true.items()}

    def world(rows: dict[str, dict[str, float]]) -> World:
        reports = [
            renamed(
                a_report(name, demand=(some_demand("chat", "Berlin", 10),) if name == "fra" else ()),
                peers=peers(**{other.replace("-", "_"): ms for other, ms in row.items()}),
            )
            for name, row in rows.items()
        ]
        return heard(a_world(*names), *reports)

    pair = CellCluster("Berlin", "iad")
    lied = world(told)
    assert latency.between(lied, [pair])[pair].rtt_ms == pytest.approx(
        latency.between(world(true), [pair])[pair].rtt_ms
    )
    assert {name: [one.type for one in rows] for name, rows in latency.doubts(lied).items()} == {
        "iad": ["SourceRefused"]
    }


def test_what_scatters_changes_nothing_and_a_new_route_all_at_once() -> None:
    """Plans would change with every report; or users be sent by a way that is gone."""
    world = measured(100.0)
    pair = CellCluster("Berlin", "iad")
    first = latency.estimate(world, ["Berlin"])

    def after(rtt_ms: float) -> World:
        report = world.clusters["fra"].report
        assert report is not None
        return heard(world, renamed(report, seq=report.seq + 1, peers=peers(iad=rtt_ms)))

    assert latency.estimate(after(102.0), ["Berlin"]).rtt_ms is first.rtt_ms
    assert latency.estimate(after(160.0), ["Berlin"])[pair].rtt_ms > 1.2 * first[pair].rtt_ms


def test_an_estimate_says_what_it_is_based_on_and_how_old_that_is() -> None:
    """The map would show a guess over the distance as if somebody had measured it, or last week's as today's."""
    pair = CellCluster("Berlin", "iad")
    assert latency.between(measured(), [pair])[pair].basis == "prior"
    assert latency.between(measured(), [pair])[pair].measured_s is None
    world = measured(300.0, by="iad")
    found = latency.between(world, [pair])[pair]
    assert found.basis == "inferred", "nobody has measured the users themselves"
    assert found.measured_s == world.clusters["iad"].heard_s


def test_no_samples_are_no_measurement() -> None:
    """A peer that never answered would look like the nearest of all."""
    found = latency.estimate(measured(0.0, samples=0), ["Berlin"])[CellCluster("Berlin", "iad")]
    assert found.source.startswith("estimated")


def test_all_pairs_at_once_are_what_each_is_by_itself() -> None:
    """Some user would be believed near a cluster that is far, and nobody would see it among millions of pairs."""
    rng = np.random.default_rng(5)
    names = [f"{place}-{at}" for at in range(4) for place in ("fra", "iad", "nrt")]
    users = {f"cell-{at}": rng.uniform((-80, -180), (80, 180)).tolist() for at in range(20)}
    demand = tuple(
        messages.DemandSample(
            model="chat", cell=messages.UserCell(name=name, country="DE", lat=lat, lon=lon), requests_per_second=1.0
        )
        for name, (lat, lon) in users.items()
    )
    rtt_ms = {(a, b): float(rng.uniform(210, 500)) for a in names for b in names if a != b and rng.random() < 0.4}
    reports = []
    for name in names:
        peers = tuple(
            messages.PeerRtt(cluster=other, rtt_ms_p50=value, rtt_ms_p95=value, samples=3)
            for (one, other), value in rtt_ms.items()
            if one == name
        )
        reports.append(renamed(a_report(name, demand=demand if name == names[0] else ()), peers=peers))
    world = heard(a_world(*names), *reports)
    found = latency.estimate(world, users)
    some = latency.between(world, {*found, CellCluster("nowhere", "fra-0"), CellCluster("cell-0", "nobody")})
    assert some.keys() == set(found)
    assert len(found) == len(users) * len(names)
    for (cell, cluster), estimate in some.items():
        assert found.rtt_ms[found.cells[cell], found.clusters[cluster]] == pytest.approx(estimate.rtt_ms, abs=0.02)


def test_nothing_to_estimate_is_no_error() -> None:
    """A controller without clusters, or that nobody has asked anything, would stop."""
    assert not latency.estimate(a_world(), [])
    assert not latency.estimate(measured(), [])
    assert not latency.between(measured(), ())


def test_who_is_just_within_the_objective_stays_within_it() -> None:
    """A cell would be late by a millionth of a millisecond, and replicas be paid for to mend that."""
    found = latency.estimate(measured(71.4), ["Berlin"])
    shown_ms = found[CellCluster("Berlin", "iad")].rtt_ms
    assert found.rtt_ms[found.cells["Berlin"], found.clusters["iad"]] <= shown_ms


def by_browsers(world: World, cell: str, cluster: str, rtt_ms: float) -> World:
    """The world after three browsers of a cell measured a cluster."""
    return told(world, RoundTripsMeasured(windows=(Window(cell, cluster, (rtt_ms,) * 3, 3),), now_s=5.0))


def test_what_users_measured_is_what_they_wait() -> None:
    """Users behind a slow last mile would be planned as if they sat in the data centre."""
    pair = CellCluster("Berlin", "iad")
    world = by_browsers(measured(110.0), "Berlin", "iad", 160.0)
    found = latency.between(world, [pair])[pair]
    assert (found.rtt_ms, found.basis, found.measured_s) == (160.0, "measured", 5.0)
    assert "browsers" in found.source
    assert found.confidence is not None and found.confidence >= 0.9
    every = latency.estimate(world, ["Berlin"])
    assert every.rtt_ms[every.cells["Berlin"], every.clusters["iad"]] == 160.0


def test_what_users_measured_tells_of_users_near_them_and_of_clusters_near_those() -> None:
    """Each of ten thousand cells would have to measure each cluster before anything is known."""
    near, far = ("Potsdam", "Seoul")
    places = (("Berlin", "fra"), (near, "fra"), (far, "nrt"))
    demand = tuple(some_demand("chat", name, 1.0, at=at) for name, at in places)
    names = ("fra", "iad-1", "iad-2", "nrt")
    world = heard(a_world(*names), a_report("fra", demand=demand), *(a_report(name) for name in names[1:]))
    after = by_browsers(world, "Berlin", "iad-1", 250.0)
    pairs = [CellCluster(cell, cluster) for cell in ("Berlin", near, far) for cluster in names]
    was, found = latency.between(world, pairs), latency.between(after, pairs)
    change = {pair: found[pair].rtt_ms / was[pair].rtt_ms for pair in pairs}
    assert change[CellCluster("Berlin", "iad-2")] > 1.2, "the cluster beside it is as far"
    assert change[CellCluster(near, "iad-1")] > 1.1, "so it is for who lives beside them"
    assert 0.95 < change[CellCluster(far, "iad-1")] < min(1.2, change[CellCluster(near, "iad-1")]), "hardly so far away"
    every = latency.estimate(after, ["Berlin", near, far])
    for pair in pairs:
        assert every.rtt_ms[every.cells[pair.cell], every.clusters[pair.cluster]] == pytest.approx(
            found[pair].rtt_ms, abs=0.02
        ), pair
    some = latency.estimate(after, [near])
    assert some.rtt_ms[0, some.clusters["iad-1"]] == pytest.approx(found[CellCluster(near, "iad-1")].rtt_ms, abs=0.02)


def test_what_may_be_the_nearest_is_measured_next() -> None:
    """Browsers would measure what cannot change who serves them."""
    world, pair = measured(110.0), CellCluster("Berlin", "iad")
    fra, iad = latency.hopes(world, "Berlin", ["fra", "iad"])
    assert fra < iad < latency.between(world, [pair])[pair].rtt_ms
