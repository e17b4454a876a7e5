"""The product in one process: the controller with its broker and API, one agent per simulated cluster, real sockets.

Its own thread runs it, so that a test may ask it as anyone would: over HTTP, by the command line, in a browser.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml
from msgspec import structs

from agents.app import Agent, AgentSettings
from agents.simulated import SimulatedBackend
from federation.aiokit.broker import BrokerAddress
from federation.aiokit.clock import Clock
from federation.aiokit.tasks import Tasks
from federation.app import Controller
from federation.settings import Listen, Settings
from federation.state.scraped import Prometheus
from federation.state.world import Timing
from federation.wire import messages
from tests.builders import L4
from tests.testbed.processes import wait
from tests.testbed.small_world import PLACES, TOKEN, USERS, cluster_document

T = TypeVar("T")
INTERVAL_S = 2.0
SPEED = 10.0
"""Periods and warm-ups are the small world's; a test waits a tenth of them."""
POOL = messages.PoolReport(key=L4, vram_gib=22, allocatable=8, free=8)
START_TIMEOUT_S = 30.0


def simulated_agent(
    name: str,
    cells: Iterable[str],
    *,
    address: BrokerAddress,
    clock: Clock,
    interval_s: float,
    state_path: Path | None = None,
    gateway_admin: str | None = None,
    **backend_fields: Any,
) -> tuple[Agent, SimulatedBackend]:
    """The agent of a simulated cluster of eight devices, whose front door counts the users of `cells`."""
    samples = tuple(_sample(cell) for cell in cells)
    rng = random.Random(name)
    backend = SimulatedBackend(
        pools=(POOL,),
        clock=clock,
        rng=rng,
        rtt_ms=lambda peer, chance: 100.0 if "iad" in (name, peer) else 30.0,
        probe=f"{name}.test:1",
        **({"demand": lambda: samples} | backend_fields),
    )
    settings = AgentSettings(
        cluster=name, address=address, interval_s=interval_s, state_path=state_path, gateway_admin=gateway_admin
    )
    return Agent(settings, backend, clock=clock, rng=rng), backend


def _sample(cell: str) -> messages.DemandSample:
    country, lat, lon, rps = USERS[cell]
    where = messages.UserCell(name=cell, country=country, lat=lat, lon=lon)
    return messages.DemandSample(model="chat-8b", cell=where, requests_per_second=rps)


class Fleet:
    """Everything running. `silent` clusters are in the catalogue and have no agent.

    With `prometheus` agents say nothing of users, and the catalogue says where their cells are.
    """

    def __init__(self, directory: Path, *, silent: tuple[str, ...] = (), prometheus: Prometheus | None = None) -> None:
        self.policies = directory / "policies"
        self.policies.mkdir(parents=True)
        documents = [cluster_document(name) for name in PLACES]
        for document, (cell, (country, lat, lon, _)) in zip(documents, USERS.items(), strict=True):
            if prometheus is not None:
                document["spec"]["cells"] = [{"name": cell, "country": country, "lat": lat, "lon": lon}]
        (self.policies / "clusters.yaml").write_text(yaml.safe_dump_all(documents), encoding="utf-8")
        self.clock = Clock(speed=SPEED)
        self.agents: dict[str, Agent] = {}
        self.backends: dict[str, SimulatedBackend] = {}
        self._silent = silent
        self.database = directory / "data" / "isochrone.sqlite"
        self._tasks = Tasks()
        self.controller: Controller
        self._settings = Settings(
            policies_dir=self.policies,
            data_dir=directory / "data",
            listen=Listen(port=0),
            timing=Timing(report_interval_s=INTERVAL_S, tick_s=INTERVAL_S / 2, stale_after_s=4 * INTERVAL_S),
            plan_period_s=10.0,
            plan_spacing_s=1.0,
            prometheus=prometheus,
        )
        self._ending = AsyncExitStack()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="fleet")

    def _serve(self) -> None:
        """Until stopped; then what a failed stop has left is ended, which would else keep the whole test run."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.run(self._start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    @property
    def url(self) -> str:
        """Of API and map."""
        return self.controller.url

    async def _start(self) -> None:
        self.controller = await Controller.start(self._settings, clock=self.clock, token=TOKEN)
        self._ending.push_async_callback(self.controller.stop)
        for name, cell in zip(PLACES, USERS, strict=True):
            if name in self._silent:
                continue
            self.agents[name], self.backends[name] = simulated_agent(
                name,
                [] if self._settings.prometheus is not None else [cell],
                address=self.controller.broker,
                clock=self.clock,
                interval_s=INTERVAL_S,
            )
            self._tasks.start(f"agent-{name}", self.agents[name].run())

    async def _stop(self) -> None:
        await self._tasks.stop()
        await self._ending.aclose()
        await asyncio.sleep(0.2)

    def _end(self) -> None:
        try:
            self.run(self._stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(START_TIMEOUT_S)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What `coroutine` gives, run where the product runs."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(START_TIMEOUT_S)

    def do(self, action: Callable[[], T]) -> T:
        """What `action` gives, called where the product runs."""

        async def call() -> T:
            return action()

        return self.run(call())

    # ---- asking

    def request(
        self, method: str, path: str, body: bytes | None = None, *, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Message, bytes]:
        """(status, headers, body). Without `headers` it is signed in."""
        given = {"Authorization": f"Bearer {TOKEN}"} if headers is None else dict(headers)
        asked = urllib.request.Request(self.url + path, data=body, method=method, headers=given)
        try:
            with _OPENER.open(asked, timeout=30) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def get(self, path: str) -> Any:
        """The JSON of an answer that is no refusal."""
        status, _, body = self.request("GET", path)
        assert status == 200, body
        return json.loads(body)

    def apply(self, name: str, *documents: Mapping[str, Any]) -> tuple[int, Any]:
        """(status, JSON) of handing in a policy file."""
        body = yaml.safe_dump_all([dict(one) for one in documents]).encode()
        status, _, answer = self.request("POST", f"/v1/policies?name={name}", body)
        return status, json.loads(answer)

    def until(self, ask: Callable[[], T], what: str, *, timeout_s: float = 20.0) -> T:
        """The first answer that is true. Raises: AssertionError with the last answer."""
        return wait(ask, what, timeout_s=timeout_s)

    def is_settled(self) -> bool:
        """Whether some replicas are wanted, all of them are ready and every user is served."""
        view = self.get("/v1/overview")
        wanted = sum(one["replicas_desired"] for one in view["models"])
        ready = sum(one["replicas_ready"] for one in view["models"])
        return bool(wanted > 0 and wanted == ready and view["demand_rps"] > 0 and view["unserved_rps"] == 0)

    @contextmanager
    def launched(self, name: str, rps: float) -> Iterator[None]:
        """While so many requests for a model that is not placed come in at a cluster's front door besides; it starts
        once not all of that is believed."""
        backend = self.backends[name]
        before = backend.demand()
        backend._demand = lambda: (*before, structs.replace(before[0], model="launched", requests_per_second=rps))
        try:
            self.until(lambda: self.waiting(name), "a condition of the launch")
            yield
        finally:
            backend._demand = lambda: before
            self.until(lambda: not self.waiting(name) and not self._counts("launched"), "the end of the launch")

    def waiting(self, name: str) -> bool:
        """Whether a cluster claims more than is believed."""
        return "DemandDoubted" in {one["type"] for one in self.get(f"/v1/clusters/{name}")["conditions"]}

    def _counts(self, model: str) -> bool:
        return any(one == model for one, _ in self.do(lambda: self.controller.hub.world.demand))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)
