"""From shares to the objects of Gateway API, multi-cluster Services, the inference extension and ExternalDNS. Pure.

What a cluster has installed decides: a kind that is missing gives no object, and a sentence. Names: each cluster's
replicas of a model are one Service `MODEL-CLUSTER`, exported under that name, so that weights can tell clusters apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agents.manifests.names import MANAGED_BY, MANAGED_BY_LABEL, MODEL_LABEL, TRAFFIC_LABEL
from agents.manifests.names import service_name as name_of_model
from federation.wire import messages

GATEWAY = "isochrone"
"""The Gateway, in the models' namespace, that HTTPRoutes attach to: the platform team's, who choose its class."""
FROM_HEADER = "x-isochrone-from"
EXPORT_ANNOTATION = "inference.networking.x-k8s.io/export"
PORT = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind as the API server names it."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """As objects bear it."""
        return f"{self.group}/{self.version}" if self.group else self.version


SERVICE = Kind(group="", version="v1", plural="services", kind="Service")
SLICE = Kind(group="discovery.k8s.io", version="v1", plural="endpointslices", kind="EndpointSlice")
HTTP_ROUTE = Kind(group="gateway.networking.k8s.io", version="v1", plural="httproutes", kind="HTTPRoute")
EXPORT = Kind(group="multicluster.x-k8s.io", version="v1alpha1", plural="serviceexports", kind="ServiceExport")
IMPORT = Kind(group="multicluster.x-k8s.io", version="v1alpha1", plural="serviceimports", kind="ServiceImport")
POOL = Kind(group="inference.networking.k8s.io", version="v1", plural="inferencepools", kind="InferencePool")
POOL_IMPORT = Kind(
    group="inference.networking.x-k8s.io", version="v1alpha1", plural="inferencepoolimports", kind="InferencePoolImport"
)
DNS = Kind(group="externaldns.k8s.io", version="v1alpha1", plural="dnsendpoints", kind="DNSEndpoint")
KINDS = (SERVICE, SLICE, HTTP_ROUTE, EXPORT, IMPORT, POOL, POOL_IMPORT, DNS)
BUILT_IN = frozenset({SERVICE, SLICE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Objects by kind, and what is missing for more, in sentences. `status` of an object goes to its subresource."""

    objects: tuple[tuple[Kind, dict[str, Any]], ...]
    missing: tuple[str, ...]


def wanted(traffic: messages.Traffic, namespace: str, installed: Iterable[Kind]) -> Wanted:
    """All objects for one cluster."""
    walk = _Walk(traffic, namespace, frozenset(installed) | BUILT_IN)
    for model in traffic.models:
        walk.model(model)
    return Wanted(objects=tuple(walk.made), missing=tuple(dict.fromkeys(walk.missing)))


def service_name(model: str, cluster: str) -> str:
    """Of a model's replicas in one cluster, the same in every cluster."""
    return f"{name_of_model(model)}-{cluster}"[:63].rstrip("-.")


