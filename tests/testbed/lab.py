"""The whole path of a request: load, real Envoys, replicas, and the controller with its agents. All on loopback.

Three regions with a gateway each; the users of each region come in at its own gateway, at a bounded rate that its agent
reports as demand. Replicas open when the cluster's backend says that they are ready, and end when it takes them away.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from agents.app import Agent
from agents.simulated import Ready, SimulatedBackend
from federation.adapters.xds import XdsListen
from federation.aiokit.clock import Clock
from federation.aiokit.tasks import Tasks
from federation.app import Controller
from federation.settings import Listen, Settings
from federation.state.world import Timing
from federation.traffic import xds
from federation.wire import messages
from tests.testbed.envoy import Envoy
from tests.testbed.fleet import simulated_agent
from tests.testbed.processes import free_ports, wait_for_port
from tests.testbed.replicas import Replicas
from tests.testbed.small_world import MODEL, PLACES, POLICY, TOKEN, USERS, cluster_document

INTERVAL_S = 0.5
MODEL_NAME = "chat-8b"
DOORS = dict(zip(PLACES, USERS, strict=True))
"""Cluster -> the cell whose front door it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request: when (monotonic seconds), from which cell, who answered, and how. Status 0 is no answer at all;
    of what is no good answer, `served_by` is its text."""

    at_s: float
    cell: str
    served_by: str
    status: int


class Load:
    """Users: a bounded, even stream of requests of each cell to its own gateway."""

    def __init__(self, ports: dict[str, int], rps: dict[str, float]) -> None:
        self.sent: deque[Sent] = deque(maxlen=2_000_000)
        self._ports = ports
        self._rps = rps
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Load:
        connector = aiohttp.TCPConnector(limit=200)
        self._client = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10))
        self._streams = [asyncio.create_task(self._stream(cell), name=f"load-{cell}") for cell in self._rps]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._streams:
            task.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()
        await asyncio.sleep(0.05)

    async def _stream(self, cell: str) -> None:
        due_s = time.monotonic()
        while True:
            due_s += 1 / self._rps[cell]
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            task = asyncio.create_task(self._ask(cell))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, cell: str) -> None:
        at_s = time.monotonic()
        headers = {"host": f"{MODEL_NAME}.example", "x-isochrone-cell": cell}
        try:
            async with self._client.get(f"http://127.0.0.1:{self._ports[cell]}/v1", headers=headers) as answer:
                served_by = (await answer.text()).strip()
                self.sent.append(Sent(at_s=at_s, cell=cell, served_by=served_by, status=answer.status))
        except (aiohttp.ClientError, TimeoutError) as error:
            self.sent.append(Sent(at_s=at_s, cell=cell, served_by=repr(error), status=0))

    def failed(self, since_s: float = 0.0) -> list[Sent]:
        """Requests that got no good answer."""
        return [one for one in self.sent if one.status != 200 and one.at_s >= since_s]

    def shares(self, cell: str, from_s: float, to_s: float) -> dict[str, float]:
        """Who answered a cell's requests between two moments."""
        asked = [one for one in self.sent if one.cell == cell and from_s <= one.at_s < to_s]
        served = Counter(one.served_by for one in asked if one.status == 200)
        whole = sum(served.values())
        return {name: count / whole for name, count in sorted(served.items())} if whole else {}


