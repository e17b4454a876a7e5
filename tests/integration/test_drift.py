"""What somebody changes behind the agent's back, on a real control plane: put right and told, or told and left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec
import pytest

from agents.gateway import objects
from agents.kube.backend import KubeBackend
from agents.manifests import names
from federation.wire import messages
from tests.builders import L4, L4_SPOT
from tests.integration.test_agent import backend, desired, ready, traffic_of, until, workload
from tests.testbed import shapes
from tests.testbed.agent import Agent, Controller
from tests.testbed.cluster import MODELS_NAMESPACE, ApiError, ControlPlane
from tests.testbed.fixtures import require_kubernetes, require_mosquitto
from tests.testbed.mosquitto import Mosquitto
from tests.testbed.processes import wait

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(120)]
INTERVAL_S = 3.0
CHAT, BUSY = (names.instance_name(model, L4) for model in ("chat", "busy"))
IN = f"namespaces/{MODELS_NAMESPACE}"
DEPLOYMENT = f"/apis/apps/v1/{IN}/deployments/{CHAT}"
POLICY = f"/apis/networking.k8s.io/v1/{IN}/networkpolicies/chat"
SERVICE = f"/api/v1/{IN}/services/chat"
ACCOUNT = f"/api/v1/{IN}/serviceaccounts/chat"
BUDGET = f"/apis/policy/v1/{IN}/poddisruptionbudgets/{CHAT}"
SCALER = f"/apis/autoscaling/v2/{IN}/horizontalpodautoscalers/{BUSY}"
ROUTED_SERVICE = objects.service_name("chat", "fra")
ROUTED = f"/api/v1/{IN}/services/{ROUTED_SERVICE}"
EVENTS = f"/apis/events.k8s.io/v1/{IN}/events"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
IMAGE = {"spec": {"template": {"spec": {"containers": [{"name": "model", "image": "example/other:2"}]}}}}
LINKS = {"spec": {"template": {"spec": {"enableServiceLinks": True}}}}


class Here:
    """An agent process and its control plane; the test stands in the controller's place."""

    def __init__(self, plane: ControlPlane, controller: Controller) -> None:
        self.plane, self.controller, self.generation = plane, controller, 0

    def order(self, *, self_heal: bool = True) -> None:
        """Two replicas of `chat`, and one of `busy` that may burst."""
        self.generation += 1
        chat = workload("chat", L4, 2, self_heal=self_heal)
        busy = workload("busy", L4, 1, burst_replicas=2, self_heal=self_heal)
        ack = self.controller.answer(desired(self.generation, chat, busy))
        assert ack.ok, ack.error

    def get(self, path: str) -> dict[str, Any]:
        """An object as it is; empty where there is none."""
        try:
            return self.plane.request("GET", path)
        except ApiError as error:
            if error.status != 404:
                raise
            return {}

    def told(self, kind: str, *words: str) -> str:
        """What a condition of the newest report says that holds all words, or nothing."""
        conditions = self.controller.report.conditions if self.controller.report is not None else ()
        texts = [f"{one.object}: {one.message}" for one in conditions if one.type == kind]
        return next((text for text in texts if all(word in text for word in words)), "")

    def noted(self, name: str, *words: str) -> list[dict[str, Any]]:
        """Events of the agent that regard an object and hold all words."""
        return [
            one
            for one in self.plane.request("GET", EVENTS)["items"]
            if one.get("reportingController") == "isochrone.dev/agent"
            and one["regarding"]["name"] == name
            and all(word in one["note"] for word in words)
        ]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    program = require_mosquitto()
    with ControlPlane("drift", binaries=require_kubernetes()) as plane, Mosquitto(program=program) as broker:
        shapes.add_node(plane, "l4-0", shapes.L4, {"nvidia.com/gpu": 12}, cpu="128")
        plane.wait_for_nodes()
        agent = Agent(tmp_path_factory.mktemp("agent"), plane.agent_kubeconfig(), broker.url, interval_s=INTERVAL_S)
        controller = Controller(broker.port)
        agent.start()
        try:
            wait(lambda: controller.report is not None and controller.report.pools, "a report with the pool")
            made = Here(plane, controller)
            controller.steer(traffic_of("chat"))
            made.order()
            wait(lambda: made.get(DEPLOYMENT).get("status", {}).get("readyReplicas") == 2, "ready replicas")
            yield made
        finally:
            agent.process.stop()
            controller.close()


def content(one: dict[str, Any]) -> Any:
    """What an object says, without what the API server adds to each."""
    metadata = {key: one.get("metadata", {}).get(key) for key in ("labels", "name")}
    spec = {k: v for k, v in one.get("spec", {}).items() if k not in ("clusterIP", "clusterIPs")}
    return metadata, spec, one.get("automountServiceAccountToken")


