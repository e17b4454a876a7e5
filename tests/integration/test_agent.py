"""The agent's Kubernetes backend on a real control plane: all kinds of devices side by side, and what comes of them.

Nodes are simulated by kwok; API server, RBAC, admission, controllers and scheduler are real.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agents import fence
from agents.backend import BackendError, Observation
from agents.demand import DemandFile
from agents.gateway import objects
from agents.kube.backend import KubeBackend, KubeSettings
from agents.manifests import names, presets
from agents.probe import Probe
from federation.aiokit.clock import Clock
from federation.wire import messages
from tests.builders import L4
from tests.testbed import shapes
from tests.testbed.cluster import MODELS_NAMESPACE, ApiError, ControlPlane
from tests.testbed.fixtures import require_kubernetes

BLOCKED = objects.service_name("blocked", "fra")
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(240)]
A100 = messages.PoolKey(product="NVIDIA-A100-SXM4-80GB")
H100 = messages.PoolKey(product="NVIDIA-H100-80GB-HBM3")
H100_1G = messages.PoolKey(product="NVIDIA-H100-80GB-HBM3", mig_profile="1g.20gb")
H100_3G = messages.PoolKey(product="NVIDIA-H100-80GB-HBM3", mig_profile="3g.40gb")
T4_SHARED = messages.PoolKey(product="Tesla-T4-SHARED")
MI300X = messages.PoolKey(product="AMD_Instinct_MI300X_OAM")
L40S = messages.PoolKey(product="NVIDIA-L40S")


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane("devices", binaries=require_kubernetes()) as running:
        shapes.add_node(
            running,
            "mig-0",
            shapes.H100_MIXED,
            {"nvidia.com/gpu": 1, "nvidia.com/mig-1g.20gb": 4, "nvidia.com/mig-3g.40gb": 2},
        )
        shapes.add_node(running, "shared-0", shapes.T4_SHARED, {"nvidia.com/gpu": 4})
        shapes.add_node(running, "amd-0", shapes.MI300X, {"amd.com/gpu": 8})
        shapes.add_node(running, "dra-0", {}, {})
        shapes.add_dynamic_devices(running, "dra-0", "NVIDIA L40S", 4, memory="46068Mi")
        for number in range(3):
            shapes.add_node(running, f"a100-{number}", shapes.A100, {"nvidia.com/gpu": 4})
            shapes.occupy(running, f"neighbour-{number}", f"a100-{number}", {"nvidia.com/gpu": 2})
        shapes.add_node(running, "l4-0", shapes.L4, {"nvidia.com/gpu": 8}, cpu="128")
        running.agent_kubeconfig()
        yield running


@asynccontextmanager
async def backend(kubeconfig: Path) -> AsyncIterator[KubeBackend]:
    """The agent's backend, with the agent's own account."""
    clock = Clock()
    made = await KubeBackend.connect(
        KubeSettings(kubeconfig=kubeconfig),
        probe=Probe(clock=clock),
        demand=DemandFile(None),
        clock=clock,
        rng=random.Random(1),
    )
    try:
        yield made
    finally:
        await made.close()


def workload(model: str, pool: messages.PoolKey, replicas: int, **fields: Any) -> messages.Workload:
    values: dict[str, Any] = {"devices": 1, "runtime": "vllm", "image": "example/server:1", "cpu": "2"}
    return messages.Workload(model=model, pool=pool, replicas=replicas, **(values | {"memory": "8Gi"} | fields))


def desired(generation: int, *workloads: messages.Workload) -> messages.Desired:
    return messages.seal(messages.Desired(cluster="fra", epoch=1, generation=generation, workloads=workloads))


async def until(
    running: KubeBackend, ask: Callable[[Observation], bool], what: str, timeout_s: float = 30.0
) -> Observation:
    """The first observation of which `ask` is true."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        seen = running.observe()
        if ask(seen):
            return seen
        assert time.monotonic() < deadline_s, f"no {what}: {seen.replicas} {seen.conditions} {free(seen)}"
        await asyncio.sleep(0.1)


def ready(seen: Observation) -> dict[str, int]:
    return {one.model: one.ready for one in seen.replicas}


