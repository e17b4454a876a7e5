"""The whole product in one process, with replicas placed and ready: what these tests start from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from federation.traffic.status import GatewayStatus
from tests.testbed.fleet import Fleet
from tests.testbed.small_world import MODEL, POLICY


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet that serves everyone; a test that changes it puts it back."""
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        assert fleet.apply("chat.yaml", MODEL, POLICY)[0] == 200
        fleet.until(fleet.is_settled, "placement")
        gateway = GatewayStatus(node="fra-gw", cluster="fra", connected=True, since_s=0.0)
        fleet.do(lambda: fleet.controller.traffic.hear(gateway))
        yield fleet
