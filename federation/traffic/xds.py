"""A gateway's table as Envoy resources: clusters, endpoints, routes. Pure; equal tables give equal bytes.

The configuration keeps serving without a controller: every endpoint is health-checked through to a replica and ejected
when it fails requests, and a failed try goes to another endpoint. A request that another gateway forwarded is served
here or refused, so no request goes round in circles.

A request names its model by the host's first label (`chat-8b.example.com`) or by the header of Gateway API's inference
extension. It names a cell, a class and a session by headers that the proxy in front of the gateway sets.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import (
    address_pb2,
    base_pb2,
    config_source_pb2,
    health_check_pb2,
)
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2
from envoy.type.v3 import percent_pb2, token_bucket_pb2
from google.protobuf import any_pb2, duration_pb2, message, struct_pb2, wrappers_pb2

from federation.traffic.table import OTHER_CELLS, Address, GatewayTable, Group, ModelTable

PREFIX = "type.googleapis.com/"
CDS = f"{PREFIX}envoy.config.cluster.v3.Cluster"
EDS = f"{PREFIX}envoy.config.endpoint.v3.ClusterLoadAssignment"
RDS = f"{PREFIX}envoy.config.route.v3.RouteConfiguration"
TYPES = (CDS, EDS, RDS)
"""In the order of make before break: a resource comes after those that it refers to."""
SHORT = {CDS: "clusters", EDS: "endpoints", RDS: "routes"}

ROUTE_CONFIG = "isochrone"
"""The route configuration that a gateway's listener asks for."""
MODEL_HEADER = "x-gateway-model-name"
CELL_HEADER = "x-isochrone-cell"
PRIORITY_HEADER = "x-isochrone-priority"
FROM_HEADER = "x-isochrone-from"
"""Set by the gateway that forwards a request; a request with this header is served here or refused."""

