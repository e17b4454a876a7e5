import assert from "node:assert/strict";
import { test } from "node:test";
import {
  age,
  clock,
  count,
  duration,
  milliseconds,
  observedLine,
  percent,
  plural,
  rps,
  speed,
  UNKNOWN,
  usd,
} from "../src/format.ts";

test("what is not known is never shown as a zero", () => {
  for (const write of [count, rps, usd, milliseconds, percent, duration]) {
    for (const absent of [null, undefined, Number.NaN, Number.POSITIVE_INFINITY]) assert.equal(write(absent), UNKNOWN);
  }
  assert.equal(age(null), "never");
});

test("a share that is not quite all is never written as all, nor one that is not quite nothing as nothing", () => {
  assert.deepEqual([0, 0.0004, 0.5, 0.9995, 1].map(percent), ["0 %", "<0.1 %", "50 %", ">99.9 %", "100 %"]);
});

test("few requests are not shown as none", () => {
  assert.deepEqual([0, 0.01, 3.14, 1234.5].map(rps), ["0.0", "<0.1", "3.1", "1,235"]);
});

test("money, time and counts are read as people write them", () => {
  assert.deepEqual([-3.5, 99.994, 1234].map(usd), ["−$3.50", "$99.99", "$1,234"]);
  assert.deepEqual([59.9, 60, 3_700, 90_000].map(duration), ["59 s", "1 min", "1 h 1 min", "1 d 1 h"]);
  assert.equal(age(61), "1 min ago");
  assert.equal(milliseconds(9.96), "10.0 ms");
  assert.equal(clock(0), "00:00:00 UTC");
  assert.deepEqual([speed(1), speed(864)], ["real time", "×864 speed"]);
  assert.deepEqual(
    [plural(1, "replica"), plural(2, "replica"), plural(2, "policy", "policies")],
    ["1 replica", "2 replicas", "2 policies"],
  );
});

test("what is observed of answers is told, and what nobody reports is not", () => {
  const nothing = { requests_per_second: null, error_share: null, latency_ms_p95: null };
  const engine = { running: 3, waiting: 9, kv_cache_used: 0.5 };
  assert.equal(observedLine({ model: "chat", ...nothing, ...engine }), "9 waiting · 3 running · KV cache 50 % used");
  const gateway = { requests_per_second: 4, error_share: 0, latency_ms_p95: 180 };
  const silent = { running: null, waiting: null, kv_cache_used: null };
  assert.equal(observedLine({ model: "chat", ...gateway, ...silent }), "4.0 req/s · 0 % errors");
});
