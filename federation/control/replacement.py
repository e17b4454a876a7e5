"""When the replicas of a silent cluster are replaced before the policy's toleration ends. Pure.

Nobody knows when a silent cluster returns. Waiting costs what its users lose; replacing costs the starts elsewhere. A
controller that replaces once the loss reaches that price pays at most twice the cost of one that knew the return (the
ski-rental problem). Where users lose nothing, only the toleration ends the wait.

An agent that restarts is back within a few reports, so nothing is replaced before that. A cluster that was lost before
gets twice that time; one that comes and goes again and again is handled by `problem.FLAPS`.

Source: Karlin, Manasse, Rudolph, Sleator, "Competitive snoopy caching" (1988).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

import placement as engine
from federation.control.decide import HOUR_S, cost_usd_per_hour
from federation.control.problem import Formulated
from federation.state.keys import ModelCluster
from federation.state.phases import Phase
from federation.state.world import ClusterState, World
from placement import costs
from placement.index import Index

NOTHING_USD_PER_HOUR = 0.01

GivenUp = Mapping[ModelCluster, float]
"""(model, cluster) -> start of the silence. A cluster that returns and falls silent again begins another silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The loss of a model's users while some clusters are silent, and the cost of starting those replicas elsewhere.

    `due_s`: silent cluster -> the instant of the controller's clock from which replacing its replicas is worth it.
    """

    model: str
    usd_per_hour: float
    start_usd: float
    due_s: Mapping[str, float]

    def says(self, cluster: str, now_s: float, since_s: float) -> str:
        """Why the replicas of this cluster are replaced."""
        return (
            f"{self.model}: {cluster} is silent for {now_s - since_s:.0f} s, and without it users lose "
            f"{self.usd_per_hour:.2f} USD/h; starting elsewhere what ran there costs {self.start_usd:.2f} USD"
        )


def silent(world: World, formulated: Formulated) -> dict[str, tuple[str, ...]]:
    """Model -> silent clusters whose replicas of it still count."""
    found: dict[str, set[str]] = {}
    for one in formulated.present:
        cluster = formulated.keys[one.pool][0]
        if world.clusters[cluster].phase is Phase.UNREACHABLE:
            found.setdefault(one.model, set()).add(cluster)
    return {model: tuple(sorted(clusters)) for model, clusters in sorted(found.items())}


def losses(
    world: World, formulated: Formulated, kept: engine.Routing, without: engine.Routing, now_s: float
) -> list[Loss]:
    """The loss of each model. Args: kept, without: routing over the present placement with and without the silent
    replicas."""
    index = Index(formulated.problem)
    made = []
    for name, clusters in silent(world, formulated).items():
        model = index.models[name]
        replicas = {one.pool: one.replicas for one in formulated.present if one.model == name}
        usd, other = (
            cost_usd_per_hour(index, model, replicas, routing.flows, routing.unserved, {})
            for routing in (without, kept)
        )
        start_usd = sum(
            count * _start_usd(index, model, pool)
            for pool, count in replicas.items()
            if formulated.keys[pool][0] in clusters
        )
        lost = usd - other
        since_s = min(world.clusters[one].since_s for one in clusters)
        worth_s = since_s + HOUR_S * start_usd / lost if lost > NOTHING_USD_PER_HOUR else inf
        due_s = {one: max(worth_s, _patient_until_s(world, world.clusters[one])) for one in clusters}
        made.append(Loss(model=name, usd_per_hour=lost, start_usd=start_usd, due_s=due_s))
    return made


def _start_usd(index: Index, model: engine.Model, pool_name: str) -> float:
    pool = index.pools[pool_name]
    return costs.start_usd(model, pool, model.devices_in(pool))


def _patient_until_s(world: World, state: ClusterState) -> float:
    """The agent may be restarting until then; twice as long after each loss of the last hour."""
    heard_s = state.heard_s if state.heard_s is not None else state.since_s
    return heard_s + world.timing.steady_after_s(max(1, len(state.losses_s)))


def still(world: World, given_up: GivenUp) -> dict[ModelCluster, float]:
    """The part of `given_up` that has not been heard since."""
    return {
        ModelCluster(model, cluster): since_s
        for (model, cluster), since_s in given_up.items()
        if (state := world.clusters.get(cluster)) is not None
        and state.phase is Phase.UNREACHABLE
        and state.since_s == since_s
    }
