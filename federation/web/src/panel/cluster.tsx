// One cluster: its state, its devices, what runs there and whom it serves.

import { useState } from "preact/hooks";
import { Figure, Link, StateBadge, useShown } from "../context.tsx";
import { serviceMsOf } from "../experience.ts";
import { inflows } from "../flows.ts";
import { age, count, milliseconds, observedLine, rps, usd } from "../format.ts";
import { grown, shownState } from "../freshness.ts";
import type { ClusterView } from "../views.ts";
import { Why } from "../why.tsx";
import { Fact, Latency, Ready, Section, Sheet, total } from "./sheet.tsx";

const SHOWN_INFLOWS = 12;

export function ClusterPanel({ cluster }: { cluster: ClusterView }) {
  const { fresh, view } = useShown();
  const state = shownState(cluster.worst_state, fresh);
  const served = inflows(view, cluster.name);
  return (
    <Sheet kind="Cluster" title={cluster.name}>
      <p class={`verdict ${state}`}>
        <StateBadge state={state} />{" "}
        {fresh.unknown ? `unknown since the live data was lost; before that: ${cluster.reason}` : cluster.reason}
      </p>
      <dl class="facts">
        <Fact name="Place">
          {cluster.city} {cluster.country}
        </Fact>
        <Fact name="Provider">
          {cluster.provider} {cluster.region} {cluster.zone}
        </Fact>
        <Fact name="Phase">{fresh.unknown ? "unknown" : cluster.phase}</Fact>
        <Fact name="Report">
          <Figure text={age(grown(cluster.report_age_s, fresh))} />
        </Fact>
        <Fact name="Tier">{cluster.tier}</Fact>
        <Fact name="Jurisdictions">{cluster.jurisdictions.join(", ") || "none declared"}</Fact>
        {(cluster.cordoned || cluster.draining) && (
          <Fact name="Intake">{cluster.draining ? "draining" : "cordoned"}</Fact>
        )}
        <Fact name="Last answer">
          {cluster.ack ? (
            <>
              plan {cluster.ack.epoch}.{cluster.ack.generation} {cluster.ack.ok ? "accepted" : "refused"},{" "}
              {age(grown(cluster.ack.age_s, fresh))}
              {cluster.ack.error && <span class="late"> {cluster.ack.error}</span>}
            </>
          ) : (
            <Figure text="never" />
          )}
        </Fact>
      </dl>
      <Section title="Accelerator pools" aside={`reported ${age(grown(cluster.report_age_s, fresh))}`}>
        <Pools cluster={cluster} />
      </Section>
      {cluster.growth.length > 0 && (
        <Section title="Could be added" aside="not counted as free">
          <ul class="rows">
            {cluster.growth.map((one) => (
              <li key={`${one.source}/${one.group}`}>
                {one.devices ?? "?"} × {one.pool ?? "unknown devices"} by {one.group}
                {one.provisioning_s !== null && `, in about ${count(one.provisioning_s)} s`}
              </li>
            ))}
          </ul>
        </Section>
      )}
      {cluster.conditions.length > 0 && (
        <Section title="The agent says" aside={String(cluster.conditions.length)}>
          <ul class="rows">
            {cluster.conditions.map((one) => (
              <li key={`${one.type}/${one.object}/${one.message}`}>
                <strong>{one.type}</strong> {one.object}: {one.message}
              </li>
            ))}
          </ul>
        </Section>
      )}
      <Section title="Replicas" aside="ready / desired">
        <ReplicaList cluster={cluster} />
      </Section>
      {cluster.observed.length > 0 && (
        <Section title="Answers" aside="p95 observed / service declared">
          <ObservedList cluster={cluster} />
        </Section>
      )}
      <Section title="Serves now" aside={served.length ? `${rps(total(served))} req/s` : ""}>
        {served.length === 0 ? (
          <p class="muted">No requests are sent here.</p>
        ) : (
          <table class="compact">
            <thead>
              <tr>
                <th scope="col">Users</th>
                <th scope="col">Model</th>
                <th scope="col" class="numeric">
                  req/s
                </th>
                <th scope="col" class="numeric">
                  Latency
                </th>
              </tr>
            </thead>
            <tbody>
              {served.slice(0, SHOWN_INFLOWS).map((row) => (
                <tr key={`${row.cell} ${row.model}`}>
                  <td>
                    <Link kind="cell" name={row.cell} />
                  </td>
                  <td>{row.model}</td>
                  <td class="numeric">{rps(row.rps)}</td>
                  <td class="numeric">
                    <Latency ms={row.latencyMs} within={row.within} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
        {served.length > SHOWN_INFLOWS && <p class="muted">and {count(served.length - SHOWN_INFLOWS)} more</p>}
      </Section>
    </Sheet>
  );
}

function Pools({ cluster }: { cluster: ClusterView }) {
  if (!cluster.pools.length) return <p class="muted">No accelerator pool is known.</p>;
  return (
    <ul class="rows">
      {cluster.pools.map((pool) => {
        const used = pool.allocatable !== null && pool.free !== null ? pool.allocatable - pool.free : null;
        return (
          <li key={pool.name}>
            <div class="row">
              <span>
                {pool.product}
                {pool.mig_profile && ` ${pool.mig_profile}`}
              </span>
              <span>
                {pool.allocatable === null ? (
                  <Figure text="unknown" />
                ) : (
                  `${count(pool.free)} free of ${count(pool.allocatable)}`
                )}
              </span>
            </div>
            {used !== null && pool.allocatable ? (
              <meter
                min={0}
                max={pool.allocatable}
                value={used}
                aria-label={`${used} of ${pool.allocatable} ${pool.product} in use`}
              />
            ) : null}
            <p class="muted">
              {pool.market} · {pool.vram_gib === null ? "VRAM unknown" : `${count(pool.vram_gib)} GiB`} ·{" "}
              {usd(pool.usd_per_device_hour)} per device-hour
            </p>
          </li>
        );
      })}
    </ul>
  );
}

function ReplicaList({ cluster }: { cluster: ClusterView }) {
  const { view, fresh } = useShown();
  const absent = view.models.filter((model) => !cluster.replicas.some((row) => row.model === model.name));
  return (
    <>
      <ul class="rows">
        {cluster.replicas.map((row) => (
          <li key={`${row.model} ${row.pool}`}>
            <div class="row">
              <Link kind="model" name={row.model} />
              <Ready row={row} unknown={fresh.unknown} />
            </div>
            <p class="muted">
              {row.pool}
              {row.reason && ` · ${row.reason}`}
            </p>
            <Ask model={row.model} cluster={cluster.name} question="Why here?" />
          </li>
        ))}
      </ul>
      {cluster.replicas.length === 0 && <p class="muted">No model is wanted here.</p>}
      {absent.length > 0 && (
        <ul class="rows">
          {absent.map((model) => (
            <li key={model.name}>
              <Ask model={model.name} cluster={cluster.name} question={`Why not ${model.name}?`} />
            </li>
          ))}
        </ul>
      )}
    </>
  );
}

/** A question that is put to the planner when it is opened. */
function Ask({ model, cluster, question }: { model: string; cluster: string; question: string }) {
  const [open, setOpen] = useState(false);
  return (
    <details open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{question}</summary>
      {open && <Why model={model} cluster={cluster} />}
    </details>
  );
}

function ObservedList({ cluster }: { cluster: ClusterView }) {
  const { view } = useShown();
  const serviceMs = serviceMsOf(view.models);
  return (
    <ul class="rows">
      {cluster.observed.map((one) => (
        <li key={one.model}>
          <div class="row">
            <Link kind="model" name={one.model} />
            <span>
              <Figure text={milliseconds(one.latency_ms_p95)} /> / {milliseconds(serviceMs.get(one.model))}
            </span>
          </div>
          <p class="muted">{observedLine(one)}</p>
        </li>
      ))}
    </ul>
  );
}
