"""From bytes to documents, or to problems with file:line:column, the expected form and a hint. Never raises.

`documents.py` has the schema. This module finds the faults of a single file; `catalogue.py` finds those between files.
"""

from __future__ import annotations

import ipaddress
import itertools
from dataclasses import dataclass, replace

import msgspec

from federation.policy import documents
from federation.yamlkit.explain import Problem, did_you_mean, explain, find, problem_at, refusals, short, without_nulls
from federation.yamlkit.source import START, Position, YamlNode, YamlProblem, read

CURVE_ROUNDING = 1e-6
"""The fraction by which a slope may be below the one before it: decimals in a file are not exact."""
KINDS = {"Model": documents.Model, "PlacementPolicy": documents.PlacementPolicy, "Cluster": documents.Cluster}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A document and the node that it was read from, so that later checks can say where."""

    document: documents.Document
    node: YamlNode

    @property
    def kind(self) -> str:
        """Model, PlacementPolicy or Cluster."""
        return type(self.document).__name__

    @property
    def name(self) -> str:
        """The document's own name."""
        return self.document.metadata.name

    def mark(self, *path: str | int) -> Position:
        """The position of a field; of the nearest existing part of its path if it is absent."""
        return find(self.node, path)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFile:
    """One file: its documents, or its problems (then no documents).

    `readable` are the documents without problems in a file that has some.
    """

    name: str
    documents: tuple[Placed, ...] = ()
    problems: tuple[Problem, ...] = ()
    readable: tuple[Placed, ...] = ()


def parse(name: str, payload: bytes) -> ParsedFile:
    """The documents of a file, or all problems that can be told apart, in order of position."""
    try:
        nodes = read(payload)
    except YamlProblem as error:
        found = problem_at(name, error.mark, error.message, error.expected, error.hint)
        return ParsedFile(name=name, problems=(replace(found, unread=True),))
    nodes = tuple(each for one in nodes if not one.is_null for each in _listed(one))
    if not nodes:
        empty = problem_at(
            name, START, "the file has no document", "a Model, PlacementPolicy or Cluster", "see configs/policies"
        )
        return ParsedFile(name=name, problems=(replace(empty, unread=True),))
    placed: list[Placed] = []
    problems: list[Problem] = []
    for node in nodes:
        one = _document(name, node)
        wrong = _semantics(name, one) if isinstance(one, Placed) else [replace(bad, unread=True) for bad in one]
        problems += wrong
        if isinstance(one, Placed) and not wrong:
            placed.append(one)
    if problems:
        return ParsedFile(name=name, problems=tuple(sorted(problems)), readable=tuple(placed))
    return ParsedFile(name=name, documents=tuple(placed))


def _listed(node: YamlNode) -> tuple[YamlNode, ...]:
    """The documents of a list, as `kubectl get -o yaml` writes it; otherwise the document itself."""
    kind, items = (node.items or {}).get("kind"), (node.items or {}).get("items")
    if kind is None or items is None or items.elements is None:
        return (node,)
    return items.elements if kind.value in ("List", *(f"{one}List" for one in KINDS)) else (node,)


def _document(name: str, node: YamlNode) -> Placed | list[Problem]:
    """The document, or its problems."""
    if node.items is None:
        return [problem_at(name, node.mark, "this document is not a mapping", "apiVersion, kind, metadata and spec")]
    for key in ("apiVersion", "kind"):
        if key not in node.items:
            return [
                problem_at(name, node.mark, f"{key} is missing", _expected_of(key), f"add {key}: {_expected_of(key)}")
            ]
    version, kind = node.items["apiVersion"], node.items["kind"]
    if version.value != documents.API_VERSION:
        return [problem_at(name, version.mark, f"unknown apiVersion {short(version.value)}", documents.API_VERSION)]
    if kind.value not in KINDS:
        hint = did_you_mean(str(kind.value), KINDS)
        return [problem_at(name, kind.mark, f"unknown kind {short(kind.value)}", " or ".join(KINDS), hint)]
    kind_of = KINDS[kind.value]
    try:
        return Placed(document=msgspec.convert(node.plain(), kind_of, strict=True), node=node)
    except msgspec.ValidationError as error:
        refused = error
    if node.has_null():
        node = without_nulls(node, kind_of)
        try:
            return Placed(document=msgspec.convert(node.plain(), kind_of, strict=True), node=node)
        except msgspec.ValidationError as error:
            refused = error
    return [explain(name, node, kind_of, text) for text in refusals(node, kind_of) or (str(refused),)]


def _expected_of(key: str) -> str:
    return documents.API_VERSION if key == "apiVersion" else "Model, PlacementPolicy or Cluster"


def _semantics(name: str, placed: Placed) -> list[Problem]:
    """Rules on one document that the types cannot express."""
    document = placed.document
    if isinstance(document, documents.Model):
        return _check_model(name, placed, document.spec)
    if isinstance(document, documents.PlacementPolicy):
        return _check_policy(name, placed, document.spec)
    return [*_check_front_door(name, placed, document.spec), *_check_pools(name, placed, document.spec)]


