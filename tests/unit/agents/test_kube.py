"""What the agent reads from Kubernetes objects, and the names that it gives."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from agents.gateway import objects
from agents.inventory import usage
from agents.inventory.objects import Deployment, Pod
from agents.kube import endpoints, replicas
from agents.kube.api import ApiError
from agents.kube.pollers import SILENT_S, Liveness, SlowFacts
from agents.kube.replicas import PodFacts
from agents.manifests import names
from federation.aiokit.clock import Clock
from federation.wire import messages
from tests.builders import L4, L4_SPOT


def deployment(**status: Any) -> replicas.DeploymentFacts:
    """One of our Deployments, of five replicas."""
    raw = {
        "metadata": {
            "name": "chat-x",
            "labels": {names.MODEL_LABEL: "chat"},
            "annotations": {names.POOL_ANNOTATION: L4.text, names.PLAN_ANNOTATION: "3.17"},
        },
        "spec": {"replicas": 5},
        "status": status,
    }
    found = replicas.of_deployment(msgspec.convert(raw, Deployment))
    assert found is not None
    return found


def test_replicas_go_on_serving_while_a_new_count_is_carried_out() -> None:
    """Each change of a count would take all requests off the cluster for a moment, and put them elsewhere at once."""
    (found,) = replicas.report([deployment(readyReplicas=6, observedGeneration=2)], [])
    assert (found.ready, found.desired) == (5, 5)


def test_names_are_dns_labels_and_differ_by_pool() -> None:
    """Two pools of a model would overwrite each other's Deployment."""
    found = {names.instance_name("a-model-with-a-long-name-" * 3, pool) for pool in (L4, L4_SPOT)}
    assert len(found) == 2
    assert all(len(name) <= 63 and name.strip("-") == name for name in found)


def some_names(count: int) -> list[str]:
    """Names of models and clusters as people give them, many of which read the same once they are joined."""
    rng = random.Random(1)
    parts = ["m", "8b", "chat", "llama", "eu", "west", "1", "a" * 20]
    made = {"-".join(rng.choices(parts, k=rng.randint(1, 5)))[:63].strip("-") for _ in range(20 * count)}
    return [*sorted(made)[:count], "9" * 63, "a" * 63, "m-8b-chat", "8b-chat"]


def test_names_of_models_and_clusters_never_meet() -> None:
    """Requests would go to another model, and two agents would overwrite each other's Service at every step."""
    models = some_names(300)
    services = [names.service_name(one) for one in models]
    assert len(set(services)) == len(models)
    assert all(len(one) <= 63 and names.is_name(one) and one[0].isalpha() for one in services)
    assert names.service_name("chat-8b") == "chat-8b", "the name that people look for"
    clusters = some_names(60)
    pairs = [(model, cluster) for model in models for cluster in clusters]
    joined = [objects.service_name(*pair) for pair in pairs]
    assert len(set(joined) | set(services)) == len(pairs) + len(models)
    assert all(len(one) <= 63 and names.is_name(one) and one[0].isalpha() for one in joined)


@pytest.mark.parametrize("text", ["", "3", "3.", ".4", "a.b", "3.-1", "3.4.5x", "٣.٤", f"{10**16}.1", "3." + "9" * 30])
def test_a_plan_that_cannot_be_read_is_none(text: str) -> None:
    """A label that someone has changed must not count as a newer plan, nor stop the agent."""
    assert names.plan_of({names.PLAN_ANNOTATION: text}) == (0, 0)
    assert names.plan_of({names.PLAN_ANNOTATION: "3.17"}) == (3, 17)
    assert names.plan_of({names.PLAN_ANNOTATION: "3.5000000"}) == (3, 5_000_000), "an old federation's"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}}]},
            "ImagePullBackOff: no such tag",
        ),
        (
            {
                "containerStatuses": [
                    {
                        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
                        "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
                        "restartCount": 7,
                    }
                ]
            },
            "CrashLoopBackOff: back-off 5m0s; last exit 137 (OOMKilled), 7 restarts",
        ),
        (
            {
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
                    }
                ]
            },
            "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        ),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}, "ContainerCreating"),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, ""),
        ({"conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}]}, "ContainersNotReady"),
        ({}, "Pending"),
    ],
    ids=["image", "crash", "unschedulable", "creating", "ready", "not-ready", "new"],
)
def test_what_is_not_well_is_said_in_the_pods_own_words(status: dict[str, Any], words: str) -> None:
    """On-call would have to log in to the cluster to learn why a replica does not start."""
    pod = msgspec.convert({"metadata": {"uid": "u"}, "spec": {}, "status": status}, Pod)
    assert replicas.why_not_ready(pod) == words


