"""The models' namespace is deleted, and the agent's rights with it: the agent says so, and goes on once it is back.

Real API server with RBAC, namespace controller and broker; the test stands in the controller's place.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from federation.wire import messages
from tests.builders import L4
from tests.integration.test_agent import desired, workload
from tests.testbed import shapes
from tests.testbed.agent import Agent, Controller
from tests.testbed.cluster import MODELS_NAMESPACE, ApiError, ControlPlane
from tests.testbed.fixtures import require_kubernetes, require_mosquitto
from tests.testbed.mosquitto import Mosquitto
from tests.testbed.processes import wait

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(240)]
INTERVAL_S = 1.0
NAMESPACE = f"/api/v1/namespaces/{MODELS_NAMESPACE}"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{MODELS_NAMESPACE}/deployments"
ROLES = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{MODELS_NAMESPACE}/roles"
NEXT_STEP = ("was deleted", "deploy/kustomize/agent")


class Here:
    """An agent process, its control plane, and what the agent says."""

    def __init__(self, plane: ControlPlane, agent: Agent, controller: Controller) -> None:
        self.plane, self.agent, self.controller, self.generation = plane, agent, controller, 0

    def order(self, replicas: int) -> messages.Ack:
        self.generation += 1
        return self.controller.answer(desired(self.generation, workload("chat", L4, replicas)))

    def ready(self) -> int:
        """Replicas of `chat` that the newest report calls ready; -1 where it names none."""
        report = self.controller.report
        return next((one.ready for one in report.replicas if one.model == "chat"), -1) if report is not None else -1

    def told(self, *words: str) -> str:
        conditions = self.controller.report.conditions if self.controller.report is not None else ()
        texts = [f"{one.type} {one.object}: {one.message}" for one in conditions]
        return next((text for text in texts if all(word in text for word in words)), "")

    def is_gone(self) -> bool:
        try:
            self.plane.request("GET", NAMESPACE)
        except ApiError as error:
            return error.status == 404
        return False


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    program = require_mosquitto()
    with ControlPlane("gone", binaries=require_kubernetes()) as plane, Mosquitto(program=program) as broker:
        shapes.add_node(plane, "l4-0", shapes.L4, {"nvidia.com/gpu": 8}, cpu="128")
        plane.wait_for_nodes()
        agent = Agent(tmp_path, plane.agent_kubeconfig(), broker.url, interval_s=INTERVAL_S)
        controller = Controller(broker.port)
        agent.start()
        try:
            wait(lambda: controller.report is not None and controller.report.pools, "a report with the pool")
            made = Here(plane, agent, controller)
            assert made.order(2).ok
            wait(lambda: made.ready() == 2, "ready replicas")
            yield made
        finally:
            agent.process.stop()
            controller.close()


def heard_again(here: Here) -> Any:
    """Waits for a report that is made from now on."""
    here.controller.report = None
    return wait(lambda: here.controller.report, "a report", timeout_s=10 * INTERVAL_S)


def test_a_deleted_namespace_is_told_with_the_next_step_and_refilled_once_it_is_back(here: Here) -> None:
    """The cluster would fall silent, with an owner who does not know why, and stay so."""
    here.plane.request("DELETE", NAMESPACE)
    wait(here.is_gone, "end of the namespace", timeout_s=60.0)
    wait(lambda: here.told(*NEXT_STEP), "word of it", timeout_s=20.0)
    for restarts in (False, True):
        if restarts:
            here.agent.restart()
            wait(lambda: here.told("Forbidden", MODELS_NAMESPACE, *NEXT_STEP), "word of it", timeout_s=20.0)
        heard_again(here)
        assert here.controller.report is not None and here.controller.report.pools, "its devices are still told"
        assert here.ready() <= 0
        refused = here.order(2)
        assert not refused.ok and all(word in refused.error for word in NEXT_STEP), refused.error
    print(f"{here.told(*NEXT_STEP)}\n{here.controller.report and here.controller.report.replicas}")
    here.plane.agent_kubeconfig()  # the owner applies the manifests again
    back_s = time.monotonic()
    wait(lambda: here.ready() == 2, "what was ordered, once the namespace is back", timeout_s=60.0)
    print(f"ready again {time.monotonic() - back_s:.1f} s after the namespace was back")
    assert len(here.plane.request("GET", DEPLOYMENTS)["items"]) == 1
    wait(lambda: not here.told(*NEXT_STEP), "end of the word", timeout_s=20.0)
    assert here.order(3).ok


def test_replicas_go_on_serving_where_the_agents_role_is_gone(here: Here) -> None:
    """Users would be taken off replicas that serve them, for a slip with a Role."""
    held = here.plane.request("GET", ROLES)["items"]
    here.plane.request("DELETE", ROLES)
    here.agent.restart()
    wait(lambda: here.told("Forbidden", *NEXT_STEP), "word of it", timeout_s=20.0)
    heard_again(here)
    assert here.controller.report is not None
    assert here.ready() == 2 and len(here.controller.report.endpoints) == 2
    assert len(held) == 2, "the case is the one that is meant"
    here.plane.agent_kubeconfig()
    wait(lambda: not here.told(*NEXT_STEP), "rights again", timeout_s=60.0)
    assert here.ready() == 2
    assert here.order(3).ok
    wait(lambda: here.ready() == 3, "what is ordered")
