"""A real name server: users of ten places are told the planned clusters, follow a drain, and are told so without us."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.testbed.fixtures import require_powerdns
from tests.testbed.fleet import Fleet
from tests.testbed.powerdns import PowerDns
from tests.testbed.processes import Process, free_ports, wait_for_port
from tests.testbed.small_world import MODEL, PLACES, POLICY, TOKEN, cluster_document

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]
DOORS = {"fra": "127.0.9.1", "mad": "127.0.9.2", "iad": "127.0.9.3"}
"""Front doors: loopback addresses that something listens on."""
ZONE = "models.example"
TTL_S = 3
USERS = {
    "198.51.100.0/24": ("DE", 52.5, 13.4),
    "203.0.113.0/24": ("FR", 45.8, 4.8),
    "192.0.2.0/24": ("US", 40.7, -74.0),
    "198.18.1.0/24": ("DE", 48.1, 11.6),
    "198.18.2.0/24": ("FR", 48.9, 2.4),
    "198.18.3.0/24": ("ES", 40.4, -3.7),
    "198.18.4.0/24": ("US", 41.9, -87.6),
    "198.18.5.0/24": ("CA", 43.7, -79.4),
    "198.18.6.0/24": ("PL", 52.2, 21.0),
    "2001:db8:7::/48": ("DE", 53.6, 10.0),
}
"""Ten places: subnet -> country, latitude, longitude."""


class World:
    """A fleet whose clusters have front doors, our backend as a process, and PowerDNS before it."""

    def __init__(self, directory: Path) -> None:
        self.stack = contextlib.ExitStack()
        self.doors = {name: self._door(address) for name, address in DOORS.items()}
        self.product = self.stack.enter_context(contextlib.ExitStack())
        self.fleet = self.product.enter_context(Fleet(directory / "fleet"))
        clusters = [cluster_document(name) for name in PLACES]
        for document in clusters:
            name = document["metadata"]["name"]
            port = self.doors[name].getsockname()[1]
            document["spec"]["gateway"] = {"address": DOORS[name], "port": port}
        policy: dict[str, Any] = POLICY | {"spec": POLICY["spec"] | {"traffic": {"dnsTtlSeconds": TTL_S}}}
        (self.fleet.policies / "clusters.yaml").write_text(yaml.safe_dump_all(clusters), encoding="utf-8")
        assert self.fleet.apply("chat.yaml", MODEL, policy)[0] == 200
        self.fleet.until(self.fleet.is_settled, "placement")
        self.fleet.until(lambda: DOORS["fra"] in str(self.fleet.get("/v1/route/snapshot")["clusters"]), "front doors")
        places = directory / "places.csv"
        rows = [f"{subnet},{country},{lat},{lon}" for subnet, (country, lat, lon) in USERS.items()]
        places.write_text("# subnet,country,latitude,longitude\n" + "\n".join(rows), encoding="utf-8")
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "federation.cli", "--server", self.fleet.url, "dns", "--zone", ZONE]
        command += ["--places", str(places), "--listen", f"127.0.0.1:{port}", "--state", str(directory / "routes.json")]
        environment = {**os.environ, "ISOCHRONE_TOKEN": TOKEN, "ISOCHRONE_CONFIG": str(directory / "config.json")}
        self.backend = Process("dns", command, log_file=directory / "dns.log", environment=environment)
        self.stack.callback(self.backend.stop)
        self.backend.start()
        wait_for_port(self.backend, port, timeout_s=20.0)
        self.pdns = self.stack.enter_context(PowerDns(port))

    def _door(self, address: str) -> socket.socket:
        door = socket.create_server((address, 0))
        self.stack.callback(door.close)
        return door

    def told(self, subnet: str) -> str:
        """The cluster that users of a subnet are told, or why none."""
        addresses, ttl_s, status = self.pdns.dig(f"chat-8b.{ZONE}", subnet)
        if not addresses:
            return status
        assert ttl_s == TTL_S
        (address,) = addresses
        return {door: name for name, door in DOORS.items()}[address]

    def planned(self, subnet: str) -> set[str]:
        """The clusters that the plan has for that place."""
        country, lat, lon = USERS[subnet]
        answer = self.fleet.get(f"/v1/route?model=chat-8b&lat={lat}&lon={lon}&country={country}")
        return {one["cluster"] for one in answer["clusters"]}

    def until(self, ask: Callable[[], object], what: str, *, timeout_s: float) -> float:
        """Seconds until `ask` is true."""
        begun_s = time.monotonic()
        while not ask():
            assert time.monotonic() - begun_s < timeout_s, f"no {what}: {self.backend.log_tail()}"
            time.sleep(0.1)
        return time.monotonic() - begun_s


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    require_powerdns()
    world = World(tmp_path)
    with world.stack:
        yield world


def test_names_follow_the_plan_a_drain_and_health_and_go_on_without_a_controller(world: World) -> None:
    """Users who come by name would be sent where nobody serves them, or nowhere whenever we are down."""
    world.until(lambda: world.told("198.51.100.0/24") in world.planned("198.51.100.0/24"), "first answer", timeout_s=10)
    before = {subnet: world.told(subnet) for subnet in USERS}
    for subnet, cluster in before.items():
        assert cluster in world.planned(subnet), subnet
        assert world.told(subnet) == cluster, "the same subnet is told the same"
    assert {before[subnet] for subnet, (country, *_) in USERS.items() if country in ("DE", "FR")} <= {"fra", "mad"}
    assert world.told("100.64.0.0/24") in DOORS, "an unknown place is served where everyone may be"
    assert world.pdns.dig(f"nobody.{ZONE}", "192.0.2.0/24")[2] in ("NXDOMAIN", "NOERROR")
    assert world.pdns.dig(ZONE, "192.0.2.0/24", "SOA")[2] == "NOERROR"

    world.fleet.request("POST", "/v1/clusters/fra/drain", b'{"reason": "a test"}')
    drained = lambda: all("fra" not in world.planned(subnet) for subnet in USERS)  # noqa: E731
    world.until(drained, "end of the drain", timeout_s=60)
    took_s = world.until(lambda: "fra" not in {world.told(subnet) for subnet in USERS}, "answers", timeout_s=10)
    assert took_s <= TTL_S
    after = {subnet: world.told(subnet) for subnet in USERS}
    assert all(cluster in world.planned(subnet) for subnet, cluster in after.items())

    world.product.close()
    assert {subnet: world.told(subnet) for subnet in USERS} == after, "from what it has"
    lost = after["192.0.2.0/24"]
    world.doors[lost].close()
    world.until(lambda: world.told("192.0.2.0/24") != lost, "answer without the front door that is gone", timeout_s=20)
    assert world.told("192.0.2.0/24") in DOORS.keys() - {lost, "fra"}, "the plan named no other: who can help does"
    others = {subnet: cluster for subnet, cluster in after.items() if cluster != lost}
    assert {subnet: world.told(subnet) for subnet in others} == others, "nobody else is moved"
