"""What gateways are told to count: users by the cell that they name, whether they are served or not."""

from __future__ import annotations

from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2

from federation.policy.documents import Traffic
from federation.traffic import xds
from federation.traffic.table import OTHER_CELLS, GatewayTable, Group, ModelTable

FILTER = "envoy.filters.http.local_ratelimit"


def counts(*groups: Group, declared: tuple[str, ...] = ()) -> list[tuple[str, str, bool]]:
    """(cluster, name of the count, whether the limit is enforced) of each route of users that is counted by name."""
    model = ModelTable(
        model="chat", traffic=Traffic(), health_path="", groups=groups, local=(), spill_rps=0.0, declared=declared
    )
    table = GatewayTable(cluster="fra", region="fra", zone="", models=(model,), gateways={})
    resource = xds.snapshot(table).of(xds.RDS)[xds.ROUTE_CONFIG]
    routes = route_pb2.RouteConfiguration.FromString(resource.body).virtual_hosts[0].routes
    found = []
    for route in routes:
        if FILTER in route.typed_per_filter_config:
            limit = local_rate_limit_pb2.LocalRateLimit()
            route.typed_per_filter_config[FILTER].Unpack(limit)
            found.append((route.route.cluster, limit.stat_prefix, limit.HasField("filter_enforced")))
    return found


def group(cell: str, *, served: bool = True, unserved: float = 0.0) -> Group:
    return Group(cell=cell, shares={"iad": 1.0} if served else {}, overflow={}, unserved=unserved)


def test_users_whom_nobody_serves_are_counted() -> None:
    """A model that is nowhere would have no users, and so be placed nowhere for ever."""
    assert counts(group("", served=False), group("Bonn", served=False)) == [
        ("", "refused|chat|Bonn", False),
        ("", "refused|chat|", False),
    ]


def test_users_who_are_turned_away_in_a_shortage_are_counted() -> None:
    """A shortage would hide itself: the more are turned away, the fewer there would seem to be."""
    assert counts(group(""), group("Bonn", unserved=0.3)) == [("", "refused|chat|Bonn", False)]


def test_a_declared_cell_is_counted_before_a_plan_knows_it() -> None:
    """No cell would ever be known without a file, as gateways only knew those that a plan has."""
    assert counts(group(""), declared=("Bonn",)) == [("chat|any", "sent|chat|Bonn", False)] * 2
    assert counts(group(""), group(OTHER_CELLS), declared=("Bonn",)) == [("chat|others", "sent|chat|Bonn", False)] * 2


def test_who_is_served_by_a_cluster_of_his_own_is_counted_by_envoy_alone() -> None:
    """He would count twice."""
    assert counts(group(""), group("Bonn")) == []
