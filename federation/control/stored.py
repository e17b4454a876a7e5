"""A plan as the store has it: JSON of `Plan`, or of the version before it, in which a plan had no `placement`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import msgspec

from federation.control.plan import NO_COST, Near, Placement, Plan, Replicas
from placement import Cost, Floor, Reached, Shortfall


def decode(body: bytes) -> Plan:
    """The plan. Raises: msgspec.MsgspecError."""
    plan = msgspec.json.decode(body, type=Plan)
    if msgspec.json.decode(body, type=_Head).placement is not msgspec.UNSET:
        return plan
    return replace(plan, placement=msgspec.json.decode(body, type=_Before).placement())


class _Head(msgspec.Struct):
    placement: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _MissedFloor(msgspec.Struct):
    model: str
    rule: Floor
    reason: str


class _ReachedLimit(msgspec.Struct):
    limit: Literal["max_replicas", "budget"]
    subject: str
    reason: str

    def reached(self) -> Reached | None:
        """With the figures, which were stored in the sentence alone; None where it has another form."""
        match = _FIGURES[self.limit].match(self.reason)
        if match is None:
            return None
        used, most, usd = (float(text or 0.0) for text in match.groups())
        return Reached(limit=self.limit, subject=self.subject, used=used, most=most, usd_per_hour=usd)


_SAVES = r"(?:.*; .* would save up to ([0-9.]+) USD an hour)?"
_FIGURES = {
    "max_replicas": re.compile(r".* has ([0-9]+) replicas, and maxReplicas ([0-9]+) allows no more" + _SAVES),
    "budget": re.compile(r".* spends ([0-9.]+) of its maxUsdPerHour ([0-9.]+)," + _SAVES),
}


class _Before(msgspec.Struct):
    """The fields of a plan of schema 3 that a `Placement` has. What it did not store is zero; sentences are kept."""

    target: tuple[Replicas, ...] = ()
    moves: int = 0
    summary: str = ""
    costs: Cost = NO_COST
    near: Near | None = None
    near_by_model: Mapping[str, Near] = {}
    bound_usd_per_hour: float = 0.0
    gap: float = 0.0
    bound_is_loose: bool = False
    missed_floors: tuple[_MissedFloor, ...] = ()
    reached_limits: tuple[_ReachedLimit, ...] = ()

    def placement(self) -> Placement:
        """Unserved users are left out: they were stored without model, cell and code."""
        return Placement(
            replicas=self.target,
            summary=self.summary,
            moves=self.moves,
            cost=self.costs,
            near=self.near,
            near_by_model=self.near_by_model,
            bound_usd_per_hour=self.bound_usd_per_hour,
            gap=self.gap,
            bound_is_loose=self.bound_is_loose,
            shortfalls=tuple(
                Shortfall(model=one.model, rule=one.rule, wanted=0.0, placed=0.0, reason=one.reason)
                for one in self.missed_floors
            ),
            reached=tuple(reached for one in self.reached_limits if (reached := one.reached()) is not None),
        )
