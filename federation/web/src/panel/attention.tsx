// Nothing is opened: what needs attention.

import { Link, StateBadge, useShown } from "../context.tsx";
import { plural, rps } from "../format.ts";
import { shownState } from "../freshness.ts";
import { Frontier } from "../frontier.tsx";
import { Section } from "./sheet.tsx";

export function Attention() {
  const { view, fresh } = useShown();
  const clusters = view.clusters.filter((one) => shownState(one.worst_state, fresh) !== "ok" || one.cordoned);
  const models = view.models.filter((one) => shownState(one.state, fresh) !== "ok");
  const cells = view.cells.flatMap((cell) =>
    cell.demand.filter((one) => one.unserved_rps > 0.01 * one.rps).map((one) => ({ cell: cell.name, demand: one })),
  );
  const isClear = clusters.length + models.length + cells.length === 0;
  return (
    <div class="sheet">
      <h2>Needs attention</h2>
      {fresh.unknown && (
        <p class="verdict unknown">Nothing has been heard for a while, so nothing is known to be well.</p>
      )}
      {isClear && <p class="verdict ok">Nothing: every cluster is heard and every objective is met.</p>}
      {models.length > 0 && (
        <Section title="Models" aside={`${models.length} of ${view.models.length}`}>
          <ul class="rows">
            {models.map((one) => (
              <li key={one.name}>
                <div class="row">
                  <Link kind="model" name={one.name} />
                  <StateBadge state={shownState(one.state, fresh)} />
                </div>
                <p class="muted">{one.reasons.join("; ")}</p>
              </li>
            ))}
          </ul>
        </Section>
      )}
      {clusters.length > 0 && (
        <Section title="Clusters" aside={`${clusters.length} of ${view.clusters.length}`}>
          <ul class="rows">
            {clusters.map((one) => (
              <li key={one.name}>
                <div class="row">
                  <Link kind="cluster" name={one.name} />
                  <StateBadge state={shownState(one.worst_state, fresh)} />
                </div>
                <p class="muted">{one.reason}</p>
              </li>
            ))}
          </ul>
        </Section>
      )}
      {cells.length > 0 && (
        <Section title="Unserved users" aside={plural(cells.length, "demand")}>
          <ul class="rows">
            {cells.map(({ cell, demand }) => (
              <li key={`${cell} ${demand.model}`}>
                <div class="row">
                  <Link kind="cell" name={cell} />
                  <span class="late">{rps(demand.unserved_rps)} req/s</span>
                </div>
                <p class="muted">
                  {demand.model} · {demand.reason}
                </p>
              </li>
            ))}
          </ul>
        </Section>
      )}
      <Section title="Nearer or cheaper" aside="the fleet">
        <Frontier model="" />
      </Section>
    </div>
  );
}
