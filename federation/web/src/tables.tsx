// The same data as the map, as tables: a map cannot be read aloud, sorted or searched.

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { Figure, Link, StateBadge, useShown } from "./context.tsx";
import { experienceOf, serviceMsOf } from "./experience.ts";
import { cellTotals } from "./flows.ts";
import { age, count, milliseconds, percent, rps, usd } from "./format.ts";
import { grown, shownState } from "./freshness.ts";
import { BasisBadge } from "./known.tsx";
import type { WorstState } from "./views.ts";

type Key = string | number | null;

interface Column<Row> {
  name: string;
  key: (row: Row) => Key;
  show: (row: Row) => ComponentChildren;
  numeric?: boolean;
}

const SEVERITY: Readonly<Record<WorstState, number>> = { bad: 0, unknown: 1, degraded: 2, ok: 3 };

export function ClustersTable() {
  const { view, fresh, state } = useShown();
  const rows = view.clusters.filter(
    (cluster) => !state.model || cluster.replicas.some((row) => row.model === state.model),
  );
  return (
    <Table
      caption={state.model ? `Clusters with ${state.model}` : "Clusters"}
      rows={rows}
      id={(row) => row.name}
      first="State"
      columns={[
        { name: "Cluster", key: (row) => row.name, show: (row) => <Link kind="cluster" name={row.name} /> },
        {
          name: "State",
          key: (row) => SEVERITY[shownState(row.worst_state, fresh)],
          show: (row) => (
            <>
              <StateBadge state={shownState(row.worst_state, fresh)} />
              {row.draining ? " draining" : row.cordoned ? " cordoned" : ""}
            </>
          ),
        },
        { name: "Why", key: (row) => row.reason, show: (row) => <span class="wrap">{row.reason}</span> },
        { name: "Place", key: (row) => row.city, show: (row) => `${row.city} ${row.country}` },
        {
          name: "Provider",
          key: (row) => `${row.provider} ${row.region}`,
          show: (row) => `${row.provider} ${row.region}`,
        },
        {
          name: "Accelerators",
          numeric: true,
          key: (row) => row.accelerators,
          show: (row) => <Figure text={count(row.accelerators)} />,
        },
        {
          name: "Replicas",
          numeric: true,
          key: (row) => sum(row.replicas.map((one) => one.desired)),
          show: (row) => `${count(readyOf(row.replicas))} / ${count(sum(row.replicas.map((one) => one.desired)))}`,
        },
        {
          name: "Report",
          numeric: true,
          key: (row) => row.report_age_s,
          show: (row) => <Figure text={age(grown(row.report_age_s, fresh))} />,
        },
      ]}
    />
  );
}

export function CellsTable() {
  const { view, fresh, state } = useShown();
  const serviceMs = serviceMsOf(view.models);
  const rows = view.cells
    .map((cell) => ({
      cell,
      totals: cellTotals(cell, state.model),
      experience: experienceOf(cell, state.model, serviceMs),
      ageS: Math.max(0, ...cell.demand.map((one) => one.age_s)),
      clusters: new Set(
        cell.demand
          .filter((one) => !state.model || one.model === state.model)
          .flatMap((one) => one.routes.filter((route) => route.share > 0).map((route) => route.cluster)),
      ),
    }))
    .filter((row) => !state.model || row.totals.rps > 0);
  return (
    <Table
      caption={state.model ? `User cells of ${state.model}` : "User cells"}
      rows={rows}
      id={(row) => row.cell.name}
      first="Demand (req/s)"
      columns={[
        { name: "Cell", key: (row) => row.cell.name, show: (row) => <Link kind="cell" name={row.cell.name} /> },
        { name: "Country", key: (row) => row.cell.country, show: (row) => row.cell.country },
        { name: "Demand (req/s)", numeric: true, key: (row) => row.totals.rps, show: (row) => rps(row.totals.rps) },
        {
          name: "Round trip",
          numeric: true,
          key: (row) => row.experience.rttMs,
          show: (row) => <Figure text={milliseconds(row.experience.rttMs)} />,
        },
        {
          name: "Known",
          key: (row) => row.experience.basis,
          show: (row) =>
            row.experience.basis ? <BasisBadge basis={row.experience.basis} /> : <Figure text="unknown" />,
        },
        {
          name: "Late",
          numeric: true,
          key: (row) => row.totals.lateRps,
          show: (row) => <span class={row.totals.lateRps > 0 ? "late" : ""}>{rps(row.totals.lateRps)}</span>,
        },
        {
          name: "Unserved",
          numeric: true,
          key: (row) => row.totals.unservedRps,
          show: (row) => <span class={row.totals.unservedRps > 0 ? "late" : ""}>{rps(row.totals.unservedRps)}</span>,
        },
        {
          name: "Served by",
          key: (row) => row.clusters.size,
          show: (row) => <span class="wrap">{[...row.clusters].sort().join(", ") || "none"}</span>,
        },
        { name: "Age", numeric: true, key: (row) => row.ageS, show: (row) => age(grown(row.ageS, fresh)) },
      ]}
    />
  );
}

