import assert from "node:assert/strict";
import { test } from "node:test";
import { moveOf } from "../src/map/keyboard.ts";
import { centred, isSeen, onScreen, panned, type Viewport, WHOLE, zoomed } from "../src/map/viewport.ts";

const [WIDTH, HEIGHT] = [1000, 500];
const CLOSE: Viewport = { k: 4, x: -1500, y: -700 };
const isHeld = ({ k, x, y }: Viewport) => x <= 0 && y <= 0 && x >= WIDTH - WIDTH * k && y >= HEIGHT - HEIGHT * k;

test("zooming holds what is under the pointer still", () => {
  const at = [(400 - CLOSE.x) / CLOSE.k, (300 - CLOSE.y) / CLOSE.k] as const;
  const [x, y] = onScreen(zoomed(CLOSE, 1.7, 400, 300, WIDTH, HEIGHT), at);
  assert.ok(Math.abs(x - 400) < 1e-9 && Math.abs(y - 300) < 1e-9);
});

test("the world can neither be lost at a side nor zoomed out of sight", () => {
  for (const [dx, dy] of [
    [1e6, 0],
    [-1e6, 1e6],
    [0, -1e6],
  ] as const) {
    assert.ok(isHeld(panned(CLOSE, dx, dy, WIDTH, HEIGHT)));
  }
  assert.deepEqual(zoomed(CLOSE, 1e-6, 10, 10, WIDTH, HEIGHT), WHOLE);
  assert.equal(zoomed(CLOSE, 1e6, 10, 10, WIDTH, HEIGHT).k, 24);
});

test("what the focus comes to is brought into sight at the same zoom", () => {
  const at = [900, 450] as const;
  assert.equal(isSeen(CLOSE, at, WIDTH, HEIGHT), false);
  const shown = centred(CLOSE, at[0], at[1], WIDTH, HEIGHT);
  assert.equal(shown.k, CLOSE.k);
  assert.equal(isSeen(shown, at, WIDTH, HEIGHT), true);
});

test("arrows move what is seen to their side, plus and minus undo each other, 0 shows all", () => {
  const after = (key: string, from = CLOSE) => moveOf(key, WIDTH, HEIGHT)!(from);
  assert.ok(after("ArrowLeft").x > CLOSE.x && after("ArrowRight").x < CLOSE.x);
  assert.ok(after("ArrowUp").y > CLOSE.y && after("ArrowDown").y < CLOSE.y);
  const back = after("-", after("+"));
  assert.ok(Math.abs(back.k - CLOSE.k) + Math.abs(back.x - CLOSE.x) + Math.abs(back.y - CLOSE.y) < 1e-9);
  assert.deepEqual(after("="), after("+"));
  assert.deepEqual(after("0"), WHOLE);
});

test("keys that are not the map's stay the browser's", () => {
  for (const key of ["Tab", "Enter", "Escape", "a", "PageDown"]) assert.equal(moveOf(key, WIDTH, HEIGHT), undefined);
});
