"""The product on real components: Mosquitto, real control planes, and its own commands as processes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml

from federation.aiokit.clock import Clock
from federation.app import Controller
from federation.settings import Listen, Settings
from federation.state.world import Timing
from tests.testbed.cluster import MODELS_NAMESPACE, ControlPlane
from tests.testbed.mosquitto import Mosquitto
from tests.testbed.processes import Process, free_ports
from tests.testbed.small_world import PLACES, PRODUCT, TOKEN, VRAM_MIB, cluster_document, demand

T = TypeVar("T")
START_S = 30.0


class FastController:
    """The controller on a faster clock, in a thread of its own."""

    def __init__(self, settings: Settings, speed: float) -> None:
        self.clock = Clock(speed=speed)
        self._settings = settings
        self._controller: Controller | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="controller")

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()

    def start(self) -> None:
        """Return once its API is served."""
        self._thread.start()
        starting = Controller.start(self._settings, clock=self.clock, token=TOKEN)
        self._controller = asyncio.run_coroutine_threadsafe(starting, self._loop).result(START_S)

    def stop(self) -> None:
        """End it, as an operator does."""
        try:
            if self._controller is not None:
                asyncio.run_coroutine_threadsafe(self._controller.stop(), self._loop).result(START_S)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(START_S)

    def log_tail(self, line_count: int = 20) -> str:
        """Its last events."""
        events = list(self._controller.hub.events) if self._controller is not None else []
        return "\n".join(one.message for one in events[-line_count:])


class Federation:
    """Everything running: `planes` by name, one agent process each, one controller, one broker.

    Args: names: clusters to start, of PLACES. interval_s: between reports, of the machine's seconds; four of them
        without one is silence. speed: seconds of the controller's clock in one of the machine's; at another speed than
        1 it runs in this process.
    """

    def __init__(self, names: tuple[str, ...] = tuple(PLACES), *, interval_s: float = 1.0, speed: float = 1.0) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="isochrone-federation-"))
        self.policies = self.directory / "policies"
        self.policies.mkdir()
        self.interval_s = interval_s
        self.planes = {name: ControlPlane(name) for name in names}
        self.broker = Mosquitto()
        self.agents: dict[str, Process] = {}
        self.speed = speed
        self.controller: Process | FastController | None = None
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
        documents = [cluster_document(name) for name in names]
        for number, document in enumerate(documents, 1):
            document["spec"]["gateway"] = {"address": f"192.0.2.{number}"}
        (self.policies / "clusters.yaml").write_text(yaml.safe_dump_all(documents), encoding="utf-8")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Broker, control planes with GPU nodes, controller, agents."""
        self.broker.start()
        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(self._start_plane, self.planes))
        self.start_controller()
        for name in self.planes:
            self.start_agent(name)

    def _start_plane(self, name: str) -> None:
        plane = self.planes[name]
        plane.start()
        for number in (1, 2):
            plane.add_gpu_node(
                f"{name}-gpu-{number}", product=PRODUCT, count=4, memory_mib=VRAM_MIB, zone=f"{name}-a", region=name
            )
        plane.wait_for_nodes()

    def start_controller(self) -> None:
        """The controller as users start it, or on a clock that is faster than the machine's."""
        if self.speed != 1.0:
            self.controller = FastController(self._fast_settings(), self.speed)
            self.controller.start()
            return
        command = [sys.executable, "-m", "federation.cli", "controller"]
        command += ["--policies", str(self.policies), "--data", str(self.directory / "data")]
        command += ["--listen", self.url.removeprefix("http://"), "--broker", self.broker.url]
        command += ["--report-interval", str(self.interval_s), "--plan-period", "5", "--log-format", "json"]
        self.controller = Process(
            "controller", command, log_file=self.directory / "controller.log", environment=self._environment()
        )
        self.controller.start()
        self.wait(lambda: self.get("/v1/overview"), "the controller's API")

    def _fast_settings(self) -> Settings:
        interval_s = self.interval_s * self.speed
        host, _, port = self.url.removeprefix("http://").partition(":")
        return Settings(
            policies_dir=self.policies,
            data_dir=self.directory / "data",
            listen=Listen(host=host, port=int(port)),
            broker_url=self.broker.url,
            timing=Timing(report_interval_s=interval_s, tick_s=interval_s / 2, stale_after_s=4 * interval_s),
            plan_period_s=60.0,
        )

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "ISOCHRONE_TOKEN": TOKEN, "ISOCHRONE_CONFIG": str(self.directory / "config.json")}

    def start_agent(self, name: str) -> None:
        """The agent of a cluster, under its own service account."""
        cells = {"fra": ["Berlin"], "mad": ["Lyon"], "iad": ["New York"]}[name]
        counted = self.directory / f"demand-{name}.json"
        counted.write_text(json.dumps(demand(cells)), encoding="utf-8")
        command = [sys.executable, "-m", "federation.cli", "agent", "kubernetes", "--cluster", name]
        command += ["--broker", self.broker.url, "--kubeconfig", str(self.planes[name].agent_kubeconfig())]
        command += ["--interval", str(self.interval_s), "--state", str(self.directory / f"agent-{name}.json")]
        command += ["--demand", str(counted), "--probe-listen", "127.0.0.1:0"]
        self.agents[name] = Process(
            f"agent-{name}", command, log_file=self.directory / f"agent-{name}.log", environment=self._environment()
        )
        self.agents[name].start()

    def close(self) -> None:
        """End every process that was started, and remove the files."""
        for process in [*self.agents.values(), *([self.controller] if self.controller else [])]:
            process.stop()
        for plane in self.planes.values():
            plane.close()
        self.broker.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # ---- asking

    def request(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> Any:
        """The API's answer as JSON. Raises: urllib.error.URLError."""
        asked = urllib.request.Request(self.url + path, data=body, method=method)
        asked.add_header("Authorization", f"Bearer {TOKEN}")
        if content_type:
            asked.add_header("Content-Type", content_type)
        with urllib.request.urlopen(asked, timeout=20) as response:
            return json.load(response)

    def get(self, path: str) -> Any:
        """GET."""
        return self.request("GET", path)

    def apply(self, name: str, *documents: Mapping[str, Any]) -> Any:
        """Hand in a policy file."""
        body = yaml.safe_dump_all([dict(one) for one in documents]).encode()
        return self.request("POST", f"/v1/policies?name={name}", body, "application/yaml")

    def deployments(self, name: str) -> dict[str, tuple[int, int]]:
        """Deployment -> (wanted, ready) replicas in a cluster, by its own API server."""
        found = self.planes[name].request("GET", f"/apis/apps/v1/namespaces/{MODELS_NAMESPACE}/deployments")
        return {
            one["metadata"]["name"]: (one["spec"]["replicas"], one.get("status", {}).get("readyReplicas", 0))
            for one in found["items"]
        }

    def ready(self, name: str) -> int:
        """Ready replicas in a cluster."""
        return sum(count for _, count in self.deployments(name).values())

    def pods(self, name: str) -> dict[str, str]:
        """Pod -> uid, of the models' namespace."""
        found = self.planes[name].request("GET", f"/api/v1/namespaces/{MODELS_NAMESPACE}/pods")
        return {one["metadata"]["name"]: one["metadata"]["uid"] for one in found["items"]}

    def shares(self, cell: str) -> dict[str, float]:
        """Cluster -> share of a cell's requests, in force."""
        for row in self.get("/v1/routes")["items"]:
            if row["cell"] == cell:
                return {one["cluster"]: one["share"] for one in row["routes"]}
        return {}

    def wait(self, ask: Callable[[], T], what: str, *, timeout_s: float = 60.0) -> T:
        """The first answer that is true. Raises: AssertionError with the controller's last words."""
        deadline_s = time.monotonic() + timeout_s
        trouble = ""
        while time.monotonic() < deadline_s:
            try:
                answer = ask()
                if answer:
                    return answer
                trouble = f"last answer {answer!r}"
            except (OSError, RuntimeError) as error:
                trouble = str(error)
            time.sleep(0.1)
        tail = self.controller.log_tail() if self.controller is not None else ""
        agents = "\n".join(f"{name}: {agent.log_tail(4)}" for name, agent in self.agents.items())
        raise AssertionError(f"no {what} after {timeout_s:g} s: {trouble}\n{tail}\n{agents}")
