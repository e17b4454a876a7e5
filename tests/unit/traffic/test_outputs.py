"""What a cluster's agent is told of traffic for the standards that it speaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
from msgspec import structs

from federation.policy.documents import DnsRecords, Traffic
from federation.traffic.outputs import message, weights
from federation.traffic.table import remembered_endpoints, tables
from tests.unit.traffic.test_table import routed, undecided


def test_names_speak_of_countries_that_there_are() -> None:
    """ExternalDNS would refuse every record of a model for one cell that may be in either of two countries."""
    world = undecided(traffic=Traffic(dns=DnsRecords(zone="models.example")))
    routes = routed(Berlin={"fra": 1.0}, Zurich={"par": 1.0}, New_York={"iad": 1.0})
    made = tables(world, routes, remembered_endpoints(world, {}))
    told = {
        name: [one.dns.countries for one in message(made.by_cluster[name], made, world).models if one.dns is not None]
        for name in ("fra", "iad", "par")
    }
    assert told == {"fra": [("DE",)], "iad": [("US",)], "par": [("CH",)]}


def test_one_cluster_answers_users_of_no_country_that_is_named() -> None:
    """Users of every country without demand would get no answer from geolocation records."""
    world = undecided(traffic=Traffic(dns=DnsRecords(zone="models.example", routing="geolocation")))
    routes = routed(Berlin={"fra": 1.0}, Zurich={"par": 1.0}, New_York={"iad": 1.0})
    made = tables(world, routes, remembered_endpoints(world, {}))
    told = [one for name in ("fra", "iad", "par") for one in message(made.by_cluster[name], made, world).models]
    assert sorted(one.dns.is_default for one in told if one.dns is not None) == [False, False, True]
    assert {one.port for one in told} == {8000}, "what replicas of the model listen on"


def test_names_speak_of_no_country_that_route_53_refuses() -> None:
    """Route 53 would refuse all records of a name for one user in Western Sahara; the default answers there."""
    world = undecided(traffic=Traffic(dns=DnsRecords(zone="models.example", routing="geolocation")))
    cell = structs.replace(world.cells["Berlin"], country="EH")
    world = replace(world, cells=world.cells.set("Berlin", cell))
    made = tables(world, routed(Berlin={"fra": 1.0}, New_York={"iad": 1.0}), remembered_endpoints(world, {}))
    told = [one.dns for name in ("fra", "iad") for one in message(made.by_cluster[name], made, world).models if one.dns]
    assert [one.countries for one in told] == [(), ("US",)]
    assert any(one.is_default for one in told)


@pytest.mark.parametrize("rps", [None, 0.0])
@pytest.mark.parametrize("provider", ["any", "aws"])
def test_a_name_that_nobody_asks_for_has_an_answer(provider: Literal["any", "aws"], rps: float | None) -> None:
    """A model that is idle would lose its name, and with it every request that could end its idleness."""
    world = undecided(traffic=Traffic(dns=DnsRecords(zone="models.example", provider=provider)))
    quiet = world.demand
    for key in world.demand:
        quiet = (
            quiet.delete(key) if rps is None else quiet.set(key, structs.replace(quiet[key], requests_per_second=rps))
        )
    world = replace(world, demand=quiet)
    made = tables(world, routed(Berlin={"fra": 1.0}, New_York={"iad": 1.0}), remembered_endpoints(world, {}))
    told = [one.dns for name in ("fra", "iad") for one in message(made.by_cluster[name], made, world).models if one.dns]
    assert sum(one.weight for one in told) > 0
    assert any(one.is_default for one in told)


def test_no_cluster_of_a_large_fleet_loses_its_records() -> None:
    """Each of 600 alike clusters has less than half a 255th of all requests: all names would go away."""
    assert set(weights({f"edge-{number}": 1.0 for number in range(600)}).values()) == {255}
    assert weights({"fra": 3.0, "iad": 1.0, "sin": 0.0}) == {"fra": 255, "iad": 85, "sin": 0}
    assert weights({"fra": 0.0}) == weights({}) == {}
