"""What a cluster's owner allows: read with care, and stronger than the controller."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents import limits
from agents.limits import Limits
from federation.wire import messages
from federation.yamlkit.explain import Problem
from tests.builders import L4
from tests.unit.agents.test_fence import desired, workload

HEAD = b"apiVersion: isochrone.dev/v1alpha1\nkind: AgentLimits\nspec:\n"


WRITTEN = {
    "end-marker": HEAD + b"  maxReplicas: 3\n---\n",
    "empty-documents": b"---\n---\n" + HEAD + b"  maxReplicas: 3\n---\n# nothing\n---\n",
    "source-of-helm": b"---\n# Source: agent/templates/limits.yaml\n" + HEAD + b"  maxReplicas: 3\n",
    "metadata": HEAD.replace(b"spec", b"metadata:\n  name: l\n  creationTimestamp: null\n  labels: {a.b/c: d}\nspec")
    + b"  maxReplicas: 3\n",
    "carriage-returns": (HEAD + b"  maxReplicas: 3\n").replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_limits_are_read_as_tools_write_them(name: str) -> None:
    """The agent would not start on what Helm and Kustomize write, and its owner would edit their output by hand."""
    found = limits.parse("limits.yaml", WRITTEN[name])
    assert isinstance(found, Limits), found
    assert found.max_replicas == 3


def test_every_limit_is_read() -> None:
    """A bound that the owner wrote would not hold."""
    found = limits.parse(
        "limits.yaml",
        HEAD
        + b"""\
  namespaces: [models]
  maxReplicas: 10
  acceleratorShare: 0.5
  registries: [registry.example/team]
  requireDigest: true
  gateways: [gateway-system]
  modelStore: [{cidr: 10.0.0.0/8, ports: [443, 9000]}, {cidr: "fd00::/8"}]
  toleratedTaints: [dedicated]
  spotLabels: [example.com/spot, example.com/lifecycle=spot]
  dns: [{cidr: 10.96.0.10/32}, {cidr: "fd00::a/128", ports: [5353]}]