def test_a_quota_is_said_though_no_pod_is_there_to_say_it() -> None:
    """Replicas would be missing without a cause."""
    quota = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: gpus"}
    pods = [PodFacts("node-1", usage.NOTHING, "chat-x", "")] * 2
    (found,) = replicas.report([deployment(readyReplicas=2, conditions=[quota])], pods)
    assert (found.ready, found.scheduled, found.reason) == (2, 2, "FailedCreate: exceeded quota: gpus")


def test_where_deployments_may_not_be_read_pods_say_what_serves() -> None:
    """Users would be taken off replicas that serve them, for a slip with a Role."""
    order = messages.Workload(
        model="chat", pool=L4, replicas=2, devices=1, runtime="vllm", image="a:1", cpu="1", memory="1Gi"
    )
    name = names.instance_name("chat", L4)
    answer = messages.ReplicaEndpoint(model="chat", address="10.0.0.1", port=8000)
    pod = PodFacts(node="n", use=usage.NOTHING, instance=name, endpoint=answer)
    found = replicas.unread([order], [pod, pod._replace(instance="other-1"), pod._replace(endpoint=None)], "403: gone")
    (row,) = replicas.report(found, [pod])
    assert (row.desired, row.ready, row.reason) == (2, 1, "403: gone")


def test_of_a_pod_that_is_none_of_ours_only_what_it_holds_is_kept() -> None:
    """Five thousand pods must fit in the memory that a cluster's owner grants an agent."""
    shared: dict[PodFacts, PodFacts] = {}
    raw: dict[str, Any] = {
        "metadata": {"uid": "1", "namespace": "other", "labels": {names.INSTANCE_LABEL: "chat-x"}},
        "spec": {"nodeName": "n", "containers": [{"resources": {"limits": {"nvidia.com/gpu": "2"}}}]},
    }
    one, two = (replicas.of_pod(msgspec.convert(raw, Pod), "models", shared) for _ in range(2))
    assert one is two, "alike pods are one object"
    assert one == PodFacts("n", usage.Use(0, 0, 1, (("nvidia.com/gpu", 2),)), "", "")
    ended = raw | {"status": {"phase": "Succeeded"}}
    waiting = raw | {"spec": {}}
    assert replicas.of_pod(msgspec.convert(ended, Pod), "models", shared) is None
    assert replicas.of_pod(msgspec.convert(waiting, Pod), "models", shared) is None