WHOLE = 1_000_000
"""Weights of one priority sum to about this: shares to one in a million, far below Envoy's limit of 2^32 - 1."""
CHECK_S, CHECK_TIMEOUT_S = 1.0, 1.0
LONGEST_SILENCE_S = 3600.0
"""The longest silence of an answer in progress, on either side: a client that does not stream hears nothing until the
answer is complete."""
UNHEALTHY_AFTER, HEALTHY_AFTER = 2, 2
EJECT_AFTER = 3
EJECTION_S, LONGEST_EJECTION_S = 5.0, 60.0
PANIC_PERCENT = 1.0
"""Envoy ignores health only when no endpoint at all is healthy."""
RETRIES = 3
KEPT = 8192
"""Built clusters and routes that are kept: a step of a shift changes endpoints only."""
MANY = 1_000_000
"""Rates at the receiver bound the load, not Envoy's default of 1024 concurrent requests: a stream of tokens lasts
long."""
REFUSED, SENT = "refused", "sent"
"""Prefixes of statistics that count requests of one model and cell (`refused|chat-8b|Berlin`): refused requests, and
requests of a cell without an Envoy cluster of its own; the cluster of the cell's group counts the latter too."""
CLIENT_SECRET, AUTHORITY_SECRET = "isochrone_client", "isochrone_authority"
TLS, PLAIN = "tls", "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One resource as it is sent. `version` is a digest of its content."""

    name: str
    type_url: str
    version: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All resources of one gateway: type -> name -> resource."""

    by_type: Mapping[str, Mapping[str, Resource]] = field(default_factory=dict)

    def of(self, type_url: str) -> Mapping[str, Resource]:
        """The resources of one type."""
        return self.by_type.get(type_url, {})

    def version(self, type_url: str) -> str:
        """A digest over all resources of a type: equal content gives equal versions, whichever controller computes
        it."""
        return _digest("\n".join(f"{name} {one.version}" for name, one in sorted(self.of(type_url).items())).encode())


def snapshot(table: GatewayTable) -> Snapshot:
    """All resources of one gateway."""
    clusters: dict[str, Resource] = {}
    endpoints: dict[str, Resource] = {}
    by_tls = any(name != table.cluster and not _is_loopback(one.address) for name, one in table.gateways.items())
    for model in table.models:
        made = [(cluster_name(model.model, group.cell), group, by_tls) for group in model.groups if group.shares]
        if model.local:
            alone = Group(cell="", shares={table.cluster: 1.0}, overflow={})
            made.append((local_name(model.model), alone, False))
        for name, group, tls in made:
            clusters[name] = _cluster(
                name, model.model, table.cluster, model.health_path, model.traffic.session_header is not None, tls
            )
            endpoints[name] = resource(EDS, name, _assignment(name, model, group, table))
    routes = _routes(table.cluster, tuple(_Routed.of(model) for model in table.models))
    return Snapshot(by_type={CDS: clusters, EDS: endpoints, RDS: {ROUTE_CONFIG: routes}})


class _Routed(NamedTuple):
    """The part of a model's table that its routes depend on. `groups`: (cell, whether a cluster serves it, unserved
    fraction)."""

    model: str
    session_header: str | None
    health_path: str
    local: bool
    spill_rps: float
    groups: tuple[tuple[str, bool, float], ...]
    declared: tuple[str, ...]

    @classmethod
    def of(cls, table: ModelTable) -> _Routed:
        return cls(
            model=table.model,
            session_header=table.traffic.session_header,
            health_path=table.health_path,
            local=bool(table.local),
            spill_rps=table.spill_rps,
            groups=tuple((one.cell, bool(one.shares), one.unserved) for one in table.groups),
            declared=table.declared,
        )


def resource(type_url: str, name: str, body: message.Message) -> Resource:
    """A message as a resource, versioned by its content."""
    payload = body.SerializeToString(deterministic=True)
    return Resource(name=name, type_url=type_url, version=_digest(payload), body=payload)


def _digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()[:16]


def cluster_name(model: str, cell: str) -> str:
    """The Envoy cluster that serves one cell; with an empty cell, requests that name none."""
    if cell == OTHER_CELLS:
        return f"{model}|others"
    return f"{model}|cell|{cell}" if cell else f"{model}|any"


def local_name(model: str) -> str:
    """The Envoy cluster of the gateway's own replicas."""
    return f"{model}|local"


# ---- clusters


@functools.lru_cache(maxsize=KEPT)
def _cluster(name: str, model: str, gateway: str, health_path: str, sticky: bool, tls: bool) -> Resource:
    made = cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.EDS,
        eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(
            eds_config=config_source_pb2.ConfigSource(
                ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
            )
        ),
        connect_timeout=_seconds(1.0),
        lb_policy=cluster_pb2.Cluster.MAGLEV if sticky else cluster_pb2.Cluster.ROUND_ROBIN,
        common_lb_config=cluster_pb2.Cluster.CommonLbConfig(
            locality_weighted_lb_config=cluster_pb2.Cluster.CommonLbConfig.LocalityWeightedLbConfig(),
            healthy_panic_threshold=percent_pb2.Percent(value=PANIC_PERCENT),
            # Else a replica that starts takes its cluster's share away until it has been checked.
            ignore_new_hosts_until_first_hc=True,
        ),
        health_checks=[_health_check(model, health_path, gateway)],
        outlier_detection=_outlier_detection(),
        circuit_breakers=circuit_breaker_pb2.CircuitBreakers(
            thresholds=[_threshold(base_pb2.DEFAULT), _threshold(base_pb2.HIGH)]
        ),
        ignore_health_on_host_removal=True,
        # A new cluster must not keep its route waiting for the first round of health checks.
        wait_for_warm_on_init=wrappers_pb2.BoolValue(value=False),
        transport_socket_matches=[*([_tls()] if tls else []), _plain()],
    )
    return resource(CDS, name, made)


