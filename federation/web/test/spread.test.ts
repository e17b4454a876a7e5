import assert from "node:assert/strict";
import { test } from "node:test";
import { spread } from "../src/map/spread.ts";

test("clusters of one metro are all to be seen, near their place", () => {
  const discs = ["a", "b", "c", "d"].map((name) => ({ name, x: 100, y: 50, r: 6 }));
  const moved = spread(discs);
  const at = discs.map((disc) => ({ x: disc.x + moved.get(disc.name)!.dx, y: disc.y + moved.get(disc.name)!.dy }));
  for (const [i, one] of at.entries()) {
    for (const other of at.slice(i + 1)) {
      assert.ok(Math.hypot(one.x - other.x, one.y - other.y) > 11, "two circles cover each other");
    }
  }
  for (const offset of moved.values()) assert.ok(Math.hypot(offset.dx, offset.dy) < 30);
  assert.deepEqual(spread(discs), moved, "the same discs, the same places");
});

test("a circle that touches none stays where it is", () => {
  const moved = spread([
    { name: "a", x: 0, y: 0, r: 5 },
    { name: "b", x: 500, y: 0, r: 5 },
  ]);
  for (const offset of moved.values()) assert.ok(Math.hypot(offset.dx, offset.dy) < 0.1);
});

test("a thousand clusters are spread in the time of a frame or two, and no circle is lost", () => {
  const discs = Array.from({ length: 1000 }, (_, i) => ({ name: `c${i}`, x: (i * 37) % 900, y: (i * 61) % 450, r: 4 }));
  const started = process.cpuUsage();
  const moved = spread(discs);
  assert.ok(process.cpuUsage(started).user / 1000 < 1000, "milliseconds of the processor");
  assert.equal(moved.size, discs.length);
  for (const { dx, dy } of moved.values()) assert.ok(Number.isFinite(dx) && Number.isFinite(dy));
});

test("nothing to spread is no error", () => assert.equal(spread([]).size, 0));