class _Walk:
    def __init__(self, traffic: messages.Traffic, namespace: str, installed: frozenset[Kind]) -> None:
        self.traffic = traffic
        self.namespace = namespace
        self.installed = installed
        self.made: list[tuple[Kind, dict[str, Any]]] = []
        self.missing: list[str] = []

    def has(self, kind: Kind, purpose: str) -> bool:
        """Whether a kind is installed; says what is missing without it."""
        if kind in self.installed:
            return True
        self.missing.append(f"no {kind.kind} ({kind.group}/{kind.version}) is installed: {purpose}")
        return False

    def add(self, kind: Kind, name: str, model: str, **fields: Any) -> None:
        """One object with our labels."""
        labels = {MANAGED_BY_LABEL: MANAGED_BY, MODEL_LABEL: model, TRAFFIC_LABEL: "true"}
        metadata = {"name": name, "namespace": self.namespace, "labels": labels} | fields.pop("metadata", {})
        self.made.append((kind, {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **fields}))

    def model(self, model: messages.ModelTraffic) -> None:
        """Everything for one model."""
        name, here = model.model, self.traffic.cluster
        ports = [{"name": "http", "port": PORT, "protocol": "TCP", "targetPort": "http"}]
        mine = service_name(name, here)
        self.add(SERVICE, mine, name, spec={"selector": {MODEL_LABEL: name}, "ports": ports})
        pools = POOL in self.installed and POOL_IMPORT in self.installed
        if pools:
            self._pools(model)
        if model.remote == "ServiceImport" and not pools and self.has(EXPORT, "other clusters cannot name this one"):
            self.add(EXPORT, mine, name)
        refs = [ref for share in model.backends if (ref := self._backend(model, share, pools=pools)) is not None]
        refs = _merged(refs)
        if refs and self.has(HTTP_ROUTE, "requests are not routed by Gateway API"):
            self._route(model, refs, pools=pools)
        if model.dns is not None and self.has(DNS, f"names in {model.dns.zone} are not published"):
            self._dns(name, model.dns)

    def _backend(self, model: messages.ModelTraffic, share: messages.BackendShare, *, pools: bool) -> Any:
        """A weighted reference to one cluster's replicas, and the objects that it stands on."""
        name = service_name(model.model, share.cluster)
        if share.cluster == self.traffic.cluster:
            if pools:
                return {"group": POOL.group, "kind": POOL.kind, "name": model.model, "weight": share.weight}
            return {"group": "", "kind": "Service", "name": name, "port": PORT, "weight": share.weight}
        if pools:
            return {
                "group": POOL_IMPORT.group,
                "kind": POOL_IMPORT.kind,
                "name": model.model,
                "weight": share.weight,
            }
        if model.remote == "ServiceImport":
            if not self.has(IMPORT, f"{model.model} in {share.cluster} cannot be named; its policy may say Service"):
                return None
            spec = {"type": "ClusterSetIP", "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}]}
            self.add(IMPORT, name, model.model, spec=spec)
            ref = {"group": IMPORT.group, "kind": IMPORT.kind, "name": name, "port": PORT}
            return {**ref, "weight": share.weight}
        if not share.address:
            self.missing.append(f"{share.cluster} has no gateway address")
            return None
        ports = [{"name": "http", "port": PORT, "protocol": "TCP"}]
        self.add(SERVICE, name, model.model, spec={"ports": ports})
        self.add(
            SLICE,
            name,
            model.model,
            metadata={
                "labels": {
                    MANAGED_BY_LABEL: MANAGED_BY,
                    "endpointslice.kubernetes.io/managed-by": "isochrone",
                    "kubernetes.io/service-name": name,
                    MODEL_LABEL: model.model,
                    TRAFFIC_LABEL: "true",
                }
            },
            addressType="IPv6" if ":" in share.address else "IPv4",
            endpoints=[{"addresses": [share.address], "conditions": {"ready": True}}],
            ports=[{"name": "http", "port": share.port, "protocol": "TCP"}],
        )
        return {"group": "", "kind": "Service", "name": name, "port": PORT, "weight": share.weight}

    def _route(self, model: messages.ModelTraffic, refs: list[dict[str, Any]], *, pools: bool) -> None:
        """What others sent on is served here; everything else is shared out."""
        local: dict[str, Any] = {"group": "", "kind": "Service", "port": PORT, "weight": 1}
        local["name"] = service_name(model.model, self.traffic.cluster)
        if pools:
            local = {"group": POOL.group, "kind": POOL.kind, "name": model.model, "weight": 1}
        prefix = {"path": {"type": "PathPrefix", "value": "/"}}
        sent_on = [{"type": "RegularExpression", "name": FROM_HEADER, "value": ".+"}]
        mark = {"name": FROM_HEADER, "value": self.traffic.cluster}
        spec: dict[str, Any] = {
            "parentRefs": [{"group": HTTP_ROUTE.group, "kind": "Gateway", "name": GATEWAY}],
            "rules": [
                {"matches": [{**prefix, "headers": sent_on}], "backendRefs": [local]},
                {
                    "matches": [prefix],
                    "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [mark]}}],
                    "backendRefs": refs,
                },
            ],
        }
        if model.dns is not None:
            spec["hostnames"] = [f"{model.model}.{model.dns.zone}"]
        self.add(HTTP_ROUTE, model.model, model.model, spec=spec)

    def _pools(self, model: messages.ModelTraffic) -> None:
        """The pool of replicas here, exported; and the import of others': of those that the plan names."""
        name = model.model
        self.add(
            POOL,
            name,
            name,
            metadata={"annotations": {EXPORT_ANNOTATION: "ClusterSet"}},
            spec={"selector": {"matchLabels": {MODEL_LABEL: name}}, "targetPorts": [{"number": 8000}]},
        )
        others = [share.cluster for share in model.backends if share.cluster != self.traffic.cluster and share.weight]
        if others:
            clusters = [{"name": cluster} for cluster in sorted(others)]
            self.add(
                POOL_IMPORT,
                name,
                name,
                status={"controllers": [{"name": "isochrone.dev/controller", "exportingClusters": clusters}]},
            )

    def _dns(self, model: str, share: messages.DnsShare) -> None:
        """This cluster's records; every cluster publishes its own, under its own identifier."""
        here = self.traffic
        record: dict[str, Any] = {
            "dnsName": f"{model}.{share.zone}",
            "recordType": "AAAA" if ":" in here.address else "A",
            "targets": [here.address],
            "recordTTL": share.ttl_s,
        }

        def with_policy(identifier: str, name: str, value: str) -> dict[str, Any]:
            return {**record, "setIdentifier": identifier, "providerSpecific": [{"name": name, "value": value}]}

        records = []
        if share.provider == "any":
            if share.routing != "weighted":
                self.missing.append(f"routing {share.routing} needs a DNS provider that has it: aws")
            records = [record] if share.weight else []
        elif share.routing == "weighted":
            records = [with_policy(here.cluster, "aws/weight", str(share.weight))]
        elif share.routing == "geoproximity" and share.weight:
            place = f"{here.lat:.2f},{here.lon:.2f}"
            records = [with_policy(here.cluster, "aws/geoproximity-coordinates", place)]
        elif share.routing == "geolocation":
            records = [
                with_policy(f"{here.cluster}-{country}", "aws/geolocation-country-code", country)
                for country in share.countries
            ]
        self.add(DNS, model, model, spec={"endpoints": records})


def _merged(refs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """References to the same object as one, with the sum of their weights."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for ref in refs:
        key = (ref["group"], ref["kind"], ref["name"])
        weight = ref["weight"] + (found[key]["weight"] if key in found else 0)
        found[key] = {**ref, "weight": weight}
    return list(found.values())