def answering(**changed: Any) -> PodFacts | None:
    """What is held of a replica that is ready at 10.0.0.7:8000, but for what is changed."""
    raw: dict[str, Any] = {
        "metadata": {
            "uid": "1",
            "namespace": "models",
            "labels": {names.INSTANCE_LABEL: "chat-x", names.MODEL_LABEL: "chat"},
        },
        "spec": {
            "nodeName": "n",
            "containers": [
                {"ports": [{"name": "metrics", "containerPort": 9000}, {"name": "http", "containerPort": 8000}]}
            ],
        },
        "status": {"podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    for part, fields in changed.items():
        raw[part] = raw[part] | fields
    return replicas.of_pod(msgspec.convert(raw, Pod), "models", {})


def test_a_ready_replica_is_told_by_address_and_port() -> None:
    """Gateways would know of no replica, or send requests to its metrics."""
    found = answering()
    assert found is not None
    assert replicas.endpoints([found]) == (messages.ReplicaEndpoint(model="chat", address="10.0.0.7", port=8000),)


@pytest.mark.parametrize(
    "changed",
    [
        {"status": {"conditions": [{"type": "Ready", "status": "False"}]}},
        {"status": {"podIP": ""}},
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
        {"metadata": {"namespace": "other"}},
        {"spec": {"containers": [{"ports": [{"containerPort": 8000}]}]}},
    ],
    ids=["not-ready", "no-address", "ending", "not-ours", "no-port"],
)
def test_what_does_not_answer_requests_is_no_endpoint(changed: dict[str, Any]) -> None:
    """Requests would go to a replica that loads its model or is about to end."""
    found = answering(**changed)
    assert replicas.endpoints([found] if found is not None else []) == ()


class Discovery:
    """An API server that serves devices in these versions."""

    def __init__(self, *versions: str) -> None:
        self._versions = versions

    async def get(self, path: str, **query: str) -> bytes:
        if path != "/apis/resource.k8s.io" or not self._versions:
            raise ApiError(404, "not found")
        return msgspec.json.encode({"kind": "APIGroup", "versions": [{"version": one} for one in self._versions]})


async def test_devices_in_an_older_version_of_the_api_are_told() -> None:
    """A cluster of Kubernetes 1.33 whose GPUs are had by DRA alone would look empty, and nothing would say why."""

    def asked(*versions: str, has_slices: bool = False) -> SlowFacts:
        api: Any = Discovery(*versions)
        return SlowFacts(api, Clock(), nodes=list, has_slices=lambda: has_slices)

    older = asked("v1beta2", "v1beta1")
    assert await older.ask()
    (told,) = older.conditions
    assert told.type == "DeviceApiTooOld" and "v1beta1, v1beta2 and not as v1" in told.message
    read = asked("v1beta2", "v1beta1", has_slices=True)
    assert await read.ask() and read.conditions == ()
    none = asked()
    assert await none.ask() and none.conditions == ()


class Answering:
    """An API server that answers what is asked for its version, until it fails."""

    failure: ApiError | None = None

    async def get(self, path: str) -> bytes:
        assert path == "/version"
        if self.failure is not None:
            raise self.failure
        return b'{"gitVersion": "v1.36.0"}'


async def test_an_api_server_that_hangs_is_gone_though_nothing_has_failed_yet() -> None:
    """Its mirrors look like those of a quiet cluster: the controller would go on believing what was true before."""
    api: Any = Answering()
    clock = Clock(speed=1000.0)
    liveness = Liveness(api, clock)
    assert liveness.problem
    await liveness.ask()
    assert (liveness.problem, liveness.version) == ("", "v1.36.0")
    await clock.sleep(2 * SILENT_S)
    assert "no answer" in liveness.problem
    await liveness.ask()
    assert not liveness.problem
    api.failure = ApiError(0, "API server: away")
    await liveness.ask()
    assert "away" in liveness.problem


@pytest.mark.parametrize(
    ("status", "url"),
    [
        ({"podIP": "10.0.0.9", "conditions": [{"type": "Ready", "status": "True"}]}, "http://10.0.0.9:9902"),
        ({"podIP": "fd00::9", "conditions": [{"type": "Ready", "status": "True"}]}, "http://[fd00::9]:9902"),
        ({"podIP": "10.0.0.9", "conditions": [{"type": "Ready", "status": "False"}]}, None),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, None),
    ],
)
def test_gateways_are_found_by_their_pods(status: dict[str, Any], url: str | None) -> None:
    """Whoever installs agent and gateway as shipped would have no users until an option is given."""
    assert endpoints.statistics_of(msgspec.convert({"metadata": {"uid": "u"}, "status": status}, Pod)) == url