class Direct:
    """The same users without gateways: each of `clients` asks a cluster's replicas directly, the one that it was told.

    `record(cell)` says which that is; a client asks it again only every `ttl_s`, at a moment of its own. Whoever serves
    in front of a cluster's replicas knows which of them run.
    """

    def __init__(
        self,
        replicas: Replicas,
        rps: dict[str, float],
        record: Callable[[str], str],
        *,
        ttl_s: float,
        clients: int = 20,
    ) -> None:
        self.sent: deque[Sent] = deque(maxlen=1_000_000)
        self._replicas = replicas
        self._rps = rps
        self._record = record
        self._ttl_s = ttl_s
        self._clients = clients

    async def __aenter__(self) -> Direct:
        self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        self._tasks = [
            asyncio.create_task(self._user(cell, number)) for cell in self._rps for number in range(self._clients)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()
        await asyncio.sleep(0.05)

    async def _user(self, cell: str, number: int) -> None:
        spacing_s = self._clients / self._rps[cell]
        await asyncio.sleep(spacing_s * number / self._clients)
        known = self._record(cell)
        asks_s = time.monotonic() + self._ttl_s * (number + 1) / self._clients
        while True:
            at_s = time.monotonic()
            if at_s >= asks_s:
                known, asks_s = self._record(cell), asks_s + self._ttl_s
            self.sent.append(Sent(at_s=at_s, cell=cell, served_by=known, status=await self._ask(known, number)))
            await asyncio.sleep(max(0.0, at_s + spacing_s - time.monotonic()))

    async def _ask(self, cluster: str, number: int) -> int:
        running = self._replicas.running(cluster)
        if not running:
            return 0
        try:
            async with self._client.get(f"http://127.0.0.1:{running[number % len(running)]}/v1") as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return 0


class Lab:
    """Everything running, in the caller's loop.

    Args: rps: cell -> requests per second. traffic: the policy's. spare: two clusters have room for everyone, and
        anyone may serve anyone; else there are no more replicas than are needed, and residency holds. counted: agents
        say nothing of users: only the gateways count them, and the catalogue says where their cells are.
    """

    def __init__(
        self,
        directory: Path,
        *,
        rps: dict[str, float],
        traffic: dict[str, Any] | None = None,
        interval_s: float = INTERVAL_S,
        plan_period_s: float = 5.0,
        spare: bool = False,
        counted: bool = False,
    ) -> None:
        self.directory = directory
        self.counted = counted
        self.rps = rps
        self.clock = Clock()
        self.interval_s = interval_s
        self.plan_period_s = plan_period_s
        self.tasks: dict[str, Tasks] = {}
        self.agents: dict[str, Agent] = {}
        self.backends: dict[str, SimulatedBackend] = {}
        self.replicas = Replicas(tuple(PLACES), per_cluster=8)
        self.xds_port, *ports = free_ports(1 + len(PLACES))
        self.gateway_ports = dict(zip(PLACES, ports, strict=True))
        self.envoys: dict[str, Envoy] = {}
        self.broker_port = free_ports(1)[0]
        self.controller: Controller | None = None
        self.traffic = {"stepPercent": 25, "stepSeconds": 3, "drainSeconds": 2} | (traffic or {})
        self.spare = spare
        self.policies = directory / "policies"
        self.policies.mkdir(parents=True)
        self._write_policies()

    def _write_policies(self) -> None:
        clusters = [cluster_document(name) for name in PLACES]
        for document in clusters:
            name = document["metadata"]["name"]
            document["spec"]["gateway"] = {"address": "127.0.0.1", "port": self.gateway_ports[name]}
            if self.counted:
                country, lat, lon, _ = USERS[DOORS[name]]
                cell = {"name": DOORS[name], "country": country, "lat": lat, "lon": lon}
                document["spec"]["cells"] = [cell]
        (self.policies / "clusters.yaml").write_text(yaml.safe_dump_all(clusters), encoding="utf-8")
        model = MODEL | {"spec": MODEL["spec"] | {"warmupSeconds": 0.5}}
        model["spec"]["accelerators"] = [{"product": "NVIDIA-L4", "minVramGiB": 20, "requestsPerSecond": 40}]
        policy = POLICY | {"spec": POLICY["spec"] | {"traffic": self.traffic}}
        policy["spec"]["failover"] = {"tolerationSeconds": 60}
        if self.spare:
            policy["spec"]["availability"] = {"minReplicas": 16, "minRegions": 2}
            del policy["spec"]["residency"]
        (self.policies / "chat.yaml").write_text(yaml.safe_dump_all([model, policy]), encoding="utf-8")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Lab]:
        """From nothing to everyone served by real gateways; afterwards nothing is left."""
        with self.replicas:
            try:
                await self.start_controller()
                for name in PLACES:
                    self.envoys[name] = Envoy(name, xds_port=self.xds_port, port=self.gateway_ports[name])
                    self._start_agent(name)
                    await asyncio.to_thread(self.envoys[name].start)
                await self.until(self.is_settled, "placement")
                for name, envoy in self.envoys.items():
                    await asyncio.to_thread(wait_for_port, envoy._process, self.gateway_ports[name], timeout_s=20.0)
                await self.until(self.all_healthy, "healthy endpoints")
                yield self
            finally:
                for tasks in self.tasks.values():
                    await tasks.stop()
                if self.controller is not None:
                    await self.controller.stop()
                for envoy in self.envoys.values():
                    await asyncio.to_thread(envoy.close)
                await asyncio.sleep(0.2)

    async def start_controller(self) -> None:
        """A controller on the same data, the same broker port and the same port for gateways."""
        settings = Settings(
            policies_dir=self.policies,
            data_dir=self.directory / "data",
            listen=Listen(port=0),
            xds=XdsListen(port=self.xds_port),
            broker_port=self.broker_port,
            timing=Timing(
                report_interval_s=self.interval_s, tick_s=self.interval_s / 2, stale_after_s=4 * self.interval_s
            ),
            plan_period_s=self.plan_period_s,
            plan_spacing_s=0.5,
        )
        for left in reversed(range(20)):
            try:
                self.controller = await Controller.start(settings, clock=self.clock, token=TOKEN)
                return
            except OSError:  # the one before has not let go of its ports yet
                if not left:
                    raise
                await asyncio.sleep(0.5)

    async def stop_controller(self) -> None:
        """It and its broker are gone; gateways, replicas and agents go on."""
        assert self.controller is not None
        await self.controller.stop()
        self.controller = None

    def _start_agent(self, name: str) -> None:
        assert self.controller is not None
        cell = DOORS[name]
        country, lat, lon, _ = USERS[cell]
        where = messages.UserCell(name=cell, country=country, lat=lat, lon=lon)
        sample = messages.DemandSample(model=MODEL_NAME, cell=where, requests_per_second=self.rps[cell])

        def endpoints(ready: Ready) -> tuple[messages.ReplicaEndpoint, ...]:
            ports = self.replicas.ports[name]
            wanted = ports[: sum(ready.values())]
            for port in ports:
                if port in wanted:
                    self.replicas.start(name, port)
                elif name not in self.replicas.dead:
                    self.replicas.kill(name, port)
            return tuple(
                messages.ReplicaEndpoint(model=MODEL_NAME, address="127.0.0.1", port=port) for port in sorted(wanted)
            )

        agent, backend = simulated_agent(
            name,
            [cell],
            address=self.controller.broker,
            clock=self.clock,
            interval_s=self.interval_s,
            demand=lambda: () if self.counted else (sample,),
            endpoints=endpoints,
            gateway_admin=f"http://127.0.0.1:{self.envoys[name].statistics_port}",
        )
        self.agents[name], self.backends[name] = agent, backend
        self.tasks[name] = Tasks()
        self.tasks[name].start(f"agent-{name}", agent.run())

    async def lose(self, name: str) -> float:
        """A region is gone: its replicas and its agent's link, at once; gives when (monotonic seconds)."""
        at_s = time.monotonic()
        self.agents[name].cut()
        await asyncio.to_thread(self.replicas.lose, name)
        return at_s

    async def post(self, path: str, body: bytes = b"") -> None:
        """Ask the controller for something, as an operator does."""
        assert self.controller is not None
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            aiohttp.ClientSession() as client,
            client.post(self.controller.url + path, data=body, headers=headers) as answer,
        ):
            assert answer.status == 200, await answer.text()

    # ---- asking

    @property
    def hub(self) -> Any:
        """The controller's memory."""
        assert self.controller is not None
        return self.controller.hub

    def is_settled(self) -> bool:
        """Whether all that is wanted is ready and everyone is served where the plan wants it."""
        hub = self.hub
        wanted = hub.plan.target_by_key()
        ready = hub.world.ready_replicas()
        routes = hub.routes.routes
        return (
            len(routes) == (0 if self.counted else len(self.rps))  # whom gateways count has not asked yet
            and bool(wanted)
            and {key: count for key, count in ready.items() if count} == wanted
            and all(abs(sum(s.share for s in route.now) - 1) < 1e-3 and route.now == route.target for route in routes)
        )

    def all_healthy(self) -> bool:
        """Whether every gateway has accepted what is offered now, and believes every endpoint."""
        assert self.controller is not None
        server = self.controller.xds
        assert server is not None
        for status in self.hub.gateways.values():
            offered = server.snapshot_of(status.cluster)
            if offered is None or any(
                status.accepted.get(short) != offered.version(type_url) for type_url, short in xds.SHORT.items()
            ):
                return False
        return len(self.hub.gateways) == len(self.envoys) and all(
            envoy.stat("listener_manager.total_listeners_active") > 1
            and "health_flags::/failed" not in envoy.admin("/clusters")
            and "health_flags::healthy" in envoy.admin("/clusters")
            for envoy in self.envoys.values()
        )

    def plan_of(self, cell: str) -> dict[str, float]:
        """Cluster -> share in force."""
        return {
            share.cluster: share.share for route in self.hub.routes.routes if route.cell == cell for share in route.now
        }

    async def until(self, ask: Callable[[], object], what: str, *, timeout_s: float = 40.0) -> float:
        """Wait until `ask` is true; gives when it was (monotonic seconds)."""
        deadline_s = time.monotonic() + timeout_s
        while not await asyncio.to_thread(ask):
            if time.monotonic() > deadline_s:
                said = [event.message for event in list(self.hub.events)[-12:]] if self.controller else []
                logs = [envoy.log_tail() for envoy in self.envoys.values()]
                raise AssertionError(f"no {what} after {timeout_s:g} s: {said}\n" + "\n".join(logs))
            await asyncio.sleep(0.02)
        return time.monotonic()
