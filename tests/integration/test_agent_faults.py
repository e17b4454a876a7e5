"""The agent as a process, in every trouble: killed at each call, alone for long, told what it must refuse.

Real API server, RBAC, scheduler and broker; the test stands in the controller's place.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.manifests import names
from federation.wire import messages
from tests.builders import L4
from tests.testbed import shapes
from tests.testbed.agent import CLUSTER, Agent, Controller, KillingProxy
from tests.testbed.cluster import MODELS_NAMESPACE, ControlPlane
from tests.testbed.fixtures import require_kubernetes, require_mosquitto
from tests.testbed.mosquitto import Mosquitto
from tests.testbed.processes import wait

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]
INTERVAL_S = 2.0
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{MODELS_NAMESPACE}/deployments"
SCALERS = f"/apis/autoscaling/v2/namespaces/{MODELS_NAMESPACE}/horizontalpodautoscalers"
BUDGETS = f"/apis/policy/v1/namespaces/{MODELS_NAMESPACE}/poddisruptionbudgets"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane("faults", binaries=require_kubernetes()) as running:
        for number in range(4):
            shapes.add_node(running, f"l4-{number}", shapes.L4, {"nvidia.com/gpu": 64}, cpu="256", memory="2Ti")
        running.wait_for_nodes()
        running.agent_kubeconfig()
        yield running


@dataclasses.dataclass
class Bench:
    """What a test works with."""

    agent: Agent
    controller: Controller
    broker: Mosquitto


@pytest.fixture
def bench(plane: ControlPlane, tmp_path: Path) -> Iterator[Bench]:
    with Mosquitto(program=require_mosquitto()) as broker:
        agent = Agent(tmp_path, plane.agent_kubeconfig(), broker.url, interval_s=INTERVAL_S)
        controller = Controller(broker.port)
        try:
            yield Bench(agent, controller, broker)
        finally:
            agent.process.stop()
            controller.close()
            clear(plane)


def clear(plane: ControlPlane) -> None:
    """Take away what a test has made, as an administrator."""
    for path in (DEPLOYMENTS, SCALERS, BUDGETS):
        plane.request("DELETE", path)


def workload(model: str, replicas: int, **fields: Any) -> messages.Workload:
    values: dict[str, Any] = {"devices": 1, "runtime": "vllm", "image": "example/server:1", "cpu": "1"}
    return messages.Workload(model=model, pool=L4, replicas=replicas, **(values | {"memory": "1Gi"} | fields))


def desired(epoch: int, generation: int, *workloads: messages.Workload, cluster: str = CLUSTER) -> messages.Desired:
    return messages.Desired(cluster=cluster, epoch=epoch, generation=generation, workloads=workloads)


def plans(plane: ControlPlane) -> dict[str, str]:
    """Model -> the plan that its Deployment bears."""
    return {
        one["metadata"]["labels"][names.MODEL_LABEL]: one["metadata"]["annotations"][names.PLAN_ANNOTATION]
        for one in plane.request("GET", DEPLOYMENTS)["items"]
    }


def uids(plane: ControlPlane, path: str = f"/api/v1/namespaces/{MODELS_NAMESPACE}/pods") -> set[str]:
    return {one["metadata"]["uid"] for one in plane.request("GET", path)["items"]}


def ready(plane: ControlPlane) -> int:
    found = plane.request("GET", DEPLOYMENTS)["items"]
    return sum(one.get("status", {}).get("readyReplicas", 0) for one in found)


def made(plane: ControlPlane, model: str) -> set[str]:
    """Kinds that exist of a model."""
    selector = f"?labelSelector={names.MODEL_LABEL}%3D{model}"
    paths = [DEPLOYMENTS, SCALERS, BUDGETS]
    paths += [f"/api/v1/namespaces/{MODELS_NAMESPACE}/{kind}" for kind in ("services", "serviceaccounts")]
    paths.append(f"/apis/networking.k8s.io/v1/namespaces/{MODELS_NAMESPACE}/networkpolicies")
    return {path.rpartition("/")[2] for path in paths if plane.request("GET", path + selector)["items"]}


EVERYTHING = {
    "deployments",
    "horizontalpodautoscalers",
    "poddisruptionbudgets",
    "services",
    "serviceaccounts",
    "networkpolicies",
}


def test_killed_at_any_call_of_an_apply_it_completes_it_when_it_is_back(plane: ControlPlane, tmp_path: Path) -> None:
    """A node that dies at the wrong moment would leave half a model, or one that nobody guards."""
    # Six objects of a model that may burst, five of one that may not.
    moments = [(call, heard) for call in range(1, 12) for heard in (False, True)]
    slowest_s = 0.0
    with Mosquitto(program=require_mosquitto()) as broker:
        proxy = KillingProxy(plane, plane.agent_kubeconfig(), tmp_path)
        agent = Agent(tmp_path, proxy.kubeconfig, broker.url, interval_s=INTERVAL_S)
        controller = Controller(broker.port)
        proxy.kill = lambda: agent.process.kill()
        try:
            agent.start()
            wait(lambda: controller.report, "report")
            for generation, moment in enumerate(moments, start=1):
                bursting, plain = f"burst-{generation}", f"plain-{generation}"
                before = uids(plane, DEPLOYMENTS)
                proxy.killed.clear()
                proxy.kill_at = moment
                controller.order(desired(1, generation, workload(bursting, 1, burst_replicas=1), workload(plain, 1)))
                assert proxy.killed.wait(20), f"no call {moment}: {agent.log_tail()}"
                proxy.first_request_s = None
                booted = controller.report.boot_order if controller.report is not None else 0
                agent.start()

                def done(
                    generation: int = generation, bursting: str = bursting, plain: str = plain, booted: int = booted
                ) -> bool:
                    """All is there, and a report of the new start says so."""
                    report = controller.report
                    return (
                        report is not None
                        and report.generation == generation
                        and report.boot_order > booted
                        and made(plane, bursting) == EVERYTHING
                        and made(plane, plain) == EVERYTHING - {"horizontalpodautoscalers"}
                    )

                wait(done, f"convergence after a kill at {moment}")
                assert proxy.first_request_s is not None
                took_s = time.monotonic() - proxy.first_request_s
                # It is also told again what the broker holds; the next kill must not meet that.
                wait(lambda: any(one.boot_id == controller.boot_id and one.ok for one in controller.acks), "repeat")
                slowest_s = max(slowest_s, took_s)
                assert took_s <= 2 * INTERVAL_S, f"{took_s:.1f} s after a kill at {moment}"
                assert plans(plane)[bursting] == plans(plane)[plain] == f"1.{generation}"
                assert before <= uids(plane, DEPLOYMENTS), "nothing was deleted or made anew"
                if generation % 8 == 0:
                    clear(plane)
            assert not [one for one in proxy.writes if one[0] == "DELETE"]
        finally:
            agent.process.stop()
            controller.close()
            proxy.close()
            clear(plane)
    print(f"{len(moments)} kills; the slowest completed {slowest_s:.2f} s after its first request")


def test_alone_it_keeps_everything_through_restarts_and_a_lost_file(plane: ControlPlane, bench: Bench) -> None:
    """An outage of the controller would become an outage of every cluster whose agent restarts meanwhile."""
    bench.agent.start()
    assert bench.controller.answer(desired(4, 7, workload("kept", 3))).ok
    wait(lambda: ready(plane) == 3, "ready replicas")
    before, deployed = uids(plane), uids(plane, DEPLOYMENTS)
    held = plans(plane)
    bench.broker.stop()
    for damage in (b"", b'{"boot_order": 12, "desi'):
        bench.agent.process.kill()
        bench.agent.state.write_bytes(damage)
        bench.agent.start()
        wait(lambda: "no broker" in bench.agent.log_tail(), "a lone agent")
        time.sleep(INTERVAL_S)
        assert (uids(plane), uids(plane, DEPLOYMENTS), plans(plane)) == (before, deployed, held)
    bench.broker.start()

    def told() -> bool:
        report = bench.controller.report
        return bool(report and (report.epoch, report.generation) == (4, 7) and report.replicas[0].ready == 3)

    bench.controller.report = None
    wait(told, "the same generation", timeout_s=45.0)
    refused = bench.controller.answer(desired(4, 6, workload("kept", 0)))
    assert not refused.ok and refused.error.startswith("stale"), "the file is gone, what it held is not"
    assert (refused.accepted_epoch, refused.accepted_generation) == (4, 7)
    assert bench.controller.answer(desired(4, 7, workload("kept", 3))).ok, "the same again is no conflict"
    assert uids(plane) == before


def test_of_what_is_given_up_as_not_ready_only_what_is_not_ready_goes(plane: ControlPlane, bench: Bench) -> None:
    """A controller whose knowledge is a report old would stop replicas that serve."""
    bench.agent.start()
    assert bench.controller.answer(desired(1, 1, workload("late", 2))).ok
    wait(lambda: ready(plane) == 2, "ready replicas")
    serving = uids(plane)
    plane.miss_images(".*")
    try:
        assert bench.controller.answer(desired(1, 2, workload("late", 4))).ok
        wait(lambda: len(uids(plane)) == 4, "two that cannot start")
        answer = bench.controller.answer(desired(1, 3, workload("late", 1, stop_reason=messages.NOT_READY)))
        assert not answer.ok and "2 are ready here and stay" in answer.error
        wait(lambda: uids(plane) == serving, "end of the two that cannot start, and of no other")
        assert bench.controller.answer(
            desired(1, 4, workload("late", 1, stop_reason="2 ready in iad serve instead"))
        ).ok
        wait(lambda: len(uids(plane)) == 1, "one less, for a reason that holds")
    finally:
        plane.miss_images("")


LIMITS = """\
apiVersion: isochrone.dev/v1alpha1
kind: AgentLimits
spec:
  namespaces: [isochrone-models]
  maxReplicas: 10
  acceleratorShare: 0.05
  registries: [example]
