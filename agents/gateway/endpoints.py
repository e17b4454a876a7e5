"""Where the replicas of a cluster answer: from pods as the API server lists them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from federation.wire import messages

MODEL_LABEL = "isochrone.dev/model"


def endpoints(pods: Iterable[Any]) -> tuple[messages.ReplicaEndpoint, ...]:
    """Address and port of every pod of ours that is ready and is not being ended, sorted."""
    return tuple(
        sorted(
            messages.ReplicaEndpoint(model=pod.metadata.labels[MODEL_LABEL], address=pod.status.pod_ip, port=port)
            for pod in pods
            if (pod.metadata.labels or {}).get(MODEL_LABEL)
            and pod.metadata.deletion_timestamp is None
            and pod.status.pod_ip
            and _is_ready(pod)
            and (port := _port(pod)) is not None
        )
    )


def _is_ready(pod: Any) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or [])


def _port(pod: Any) -> int | None:
    for container in pod.spec.containers or []:
        for port in container.ports or []:
            if port.name == "http":
                return int(port.container_port)
    return None
