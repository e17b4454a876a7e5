"""The testbed is what the other tests stand on: it behaves as a cluster, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from kubernetes.aio import client, config

from tests.testbed.cluster import MODELS_NAMESPACE, ApiError, ControlPlane
from tests.testbed.fixtures import require_kubernetes, require_mosquitto
from tests.testbed.mosquitto import Mosquitto
from tests.testbed.processes import LeftoverProcess, Process, ProcessDied

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", autouse=True)
def _no_ambient_loop() -> None:
    """Else looptime's plugin makes one in the first synchronous test, and nobody closes it."""
    asyncio.set_event_loop(None)


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane("testbed", binaries=require_kubernetes()) as plane:
        plane.add_gpu_node("l4-0", product="NVIDIA-L4", count=4, memory_mib=23034, zone="r1-a", region="r1", spot=True)
        plane.add_gpu_node(
            "h100-0",
            product="NVIDIA-H100-80GB-HBM3",
            count=8,
            memory_mib=81559,
            zone="r1-b",
            region="r1",
            mig="1g.20gb",
        )
        plane.wait_for_nodes()
        yield plane


def deployment(name: str, *, product: str, replica_count: int, resource: str = "nvidia.com/gpu") -> dict[str, Any]:
    on_product = {"key": "nvidia.com/gpu.product", "operator": "In", "values": [product]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [on_product]}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": MODELS_NAMESPACE},
        "spec": {
            "replicas": replica_count,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}},
                    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [
                        {
                            "name": "server",
                            "image": "server",
                            "resources": {"limits": {resource: "1"}},
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["ALL"]},
                            },
                        }
                    ],
                },
            },
        },
    }


@asynccontextmanager
async def connected(kubeconfig: Path) -> AsyncIterator[Any]:
    configuration = client.Configuration()
    await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    async with client.ApiClient(configuration) as api:
        yield api


async def apply(api: Any, body: dict[str, Any]) -> None:
    await client.AppsV1Api(api).patch_namespaced_deployment(
        body["metadata"]["name"],
        MODELS_NAMESPACE,
        body,
        field_manager="isochrone",
        force=True,
        _content_type="application/apply-patch+yaml",
    )


