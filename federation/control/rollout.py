"""One step from what runs to what should run: make before break.

New replicas start where devices are free. An old one goes only when what has been seen ready without it carries the
requests it has now and the target's capacity, and holds the policy's floors, whatever the target holds of them. When
devices are so full that nothing can start, one ready replica in the way may go early if the floors and the present
requests allow it. Each stop names what serves instead.

A cluster that is held (silent, or not heard steadily) may be short of a plan for no other reason than that: what is
ready there goes only when what is ready elsewhere carries all that users ask of the model.

Limits of policies hold here too, but for what must overlap: a model's own replicas that are to go do not count against
its new ones, as their requests leave only when these are ready. So for the time of a move a policy may spend what moves
twice, one model after the other; what replaces nothing waits. Where what runs is beyond a limit, as prices rose or
policy changed, the floors are what the target holds of them.

While a cluster is sent more than the target's replicas there are planned for, its requests are on their way elsewhere:
until then all that it has is kept, so that there is something to go back to. What moves between other clusters keeps
nothing here, so a rollout ends however often routing changes its mind.
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
    """All that a step depends on.

    Args: target, desired, ready: replicas per (model, cluster, pool): where to go, what agents were told, what was
        seen ready. trusted: of those ready, what may be counted on to serve. load_rps: (model, cluster) -> requests
        per second that are or may still be there. heard: clusters that can be told something. weighed: clusters of
        which a plan has been made since they were last heard anew; what runs in one that has just come back is stopped
        by no older plan. problem: models, pools and clusters; a model it does not know is withdrawn. most: where
        replicas did not become ready before, how many may be told. kept: what agents kept beyond what they were told,
        as it was given up as not ready and is ready: counts that are there to be lowered. stuck: where a new version
        waits for a device that replicas of the one before hold. ordered: how low a person's order lets counts go now,
        whatever requests are there; floors hold.
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
    """The next desired counts (zeros ask for deletion), why each that is lower than before is, and why what is still
    missing has to wait."""

    desired: dict[PlacementKey, int]
    stops: dict[PlacementKey, str]
    waiting: tuple[str, ...]


