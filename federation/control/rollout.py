"""One step of the rollout, from the replicas that run to those that should run: make before break.

New replicas start where devices are free. An old replica stops only when the ready replicas that remain carry its
present requests, reach the target's capacity, and hold the policy's floors; the floors hold whatever the target does.
When the devices are so full that nothing can start, one ready replica in the way may stop early, if the floors and the
present requests allow it. Each stop names the replicas that serve instead.

A held cluster (silent, or not heard steadily) may have fewer replicas in a plan for that reason alone. Its ready
replicas stop only when ready replicas elsewhere carry all requests for the model.

Limits of policies hold during a rollout too, except where replicas must overlap. A model's own replicas that are to
stop do not count against its new ones, because their requests leave only when the new ones are ready. For the time of a
move, a policy may therefore spend the moving part twice, one model after the other. Replicas that replace nothing wait.
Where the running replicas are beyond a limit, because prices rose or the policy changed, the floors are those that the
target holds.

While a cluster gets more requests than the target's replicas there are planned for, its requests are still moving
elsewhere. It keeps all its replicas until then, so that the requests can return. Requests that move between other
clusters keep nothing here, so a rollout ends however often routing changes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import placement as engine
from federation.state.keys import ClusterPool, ModelCluster, PlacementKey
from federation.wire.messages import NOT_READY, PoolKey

WITHDRAWN = "the model is withdrawn"
ARRIVED = 0.005
"""Of what a cluster is planned for: so little more is no reason to keep what it is left with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """The inputs of a step.

    Args: target, desired, ready: replicas per (model, cluster, pool) that are planned, that agents were told, and that
        are ready. trusted: ready replicas that can be relied on to serve. load_rps: (model, cluster) -> requests per
        second that arrive there, or may still arrive. heard: clusters that can receive orders. weighed: clusters with a
        plan that is newer than their last return; a plan from before a return stops nothing there. problem: models,
        pools and clusters; a model that it does not know is withdrawn. most: upper bounds on the counts that agents are
        told, where replicas failed to become ready. kept: replicas that an agent kept beyond its order, because they
        became ready after the order gave them up; these counts are still to be lowered. stuck: places where a new
        version waits for a device that replicas of the version before it hold. ordered: how far a person's order lets
        counts fall at this step, whatever requests arrive there; floors hold.
    """

    problem: engine.Problem
    target: Mapping[PlacementKey, int]
    desired: Mapping[PlacementKey, int]
    ready: Mapping[PlacementKey, int]
    trusted: Mapping[PlacementKey, int]
    load_rps: Mapping[ModelCluster, float]
    heard: frozenset[str]
    weighed: frozenset[str]
    postponed: frozenset[PlacementKey]
    most: Mapping[PlacementKey, int] = field(default_factory=dict)
    kept: Mapping[PlacementKey, int] = field(default_factory=dict)
    stuck: frozenset[PlacementKey] = frozenset()
    ordered: Mapping[PlacementKey, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The next desired counts (zero asks for deletion), the reason for each lowered count, and a sentence for each
    start that has to wait."""

    desired: dict[PlacementKey, int]
    stops: dict[PlacementKey, str]
    waiting: tuple[str, ...]


def next_step(situation: Situation) -> Step:
    """The next desired counts, equal to the present ones while nothing may change."""
    walk = _StepBuilder(situation)
    waiting = walk.start()
    walk.stop()
    walk.update()
    if waiting and walk.desired == walk.before:
        walk.make_room()
    stops = {key: why for key, why in walk.stops.items() if walk.desired[key] < walk.before.get(key, 0)}
    return Step(desired=dict(sorted(walk.desired.items(), key=_order)), stops=stops, waiting=tuple(waiting))


def _order(item: tuple[PlacementKey, int]) -> tuple[str, str, PoolKey]:
    return item[0]


def to_be_used(
    problem: engine.Problem, target: Mapping[tuple[str, str], int], ready: Mapping[tuple[str, str], int]
) -> dict[tuple[str, str], int]:
    """The ready replicas that may receive requests, by (model, pool name).

    Once all replicas of a model's target are ready, only those: the replicas that are to stop lose their requests
    first. Until then, all ready replicas.
    """
    used = dict(ready)
    for model in problem.models:
        wanted = {key: count for key, count in target.items() if key[0] == model.name}
        if wanted and all(ready.get(key, 0) >= count for key, count in wanted.items()):
            used = {key: count for key, count in used.items() if key[0] != model.name} | wanted
    return used


def in_the_way(
    problem: engine.Problem,
    target: Mapping[tuple[str, str], int],
    desired: Mapping[tuple[str, str], int],
    ready: Mapping[tuple[str, str], int],
) -> dict[tuple[str, str], int]:
    """Ready replicas beyond the target on devices that other replicas wait for, by (model, pool name); no more than are
    needed.

    They are near their users, so routing would fill them for ever: they could never stop, and the waiting replicas
    could never start. A model with replicas that are still starting is left out, because those relieve it soon.
    """
    models, pools = {one.name: one for one in problem.models}, {one.name: one for one in problem.pools}
    coming = {key[0] for key, count in desired.items() if count > ready.get(key, 0)}
    free = {name: pool.devices for name, pool in pools.items()}
    needed: dict[str, int] = defaultdict(int)
    for key in sorted(target.keys() | desired.keys() | ready.keys()):
        model, pool = models.get(key[0]), pools.get(key[1])
        if model is None or pool is None:
            continue
        devices = model.devices_in(pool)
        free[pool.name] -= devices * max(desired.get(key, 0), ready.get(key, 0))
        needed[pool.name] += devices * max(0, target.get(key, 0) - desired.get(key, 0))
    found: dict[tuple[str, str], int] = {}
    for key, count in sorted(ready.items()):
        model, pool = models.get(key[0]), pools.get(key[1])
        if model is None or pool is None or key[0] in coming:
            continue
        devices = model.devices_in(pool)
        missing = math.ceil(max(0, needed[pool.name] - max(0, free[pool.name])) / devices)
        if away := min(max(0, count - target.get(key, 0)), missing):
            found[key] = away
            needed[pool.name] -= away * devices
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    """An upper bound on the replicas, or on the USD per hour, of some models together."""

    models: frozenset[str]
    most: float
    is_money: bool

    def takes(
        self, key: PlacementKey, pools: Mapping[ClusterPool, engine.Pool], models: Mapping[str, engine.Model]
    ) -> float:
        """The part of the limit that one replica takes; a replica that no longer fits its pool costs one device."""
        pool, model = pools.get(key.place), models.get(key.model)
        if not self.is_money:
            return 1.0
        if pool is None or model is None:
            return 0.0
        return model.devices_in(pool) * pool.usd_per_device_hour


def _limits(problem: engine.Problem) -> list[_Limit]:
    counts = [
        _Limit(models=frozenset([model.name]), most=float(model.max_replicas), is_money=False)
        for model in problem.models
        if model.max_replicas is not None
    ]
    budgets = [_Limit(models=frozenset(one.models), most=one.usd_per_hour, is_money=True) for one in problem.budgets]
    return counts + budgets


class _StepBuilder:
    """The mutable state of one step."""

    def __init__(self, situation: Situation) -> None:
        self.s = situation
        self.models = {model.name: model for model in situation.problem.models}
        self.pools = {ClusterPool(pool.cluster, _key(pool)): pool for pool in situation.problem.pools}
        self.clusters = {cluster.name: cluster for cluster in situation.problem.clusters}
        self.regions = {cluster.name: cluster.region for cluster in situation.problem.clusters}
        self.room = {(one.model, one.pool): one.replicas for one in situation.problem.room}
        self.before = {**situation.desired, **situation.kept}
        self.desired = dict(self.before)
        self.stops: dict[PlacementKey, str] = {}
        self.limits = _limits(situation.problem)
        self.held = {one.name for one in situation.problem.clusters if one.intake is engine.Intake.HELD}
        self.asked_rps: dict[str, float] = defaultdict(float)
        for demand in situation.problem.demands:
            self.asked_rps[demand.model] += demand.requests_per_second
        keys = situation.target.keys() | self.before.keys()
        self.keys = [key for key in sorted(keys) if key.cluster in situation.heard]

    def start(self) -> list[str]:
        """Raise counts to the target where devices are free. Returns a sentence for each start that has to wait."""
        waiting = []
        for key in self.keys:
            model, cluster, pool_key = key
            missing = self.s.target.get(key, 0) - self.desired.get(key, 0)
            if missing <= 0 or key in self.s.stuck:
                continue
            pool, shape = self._fit(key)
            room = 0
            if pool is not None and shape is not None:
                # What is ready there beyond what was told holds its devices, and is what is to be there.
                own = max(0, self.s.ready.get(key, 0) - self.desired.get(key, 0)) * shape.devices
                room = max(0, (pool.devices - self._devices_taken(cluster, pool_key) + own) // shape.devices)
                most = self.room.get((model, pool.name))
                room = room if most is None else max(0, min(room, most - self.desired.get(key, 0)))
            if key in self.s.most:
                room = max(0, min(room, self.s.most[key] - self.desired.get(key, 0)))
                missing = min(missing, room)  # the others are tried later: nobody has to make room for them
            allowed = self._allowed(key, min(room, missing))
            if allowed:
                self.desired[key] = self.desired.get(key, 0) + allowed
            if room < missing:
                waiting.append(f"{missing - room} replicas of {model} wait for devices of {pool_key.text} in {cluster}")
            if allowed < min(room, missing):
                waiting.append(
                    f"{min(room, missing) - allowed} replicas of {model} wait until policy's limits have room"
                )
        return waiting

    def _allowed(self, key: PlacementKey, count: int) -> int:
        """How many of `count` new replicas the limits let start. At least one where the model is to give up other
        replicas and nothing else is starting, so that no two models wait for each other."""
        for limit in self.limits:
            each = limit.takes(key, self.pools, self.models)
            if key.model not in limit.models or each <= 0:
                continue
            used = sum(
                limit.takes(k, self.pools, self.models)
                * (min(n, self.s.target.get(k, 0)) if k.model == key.model else n)
                for k, n in self._counted(limit)
            )
            room = max(0, math.floor((self._most(limit) - used) / each + 1e-9))
            replaces = any(n > self.s.target.get(k, 0) for k, n in self._counted(limit) if k.model == key.model)
            if replaces and not any(n > self.s.ready.get(k, 0) for k, n in self._counted(limit)):
                room = max(1, room)
            count = min(count, room)
        return count

    def _is_beyond(self, model: str) -> bool:
        """Whether the desired replicas exceed a limit of the model."""
        for limit in self.limits:
            used = sum(limit.takes(k, self.pools, self.models) * n for k, n in self._counted(limit))
            if model in limit.models and used > self._most(limit) + 1e-6:
                return True
        return False

    def _counted(self, limit: _Limit) -> list[tuple[PlacementKey, int]]:
        """The replicas that count towards a limit: the desired ones, and the planned ones in clusters that are not
        heard."""
        keys = self.desired.keys() | self.s.target.keys()
        wanted = ((k, (self.desired if k.cluster in self.s.heard else self.s.target).get(k, 0)) for k in sorted(keys))
        return [(k, n) for k, n in wanted if n > 0 and k.model in limit.models]

    def _most(self, limit: _Limit) -> float:
        """The limit's value, or the target's part of it where that is larger because held clusters cannot give up
        replicas."""
        mine = ((k, n) for k, n in self.s.target.items() if k.model in limit.models)
        return max(limit.most, sum(limit.takes(k, self.pools, self.models) * n for k, n in mine))

    def stop(self) -> None:
        """Lower counts to the target as far as the ready replicas allow."""
        for key in self.keys:
            if key.cluster not in self.s.weighed or key in self.s.postponed:
                continue
            while self.desired.get(key, 0) > self.s.target.get(key, 0) and self._may_stop(key, spare=True):
                self._lower(key)

    def update(self) -> None:
        """Stop one replica where a new version waits for its device, if the others carry its requests."""
        for key in sorted(self.s.stuck & self.desired.keys()):
            is_whole = self.desired[key] > 1 and self.desired[key] >= self.s.target.get(key, 0)
            if is_whole and self.desired[key] <= self.s.ready.get(key, 0) and self._may_stop(key, spare=False):
                self._lower(key)
                self.stops[key] = f"its new version needs the device; {self.stops[key]}"

    def make_room(self) -> None:
        """Stop one replica early that holds a device for which a planned replica waits."""
        wanted = {key[1:] for key in self.keys if self.s.target.get(key, 0) > self.desired.get(key, 0)}
        for key in self.keys:
            surplus = self.desired.get(key, 0) > self.s.target.get(key, 0)
            if surplus and key.cluster in self.s.weighed and key[1:] in wanted and self._may_stop(key, spare=False):
                self._lower(key)
                return

    def _lower(self, key: PlacementKey) -> None:
        """Lower one count by one, and name the replicas that serve instead."""
        was_ready = self.desired[key] <= self.s.ready.get(key, 0)
        left = self._surely_ready(key)
        self.desired[key] -= 1
        if key.model not in self.models:
            self.stops[key] = WITHDRAWN
        elif not was_ready:
            self.stops.setdefault(key, NOT_READY)
        else:
            places = sorted({one[1] for one in left if left[one] > 0})
            named = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
            self.stops[key] = f"{sum(left.values())} ready in {named} serve instead" if places else "nobody asks for it"

    def _fit(self, key: PlacementKey) -> tuple[engine.Pool | None, engine.Shape | None]:
        pool = self.pools.get(key.place)
        model = self.models.get(key.model)
        return pool, model.shape_for(pool) if pool is not None and model is not None else None

    def _devices_taken(self, cluster: str, pool_key: PoolKey) -> int:
        """The larger of desired and ready replicas, in devices: a replica holds its devices until it is gone."""
        taken = 0
        for key in {*self.desired, *self.s.ready}:
            if key[1:] == (cluster, pool_key):
                _, shape = self._fit(key)
                taken += max(self.desired.get(key, 0), self.s.ready.get(key, 0)) * (shape.devices if shape else 1)
        return taken

    def _may_stop(self, key: PlacementKey, *, spare: bool) -> bool:
        """Whether the ready replicas that remain after one stop at `key` are enough.

        With `spare` they must reach the target's capacity; without, they need only carry the present requests.
        """
        model = self.models.get(key.model)
        if model is None:
            return True  # withdrawn: nobody may be served by it any more
        if self.desired[key] > self.s.ready.get(key, 0):
            return self._floor_of_desired(model, key)  # one that never became ready serves nobody
        left = self._surely_ready(key)
        if self.desired[key] > self.s.ordered.get(key, self.desired[key]):
            return self._floors_hold(model, left)
        if spare and self._is_left(model, key.cluster):
            return False
        if not self._floors_hold(model, left):
            return False
        left_rps = sum(self._rps(k, n) for k, n in left.items())
        if key.cluster in self.held and left_rps + 1e-6 < self.asked_rps[key.model]:
            return False
        here_rps = sum(self._rps(k, n) for k, n in left.items() if k.cluster == key.cluster)
        if here_rps + 1e-6 < self.s.load_rps.get(ModelCluster(key.model, key.cluster), 0.0):
            return False
        wanted_rps = sum(self._rps(k, n) for k, n in self.s.target.items() if k.model == key.model)
        return not spare or (left_rps + 1e-6 >= wanted_rps and self._stays_even(model, key, left))

    def _stays_even(self, model: engine.Model, key: PlacementKey, left: Mapping[PlacementKey, int]) -> bool:
        """Whether no other domain comes to hold a larger part of the model than `maxPartPerDomain` or the target gives
        it. A domain with the largest part may always give up a replica, so a rollout ends. Devices that must become
        free come first."""
        if model.max_part is None:
            return True
        target = {k: n for k, n in self.s.target.items() if k.model == model.name}
        here = self.domain_of(model.max_part.domain, key.cluster)
        holds, planned = (self._by_domain(model.max_part.domain, one) for one in (left, target))
        total, whole = sum(holds.values()), sum(planned.values())
        before = holds[here] + self._rps(key, 1)
        for domain, rps in holds.items():
            most = max(model.max_part.fraction, planned[domain] / whole if whole else 0.0)
            if domain != here and rps > before + 1e-6 and rps > most * total + 1e-6:
                return False
        return True

    def _by_domain(self, kind: engine.Domain, replicas: Mapping[PlacementKey, int]) -> defaultdict[str, float]:
        """Domain -> requests per second that its replicas can serve."""
        made: defaultdict[str, float] = defaultdict(float)
        for key, count in replicas.items():
            made[self.domain_of(kind, key.cluster)] += self._rps(key, count)
        return made

    def domain_of(self, kind: engine.Domain, cluster: str) -> str:
        """The domain of a cluster; a cluster that the problem does not know is a domain of its own."""
        return self.clusters[cluster].domain(kind) if cluster in self.clusters else cluster

    def _is_left(self, model: engine.Model, cluster: str) -> bool:
        """Whether requests are leaving a cluster: it gets more of them than the target plans for it.

        Where a limit leaves the target below the demand, replicas run above the target utilisation for good.
        """
        mine = [(k, self._rps(k, n)) for k, n in self.s.target.items() if k.model == model.name]
        used = model.target_utilisation
        if sum(rps for _, rps in mine) * used < self.asked_rps[model.name] and self._is_beyond(model.name):
            used = 1.0
        most_rps = sum(rps for k, rps in mine if k.cluster == cluster) * used * (1 + ARRIVED)
        return self.s.load_rps.get(ModelCluster(model.name, cluster), 0.0) > most_rps + 1e-6

    def _surely_ready(self, key: PlacementKey) -> dict[PlacementKey, int]:
        """Trusted replicas of the model in clusters that are heard, after one stop at `key`."""
        after = {**self.desired, key: self.desired[key] - 1}
        return {
            k: min(n, after.get(k, 0))
            for k, n in self.s.trusted.items()
            if k.model == key.model and k.cluster in self.s.heard and min(n, after.get(k, 0)) > 0
        }

    def _floors_hold(self, model: engine.Model, replicas: Mapping[PlacementKey, int]) -> bool:
        """Whether these replicas hold the policy's floors. Floors bind the running replicas: a target that misses them,
        in a shortage, is no reason to stop a running replica."""
        regions = {self.regions[k.cluster] for k, n in replicas.items() if n > 0}
        running = {self.regions[k.cluster] for k, n in self.s.ready.items() if k.model == model.name and n > 0}
        least, least_regions = model.min_replicas, min(model.min_regions, len(running))
        if self._is_beyond(model.name):
            target = [k for k, n in self.s.target.items() if k.model == model.name and n > 0]
            least = min(least, sum(self.s.target[k] for k in target))
            least_regions = min(least_regions, len({self.regions[k.cluster] for k in target}))
        return sum(replicas.values()) >= least and len(regions) >= least_regions

    def _floor_of_desired(self, model: engine.Model, key: PlacementKey) -> bool:
        after = {**self.desired, key: self.desired[key] - 1}
        mine = {k: n for k, n in after.items() if k.model == model.name and n > 0 and k.cluster in self.regions}
        return self._floors_hold(model, mine)

    def _rps(self, key: PlacementKey, replicas: int) -> float:
        _, shape = self._fit(key)
        return replicas * shape.requests_per_second if shape is not None else 0.0


def _key(pool: engine.Pool) -> PoolKey:
    return PoolKey(product=pool.product, mig_profile=pool.mig_profile, market=pool.market)
