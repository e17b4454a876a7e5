"""The shares in force, moved one step towards the targets of the routing problem.

A share leaves a cluster at once when the cluster cannot serve it. Otherwise shares move by the policy's step, so that a
mistake is seen while it is small and caches stay warm. For the same reason, the load of a returning cluster comes back
gradually.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import placement as engine
from federation.control import shift
from federation.control.plan import Route, Routes, Share
from federation.policy.documents import Traffic
from federation.state.keys import ModelCell, ModelCluster
from federation.state.reduce import Note
from federation.state.world import World


class Target(NamedTuple):
    """The target of one (model, cell): cluster -> share, and the reason and code of the unserved rest."""

    shares: dict[str, float]
    reason: str = ""
    code: engine.UnservedCode | None = None


Targets = Mapping[ModelCell, Target]
MOST_KEPT = 20_000
"""Rows that are kept for users without known demand."""
PLACES = 6
"""Decimal places of a share."""
SNAP = 0.005
"""Differences of shares below this are noise: the shares jump to the target once the rest has arrived."""

TOLD_AGAIN_S = 600.0


def target_shares(problem: engine.Problem, routing: engine.Routing) -> Targets:
    """The target of each (model, cell), as parts of its requests."""
    served: dict[ModelCell, dict[str, float]] = defaultdict(dict)
    for flow in routing.flows:
        served[ModelCell((flow.model, flow.cell))][flow.cluster] = flow.requests_per_second
    unserved = {(one.model, one.cell): one for one in routing.unserved}
    targets = {}
    for demand in problem.demands:
        key = ModelCell((demand.model, demand.cell))
        parts = {c: rps / demand.requests_per_second for c, rps in sorted(served[key].items())}
        shares = {c: share for c, share in parts.items() if share > 1e-4}
        left = unserved.get(key)
        targets[key] = Target(shares) if left is None else Target(shares, left.reason, left.code)
    return targets


def next_routes(
    now: Mapping[ModelCell, Route],
    targets: Targets,
    *,
    serving: Mapping[str, frozenset[str]],
    traffic: Mapping[str, Traffic],
    steps: Mapping[str, int],
    outlook: shift.Outlook | None = None,
) -> tuple[Route, ...]:
    """The next routing table.

    Users without known demand keep the shares that can still be served, for at most `MOST_KEPT` rows: an agent that
    names other cells in each report must not make the table grow for ever.

    Args: serving: model -> clusters with a ready replica that may receive requests. traffic: model -> policy. steps:
        model -> whole step intervals since the last step. outlook: receivers that may not grow, and those that give
        back.
    """
    outlook = outlook or shift.Outlook(memory=shift.ShiftMemory())
    routes = []
    unknown = sorted(key for key in now if key[0] in traffic and key not in targets)
    for key in sorted([*targets, *unknown[:MOST_KEPT]]):
        model, cell = key
        if key not in targets:
            kept = tuple(share for share in now[key].now if share.cluster in serving.get(model, frozenset()))
            row = now[key]
            routes.append(row if row.now == row.target == kept else replace(row, now=kept, target=kept))
            continue
        target, reason, code = targets[key]
        if key in now and _is_there(now[key], targets[key], serving.get(model, frozenset()), outlook):
            routes.append(now[key])
            continue
        present = {share.cluster: share.share for share in now[key].now} if key in now else {}
        limit = traffic.get(model, Traffic()).step_percent / 100.0 * steps.get(model, 0)
        able = serving.get(model, frozenset())
        capped = {
            c: min(part, outlook.barred[ModelCluster(model, c)].before.get(cell, 0.0))
            if (model, c) in outlook.barred
            else part
            for c, part in present.items()
        }
        if any(target.get(c, 0.0) > part + 1e-6 for c, part in capped.items() if part < present[c]):
            capped = present  # there is nowhere to go back to
        shares = step(capped, target, serving=able, limit=limit)
        there = {c: part for c, part in capped.items() if c in able}
        shares = shift.restrain(there, shares, model, cell, outlook)
        wanted, given = _shares(target), _shares(shares)
        given = wanted if given == wanted else given
        routes.append(
            Route(model=model, cell=cell, now=given, target=wanted, unserved_reason=reason, unserved_code=code)
        )
    return tuple(routes)


def _is_there(row: Route, target: Target, able: frozenset[str], outlook: shift.Outlook) -> bool:
    """Whether a row is at its target and may stay. This holds for nearly all rows nearly always."""
    return (
        row.now is row.target
        and row.unserved_reason == target.reason
        and row.unserved_code == target.code
        and len(row.now) == len(target.shares)
        and all(
            round(target.shares.get(one.cluster, -1.0), PLACES) == one.share
            and one.cluster in able
            and (row.model, one.cluster) not in outlook.barred
            for one in row.now
        )
    )


def without_replicas(world: World, routes: Routes) -> frozenset[ModelCell]:
    """The (model, cell) pairs with a share in a cluster that itself reports no ready replica.

    Under the brake this is knowledge, as silence is not: the cluster reported after the brake came on.
    """
    since_s = world.brake.since_s if world.brake is not None else float("inf")
    heard = {
        name: {replica.model for replica in state.report.replicas if replica.ready}
        for name, state in world.clusters.items()
        if state.report is not None and state.heard_s is not None and state.heard_s >= since_s
    }
    return frozenset(
        route.key
        for route in routes.routes
        if any(one.cluster in heard and route.model not in heard[one.cluster] for one in route.now)
    )


def only(before: Routes, after: Sequence[Route], keys: Collection[ModelCell]) -> tuple[Route, ...]:
    """The rows of `before`, with those of `keys` taken from `after`."""
    changed = {(route.model, route.cell): route for route in after if (route.model, route.cell) in keys}
    return tuple(changed.get((route.model, route.cell), route) for route in before.routes)


def step(
    present: Mapping[str, float], target: Mapping[str, float], *, serving: frozenset[str], limit: float
) -> dict[str, float]:
    """The shares after at most `limit` of a cell's requests moved from `present` towards `target`.

    Requests without a cluster that can serve them go to the target's clusters at once.
    """
    held = {cluster: share for cluster, share in present.items() if cluster in serving}
    homeless = max(0.0, sum(target.values()) - sum(held.values()))
    if homeless > 0:
        short = {c: max(0.0, share - held.get(c, 0.0)) for c, share in target.items()}
        whole = sum(short.values())
        for cluster, part in short.items():
            if part > 0:
                held[cluster] = held.get(cluster, 0.0) + homeless * part / whole
    elif sum(held.values()) > sum(target.values()) + 1e-9:
        held = {c: share * sum(target.values()) / sum(held.values()) for c, share in held.items()}
    distance = 0.5 * sum(abs(target.get(c, 0.0) - held.get(c, 0.0)) for c in {*target, *held})
    if distance <= max(SNAP, limit):
        return dict(target)
    factor = limit / distance
    moved = {c: held.get(c, 0.0) + factor * (target.get(c, 0.0) - held.get(c, 0.0)) for c in {*target, *held}}
    return {cluster: share for cluster, share in moved.items() if share > 1e-6}


def load_rps(routes: Sequence[Route], demand_rps: Mapping[ModelCell, float]) -> dict[ModelCluster, float]:
    """(model, cluster) -> requests per second by the shares in force."""
    load: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for route in routes:
        rps, mine = demand_rps.get(route.key, 0.0), load[route.model]
        for share in route.now:
            mine[share.cluster] += share.share * rps
    return {ModelCluster(model, cluster): rps for model, mine in load.items() for cluster, rps in mine.items()}


def _shares(shares: Mapping[str, float]) -> tuple[Share, ...]:
    return tuple(Share(cluster=cluster, share=round(share, PLACES)) for cluster, share in sorted(shares.items()))


def over_target(
    routing: engine.Routing, told_s: Mapping[str, float], now_s: float
) -> tuple[tuple[Note, ...], dict[str, float]]:
    """Events about clusters that serve more than the target utilisation, and the instant of the newest event by model.

    The event of a model repeats after `TOLD_AGAIN_S` at the earliest.
    """
    notes, told = [], {name: at_s for name, at_s in told_s.items() if now_s - at_s < TOLD_AGAIN_S}
    by_model: dict[str, list[engine.Over]] = defaultdict(list)
    for one in routing.over:
        by_model[one.model].append(one)
    for model, mine in by_model.items():
        if model in told:
            continue
        told[model] = now_s
        most = max(mine, key=lambda one: (one.requests_per_second, one.cluster))
        others = f" ({len(mine)} clusters do)" if len(mine) > 1 else ""
        text = (
            f"{most.cluster} serves {most.requests_per_second:.6g} requests per second of {model} above the target "
            f"utilisation{others}: {most.reason}"
        )
        notes.append(Note(reason="OverTarget", object=f"model/{model}", message=text))
    return tuple(notes), told
