"""The traffic messages to agents, for the standards that their clusters use. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from federation.policy.documents import PORTS, Documents, Traffic
from federation.state.keys import ModelCell
from federation.state.world import World, countries
from federation.traffic.table import GatewayTable, ModelTable, Tables
from federation.wire import messages

THOUSAND, ROUTE_53 = 1000, 255
NO_RECORDS = frozenset({"BV", "CX", "EH", "HM"})
"""Countries without a geolocation record in Route 53 ("Geolocation routing"); one of them would make it refuse the
name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The messages by cluster, and the inputs that they were computed from."""

    by_cluster: Mapping[str, messages.Traffic]
    tables: Tables
    documents: Documents
    is_lasting: bool
    """Whether the messages depend on tables and documents only; with DNS they depend on demand too."""


def told(tables: Tables, world: World, before: Told | None = None) -> Told:
    """The message to the agent of every cluster with a gateway; an unchanged message is the same object again."""
    dns = {
        one.model: _Dns(one.model, tables, world)
        for table in tables.by_cluster.values()
        for one in table.models
        if one.traffic.dns is not None
    }
    is_known = before is not None and before.documents is world.documents and not dns
    known = before.tables.by_cluster if before is not None and is_known else {}
    catalogue = world.catalogue_by_name()
    ports = {one.metadata.name: one.spec.runtime.serves_on for one in world.documents.models}
    made = {}
    for name, table in tables.by_cluster.items():
        if before is not None and known.get(name) is table:
            made[name] = before.by_cluster[name]
            continue
        at, own = catalogue[name].spec.location, table.gateways[name]
        made[name] = messages.Traffic(
            cluster=name,
            address=own.address,
            port=own.port,
            lat=at.lat,
            lon=at.lon,
            models=tuple(
                _model(one, table, ports, dns[one.model] if one.traffic.dns is not None else None)
                for one in table.models
            ),
        )
    return Told(by_cluster=made, tables=tables, documents=world.documents, is_lasting=not dns)


def message(table: GatewayTable, tables: Tables, world: World) -> messages.Traffic:
    """The message to one cluster's agent."""
    return told(tables, world).by_cluster[table.cluster]


def _model(model: ModelTable, table: GatewayTable, ports: Mapping[str, int], dns: _Dns | None) -> messages.ModelTraffic:
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
    return messages.ModelTraffic(
        model=model.model,
        port=ports.get(model.model, PORTS["custom"]),
        backends=tuple(backends),
        remote=model.traffic.remote_backends,
        dns=dns.of(model.traffic, table.cluster) if dns is not None else None,
    )


class _Dns:
    """Each cluster's fraction of all requests for a model, summed over what every gateway does with its own users.
    Without counts, each gateway has equal weight."""

    def __init__(self, model: str, tables: Tables, world: World) -> None:
        self._whole: dict[str, float] = defaultdict(float)
        by_country: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for gateway in tables.by_cluster.values():
            for one in gateway.models:
                for group in one.groups if one.model == model else ():
                    demand = world.demand.get(ModelCell((model, group.cell)))
                    if demand is None or demand.reporter != gateway.cluster:
                        continue
                    for name, part in group.shares.items():
                        self._whole[name] += part * demand.requests_per_second
                        for country in countries(world.cells[group.cell].country):
                            by_country[country][name] += part * demand.requests_per_second
        if not any(self._whole.values()):  # a name that nobody asks for has an answer, else nobody could begin to
            for gateway in tables.by_cluster.values():
                for one in gateway.models:
                    for group in one.groups if one.model == model else ():
                        for name, part in group.shares.items() if not group.cell else ():
                            self._whole[name] += part
        self._weights = weights(self._whole)
        self._largest = max(self._whole, key=lambda name: (self._whole[name], name), default="")
        self._countries: dict[str, list[str]] = defaultdict(list)
        for country, parts in sorted(by_country.items()):
            if country in NO_RECORDS:
                continue  # the default answers there
            self._countries[_most(parts)].append(country)

    def of(self, traffic: Traffic, cluster: str) -> messages.DnsShare | None:
        """The DNS data of one cluster for the names of a model."""
        if traffic.dns is None:
            return None
        return messages.DnsShare(
            zone=traffic.dns.zone,
            provider=traffic.dns.provider,
            routing=traffic.dns.routing,
            ttl_s=traffic.dns_ttl_seconds,
            is_default=cluster == self._largest,
            weight=self._weights.get(cluster, 0),
            countries=tuple(self._countries.get(cluster, ())),
        )


def weights(parts: Mapping[str, float]) -> dict[str, int]:
    """Each fraction as a Route 53 weight: the largest gets 255, so that none of many equal ones rounds to 0."""
    largest = max(parts.values(), default=0.0)
    return {name: round(ROUTE_53 * part / largest) for name, part in parts.items()} if largest > 0 else {}


def _most(parts: Mapping[str, float]) -> str:
    return max(parts, key=lambda name: (parts[name], name))
