"""A table as Envoy's resources: equal tables give equal bytes, and names refer to what is sent."""

from __future__ import annotations

from federation.traffic import xds
from federation.traffic.table import GatewayTable, remembered_endpoints, tables
from federation.traffic.xds import CDS, EDS, RDS
from tests.unit.traffic.test_table import ROUTES, world_of


def table(**policy: object) -> GatewayTable:
    """The table of Berlin's gateway."""
    world = world_of(**policy)
    return tables(world, ROUTES, remembered_endpoints(world, {})).by_cluster["fra"]


def test_equal_tables_give_equal_versions() -> None:
    """Every cycle would send thousands of gateways everything again."""
    first, second = xds.snapshot(table()), xds.snapshot(table())
    for type_url in xds.TYPES:
        assert first.version(type_url) == second.version(type_url)
        assert {n: one.body for n, one in first.of(type_url).items()} == {
            n: one.body for n, one in second.of(type_url).items()
        }


def test_each_cluster_has_its_endpoints() -> None:
    """Envoy would wait for endpoints that never come, and serve nobody meanwhile."""
    snapshot = xds.snapshot(table())
    assert snapshot.of(CDS)
    assert set(snapshot.of(EDS)) == set(snapshot.of(CDS))


def test_a_gateway_gets_one_route_table_by_the_name_that_it_asks_for() -> None:
    """A gateway would subscribe to routes that are never sent."""
    assert list(xds.snapshot(table()).of(RDS)) == [xds.ROUTE_CONFIG]
