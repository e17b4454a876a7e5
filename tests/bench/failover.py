"""The loss of each plan's largest region, ours beside what users of other tools would have (`baselines`).

From the loss on, what was served there is unserved until requests go elsewhere; then the exact router serves with what
is left, for everybody; then what the tool starts instead is warm and serves too. Reactions are each tool's published
defaults, and once as fast as ours:

  karmada   a cluster is not ready 45 s after it fell silent (grace 40 s, period 5 s); failover is off by default, with
            it one binding of a cluster is evicted every 2 s (0.5/s). Requests are nobody's: they leave when Karmada
            knows, or by somebody's health checks.
  skyserve  a probe and an autoscaler's loop of 20 s each.
  ours      gateways eject in 3 s; the controller knows by the last will after 30 s, and replaces by what waiting costs
            (`control/replacement.py`).

What is started beside what stays is warm after one warm-up. A plan that swaps models in full pools is whole after
another, as old replicas make room when new ones elsewhere are ready; the better of both placements counts from then on.
Figures are for an hour, which all are whole again in, or never. `seconds of all`: that many seconds of all requests.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from placement import engine
from placement.index import Index
from placement.problem import MaxPart, Placed, Problem
from placement.replanner import Replanner
from placement.solution import Flow, Solution, counts_of
from tests.bench import baselines
from tests.bench.worlds import a_large_world

CLUSTERS, CELLS, MODELS = 100, 500, 8
SEEDS = (1, 2, 3, 4, 5)
HOUR_S, WARMUP_S = 3600.0, 180.0
EJECT_S, KNOWN_S = 3.0, 30.0
"""Of ours: until gateways eject what fails, and until the controller knows."""
SPACING_S = 5.0
KARMADA_S, EVICTION_S, SKYSERVE_S = 45.0, 2.0, 40.0

Replicas = dict[tuple[str, str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """Seconds from the loss until requests go elsewhere, and until something is started instead (infinite: never);
    `per_binding_s` more for each model of each cluster that is lost. `is_ours`: by what waiting costs."""

    name: str
    reroute_s: float
    start_s: float
    per_binding_s: float = 0.0
    is_ours: bool = False


OURS = (
    Reaction(name="gateways", reroute_s=EJECT_S, start_s=KNOWN_S, is_ours=True),
    Reaction(name="no gateways", reroute_s=KNOWN_S, start_s=KNOWN_S, is_ours=True),
)
AS_OURS = Reaction(name="as fast as ours", reroute_s=EJECT_S, start_s=KNOWN_S + SPACING_S)
KARMADA = (
    Reaction(name="defaults", reroute_s=KARMADA_S, start_s=inf),
    Reaction(name="failover on", reroute_s=KARMADA_S, start_s=KARMADA_S, per_binding_s=EVICTION_S),
    Reaction(name="failover on, health checks", reroute_s=EJECT_S, start_s=KARMADA_S, per_binding_s=EVICTION_S),
    AS_OURS,
)
SKYSERVE = (Reaction(name="defaults", reroute_s=SKYSERVE_S, start_s=SKYSERVE_S), AS_OURS)
REACTIONS: Mapping[str, Sequence[Reaction]] = {
    "greedy": (AS_OURS,),
    "karmada-overflow": KARMADA,
    "karmada-dynamic": KARMADA,
    "skyserve-like": SKYSERVE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Requests per second, of all models: asked, unserved, late."""

    asked: float
    unserved: float
    late: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What one plan's largest region is worth: `share` of all requests; served `before`, `rerouted`, with what is
    `started` beside what stays, and by the `replaced` plan; what users lose and what starting it anew costs (as
    `control/replacement.py` has them); seconds that planning took."""

    usd_per_hour: float
    share: float
    bindings: int
    before: Served
    rerouted: Served
    started: Served
    replaced: Served
    lost_usd_per_hour: float
    start_usd: float
    planned_s: float

    def request_seconds(self, reaction: Reaction) -> tuple[float, float]:
        """(unserved, newly late) within the hour."""
        start_s = reaction.start_s + reaction.per_binding_s * self.bindings
        if reaction.is_ours:
            waits_s = HOUR_S * self.start_usd / self.lost_usd_per_hour if self.lost_usd_per_hour > 0 else inf
            start_s += min(waits_s, 300.0) + SPACING_S + self.planned_s
        warm_s = max(reaction.reroute_s, min(HOUR_S, start_s + WARMUP_S))
        whole_s = min(HOUR_S, warm_s + WARMUP_S)
        parts = (
            (warm_s - reaction.reroute_s, self.rerouted),
            (whole_s - warm_s, self.started),
            (HOUR_S - whole_s, self.replaced),
        )
        unserved = reaction.reroute_s * (self.before.unserved + self.share * self.before.asked)
        unserved += sum(seconds * one.unserved for seconds, one in parts)
        late = sum(seconds * max(0.0, one.late - self.before.late) for seconds, one in parts)
        return unserved, late


def failover() -> Iterator[dict[str, object]]:
    """Each plan's cost, and what the loss of its largest region does within an hour; means over seeds."""
    found: dict[str, list[Loss]] = defaultdict(list)
    for seed in SEEDS:
        problem = _with(a_large_world(seed, clusters=CLUSTERS, cells=CELLS, models=MODELS), warmup_s=WARMUP_S)
        for name, one in losses(problem):
            found[name].append(one)
    rows = {}
    for name, each in found.items():
        for reaction in REACTIONS.get(name, OURS):
            rows[f"{name}, {reaction.name}"] = row = _mean(each, reaction)
            yield {"name": f"{name}, {reaction.name}", **row, "seeds": len(SEEDS)}
    yield from _dominated(rows)


