"""`python -m tests.bench CASE|all`: one JSON line per result, baseline and ours measured in one run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator

from tests.bench import (
    agent_footprint,
    demand,
    demo_size,
    elsewhere,
    events,
    failover,
    latency,
    loading,
    mass,
    near,
    placement,
    reports,
    rivals,
    routes,
    routing,
    spot,
    told,
    traffic,
)

Result = dict[str, object]
CASES: dict[str, Callable[[], Iterator[Result]]] = {
    "solve": demo_size.solve,
    "route": demo_size.route,
    "policies": loading.policies,
    "placement": placement.placement,
    "survive": placement.survive,
    "events": events.events,
    "failover": failover.failover,
    "largest": placement.largest,
    "lumpy": placement.lumpy,
    "literature": placement.from_literature,
    "routes": routes.routes,
    "routing": routing.routing,
    "rivals": rivals.rivals,
    "latency": latency.latency,
    "near": near.near,
    "frontier": near.frontier,
    "traffic": traffic.traffic,
    "reports": reports.reports,
    "told": told.told,
    "fleet": mass.mass,
    "elsewhere": elsewhere.elsewhere,
    "spot": spot.spot,
    "demand": demand.demand,
    "agent": agent_footprint.agent,
}


def main() -> None:
    """Run the case that is named, or all."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else "all"
    if wanted != "all" and wanted not in CASES:
        sys.exit(f"no case {wanted!r}: one of all, {', '.join(CASES)}")
    with demo_size.quiet_solver() as results:
        for name, case in CASES.items():
            if wanted in ("all", name):
                for result in case():
                    print(json.dumps({"case": name, **result}), file=results, flush=True)


if __name__ == "__main__":
    main()
