"""The demo's day under the plans of other tools (`rivals`): the same steps, demand, devices, prices and losses.

The tools know demand and prices exactly, and their growth is warm when it is needed; delays are their published
defaults. Each is replayed a second time without any delay.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

import placement as words
from federation.control.problem import shapes
from federation.demo import rivals
from federation.demo.catalogue import Outage, SpotGone
from federation.demo.physics import Physics, PoolNow
from federation.demo.scoring import Observed, Pools, Score, Summary
from federation.state.keys import ClusterPool, ModelCell, PlacementKey

DAY_S = 86_400.0
PLANS_PER_DAY = 48
Steps = Iterable[tuple[float, float]]
"""(moment of its begin, hours of its duration)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Seconds until a tool follows: more demand, less demand, traffic that leaves a lost cluster, and replacements of
    lost replicas without their warm-up (infinite: none are replaced)."""

    up_s: float = 0.0
    down_s: float = 0.0
    leaves_s: float = 0.0
    replaces_s: float = 0.0


AT_ONCE = Delays()
KARMADA = Delays(up_s=15.0, down_s=300.0, leaves_s=45.0, replaces_s=math.inf)
"""FederatedHPA: a look every 15 s, fewer replicas only after 300 s. A cluster is not ready after 40 s and a look every
5 s; the feature gate Failover is off, and nothing is evicted; the descheduler, which moves replicas without devices, is
not installed by default."""
SKYSERVE = Delays(up_s=320.0, down_s=1_220.0, leaves_s=20.0, replaces_s=40.0)
"""Decisions every 20 s, more replicas after 300 s and fewer after 1,200 s; replicas are probed every 20 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RivalTool:
    """A row of the summary."""

    name: str
    plan: rivals.Planner
    delays: Delays


RIVALS = (
    RivalTool(name="greedy-at-once", plan=rivals.greedy, delays=AT_ONCE),
    RivalTool(name="karmada-overflow", plan=rivals.karmada_overflow, delays=KARMADA),
    RivalTool(name="karmada-overflow-at-once", plan=rivals.karmada_overflow, delays=AT_ONCE),
    RivalTool(name="karmada-dynamic", plan=rivals.karmada_dynamic, delays=KARMADA),
    RivalTool(name="karmada-dynamic-at-once", plan=rivals.karmada_dynamic, delays=AT_ONCE),
    RivalTool(name="skyserve-like", plan=rivals.skyserve, delays=SKYSERVE),
    RivalTool(name="skyserve-like-at-once", plan=rivals.skyserve, delays=AT_ONCE),
)


def summaries(physics: Physics, steps: Steps) -> dict[str, Summary]:
    """The summaries of each rival's day, in pairs of steps. A day takes about half a minute of work."""
    lived = _paired(steps)
    return {rival.name: Replay(physics, rival).summary(lived) for rival in RIVALS}


