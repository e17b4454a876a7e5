"""Policy's upper limits: the most replicas of a model, and budgets that models share.

Limits read `sum(term * replicas) <= upper`, and a budget's sum goes over several models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from placement.index import Index, Option
from placement.problem import Model
from placement.solution import Limit, Reached, Ready

ROUND = 1e-6
"""So much more than a limit is no more: rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpperRule:
    """`sum(terms[model, pool] * replicas) <= upper`; `subject` as in `Reached`.

    Held replicas cannot move: where they alone are more than policy's limit, `upper` is what they are.
    """

    limit: Limit
    subject: str
    terms: Mapping[tuple[str, str], float]
    upper: float
    most: float
    """Policy's limit; `upper` is higher where held replicas alone exceed it."""


def upper_rules(index: Index) -> list[UpperRule]:
    """The rule of each model with `max_replicas`, then of each budget; without rules that have no term."""
    problem, found = index.problem, []
    for model in problem.models:
        if model.max_replicas is not None:
            terms = {(model.name, option.pool.name): 1.0 for option in index.options(model)}
            found.append(_limit(index, "max_replicas", model.name, terms, float(model.max_replicas)))
    for budget in problem.budgets:
        terms = {
            (name, option.pool.name): option.shape.devices * option.pool.usd_per_device_hour
            for name in budget.models
            for option in index.options(index.models[name])
            if option.pool.usd_per_device_hour > 0
        }
        found.append(_limit(index, "budget", budget.name, terms, budget.usd_per_hour))
    return [one for one in found if one.terms]


def _limit(index: Index, limit: Limit, subject: str, terms: dict[tuple[str, str], float], most: float) -> UpperRule:
    models = {name for name, _ in terms}
    least = {(n, option.pool.name): option.least for n in models for option in index.options(index.models[n])}
    held = sum(term * least[key] for key, term in terms.items())
    return UpperRule(limit=limit, subject=subject, terms=terms, upper=max(most, held), most=most)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitUse:
    """The use of a limit by a placement: `used` of `most`; `usd_per_hour` is the dual: what one more would save."""

    rule: UpperRule
    used: float
    most: float
    usd_per_hour: float

    @property
    def reached(self) -> Reached:
        """As a part of a solution."""
        return Reached(
            limit=self.rule.limit,
            subject=self.rule.subject,
            used=self.used,
            most=self.most,
            usd_per_hour=self.usd_per_hour,
        )

    def has_room(self, term: float) -> bool:
        """Whether one more replica with this term fits."""
        return self.used + term <= self.most + ROUND


def limit_uses(index: Index, counts: Ready, limit_usd: Mapping[tuple[Limit, str], float]) -> list[LimitUse]:
    """The use of every limit by these replicas. Args: limit_usd: duals by (limit, subject)."""
    found = []
    for rule in upper_rules(index):
        used = sum(term * counts.get(key, 0) for key, term in rule.terms.items())
        usd = max(0.0, limit_usd.get((rule.limit, rule.subject), 0.0))
        found.append(LimitUse(rule=rule, used=used, most=rule.most, usd_per_hour=usd))
    return found


def reached(limits: Sequence[LimitUse]) -> tuple[Reached, ...]:
    """Limits without room for the smallest replica that they count."""
    return tuple(sorted(one.reached for one in limits if not one.has_room(min(one.rule.terms.values()))))


def exhausted(model: Model, options: Sequence[Option], limits: Sequence[LimitUse]) -> list[LimitUse]:
    """Limits without room for one more replica of the model in any of these options.

    That may be a budget with money left, when no replica fits into it.
    """
    keys = [(model.name, option.pool.name) for option in options]
    return [
        one
        for one in limits
        if not one.rule.terms.keys().isdisjoint(keys)
        and not one.has_room(min(one.rule.terms.get(k, 0.0) for k in keys))
    ]