"""


def test_what_must_be_refused_is_refused_with_its_reason_and_changes_nothing(plane: ControlPlane, bench: Bench) -> None:
    """An old leader, a replayed message, or a controller gone wild would stop what serves, or take what is not its."""
    bench.agent.limits.write_text(LIMITS)
    bench.agent.start()
    good = desired(4, 7, workload("kept", 2))
    assert bench.controller.answer(good).ok
    wait(lambda: ready(plane) == 2, "ready replicas")
    before, state = uids(plane), bench.agent.state.read_bytes()
    tampered = msgspec.structs.replace(messages.seal(desired(4, 8, workload("kept", 3))), workloads=())
    cases: list[tuple[messages.Desired, bool, str]] = [
        (desired(4, 6, workload("kept", 0)), True, "stale: 4.6 is older than 4.7"),
        (desired(3, 99, workload("kept", 0)), True, "stale: 3.99 is older than 4.7"),
        (desired(4, 7, workload("kept", 0)), True, "conflict: 4.7 came with another content"),
        (desired(4, 8, workload("kept", 0), cluster="iad"), True, "wrong-cluster: meant for iad"),
        (tampered, False, "not-intact: the checksum does not match the content"),
        (desired(4, 8, workload("more", 9)), True, "over-local-limit: 11 replicas, the limit is 10"),
        (
            desired(4, 8, workload("kept", 2), workload("big", 1, devices=13)),
            True,
            "over-local-limit: NVIDIA-L4/on-demand: 15 devices wanted, the limit is 12 (5% of 256)",
        ),
        (
            desired(4, 8, workload("kept", 3, image="elsewhere.example/x:1")),
            True,
            "over-local-limit: kept: image elsewhere.example/x:1 is from none of example",
        ),
        (desired(4, 8, workload("Not_A.Name", 1)), True, "not-valid: model 'Not_A.Name'"),
    ]
    for message, seal, reason in cases:
        answer = bench.controller.answer(message, seal=seal)
        assert not answer.ok and answer.error.startswith(reason), answer.error
        assert (answer.accepted_epoch, answer.accepted_generation) == (4, 7)
        assert bench.agent.state.read_bytes() == state, "the last good state is kept"
    again = bench.controller.answer(good)
    assert again.ok, "a replay of what is in force changes nothing and is acknowledged"
    assert json.loads(bench.agent.state.read_bytes())["desired"]["generation"] == 7
    assert (uids(plane), plans(plane)) == (before, {"kept": "4.7"})
    # The owner thinks again; what runs was allowed when it was started.
    bench.agent.limits.write_text(LIMITS.replace("[example]", "[elsewhere]"))
    bench.agent.restart()
    wait(lambda: "no longer allowed here; it is left as it is" in bench.agent.log_tail(), "word on the new limits")
    refused = bench.controller.answer(desired(4, 8, workload("kept", 3)))
    assert not refused.ok and refused.error.startswith("over-local-limit: kept: image example/server:1 is from none")
    assert (uids(plane), plans(plane)) == (before, {"kept": "4.7"})


def test_a_limit_that_cannot_be_read_stops_the_agent_and_says_where(bench: Bench) -> None:
    """Limits with a typing error would be no limits."""
    bench.agent.limits.write_text(LIMITS.replace("maxReplicas", "maxReplica"))
    bench.agent.start()
    wait(lambda: not bench.agent.process.running, "end")
    assert "limits.yaml:5:3: unknown field maxReplica in spec" in bench.agent.log_tail()
    assert "did you mean maxReplicas?" in bench.agent.log_tail()
