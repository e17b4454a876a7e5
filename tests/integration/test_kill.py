"""`kill -9` of the controller at any moment: nothing that it said yes to is lost, and a quiet world stays as it is."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.simulated import SimulatedBackend
from federation.aiokit.broker import BrokerAddress
from federation.aiokit.clock import Clock
from federation.aiokit.tasks import Tasks
from tests.testbed.fixtures import require_mosquitto
from tests.testbed.fleet import simulated_agent
from tests.testbed.mosquitto import Mosquitto
from tests.testbed.processes import Process, free_ports
from tests.testbed.small_world import MODEL, PLACES, POLICY, TOKEN, USERS, cluster_document

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(400)]
KILLS = 20
INTERVAL_S = 0.5


class Controller:
    """The controller as a process that is killed."""

    def __init__(self, directory: Path, broker_url: str) -> None:
        self.directory = directory
        (directory / "policies").mkdir()
        documents = [cluster_document(name) for name in PLACES]
        (directory / "policies" / "clusters.yaml").write_text(yaml.safe_dump_all(documents), encoding="utf-8")
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
        command = [sys.executable, "-m", "federation.cli", "controller", "--policies", str(directory / "policies")]
        command += ["--data", str(directory / "data"), "--listen", self.url.removeprefix("http://")]
        command += ["--broker", broker_url, "--report-interval", str(INTERVAL_S), "--plan-period", "1"]
        environment = {**os.environ, "ISOCHRONE_TOKEN": TOKEN, "ISOCHRONE_CONFIG": str(directory / "config.json")}
        self._make: Callable[[], Process] = lambda: Process(
            "controller", command, log_file=directory / "log", environment=environment
        )
        self.process = self._make()

    async def start(self) -> None:
        self.process = self._make()
        await asyncio.to_thread(self.process.start)

    async def ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        """The API's answer, or None when there is none."""

        def call() -> Any:
            asked = urllib.request.Request(self.url + path, data=body, method=method)
            asked.add_header("Authorization", f"Bearer {TOKEN}")
            with urllib.request.urlopen(asked, timeout=10) as response:
                return json.load(response)

        try:
            return await asyncio.to_thread(call)
        except (OSError, ValueError):
            return None

    async def until(self, ask: Callable[[Any], bool], what: str) -> Any:
        """The first overview of which `ask` is true."""
        view: Any = None
        for _ in range(400):
            view = await self.ask("GET", "/v1/overview")
            if view is not None and ask(view):
                return view
            await asyncio.sleep(0.05)
        raise AssertionError(f"{what}: {view and view['message']}\n{self.process.log_tail()}")


@dataclass
class Agents:
    """Clusters by name: what they hold, and their agents' tasks."""

    backends: dict[str, SimulatedBackend] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[Any]] = field(default_factory=dict)


@asynccontextmanager
async def three_agents(broker: Mosquitto) -> AsyncIterator[Agents]:
    """Simulated clusters whose agents are the real ones."""
    tasks, clock, agents = Tasks(), Clock(), Agents()
    for name, cell in zip(sorted(PLACES), sorted(USERS), strict=True):
        address = BrokerAddress(host="127.0.0.1", port=broker.port)
        agent, agents.backends[name] = simulated_agent(
            name, [cell], address=address, clock=clock, interval_s=INTERVAL_S
        )
        agents.tasks[name] = tasks.start(name, agent.run())
    try:
        yield agents
    finally:
        await tasks.stop()


def settled(view: Any) -> bool:
    models = {one["name"]: one for one in view["models"]}
    chat = models.get("chat-8b")
    return bool(chat and chat["replicas_desired"] >= 3 and chat["replicas_ready"] == chat["replicas_desired"])


async def test_nothing_accepted_is_lost_and_a_quiet_world_makes_no_move(tmp_path: Path) -> None:
    """A crash would lose a policy that was acknowledged, let an older plan win, or move replicas for nothing."""
    require_mosquitto()
    rng = random.Random(20)
    accepted: dict[str, int] = {}
    epoch = 0
    with Mosquitto() as broker:
        controller = Controller(tmp_path, broker.url)
        async with three_agents(broker) as agents:
            await controller.start()
            await controller.until(lambda view: len(view["clusters"]) == 3, "start")
            body = yaml.safe_dump_all([MODEL, POLICY]).encode()
            assert await controller.ask("POST", "/v1/policies?name=chat.yaml", body)
            for number in range(KILLS):
                moment_s = rng.uniform(0.0, 1.5)
                applying = asyncio.get_running_loop().create_task(apply_one(controller, number, accepted))
                await asyncio.sleep(moment_s)
                await asyncio.to_thread(controller.process.kill)
                await applying
                await controller.start()
                view = await controller.until(lambda view: True, f"restart {number}")
                assert view["epoch"] > epoch, "agents would refuse the new start"
                epoch = view["epoch"]
                files = {one["name"]: one["revision"] for one in (await controller.ask("GET", "/v1/policies"))["items"]}
                missing = {name: revision for name, revision in accepted.items() if files.get(name, 0) < revision}
                assert not missing, f"kill {number} lost {missing}"
                events = (await controller.ask("GET", "/v1/events"))["items"]
                assert "StoreDamaged" not in {one["reason"] for one in events}, "no kill is damage"
            view = await controller.until(settled, "placement after the last kill")
            await asyncio.sleep(4 * INTERVAL_S)
            before = {name: backend.ready() for name, backend in agents.backends.items()}
            view = await controller.ask("GET", "/v1/overview")
            for _ in range(3):
                await asyncio.to_thread(controller.process.kill)
                await controller.start()
                again = await controller.until(settled, "quiet restart")
                assert again["epoch"] > epoch
                epoch = again["epoch"]
                await asyncio.sleep(8 * INTERVAL_S)
                again = await controller.ask("GET", "/v1/overview")
                assert again["generation"] == view["generation"], again["message"]
            assert {name: backend.ready() for name, backend in agents.backends.items()} == before
            assert accepted, "some policy was accepted between kills"
        await asyncio.to_thread(controller.process.stop)


async def apply_one(controller: Controller, number: int, accepted: dict[str, int]) -> None:
    """Hand in policy files until the controller dies; remember what it said yes to."""
    for part in range(50):
        name = f"extra-{number}-{part}.yaml"
        document = {**MODEL, "metadata": {"name": f"unplaced-{number}-{part}"}}
        with suppress(urllib.error.URLError):
            answer = await controller.ask("POST", f"/v1/policies?name={name}", yaml.safe_dump(document).encode())
            if answer is None:
                return
            accepted[name] = answer["revision"]
        await asyncio.sleep(0.02)
