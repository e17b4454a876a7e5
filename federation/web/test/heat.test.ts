import assert from "node:assert/strict";
import { test } from "node:test";
import { band, type Experience, experiences, observedMs, partsOf, SCALES } from "../src/experience.ts";
import { Basemap } from "../src/map/basemap.ts";
import { areaPath, type Grid, HEAT_GRID, middleOf, squareOf } from "../src/map/grid.ts";
import { COVERED_FROM, heatField } from "../src/map/heat.ts";
import type { OverviewView, RouteView } from "../src/views.ts";

const route = (cluster: string, share: number, latency_ms: number, latency_basis: string, within_objective = true) => ({
  cluster,
  share,
  latency_ms,
  latency_basis,
  within_objective,
});
const view = {
  models: [
    { name: "chat", service_ms: 40 },
    { name: "rank", service_ms: 10 },
  ],
  cells: [
    {
      name: "Berlin",
      lon: 13.4,
      lat: 52.5,
      demand: [
        {
          model: "chat",
          rps: 10,
          unserved_rps: 1,
          routes: [route("fra", 0.6, 60, "measured"), route("iad", 0.3, 140, "inferred", false)],
        },
        {
          model: "rank",
          rps: 10,
          unserved_rps: 0,
          routes: [route("fra", 1, 30, "prior"), route("iad", 0, 900, "prior")],
        },
      ],
    },
    { name: "Suva", lon: 178.4, lat: -18.1, demand: [{ model: "chat", rps: 2, unserved_rps: 2, routes: [] }] },
  ],
} as unknown as OverviewView;
const of = (changes: Partial<Experience>): Experience => ({
  name: "x",
  lon: 0,
  lat: 0,
  rps: 1,
  rttMs: 50,
  lateShare: 0,
  basis: "measured",
  ...changes,
});

test("what users experience is the mean of their requests, without the time that a replica takes", () => {
  const [berlin] = experiences(view, "chat");
  assert.ok(Math.abs(berlin!.rttMs! - (0.6 * 20 + 0.3 * 100) / 0.9) < 1e-9);
  assert.ok(Math.abs(berlin!.lateShare - 0.4) < 1e-9, "late and unserved");
  assert.equal(experiences(view, "rank").length, 1, "a cell that does not ask has no experience");
});

test("a mean is only as well known as the least known of what it is made of", () => {
  assert.equal(experiences(view, "chat")[0]!.basis, "inferred");
  assert.equal(experiences(view, "")[0]!.basis, "prior");
});

test("who is not served has no round trip, and never a short one", () => {
  const suva = experiences(view, "chat")[1]!;
  assert.deepEqual([suva.rttMs, suva.lateShare, suva.basis], [null, 1, null]);
  const field = heatField(HEAT_GRID, "rtt", [suva]);
  assert.ok(field.value.every(Number.isNaN));
});

test("every band has a name, and values are in the band that names them", () => {
  for (const scale of Object.values(SCALES)) assert.equal(scale.names.length, scale.from.length + 1);
  assert.deepEqual(
    [0, 24.9, 25, 249, 250, 4000].map((value) => band("rtt", value)),
    [0, 0, 1, 4, 5, 5],
  );
  assert.deepEqual(
    [0, 0.01, 1].map((value) => band("late", value)),
    [0, 1, 5],
  );
});

test("a place is found in the square whose middle is nearest, on both sides of the date line", () => {
  for (const [lon, lat] of [
    [13.4, 52.5],
    [-179.9, -18],
    [179.9, -18],
    [-169, 0],
    [-168.99, 70],
  ] as const) {
    const square = squareOf(HEAT_GRID, lon, lat)!;
    const [midLon, midLat] = middleOf(HEAT_GRID, square % HEAT_GRID.columns, Math.floor(square / HEAT_GRID.columns));
    const apart = Math.abs(((((midLon - lon) % 360) + 540) % 360) - 180);
    assert.ok(apart <= 1 + 1e-9 && Math.abs(midLat - lat) <= 1 + 1e-9);
  }
  assert.equal(squareOf(HEAT_GRID, 0, 89), null);
});

test("the heat is the users' own near them, blank far from all, and their mean between them", () => {
  const field = heatField(HEAT_GRID, "rtt", [of({ rttMs: 20 }), of({ lon: 6, rttMs: 100, rps: 3, basis: "prior" })]);
  const at = (values: Float64Array, lon: number, lat: number) => values[squareOf(HEAT_GRID, lon, lat)!]!;
  assert.ok(at(field.value, 0, 0) < 45 && at(field.value, 6, 0) > 90);
  assert.ok(at(field.value, 3, 0) > 45 && at(field.value, 3, 0) < 100);
  assert.ok(at(field.nearness, 0, 0) > COVERED_FROM && at(field.nearness, 40, 0) < COVERED_FROM);
  assert.ok(Number.isNaN(at(field.value, 40, 0)));
  assert.ok(at(field.prior, 6, 0) > 0.5 && at(field.prior, -3, 0) < 0.5);
});

test("users at the date line warm both of its sides", () => {
  const field = heatField(HEAT_GRID, "rtt", [of({ lon: -169.5, lat: 0 })]);
  for (const lon of [-167, 190 - 360]) assert.ok(field.nearness[squareOf(HEAT_GRID, lon, 0)!]! > COVERED_FROM);
});

test("ten thousand cells are drawn in less than a second of the processor, in a bounded path", () => {
  const cells = Array.from({ length: 10_000 }, (_, i) =>
    of({ lon: ((i * 137.5) % 360) - 180, lat: ((i * 61.8) % 130) - 55, rttMs: (i * 7) % 300 }),
  );
  const started = process.cpuUsage();
  const field = heatField(HEAT_GRID, "rtt", cells);
  const base = new Basemap(1000, 500);
  const paths = SCALES.rtt.from.map((least) => areaPath(base, HEAT_GRID, field.value, least));
  assert.ok(process.cpuUsage(started).user / 1000 < 1000, "milliseconds");
  for (const path of paths) assert.ok(path.length < 40 * HEAT_GRID.columns * HEAT_GRID.rows);
});

test("an area is a path inside the frame, and nothing where no value is high enough", () => {
  const grid: Grid = { ...HEAT_GRID, step: 10, columns: 36, rows: 14 };
  const values = new Float64Array(grid.columns * grid.rows).fill(1);
  const base = new Basemap(1000, 500);
  const numbers = areaPath(base, grid, values, 0.5)
    .match(/-?[\d.]+/g)!
    .map(Number);
  assert.ok(numbers.length > 8 && numbers.every((one) => one > -200 && one < 1200));
  assert.equal(areaPath(base, grid, values, 2), "");
  assert.equal(areaPath(base, grid, values.fill(Number.NaN), 0.5), "");
});

test("a latency is told in its parts, and queueing only where answers are observed", () => {
  const slow = { latency_ms: 240 } as RouteView;
  assert.deepEqual(partsOf(slow, 150, null), { networkMs: 90, serviceMs: 150, observedMs: null, queueingMs: null });
  assert.equal(partsOf(slow, 150, 180).queueingMs, 30);
  assert.equal(partsOf(slow, 150, 120).queueingMs, 0, "faster than declared is no negative queue");
  const observed = [{ model: "chat", latency_ms_p95: 180 }];
  const fleet = { clusters: [{ name: "fra", observed }] } as unknown as OverviewView;
  const asked = [observedMs(fleet, "fra", "chat"), observedMs(fleet, "fra", "rank"), observedMs(fleet, "iad", "chat")];
  assert.deepEqual(asked, [180, null, null]);
});
