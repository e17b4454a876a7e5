// One model over all clusters: its objective, its users, its replicas and its cost.

import { Figure, Link, StateBadge, useShown } from "../context.tsx";
import { count, milliseconds, percent, rps, usd } from "../format.ts";
import { shownState } from "../freshness.ts";
import { Frontier } from "../frontier.tsx";
import { withinShare } from "../tables.tsx";
import type { ModelView } from "../views.ts";
import { Why } from "../why.tsx";
import { Fact, Ready, Section, Sheet } from "./sheet.tsx";

export function ModelPanel({ model }: { model: ModelView }) {
  const { fresh, view } = useShown();
  const state = shownState(model.state, fresh);
  const hosts = view.clusters.flatMap((cluster) =>
    cluster.replicas.filter((row) => row.model === model.name).map((row) => ({ cluster: cluster.name, row })),
  );
  return (
    <Sheet kind="Model" title={model.name}>
      <p class={`verdict ${state}`}>
        <StateBadge state={state} />{" "}
        {model.reasons.join("; ") ||
          (fresh.unknown ? "unknown since the live data was lost" : "objective met, floors held, demand served")}
      </p>
      <dl class="facts">
        <Fact name="Objective">p95 ≤ {milliseconds(model.objective_ms)}</Fact>
        <Fact name="Within objective">
          <Figure text={percent(withinShare(model))} />
        </Fact>
        <Fact name="Demand">{rps(model.demand_rps)} req/s</Fact>
        <Fact name="Served">{rps(model.served_rps)} req/s</Fact>
        <Fact name="Late">{rps(model.late_rps)} req/s</Fact>
        <Fact name="Unserved">{rps(model.unserved_rps)} req/s</Fact>
        <Fact name="Replicas">
          {count(fresh.unknown ? null : model.replicas_ready)} ready of {count(model.replicas_desired)}
        </Fact>
        <Fact name="Cost">{usd(model.usd_per_hour)} per hour</Fact>
        <Fact name="Round trip">
          <Figure text={milliseconds(model.near?.rtt_ms_mean)} />
          {model.near && <>, p95 {milliseconds(model.near.rtt_ms_p95)}</>}
        </Fact>
        <Fact name="Excess">
          <Figure text={milliseconds(model.near?.excess_ms_mean)} />
          {model.near && " over the nearest that could serve"}
        </Fact>
        <Fact name="Runtime">{model.runtime}</Fact>
        <Fact name="Policy">{model.policy || <span class="late">none selects it</span>}</Fact>
      </dl>
      <Section title="Nearer or cheaper" aside="all others where they are">
        <Frontier model={model.name} />
      </Section>
      <Section title="Why there" aside="the planner's explanation">
        <Why model={model.name} cluster="" />
      </Section>
      <Section title="Replicas" aside="ready / desired">
        {hosts.length === 0 && <p class="muted">None is wanted anywhere.</p>}
        <ul class="rows">
          {hosts.map(({ cluster, row }) => (
            <li key={`${cluster} ${row.pool}`}>
              <div class="row">
                <Link kind="cluster" name={cluster} />
                <Ready row={row} unknown={fresh.unknown} />
              </div>
              <p class="muted">
                {row.pool}
                {row.reason && ` · ${row.reason}`}
              </p>
            </li>
          ))}
        </ul>
      </Section>
    </Sheet>
  );
}