async def ready_replicas(api: Any, name: str, *, wanted: int, timeout_s: float = 20.0) -> int:
    """How many are ready once it is the wanted number, or at the end of the wait."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        (found,) = (
            await client.AppsV1Api(api).list_namespaced_deployment(
                MODELS_NAMESPACE, field_selector=f"metadata.name={name}"
            )
        ).items
        ready = int(found.status.ready_replicas or 0)
        if ready == wanted or time.monotonic() > deadline_s:
            return ready
        await asyncio.sleep(0.05)


def test_nodes_carry_what_device_plugin_and_feature_discovery_would_say(plane: ControlPlane) -> None:
    """The agent would be tested against nodes that no real cluster has."""
    whole = plane.request("GET", "/api/v1/nodes/l4-0")
    assert whole["status"]["allocatable"]["nvidia.com/gpu"] == "4"
    labels = whole["metadata"]["labels"]
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-L4"
    assert labels["nvidia.com/gpu.memory"] == "23034"
    assert labels["karpenter.sh/capacity-type"] == "spot"
    assert labels["topology.kubernetes.io/zone"] == "r1-a"

    sliced = plane.request("GET", "/api/v1/nodes/h100-0")
    assert sliced["status"]["allocatable"]["nvidia.com/mig-1g.20gb"] == "8"
    assert "nvidia.com/gpu" not in sliced["status"]["allocatable"]
    assert sliced["metadata"]["labels"]["nvidia.com/gpu.count"] == "2"
    assert sliced["metadata"]["labels"]["karpenter.sh/capacity-type"] == "on-demand"


async def test_the_agents_account_runs_models_on_the_devices_asked_for(plane: ControlPlane) -> None:
    """The shipped rights would not suffice to start a model on a GPU or a MIG slice."""
    async with connected(plane.agent_kubeconfig()) as api:
        await apply(api, deployment("chat", product="NVIDIA-L4", replica_count=2))
        assert await ready_replicas(api, "chat", wanted=2) == 2
        await apply(
            api,
            deployment("small", product="NVIDIA-H100-80GB-HBM3", replica_count=8, resource="nvidia.com/mig-1g.20gb"),
        )
        assert await ready_replicas(api, "small", wanted=8) == 8
        pods = await client.CoreV1Api(api).list_namespaced_pod(MODELS_NAMESPACE)
        assert {(pod.metadata.labels["app"], pod.spec.node_name) for pod in pods.items} == {
            ("chat", "l4-0"),
            ("small", "h100-0"),
        }


async def test_the_scheduler_gives_no_device_twice(plane: ControlPlane) -> None:
    """Tests of shortage would pass with more replicas than devices."""
    plane.add_gpu_node("t4-0", product="Tesla-T4", count=2, memory_mib=15360, zone="r1-a", region="r1")
    plane.wait_for_nodes()
    async with connected(plane.agent_kubeconfig()) as api:
        await apply(api, deployment("greedy", product="Tesla-T4", replica_count=3))
        assert await ready_replicas(api, "greedy", wanted=2) == 2
        assert await ready_replicas(api, "greedy", wanted=3, timeout_s=1.0) == 2
        plane.drain_node("t4-0")
        assert await ready_replicas(api, "greedy", wanted=0) == 0
    plane.delete_node("t4-0")


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("list_namespaced_secret", (MODELS_NAMESPACE,)),
        ("list_namespaced_secret", ("isochrone-system",)),
        ("list_secret_for_all_namespaces", ()),
        ("list_namespaced_config_map", (MODELS_NAMESPACE,)),
        ("list_namespaced_service", ("default",)),
        ("delete_node", ("l4-0",)),
        ("delete_collection_namespaced_pod", (MODELS_NAMESPACE,)),
        ("delete_collection_namespaced_service", (MODELS_NAMESPACE,)),
    ],
)
async def test_the_agents_account_is_refused_the_rest(
    plane: ControlPlane, call: str, arguments: tuple[str, ...]
) -> None:
    """A stolen agent token would read secrets or delete nodes."""
    async with connected(plane.agent_kubeconfig()) as api:
        with pytest.raises(client.ApiException) as refusal:
            await getattr(client.CoreV1Api(api), call)(*arguments)
        assert refusal.value.status == 403


async def test_the_models_namespace_may_have_another_name(plane: ControlPlane) -> None:
    """A cluster whose owner chose another namespace could not run a model."""
    async with connected(plane.agent_kubeconfig("team-a")) as api:
        found = await client.AppsV1Api(api).list_namespaced_deployment("team-a")
        assert found.items == []


async def test_what_was_applied_outlives_the_api_server(plane: ControlPlane) -> None:
    """A test of a restart would lose the objects whose survival it claims to show."""
    kubeconfig = plane.agent_kubeconfig()
    async with connected(kubeconfig) as api:
        await apply(api, deployment("lasting", product="NVIDIA-L4", replica_count=1))
        assert await ready_replicas(api, "lasting", wanted=1) == 1

    plane.kill_api_server()
    with pytest.raises(OSError, match="refused"):
        plane.request("GET", "/readyz")
    plane.restart_api_server()

    async with connected(kubeconfig) as api:
        assert await ready_replicas(api, "lasting", wanted=1) == 1
        # The controllers, which went on without it, find it again.
        await apply(api, deployment("lasting", product="NVIDIA-L4", replica_count=2))
        assert await ready_replicas(api, "lasting", wanted=2, timeout_s=60.0) == 2


def test_a_refusal_says_why(plane: ControlPlane) -> None:
    """A failing test would name a status and not its cause."""
    with pytest.raises(ApiError, match=r"404: .*not found"):
        plane.request("GET", "/api/v1/nodes/nowhere")


async def test_mosquitto_forgets_when_restarted_empty() -> None:
    """A test of a broker without memory would pass by what the broker had kept."""

    async def retained(broker: Mosquitto) -> list[Any]:
        async with aiomqtt.Client("127.0.0.1", broker.port) as listener:
            await listener.subscribe("t/#", qos=1)
            await listener.publish("t/end", b"end", qos=1)
            found: list[Any] = []
            async for message in listener.messages:
                if str(message.topic) == "t/end":
                    return found
                found.append(message.payload)
        return found

    with Mosquitto(program=require_mosquitto(), persistent=True) as broker:
        async with aiomqtt.Client("127.0.0.1", broker.port) as publisher:
            await publisher.publish("t/report", b"state", qos=1, retain=True)
        broker.stop()
        broker.start()
        assert await retained(broker) == [b"state"]
        broker.restart_empty()
        assert await retained(broker) == []


def test_a_program_that_dies_says_what_it_said(tmp_path: Path) -> None:
    """A component that fails to start would leave its test without a cause."""
    process = Process(
        "talker", [sys.executable, "-c", "print('last words'); raise SystemExit(3)"], log_file=tmp_path / "log"
    )
    process.start()
    deadline_s = time.monotonic() + 10.0
    while process.running and time.monotonic() < deadline_s:
        time.sleep(0.01)
    with pytest.raises(ProcessDied, match=r"(?s)status 3.*last words"):
        process.check()
    process.stop()


def test_what_a_program_leaves_behind_is_ended_and_told(tmp_path: Path) -> None:
    """Leftover processes would take the ports and the memory of the next test."""
    # The shell ends at once; what it started ignores the asking.
    script = "sh -c 'trap \"\" TERM; sleep 600' & echo $!; sleep 600"
    process = Process("shell", ["/bin/sh", "-c", script], log_file=tmp_path / "log")
    process.start()
    deadline_s = time.monotonic() + 10.0
    while not process.log_tail().strip().isdigit() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    time.sleep(0.2)
    with pytest.raises(LeftoverProcess):
        process.stop()
    child_pid = int(process.log_tail())
    while _is_alive(child_pid) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not _is_alive(child_pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with a killed parent")
def test_nothing_outlives_a_killed_parent(tmp_path: Path) -> None:
    """An interrupted test run would leave API servers on the developer's machine."""
    parent = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys, time; from pathlib import Path; from tests.testbed.processes import Process\n"
            "p = Process('sleeper', ['/bin/sleep', '600'], log_file=Path(sys.argv[1]))\n"
            "p.start(); print(p.pid, flush=True); time.sleep(600)",
            str(tmp_path / "log"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        child_pid = int(parent.stdout.readline())
        # The launcher has become the program, so the kernel's promise is made.
        deadline_s = time.monotonic() + 10.0
        while Path(f"/proc/{child_pid}/comm").read_text().strip() != "sleep" and time.monotonic() < deadline_s:
            time.sleep(0.01)
        parent.send_signal(signal.SIGKILL)
    while _is_alive(child_pid) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not _is_alive(child_pid)


def _is_alive(pid: int) -> bool:
    """A killed orphan may stay in the table until init looks at it; it is dead all the same."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