def next_step(situation: Situation) -> Step:
    """The next desired counts. Equal to the present ones when nothing may change yet."""
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
    """Which ready replicas requests should go to, by (model, pool name).

    Once all that a model's target wants is ready, only that: what is to go loses its requests first. Until then
    everything that is ready serves.
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
    """Ready replicas beyond the target on devices that others wait for, by (model, pool name); no more than are needed.

    They are near their users, so routing would fill them for ever: they could never stop, and the others never start.
    A model that has replicas on their way is left out: those relieve it soon.
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
    """So many replicas, or USD per hour, of some models together."""

    models: frozenset[str]
    most: float
    is_money: bool

    def takes(
        self, key: PlacementKey, pools: Mapping[ClusterPool, engine.Pool], models: Mapping[str, engine.Model]
    ) -> float:
        """What one replica takes of it; one that no longer fits its pool still costs a device."""
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
    """The working state of one step."""

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
        """Raise counts to the target where devices are free; gives what has to wait."""
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
        """How many of so many new replicas limits let start; one at least where the model is to give up others and
        nothing else is starting, so that no two models wait for each other."""
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
        """Whether what is desired takes more of a limit of the model than policy allows."""
        for limit in self.limits:
            used = sum(limit.takes(k, self.pools, self.models) * n for k, n in self._counted(limit))
            if model in limit.models and used > self._most(limit) + 1e-6:
                return True
        return False

    def _counted(self, limit: _Limit) -> list[tuple[PlacementKey, int]]:
        """What a limit counts: what is desired, and where nobody hears, what is planned."""
        keys = self.desired.keys() | self.s.target.keys()
        wanted = ((k, (self.desired if k.cluster in self.s.heard else self.s.target).get(k, 0)) for k in sorted(keys))
        return [(k, n) for k, n in wanted if n > 0 and k.model in limit.models]

    def _most(self, limit: _Limit) -> float:
        """The limit, or what of the target cannot be less as it is held."""
        mine = ((k, n) for k, n in self.s.target.items() if k.model in limit.models)
        return max(limit.most, sum(limit.takes(k, self.pools, self.models) * n for k, n in mine))

    def stop(self) -> None:
        """Lower counts to the target as far as what is ready allows."""
        for key in self.keys:
            if key.cluster not in self.s.weighed or key in self.s.postponed:
                continue
            while self.desired.get(key, 0) > self.s.target.get(key, 0) and self._may_stop(key, spare=True):
                self._lower(key)

    def update(self) -> None:
        """Let one replica go where a new version waits for its device, if the others carry its requests."""
        for key in sorted(self.s.stuck & self.desired.keys()):
            is_whole = self.desired[key] > 1 and self.desired[key] >= self.s.target.get(key, 0)
            if is_whole and self.desired[key] <= self.s.ready.get(key, 0) and self._may_stop(key, spare=False):
                self._lower(key)
                self.stops[key] = f"its new version needs the device; {self.stops[key]}"

    def make_room(self) -> None:
        """Let one replica go early that stands where another is to start."""
        wanted = {key[1:] for key in self.keys if self.s.target.get(key, 0) > self.desired.get(key, 0)}
        for key in self.keys:
            surplus = self.desired.get(key, 0) > self.s.target.get(key, 0)
            if surplus and key.cluster in self.s.weighed and key[1:] in wanted and self._may_stop(key, spare=False):
                self._lower(key)
                return

    def _lower(self, key: PlacementKey) -> None:
        """One replica less, and who serves instead."""
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
        """By what is desired or still seen ready, whichever is more: a replica holds its device until it is gone."""
        taken = 0
        for key in {*self.desired, *self.s.ready}:
            if key[1:] == (cluster, pool_key):
                _, shape = self._fit(key)
                taken += max(self.desired.get(key, 0), self.s.ready.get(key, 0)) * (shape.devices if shape else 1)
        return taken

    def _may_stop(self, key: PlacementKey, *, spare: bool) -> bool:
        """Whether one replica less at `key` leaves enough that was seen ready.

        With `spare` the rest must reach the target's capacity; without, it need only carry the present requests.
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
        """Whether no other domain comes to hold more of the model than it may, or than the target gives it; a domain
        that holds as much as any other may always give, so a rollout ends. Devices that must be made free come first.
        """
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
        """Domain -> requests per second that replicas there can serve."""
        made: defaultdict[str, float] = defaultdict(float)
        for key, count in replicas.items():
            made[self.domain_of(kind, key.cluster)] += self._rps(key, count)
        return made

    def domain_of(self, kind: engine.Domain, cluster: str) -> str:
        """Of a cluster; one that the problem does not know is a domain of its own."""
        return self.clusters[cluster].domain(kind) if cluster in self.clusters else cluster

    def _is_left(self, model: engine.Model, cluster: str) -> bool:
        """Whether requests are on their way from a cluster: it has more than the target plans for it.

        Where a limit lets the target have less than users ask for, it is used beyond the target utilisation, for good.
        """
        mine = [(k, self._rps(k, n)) for k, n in self.s.target.items() if k.model == model.name]
        used = model.target_utilisation
        if sum(rps for _, rps in mine) * used < self.asked_rps[model.name] and self._is_beyond(model.name):
            used = 1.0
        most_rps = sum(rps for k, rps in mine if k.cluster == cluster) * used * (1 + ARRIVED)
        return self.s.load_rps.get(ModelCluster(model.name, cluster), 0.0) > most_rps + 1e-6

    def _surely_ready(self, key: PlacementKey) -> dict[PlacementKey, int]:
        """Trusted replicas of the model in clusters that are heard, after one less at `key`."""
        after = {**self.desired, key: self.desired[key] - 1}
        return {
            k: min(n, after.get(k, 0))
            for k, n in self.s.trusted.items()
            if k.model == key.model and k.cluster in self.s.heard and min(n, after.get(k, 0)) > 0
        }

    def _floors_hold(self, model: engine.Model, replicas: Mapping[PlacementKey, int]) -> bool:
        """Whether so many replicas hold the policy's floors. They bind what runs: a target that holds less of them, in
        a shortage, is no reason to stop what is there."""
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
