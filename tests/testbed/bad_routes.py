"""Configurations that an Envoy refuses: what a defect of ours, or of a version to come, might send."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.route.v3 import route_pb2

from federation.traffic import xds


def overflowing(snapshot: xds.Snapshot) -> xds.Snapshot:
    """The same with a route whose weights together are beyond Envoy's limit."""
    made = route_pb2.RouteConfiguration.FromString(snapshot.of(xds.RDS)[xds.ROUTE_CONFIG].body)
    action = made.virtual_hosts[0].routes[-1].route
    name = action.cluster
    for _ in range(2):
        action.weighted_clusters.clusters.add(name=name).weight.value = 2**32 - 1
    return changed(snapshot, xds.RDS, xds.ROUTE_CONFIG, made)


def out_of_bounds(snapshot: xds.Snapshot) -> xds.Snapshot:
    """The same with endpoints of a priority that there is not."""
    (name,) = [name for name in snapshot.of(xds.EDS) if name.endswith("|any")]
    made = endpoint_pb2.ClusterLoadAssignment.FromString(snapshot.of(xds.EDS)[name].body)
    made.endpoints[0].priority = 1000
    return changed(snapshot, xds.EDS, name, made)


def to_nowhere(snapshot: xds.Snapshot) -> xds.Snapshot:
    """The same with a route to a cluster that there is not."""
    made = route_pb2.RouteConfiguration.FromString(snapshot.of(xds.RDS)[xds.ROUTE_CONFIG].body)
    made.validate_clusters.value = True
    made.virtual_hosts[0].routes[-1].route.cluster = "nowhere"
    return changed(snapshot, xds.RDS, xds.ROUTE_CONFIG, made)


def changed(snapshot: xds.Snapshot, type_url: str, name: str, body: Any) -> xds.Snapshot:
    kind = {**snapshot.of(type_url), name: xds.resource(type_url, name, body)}
    return replace(snapshot, by_type={**snapshot.by_type, type_url: kind})