def _threshold(priority: base_pb2.RoutingPriority.ValueType) -> circuit_breaker_pb2.CircuitBreakers.Thresholds:
    return circuit_breaker_pb2.CircuitBreakers.Thresholds(
        priority=priority,
        max_connections=_uint(MANY),
        max_pending_requests=_uint(MANY),
        max_requests=_uint(MANY),
        # Tries beyond a fifth of what is under way are storms: they would fell the next cluster too.
        retry_budget=circuit_breaker_pb2.CircuitBreakers.Thresholds.RetryBudget(
            budget_percent=percent_pb2.Percent(value=20.0), min_retry_concurrency=_uint(10)
        ),
    )


def _health_check(model: str, health_path: str, gateway: str) -> health_check_pb2.HealthCheck:
    made = health_check_pb2.HealthCheck(
        timeout=_seconds(CHECK_TIMEOUT_S),
        interval=_seconds(CHECK_S),
        no_traffic_interval=_seconds(CHECK_S),
        interval_jitter=_seconds(CHECK_S / 10),
        unhealthy_threshold=_uint(UNHEALTHY_AFTER),
        healthy_threshold=_uint(HEALTHY_AFTER),
    )
    if health_path:
        # Through another cluster's gateway to a replica behind it: a gateway without one is no help.
        headers = [_header(MODEL_HEADER, model), _header(FROM_HEADER, gateway)]
        made.http_health_check.CopyFrom(
            health_check_pb2.HealthCheck.HttpHealthCheck(path=health_path, host=model, request_headers_to_add=headers)
        )
    else:
        made.tcp_health_check.CopyFrom(health_check_pb2.HealthCheck.TcpHealthCheck())
    return made


def _outlier_detection() -> outlier_detection_pb2.OutlierDetection:
    return outlier_detection_pb2.OutlierDetection(
        interval=_seconds(1.0),
        base_ejection_time=_seconds(EJECTION_S),
        max_ejection_time=_seconds(LONGEST_EJECTION_S),
        max_ejection_percent=_uint(100),
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=_uint(EJECT_AFTER),
        consecutive_gateway_failure=_uint(EJECT_AFTER),
        enforcing_consecutive_gateway_failure=_uint(100),
        consecutive_5xx=_uint(10),
        enforcing_success_rate=_uint(0),
        enforcing_local_origin_success_rate=_uint(0),
    )


def _tls() -> cluster_pb2.Cluster.TransportSocketMatch:
    """mTLS to other gateways, required beyond loopback.

    The server name, which their certificate must carry, is that of the endpoint's cluster.
    """
    context = tls_pb2.UpstreamTlsContext(
        auto_host_sni=True,
        auto_sni_san_validation=True,
        common_tls_context=tls_pb2.CommonTlsContext(
            tls_certificate_sds_secret_configs=[secret_pb2.SdsSecretConfig(name=CLIENT_SECRET)],
            validation_context_sds_secret_config=secret_pb2.SdsSecretConfig(name=AUTHORITY_SECRET),
        ),
    )
    return _socket(TLS, "envoy.transport_sockets.tls", context)


def _plain() -> cluster_pb2.Cluster.TransportSocketMatch:
    return _socket(PLAIN, "envoy.transport_sockets.raw_buffer", raw_buffer_pb2.RawBuffer())


def _socket(key: str, kind: str, config: message.Message) -> cluster_pb2.Cluster.TransportSocketMatch:
    return cluster_pb2.Cluster.TransportSocketMatch(
        name=key,
        match=struct_pb2.Struct(fields={"socket": struct_pb2.Value(string_value=key)}),
        transport_socket=base_pb2.TransportSocket(name=kind, typed_config=_any(config)),
    )


# ---- endpoints


def _assignment(name: str, model: ModelTable, group: Group, table: GatewayTable) -> endpoint_pb2.ClusterLoadAssignment:
    """The planned clusters first, each a locality weighted by its share; helpers follow at a lower priority."""
    made = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    made.policy.weighted_priority_health = True
    # The default of 140 hides the loss of two in seven: what is lost is to be taken up elsewhere at once.
    made.policy.overprovisioning_factor.value = 100
    for priority, weights in enumerate((group.shares, group.overflow)):
        whole = sum(weights.values())
        for cluster, part in sorted(weights.items()):
            addresses = model.local if cluster == table.cluster else _gateway_address(table, cluster)
            if addresses:
                weight = max(1, round(WHOLE * part / whole))
                made.endpoints.append(_locality(table, cluster, addresses, weight, priority))
    return made


