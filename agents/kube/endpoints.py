"""Where a replica answers: from its pod as the API server has it. Pure."""

from __future__ import annotations

from agents.inventory.objects import Pod
from agents.manifests import names
from federation.wire import messages

PORT = "http"
"""The name of the port, in a container, that requests go to."""


STATISTICS_PORT = 9902
"""Where a gateway of `deploy/envoy/bootstrap.yaml` gives its statistics."""


def statistics_of(pod: Pod) -> str | None:
    """The URL of a gateway's statistics; None of one that is not ready or is being ended."""
    ready = any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or ())
    if not ready or not pod.status.pod_ip or pod.metadata.deletion_timestamp:
        return None
    address = pod.status.pod_ip
    return f"http://[{address}]:{STATISTICS_PORT}" if ":" in address else f"http://{address}:{STATISTICS_PORT}"


def of_pod(pod: Pod) -> messages.ReplicaEndpoint | None:
    """Address and port of a replica of ours that is ready and is not being ended; nothing of any other."""
    model = (pod.metadata.labels or {}).get(names.MODEL_LABEL, "")
    ready = any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or ())
    if not model or not ready or not pod.status.pod_ip or pod.metadata.deletion_timestamp:
        return None
    for container in pod.spec.containers or ():
        for port in container.ports or ():
            if port.name == PORT:
                return messages.ReplicaEndpoint(model=model, address=pod.status.pod_ip, port=port.container_port)
    return None