export function ModelsTable() {
  const { view, fresh } = useShown();
  return (
    <Table
      caption="Models"
      rows={view.models}
      id={(row) => row.name}
      first="State"
      columns={[
        { name: "Model", key: (row) => row.name, show: (row) => <Link kind="model" name={row.name} /> },
        {
          name: "State",
          key: (row) => SEVERITY[shownState(row.state, fresh)],
          show: (row) => <StateBadge state={shownState(row.state, fresh)} />,
        },
        { name: "Runtime", key: (row) => row.runtime, show: (row) => row.runtime },
        {
          name: "Objective",
          numeric: true,
          key: (row) => row.objective_ms,
          show: (row) => milliseconds(row.objective_ms),
        },
        { name: "Demand (req/s)", numeric: true, key: (row) => row.demand_rps, show: (row) => rps(row.demand_rps) },
        {
          name: "Within",
          numeric: true,
          key: (row) => withinShare(row),
          show: (row) => <Figure text={percent(withinShare(row))} />,
        },
        { name: "Late", numeric: true, key: (row) => row.late_rps, show: (row) => rps(row.late_rps) },
        { name: "Unserved", numeric: true, key: (row) => row.unserved_rps, show: (row) => rps(row.unserved_rps) },
        {
          name: "Replicas",
          numeric: true,
          key: (row) => row.replicas_desired,
          show: (row) => `${count(row.replicas_ready)} / ${count(row.replicas_desired)}`,
        },
        {
          name: "Round trip",
          numeric: true,
          key: (row) => row.near?.rtt_ms_mean ?? null,
          show: (row) => <Figure text={milliseconds(row.near?.rtt_ms_mean)} />,
        },
        {
          name: "Excess",
          numeric: true,
          key: (row) => row.near?.excess_ms_mean ?? null,
          show: (row) => <Figure text={milliseconds(row.near?.excess_ms_mean)} />,
        },
        { name: "Cost/h", numeric: true, key: (row) => row.usd_per_hour, show: (row) => usd(row.usd_per_hour) },
      ]}
    />
  );
}

/** Share of all that is asked that is answered in time; null while nobody asks. */
export function withinShare(model: { demand_rps: number; served_rps: number; late_rps: number }): number | null {
  return model.demand_rps > 0 ? (model.served_rps - model.late_rps) / model.demand_rps : null;
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

/** Ready replicas, or null when any of them is not known. */
function readyOf(rows: readonly { ready: number | null }[]): number | null {
  return rows.some((row) => row.ready === null) ? null : sum(rows.map((row) => row.ready ?? 0));
}

interface TableProps<Row> {
  caption: string;
  rows: readonly Row[];
  id: (row: Row) => string;
  columns: Column<Row>[];
  /** The column that it is sorted by at first. */
  first: string;
}

function Table<Row>({ caption, rows, id, columns, first }: TableProps<Row>) {
  const numericFirst = columns.find((column) => column.name === first)?.numeric ?? false;
  const [order, setOrder] = useState({ name: first, descending: numericFirst });
  const column = columns.find((one) => one.name === order.name) ?? columns[0]!;
  const sorted = [...rows].sort(
    (a, b) => compare(column.key(a), column.key(b), order.descending) || (id(a) < id(b) ? -1 : 1),
  );
  return (
    <table>
      <caption class="visually-hidden">{caption}</caption>
      <thead>
        <tr>
          {columns.map((one) => {
            const sortedBy = one.name === order.name;
            return (
              <th
                key={one.name}
                scope="col"
                class={one.numeric ? "numeric" : ""}
                aria-sort={sortedBy ? (order.descending ? "descending" : "ascending") : "none"}
              >
                <button
                  type="button"
                  onClick={() =>
                    setOrder({ name: one.name, descending: sortedBy ? !order.descending : (one.numeric ?? false) })
                  }
                >
                  {one.name}
                  <span aria-hidden="true">{sortedBy ? (order.descending ? " ↓" : " ↑") : ""}</span>
                </button>
              </th>
            );
          })}
        </tr>
      </thead>
      <tbody>
        {sorted.map((row) => (
          <tr key={id(row)}>
            {columns.map((one, index) =>
              index === 0 ? (
                <th key={one.name} scope="row">
                  {one.show(row)}
                </th>
              ) : (
                <td key={one.name} class={one.numeric ? "numeric" : ""}>
                  {one.show(row)}
                </td>
              ),
            )}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Unknown comes last whichever way the rest is sorted. */
function compare(a: Key, b: Key, descending: boolean): number {
  if (a === null || b === null) return Number(a === null) - Number(b === null);
  if (a === b) return 0;
  return (a < b ? -1 : 1) * (descending ? -1 : 1);
}
