"""What a gateway is told to do with its users: its own shares, residency, and never less than is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from envoy.config.endpoint.v3 import endpoint_pb2

from federation.control.plan import Route, Routes, Share
from federation.policy.documents import (
    Cluster,
    ClustersIn,
    Failover,
    Gateway,
    ResidencyRule,
    Traffic,
    UsersIn,
)
from federation.state.reduce import CordonsSet
from federation.state.world import Cordon, World
from federation.traffic import table, xds
from federation.traffic.table import (
    MOST_HELPERS,
    OTHER_CELLS,
    Group,
    on_continent_of,
    remembered_endpoints,
    resident_clusters,
    tables,
)
from federation.wire import messages
from tests.builders import a_model, a_policy, a_report, a_world, heard, replicas, some_demand, told

RULE = ResidencyRule(users_in=UsersIn(countries=("DE",)), clusters_in=ClustersIn(jurisdictions=("EU",)))


def with_gateways(world: World, *names: str) -> World:
    """The same with a front door in these clusters."""
    clusters: tuple[Cluster, ...] = tuple(
        msgspec.structs.replace(
            one, spec=msgspec.structs.replace(one.spec, gateway=Gateway(address="192.0.2.1", port=443))
        )
        if one.metadata.name in names
        else one
        for one in world.documents.clusters
    )
    return replace(world, documents=msgspec.structs.replace(world.documents, clusters=clusters))


def at(cluster: str) -> tuple[messages.ReplicaEndpoint, ...]:
    return (messages.ReplicaEndpoint(model="chat", address=f"10.0.0.{len(cluster)}", port=8000),)


def world_of(**policy: Any) -> World:
    """Berlin behind fra, New York behind iad; everyone ready, everyone with a gateway."""
    world = a_world("fra", "iad", "par", models=(a_model(),), policies=(a_policy("chat", **policy),))
    world = heard(
        world,
        a_report(
            "fra",
            demand=(some_demand("chat", "Berlin", 30.0), some_demand("chat", "Zurich", 10.0, country="CH")),
            replicas=(replicas("chat", 2, 2),),
            endpoints=at("fra"),
        ),
        a_report(
            "iad",
            demand=(some_demand("chat", "New York", 20.0, country="US", at="iad"),),
            replicas=(replicas("chat", 2, 2),),
            endpoints=at("iad"),
        ),
        a_report("par", replicas=(replicas("chat", 1, 1),), endpoints=at("par")),
    )
    return with_gateways(world, "fra", "iad", "par")


def routed(**cells: dict[str, float]) -> Routes:
    return Routes(
        version=1,
        routes=tuple(
            Route(
                model="chat",
                cell=cell.replace("_", " "),
                now=tuple(Share(cluster=name, share=part) for name, part in parts.items()),
                target=(),
            )
            for cell, parts in cells.items()
        ),
    )


ROUTES = routed(Berlin={"fra": 0.8, "par": 0.2}, Zurich={"iad": 1.0}, New_York={"iad": 1.0})


def groups(world: World, gateway: str, routes: Routes = ROUTES) -> dict[str, Group]:
    made = tables(world, routes, remembered_endpoints(world, {}))
    (model,) = made.by_cluster[gateway].models
    return {group.cell: group for group in model.groups}


def test_each_gateway_has_the_shares_of_its_own_users() -> None:
    """Users would be served by what was planned for others, half a world away."""
    fra = groups(world_of(), "fra")
    assert fra["Berlin"].shares == {"fra": 0.8, "par": 0.2}
    assert fra["Zurich"].shares == {"iad": 1.0}
    assert fra[""].shares == pytest.approx({"fra": 0.6, "par": 0.15, "iad": 0.25}), "all its users, by their number"
    assert set(groups(world_of(), "iad")) == {"", "New York"}


def test_who_names_a_cell_of_another_front_door_is_served_where_everyone_may_be() -> None:
    """A German user behind the American gateway would be served in the United States."""
    iad = groups(world_of(residency=(RULE,)), "iad")
    assert set(iad) == {"", "New York", OTHER_CELLS}
    assert iad[OTHER_CELLS].shares == pytest.approx({"fra": 0.8, "par": 0.2})
    assert "iad" not in iad[OTHER_CELLS].overflow
    assert OTHER_CELLS not in groups(world_of(), "iad"), "without rules they are as any other"


def test_a_gateway_without_users_does_as_for_the_nearest() -> None:
    """The first users of a new front door would be refused."""
    assert groups(world_of(), "par")[""].shares == {"fra": 0.8, "par": 0.2}


def test_residency_holds_for_requests_that_name_no_cell_and_for_overflow() -> None:
    """Users in Germany would be served in the United States as soon as something fails."""
    fra = groups(world_of(residency=(RULE,)), "fra")
    assert fra[""].shares == pytest.approx({"fra": 0.8, "par": 0.2})
    assert fra[""].unserved == 0.0, "what some may not have is no lack of room"
    assert "iad" not in fra["Berlin"].overflow
    assert set(fra["Zurich"].overflow) == {"fra", "par"}


def undecided(**policy: Any) -> World:
    """`world_of` with a rule for Germany, where iad counts some of Zurich's users and says that it is in Germany."""
    here = some_demand("chat", "New York", 20.0, country="US", at="iad")
    other = some_demand("chat", "Zurich", 1.0, country="DE")
    report = a_report("iad", seq=2, demand=(here, other), replicas=(replicas("chat", 2, 2),), endpoints=at("iad"))
    world = heard(world_of(residency=(RULE,), **policy), report)
    assert world.cells["Zurich"].country == "CH/DE"
    return world


