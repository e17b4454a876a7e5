import assert from "node:assert/strict";
import { test } from "node:test";
import { BASES, knownLine } from "../src/known.tsx";

const latency = {
  latency_source: "inferred over 90 km from what clusters measured",
  latency_basis: "inferred" as const,
  latency_confidence: null,
  rtt_ms_p95: null,
};

test("a latency opens to its source, its age and how sure it is", () => {
  assert.equal(
    knownLine({ ...latency, latency_confidence: 0.83, rtt_ms_p95: 31 }, 61),
    "over 90 km from what clusters measured · round trips up to 31 ms (p95) · 1 min ago · confidence 83 % within ±20 %",
  );
});

test("what nobody says is not made up", () => {
  assert.equal(knownLine(latency, null), "over 90 km from what clusters measured · confidence unknown");
});

test("each way to know a latency is explained", () => {
  assert.deepEqual(BASES.map((one) => one.basis).sort(), ["inferred", "measured", "prior"]);
  for (const { says } of BASES) assert.ok(says.length > 20);
});

test("a word that stands on the badge is not said twice, and others are kept", () => {
  const prior = { ...latency, latency_basis: "prior" as const, latency_source: "estimated over 90 km" };
  assert.ok(knownLine(prior, null).startsWith("estimated over 90 km"));
});
