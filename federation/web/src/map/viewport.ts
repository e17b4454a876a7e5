// Zoom and pan as arithmetic: a point p of the projected world is seen at p * k + (x, y).

export interface Viewport {
  k: number;
  x: number;
  y: number;
}

export const WHOLE: Viewport = { k: 1, x: 0, y: 0 };
const MAX_ZOOM = 24;

/** Zoomed by `factor` with the point (px, py) of the screen held still. */
export function zoomed(
  from: Viewport,
  factor: number,
  px: number,
  py: number,
  width: number,
  height: number,
): Viewport {
  const k = Math.min(MAX_ZOOM, Math.max(1, from.k * factor));
  const scale = k / from.k;
  return held({ k, x: px - (px - from.x) * scale, y: py - (py - from.y) * scale }, width, height);
}

export function panned(from: Viewport, dx: number, dy: number, width: number, height: number): Viewport {
  return held({ k: from.k, x: from.x + dx, y: from.y + dy }, width, height);
}

/** Where a projected point is seen, in pixels of the frame. */
export function onScreen(view: Viewport, at: readonly [number, number]): readonly [number, number] {
  return [at[0] * view.k + view.x, at[1] * view.k + view.y];
}

export function isSeen(view: Viewport, at: readonly [number, number], width: number, height: number): boolean {
  const [x, y] = onScreen(view, at);
  return x >= 0 && y >= 0 && x <= width && y <= height;
}

/** Centred on a projected point; the zoom stays. */
export function centred(from: Viewport, px: number, py: number, width: number, height: number): Viewport {
  return held({ k: from.k, x: width / 2 - px * from.k, y: height / 2 - py * from.k }, width, height);
}

/** The world never leaves the frame. */
function held(view: Viewport, width: number, height: number): Viewport {
  const clamp = (value: number, size: number) => Math.min(0, Math.max(size - size * view.k, value));
  return { k: view.k, x: clamp(view.x, width), y: clamp(view.y, height) };
}
