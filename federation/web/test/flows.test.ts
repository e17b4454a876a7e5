import assert from "node:assert/strict";
import { test } from "node:test";
import { cellTotals, flows, inflows } from "../src/flows.ts";
import type { OverviewView } from "../src/views.ts";

const route = (
  cluster: string,
  share: number,
  target_share: number,
  within_objective: boolean,
  latency_ms: number,
) => ({
  cluster,
  share,
  target_share,
  within_objective,
  latency_ms,
});
const view = {
  cells: [
    {
      name: "Berlin",
      demand: [
        {
          model: "chat",
          rps: 10,
          unserved_rps: 1,
          routes: [route("fra", 0.9, 0.5, true, 40), route("iad", 0, 0.4, false, 300)],
        },
        { model: "rank", rps: 20, unserved_rps: 0, routes: [route("fra", 1, 1, true, 90)] },
      ],
    },
    { name: "Lyon", demand: [{ model: "chat", rps: 5, unserved_rps: 0, routes: [route("iad", 1, 1, false, 250)] }] },
  ],
} as unknown as OverviewView;

test("one arc stands for all models that go the same way, with the slowest of them", () => {
  const [first] = flows(view, "");
  assert.equal(first?.key, "Berlin\nfra\ntrue");
  assert.deepEqual([first?.rps, first?.latencyMs, first?.models, first?.stepping], [29, 90, ["chat", "rank"], true]);
});

test("late arcs come last, so that none hides them, and a way that is only planned is shown", () => {
  const shown = flows(view, "chat");
  assert.deepEqual(
    shown.map((one) => [one.cell, one.cluster, one.within]),
    [
      ["Berlin", "fra", true],
      ["Berlin", "iad", false],
      ["Lyon", "iad", false],
    ],
  );
  assert.equal(shown[1]?.rps, 0);
});

test("totals count what is unserved and what is late", () => {
  const [berlin, lyon] = view.cells;
  assert.deepEqual(cellTotals(berlin!, ""), { rps: 30, unservedRps: 1, lateRps: 0 });
  assert.deepEqual(cellTotals(lyon!, "chat"), { rps: 5, unservedRps: 0, lateRps: 5 });
  assert.deepEqual(cellTotals(lyon!, "rank"), { rps: 0, unservedRps: 0, lateRps: 0 });
});

test("a cluster's users are listed by how many they are, without those that it only may serve later", () => {
  assert.deepEqual(
    inflows(view, "fra").map((one) => [one.cell, one.model, one.rps]),
    [
      ["Berlin", "rank", 20],
      ["Berlin", "chat", 9],
    ],
  );
  assert.deepEqual(
    inflows(view, "iad").map((one) => one.cell),
    ["Lyon"],
  );
});
