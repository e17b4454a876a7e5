"""Shares in force, one step nearer to what the routing problem says.

A share leaves a cluster at once when the cluster cannot serve it; otherwise shares move by the policy's step, so that a
mistake is seen while it is small and caches stay warm. That is also what makes a returning cluster's load come back
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
    """Where the requests of one (model, cell) should go: cluster -> share; and why the rest is unserved."""

    shares: dict[str, float]
    reason: str = ""
    code: engine.UnservedCode | None = None


Targets = Mapping[ModelCell, Target]
MOST_KEPT = 20_000
"""Rows of users of whom nothing is known."""
PLACES = 6
"""Of a share after the point."""
SNAP = 0.005
"""Differences of shares smaller than this are noise: they are taken at once when the rest has arrived."""

TOLD_AGAIN_S = 600.0


def target_shares(problem: engine.Problem, routing: engine.Routing) -> Targets:
    """Where requests should go, as parts of each cell's."""
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
    """The next routing table. Users of whom nothing is known now keep the shares they had, where those can serve, as
    long as they are no more than `MOST_KEPT`: who names other users in each report makes the table no longer for ever.

    Args: serving: model -> clusters with a ready replica that may be sent requests. traffic: model -> policy.
        steps: model -> how many whole step intervals have passed since the last step. outlook: who may not grow, and
        who goes back.
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
    """Whether a row has arrived at this target and may stay: nearly all rows are so, nearly always."""
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
    """(model, cell) whose requests go, in part, to a cluster that says itself that none of its replicas is ready.

    Under the brake that is knowledge, as silence is not: the cluster was heard since the brake came on.
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
    """The routes of `before`, with those of `keys` as they are in `after`."""
    changed = {(route.model, route.cell): route for route in after if (route.model, route.cell) in keys}
    return tuple(changed.get((route.model, route.cell), route) for route in before.routes)


def step(
    present: Mapping[str, float], target: Mapping[str, float], *, serving: frozenset[str], limit: float
) -> dict[str, float]:
    """Shares after moving at most `limit` of a cell's requests from `present` towards `target`.

    What present shares cannot serve any more goes to the target's clusters at once, and so does what was unserved.
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
    """(model, cluster) -> requests per second that the shares in force send there."""
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
    """What people should know of clusters that serve more than plans count on, and when each model was last told of.

    A model is told of again after `TOLD_AGAIN_S` without it or with it.
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