def free(seen: Observation) -> dict[messages.PoolKey, tuple[int, int]]:
    return {one.key: (one.allocatable, one.free) for one in seen.pools}


async def test_all_kinds_of_devices_are_seen_side_by_side(plane: ControlPlane) -> None:
    """A cluster's devices would stay idle, or be promised twice."""
    async with backend(plane.agent_kubeconfig()) as running:
        seen = await until(running, lambda one: len(one.pools) == 8 and free(one)[A100][1] == 6, "pools")
    assert free(seen) == {
        MI300X: (8, 8),
        A100: (12, 6),
        H100: (1, 1),
        H100_1G: (4, 4),
        H100_3G: (2, 2),
        L4: (8, 8),
        L40S: (4, 4),
        T4_SHARED: (4, 4),
    }
    vram = {one.key: one.vram_gib for one in seen.pools}
    assert vram[L40S] == 45.0
    assert vram[T4_SHARED] == 4.0


async def test_the_scheduler_puts_replicas_on_the_devices_that_were_meant(plane: ControlPlane) -> None:
    """A model would start on devices that it does not fit, or never."""
    orders = (
        workload("small", H100_1G, 3),
        workload("middle", H100_3G, 1),
        workload("sliced", T4_SHARED, 2, runtime="triton"),
        workload("amd", MI300X, 2, devices=4),
        workload("dynamic", L40S, 2, devices=2, min_vram_gib=40),
    )
    async with backend(plane.agent_kubeconfig()) as running:
        trouble = await running.apply(desired(1, *orders))
        assert trouble == ""
        wanted = {one.model: one.replicas for one in orders}
        seen = await until(running, lambda one: ready(one) == wanted, "ready replicas")
        pods = plane.request("GET", f"/api/v1/namespaces/{MODELS_NAMESPACE}/pods")["items"]
        nodes = {(one["metadata"]["labels"][names.MODEL_LABEL], one["spec"]["nodeName"]) for one in pods}
        assert nodes == {
            ("small", "mig-0"),
            ("middle", "mig-0"),
            ("sliced", "shared-0"),
            ("amd", "amd-0"),
            ("dynamic", "dra-0"),
        }
        left = free(seen)
        assert (left[H100_1G], left[H100_3G], left[T4_SHARED]) == ((4, 1), (2, 1), (4, 2))
        assert (left[MI300X], left[L40S]) == ((8, 0), (4, 0)), "claims and requests are both subtracted"
        await running.apply(desired(2, *(workload(one.model, one.pool, 0) for one in orders)))
        await until(running, lambda one: not one.replicas and free(one)[L40S] == (4, 4), "freed devices")
    left_over = [
        item["metadata"]["name"]
        for path in ("/api/v1/namespaces/{}/services", "/api/v1/namespaces/{}/serviceaccounts")
        for item in plane.request("GET", path.format(MODELS_NAMESPACE))["items"]
        if names.MODEL_LABEL in (item["metadata"].get("labels") or {})
    ]
    assert left_over == [], "what a model had in common goes with its last pool"


async def test_what_no_node_can_run_is_refused_though_the_sum_would_do(plane: ControlPlane) -> None:
    """A replica of four devices would wait for ever: six are free, two on each node."""
    async with backend(plane.agent_kubeconfig()) as running:
        seen = await until(running, lambda one: free(one).get(A100) == (12, 6), "pools")
        for devices, code in ((4, fence.Code.DOES_NOT_FIT), (2, fence.Code.ACCEPT)):
            order = desired(1, workload("big", A100, 1, devices=devices))
            verdict = fence.judge(
                order,
                cluster="fra",
                accepted=fence.AcceptedOrder(),
                devices=fence.usable_devices(seen.pools, seen.replicas, order),
                no_place=fence.why_no_place(order, seen.pools, seen.replicas),
            )
            assert verdict.code is code, verdict


# ---- what is made