def _check_model(name: str, placed: Placed, spec: documents.ModelSpec) -> list[Problem]:
    problems = []
    if spec.service_latency_ms >= spec.slo.p95_latency_ms:
        mark = placed.mark("spec", "serviceLatencyMs")
        text = (
            f"serviceLatencyMs {spec.service_latency_ms:g} leaves nothing of p95LatencyMs {spec.slo.p95_latency_ms:g}"
        )
        problems.append(problem_at(name, mark, text, "less than the objective", "every request would be late"))
    said, port = spec.runtime.port_of_args, spec.runtime.port
    if said is not None and port is not None and said != port:
        mark = placed.mark("spec", "runtime", "port")
        option = documents.PORT_OPTIONS[spec.runtime.preset]
        text = f"port {port} is not what args say ({option} {said}): requests and probes would find no server"
        problems.append(problem_at(name, mark, text, "one of them", "leave port out"))
    seen: set[tuple[str, str | None]] = set()
    for number, one in enumerate(spec.accelerators):
        key = (one.product, one.mig_profile)
        if key in seen:
            mark = placed.mark("spec", "accelerators", number)
            problems.append(problem_at(name, mark, f"{one.product} appears twice", "each product and MIG profile once"))
        seen.add(key)
    return problems


def _check_policy(name: str, placed: Placed, spec: documents.PlacementPolicySpec) -> list[Problem]:
    problems = []
    floors = spec.availability
    if floors.min_regions > floors.min_replicas:
        mark = placed.mark("spec", "availability", "minRegions")
        text = f"minRegions {floors.min_regions} needs more replicas than minReplicas {floors.min_replicas}"
        hint = f"write minReplicas: {floors.min_regions}"
        problems.append(problem_at(name, mark, text, "at most minReplicas", hint))
    if floors.survive_within_objective_percent and floors.survive is None:
        mark = placed.mark("spec", "availability", "surviveWithinObjectivePercent")
        text = "surviveWithinObjectivePercent does not say what is lost"
        problems.append(problem_at(name, mark, text, "survive beside it", "write survive: region (or zone, provider)"))
    problems += _check_objective(name, placed, spec.objective)
    problems += _check_limits(name, placed, spec)
    for number, rule in enumerate(spec.residency):
        for earlier in spec.residency[:number]:
            shared = _shared_countries(rule, earlier)
            disjoint = set(rule.clusters_in.jurisdictions).isdisjoint(earlier.clusters_in.jurisdictions)
            if shared and disjoint:
                mark = placed.mark("spec", "residency", number)
                allowed = ", ".join(rule.clusters_in.jurisdictions)
                before = ", ".join(earlier.clusters_in.jurisdictions)
                text = f"residency contradicts itself: {shared} must stay in {before} and in {allowed}"
                problems.append(problem_at(name, mark, text, "rules that can hold together", "put both in one rule"))
    return [*problems, *_check_traffic(name, placed, spec.traffic)]


def _check_objective(name: str, placed: Placed, objective: documents.Objective) -> list[Problem]:
    given = {
        "latencyUsdPer1000PerMs": objective.latency_usd_per_1000_per_ms is not None,
        "latencyCost": objective.latency_cost is not None,
        "preference": objective.preference == "nearest",
    }
    several = [field for field, is_given in given.items() if is_given]
    if len(several) > 1:
        mark = placed.mark("spec", "objective", several[1])
        text = f"{several[1]} beside {several[0]}: both say what latency costs"
        return [problem_at(name, mark, text, "one of them", f"leave {several[0]} out")]
    if objective.latency_cost is not None:
        bent = _check_curve(name, placed, objective.latency_cost)
        if bent:
            return bent
    field = "latencyCost" if objective.rises else "latencyUsdPer1000PerMs"
    slope = objective.rises[-1][1] if objective.rises else objective.latency_usd_per_1000_per_ms
    lost = objective.unserved_request_usd_per_1000
    far = (slope or 0.0) * documents.FARTHEST_MS + objective.late_request_usd_per_1000
    if not slope or far < lost:
        return []
    mark = placed.mark("spec", "objective", field)
    text = (
        f"a late request over {documents.FARTHEST_MS:.0f} ms would cost {far:g} USD per 1,000 and an unserved one "
        f"{lost:g}: users far away would rather be turned away"
    )
    most = max(0.0, (lost - objective.late_request_usd_per_1000) / documents.FARTHEST_MS)
    unit = " USD per 1,000 and ms at its steepest" if objective.rises else ""
    return [problem_at(name, mark, text, f"less than {most:.3g}{unit}", "or raise unservedRequestUsdPer1000")]


