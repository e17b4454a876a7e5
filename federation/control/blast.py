"""The effect of a document or a deletion on users, and whether a person has to confirm it.

There are two steps. `at_once` needs no engine: it finds models that lose their policy or their document, that fit
nowhere, or whose users no cluster may serve. `with_answer` adds the engine's proposal. Each figure is compared with the
present one, so that no document is blamed for an existing shortage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import placement as engine
from federation.control.placement_cycle import Solve
from federation.control.plan import Plan, Routes
from federation.control.problem import Formulated
from federation.policy.documents import Documents
from federation.state.keys import ModelCell, PlacementKey


@dataclass(frozen=True, slots=True, kw_only=True)
class BlastLimits:
    """A change beyond these limits needs a person's confirmation."""

    unserved_fraction: float = 0.05
    """Part of a model's served requests."""
    replicas_fraction: float = 0.5
    """Part of the fleet's replicas, starts and stops together."""
    replicas_least: int = 5
    """Fewer starts and stops than this never need confirmation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """The present state.

    Args: plan: in force. asked_rps, unserved_rps: by model. alternative: the engine's newest proposal, where only
        hysteresis keeps the plan from it.
    """

    plan: Plan
    asked_rps: Mapping[str, float]
    unserved_rps: Mapping[str, float]
    alternative: Mapping[PlacementKey, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """Requests per second of a model: asked, unserved at present, unserved after the change."""

    model: str
    asked_rps: float
    now_rps: float
    then_rps: float

    @property
    def text(self) -> str:
        """One clause."""
        return f"{self.then_rps:.1f} of {self.asked_rps:.1f} requests per second for {self.model} unserved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """The predicted effect.

    Args: emptied: models that would lose all replicas -> their present number. shortages: of each placed model. starts,
        stops: replicas; replicas: of the whole fleet at present. models: those whose placement changes. is_foreseen:
        whether the engine was asked; `why_not` is the reason where it was not.
    """

    emptied: Mapping[str, int]
    shortages: tuple[Shortage, ...]
    replicas: int
    starts: int = 0
    stops: int = 0
    models: tuple[str, ...] = ()
    is_foreseen: bool = False
    why_not: str = ""

    def refusals(self, limits: BlastLimits) -> tuple[str, ...]:
        """Why a person has to confirm the change: one sentence each; empty where nobody has to."""
        return tuple(text for _, text in self.refusals_of(limits))

    def refusals_of(self, limits: BlastLimits) -> tuple[tuple[str, str], ...]:
        """The same sentences, each with its model; with an empty name where the whole fleet is affected."""
        found = []
        short = {one.model: one for one in self.shortages}
        for model, count in sorted(self.emptied.items()):
            served_rps = short[model].asked_rps - short[model].now_rps if model in short else 0.0
            text = f"{model} would go to nothing: {count} replicas, which serve {served_rps:.1f} requests per second"
            found.append((model, text))
        for one in self.shortages:
            served_rps = one.asked_rps - one.now_rps
            lost_rps = one.then_rps - one.now_rps
            if one.model not in self.emptied and lost_rps > limits.unserved_fraction * served_rps + 1e-6:
                found.append((one.model, f"it would leave {one.text}, {one.now_rps:.1f} today"))
        changed = self.starts + self.stops - sum(self.emptied.values())
        if changed >= limits.replicas_least and changed > limits.replicas_fraction * self.replicas:
            text = f"it would start {self.starts} and stop {self.stops} replicas of a fleet of {self.replicas} at once"
            found.append(("", text))
        return tuple(found)


NOTHING = Effect(emptied={}, shortages=(), replicas=0, is_foreseen=True)


def now(plan: Plan, routes: Routes, demand_rps: Mapping[ModelCell, float], newest: Solve | None) -> Now:
    """The present state. Users that the newest solve leaves unserved count as unserved even while routing still serves
    them.

    Args: demand_rps: (model, cell) -> requests per second.
    """
    asked, unserved = asked_rps(demand_rps), unserved_rps(routes, demand_rps)
    if newest is None:
        return Now(plan=plan, asked_rps=asked, unserved_rps=unserved)
    solution = newest.proposal.solution
    planned: dict[str, float] = defaultdict(float)
    for one in solution.unserved:
        planned[one.model] += one.requests_per_second
    return Now(
        plan=plan,
        asked_rps=asked,
        unserved_rps={model: max(rps, planned.get(model, 0.0)) for model, rps in unserved.items()},
        alternative=newest.formulated.ours(solution.replicas),
    )


def say_the_same(before: Documents, after: Documents) -> bool:
    """Whether the documents agree in everything that is acted on: of the metadata, only the names."""
    return _acted_on(before) == _acted_on(after)


def _acted_on(documents: Documents) -> list[tuple[str, object]]:
    models = [(one.metadata.name, one.spec) for one in documents.models]
    policies = [(one.metadata.name, one.spec) for one in documents.policies]
    return [*models, *policies, *((one.metadata.name, one.spec) for one in documents.clusters)]


def lost_in_use(gone: Collection[str], plan: Plan) -> dict[str, int]:
    """Clusters that would leave the catalogue with replicas in them -> number of replicas."""
    running = dict.fromkeys(sorted(gone), 0)
    for key, count in plan.desired_by_key().items():
        if key.cluster in running:
            running[key.cluster] += count
    return {cluster: count for cluster, count in running.items() if count}


def asked_rps(demand_rps: Mapping[ModelCell, float]) -> dict[str, float]:
    """Requests per second by model."""
    total: dict[str, float] = defaultdict(float)
    for (model, _), rps in demand_rps.items():
        total[model] += rps
    return dict(total)


def unserved_rps(routes: Routes, demand_rps: Mapping[ModelCell, float]) -> dict[str, float]:
    """Requests per second by model that no share in force serves."""
    served: dict[ModelCell, float] = {
        route.key: min(1.0, sum(share.share for share in route.now)) for route in routes.routes
    }
    total: dict[str, float] = defaultdict(float)
    for key, rps in demand_rps.items():
        total[key[0]] += rps * (1.0 - served.get(key, 0.0))
    return dict(total)


def at_once(before: Documents, after: Documents, formulated: Formulated, now: Now) -> Effect:
    """The part of the effect that needs no engine. Args: before, after: documents. formulated: the problem with
    `after`."""
    problem = formulated.problem
    running: dict[str, int] = defaultdict(int)
    for key, count in now.plan.desired_by_key().items():
        running[key.model] += count
    placed = {model for model, count in running.items() if count > 0 and before.is_placed(model)}
    models = {model.name: model for model in problem.models}
    holders = {
        name: {
            pool.cluster
            for pool in problem.pools
            if model.shape_for(pool) is not None and not (pool.market == "spot" and model.spot_max_fraction <= 0)
        }
        for name, model in models.items()
        if name in placed
    }
    emptied = {model: running[model] for model in placed if not holders.get(model)}
    forbidden = _forbidden_rps(problem, holders)
    shortages = tuple(
        Shortage(
            model=model,
            asked_rps=now.asked_rps.get(model, 0.0),
            now_rps=now.unserved_rps.get(model, 0.0),
            then_rps=max(
                now.asked_rps.get(model, 0.0) if model in emptied else now.unserved_rps.get(model, 0.0),
                forbidden.get(model, 0.0),
            ),
        )
        for model in sorted(placed)
    )
    return Effect(
        emptied=emptied,
        shortages=shortages,
        replicas=sum(running.values()),
        stops=sum(emptied.values()),
        models=tuple(sorted(emptied)),
    )


def with_answer(effect: Effect, formulated: Formulated, solution: engine.Solution, now: Now) -> Effect:
    """The effect with the engine's proposal. Starts of models that are new to the plan disturb nobody, so they do not
    count."""
    then = formulated.ours(solution.replicas)
    unserved: dict[str, float] = defaultdict(float)
    for one in solution.unserved:
        unserved[one.model] += one.requests_per_second
    short = {one.model: one for one in effect.shortages}
    left = {key.model for key, count in then.items() if count > 0}
    emptied = dict(effect.emptied)
    for model, known in short.items():
        if model not in left and known.asked_rps > 0 and model not in emptied:
            emptied[model] = sum(count for key, count in now.plan.desired_by_key().items() if key.model == model)
    shortages = tuple(
        replace(known, then_rps=known.asked_rps if known.model in emptied else unserved[known.model])
        for known in effect.shortages
    )
    ways = [_difference(base, then, set(short)) for base in _bases(now)]
    starts, stops, changed = min(ways, key=lambda way: way[0] + way[1])
    return replace(
        effect,
        emptied=emptied,
        shortages=shortages,
        starts=starts,
        stops=stops,
        models=tuple(sorted(changed | emptied.keys())),
        is_foreseen=True,
    )


def _bases(now: Now) -> list[Mapping[PlacementKey, int]]:
    """The placements to compare with: a change that hysteresis holds back, or that a rollout has not reached, is no
    change."""
    found: list[Mapping[PlacementKey, int]] = [now.plan.target_by_key(), now.plan.desired_by_key()]
    return found if now.alternative is None else [*found, now.alternative]


def _difference(
    base: Mapping[PlacementKey, int], then: Mapping[PlacementKey, int], placed: set[str]
) -> tuple[int, int, set[str]]:
    """Starts, stops, and their models, among the models that are placed at present."""
    starts = stops = 0
    changed = set()
    for key in base.keys() | then.keys():
        more = then.get(key, 0) - base.get(key, 0)
        if key.model in placed and more:
            starts, stops = starts + max(0, more), stops + max(0, -more)
            changed.add(key.model)
    return starts, stops, changed


def _forbidden_rps(problem: engine.Problem, holders: Mapping[str, set[str]]) -> dict[str, float]:
    """Model -> requests per second of users that no cluster with a fitting pool may serve."""
    cells = {cell.name: cell for cell in problem.cells}
    clusters = {cluster.name: cluster for cluster in problem.clusters}
    models = {model.name: model for model in problem.models}
    known: dict[tuple[str, str, str], bool] = {}
    total: dict[str, float] = defaultdict(float)
    for demand in problem.demands:
        if demand.model not in holders:
            continue
        model, cell = models[demand.model], cells[demand.cell]
        alike = (model.name, cell.country, cell.continent)
        if alike not in known:
            known[alike] = any(problem.allows(model, cell, clusters[name]) for name in holders[model.name])
        if not known[alike]:
            total[model.name] += demand.requests_per_second
    return dict(total)
