"""The whole product in one process, with replicas placed and ready: what these tests start from."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from federation.traffic.status import GatewayStatus
from tests.testbed.fleet import Fleet
from tests.testbed.small_world import MODEL, POLICY, USERS


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet that serves everyone; a test that changes it puts it back."""
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        assert fleet.apply("chat.yaml", MODEL, POLICY)[0] == 200
        fleet.until(fleet.is_settled, "placement")
        fleet.until(lambda: all(_is_routed(fleet, cell) for cell in USERS), "routes of all users")
        gateway = GatewayStatus(node="fra-gw", cluster="fra", connected=True, since_s=0.0)
        fleet.do(lambda: fleet.controller.traffic.hear(gateway))
        yield fleet


def _is_routed(fleet: Fleet, cell: str) -> bool:
    return fleet.request("GET", f"/v1/route?model=chat-8b&cell={quote(cell)}")[0] == 200