def test_the_strictest_rule_holds_for_a_cell_that_is_in_one_of_two_countries() -> None:
    """Overflow would take users out of the country that they may be in."""
    planned = routed(Berlin={"fra": 1.0}, Zurich={"par": 1.0}, New_York={"iad": 1.0})
    assert "iad" in groups(world_of(residency=(RULE,)), "fra", planned)["Zurich"].overflow
    assert "iad" not in groups(undecided(), "fra", planned)["Zurich"].overflow
    assert resident_clusters(undecided(), undecided().documents.policies[0].spec, "CH/DE") == {"fra", "par"}
    assert resident_clusters(undecided(), undecided().documents.policies[0].spec, "CH") == {"fra", "par", "iad"}
    assert on_continent_of(replace(undecided(), continents=CONTINENTS), "CH/DE") == {"fra", "par"}
    assert on_continent_of(replace(undecided(), continents=CONTINENTS), "DE/US") == set()


CONTINENTS = {"DE": "EU", "FR": "EU", "CH": "EU", "US": "NA"}


def capped(percent: float, **policy: Any) -> World:
    """`world_of` where at most so much is served on other continents."""
    world = world_of(failover=Failover(max_other_continents_percent=percent), **policy)
    return replace(world, continents=CONTINENTS)


def test_where_nobody_may_leave_a_continent_a_gateway_sends_nobody_off_it() -> None:
    """Failover would do by itself what the plan may never do."""
    fra, iad = groups(capped(0), "fra"), groups(capped(0), "iad")
    assert fra["Zurich"].shares == {}, "a plan from before the policy changed is no excuse"
    assert set(fra["Zurich"].overflow) == {"fra", "par"}
    assert fra[""].shares == pytest.approx({"fra": 0.8, "par": 0.2})
    assert "iad" not in {**fra["Berlin"].overflow, **fra[""].overflow}
    assert iad["New York"].overflow == {} and iad["New York"].shares == {"iad": 1.0}
    assert (iad[OTHER_CELLS].shares, iad[OTHER_CELLS].overflow) == ({}, {}), "they may be from anywhere"


def test_where_nobody_may_leave_a_gateway_knows_the_other_cells_of_its_continent() -> None:
    """Users whose own front door is lost would be refused at the next."""
    assert set(groups(capped(0), "par")) == {"", "Berlin", "Zurich", OTHER_CELLS}
    assert set(groups(capped(0), "fra")) == {"", "Berlin", "Zurich", OTHER_CELLS}
    assert groups(capped(0), "par")["Berlin"].shares == {"fra": 0.8, "par": 0.2}
    assert set(groups(capped(0), "iad")) == {"", "New York", OTHER_CELLS}


def test_a_cap_lets_a_gateway_send_off_the_continent_what_the_plan_sends_there_alone() -> None:
    """A region's loss would cascade to the next continent before any plan is made."""
    fra = groups(capped(30), "fra")
    assert fra["Zurich"].shares == {"iad": 1.0}
    assert set(fra["Zurich"].overflow) == {"fra", "par"}
    assert "iad" not in fra["Berlin"].overflow
    assert "iad" in groups(capped(100), "fra")["Berlin"].overflow
    assert OTHER_CELLS not in fra


def test_users_of_an_unknown_continent_are_sent_nowhere_when_nobody_may_leave() -> None:
    """A country that the table lacks would be a way around the policy."""
    world = replace(capped(0), continents={"FR": "EU", "US": "NA"})
    fra = groups(world, "fra")
    assert (fra["Berlin"].shares, fra["Berlin"].overflow) == ({}, {})


def test_what_nobody_has_room_for_is_turned_away_at_the_door() -> None:
    """It would slow down everyone else."""
    assert groups(world_of(), "iad", routed(New_York={"iad": 0.75}))["New York"].unserved == 0.25


@pytest.mark.parametrize("drain", [True, False])
def test_overflow_spares_what_is_cordoned(drain: bool) -> None:
    """Requests would spill into a cluster that is under maintenance."""
    world = told(world_of(), CordonsSet(cordons={"par": Cordon(reason="maintenance", drain=drain)}))
    assert "par" not in groups(world, "iad")["New York"].overflow