async def test_what_every_preset_needs_is_accepted_where_pod_security_is_restricted(plane: ControlPlane) -> None:
    """A model would be accepted by the controller and refused by every cluster that is kept well."""
    namespace = plane.request("GET", f"/api/v1/namespaces/{MODELS_NAMESPACE}")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    orders = [
        workload(f"p-{preset}", L4, 1, runtime=preset, burst_replicas=2, min_vram_gib=20) for preset in presets.PRESETS
    ]
    scalers = f"/apis/autoscaling/v2/namespaces/{MODELS_NAMESPACE}/horizontalpodautoscalers"
    async with backend(plane.agent_kubeconfig()) as running:
        assert await running.apply(desired(1, *orders)) == ""
        await until(
            running, lambda one: all(ready(one).get(order.model) == 1 for order in orders), "ready replica of each"
        )
        deadline_s = time.monotonic() + 60.0
        able: dict[str, str] = {}
        while len(able) < len(orders) and time.monotonic() < deadline_s:
            await asyncio.sleep(0.3)
            found = plane.request("GET", scalers)["items"]
            able = {
                one["metadata"]["labels"][names.MODEL_LABEL]: condition["status"]
                for one in found
                for condition in one.get("status", {}).get("conditions", [])
                if condition["type"] == "AbleToScale"
            }
        assert able == {order.model: "True" for order in orders}, "the controller finds what each is to scale"
        ranges = sorted((one["spec"]["minReplicas"], one["spec"]["maxReplicas"]) for one in found)
        assert ranges == [(1, 1)] * 5 + [(1, 3)], "two devices are left, and are promised once"
        await running.apply(desired(2, *(workload(order.model, L4, 0) for order in orders)))
        await until(running, lambda one: free(one)[L4] == (8, 8), "freed devices")


async def test_a_pod_that_is_not_restricted_is_refused_there(plane: ControlPlane) -> None:
    """Else the test above would prove nothing."""
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "loose"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    with pytest.raises(ApiError, match="violates PodSecurity"):
        plane.request("POST", f"/api/v1/namespaces/{MODELS_NAMESPACE}/pods?dryRun=All", body)


async def test_what_another_manager_owns_is_told_and_not_taken(plane: ControlPlane) -> None:
    """An operator's emergency change would be undone within seconds, without a word."""
    order = workload("owned", L4, 1)
    name = names.instance_name("owned", L4)
    path = f"/apis/apps/v1/namespaces/{MODELS_NAMESPACE}/deployments/{name}"
    async with backend(plane.agent_kubeconfig()) as running:
        await running.apply(desired(1, order))
        change = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": 3}}
        plane.request(
            "PATCH", f"{path}?fieldManager=kubectl&force=true", change, content_type="application/apply-patch+yaml"
        )
        trouble = await running.apply(desired(2, workload("owned", L4, 2)))
        assert "Conflict: Deployment" in trouble and 'conflict with "kubectl": .spec.replicas' in trouble
        assert plane.request("GET", path)["spec"]["replicas"] == 3
        seen = running.observe()
        assert ("Conflict", "model/owned on NVIDIA-L4/on-demand") in {(c.type, c.object) for c in seen.conditions}
        await running.apply(desired(3, workload("owned", L4, 0)))
        assert not (await until(running, lambda one: "owned" not in ready(one), "deletion")).conditions


async def test_a_busy_clusters_own_count_is_kept(plane: ControlPlane) -> None:
    """Every apply would stop the replicas that an autoscaler has just started, under load."""
    name = names.instance_name("burst", L4)
    path = f"/apis/apps/v1/namespaces/{MODELS_NAMESPACE}/deployments/{name}"
    async with backend(plane.agent_kubeconfig()) as running:
        order = workload("burst", L4, 1, burst_replicas=2)
        assert await running.apply(desired(1, order)) == ""
        await until(running, lambda one: ready(one).get("burst") == 1, "a ready replica")
        scale = {"spec": {"replicas": 2}}
        plane.request(
            "PATCH", f"{path}/scale?fieldManager=autoscaler", scale, content_type="application/merge-patch+json"
        )
        await until(running, lambda one: ready(one).get("burst") == 2, "a burst")
        assert await running.apply(desired(2, order)) == ""
        assert plane.request("GET", path)["spec"]["replicas"] == 2
        # The next plan wants more: what the cluster has added stays on top of it, and its bounds move along.
        assert await running.apply(desired(3, workload("burst", L4, 3, burst_replicas=2))) == ""
        scalers = f"/apis/autoscaling/v2/namespaces/{MODELS_NAMESPACE}/horizontalpodautoscalers"
        spec = plane.request("GET", f"{scalers}/{name}")["spec"]
        assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 5)
        await running.apply(desired(4, workload("burst", L4, 0)))
        await until(running, lambda one: "burst" not in ready(one), "deletion")


