"""What the agent reads from Kubernetes objects."""

from __future__ import annotations

from types import SimpleNamespace as Object

from agents import kube
from tests.builders import L4, L4_SPOT


def test_replicas_go_on_serving_while_a_new_count_is_carried_out() -> None:
    """Each change of a count would take all requests off the cluster for a moment, and put them elsewhere at once."""
    deployed = Object(
        metadata=Object(
            generation=3,
            labels={kube.MODEL_LABEL: "chat", "isochrone.dev/instance": "chat-x"},
            annotations={kube.POOL_ANNOTATION: L4.text},
        ),
        spec=Object(replicas=5),
        status=Object(observed_generation=2, ready_replicas=6),
    )
    assert kube._replicas(deployed, []).ready == 5


def test_names_are_dns_labels_and_differ_by_pool() -> None:
    """Two pools of a model would overwrite each other's Deployment."""
    names = {kube.object_name("a-model-with-a-long-name-" * 3, pool) for pool in (L4, L4_SPOT)}
    assert len(names) == 2
    assert all(len(name) <= 63 and name.strip("-") == name for name in names)
