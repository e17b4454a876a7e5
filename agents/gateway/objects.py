"""From shares to the objects of Gateway API, multi-cluster Services, the inference extension and ExternalDNS. Pure.

What a cluster has installed decides: a kind that is missing gives no object, and a sentence. Names: each cluster's
replicas of a model are one Service or InferencePool `MODEL-CLUSTER-DIGEST`, exported under that name, so that weights
can tell clusters apart.

Sources: Gateway API "HTTPRoute" (at most 16 references in a rule; `timeouts`, where 0s is no limit); the inference
extension's InferencePool and InferencePoolImport; ExternalDNS "AWS" (a record for `*` answers who is in no other's).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agents.manifests.names import MANAGED_BY, MANAGED_BY_LABEL, MODEL_LABEL, TRAFFIC_LABEL, unique
from federation.wire import messages

GATEWAY = "isochrone"
"""The Gateway, in the models' namespace, that HTTPRoutes attach to: the platform team's, who choose its class."""
FROM_HEADER = "x-isochrone-from"
EXPORT_ANNOTATION = "inference.networking.x-k8s.io/export"
PORT = 80
MOST_REFS = 16
"""References that one rule of an HTTPRoute may have."""
NO_LIMIT = "0s"
"""Of a request's time: long answers are streamed, and a gateway would cut them after its own default."""
ANYWHERE = "*"
"""Route 53's country of whoever is in none that is named."""


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
    return unique(f"{'' if model[:1].isalpha() else 'm-'}{model}-{cluster}", model, cluster)


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
        # Who is sent nothing is not named: gateways fail a whole rule for one pool that is empty or not there.
        named = [share for share in model.backends if share.weight] or model.backends
        refs = [ref for share in named if (ref := self._backend(model, share, pools=pools)) is not None]
        refs = self._fewest(name, _merged(refs))
        if refs and self.has(HTTP_ROUTE, "requests are not routed by Gateway API"):
            self._route(model, refs, pools=pools)
        if model.dns is not None and self.has(DNS, f"names in {model.dns.zone} are not published"):
            self._dns(name, model.dns)

    def _backend(self, model: messages.ModelTraffic, share: messages.BackendShare, *, pools: bool) -> Any:
        """A weighted reference to one cluster's replicas, and the objects that it stands on."""
        name = service_name(model.model, share.cluster)
        if share.cluster == self.traffic.cluster:
            if pools:
                return {"group": POOL.group, "kind": POOL.kind, "name": name, "weight": share.weight}
            return {"group": "", "kind": "Service", "name": name, "port": PORT, "weight": share.weight}
        if pools:
            return {"group": POOL_IMPORT.group, "kind": POOL_IMPORT.kind, "name": name, "weight": share.weight}
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
        # A cluster of both families gives a Service one of them, and passes endpoints of the other over.
        families = {"ipFamilyPolicy": "PreferDualStack"} if ":" in share.address else {}
        self.add(SERVICE, name, model.model, spec={"ports": ports, **families})
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
            local = {"group": POOL.group, "kind": POOL.kind, "name": local["name"], "weight": 1}
        prefix = {"path": {"type": "PathPrefix", "value": "/"}}
        sent_on = [{"type": "RegularExpression", "name": FROM_HEADER, "value": ".+"}]
        mark = {"name": FROM_HEADER, "value": self.traffic.cluster}
        limits = {"timeouts": {"request": NO_LIMIT}}
        spec: dict[str, Any] = {
            "parentRefs": [{"group": HTTP_ROUTE.group, "kind": "Gateway", "name": GATEWAY}],
            "rules": [
                {"matches": [{**prefix, "headers": sent_on}], "backendRefs": [local], **limits},
                {
                    "matches": [prefix],
                    "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [mark]}}],
                    "backendRefs": refs,
                    **limits,
                },
            ],
        }
        if model.dns is not None:
            spec["hostnames"] = [f"{model.model}.{model.dns.zone}"]
        self.add(HTTP_ROUTE, model.model, model.model, spec=spec)

    def _fewest(self, model: str, refs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """As many as one rule may have: those of least weight go, and the others take their requests in proportion."""
        if len(refs) <= MOST_REFS:
            return refs
        ranked = sorted(refs, key=lambda one: (-one["weight"], one["name"]))
        kept = {one["name"] for one in ranked[:MOST_REFS]}
        lost = sum(one["weight"] for one in ranked[MOST_REFS:])
        text = (
            f"an HTTPRoute names {MOST_REFS} clusters, {model} has {len(refs)} here: those of least weight are left out"
        )
        self.missing.append(f"{text} ({lost} thousandths of its requests go to the others)")
        return [one for one in refs if one["name"] in kept]

    def _pools(self, model: messages.ModelTraffic) -> None:
        """The pool of replicas here, exported; and an import of each other's, so that weights tell them apart."""
        name, here = model.model, self.traffic.cluster
        self.add(
            POOL,
            service_name(name, here),
            name,
            metadata={"annotations": {EXPORT_ANNOTATION: "ClusterSet"}},
            spec={"selector": {"matchLabels": {MODEL_LABEL: name}}, "targetPorts": [{"number": model.port}]},
        )
        for share in model.backends:
            if share.cluster != here and share.weight:
                clusters = [{"name": share.cluster}]
                self.add(
                    POOL_IMPORT,
                    service_name(name, share.cluster),
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
            if share.is_default:  # else who is in no country that is named would get no answer
                records.append(with_policy(f"{here.cluster}-default", "aws/geolocation-country-code", ANYWHERE))
        self.add(DNS, model, model, spec={"endpoints": records})


def without_timeouts(route: dict[str, Any]) -> dict[str, Any]:
    """The same HTTPRoute for a definition that knows none."""
    rules = [{key: value for key, value in rule.items() if key != "timeouts"} for rule in route["spec"]["rules"]]
    return {**route, "spec": {**route["spec"], "rules": rules}}


def _merged(refs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """References to the same object as one, with the sum of their weights."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for ref in refs:
        key = (ref["group"], ref["kind"], ref["name"])
        weight = ref["weight"] + (found[key]["weight"] if key in found else 0)
        found[key] = {**ref, "weight": weight}
    return list(found.values())