def losses(problem: Problem) -> Iterator[tuple[str, Loss]]:
    """Every plan of one world."""
    for name, plan in baselines.BASELINES.items():
        made = plan(problem)
        yield name, lost(problem, dict(made.replicas), plan)
    for name, policy in policies(problem).items():
        planner = Replanner()
        yield name, lost(policy, counts_of(planner.solve(policy)), planner.solve)


def policies(problem: Problem) -> dict[str, Problem]:
    """Ours: what an owner may ask for, from nothing to the most."""
    region = "region"
    return {
        "ours": problem,
        "ours, part 12 %": _with(problem, max_part=MaxPart(domain="region", fraction=0.12)),
        "ours, survive": _with(problem, survive=region),
        "ours, survive 95 % within, part 10 %": _with(
            problem, survive=region, survive_within_fraction=0.95, max_part=MaxPart(domain="region", fraction=0.10)
        ),
        "ours, survive 98 % within, part 7 %": _with(
            problem, survive=region, survive_within_fraction=0.98, max_part=MaxPart(domain="region", fraction=0.07)
        ),
    }


def _with(problem: Problem, **rules: object) -> Problem:
    return replace(problem, models=tuple(replace(one, **rules) for one in problem.models))  # type: ignore[arg-type]


def lost(problem: Problem, replicas: Replicas, plan: Callable[[Problem], Solution | baselines.Baseline]) -> Loss:
    """The loss of the region that serves most. Args: plan: what plans again without it."""
    index = Index(problem)
    routed = engine.route(problem, replicas)
    before = served(problem, routed.flows)
    by_region: dict[str, float] = defaultdict(float)
    for flow in routed.flows:
        by_region[index.clusters[flow.cluster].region] += flow.requests_per_second
    region = max(sorted(by_region), key=lambda one: by_region[one])
    gone = {one.name for one in problem.clusters if one.region == region}
    left = {key: n for key, n in replicas.items() if index.pools[key[1]].cluster not in gone}
    rest = replace(
        problem,
        clusters=tuple(replace(one, reachable=one.name not in gone) for one in problem.clusters),
        pools=tuple(replace(one, devices=0) if one.cluster in gone else one for one in problem.pools),
        current=tuple(Placed(model=m, pool=p, replicas=n) for (m, p), n in sorted(left.items())),
    )
    began_s = time.process_time()
    again = plan(rest)
    new = counts_of(again) if isinstance(again, Solution) else dict(again.replicas)
    planned_s = time.process_time() - began_s
    both = {key: max(left.get(key, 0), new.get(key, 0)) for key in left.keys() | new.keys()}
    fitting = _fitting(rest, both, left)
    rerouted = engine.route(rest, left)
    started, planned = (served(rest, engine.route(rest, one).flows) for one in (fitting, new))
    models = index.models
    return Loss(
        usd_per_hour=sum(n * _usd(index, *key) for key, n in replicas.items()),
        share=by_region[region] / before.asked,
        bindings=len({(m, index.pools[p].cluster) for m, p in replicas if index.pools[p].cluster in gone}),
        before=before,
        rerouted=served(rest, rerouted.flows),
        started=started,
        replaced=min(started, planned, key=lambda one: (one.unserved + one.late, one.unserved)),
        lost_usd_per_hour=rerouted.cost.late
        + rerouted.cost.unserved
        + rerouted.cost.proximity
        - (routed.cost.late + routed.cost.unserved + routed.cost.proximity),
        start_usd=sum(
            n * (models[m].warmup_s / HOUR_S * _usd(index, m, p) + models[m].move_usd)
            for (m, p), n in replicas.items()
            if index.pools[p].cluster in gone
        ),
        planned_s=planned_s,
    )


