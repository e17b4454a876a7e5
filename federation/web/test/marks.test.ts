import assert from "node:assert/strict";
import { test } from "node:test";
import { arcWidth, cellRadius, clusterLabel, clusterRadius, GLYPHS, outline } from "../src/map/marks.ts";
import { tooltipPlace } from "../src/map/tooltip.tsx";
import type { ClusterView, WorstState } from "../src/views.ts";

const STATES: readonly WorstState[] = ["ok", "degraded", "bad", "unknown"];

test("states differ in shape or sign, so that colour is never the only difference", () => {
  const seen = STATES.map((state) => `${outline(state, 6)} ${GLYPHS[state]}`);
  assert.equal(new Set(seen).size, STATES.length);
});

test("area stands for amount, and what is small or unknown is still to be seen", () => {
  assert.deepEqual(
    [null, 0, 25, 100].map((amount) => clusterRadius(amount, 100, 1)),
    [6, 6, 11, 16],
  );
  assert.ok(cellRadius(0.01, 1000, 1) > 1.5);
  assert.ok(arcWidth(0.01, 1000) > 0.5);
  assert.deepEqual([clusterRadius(0, 0, 1), cellRadius(0, 0, 1), arcWidth(0, 0)].map(Number.isFinite), [
    true,
    true,
    true,
  ]);
});

test("a screen reader is told the state, what is being done to the cluster, and why", () => {
  const cluster = { name: "fra", city: "Frankfurt", country: "DE", accelerators: null, draining: true, cordoned: true };
  const label = clusterLabel({ ...cluster, reason: "draining: a test" } as ClusterView, "degraded");
  assert.equal(label, "fra, Frankfurt DE, degraded, draining, accelerators unknown: draining: a test");
});

test("what is said of a mark stays inside the frame", () => {
  const at = (x: number, y: number, width = 1000) => tooltipPlace({ x, y, title: "", lines: [] }, width);
  assert.deepEqual(at(0, 300), { left: 136, top: 292, below: false });
  assert.equal(at(999, 300).left, 864);
  assert.deepEqual([at(500, 20).below, at(500, 20).top > 20], [true, true]);
  assert.equal(at(50, 300, 200).left, 136);
});