""",
    )
    assert isinstance(found, Limits)
    assert (found.max_replicas, found.accelerator_share, found.require_digest) == (10, 0.5, True)
    assert [(one.cidr, one.ports) for one in found.destinations()] == [
        ("10.0.0.0/8", (443, 9000)),
        ("fd00::/8", (443,)),
    ]
    assert [(one.cidr, one.ports) for one in found.resolvers()] == [("10.96.0.10/32", (53,)), ("fd00::a/128", (5353,))]
    assert found.spot_labels == ("example.com/spot", "example.com/lifecycle=spot")


def test_the_file_that_is_shipped_is_valid() -> None:
    """Every new agent would refuse to start."""
    payload = (Path(__file__).parents[3] / "deploy/kustomize/agent/limits.yaml").read_bytes()
    assert limits.parse("limits.yaml", payload) == Limits(namespaces=("isochrone-models",))


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", "limits.yaml:1:1: 0 documents"),
        (b"- 1\n", "limits.yaml:1:1: 1 documents"),
        (HEAD + b"  maxReplica: 1\n", "limits.yaml:4:3: unknown field maxReplica in spec"),
        (HEAD + b"  maxReplicas: ten\n", "limits.yaml:4:16: spec.maxReplicas is 'ten' (expected"),
        (HEAD + b"  maxReplicas: -1\n", "limits.yaml:4:16: spec.maxReplicas is -1"),
        (HEAD + b"  acceleratorShare: 50%\n", "limits.yaml:4:21: spec.acceleratorShare is '50%'"),
        (HEAD + b"  acceleratorShare: 1.5\n", "limits.yaml:4:21: spec.acceleratorShare is 1.5"),
        (HEAD + b"  namespaces: []\n", "limits.yaml:4:15: spec.namespaces is an empty list"),
        (HEAD + b"  modelStore: [{cidr: 10.0.0.1/8}]\n", "limits.yaml:4:23: cidr is '10.0.0.1/8'"),
        (HEAD + b"  dns: [{cidr: 10.0.0.1/8}]\n", "limits.yaml:4:16: cidr is '10.0.0.1/8'"),
        (HEAD + b"  spotLabels: ['a b']\n", "limits.yaml:4:16: spec.spotLabels.0 is 'a b'"),
        (HEAD.replace(b"AgentLimits", b"Limits") + b"  maxReplicas: 1\n", "limits.yaml:2:7: kind is 'Limits'"),
        (HEAD + b"  maxReplicas: &a 1\n", "limits.yaml:4:16: anchors and aliases are not allowed"),
    ],
)
def test_a_limit_that_is_not_understood_is_no_limit_lifted(payload: bytes, text: str) -> None:
    """A typing error would give the controller the whole cluster."""
    found = limits.parse("limits.yaml", payload)
    assert isinstance(found, Problem)
    assert found.text().startswith(text), found.text()


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("registry.example/team/server:1", True),
        ("registry.example/team/server@sha256:00", True),
        ("registry.example/team/deep/er/server", True),
        ("registry.example/teams/server:1", False),
        ("registry.example/team-evil/server", False),
        ("registry.example.evil/team/server", False),
        ("registry.example:5000/team/server", False),
        ("evil/registry.example/team/server", False),
        ("vllm/server:1", True),
        ("vllm:1", True),
        ("vllmx/server:1", False),
    ],
)
def test_an_image_comes_from_where_it_may(image: str, allowed: bool) -> None:
    """A name that only begins alike would pass (as a certificate's once did in another product)."""
    assert limits.is_from(image, ("registry.example/team", "vllm")) is allowed


POOLS = (messages.PoolReport(key=L4, vram_gib=22, allocatable=8, free=8),)


def now(count: int, model: str = "chat") -> tuple[messages.ReplicaReport, ...]:
    return (messages.ReplicaReport(model=model, pool=L4, desired=count, ready=count),)


@pytest.mark.parametrize(
    ("given", "wanted", "running", "reasons"),
    [
        (Limits(), workload(8), (), 0),
        (Limits(max_replicas=4), workload(4), (), 0),
        (Limits(max_replicas=4), workload(5), (), 1),
        (Limits(max_replicas=4), workload(2), now(3, "other"), 1),  # what is not named stays
        (Limits(max_replicas=4), workload(5), now(6), 0),  # fewer than run now
        (Limits(max_replicas=0), workload(0), now(3), 0),  # stopping is always allowed
        (Limits(accelerator_share=0.5), workload(2, devices=2), (), 0),
        (Limits(accelerator_share=0.5), workload(3, devices=2), (), 1),
        (Limits(accelerator_share=0.0), workload(1), (), 1),
        (Limits(accelerator_share=0.0), workload(1), now(1), 0),
        (Limits(namespaces=("other",)), workload(1), (), 1),
        (Limits(namespaces=("other",), require_digest=True, registries=("x",)), workload(1), (), 3),
        (Limits(registries=("i",)), workload(1), (), 0),
    ],
)
def test_the_owners_word_is_the_last(
    given: Limits, wanted: messages.Workload, running: tuple[messages.ReplicaReport, ...], reasons: int
) -> None:
    """An owner who lends half his devices would find all of them taken."""
    found = list(limits.violations(given, desired(1, 1, wanted), namespace="models", pools=POOLS, replicas=running))
    assert len(found) == reasons, found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Limits(), (5, 3)),
        (Limits(max_replicas=5), (2, 3)),
        (Limits(max_replicas=6), (3, 3)),
        (Limits(accelerator_share=0.5), (2, 3)),
    ],
)
def test_bursts_together_pass_no_limit(given: Limits, expected: tuple[int, int]) -> None:
    """Two models that are busy at once would take what only one of them was promised."""
    one, two = (
        messages.Workload(
            model=model, pool=L4, replicas=count, devices=1, runtime="vllm", image="i", cpu="1", memory="1Gi",
            burst_replicas=burst,
        )
        for model, count, burst in (("a", 2, 3), ("b", 3, 3))
    )  # fmt: skip
    found = limits.ceilings(given, desired(1, 1, one, two), POOLS)
    assert [found[messages.ModelPool(name, L4)] for name in ("a", "b")] == list(expected)
