"""Views as rows in kubectl's form: upper-case headers, short ages, `<unknown>` for missing values."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import yaml
from tabulate import tabulate

from federation.aiokit.printable import one_line
from federation.api import views

UNKNOWN = "<unknown>"
Row = Callable[[Any], dict[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of object that can be listed."""

    singular: str
    path: str
    view: type
    row: Row
    wide: Row
    short: tuple[str, ...]


def age(seconds: float | None) -> str:
    """`12s`, `5m3s`, `2h10m`, `3d`."""
    if seconds is None:
        return UNKNOWN
    whole = int(seconds)
    if whole < 120:
        return f"{whole}s"
    if whole < 7200:
        return f"{whole // 60}m{whole % 60}s"
    if whole < 172_800:
        return f"{whole // 3600}h{whole % 3600 // 60}m"
    return f"{whole // 86_400}d"


def milliseconds(ms: float | None) -> str:
    """`17ms`, `2.4ms`."""
    return UNKNOWN if ms is None else f"{ms:.1f}ms" if ms < 10 else f"{ms:.0f}ms"


def moment(at_s: float) -> str:
    """An instant of the controller's clock: `2026-11-24T16:26:04Z`."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def known(value: object) -> object:
    """The value, or that it is unknown."""
    return UNKNOWN if value is None else value


def _cluster(one: views.ClusterView) -> dict[str, object]:
    status = one.phase.capitalize() + (",Draining" if one.draining else ",Cordoned" if one.cordoned else "")
    return {
        "NAME": one.name,
        "STATUS": status,
        "PROVIDER": one.provider,
        "REGION": one.region,
        "ACCELERATORS": known(one.accelerators),
        "REPLICAS": sum(row.desired for row in one.replicas),
        "AGE": age(one.report_age_s),
    }


def _cluster_wide(one: views.ClusterView) -> dict[str, object]:
    return {
        "CITY": one.city,
        "TIER": one.tier,
        "JURISDICTIONS": ",".join(one.jurisdictions),
        "PLAN": f"{one.ack.epoch}.{one.ack.generation}" if one.ack else UNKNOWN,
        "CONDITIONS": len(one.conditions),
        "STATE": one.worst_state,
        "REASON": one.reason,
    }


def _model(one: views.ModelView) -> dict[str, object]:
    return {
        "NAME": one.name,
        "STATE": one.state,
        "READY": f"{one.replicas_ready}/{one.replicas_desired}",
        "DEMAND/S": f"{one.demand_rps:.1f}",
        "LATE/S": f"{one.late_rps:.1f}",
        "UNSERVED/S": f"{one.unserved_rps:.1f}",
        "USD/H": f"{one.usd_per_hour:.2f}",
        "RTT": milliseconds(one.near.rtt_ms_mean if one.near else None),
        "P95": milliseconds(one.near.rtt_ms_p95 if one.near else None),
        "EXCESS": milliseconds(one.near.excess_ms_mean if one.near else None),
    }


def _model_wide(one: views.ModelView) -> dict[str, object]:
    return {
        "RUNTIME": one.runtime,
        "OBJECTIVE": f"{one.objective_ms:g}ms",
        "POLICY": one.policy or "<none>",
        "REASON": "; ".join(one.reasons),
    }


def _cell(one: views.CellView) -> dict[str, object]:
    rps = sum(demand.rps for demand in one.demand)
    worst = max((r.latency_ms for d in one.demand for r in d.routes if r.share > 0), default=None)
    clusters = sorted({r.cluster for d in one.demand for r in d.routes if r.share > 0})
    return {
        "NAME": one.name,
        "COUNTRY": one.country,
        "DEMAND/S": f"{rps:.1f}" + (" (decaying)" if any(demand.is_decaying for demand in one.demand) else ""),
        "UNSERVED/S": f"{sum(demand.unserved_rps for demand in one.demand):.1f}",
        "SLOWEST": UNKNOWN if worst is None else f"{worst:.0f}ms",
        "SERVED BY": ",".join(clusters[:3]) + (f"+{len(clusters) - 3}" if len(clusters) > 3 else ""),
        "AGE": age(max((demand.age_s for demand in one.demand), default=None)),
    }


def _cell_wide(one: views.CellView) -> dict[str, object]:
    reasons = sorted({demand.reason for demand in one.demand if demand.reason})
    return {"LAT": f"{one.lat:.2f}", "LON": f"{one.lon:.2f}", "REASON": "; ".join(reasons)}


def _placement(one: views.PlacementView) -> dict[str, object]:
    return {
        "MODEL": one.model,
        "CLUSTER": one.cluster,
        "POOL": one.pool,
        "READY": f"{one.ready if one.ready is not None else '?'}/{one.desired}",
        "USD/H": f"{one.usd_per_hour:.2f}",
    }


def _plan(one: views.PlanView) -> dict[str, object]:
    return {
        "PLAN": f"{one.epoch}.{one.generation}",
        "TIME": moment(one.at_s),
        "MOVES": one.moves,
        "USD/H": f"{one.cost.total - one.cost.proximity - one.cost.risk:.2f}",
        "RISK": f"{one.cost.risk:.2f}",
        "RTT": milliseconds(one.near.rtt_ms_mean if one.near else None),
        "EXCESS": milliseconds(one.near.excess_ms_mean if one.near else None),
        "SUMMARY": one.summary,
    }


def _event(one: views.EventView) -> dict[str, object]:
    return {
        "ID": one.id,
        "TIME": moment(one.at_s),
        "TYPE": one.type,
        "REASON": one.reason,
        "OBJECT": one.object,
        "MESSAGE": one.message,
    }


def _policy(one: views.PolicyFileView) -> dict[str, object]:
    return {
        "NAME": one.name,
        "REVISION": one.revision or "<none>",
        "DOCUMENTS": len(one.documents),
        "PROBLEMS": len(one.problems),
        "WARNINGS": len(one.warnings),
    }


def _policy_wide(one: views.PolicyFileView) -> dict[str, object]:
    first = f"{one.problems[0].line}:{one.problems[0].column}: {one.problems[0].message}" if one.problems else ""
    return {"HOLDS": ",".join(one.documents), "FIRST PROBLEM": first, "CARRYING OUT": one.carrying_out}


def _gateway(one: views.GatewayView) -> dict[str, object]:
    return {
        "NAME": one.name,
        "CLUSTER": one.cluster,
        "STATE": one.state.capitalize(),
        "REFUSED": ",".join(sorted(one.refused)) or "<none>",
        "AGE": age(one.age_s),
    }


def _refused(one: views.GatewayView) -> str:
    return "; ".join(f"{kind}: {error}" for kind, error in sorted(one.refused.items()))


def _price(one: views.PriceView) -> dict[str, object]:
    known = one.usd_per_device_hour
    return {
        "CLUSTER": one.cluster,
        "POOL": one.pool,
        "USD/H": f"{known:.4f}" if known is not None else UNKNOWN,
        "SOURCE": one.source or "none: nothing is placed there",
        "AGE": age(one.age_s),
        "CATALOGUE": f"{one.catalogue_usd:.4f}" if one.catalogue_usd is not None else UNKNOWN,
    }


def _price_wide(one: views.PriceView) -> dict[str, object]:
    is_spot = one.pool.endswith("/spot")
    return {
        "LOSSES/H": f"{one.losses_per_hour:.3f}" if is_spot else UNKNOWN,
        "CHANCE": f"{100 * one.replacement_chance:.0f} %" if is_spot else UNKNOWN,
        "SEEN": f"{one.seen_hours:.1f} h" if is_spot else UNKNOWN,
        "OFFER": one.offer or UNKNOWN,
        "DOUBT": one.doubt or UNKNOWN,
    }


def _latency(one: views.LatencyView) -> dict[str, object]:
    return {
        "CELL": one.cell,
        "CLUSTER": one.cluster,
        "P50": milliseconds(one.rtt_ms_p50),
        "P95": milliseconds(one.rtt_ms_p95),
        "BASIS": one.basis,
        "CONFIDENCE": UNKNOWN if one.confidence is None else f"{100 * one.confidence:.0f} %",
        "AGE": age(one.age_s),
    }


def _demand(one: views.DemandView) -> dict[str, object]:
    return {
        "MODEL": one.model,
        "CELL": one.cell,
        "DEMAND/S": f"{one.rps:.1f}" + (" (decaying)" if one.is_decaying else ""),
        "COUNTED BY": ", ".join(one.sources[:3])
        + (f" and {len(one.sources) - 3} more" if len(one.sources) > 3 else ""),
        "AGE": age(one.age_s),
    }


def _demand_wide(one: views.DemandView) -> dict[str, object]:
    ahead = (f"{f.rps:.1f} in {f.minutes} min (below {f.rps_below:.1f})" for f in one.forecast)
    return {
        "FORECAST": ", ".join(ahead) or UNKNOWN,
        "PLACE": "of the front door" if one.is_spread else "of the cell",
    }


def _engine(one: views.EngineView) -> dict[str, object]:
    return {
        "MODEL": one.model,
        "CLUSTER": one.cluster,
        "REPLICAS": one.replicas,
        "REQUESTS/S": _figure(one.requests_per_second),
        "RUNNING": _figure(one.running),
        "WAITING": _figure(one.waiting),
        "CACHE": f"{100 * one.kv_cache_used:.0f} %" if one.kv_cache_used is not None else UNKNOWN,
        "DECLARED/S": _figure(one.declared_rps),
        "LEARNT/S": _figure(one.learnt_rps),
        "AGE": age(one.age_s),
    }


def _figure(value: float | None) -> str:
    return f"{value:.1f}" if value is not None else UNKNOWN


KINDS = {
    "clusters": Kind(
        singular="cluster", path="/v1/clusters", view=views.ClusterView, row=_cluster, wide=_cluster_wide, short=("cl",)
    ),
    "models": Kind(
        singular="model", path="/v1/models", view=views.ModelView, row=_model, wide=_model_wide, short=("mo",)
    ),
    "cells": Kind(singular="cell", path="/v1/cells", view=views.CellView, row=_cell, wide=_cell_wide, short=("ce",)),
    "placements": Kind(
        singular="placement",
        path="/v1/placements",
        view=views.PlacementView,
        row=_placement,
        wide=lambda one: {"REGION": one.region, "REASON": one.reason},
        short=("pl",),
    ),
    "plans": Kind(
        singular="plan",
        path="/v1/plans",
        view=views.PlanView,
        row=_plan,
        wide=lambda one: {
            "GAP": f"{100 * one.gap:.2f}%{' loose' if one.bound_is_loose else ''}",
            "CHANGES": len(one.changes),
            "TRIGGER": one.trigger,
        },
        short=("plan",),
    ),
    "policies": Kind(
        singular="policy",
        path="/v1/policies",
        view=views.PolicyFileView,
        row=_policy,
        wide=_policy_wide,
        short=("po",),
    ),
    "gateways": Kind(
        singular="gateway",
        path="/v1/gateways",
        view=views.GatewayView,
        row=_gateway,
        wide=lambda one: {"ROUTES": one.accepted.get("routes", UNKNOWN), "REFUSED BECAUSE": _refused(one)},
        short=("gw",),
    ),
    "prices": Kind(
        singular="price",
        path="/v1/prices",
        view=views.PriceView,
        row=_price,
        wide=_price_wide,
        short=("pr",),
    ),
    "latency": Kind(
        singular="latency",
        path="/v1/latency",
        view=views.LatencyView,
        row=_latency,
        wide=lambda one: {"SOURCE": one.source},
        short=("rtt",),
    ),
    "demand": Kind(
        singular="demand",
        path="/v1/demand",
        view=views.DemandView,
        row=_demand,
        wide=_demand_wide,
        short=("de",),
    ),
    "engines": Kind(
        singular="engine",
        path="/v1/engines",
        view=views.EngineView,
        row=_engine,
        wide=lambda one: {
            "INPUT TOKENS/S": _figure(one.input_tokens_per_second),
            "OUTPUT TOKENS/S": _figure(one.output_tokens_per_second),
        },
        short=("en",),
    ),
    "events": Kind(
        singular="event", path="/v1/events", view=views.EventView, row=_event, wide=lambda one: {}, short=("ev",)
    ),
}


def find(word: str) -> tuple[str, Kind] | None:
    """The kind of a word: plural, singular or short."""
    for name, kind in KINDS.items():
        if word.lower() in (name, kind.singular, *kind.short):
            return name, kind
    return None


def table(kind: Kind, items: Sequence[Any], *, wide: bool, headers: bool = True) -> str:
    """Rows under headers."""
    plural = next(name for name, one in KINDS.items() if one is kind)
    rows = [
        {name: one_line(cell) if isinstance(cell, str) else cell for name, cell in row.items()}
        for row in ({**kind.row(one), **(kind.wide(one) if wide else {})} for one in items)
    ]
    if not rows:
        return f"no {plural}"
    return str(tabulate(rows, headers="keys" if headers else (), tablefmt="plain", disable_numparse=True))


def document(value: Any, output: str, *, digits: int | None = None) -> str:
    """A view, or a list of them, as JSON or YAML; with `digits`, numbers are rounded for people."""
    plain = msgspec.to_builtins({"items": list(value)} if isinstance(value, list | tuple) else value)
    plain = plain if digits is None else _rounded(plain, digits)
    if output == "json":
        return json.dumps(plain, indent=2, ensure_ascii=False)
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)).rstrip("\n")


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, dict):
        return {key: _rounded(one, digits) for key, one in value.items()}
    return [_rounded(one, digits) for one in value] if isinstance(value, list | tuple) else value