def _gateway_address(table: GatewayTable, cluster: str) -> tuple[Address, ...]:
    gateway = table.gateways.get(cluster)
    return ((gateway.address, gateway.port),) if gateway is not None else ()


def _locality(
    table: GatewayTable, cluster: str, addresses: Iterable[Address], weight: int, priority: int
) -> endpoint_components_pb2.LocalityLbEndpoints:
    addresses = tuple(addresses)
    away = cluster != table.cluster
    key = TLS if away and not _is_loopback(table.gateways[cluster].address) else PLAIN
    metadata = base_pb2.Metadata()
    metadata.filter_metadata["envoy.transport_socket_match"].update({"socket": key})
    return endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(region=table.regions.get(cluster, cluster), zone=cluster),
        load_balancing_weight=_uint(weight),
        priority=priority,
        lb_endpoints=[
            endpoint_components_pb2.LbEndpoint(
                endpoint=endpoint_components_pb2.Endpoint(
                    address=_address(host, port), hostname=cluster if key == TLS else ""
                ),
                # So that a priority's health is the health of what is sent there, not of how many addresses it has.
                load_balancing_weight=_uint(max(1, weight // len(addresses))),
                metadata=metadata,
            )
            for host, port in addresses
        ],
    )


# ---- routes


MEASURE_PATH = "/.well-known/isochrone"
"""Where a gateway answers browsers that measure the way to it (RFC 8615)."""


@functools.lru_cache(maxsize=KEPT)
def _routes(gateway: str, models: tuple[_Routed, ...]) -> Resource:
    made = route_pb2.RouteConfiguration(name=ROUTE_CONFIG, most_specific_header_mutations_wins=True)
    rest: list[route_components_pb2.Route] = []
    for model in models:
        made.virtual_hosts.append(
            route_components_pb2.VirtualHost(
                name=model.model, domains=[model.model, f"{model.model}.*"], routes=_model_routes(model, gateway, ())
            )
        )
        rest += _model_routes(model, gateway, [_matcher(MODEL_HEADER, model.model)])
    for host in made.virtual_hosts:
        host.routes.insert(0, _measured())
    rest.insert(0, _measured())
    rest.append(_refusal((), 404, "no such model here"))
    made.virtual_hosts.append(route_components_pb2.VirtualHost(name="by-header", domains=["*"], routes=rest))
    return resource(RDS, ROUTE_CONFIG, made)


def _model_routes(
    model: _Routed, gateway: str, also: Iterable[route_components_pb2.HeaderMatcher]
) -> list[route_components_pb2.Route]:
    also = list(also)
    made = []
    sent_on = [*also, _present(FROM_HEADER)]
    if model.local:
        name = local_name(model.model)
        if model.health_path:
            checks = _route(model, gateway, name, sent_on)
            checks.match.path = model.health_path
            made.append(checks)
        made.append(_route(model, gateway, name, [*sent_on, _matcher(PRIORITY_HEADER, "high")], high=True))
        capped = _route(model, gateway, name, sent_on)
        capped.typed_per_filter_config["envoy.filters.http.local_ratelimit"].CopyFrom(_any(_spill_cap(model)))
        made.append(capped)
    else:
        made.append(_refusal(sent_on, 503, f"no replica of {model.model} in {gateway}"))
    groups = {cell: (served, unserved) for cell, served, unserved in model.groups}
    for cell in sorted(groups.keys() - {"", OTHER_CELLS}):
        made += _of_users(model, gateway, [*also, _matcher(CELL_HEADER, cell)], cell, *groups[cell])
    rest = OTHER_CELLS if OTHER_CELLS in groups else ""
    for cell in model.declared if rest in groups else ():
        made += _of_users(model, gateway, [*also, _matcher(CELL_HEADER, cell)], rest, *groups[rest], named=cell)
    if OTHER_CELLS in groups:
        made += _of_users(model, gateway, [*also, _present(CELL_HEADER)], OTHER_CELLS, *groups[OTHER_CELLS])
    if "" in groups:
        made += _of_users(model, gateway, also, "", *groups[""])
    return made


def _of_users(
    model: _Routed,
    gateway: str,
    matchers: list[route_components_pb2.HeaderMatcher],
    group: str,
    served: bool,
    unserved: float,
    *,
    named: str = "",
) -> list[route_components_pb2.Route]:
    """Of requests that are shared out as a group's, and name the cell `named` where that has none of its own.

    Envoy counts what it sends by cluster. What it refuses, and what it sends for such a cell, is counted by name.
    """
    cell = named or ("" if group == OTHER_CELLS else group)
    refused = f"{REFUSED}|{model.model}|{cell}"
    if not served:
        return [_counted(_refusal(matchers, 503, f"nobody can serve {model.model}"), refused)]
    name = cluster_name(model.model, group)
    sent = [
        _route(model, gateway, name, [*matchers, _matcher(PRIORITY_HEADER, "high")], high=True),
        _route(model, gateway, name, matchers),
    ]
    if named:
        sent = [_counted(one, f"{SENT}|{model.model}|{cell}") for one in sent]
    return [sent[0], *([_counted(_shed(matchers, unserved), refused)] if unserved else []), sent[1]]


def _counted(route: route_components_pb2.Route, name: str) -> route_components_pb2.Route:
    """The route, whose requests are counted by this name: a limit that is enforced on nobody counts everybody."""
    whole = base_pb2.RuntimeFractionalPercent(default_value=percent_pb2.FractionalPercent(numerator=100))
    limit = local_rate_limit_pb2.LocalRateLimit(
        stat_prefix=name,
        token_bucket=token_bucket_pb2.TokenBucket(
            max_tokens=MANY, tokens_per_fill=_uint(MANY), fill_interval=_seconds(1.0)
        ),
        filter_enabled=whole,
    )
    route.typed_per_filter_config["envoy.filters.http.local_ratelimit"].CopyFrom(_any(limit))
    return route


def _route(
    model: _Routed,
    gateway: str,
    cluster: str,
    matchers: Iterable[route_components_pb2.HeaderMatcher],
    *,
    high: bool = False,
) -> route_components_pb2.Route:
    action = route_components_pb2.RouteAction(
        cluster=cluster,
        timeout=_seconds(0.0),
        idle_timeout=_seconds(LONGEST_SILENCE_S),
        priority=base_pb2.HIGH if high else base_pb2.DEFAULT,
        retry_policy=_retry_policy(),
    )
    if model.session_header is not None:
        header = route_components_pb2.RouteAction.HashPolicy.Header(header_name=model.session_header)
        action.hash_policy.append(route_components_pb2.RouteAction.HashPolicy(header=header))
    return route_components_pb2.Route(
        match=route_components_pb2.RouteMatch(prefix="/", headers=list(matchers)),
        route=action,
        request_headers_to_add=[_header(FROM_HEADER, gateway), _header(MODEL_HEADER, model.model)],
    )


def _retry_policy() -> route_components_pb2.RetryPolicy:
    """Inference has no side effects, so a failed try may be repeated elsewhere; a refusal for overload may not.

    Envoy does not retry a response with `x-envoy-ratelimited` or `x-envoy-overloaded`, so load that one cluster sheds
    does not hit the next.
    """
    return route_components_pb2.RetryPolicy(
        retry_on="connect-failure,refused-stream,reset,gateway-error",
        num_retries=_uint(RETRIES),
        retry_host_predicate=[
            route_components_pb2.RetryPolicy.RetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=_any(previous_hosts_pb2.PreviousHostsPredicate()),
            )
        ],
        host_selection_retry_max_attempts=8,
        # What the plan named has failed: the next try goes to what could help besides, not to its neighbour.
        retry_priority=route_components_pb2.RetryPolicy.RetryPriority(
            name="envoy.retry_priorities.previous_priorities",
            typed_config=_any(previous_priorities_config_pb2.PreviousPrioritiesConfig(update_frequency=1)),
        ),
        retry_back_off=route_components_pb2.RetryPolicy.RetryBackOff(
            base_interval=_seconds(0.01), max_interval=_seconds(0.1)
        ),
    )


