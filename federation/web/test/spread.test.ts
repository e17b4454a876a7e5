import assert from "node:assert/strict";
import { test } from "node:test";
import { spread } from "../src/spread.ts";

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
