"""The objects of one workload, in the order in which they are applied: what guards a pod is there before the pod."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from agents.inventory import market
from agents.inventory.offers import GPU_MEMORY, GPU_PRODUCT, Access, Term
from agents.manifests import names, presets
from federation.wire import messages

Object = dict[str, Any]
CLAIM = "accelerator"
USER = 65532
"""Of the container's processes: nobody in particular, and not root."""
GATEWAY_LABEL = "isochrone.dev/gateway"
AGENT_LABEL = ("app.kubernetes.io/name", "isochrone-agent")
"""Namespaces that bear it with the value `true` may send requests, where the site names none itself."""
NOBODY = (("HOME", "/tmp"), ("USER", "model"), ("LOGNAME", "model"))
"""No image has an entry for this user in its passwd, which libraries ask for a name and a home when they are loaded."""
DNS_CIDRS = ("169.254.0.0/16",)
"""Link-local resolvers: NodeLocal DNSCache, whose address each installer chooses, Talos's, and the metadata server that
Cloud DNS of GKE answers by."""
DNS_PODS = (
    ("kube-system", "k8s-app", "kube-dns"),
    ("kube-system", "k8s-app", "node-local-dns"),
    ("openshift-dns", "dns.operator.openshift.io/daemonset-dns", "default"),
)
"""(namespace, label, value) of the pods of DNS: of Kubernetes, of NodeLocal DNSCache where Cilium redirects to
it, and of OpenShift, whose port is 5353."""
DNS_PORTS = (53, 5353)
BUSY_PERCENT = 80
"""Of the requested CPU: what a busy cluster's HorizontalPodAutoscaler holds its replicas to."""
LEAST_STARTUP_S = 600.0
PULL_S = 600.0
"""What an image may take to be there, besides the start: an update that takes longer than both does not progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where replicas may ask: an IP range in CIDR and ports."""

    cidr: str
    ports: tuple[int, ...] = (443,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSite:
    """What the cluster's owner says of it. `gateways` are namespaces that requests and scrapes come from; `dns` are
    resolvers besides those that are known."""

    namespace: str
    gateways: tuple[str, ...] = ()
    model_store: tuple[Destination, ...] = ()
    dns: tuple[Destination, ...] = ()
    tolerated: tuple[str, ...] = ()
    spot_labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One workload to carry out. `most` is the local ceiling of its replicas; `plan` is `epoch.generation`.

    `replicas` is what the Deployment is to say; where a HorizontalPodAutoscaler rules (`autoscaled`) it is what it has.
    """

    workload: messages.Workload
    access: Access
    site: ClusterSite
    plan: str
    replicas: int
    most: int
    autoscaled: bool = False


def objects(order: Order) -> tuple[Object, ...]:
    """Everything that `order` needs."""
    made = [service_account(order), network_policy(order), service(order)]
    if order.access.device_class:
        made.append(claim_template(order))
    made += [deployment(order), disruption_budget(order)]
    if order.autoscaled:
        made.append(horizontal_autoscaler(order))
    if order.workload.vertical_scaling != "none":
        made.append(vertical_autoscaler(order))
    return tuple(made)


# ---- what all share


def _labels(order: Order) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": order.workload.model,
        names.MANAGED_BY_LABEL: names.MANAGED_BY,
        names.MODEL_LABEL: order.workload.model,
    }


def _selector(order: Order) -> dict[str, str]:
    instance = names.instance_name(order.workload.model, order.workload.pool)
    return {names.MODEL_LABEL: order.workload.model, names.INSTANCE_LABEL: instance}


def _of_model(order: Order, version: str, kind: str) -> Object:
    metadata = {
        "name": names.service_name(order.workload.model),
        "namespace": order.site.namespace,
        "labels": _labels(order),
    }
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _of_instance(order: Order, version: str, kind: str) -> Object:
    metadata = {
        "name": names.instance_name(order.workload.model, order.workload.pool),
        "namespace": order.site.namespace,
        "labels": {**_labels(order), **_selector(order)},
    }
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


# ---- of a model, over all its pools


def service_account(order: Order) -> Object:
    """An identity without a token: a model server has nothing to ask of Kubernetes."""
    return {**_of_model(order, "v1", "ServiceAccount"), "automountServiceAccountToken": False}


def service(order: Order) -> Object:
    """One Service for a model."""
    return {
        **_of_model(order, "v1", "Service"),
        "spec": {
            "selector": {names.MODEL_LABEL: order.workload.model},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def _both(ports: tuple[int, ...]) -> list[Object]:
    """Ports of DNS, which asks by UDP, and by TCP what is long."""
    return [{"protocol": protocol, "port": port} for protocol in ("UDP", "TCP") for port in ports]


def network_policy(order: Order) -> Object:
    """Nothing goes in or out but requests from the gateway, questions to DNS and the model store, and the agent's for
    metrics."""
    preset, site = presets.of(order.workload), order.site
    ports = sorted({order.workload.port, preset.metrics_port or order.workload.port})
    named = [{"kubernetes.io/metadata.name": one} for one in site.gateways] or [{GATEWAY_LABEL: "true"}]
    dns: list[Object] = [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "podSelector": {"matchLabels": {label: value}},
        }
        for namespace, label, value in DNS_PODS
    ]
    egress: list[Object] = [
        {"to": dns, "ports": _both(DNS_PORTS)},
        {"to": [{"ipBlock": {"cidr": one}} for one in DNS_CIDRS], "ports": _both((53,))},
    ]
    egress += [{"to": [{"ipBlock": {"cidr": one.cidr}}], "ports": _both(one.ports)} for one in site.dns]
    egress += [
        {
            "to": [{"ipBlock": {"cidr": one.cidr}}],
            "ports": [{"protocol": "TCP", "port": port} for port in one.ports],
        }
        for one in site.model_store
    ]
    return {
        **_of_model(order, "networking.k8s.io/v1", "NetworkPolicy"),
        "spec": {
            "podSelector": {"matchLabels": {names.MODEL_LABEL: order.workload.model}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [{"namespaceSelector": {"matchLabels": one}} for one in named],
                    "ports": [{"protocol": "TCP", "port": port} for port in ports],
                },
                *(_from_agent(preset.metrics_port or order.workload.port) if preset.metrics_path else ()),
            ],
            "egress": egress,
        },
    }


def _from_agent(port: int) -> list[Object]:
    """The agent reads metrics from its pod, as `deploy/kustomize/agent` labels it."""
    peer: Object = {"namespaceSelector": {}, "podSelector": {"matchLabels": {AGENT_LABEL[0]: AGENT_LABEL[1]}}}
    return [{"from": [peer], "ports": [{"protocol": "TCP", "port": port}]}]


# ---- of a model in one pool


def deployment(order: Order) -> Object:
    """The replicas."""
    made = _of_instance(order, "apps/v1", "Deployment")
    made["metadata"]["annotations"] = {
        names.POOL_ANNOTATION: order.workload.pool.text,
        names.PLAN_ANNOTATION: order.plan,
        **({names.AUTOSCALED_ANNOTATION: str(order.workload.replicas)} if order.autoscaled else {}),
    }
    made["spec"] = {
        "replicas": order.replicas,
        "selector": {"matchLabels": _selector(order)},
        # Nothing ready is stopped for a version that was not seen ready here. Without a free device the new one waits.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "progressDeadlineSeconds": math.ceil(_startup_s(order.workload) + PULL_S),
        "template": {
            "metadata": {"labels": {**_labels(order), **_selector(order)}, "annotations": _scrape(order)},
            "spec": _pod(order),
        },
    }
    return made


def _scrape(order: Order) -> dict[str, str]:
    preset = presets.of(order.workload)
    if not preset.metrics_path:
        return {}
    port = preset.metrics_port or order.workload.port
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port),
        "prometheus.io/path": preset.metrics_path,
    }


def _pod(order: Order) -> Object:
    preset = presets.of(order.workload)
    spot = order.workload.pool.market == "spot"
    tolerated = [*market.VENDOR_TAINTS, *(market.SPOT_TAINTS if spot else ()), *order.site.tolerated]
    volumes: list[Object] = [{"name": "scratch", "emptyDir": {}}, {"name": "model-cache", "emptyDir": {}}]
    if preset.shared_memory_mib:
        limit = {"medium": "Memory", "sizeLimit": f"{preset.shared_memory_mib}Mi"}
        volumes.append({"name": "shared-memory", "emptyDir": limit})
    pod: Object = {
        "serviceAccountName": names.service_name(order.workload.model),
        "automountServiceAccountToken": False,
        # Else every Service becomes an environment variable, which some runtimes read as their own settings.
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": _node_terms(order)}
            }
        },
        "tolerations": [{"key": key, "operator": "Exists"} for key in tolerated],
        "containers": [_container(order, preset)],
        "volumes": volumes,
    }
    if order.access.device_class:
        pod["resourceClaims"] = [{"name": CLAIM, "resourceClaimTemplateName": claim_template_name(order)}]
    return pod


def _container(order: Order, preset: presets.Preset) -> Object:
    workload = order.workload
    amounts = {"cpu": workload.cpu, "memory": workload.memory}
    resources: Object = {}
    if order.access.device_class:
        resources["claims"] = [{"name": CLAIM}]
    else:
        amounts[order.access.resource] = str(workload.devices)
    resources |= {"requests": dict(amounts), "limits": dict(amounts)}
    mounts = [{"name": "scratch", "mountPath": "/tmp"}, {"name": "model-cache", "mountPath": preset.cache_path}]
    if preset.shared_memory_mib:
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})
    ports = [{"name": "http", "containerPort": workload.port}]
    ports += [{"name": name, "containerPort": port} for name, port in preset.ports if port != workload.port]
    if preset.metrics_port not in (None, workload.port):
        ports.append({"name": "metrics", "containerPort": preset.metrics_port})
    ready = _check(workload, preset.ready_path(workload) if preset.ready_path else None)
    return {
        "name": "model",
        "image": workload.image,
        "args": list(preset.arguments(workload)),
        "env": [{"name": name, "value": value} for name, value in (*NOBODY, *preset.environment)],
        "ports": ports,
        "resources": resources,
        "startupProbe": {**ready, "periodSeconds": 10, "failureThreshold": math.ceil(_startup_s(workload) / 10)},
        "readinessProbe": {**ready, "periodSeconds": 5},
        "livenessProbe": {**_check(workload, preset.live_path), "periodSeconds": 10, "failureThreshold": 6},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts,
    }


def _startup_s(workload: messages.Workload) -> float:
    return max(LEAST_STARTUP_S, 3 * workload.warmup_s)


def _check(workload: messages.Workload, path: str | None) -> Object:
    if path is None:
        return {"tcpSocket": {"port": workload.port}}
    return {"httpGet": {"path": path, "port": workload.port}}


def _node_terms(order: Order) -> list[Object]:
    """Alternatives: the pool's nodes, by each label that may say its market."""
    ours = [_term(one) for one in order.access.terms]
    by_product = any(one.key == GPU_PRODUCT for one in order.access.terms)
    whole = by_product and not order.workload.pool.mig_profile and not order.workload.pool.product.endswith("-SHARED")
    if order.workload.min_vram_gib and whole:
        mib = max(0, int(order.workload.min_vram_gib * 1024) - 1)
        ours.append({"key": GPU_MEMORY, "operator": "Gt", "values": [str(mib)]})
    return [
        {"matchExpressions": ours + one} for one in market_terms(order.workload.pool.market, order.site.spot_labels)
    ]


def _term(one: Term) -> Object:
    return {"key": one.key, "operator": one.operator, **({"values": list(one.values)} if one.values else {})}


def market_terms(wanted: messages.Market, spot_labels: Collection[str] = ()) -> list[list[Object]]:
    """Alternatives of node selector requirements: on any label that says `wanted`; on-demand is that none says else.

    Args: spot_labels: further labels of spot nodes, as `key` or `key=value`.
    """
    labels: Mapping[str, Mapping[str, str]] = dict(sorted(market.CAPACITY_LABELS.items()))
    owners = [one.partition("=") for one in sorted(set(spot_labels))]
    if wanted == "on-demand":
        known = [{"key": label, "operator": "NotIn", "values": sorted(values)} for label, values in labels.items()]
        return [[*known, *(_has(key, value if given else None, negated=True) for key, given, value in owners)]]
    found = [
        [{"key": label, "operator": "In", "values": [value]}]
        for label, values in labels.items()
        for value, meaning in sorted(values.items())
        if meaning == wanted
    ]
    if wanted == "spot":
        found += [[_has(key, value if given else None)] for key, given, value in owners]
    return found


def _has(key: str, value: str | None, *, negated: bool = False) -> Object:
    """A requirement that a label is there, with this value where one is given; or that it is not."""
    if value is None:
        return {"key": key, "operator": "DoesNotExist" if negated else "Exists"}
    return {"key": key, "operator": "NotIn" if negated else "In", "values": [value]}


def claim_template(order: Order) -> Object:
    """What each replica asks of Dynamic Resource Allocation. It cannot be changed, so its name holds its content."""
    made = _of_instance(order, "resource.k8s.io/v1", "ResourceClaimTemplate")
    made["metadata"]["name"] = claim_template_name(order)
    made["spec"] = {"spec": _claim(order)}
    return made


def claim_template_name(order: Order) -> str:
    """The same for the same devices asked."""
    digest = hashlib.sha256(json.dumps(_claim(order), sort_keys=True).encode()).hexdigest()[:6]
    return f"{names.instance_name(order.workload.model, order.workload.pool)[:56].rstrip('-')}-{digest}"


def _claim(order: Order) -> Object:
    expression = order.access.expression
    if order.workload.min_vram_gib:
        least = f'quantity("{int(order.workload.min_vram_gib * 1024)}Mi")'
        expression += f" && device.capacity[device.driver].memory.compareTo({least}) >= 0"
    exactly = {
        "deviceClassName": order.access.device_class,
        "allocationMode": "ExactCount",
        "count": order.workload.devices,
        "selectors": [{"cel": {"expression": expression}}],
    }
    return {"devices": {"requests": [{"name": CLAIM, "exactly": exactly}]}}


def disruption_budget(order: Order) -> Object:
    """Maintenance takes one replica at a time, and those that are not well at any time."""
    return {
        **_of_instance(order, "policy/v1", "PodDisruptionBudget"),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": _selector(order)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def horizontal_autoscaler(order: Order) -> Object:
    """Between the placed count and what the policy lets a busy cluster add by itself."""
    least = order.workload.replicas
    return {
        **_of_instance(order, "autoscaling/v2", "HorizontalPodAutoscaler"),
        "spec": {
            "scaleTargetRef": _target(order),
            "minReplicas": least,
            "maxReplicas": max(least, min(least + order.workload.burst_replicas, order.most)),
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": BUSY_PERCENT},
                    },
                }
            ],
        },
    }


def vertical_autoscaler(order: Order) -> Object:
    """Memory alone: CPU is what the other autoscaler looks at."""
    return {
        **_of_instance(order, "autoscaling.k8s.io/v1", "VerticalPodAutoscaler"),
        "spec": {
            "targetRef": _target(order),
            "updatePolicy": {"updateMode": order.workload.vertical_scaling.capitalize()},
            "resourcePolicy": {
                "containerPolicies": [{"containerName": "model", "controlledResources": ["memory"]}],
            },
        },
    }


def _target(order: Order) -> Object:
    name = names.instance_name(order.workload.model, order.workload.pool)
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