def _measured() -> route_components_pb2.Route:
    """What browsers fetch to measure the way here: answered by the gateway itself, and open to every page."""
    made = route_components_pb2.Route(
        match=route_components_pb2.RouteMatch(path=MEASURE_PATH),
        direct_response=route_components_pb2.DirectResponseAction(status=204),
    )
    for name, value in (
        ("access-control-allow-origin", "*"),
        ("timing-allow-origin", "*"),
        ("cache-control", "no-store"),
        ("server-timing", "isochrone;dur=0"),
    ):
        made.response_headers_to_add.append(_header(name, value))
    return made


def _refusal(
    matchers: Iterable[route_components_pb2.HeaderMatcher], status: int, text: str
) -> route_components_pb2.Route:
    return route_components_pb2.Route(
        match=route_components_pb2.RouteMatch(prefix="/", headers=list(matchers)),
        direct_response=route_components_pb2.DirectResponseAction(
            status=status, body=base_pb2.DataSource(inline_string=f"{text}\n")
        ),
    )


def _shed(matchers: Iterable[route_components_pb2.HeaderMatcher], part: float) -> route_components_pb2.Route:
    """Refuses the fraction of requests without room before it slows down the others."""
    made = _refusal(matchers, 503, "no room: the models' capacity is used up")
    made.match.runtime_fraction.default_value.CopyFrom(
        percent_pb2.FractionalPercent(
            numerator=round(part * 1_000_000), denominator=percent_pb2.FractionalPercent.MILLION
        )
    )
    made.response_headers_to_add.append(_header("retry-after", "1"))
    made.response_headers_to_add.append(_header("x-envoy-overloaded", "true"))
    return made


