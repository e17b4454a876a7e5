"""The controller's disk is full while it serves: a cluster that is lost loses its users, and a restart is possible."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.test_kill import Controller, settled, three_agents
from tests.testbed.fixtures import require_mosquitto
from tests.testbed.mosquitto import Mosquitto
from tests.testbed.small_world import MODEL, POLICY
from tests.unit.adapters.test_store_full import fill

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte where the controller keeps its data."""
    data = tmp_path / "data"
    data.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(data)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield data
    subprocess.run(["umount", "-l", str(data)], check=True)


async def answered(controller: Controller, path: str) -> Any:
    """The items of a list."""
    return (await controller.ask("GET", path))["items"]


async def test_users_leave_a_dead_cluster_though_the_disk_is_full(tmp_path: Path, disk: Path) -> None:
    """They would be sent to it until somebody frees the disk; and a restart meanwhile would find no controller."""
    require_mosquitto()
    with Mosquitto() as broker:
        controller = Controller(tmp_path, broker.url)
        async with three_agents(broker) as agents:
            await controller.start()
            await controller.until(lambda view: len(view["clusters"]) == 3, "start")
            assert await controller.ask(
                "POST", "/v1/policies?name=chat.yaml", yaml.safe_dump_all([MODEL, POLICY]).encode()
            )
            view = await controller.until(settled, "placement")
            epoch = view["epoch"]
            fill(disk)

            def leaves_fra(view: Any) -> bool:
                used = [one for cell in view["cells"] for model in cell["demand"] for one in model["routes"]]
                return bool(used) and all(one["cluster"] != "fra" or not one["share"] for one in used)

            assert not leaves_fra(view)
            agents.tasks["fra"].cancel()
            await controller.until(leaves_fra, "routes without fra")
            assert await controller.ask("POST", "/v1/clusters/iad/drain", b'{"reason": "x"}') is None
            await asyncio.to_thread(controller.process.kill)
            fill(disk)
            await controller.start()
            view = await controller.until(leaves_fra, "a start on the full disk")
            assert view["epoch"] == epoch + 1
            assert "chat-8b" in {one["name"] for one in view["models"]}
            (disk / "filler").unlink()
            for _ in range(100):
                reasons = [one["reason"] for one in await answered(controller, "/v1/events")]
                if "StoreBack" in reasons:
                    break
                await asyncio.sleep(0.2)
            assert reasons.count("StoreFull") == reasons.count("StoreBack") == 1
        await asyncio.to_thread(controller.process.stop)
