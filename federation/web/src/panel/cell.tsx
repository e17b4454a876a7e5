// Users of one place: what they ask, who serves them, and how long that takes.

import { Figure, Link, useShown } from "../context.tsx";
import { experienceOf, observedMs, type Parts, partsOf, serviceMsOf } from "../experience.ts";
import { age, milliseconds, percent, plural, rps } from "../format.ts";
import { grown } from "../freshness.ts";
import { BasisBadge, knownLine } from "../known.tsx";
import { formatCoordinates } from "../selection.ts";
import type { CellDemandView, CellView, RouteView } from "../views.ts";
import { Fact, Latency, Sheet, total } from "./sheet.tsx";

export function CellPanel({ cell }: { cell: CellView }) {
  const { fresh, state, view } = useShown();
  const serviceMs = serviceMsOf(view.models);
  const observed = (route: RouteView, demand: CellDemandView) => observedMs(view, route.cluster, demand.model);
  const experience = experienceOf(cell, state.model, serviceMs);
  const asked = total(cell.demand);
  return (
    <Sheet kind={`User cell · ${cell.country}`} title={cell.name}>
      <p>
        {rps(asked)} requests per second over {plural(cell.demand.length, "model")}.
      </p>
      <dl class="facts">
        <Fact name={state.model ? `Round trip of ${state.model}` : "Round trip"}>
          <Figure text={milliseconds(experience.rttMs)} /> {experience.basis && <BasisBadge basis={experience.basis} />}
        </Fact>
        <Fact name="Late or unserved">{percent(experience.lateShare)}</Fact>
        {state.model && (
          <Fact name="Ready replicas">
            <Link kind="place" name={formatCoordinates(cell.lat, cell.lon)}>
              latencies from here
            </Link>
          </Fact>
        )}
      </dl>
      {[...cell.demand]
        .sort((a, b) => b.rps - a.rps)
        .map((demand) => (
          <section key={demand.model}>
            <h3>
              <Link kind="model" name={demand.model} />{" "}
              <small>
                {rps(demand.rps)} req/s · {age(grown(demand.age_s, fresh))}
              </small>
            </h3>
            {demand.unserved_rps > 0 && (
              <p class="verdict bad">
                <strong>{rps(demand.unserved_rps)} req/s unserved:</strong> {demand.reason || "no reason was given"}
              </p>
            )}
            <ul class="rows">
              {[...demand.routes]
                .sort((a, b) => b.share - a.share)
                .map((route) => (
                  <li key={route.cluster}>
                    <div class="row">
                      <Link kind="cluster" name={route.cluster} />
                      <span>
                        {percent(route.share)}
                        {Math.abs(route.share - route.target_share) > 0.005 && ` → ${percent(route.target_share)}`}
                      </span>
                      <Latency ms={route.latency_ms} within={route.within_objective} />
                    </div>
                    <p>{partsLine(partsOf(route, serviceMs.get(demand.model) ?? 0, observed(route, demand)))}</p>
                    <p class="muted">
                      <BasisBadge basis={route.latency_basis} /> {knownLine(route, grown(route.latency_age_s, fresh))}
                      {route.excess_ms !== null &&
                        route.excess_ms > 0 &&
                        ` · ${milliseconds(route.excess_ms)} farther than the nearest that could serve`}
                    </p>
                  </li>
                ))}
            </ul>
          </section>
        ))}
    </Sheet>
  );
}

/** The estimate in its parts, and beside it what is observed. */
function partsLine({ networkMs, serviceMs, observedMs, queueingMs }: Parts): string {
  const queueing = queueingMs === null ? "not observed" : milliseconds(queueingMs);
  const observed = observedMs === null ? "" : `; answers observed p95 ${milliseconds(observedMs)}`;
  return `network ${milliseconds(networkMs)} · queueing ${queueing} · service ${milliseconds(serviceMs)}${observed}`;
}
