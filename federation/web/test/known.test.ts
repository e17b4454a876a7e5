import assert from "node:assert/strict";
import { test } from "node:test";
import { BASES, knownLine } from "../src/known.tsx";

const latency = {
  latency_source: "measured from fra, 12 km from the users",
  latency_confidence: null,
  rtt_ms_p95: null,
};

test("a latency opens to its source, its age and how sure it is", () => {
  assert.equal(
    knownLine({ ...latency, latency_confidence: 0.83, rtt_ms_p95: 31 }, 61),
    "measured from fra, 12 km from the users · round trips up to 31 ms (p95) · 1 min ago · within 20 % with a chance of 83 %",
  );
});

test("what nobody says is not made up", () => {
  assert.equal(knownLine(latency, null), "measured from fra, 12 km from the users · confidence unknown");
});

test("each way to know a latency is explained", () => {
  assert.deepEqual(BASES.map((one) => one.basis).sort(), ["inferred", "measured", "prior"]);
  for (const { says } of BASES) assert.ok(says.length > 20);
});