async def test_a_smaller_plan_is_carried_out_though_an_autoscaler_watches(plane: ControlPlane) -> None:
    """Without metrics an autoscaler never takes away: replicas that moved elsewhere would run twice for ever."""
    path = f"/apis/apps/v1/namespaces/{MODELS_NAMESPACE}/deployments/{names.instance_name('shrinks', L4)}"
    async with backend(plane.agent_kubeconfig()) as running:
        assert await running.apply(desired(1, workload("shrinks", L4, 3, burst_replicas=2))) == ""
        await until(running, lambda one: ready(one).get("shrinks") == 3, "ready replicas")
        assert await running.apply(desired(2, workload("shrinks", L4, 1, burst_replicas=2))) == ""
        assert plane.request("GET", path)["spec"]["replicas"] == 1
        await running.apply(desired(3, workload("shrinks", L4, 0)))
        await until(running, lambda one: "shrinks" not in ready(one), "deletion")


async def test_only_what_is_ours_and_not_newer_is_deleted(plane: ControlPlane) -> None:
    """A neighbour's Service of the same name would be gone; or an old order would delete what a newer one made."""
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "shared-name", "namespace": MODELS_NAMESPACE},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"name": "http", "port": 80, "targetPort": 9}]},
    }
    services = f"/api/v1/namespaces/{MODELS_NAMESPACE}/services"
    theirs = plane.apply(foreign)["metadata"]["uid"]
    path = f"/apis/apps/v1/namespaces/{MODELS_NAMESPACE}/deployments/{names.instance_name('newer', L4)}"
    async with backend(plane.agent_kubeconfig()) as running:
        trouble = await running.apply(desired(1, workload("shared-name", L4, 1), workload("newer", L4, 1)))
        assert "Conflict: Service shared-name" in trouble
        bump = {"metadata": {"annotations": {names.PLAN_ANNOTATION: "2.1"}}}
        plane.request("PATCH", path, bump, content_type="application/merge-patch+json")
        trouble = await running.apply(desired(9, workload("shared-name", L4, 0), workload("newer", L4, 0)))
        assert "bears a newer plan: it is not deleted" in trouble
        assert plane.request("GET", path)["metadata"]["annotations"][names.PLAN_ANNOTATION] == "2.1"
        assert plane.request("GET", f"{services}/shared-name")["metadata"]["uid"] == theirs
        later = messages.Desired(cluster="fra", epoch=2, generation=2, workloads=(workload("newer", L4, 0),))
        assert await running.apply(messages.seal(later)) == ""
        await until(running, lambda one: "newer" not in ready(one), "deletion")


def traffic_of(model: str) -> messages.Traffic:
    """fra serves all of its own users."""
    share = messages.BackendShare(cluster="fra", weight=1000, address="192.0.2.1", port=443)
    one = messages.ModelTraffic(model=model, backends=(share,), remote="Service")
    return messages.Traffic(cluster="fra", address="192.0.2.1", port=443, lat=50.1, lon=8.7, models=(one,))