def _check_curve(name: str, placed: Placed, points: tuple[documents.LatencyPoint, ...]) -> list[Problem]:
    """Latency must cost ever more as it grows: otherwise a plan would gain by serving users from farther away."""
    slope = 0.0
    for at, (one, other) in enumerate(itertools.pairwise(points), start=1):
        if other.ms <= one.ms:
            mark = placed.mark("spec", "objective", "latencyCost", at, "ms")
            text = f"latencyCost goes back from {one.ms:g} to {other.ms:g} ms"
            return [problem_at(name, mark, text, f"more than {one.ms:g}", "write the points by rising ms")]
        rises = (other.usd_per_1000 - one.usd_per_1000) / (other.ms - one.ms)
        if rises < slope * (1 - CURVE_ROUNDING):
            mark = placed.mark("spec", "objective", "latencyCost", at, "usdPer1000")
            least = one.usd_per_1000 + slope * (other.ms - one.ms)
            text = f"latencyCost rises by {rises:.3g} USD per 1,000 and ms up to {other.ms:g} ms, by {slope:.3g} before"
            hint = "a curve that flattens would send those far away still farther; being late costs by itself"
            return [problem_at(name, mark, text, f"at least {least:.6g}", hint)]
        slope = max(slope, rises)
    return []


def _check_limits(name: str, placed: Placed, spec: documents.PlacementPolicySpec) -> list[Problem]:
    problems = []
    most = spec.availability.max_replicas
    if most is not None:
        pinned = sum(pin.replicas for pin in spec.availability.pinned)
        floors = {
            f"minReplicas {spec.availability.min_replicas}": spec.availability.min_replicas,
            f"minOnDemandReplicas {spec.spot.min_on_demand_replicas}": spec.spot.min_on_demand_replicas,
            f"the {pinned} replicas that are pinned": pinned,
        }
        for floor, least in floors.items():
            if most < least:
                mark = placed.mark("spec", "availability", "maxReplicas")
                text = f"maxReplicas {most} is less than {floor}"
                problems.append(problem_at(name, mark, text, f"at least {least}", f"write maxReplicas: {least}"))
                break
    if (most is not None or spec.budget.max_usd_per_hour is not None) and spec.autoscaling.burst_replicas > 0:
        mark = placed.mark("spec", "autoscaling", "burstReplicas")
        limit = "maxReplicas" if most is not None else "maxUsdPerHour"
        text = f"burstReplicas {spec.autoscaling.burst_replicas} lets clusters start replicas beyond {limit}"
        problems.append(problem_at(name, mark, text, f"0 beside {limit}", "write burstReplicas: 0"))
    return problems


def _check_traffic(name: str, placed: Placed, traffic: documents.Traffic) -> list[Problem]:
    problems = []
    if traffic.dns is not None and traffic.dns.routing != "weighted" and traffic.dns.provider == "any":
        mark = placed.mark("spec", "traffic", "dns", "routing")
        text = f"plain records cannot route by {traffic.dns.routing}"
        problems.append(problem_at(name, mark, text, "routing: weighted, or provider: aws"))
    header = traffic.session_header or ""
    if header.startswith("x-isochrone-") or header == "x-gateway-model-name":
        mark = placed.mark("spec", "traffic", "sessionHeader")
        text = f"{header} says something else to gateways"
        problems.append(problem_at(name, mark, text, "a header that tells sessions apart", "as x-session-id"))
    return problems


def _check_front_door(name: str, placed: Placed, spec: documents.ClusterSpec) -> list[Problem]:
    if spec.gateway is None:
        return []
    mark = placed.mark("spec", "gateway", "address")
    try:
        address = ipaddress.ip_address(spec.gateway.address)
        if not (address.is_unspecified or address.is_multicast or address.is_link_local):
            return []
    except ValueError:
        pass
    return [
        problem_at(
            name, mark, f"{spec.gateway.address} is not an address that can be reached", "an IP address, as 192.0.2.10"
        )
    ]


def _shared_countries(rule: documents.ResidencyRule, other: documents.ResidencyRule) -> str:
    """Users whom both rules bind; empty if there are none."""
    if rule.users_in is None or other.users_in is None:
        bound = rule.users_in or other.users_in
        return ", ".join(bound.countries) if bound else "all users"
    return ", ".join(sorted(set(rule.users_in.countries) & set(other.users_in.countries)))


def _check_pools(name: str, placed: Placed, spec: documents.ClusterSpec) -> list[Problem]:
    problems = []
    seen: set[tuple[str, str | None, str]] = set()
    for number, one in enumerate(spec.accelerators):
        key = (one.product, one.mig_profile, one.market)
        if key in seen:
            mark = placed.mark("spec", "accelerators", number)
            problems.append(
                problem_at(name, mark, f"pool {one.product} ({one.market}) appears twice", "each pool once")
            )
        seen.add(key)
        if one.market != "spot" and (one.losses_per_hour is not None or one.replacement_chance is not None):
            mark = placed.mark("spec", "accelerators", number)
            text = f"pool {one.product} ({one.market}) is not taken back"
            problems.append(problem_at(name, mark, text, "lossesPerHour and replacementChance with market: spot alone"))
    return problems
