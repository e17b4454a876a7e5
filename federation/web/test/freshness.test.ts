import assert from "node:assert/strict";
import { test } from "node:test";
import { freshness, grown, LOST_AFTER_S, shownState, UNKNOWN_AFTER_S } from "../src/freshness.ts";
import type { OverviewView } from "../src/views.ts";

const view = { speed: 10 } as OverviewView;

test("a map that has lost its stream does not go on looking healthy", () => {
  const heard = (seconds: number, broken = false) => freshness(view, 0, seconds * 1000, broken);
  assert.equal(shownState("ok", heard(UNKNOWN_AFTER_S - 1)), "ok");
  assert.equal(shownState("ok", heard(UNKNOWN_AFTER_S)), "unknown");
  assert.deepEqual([heard(1).lost, heard(LOST_AFTER_S).lost, heard(1, true).lost], [false, true, true]);
});

test("ages go on growing, at the speed of the controller's clock, and absent ones stay absent", () => {
  const fresh = freshness(view, 0, 2_000, false);
  assert.equal(grown(5, fresh), 25);
  assert.equal(grown(null, fresh), null);
});

test("a clock that went back makes nothing younger than it is", () => {
  assert.equal(freshness(view, 5_000, 0, false).wallAgeS, 0);
});
