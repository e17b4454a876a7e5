// What was opened, and why it is so. Without a selection: what needs attention now.

import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { Figure, Link, StateBadge, useShown } from "./context.tsx";
import { inflows } from "./flows.ts";
import { age, count, milliseconds, percent, plural, rps, usd } from "./format.ts";
import { grown, shownState } from "./freshness.ts";
import { Frontier } from "./frontier.tsx";
import { withinShare } from "./tables.tsx";
import type { CellView, ClusterView, ModelView, ReplicasView } from "./views.ts";
import { Why } from "./why.tsx";

const SHOWN_INFLOWS = 12;

export function Panel() {
  const { state, view } = useShown();
  const { selection } = state;
  if (!selection) return <Attention />;
  const key = `${selection.kind}/${selection.name}`;
  const cluster = selection.kind === "cluster" && view.clusters.find((one) => one.name === selection.name);
  const cell = selection.kind === "cell" && view.cells.find((one) => one.name === selection.name);
  const model = selection.kind === "model" && view.models.find((one) => one.name === selection.name);
  if (cluster) return <ClusterPanel key={key} cluster={cluster} />;
  if (cell) return <CellPanel key={key} cell={cell} />;
  if (model) return <ModelPanel key={key} model={model} />;
  return (
    <Sheet key={key} kind={selection.kind} title={selection.name}>
      <p>
        The controller knows no {selection.kind} of this name now. It may have been removed, or nobody asks from there.
      </p>
    </Sheet>
  );
}

/** The frame of everything that can be opened. Takes the focus when opened by hand; Escape closes it from anywhere. */
function Sheet({ kind, title, children }: { kind: string; title: string; children: ComponentChildren }) {
  const { store } = useShown();
  const heading = useRef<HTMLHeadingElement>(null);
  useLayoutEffect(() => {
    const before = document.activeElement;
    if (!(before instanceof HTMLElement || before instanceof SVGElement) || before === document.body) return;
    heading.current?.focus();
    return () => {
      if (before.isConnected && document.activeElement === document.body) before.focus();
    };
  }, []);
  useLayoutEffect(() => {
    const close = (event: KeyboardEvent) => {
      if (event.key === "Escape") location.hash = store.hashOf(null);
    };
    document.addEventListener("keydown", close);
    return () => document.removeEventListener("keydown", close);
  }, [store]);
  return (
    <div class="sheet">
      <div class="sheet-head">
        <div>
          <p class="kind">{kind}</p>
          <h2 tabIndex={-1} ref={heading}>
            {title}
          </h2>
        </div>
        <a class="icon" href={store.hashOf(null)} aria-label="Close" role="button">
          ✕
        </a>
      </div>
      {children}
    </div>
  );
}

function Section({ title, aside, children }: { title: string; aside?: string; children: ComponentChildren }) {
  return (
    <section>
      <h3>
        {title} {aside && <small>{aside}</small>}
      </h3>
      {children}
    </section>
  );
}

function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

// ---- cluster

function ClusterPanel({ cluster }: { cluster: ClusterView }) {
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

const total = (rows: readonly { rps: number }[]) => rows.reduce((sum, row) => sum + row.rps, 0);

function Latency({ ms, within }: { ms: number; within: boolean }) {
  return <span class={within ? "" : "late"}>{within ? milliseconds(ms) : `${milliseconds(ms)} late`}</span>;
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

function Ready({ row, unknown }: { row: ReplicasView; unknown: boolean }) {
  const ready = unknown ? null : row.ready;
  const short = ready !== null && ready < row.desired;
  return (
    <span class={short ? "late" : ""}>
      <Figure text={count(ready)} /> / {count(row.desired)}
    </span>
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

// ---- cell

function CellPanel({ cell }: { cell: CellView }) {
  const { fresh } = useShown();
  const asked = total(cell.demand);
  return (
    <Sheet kind={`User cell · ${cell.country}`} title={cell.name}>
      <p>
        {rps(asked)} requests per second over {plural(cell.demand.length, "model")}.
      </p>
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
                    <p class="muted">
                      {route.latency_source}
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

// ---- model

function ModelPanel({ model }: { model: ModelView }) {
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

// ---- nothing selected

function Attention() {
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
