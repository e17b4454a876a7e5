import assert from "node:assert/strict";
import { test } from "node:test";
import { Basemap } from "../src/map/basemap.ts";
import { areaPath, borders } from "../src/map/grid.ts";
import {
  gridOf,
  indicator,
  labelPoints,
  latencyAt,
  lines,
  lowness,
  noteOf,
  servingKey,
} from "../src/map/isochrones.ts";
import type { IsochronesView } from "../src/views.ts";

const COLUMNS = 36;
const ROWS = 14;
const size = COLUMNS * ROWS;
/** Latency grows from west to east; the east is by distance alone. */
const view: IsochronesView = {
  model: "chat",
  epoch: 1,
  generation: 1,
  objective_ms: 250,
  service_ms: 60,
  west_deg: -169,
  north_deg: 84,
  step_deg: 10,
  columns: COLUMNS,
  rows: ROWS,
  clusters: ["fra", "iad"],
  latency_ms: Array.from({ length: size }, (_, i) => 60 + 10 * (i % COLUMNS)),
  cluster: Array.from({ length: size }, (_, i) => Number(i % COLUMNS > 20)),
  basis: Array.from({ length: size }, (_, i) => (i % COLUMNS < 30 ? "i" : "p")).join(""),
};

test("lines are few, round, and between what a replica takes and the objective", () => {
  assert.deepEqual(lines(view), [100, 150, 200]);
  assert.deepEqual(lines({ ...view, objective_ms: 40, service_ms: 12 }), [20, 30]);
  assert.deepEqual(lines({ ...view, objective_ms: 50 }), [], "no user at all can be within it");
  for (let objective_ms = 61; objective_ms < 9000; objective_ms += 37) {
    assert.ok(lines({ ...view, objective_ms }).length <= 5);
  }
});

test("a place has the latency, the cluster and the basis of its own square", () => {
  assert.deepEqual(latencyAt(view, -165, 50), { latencyMs: 60, cluster: "fra", basis: "inferred", within: true });
  assert.deepEqual(latencyAt(view, 185 - 360, 0), { latencyMs: 410, cluster: "iad", basis: "prior", within: false });
  assert.equal(latencyAt(view, 0, -89), null);
  assert.equal(latencyAt({ ...view, latency_ms: [] }, 0, 0), null, "no replica is ready");
});

test("the area within the objective ends where the latency passes it", () => {
  const base = new Basemap(1000, 500);
  const numbers = areaPath(base, gridOf(view), lowness(view), -view.objective_ms)
    .slice(1, -1)
    .split(/[LMZ]/)
    .filter(Boolean)
    .map((pair) => base.place(pair.split(" ").map(Number) as [number, number])![0]);
  const end = view.west_deg + (19.5 + 0) * view.step_deg;
  assert.ok(Math.abs(Math.max(...numbers) - end) < 2, `${Math.max(...numbers)} is not near ${end}`);
});

test("what is inferred and what is prior do not overlap, and together are all that is not measured", () => {
  const [inferred, prior] = [indicator(view, "inferred"), indicator(view, "prior")];
  assert.ok(inferred.every((one, square) => one + prior[square]! === 1));
  assert.equal(
    inferred.reduce((sum, one) => sum + one),
    30 * ROWS,
  );
});

test("the isochrones are asked for anew when other clusters serve, and only then", () => {
  const cluster = (name: string, ready: number | null) => ({ name, replicas: [{ model: "chat", ready }] });
  const key = servingKey([cluster("fra", 2), cluster("iad", 0), cluster("mad", null)], "chat");
  assert.equal(key, servingKey([cluster("fra", 1), cluster("iad", null)], "chat"));
  assert.notEqual(key, servingKey([cluster("fra", 2), cluster("iad", 1)], "chat"));
  assert.equal(servingKey([cluster("fra", 2)], "rank"), "");
});

test("the widest parts of a line are labelled, at their south, and small ones are not", () => {
  const square = (x: number, width: number) =>
    [
      [x, 0],
      [x + width, 0],
      [x + width, 50],
      [x, 40],
    ] as [number, number][];
  const drawn = [square(0, 10), square(100, 70), square(200, 80), square(300, 90), square(400, 100)];
  assert.deepEqual(labelPoints(drawn, []), [
    [500, 50],
    [390, 50],
    [280, 50],
  ]);
  const taken: [number, number][] = [[370, 44]];
  assert.deepEqual(labelPoints(drawn, taken).length, 2, "no label is written over another");
});

test("the edge of the grid is no line of equal latency", () => {
  const base = new Basemap(1000, 500);
  const drawn = borders(base, gridOf(view), lowness(view), -view.objective_ms);
  assert.equal(drawn.length, 1, "from the north to the south, once");
  for (const [x] of drawn[0]!) assert.ok(Math.abs(x - drawn[0]![0]![0]) < 60);
  const everywhere = { ...view, latency_ms: view.latency_ms.map(() => 70) };
  assert.deepEqual(borders(base, gridOf(view), lowness(everywhere), -view.objective_ms), []);
});

test("a line around a cluster is one closed ring", () => {
  const near = view.latency_ms.map((_, i) => 60 + 20 * Math.hypot((i % COLUMNS) - 17, Math.floor(i / COLUMNS) - 7));
  const drawn = borders(new Basemap(1000, 500), gridOf(view), lowness({ ...view, latency_ms: near }), -100);
  assert.equal(drawn.length, 1);
  assert.deepEqual(drawn[0]!.at(0), drawn[0]!.at(-1));
});

test("a map without isochrones says why", () => {
  assert.equal(noteOf("chat", view, ""), "");
  assert.match(noteOf("chat", null, ""), /^Asking/);
  assert.match(noteOf("chat", null, "model chat not found"), /not found$/);
  assert.match(noteOf("chat", { ...view, latency_ms: [] }, ""), /^No replica of chat is ready/);
});