async def test_replicas_are_told_by_address_and_what_sends_requests_outlives_them(plane: ControlPlane) -> None:
    """Gateways would not find replicas; and a last replica would take the routes to other clusters along."""
    services = f"/api/v1/namespaces/{MODELS_NAMESPACE}/services"
    async with backend(plane.agent_kubeconfig()) as running:
        await running.steer(traffic_of("told"))
        assert await running.apply(desired(1, workload("told", L4, 2))) == ""
        seen = await until(running, lambda one: len(one.endpoints) == 2, "endpoints")
        pods = plane.request(
            "GET", f"/api/v1/namespaces/{MODELS_NAMESPACE}/pods?labelSelector={names.MODEL_LABEL}=told"
        )
        assert {one.address for one in seen.endpoints} == {pod["status"]["podIP"] for pod in pods["items"]}
        assert {(one.model, one.port) for one in seen.endpoints} == {("told", 8000)}
        assert await running.apply(desired(2, workload("told", L4, 0))) == ""
        await until(running, lambda one: not one.endpoints, "end of the endpoints")
        left = plane.request("GET", f"{services}?labelSelector={names.MODEL_LABEL}=told")["items"]
        assert [one["metadata"]["name"] for one in left] == [objects.service_name("told", "fra")]


async def test_traffic_that_cannot_be_written_is_told_and_tried_again(
    plane: ControlPlane,
) -> None:
    """Users' requests would not follow the plan, nobody would read why, and whoever mended it would see no change."""
    service = f"/api/v1/namespaces/{MODELS_NAMESPACE}/services/{BLOCKED}"
    plane.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": BLOCKED, "namespace": MODELS_NAMESPACE},
            "spec": {"selector": {"app": "theirs"}, "ports": [{"name": "http", "port": 80, "targetPort": 9}]},
        }
    )
    async with backend(plane.agent_kubeconfig()) as running:
        await running.steer(traffic_of("blocked"))
        told = {(one.type, one.object): one.message for one in running.observe().conditions}
        assert "conflict" in told["TrafficNotWritten", f"Service/{BLOCKED}"]
        assert "no HTTPRoute" in told["TrafficKindMissing", "cluster"]
        plane.request("DELETE", service)
        await running.keep(None)
        seen = running.observe()
        assert not any(each.type == "TrafficNotWritten" for each in seen.conditions), "tried again on the timer"
        assert any(one.type == "TrafficKindMissing" for one in seen.conditions), "nobody installed it"
        assert names.TRAFFIC_LABEL in plane.request("GET", service)["metadata"]["labels"]


async def test_what_the_scheduler_misses_is_told_in_its_own_words(plane: ControlPlane) -> None:
    """A replica waits for CPU, and nobody could tell from the controller what it waits for."""
    async with backend(plane.agent_kubeconfig()) as running:
        await running.apply(desired(1, workload("wide", L4, 1, cpu="500")))
        seen = await until(
            running, lambda one: any("Insufficient cpu" in each.reason for each in one.replicas), "the scheduler's word"
        )
        found = next(one for one in seen.replicas if one.model == "wide")
        assert found.reason.startswith("Unschedulable: 0/")
        assert (found.desired, found.scheduled, found.ready) == (1, 0, 0)
        await running.apply(desired(2, workload("wide", L4, 0)))


async def test_a_vertical_autoscaler_is_made_where_the_cluster_knows_them(plane: ControlPlane) -> None:
    """A policy would ask for one and nobody would notice that there is none; or every cluster without would refuse."""
    async with backend(plane.agent_kubeconfig()) as running:
        order = workload("tall", L4, 1, vertical_scaling="off")
        assert await running.apply(desired(1, order)) == "", "a cluster that does not know them goes without"
        plane.apply(VERTICAL_DEFINITION)
        path = f"/apis/autoscaling.k8s.io/v1/namespaces/{MODELS_NAMESPACE}/verticalpodautoscalers"
        deadline_s = time.monotonic() + 20.0
        while True:
            try:
                plane.request("GET", path)
                break
            except ApiError:
                assert time.monotonic() < deadline_s
                await asyncio.sleep(0.2)
        assert await running.apply(desired(2, order)) == ""
        (made,) = plane.request("GET", path)["items"]
        assert made["spec"]["updatePolicy"] == {"updateMode": "Off"}
        await running.apply(desired(3, workload("tall", L4, 0)))
        assert plane.request("GET", path)["items"] == []