CASES: dict[str, tuple[str, str, str, Any, str]] = {
    # what is done: path, its suffix, manager, patch (None deletes), content type
    "deployment-deleted": (DEPLOYMENT, "", "", None, ""),
    "deployment-scaled": (DEPLOYMENT, "/scale", "kubectl", {"spec": {"replicas": 4}}, MERGE),
    "deployment-scaled-to-nothing": (DEPLOYMENT, "/scale", "kubectl", {"spec": {"replicas": 0}}, MERGE),
    "deployment-edited": (DEPLOYMENT, "", "kubectl-edit", LINKS, STRATEGIC),
    "deployment-image": (DEPLOYMENT, "", "kubectl-set", IMAGE, STRATEGIC),
    "deployment-variable-removed": (DEPLOYMENT, "", "kubectl-edit", {"spec": {"template": {"spec": {
        "containers": [{"name": "model", "env": [{"name": "HOME", "$patch": "delete"}]}]}}}}, STRATEGIC),
    "policy-deleted": (POLICY, "", "", None, ""),
    "policy-opened": (POLICY, "", "kubectl-edit", {"spec": {"egress": [{}]}}, MERGE),
    "service-deleted": (SERVICE, "", "", None, ""),
    "account-deleted": (ACCOUNT, "", "", None, ""),
    "autoscaler-edited": (SCALER, "", "kubectl-edit", {"spec": {"maxReplicas": 9}}, MERGE),
    "budget-edited": (BUDGET, "", "kubectl-patch", {"spec": {"maxUnavailable": "100%"}}, MERGE),
    "traffic-edited": (ROUTED, "", "kubectl-edit", {"spec": {"selector": {names.MODEL_LABEL: "other"}}}, MERGE),
    "traffic-deleted": (ROUTED, "", "", None, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_was_changed_is_put_right_within_two_intervals_and_told(
    here: Here, case: str, record_property: Any
) -> None:
    """A slip of kubectl would stop a model, or open it to everybody, until somebody noticed."""
    path, suffix, manager, patch, kind = CASES[case]
    before = here.get(path)
    name = before["metadata"]["name"]
    if patch is None:
        here.plane.request("DELETE", path)
    else:
        here.plane.request("PATCH", f"{path}{suffix}?fieldManager={manager}", patch, content_type=kind)
    changed_s = time.monotonic()

    def right() -> bool:
        found = here.get(path)
        again = patch is not None or found.get("metadata", {}).get("uid") not in (None, before["metadata"]["uid"])
        return again and content(found) == content(before)

    wait(right, "the object as it was", timeout_s=2 * INTERVAL_S)
    took_s = time.monotonic() - changed_s
    record_property("seconds_to_right", round(took_s, 2))
    words = ("deleted",) if patch is None else (f"changed by {manager}",)
    if case.endswith("-removed"):
        words = (".env[HOME] removed",)
    wait(lambda: here.told("Drifted", f"/{name}: ", *words, "put right"), "Drifted", timeout_s=2 * INTERVAL_S)
    wait(lambda: here.noted(name, *words, "put right"), "an Event", timeout_s=INTERVAL_S)
    noted = here.noted(name, *words, "put right")
    assert here.get(path)["metadata"]["uid"] in {one["regarding"]["uid"] for one in noted}
    print(f"{case}: right after {took_s:.1f} s; {here.told('Drifted', f'/{name}: ', *words)}")


def test_what_an_autoscaler_sets_within_its_range_is_no_drift(here: Here) -> None:
    """Every burst would be undone under load, and told as somebody's mistake."""
    path = f"/apis/apps/v1/{IN}/deployments/{BUSY}"
    scale = {"spec": {"replicas": 2}}
    here.plane.request("PATCH", f"{path}/scale?fieldManager=kube-controller-manager", scale, content_type=MERGE)
    time.sleep(2 * INTERVAL_S)
    assert here.get(path)["spec"]["replicas"] == 2
    assert not here.told("Drifted", f"Deployment/{BUSY}")
    assert not here.noted(BUSY, ".spec.replicas")


def test_where_the_policy_says_so_drift_is_told_and_left(here: Here) -> None:
    """An operator's emergency change would be undone in the middle of the emergency."""
    here.order(self_heal=False)
    here.plane.request(
        "PATCH", f"{DEPLOYMENT}/scale?fieldManager=kubectl", {"spec": {"replicas": 3}}, content_type=MERGE
    )
    here.plane.request("DELETE", POLICY)
    here.plane.request("PATCH", f"{ROUTED}?fieldManager=kubectl-edit", CASES["traffic-edited"][3], content_type=MERGE)
    told = (
        ("Deployment/", "kubectl"),
        ("NetworkPolicy/chat", "deleted"),
        (f"Service/{ROUTED_SERVICE}", "kubectl-edit"),
    )
    for words in told:
        wait(partial(here.told, "Drifted", *words, "selfHeal is off"), f"{words} left", timeout_s=2 * INTERVAL_S)
    here.order(self_heal=False)  # a new plan that orders the same
    time.sleep(2 * INTERVAL_S)
    assert here.get(DEPLOYMENT)["spec"]["replicas"] == 3
    assert not here.get(POLICY)
    assert here.get(ROUTED)["spec"]["selector"] == {names.MODEL_LABEL: "other"}
    assert len(here.noted(CHAT, "selfHeal is off")) == 1, "said once, not each interval"
    here.order(self_heal=True)
    wait(lambda: here.get(POLICY) and here.get(DEPLOYMENT)["spec"]["replicas"] == 2, "healing once it is on")
    wait(lambda: here.get(ROUTED)["spec"]["selector"] == {names.MODEL_LABEL: "chat"}, "the traffic object too")


def test_what_another_manager_applies_is_told_and_left(here: Here) -> None:
    """Two who insist would change it back and forth for ever."""
    change = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": CHAT}, "spec": {"replicas": 3}}
    owner = f"{DEPLOYMENT}?fieldManager=argocd-controller"
    here.plane.request("PATCH", f"{owner}&force=true", change, content_type=APPLY)
    wait(lambda: here.told("Conflict", "chat on", "argocd-controller"), "Conflict", timeout_s=2 * INTERVAL_S)
    time.sleep(INTERVAL_S)
    assert here.get(DEPLOYMENT)["spec"]["replicas"] == 3
    assert len(here.noted(CHAT, "argocd-controller")) == 1
    here.plane.request("DELETE", DEPLOYMENT)
    wait(lambda: here.get(DEPLOYMENT).get("spec", {}).get("replicas") == 2, "a Deployment that is ours alone")


async def test_a_quiet_cluster_is_asked_to_change_nothing(here: Here) -> None:
    """API servers would be written to for ever by every agent of the fleet."""
    order = desired(1, workload("quiet", L4, 1, burst_replicas=1))
    async with backend(here.plane.agent_kubeconfig()) as running:
        await running.steer(traffic_of("quiet"))
        assert await running.apply(order) == ""
        await until(running, lambda seen: ready(seen).get("quiet") == 1, "a ready replica")
        await running.keep(order)
        before = writes(running)
        for _ in range(10):
            await running.keep(order)
        assert writes(running) == before
        assert not [one for one in running.observe().conditions if one.type == "Drifted"]
        assert await running.apply(desired(2, workload("quiet", L4, 0))) == ""


def writes(running: KubeBackend) -> int:
    """Requests that may have changed something."""
    return running._applier._keeper.writes + running._traffic_applier.writes


async def test_what_two_pools_of_a_model_share_is_no_drift_when_it_is_made(here: Here) -> None:
    """Each model that comes to a cluster of two pools would be told as somebody's mistake."""
    spot = shapes.L4 | {"karpenter.sh/capacity-type": "spot"}
    shapes.add_node(here.plane, "l4-spot-0", spot, {"nvidia.com/gpu": 2}, cpu="64")
    both = (workload("both", L4, 1), workload("both", L4_SPOT, 1))
    async with backend(here.plane.agent_kubeconfig()) as running:
        await until(running, lambda seen: L4_SPOT in {one.key for one in seen.pools}, "both pools")
        for generation in (1, 2):
            assert await running.apply(desired(generation, *both)) == ""
            assert not [one for one in running.observe().conditions if one.type == "Drifted"]
        assert not here.noted("both", "deleted")
        assert await running.apply(desired(3, *(msgspec.structs.replace(one, replicas=0) for one in both))) == ""


async def test_what_is_being_deleted_is_waited_for_and_made_again(here: Here) -> None:
    """An object that a finalizer holds would be taken for one that is there, and never come back."""
    order = messages.Desired(cluster="fra", epoch=1, generation=1, workloads=(workload("stuck", L4, 1),))
    path = f"/api/v1/{IN}/services/stuck"
    async with backend(here.plane.agent_kubeconfig()) as running:
        assert await running.apply(order) == ""
        hold = {"metadata": {"finalizers": ["example.com/hold"]}}
        here.plane.request("PATCH", path, hold, content_type=MERGE)
        here.plane.request("DELETE", path)
        await running.keep(order)
        told = [one.message for one in running.observe().conditions if one.type == "NotCarriedOut"]
        assert any("Service stuck: it is being deleted and waits for example.com/hold" in one for one in told), told
        here.plane.request("PATCH", path, {"metadata": {"finalizers": None}}, content_type=MERGE)
        await running.keep(order)
        assert not here.get(path)["metadata"].get("deletionTimestamp")