class Replay:
    """One rival's day."""

    def __init__(self, physics: Physics, rival: RivalTool) -> None:
        self._physics, self._rival = physics, rival
        self._plans: dict[tuple[int, frozenset[ClusterPool]], rivals.Baseline] = {}

    def summary(self, steps: Steps) -> Summary:
        """The score of the day."""
        score = Score(self._physics)
        for moment, hours in self._pieces(steps):
            score.add(moment, hours, self.observed(moment), moves=0)
        return replace(score.summary(), moves=None)

    def observed(self, moment: float) -> Observed:
        """Replicas and routing at this moment of the day."""
        planned = self._planned(moment)
        pools = self._physics.world_pools(moment)
        held: dict[PlacementKey, int] = {}
        for (model, pool), count in planned.replicas.items():
            held[PlacementKey(model, *self._keys[pool])] = count
        standing = {key: count for key, count in held.items() if key.place in pools}
        return Observed(ready=standing, held=standing, shares=self._shares(planned, moment))

    def _shares(self, planned: rivals.Baseline, moment: float) -> dict[ModelCell, dict[str, float]]:
        """Shares of the requests of each (model, cell); traffic leaves a lost cluster after the tool's delay, for
        others."""
        asked = self._demand(round(moment * PLANS_PER_DAY) / PLANS_PER_DAY)
        left = {
            name
            for name in self._physics.clusters
            if not self._physics.is_alive(name, moment)
            and not self._physics.is_alive(name, moment - self._rival.delays.leaves_s / DAY_S)
        }
        sent: dict[ModelCell, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for flow in planned.flows:
            sent[ModelCell((flow.model, flow.cell))][flow.cluster] += flow.requests_per_second
        shares = {}
        for key, parts in sent.items():
            staying = {name: rps for name, rps in parts.items() if name not in left}
            total, whole = sum(staying.values()), sum(parts.values())
            if total > 0:
                served = min(1.0, whole / asked[key]) if asked[key] > 0 else 0.0
                shares[key] = {name: rps / total * served for name, rps in staying.items()}
        return shares

    # ---- what is planned

    def _planned(self, moment: float) -> rivals.Baseline:
        at = round(moment * PLANS_PER_DAY)
        pools = self._believed(moment)
        key = at, frozenset(pools)
        if key not in self._plans:
            self._plans[key] = self._rival.plan(self._problem(self._demand(at / PLANS_PER_DAY), pools))
        return self._plans[key]

    def _demand(self, moment: float) -> dict[ModelCell, float]:
        delays = self._rival.delays
        later = self._physics.demand(moment - delays.up_s / DAY_S)
        earlier = self._physics.demand(moment - delays.down_s / DAY_S)
        return {key: max(rps, earlier[key]) for key, rps in later.items()}

    def _believed(self, moment: float) -> Pools:
        """The pools that the tool plans with: the existing ones, and those whose loss it has not replaced yet."""
        after_s = self._rival.delays.replaces_s + self._warmup_s
        before = self._physics.world_pools(0.0 if math.isinf(after_s) else moment - after_s / DAY_S)
        return {**before, **self._physics.world_pools(moment)}

    @cached_property
    def _warmup_s(self) -> float:
        return min(model.spec.warmup_seconds for model in self._physics.models.values())

    @cached_property
    def _keys(self) -> Mapping[str, ClusterPool]:
        """A pool's name in a problem -> its cluster and key."""
        physics = self._physics
        return {
            _pool(name, pool).name: ClusterPool(name, pool.key)
            for name in physics.clusters
            for pool in physics.pools(name, 0.0)
        }

    def _problem(self, demand: Mapping[ModelCell, float], pools: Pools) -> words.Problem:
        return words.Problem(
            clusters=self._clusters,
            pools=tuple(_pool(cluster, pool) for (cluster, _), pool in pools.items()),
            models=self._models,
            cells=tuple(words.Cell(name=one.name, country=one.country) for one in self._physics.places.values()),
            demands=tuple(
                words.Demand(model=model, cell=cell, requests_per_second=rps) for (model, cell), rps in demand.items()
            ),
            paths=self._paths,
        )

    @cached_property
    def _clusters(self) -> tuple[words.Cluster, ...]:
        return tuple(
            words.Cluster(
                name=name, provider=one.spec.provider, region=one.spec.region, jurisdictions=one.spec.jurisdictions
            )
            for name, one in self._physics.clusters.items()
        )

    @cached_property
    def _paths(self) -> words.RttMatrix:
        cells, clusters = tuple(self._physics.places), tuple(self._physics.clusters)
        rtt_ms = [[self._physics.user_rtt_ms(cell, name) for name in clusters] for cell in cells]
        return words.RttMatrix(cells=cells, clusters=clusters, rtt_ms=np.array(rtt_ms, dtype=np.float32))

    @cached_property
    def _models(self) -> tuple[words.Model, ...]:
        return tuple(self._model(name) for name in self._physics.models)

    def _model(self, name: str) -> words.Model:
        spec = self._physics.models[name].spec
        policy = self._physics.catalogue.documents.policy_of(name)
        return words.Model(
            name=name,
            shapes=shapes(spec),
            objective_ms=spec.slo.p95_latency_ms,
            service_latency_ms=spec.service_latency_ms,
            target_utilisation=spec.target_utilisation,
            late_usd_per_1000=0.0,
            unserved_usd_per_1000=0.0,
            spot_max_fraction=policy.spec.spot.max_fraction if policy else 1.0,
            residency=tuple(
                words.Residency(
                    countries=rule.users_in.countries if rule.users_in is not None else (),
                    jurisdictions=rule.clusters_in.jurisdictions,
                )
                for rule in (policy.spec.residency if policy else ())
            ),
        )

    # ---- when something changes at once

    def _pieces(self, steps: Steps) -> Iterator[tuple[float, float]]:
        """Steps, split where a loss is noticed or replaced."""
        delays = self._rival.delays
        cuts = sorted(
            event.start + after_s / DAY_S
            for event in self._physics.catalogue.day.story
            if isinstance(event, Outage | SpotGone)
            for after_s in (0.0, delays.leaves_s, delays.replaces_s + self._warmup_s)
            if not math.isinf(after_s)
        )
        for begun, hours in steps:
            ended = begun + hours / 24.0
            inside = [cut + math.floor(begun) for cut in cuts if begun < cut + math.floor(begun) < ended]
            at = begun
            for cut in (*sorted(set(inside)), ended):
                yield at, (cut - at) * 24.0
                at = cut


def _paired(steps: Steps) -> list[tuple[float, float]]:
    made = list(steps)
    return [(made[at][0], sum(hours for _, hours in made[at : at + 2])) for at in range(0, len(made), 2)]


def _pool(cluster: str, pool: PoolNow) -> words.Pool:
    return words.Pool(
        cluster=cluster,
        product=pool.key.product,
        mig_profile=pool.key.mig_profile,
        market=pool.key.market,
        vram_gib=pool.vram_gib,
        devices=pool.devices,
        usd_per_device_hour=pool.usd_per_device_hour,
    )
