"""Floors that a placement misses, by how much and why."""

from __future__ import annotations

from collections.abc import Sequence

from placement import floors
from placement.index import Index, Option
from placement.limits import LimitUse, exhausted
from placement.problem import Model
from placement.solution import Floor, Ready, Shortfall
from placement.survival import cuts

ROUND = 1e-6


def shortfalls(index: Index, model: Model, counts: Ready, limits: Sequence[LimitUse]) -> list[Shortfall]:
    options = index.options(model)
    mine = [counts.get((model.name, option.pool.name), 0) for option in options]
    full = "; ".join(one.reached.says for one in exhausted(model, options, limits))
    missed: dict[tuple[Floor, str], Shortfall] = {}
    for rule in floors.floors(index, model, options):
        placed = sum(term * mine[at] for at, term in rule.terms.items())
        if rule.floor == "survive_within":
            continue
        if rule.floor == "max_part":
            if placed < rule.lower - ROUND:
                missed[rule.floor, rule.subject] = _uneven(index, model, rule.subject, options, mine, full)
            continue
        known = missed.get((rule.floor, rule.subject))
        if placed < rule.lower - ROUND and (known is None or rule.lower - placed > known.wanted - known.placed):
            missed[rule.floor, rule.subject] = Shortfall(
                model=model.name,
                rule=rule.floor,
                subject=rule.subject,
                wanted=rule.lower,
                placed=placed,
                reason=_why_missed(model, rule, placed, full),
            )
    replicas = {option.pool.name: float(count) for option, count in zip(options, mine, strict=True)}
    for one in cuts.after_losses(index, model, replicas):
        if one.is_short:
            missed["survive_within", one.lost] = Shortfall(
                model=model.name,
                rule="survive_within",
                subject=one.lost,
                wanted=one.wanted_rps,
                placed=one.servable_rps,
                reason=(
                    f"{model.name}: without {one.lost} only {one.servable_rps:.1f} of {one.wanted_rps:.1f} requests "
                    f"per second could be served within the objective; "
                    f"{full or 'within reach are no devices for the rest'}"
                ),
            )
    regions = {index.clusters[option.pool.cluster].region for at, option in enumerate(options) if mine[at]}
    if len(regions) < model.min_regions:
        text = f"{model.name}: in {len(regions)} of {model.min_regions} regions that policy asks; "
        missed["min_regions", ""] = Shortfall(
            model=model.name,
            rule="min_regions",
            wanted=model.min_regions,
            placed=len(regions),
            reason=text + (full or "no other has devices"),
        )
    return [missed[key] for key in sorted(missed)]


def _uneven(
    index: Index, model: Model, domain: str, options: Sequence[Option], counts: Sequence[int], full: str
) -> Shortfall:
    """What a domain holds beyond its part."""
    most = model.max_part
    assert most is not None, "a rule comes from a limit"
    rps = [count * option.shape.requests_per_second for option, count in zip(options, counts, strict=True)]
    here = [index.clusters[option.pool.cluster].domain(most.domain) == domain for option in options]
    part = 100.0 * sum(each for each, is_here in zip(rps, here, strict=True) if is_here) / sum(rps)
    return Shortfall(
        model=model.name,
        rule="max_part",
        subject=domain,
        wanted=100.0 * most.fraction,
        placed=part,
        reason=(
            f"{model.name}: {domain} holds {part:.0f} % of what its replicas can serve, policy asks at most "
            f"{100.0 * most.fraction:g} %; {full or 'nowhere else are there devices for its users'}"
        ),
    )


def _why_missed(model: Model, rule: floors.Rule, placed: float, full: str) -> str:
    """Args: full: which of policy's own limits are in the way, or nothing: then devices are."""
    if rule.floor == "survive":
        return (
            f"{model.name}: without {rule.subject} only {placed:.1f} of {rule.lower:.1f} requests per second that "
            f"policy protects could be served; {full or 'nowhere else are there devices for the rest'}"
        )
    if rule.floor == "availability":
        return (
            f"{model.name}: while spot in {rule.subject} is lost, {rule.lower - placed:.1f} requests per second more "
            f"go unserved than availability.target allows; {full or 'nowhere else are there devices for its users'}"
        )
    whose = {"pin": f"pinned to {rule.subject}", "min_on_demand": "that policy asks off spot"}
    asked = whose.get(rule.floor, "that policy asks")
    if full:
        return f"{model.name}: only {placed:.0f} of {rule.lower:.0f} replicas {asked} may run; {full}"
    return f"{model.name}: only {placed:.0f} of {rule.lower:.0f} replicas {asked} have devices that fit"