def _fitting(problem: Problem, wanted: Replicas, kept: Replicas) -> Replicas:
    """What has devices beside what stays, which no tool stops while it replaces."""
    index = Index(problem)
    free = {one.name: one.devices for one in problem.pools}
    made = dict(kept)
    for (model, pool), n in kept.items():
        free[pool] -= n * _devices(index, model, pool)
    for (model, pool), n in sorted(wanted.items()):
        devices = _devices(index, model, pool)
        more = max(0, min(n - kept.get((model, pool), 0), free[pool] // devices))
        free[pool] -= more * devices
        made[model, pool] = made.get((model, pool), 0) + more
    return {key: n for key, n in made.items() if n > 0}


def served(problem: Problem, flows: Sequence[Flow]) -> Served:
    """Who is unserved and late by these flows."""
    asked = sum(one.requests_per_second for one in problem.demands)
    late = sum(flow.requests_per_second for flow in flows if not flow.within_objective)
    return Served(asked=asked, unserved=max(0.0, asked - sum(flow.requests_per_second for flow in flows)), late=late)


def _devices(index: Index, model: str, pool: str) -> int:
    shape = index.models[model].shape_for(index.pools[pool])
    assert shape is not None
    return shape.devices


def _usd(index: Index, model: str, pool: str) -> float:
    return _devices(index, model, pool) * index.pools[pool].usd_per_device_hour


def _mean(each: Sequence[Loss], reaction: Reaction) -> dict[str, object]:
    pairs = [one.request_seconds(reaction) for one in each]
    count, asked = len(each), [one.before.asked for one in each]

    def within(part: str) -> float:
        shares = ((one.before.asked, getattr(one, part)) for one in each)
        return round(100.0 * float(sum((rps - x.unserved - x.late) / rps for rps, x in shares)) / count, 2)

    return {
        "usd_per_hour": round(sum(one.usd_per_hour for one in each) / count, 1),
        "share": round(100.0 * sum(one.share for one in each) / count, 1),
        "within": [within(part) for part in ("before", "rerouted", "replaced")],
        "unserved_request_s": round(sum(unserved for unserved, _ in pairs) / count),
        "late_request_s": round(sum(late for _, late in pairs) / count),
        "unserved_s_of_all": round(sum(u / rps for (u, _), rps in zip(pairs, asked, strict=True)) / count, 2),
        "late_s_of_all": round(sum(late / rps for (_, late), rps in zip(pairs, asked, strict=True)) / count, 2),
    }


def _dominated(rows: Mapping[str, Mapping[str, object]]) -> Iterator[dict[str, object]]:
    """For each other tool, the cheapest of ours that has less of both."""
    keys = ("unserved_request_s", "late_request_s", "usd_per_hour")
    mine = {name: row for name, row in rows.items() if name.startswith("ours")}
    for name, row in rows.items():
        if name in mine:
            continue
        better = [one for one, other in mine.items() if all(other[key] < row[key] for key in keys)]  # type: ignore[operator]
        best = min(better, key=lambda one: mine[one]["usd_per_hour"], default=None)  # type: ignore[arg-type,return-value]
        saved = None if best is None else round(row["usd_per_hour"] - mine[best]["usd_per_hour"], 1)  # type: ignore[operator]
        yield {"name": f"below {name} in both at lower cost", "value": best, "saves_usd_per_hour": saved}
