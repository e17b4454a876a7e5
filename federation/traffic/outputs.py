"""What agents are told of traffic, for the standards that they speak in their clusters. Pure."""

from __future__ import annotations

from collections import defaultdict

from federation.control.desired import PORTS
from federation.policy.documents import Traffic
from federation.state.world import World, countries
from federation.traffic.table import GatewayTable, ModelTable, Tables
from federation.wire import messages

THOUSAND, ROUTE_53 = 1000, 255


def message(table: GatewayTable, tables: Tables, world: World) -> messages.Traffic:
    """The message to one cluster's agent."""
    spec = world.catalogue(table.cluster).spec
    own = table.gateways[table.cluster]
    return messages.Traffic(
        cluster=table.cluster,
        address=own.address,
        port=own.port,
        lat=spec.location.lat,
        lon=spec.location.lon,
        models=tuple(_model(model, table, tables, world) for model in table.models),
    )


def _model(model: ModelTable, table: GatewayTable, tables: Tables, world: World) -> messages.ModelTraffic:
    (everyone,) = [group for group in model.groups if not group.cell]
    backends = []
    for cluster, part in sorted(everyone.shares.items()):
        door = table.gateways.get(cluster)
        backends.append(
            messages.BackendShare(
                cluster=cluster,
                weight=round(THOUSAND * part),
                address=door.address if door is not None else "",
                port=door.port if door is not None else 0,
            )
        )
    runtime = next((one.spec.runtime for one in world.documents.models if one.metadata.name == model.model), None)
    return messages.ModelTraffic(
        model=model.model,
        port=(runtime.port or PORTS[runtime.preset]) if runtime is not None else PORTS["custom"],
        backends=tuple(backends),
        remote=model.traffic.remote_backends,
        dns=_dns(model.model, model.traffic, table.cluster, tables, world),
    )


def _dns(model: str, traffic: Traffic, cluster: str, tables: Tables, world: World) -> messages.DnsShare | None:
    """This cluster's part of all requests, by what every gateway does with its own users."""
    if traffic.dns is None:
        return None
    whole: dict[str, float] = defaultdict(float)
    by_country: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for gateway in tables.by_cluster.values():
        for one in gateway.models:
            for group in one.groups if one.model == model else ():
                demand = world.demand.get((model, group.cell))
                if demand is None or demand.reporter != gateway.cluster:
                    continue
                for name, part in group.shares.items():
                    whole[name] += part * demand.requests_per_second
                    for country in countries(world.cells[group.cell].country):
                        by_country[country][name] += part * demand.requests_per_second
    total = sum(whole.values())
    largest = max(whole, key=lambda name: (whole[name], name), default="")
    return messages.DnsShare(
        zone=traffic.dns.zone,
        provider=traffic.dns.provider,
        routing=traffic.dns.routing,
        ttl_s=traffic.dns_ttl_seconds,
        is_default=cluster == largest,
        weight=round(ROUTE_53 * whole[cluster] / total) if total else 0,
        countries=tuple(
            sorted(c for c, parts in by_country.items() if max(parts, key=lambda n: (parts[n], n)) == cluster)
        ),
    )