def _spill_cap(model: _Routed) -> local_rate_limit_pb2.LocalRateLimit:
    """A cap on requests from other gateways: a full receiver is not overloaded by gateways that lost another
    cluster."""
    tokens = max(1, round(model.spill_rps))
    whole = base_pb2.RuntimeFractionalPercent(default_value=percent_pb2.FractionalPercent(numerator=100))
    return local_rate_limit_pb2.LocalRateLimit(
        stat_prefix=f"spill_{model.model}",
        token_bucket=token_bucket_pb2.TokenBucket(
            max_tokens=tokens, tokens_per_fill=_uint(tokens), fill_interval=_seconds(1.0)
        ),
        filter_enabled=whole,
        filter_enforced=whole,
    )


# ---- small things


def _header(name: str, value: str) -> base_pb2.HeaderValueOption:
    return base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=name, value=value),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def _matcher(name: str, value: str) -> route_components_pb2.HeaderMatcher:
    return route_components_pb2.HeaderMatcher(name=name, string_match=string_pb2.StringMatcher(exact=value))


def _present(name: str) -> route_components_pb2.HeaderMatcher:
    return route_components_pb2.HeaderMatcher(name=name, present_match=True)


def _address(host: str, port: int) -> address_pb2.Address:
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=host, port_value=port))


@functools.lru_cache(maxsize=KEPT)
def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _any(body: message.Message) -> any_pb2.Any:
    made = any_pb2.Any()
    made.Pack(body, deterministic=True)
    return made


def _seconds(value: float) -> duration_pb2.Duration:
    whole = int(value)
    return duration_pb2.Duration(seconds=whole, nanos=round((value - whole) * 1e9))


def _uint(value: int) -> wrappers_pb2.UInt32Value:
    return wrappers_pb2.UInt32Value(value=value)