def test_a_cluster_without_a_gateway_gets_nothing_and_that_is_said() -> None:
    """A share that nobody can carry out would silently be somebody else's."""
    world = with_gateways(a_world("fra"), "fra")
    assert tables(world, Routes(), {}).missing == ()
    bare = world_of()
    bare = replace(
        bare,
        documents=msgspec.structs.replace(
            bare.documents,
            clusters=tuple(
                msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, gateway=None))
                if one.metadata.name == "par"
                else one
                for one in bare.documents.clusters
            ),
        ),
    )
    made = tables(bare, ROUTES, remembered_endpoints(bare, {}))
    assert "par" not in made.by_cluster
    assert any("par has a share of chat and no gateway" in one for one in made.missing)
    assert groups(bare, "fra")["Berlin"].shares == {"fra": 1.0}


@pytest.mark.parametrize(
    ("ready", "told_endpoints", "kept"),
    [
        pytest.param(2, (), True, id="the agent cannot tell"),
        pytest.param(0, (), False, id="there are none"),
    ],
)
def test_missing_data_removes_no_endpoint(ready: int, told_endpoints: Any, kept: bool) -> None:
    """One report without addresses would cut off replicas that serve."""
    world = world_of()
    known = remembered_endpoints(world, {})
    world = heard(world, a_report("fra", 2, replicas=(replicas("chat", 2, ready),), endpoints=told_endpoints))
    assert (("chat", "fra") in remembered_endpoints(world, known)) is kept


def test_equal_tables_give_equal_bytes_and_weights_stay_far_from_the_limit() -> None:
    """An unchanged plan would be sent again and again; a weight that is too large is refused as a whole."""
    world = world_of(traffic=Traffic(session_header="x-session-id"))
    endpoints = remembered_endpoints(world, {})
    for name in ("fra", "iad", "par"):
        first = xds.snapshot(tables(world, ROUTES, endpoints).by_cluster[name])
        again = xds.snapshot(tables(world, ROUTES, dict(reversed(endpoints.items()))).by_cluster[name])
        assert first == again
        for one in first.of(xds.EDS).values():
            made = endpoint_pb2.ClusterLoadAssignment.FromString(one.body)
            for priority in (0, 1):
                weights = [e.load_balancing_weight.value for e in made.endpoints if e.priority == priority]
                assert sum(weights) < 2**32
                assert not weights or abs(sum(weights) - xds.WHOLE) <= len(weights)


def a_fleet(count: int) -> World:
    """Berlin behind the first of so many clusters with a gateway, all of which are ready to serve."""
    names = [f"fra-{number:03}" for number in range(count)]
    world = a_world(*names, models=(a_model(),), policies=(a_policy("chat"),))
    reports = [
        a_report(
            name,
            demand=(some_demand("chat", "Berlin", 30.0),) if name == names[0] else (),
            replicas=(replicas("chat", 1, 1),),
            endpoints=at(name),
        )
        for name in names
    ]
    return with_gateways(heard(world, *reports), *names)


def test_a_gateway_knows_the_nearest_helpers_not_the_whole_fleet() -> None:
    """Ten thousand gateways would hold ten thousand endpoints each for every group of requests."""
    overflow = groups(a_fleet(60), "fra-000", routed(Berlin={"fra-000": 1.0}))["Berlin"].overflow
    assert MOST_HELPERS - 1 <= len(overflow) <= MOST_HELPERS
    assert "fra-000" not in overflow


def test_what_a_change_does_not_touch_is_the_same_object() -> None:
    """A report of one cluster would write, send and compare the tables of all."""
    world, routes = world_of(), ROUTES
    known = remembered_endpoints(world, {})
    before = tables(world, routes, known)
    elsewhere = (messages.ReplicaEndpoint(model="chat", address="10.0.0.99", port=8000),)
    report = a_report("iad", seq=2, replicas=(replicas("chat", 2, 2),), endpoints=elsewhere)
    moved = heard(world, report, now_s=2.0)
    after = tables(moved, routes, remembered_endpoints(moved, known), before)
    assert after.by_cluster["iad"] is not before.by_cluster["iad"]
    assert after.by_cluster["fra"] is before.by_cluster["fra"]
    assert tables(moved, routes, remembered_endpoints(moved, known), after).is_as(after)


def test_work_grows_with_gateways_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of two thousand gateways would take two minutes, in which nobody is heard."""
    asked = []

    def counted(world: World, *rest: Any) -> frozenset[str]:
        asked.append(rest)
        return frozenset(world.clusters)

    monkeypatch.setattr(table, "allowed_clusters", counted)
    world = a_fleet(60)
    tables(world, routed(Berlin={"fra-000": 1.0}), remembered_endpoints(world, {}))
    assert len(asked) <= 2, "once for Germany, once for where users are unknown"