VERTICAL_DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "verticalpodautoscalers.autoscaling.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
    },
    "spec": {
        "group": "autoscaling.k8s.io",
        "scope": "Namespaced",
        "names": {
            "kind": "VerticalPodAutoscaler",
            "listKind": "VerticalPodAutoscalerList",
            "plural": "verticalpodautoscalers",
            "singular": "verticalpodautoscaler",
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


async def test_a_quota_is_told_in_its_own_words(plane: ControlPlane) -> None:
    """On-call would see replicas that do not come, and nothing that says why."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": MODELS_NAMESPACE},
        "spec": {"hard": {"requests.nvidia.com/gpu": "1"}},
    }
    plane.apply(quota)
    async with backend(plane.agent_kubeconfig()) as running:
        await asyncio.sleep(0.5)
        assert await running.apply(desired(1, workload("bounded", L4, 3))) == ""
        seen = await until(
            running, lambda one: any("exceeded quota" in each.reason for each in one.replicas), "a word on the quota"
        )
        found = next(one for one in seen.replicas if one.model == "bounded")
        assert (found.desired, found.scheduled) == (3, 1)
        await running.apply(desired(2, workload("bounded", L4, 0)))
    plane.request("DELETE", f"/api/v1/namespaces/{MODELS_NAMESPACE}/resourcequotas/small")


async def test_replicas_whose_devices_are_gone_are_left_as_they_are(plane: ControlPlane) -> None:
    """A node pool that is being replaced would have its replicas deleted, or made anew for devices that are gone."""
    labels = shapes.A100 | {"nvidia.com/gpu.product": "NVIDIA-GONE"}
    shapes.add_node(plane, "gone-0", labels, {"nvidia.com/gpu": 1})
    order = workload("stays", messages.PoolKey(product="NVIDIA-GONE"), 1)
    path = f"/apis/apps/v1/namespaces/{MODELS_NAMESPACE}/deployments/{names.instance_name('stays', order.pool)}"
    async with backend(plane.agent_kubeconfig()) as running:
        await until(running, lambda one: order.pool in free(one), "pool")
        assert await running.apply(desired(1, order)) == ""
        before = plane.request("GET", path)
        plane.delete_node("gone-0")
        await until(running, lambda one: order.pool not in free(one), "loss")
        trouble = await running.apply(desired(2, order))
        assert "no node offers such devices now" in trouble
        after = plane.request("GET", path)
        assert (after["metadata"]["uid"], after["spec"]) == (before["metadata"]["uid"], before["spec"])
        assert await running.apply(desired(3, workload("stays", order.pool, 0))) == "", "told to, it is deleted"
        await until(running, lambda one: "stays" not in ready(one), "deletion")


async def test_autoscalers_promises_are_read_with_the_shipped_rights(plane: ControlPlane) -> None:
    """Room to grow would be invisible, or the agent would need more rights than it ships with."""
    status = (
        "nodeGroups:\n- name: pool-x-grp\n  health: {status: Healthy, cloudProviderTarget: 1, minSize: 0, maxSize: 3}\n"
    )
    plane.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "cluster-autoscaler-status", "namespace": "kube-system"},
            "data": {"status": status},
        }
    )
    shapes.add_node(plane, "grown-0", shapes.L4 | {"agentpool": "x"}, {"nvidia.com/gpu": 2})
    async with backend(plane.agent_kubeconfig()) as running:
        seen = await until(running, lambda one: bool(one.growth) and free(one)[L4][0] > 8, "room to grow")
        (found,) = seen.growth
        assert (found.source, found.pool, found.nodes, found.devices) == ("cluster-autoscaler", L4, 2, 4)
        assert free(seen)[L4][0] == 10, "what could be added is not there"


async def test_an_api_server_that_is_gone_is_no_quiet_one(plane: ControlPlane) -> None:
    """The controller would go on believing what was true before, and place replicas on it."""
    async with backend(plane.agent_kubeconfig()) as running:
        before = free(running.observe())
        plane.kill_api_server()
        with pytest.raises(BackendError):
            await until(running, lambda seen: False, "loss of the API server", 5.0)
        assert "API server" in await running.apply(desired(1, workload("late", L4, 1)))
        plane.restart_api_server()
        deadline_s = time.monotonic() + 60.0
        while True:
            try:
                seen = running.observe()
                break
            except BackendError:
                assert time.monotonic() < deadline_s
                await asyncio.sleep(0.3)
        assert free(seen) == before
